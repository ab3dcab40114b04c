"""Cliff walk: the shortest way to the goal runs along a cliff."""

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

_FALL = 100.0


@struct.dataclass
class CliffWalkParams:
    fall: Array
    """float32 []: what a fall costs."""


@dataclass(frozen=True)
class CliffWalk(MapWorld[CliffWalkParams]):
    """Walk from the lower left to the lower right corner; all cells between them on the bottom row are a cliff.

    A step pays -1; one off the cliff pays -fall instead and puts the agent back to the start. The episode terminates
    at the goal and is truncated after `limit` steps (gymnasium's CliffWalking-v1, otherwise the same, never cuts).
    Observation float32 [height * width]: the cell, one-hot, in gymnasium's numbering. Actions: up, right, down, left;
    the rim leaves the agent in place. Slippery: the agent goes where it wants or to either side of that, with chance
    1/3 each. `info["success"]`: the goal was reached.
    """

    height: int = 4
    width: int = 12
    slippery: bool = False
    """A move may turn by 90 degrees."""

    name: ClassVar[str] = "cliff_walk"
    paper: ClassVar[str] = "Sutton & Barto 2018, example 6.6; Gymnasium CliffWalking-v1"
    palette: ClassVar[dict[str, tuple[int, int, int]]] = {"S": (160, 190, 230), "C": (96, 62, 54), "G": draw.GREEN}

    def __post_init__(self) -> None:
        for field, least in (("height", 2), ("width", 3), ("limit", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"cliff_walk: {field} must be at least {least}, got {getattr(self, field)}.")

    def _text(self) -> str:
        return "\n".join(["." * self.width] * (self.height - 1) + ["S" + "C" * (self.width - 2) + "G"])

    def default_params(self) -> CliffWalkParams:
        return CliffWalkParams(fall=jnp.float32(_FALL))

    def reset(self, key: Array, params: CliffWalkParams) -> tuple[WalkState, TimeStep]:
        del key, params
        state = WalkState(cell=jnp.int32(self.cell("S")), t=jnp.int32(0))
        return state, opening(self._obs(state), info={"success": jnp.zeros((), bool)})

    def step(self, key: Array, state: WalkState, action: Array, params: CliffWalkParams) -> tuple[WalkState, TimeStep]:
        if self.slippery:
            action = (action + jax.random.randint(key, (), -1, 2, jnp.int32)) % STAY
        arrived = self._moved(state.cell, action)
        fell = jnp.asarray(self.map.mask("C"))[arrived]
        state = WalkState(cell=jnp.where(fell, self.cell("S"), arrived).astype(jnp.int32), t=state.t + 1)
        success = state.cell == self.cell("G")
        return state, transition(
            self._obs(state),
            jnp.where(fell, -params.fall, -1.0),
            terminated=success,
            truncated=state.t >= self.limit,
            info={"success": success},
        )

    def expert(self, key: Array, state: WalkState, params: CliffWalkParams) -> Array:
        """The optimum of the episode that is never cut. Slippery: that of the default `fall`."""
        del key, params
        return jnp.asarray(_best_actions(self))[state.cell]

    def reference(self) -> dict[str, float]:
        """All exact, by propagation. The observation is the state; yet on slippery ground a policy could earn more by
        counting on the cut, so no best memoryless policy is given there."""
        chances, rewards, ends = _model(self)
        start, uniform = self.cell("S"), np.full(rewards.shape, 1 / STAY)
        random = mean_return(chances, rewards, ends, uniform, start, self.limit)
        expert = mean_return(chances, rewards, ends, np.eye(STAY)[_best_actions(self)], start, self.limit)
        return {"random": random, "expert": expert} | ({} if self.slippery else {"reactive": expert})


def _model(env: CliffWalk) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(chances [N, A, N] of the next cell, expected rewards [N, A], ends bool [N]) at the default params."""
    arrived = env.map.moves[:, :STAY]
    fell = env.map.mask("C")[arrived]
    chances = np.eye(len(arrived))[np.where(fell, env.cell("S"), arrived)]
    rewards = np.where(fell, -_FALL, -1.0)
    if env.slippery:
        chances = np.mean([np.roll(chances, turn, axis=1) for turn in (-1, 0, 1)], axis=0)
        rewards = np.mean([np.roll(rewards, turn, axis=1) for turn in (-1, 0, 1)], axis=0)
    return chances, rewards, env.map.mask("G")


@functools.lru_cache(maxsize=64)
def _best_actions(env: CliffWalk) -> np.ndarray:
    """int32 [N]: the actions that maximise the return of an episode without a cut, by value iteration."""
    chances, rewards, ends = _model(env)
    values, change = np.zeros(len(ends)), np.inf
    while change > 1e-9:
        of_actions = rewards + chances @ (values * ~ends)
        change = np.abs(of_actions.max(axis=1) - values).max()
        values = of_actions.max(axis=1)
    return of_actions.argmax(axis=1).astype(np.int32)
