"""A sound little environment, for tests that break it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.envs import Box, Discrete, TaskEnv, TimeStep, opening, transition
from jaxrl_seq.envs.core import rendering as draw

Array = jax.Array
SIDES = 4


@struct.dataclass
class RecallState:
    task: Array  # int32 [], the side to name
    t: Array  # int32 []


@struct.dataclass
class RecallParams:
    prize: Array  # float32 []


@dataclass(frozen=True)
class Recall(TaskEnv[Any, Any]):
    """See a side once, wait, name it at the end."""

    delay: int = 3

    name: ClassVar[str] = "recall"
    paper: ClassVar[str] = "none"

    @property
    def horizon(self) -> int:
        return self.delay + 1

    def default_params(self) -> Any:
        return RecallParams(prize=jnp.float32(1.0))

    def sample_task(self, key: Array, params: Any) -> Any:
        return jax.random.randint(key, (), 0, SIDES, jnp.int32)

    def tasks(self, params: Any) -> Any:
        return jnp.arange(SIDES, dtype=jnp.int32)

    def reset_to(self, key: Array, task: Any, params: Any) -> tuple[Any, TimeStep]:
        state = RecallState(task=task, t=jnp.int32(0))
        return state, opening(self._obs(state), info={"success": jnp.zeros((), bool)})

    def step(self, key: Array, state: Any, action: Any, params: Any) -> tuple[Any, TimeStep]:
        state = replace(state, t=state.t + 1)
        over = state.t >= self.horizon
        right = over & (action == state.task)
        reward = jnp.where(right, params.prize, 0.0)
        return state, transition(self._obs(state), reward, terminated=over, info={"success": right})

    def _obs(self, state: Any) -> Array:
        return jax.nn.one_hot(state.task, SIDES, dtype=jnp.float32) * (state.t == 0)

    def observation_space(self) -> Any:
        return Box(0.0, 1.0, (SIDES,))

    def action_space(self) -> Any:
        return Discrete(SIDES)

    def expert(self, key: Array, state: Any, params: Any) -> Any:
        return state.task

    def reference(self) -> dict[str, float]:
        return {"random": 1 / SIDES, "reactive": 1 / SIDES, "expert": 1.0}

    def render(self, state: Any, params: Any) -> Array:
        image = draw.canvas(16, 16, draw.BLACK)
        image = draw.paint(image, draw.rectangle(16, 16, 0, 4.0 * state.task, 4, 4.0 * state.task + 4), draw.GREEN)
        return draw.paint(image, draw.rectangle(16, 16, 8, 0, 16, 4.0 * state.t), draw.BLUE)

    def ascii(self, state: Any, params: Any) -> str:
        return f"side {int(state.task)}, step {int(state.t)}"
