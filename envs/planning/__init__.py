"""Decision processes given as tables and graphs."""

from jaxrl_seq.envs.core.entry import Entry

_HERE = "jaxrl_seq.envs.planning"
ENTRIES: dict[str, Entry] = {}
