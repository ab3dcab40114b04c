"""What the bandits share: pulls of arms whose means are the episode's hidden task, and their picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.protocol import Array, TaskEnv
from jaxrl_seq.envs.core.spaces import Box, Discrete
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition

Params = TypeVar("Params")


@struct.dataclass
class BanditState:
    task: Array  # float32 [A] arm means, or what they follow from
    arm: Array  # int32 [], the arm pulled last, -1 before
    paid: Array  # float32 [], what it paid
    t: Array  # int32 [], pulls so far


@dataclass(frozen=True)
class Bandit(TaskEnv[BanditState, Params], Generic[Params]):
    """`pulls` pulls of `arms` arms. Subclasses draw the task and the payouts.

    Observation float32 [1]: a constant 1; what was pulled and paid is the previous action and reward, which the
    framework supplies. Every pull pays; the episode ends with the last one. `info["regret"]`: how much less the arm
    pays in the mean than the best one.
    """

    arms: int = 5
    pulls: int = 100

    def __post_init__(self) -> None:
        for field, least in (("arms", 2), ("pulls", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"{self.name}: {field} must be at least {least}, got {getattr(self, field)}.")

    def means(self, task: Array, params: Params) -> Array:
        """float32 [A]: the mean payout of each arm."""
        return task

    def payout(self, key: Array, mean: Array, params: Params) -> Array:
        """float32 []: what an arm of that mean pays now. The key is consumed."""
        raise NotImplementedError

    @property
    def horizon(self) -> int:
        return self.pulls

    def reset_to(self, key: Array, task: Array, params: Params) -> tuple[BanditState, TimeStep]:
        del key
        state = BanditState(task=task, arm=jnp.int32(-1), paid=jnp.float32(0), t=jnp.int32(0))
        return state, opening(self._obs(), info={"regret": jnp.float32(0)})

    def step(self, key: Array, state: BanditState, action: Array, params: Params) -> tuple[BanditState, TimeStep]:
        means = self.means(state.task, params)
        paid = self.payout(key, means[action], params)
        state = BanditState(task=state.task, arm=jnp.asarray(action, jnp.int32), paid=paid, t=state.t + 1)
        info = {"regret": jnp.max(means) - means[action]}
        return state, transition(self._obs(), paid, terminated=state.t >= self.pulls, info=info)

    def _obs(self) -> Array:
        return jnp.ones(1, jnp.float32)

    def observation_space(self) -> Box:
        return Box(1.0, 1.0, (1,))

    def action_space(self) -> Discrete:
        return Discrete(self.arms)

    def expert(self, key: Array, state: BanditState, params: Params) -> Array:
        """The best arm."""
        del key
        return jnp.argmax(self.means(state.task, params)).astype(jnp.int32)

    def optimal_actions(self, state: BanditState, params: Params) -> Array:
        """bool [A]: the arms of the highest mean."""
        means = self.means(state.task, params)
        return means >= jnp.max(means)

    def optimal_return(self, task: Array, params: Params) -> Array:
        """float32 []: that of the best arm, pulled throughout."""
        return self.pulls * jnp.max(self.means(task, params))

    def render(self, state: BanditState, params: Params) -> Array:
        """uint8 [64, 128, 3]: the arms' means as bars about the zero line (the best green, the one pulled last on an
        orange ground), below the pulls used up."""
        height, width, top, bottom = 64, 128, 6, 54
        means = self.means(state.task, params)
        most = jnp.maximum(jnp.max(jnp.abs(means)), 1.0)
        zero = jnp.where(jnp.min(means) < 0, (top + bottom) / 2, bottom)
        column = np.arange(width) * self.arms // width
        gap = jnp.asarray(np.diff(np.floor(np.arange(width) * self.arms / width), prepend=-1) > 0)
        end = zero - (zero - top) * means[column] / most
        y = draw.grid(height, width)[0]
        inside = (y >= top) & (y < bottom) & ~gap
        bar = inside & (y >= jnp.minimum(zero, end)) & (y < jnp.maximum(zero, end) + 1)
        image = draw.canvas(height, width, (240, 242, 246))
        image = draw.paint(image, inside & (column == state.arm), (246, 222, 186))
        image = draw.paint(image, bar, (150, 158, 170))
        image = draw.paint(image, bar & (column == jnp.argmax(means)), draw.GREEN)
        light = draw.rectangle(height, width, 56, 0, 58, width) & (column == state.arm)
        image = draw.paint(image, light, jnp.where(state.paid > 0, jnp.array(draw.ORANGE), jnp.array(draw.RED)))
        return draw.paint(image, draw.rectangle(height, width, 60, 0, 64, width * state.t / self.pulls), draw.BLUE)

    def ascii(self, state: BanditState, params: Params) -> str:
        arm = int(state.arm)
        means = enumerate(np.asarray(self.means(state.task, params)))
        line = " ".join(f"[{mean:.2f}]" if i == arm else f" {mean:.2f} " for i, mean in means)
        return f"pull {int(state.t)} of {self.pulls}, paid {float(state.paid):.2f}\n{line}"


def expected_maximum(low: Any, high: Any, points: int = 20_001) -> float:
    """E[max_i U_i] of independent U_i uniform on [low_i, high_i], by integrating 1 - P(all <= x): exact to 1e-8."""
    low, high = np.atleast_1d(np.asarray(low, np.float64)), np.atleast_1d(np.asarray(high, np.float64))
    x = np.linspace(low.min(), high.max(), points)
    below = np.clip((x[:, None] - low) / (high - low), 0, 1).prod(axis=1)
    return float(low.min() + np.trapezoid(1 - below, x))
