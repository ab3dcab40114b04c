"""Cross roads: two roads cross; the good end of one is reached from the start of the other by turning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.gridworlds.grid_stitch import Corridors


@dataclass(frozen=True)
class CrossRoads(Corridors):
    """One road leads from A in the west to X in the east, the other from B in the south to G in the north; they
    cross at M, `arm` cells from everything.

    X pays -1, G pays 1; both end the episode, which is truncated after `limit` steps; nothing else pays. Observation
    float32 [4 arm + 1]: the cell, one-hot. Actions: up, right, down, left; a wall leaves the agent in place.
    `info["success"]`: G was entered. Episodes open at A. Data sets by their walks, in `legs`: "crossing" (A to X, B to
    G: who drives straight on from A is lost, and what the past tells at M is misleading) and "stitching" (A to M, M to
    G: no episode leads from A to G, and none from A pays; record it with `limit` = `arm`, which cuts at M and at G).
    """

    arm: int = 4
    """Steps from the crossing to each of the four ends."""

    name: ClassVar[str] = "cross_roads"
    paper: ClassVar[str] = "stitching as in Wu et al. 2023 (arXiv 2307.02484); the map is ours"
    opens: ClassVar[str] = "A"
    ends: ClassVar[dict[str, float]] = {"X": -1.0, "G": 1.0}
    legs: ClassVar[dict[str, tuple[str, ...]]] = {"crossing": ("AX", "BG"), "stitching": ("AM", "MG")}
    palette: ClassVar[dict[str, tuple[int, int, int]]] = {
        "A": (160, 190, 230), "B": (225, 205, 170), "X": draw.RED, "G": draw.GREEN, "M": (228, 224, 210),
    }  # fmt: skip

    def __post_init__(self) -> None:
        for field, least in (("arm", 1), ("limit", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"cross_roads: {field} must be at least {least}, got {getattr(self, field)}.")

    def _text(self) -> str:
        side, road = "#" * (self.arm + 1), "." * (self.arm - 1)
        column = [f"{side}{letter}{side}" for letter in "G" + road]
        rim = "#" * len(column[0])
        across = f"#A{road}M{road}X#"
        return "\n".join([rim, *column, across, *column[:0:-1], f"{side}B{side}", rim])
