"""Safe grid: the short way crosses hazards, the long way goes around them, and every budget between has its best."""

from __future__ import annotations

import functools
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
class SafeGridParams:
    cost: Array
    """float32 []: cost of a step that ends in a hazard."""


@dataclass(frozen=True)
class SafeGrid(MapWorld[SafeGridParams]):
    """Walk from S to G: straight on through `hazards` hazards, or around them; each row higher has one hazard less
    and makes the way two steps longer.

    A step pays -1 and its `TimeStep.cost`, float32 [1], is `params.cost` if it ends in a hazard, else 0. The episode
    terminates at G and is truncated after `limit` steps. Observation float32 [N]: the cell, one-hot. Actions: up,
    right, down, left; a wall leaves the agent in place. `info["success"]`: G was entered. `front` is the exact best
    return for each cost limit, `guide` walks it; the budget is no part of the environment.
    """

    limit: int = 50
    """Steps until the episode is cut."""
    hazards: int = 5
    """Hazards on the straight way."""

    name: ClassVar[str] = "safe_grid"
    paper: ClassVar[str] = "made for Liu et al. 2023 (arXiv 2302.07351); the map is ours"
    palette: ClassVar[dict[str, tuple[int, int, int]]] = {"S": (160, 190, 230), "x": (232, 138, 120), "G": draw.GREEN}

    def __post_init__(self) -> None:
        if self.hazards < 1:
            raise ValueError(f"safe_grid: hazards must be at least 1, got {self.hazards}.")
        around = 3 * self.hazards + 1
        if self.limit < around:
            raise ValueError(f"safe_grid: limit must be at least {around}, the way around, got {self.limit}.")

    def _text(self) -> str:
        num = self.hazards
        rows = [f"#.{'x' * (num - high)}{'.' * high}.#" for high in range(num, 0, -1)]
        rim = "#" * (num + 4)
        return "\n".join([rim, *rows, f"#S{'x' * num}G#", rim])

    def default_params(self) -> SafeGridParams:
        return SafeGridParams(cost=jnp.float32(1.0))

    def reset(self, key: Array, params: SafeGridParams) -> tuple[WalkState, TimeStep]:
        del key, params
        state = WalkState(cell=jnp.int32(self.cell("S")), t=jnp.int32(0))
        cost, no = jnp.zeros((1,), jnp.float32), jnp.zeros((), bool)
        return state, opening(self._obs(state), cost=cost, info={"success": no})

    def step(self, key: Array, state: WalkState, action: Array, params: SafeGridParams) -> tuple[WalkState, TimeStep]:
        del key
        state = WalkState(cell=self._moved(state.cell, action), t=state.t + 1)
        success = state.cell == self.cell("G")
        return state, transition(
            self._obs(state),
            -1.0,
            terminated=success,
            truncated=state.t >= self.limit,
            cost=jnp.where(jnp.asarray(self.map.mask("x"))[state.cell], params.cost, 0.0).astype(jnp.float32)[None],
            info={"success": success},
        )

    def guide(self, state: WalkState, budget: Array | int) -> Array:
        """int32 []: the best action while at most `budget` more steps (int32 [], may be traced) may end in a hazard:
        the shortest way to G that keeps to it, or the way that exceeds it least if there is none."""
        return jnp.asarray(_budgeted(self)[1])[jnp.clip(budget, 0, self.hazards), state.cell]

    def expert(self, key: Array, state: WalkState, params: SafeGridParams) -> Array:
        """The best return at any cost: straight on."""
        del key, params
        return self.guide(state, self.hazards)

    def front(self) -> list[tuple[int, float]]:
        """Exact Pareto front at the default params: (cost limit, best return of an episode that keeps to it), by
        dynamic programming over (budget left, cell). It is a straight line, so mixing policies gains nothing where
        only the mean cost is limited."""
        steps = _budgeted(self)[0][:, self.cell("S")]
        return [(budget, -float(n)) for budget, n in enumerate(steps) if budget == 0 or n < steps[budget - 1]]

    def reference(self) -> dict[str, float]:
        """All exact: random play by propagation. The observation is the state, so memory adds nothing."""
        moves = self.map.moves[:, :STAY]
        uniform, chances = np.full(moves.shape, 1 / STAY), np.eye(len(moves))[moves]
        rewards = np.full(moves.shape, -1.0)
        random = mean_return(chances, rewards, self.map.mask("G"), uniform, self.cell("S"), self.limit)
        best = -float(self.hazards + 1)
        return {"random": random, "reactive": best, "expert": best}


@functools.lru_cache(maxsize=64)
def _budgeted(env: SafeGrid) -> tuple[np.ndarray, np.ndarray]:
    """(steps float [B + 1, N], actions int32 [B + 1, N]): the shortest ways to G by budget, `inf` where none keeps to
    it, and their first moves. B = `hazards` suffices from every cell."""
    moves, hazard = env.map.moves[:, :STAY], env.map.mask("x")
    budgets = np.arange(env.hazards + 1)[:, None, None]
    left = budgets - hazard[moves]
    steps = np.where(env.map.mask("G"), 0.0, np.full((len(budgets), 1), np.inf))
    for _ in range(2 * len(moves)):
        of_actions = 1 + np.where(left >= 0, steps[np.maximum(left, 0), moves], np.inf)
        steps = np.where(env.map.mask("G"), 0.0, of_actions.min(axis=2))
    actions = of_actions.argmin(axis=2).astype(np.int32)
    for budget in range(env.hazards - 1, -1, -1):
        actions[budget] = np.where(np.isfinite(steps[budget]), actions[budget], actions[budget + 1])
    return steps, actions
