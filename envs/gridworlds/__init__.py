"""Worlds of cells."""

from jaxrl_seq.envs.core.entry import Entry

_HERE = "jaxrl_seq.envs.gridworlds"
ENTRIES: dict[str, Entry] = {}
