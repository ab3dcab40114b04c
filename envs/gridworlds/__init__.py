"""Worlds of cells."""

from jaxrl_seq.envs.core.entry import Entry

_HERE = "jaxrl_seq.envs.gridworlds"
ENTRIES: dict[str, Entry] = {
    "darkroom": Entry(
        f"{_HERE}.darkroom:DarkRoom",
        {
            "hard": {"size": 17, "once": True},
            "dpt": {"size": 10, "limit": 100, "corner": True},
            "permuted": {"size": 10, "limit": 100, "corner": True, "permuted": True},
            "small": {"size": 5, "limit": 12},
        },
    ),
    "dark_key_to_door": Entry(f"{_HERE}.darkroom:DarkKeyToDoor"),
    "grid_stitch": Entry(f"{_HERE}.grid_stitch:GridStitch"),
    "cross_roads": Entry(f"{_HERE}.cross_roads:CrossRoads"),
    "cliff_walk": Entry(f"{_HERE}.cliff_walk:CliffWalk", {"slippery": {"slippery": True}}),
    "safe_grid": Entry(f"{_HERE}.safe_grid:SafeGrid"),
}
