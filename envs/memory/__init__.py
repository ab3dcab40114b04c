"""Tasks that a policy without memory cannot solve."""

from jaxrl_seq.envs.core.entry import Entry

_HERE = "jaxrl_seq.envs.memory"
ENTRIES = {
    "tmaze": Entry(
        f"{_HERE}.tmaze:TMaze",
        {"active": {"active": True}} | {str(n): {"length": n} for n in (10, 20, 50, 100, 500, 1000, 10_000, 1_000_000)},
    ),
    "repeat_previous": Entry(
        f"{_HERE}.repeat_previous:RepeatPrevious",
        {"easy": {"decks": 1, "k": 4}, "medium": {"decks": 2, "k": 32}, "hard": {"decks": 3, "k": 64}},
    ),
    "repeat_first": Entry(
        f"{_HERE}.repeat_first:RepeatFirst",
        {"easy": {"decks": 1}, "medium": {"decks": 8}, "hard": {"decks": 16}},
    ),
    "autoencode": Entry(
        f"{_HERE}.autoencode:Autoencode",
        {"easy": {"decks": 1}, "medium": {"decks": 2}, "hard": {"decks": 3}},
    ),
    "count_recall": Entry(
        f"{_HERE}.count_recall:CountRecall",
        {
            "easy": {"decks": 1, "kinds": 2},
            "medium": {"decks": 2, "kinds": 4},
            "hard": {"decks": 4, "kinds": 13},
        },
    ),
    "higher_lower": Entry(
        f"{_HERE}.higher_lower:HigherLower",
        {"easy": {"decks": 1}, "medium": {"decks": 2}, "hard": {"decks": 3}},
    ),
    "multiarmed_bandit": Entry(
        f"{_HERE}.multiarmed_bandit:MultiarmedBandit",
        {
            "easy": {"arms": 10, "pulls": 200},
            "medium": {"arms": 20, "pulls": 400},
            "hard": {"arms": 30, "pulls": 600},
        },
    ),
    "concentration": Entry(
        f"{_HERE}.concentration:Concentration",
        {
            "easy": {"decks": 1, "kinds": 2},
            "medium": {"decks": 2, "kinds": 2},
            "hard": {"decks": 1, "kinds": 13},
        },
    ),
    "battleship": Entry(
        f"{_HERE}.battleship:Battleship",
        {"easy": {"size": 8}, "medium": {"size": 10}, "hard": {"size": 12}},
    ),
    "minesweeper": Entry(
        f"{_HERE}.minesweeper:Minesweeper",
        {
            "easy": {"size": 4, "mines": 2},
            "medium": {"size": 6, "mines": 6},
            "hard": {"size": 8, "mines": 10},
        },
    ),
    "associative_recall": Entry(f"{_HERE}.associative_recall:AssociativeRecall"),
    "memory_len": Entry(f"{_HERE}.memory_chain:MemoryLen", {str(n): {"length": n} for n in (10, 30, 100)}),
    "memory_size": Entry(f"{_HERE}.memory_chain:MemorySize", {str(n): {"bits": n} for n in (5, 10, 20, 40)}),
    "key_to_door": Entry(
        f"{_HERE}.key_to_door:KeyToDoor",
        {str(n): {"delay": n} for n in (60, 250, 500)}
        # The Decision Transformer's variant, by the length of its episodes.
        | {f"sparse{n}": {"delay": n - 25, "apples": 0, "door_reward": 1.0} for n in (30, 60, 90)},
    ),
    "mystery_path": Entry(f"{_HERE}.mystery_path:MysteryPath", {"small": {"size": 5}, "progress": {"progress": 0.1}}),
    "mortar_mayhem": Entry(f"{_HERE}.mortar_mayhem:MortarMayhem", {"given": {"given": True}, "5": {"commands": 5}}),
}
