"""Grid stitch: two corridors that share their middle; the way from start to goal is made of halves of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition
from jaxrl_seq.envs.gridworlds.grid import STAY, MapWorld, WalkState, mean_return

Array = jax.Array


@struct.dataclass
class StartParams:
    start: Array
    """int32 []: number of the cell where episodes open, clipped to 0 .. N - 1; see `cell`."""


@dataclass(frozen=True)
class Corridors(MapWorld[StartParams]):
    """A map whose ends pay and end the episode, all other steps pay nothing. What a data set of it needs is here:
    `params.start` opens an episode in any cell, `guide` walks to any cell, `legs` names what to record."""

    opens: ClassVar[str] = ""
    """Letter of the cell where episodes open by default."""
    goal: ClassVar[str] = "G"
    ends: ClassVar[dict[str, float]] = {}
    """Letter of an end -> reward of entering it."""
    legs: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Name of a data set -> its walks, each two letters: from, to."""

    def default_params(self) -> StartParams:
        return StartParams(start=jnp.int32(self.cell(self.opens)))

    def reset(self, key: Array, params: StartParams) -> tuple[WalkState, TimeStep]:
        del key
        start = jnp.clip(params.start, 0, len(self.map.cells) - 1).astype(jnp.int32)
        state = WalkState(cell=start, t=jnp.int32(0))
        return state, opening(self._obs(state), info={"success": jnp.zeros((), bool)})

    def step(self, key: Array, state: WalkState, action: Array, params: StartParams) -> tuple[WalkState, TimeStep]:
        del key, params
        state = WalkState(cell=self._moved(state.cell, action), t=state.t + 1)
        return state, transition(
            self._obs(state),
            jnp.asarray(self._pay())[state.cell],
            terminated=jnp.asarray(self._is_end())[state.cell],
            truncated=state.t >= self.limit,
            info={"success": state.cell == self.cell(self.goal)},
        )

    def _pay(self) -> np.ndarray:
        """float32 [N]: the reward of entering a cell."""
        return np.array([self.ends.get(letter, 0.0) for letter in self.map.letters], np.float32)

    def _is_end(self) -> np.ndarray:
        """bool [N]."""
        return np.array([letter in self.ends for letter in self.map.letters])

    def guide(self, state: WalkState, target: Array | int) -> Array:
        """int32 []: the next action of a shortest way to the cell `target` (int32 [], may be traced)."""
        return jnp.asarray(self.map.routes)[target, state.cell]

    def expert(self, key: Array, state: WalkState, params: StartParams) -> Array:
        """The shortest way to the goal, which no other end lies on."""
        del key, params
        return self.guide(state, self.cell(self.goal))

    def reference(self) -> dict[str, float]:
        """All exact: random play by propagation. The observation is the state, so memory adds nothing."""
        moves, is_end, start = self.map.moves[:, :STAY], self._is_end(), self.cell(self.opens)
        best = self.map.distances[self.cell(self.goal), start] <= self.limit
        optimum = self.ends[self.goal] if best else 0.0
        uniform = np.full(moves.shape, 1 / STAY)
        chances = np.eye(len(moves))[moves]
        random = mean_return(chances, self._pay()[moves], is_end, uniform, start, self.limit)
        return {"random": random, "reactive": optimum, "expert": optimum}


@dataclass(frozen=True)
class GridStitch(Corridors):
    """Two corridors, S to D and T to G, run together for `overlap` cells; only stitching leads from S to G.

    Each corridor has an arm of `arm` cells at either end. Observation float32 [N]: the cell, one-hot. Actions: up,
    right, down, left; a wall leaves the agent in place. Entering G pays 1 and ends the episode, nothing else pays; it
    is truncated after `limit` steps. `info["success"]`: G was entered. Episodes open at S, in the lower left. The
    data have walks from S to D and from T to G only (`legs["stitch"]`): no episode of them leads from S to G. All
    four ways, S or T to D or G, take `way` = 2 arm + overlap + 1 steps; recorded with that `limit`, each episode ends
    where its corridor does.
    """

    arm: int = 4
    """Cells of a corridor before and after the shared part."""
    overlap: int = 4
    """Cells of the shared part, its two ends not counted."""

    name: ClassVar[str] = "grid_stitch"
    paper: ClassVar[str] = "stitching as in Zhou et al. 2023 (arXiv 2310.19308); the map is ours"
    opens: ClassVar[str] = "S"
    ends: ClassVar[dict[str, float]] = {"G": 1.0}
    legs: ClassVar[dict[str, tuple[str, ...]]] = {"stitch": ("SD", "TG")}
    palette: ClassVar[dict[str, tuple[int, int, int]]] = {
        "S": (160, 190, 230), "T": (225, 205, 170), "D": (190, 190, 196), "G": draw.GREEN,
    }  # fmt: skip

    def __post_init__(self) -> None:
        for field, least in (("arm", 2), ("overlap", 0), ("limit", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"grid_stitch: {field} must be at least {least}, got {getattr(self, field)}.")

    @property
    def way(self) -> int:
        """Steps from S or T to D or G."""
        return 2 * self.arm + self.overlap + 1

    def _text(self) -> str:
        arm, wall = "." * (self.arm - 1), "#" * self.overlap
        side = "#" * self.arm
        rows = [f"#T{arm}{wall}{arm}D#", f"{side}{'.' * (self.overlap + 2)}{side}", f"#S{arm}{wall}{arm}G#"]
        rim = "#" * len(rows[0])
        return "\n".join([rim, *rows, rim])
