"""Worlds of cells."""

from jaxrl_seq.envs.core.entry import Entry

_HERE = "jaxrl_seq.envs.gridworlds"
ENTRIES: dict[str, Entry] = {
    "grid_stitch": Entry(f"{_HERE}.grid_stitch:GridStitch"),
    "cross_roads": Entry(f"{_HERE}.cross_roads:CrossRoads"),
    "cliff_walk": Entry(f"{_HERE}.cliff_walk:CliffWalk", {"slippery": {"slippery": True}}),
    "safe_grid": Entry(f"{_HERE}.safe_grid:SafeGrid"),
}
