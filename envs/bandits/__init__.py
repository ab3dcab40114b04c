"""Choices without a world: arms that pay."""

from jaxrl_seq.envs.core.entry import Entry

_HERE = "jaxrl_seq.envs.bandits"
ENTRIES: dict[str, Entry] = {
    "gamble": Entry(f"{_HERE}.gamble:Gamble"),
}
