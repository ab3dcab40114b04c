"""Decision processes given as tables and graphs."""

from jaxrl_seq.envs.core.entry import Entry

_HERE = "jaxrl_seq.envs.planning"
ENTRIES: dict[str, Entry] = {
    "tabular_mdp": Entry(f"{_HERE}.tabular_mdp:TabularMDP"),
    "graph_walk": Entry(
        f"{_HERE}.graph_walk:GraphWalk",
        {"goals": {"vary_goal": True}, "50": {"nodes": 50, "density": 0.02, "limit": 20}},
    ),
}
