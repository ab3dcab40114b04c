"""Tasks that a policy without memory cannot solve."""

from jaxrl_seq.envs.core.entry import Entry

_HERE = "jaxrl_seq.envs.memory"
ENTRIES = {
    "tmaze": Entry(
        f"{_HERE}.tmaze:TMaze",
        {"active": {"active": True}} | {str(n): {"length": n} for n in (10, 20, 50, 100, 500, 1000)},
    ),
    "repeat_previous": Entry(
        f"{_HERE}.repeat_previous:RepeatPrevious",
        {"easy": {"decks": 1, "k": 4}, "medium": {"decks": 2, "k": 32}, "hard": {"decks": 3, "k": 64}},
    ),
    "associative_recall": Entry(f"{_HERE}.associative_recall:AssociativeRecall"),
}
