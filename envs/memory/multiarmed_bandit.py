"""Multi-armed bandit: find the arm that pays most often, and stay with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.protocol import TaskEnv
from jaxrl_seq.envs.core.spaces import Box, Discrete
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition

Array = jax.Array


@struct.dataclass
class MultiarmedBanditState:
    task: Array  # float32 [K], the chance that each arm pays
    arm: Array  # int32 [], the arm pulled last; -1 before the first pull
    paid: Array  # bool [], whether it paid
    t: Array  # int32 [], pulls so far


@dataclass(frozen=True)
class MultiarmedBandit(TaskEnv[MultiarmedBanditState, tuple[()]]):
    """Pull one of K arms at each of `pulls` steps; each pays with a chance of its own (POPGym, Morad et al. 2023).

    A task is float32 [K], the arms' chances, uniform in [0, 1) and hidden. Observation float32 [1]: 1 if the last pull
    paid, else 0, as at the reset; which arm that was, the agent must know from its own previous action. Actions: the K
    arms. A pull that pays earns 1 / pulls, one that does not -1 / pulls. The episode lasts `pulls` steps. `info` is
    empty. No params.
    """

    arms: int = 10
    """How many arms there are, K."""
    pulls: int = 200
    """Steps of an episode."""

    name: ClassVar[str] = "multiarmed_bandit"
    paper: ClassVar[str] = "Morad et al. 2023 (arXiv 2303.01859)"

    def __post_init__(self) -> None:
        if self.arms < 2:
            raise ValueError(f"multiarmed_bandit: arms must be at least 2, got {self.arms}.")
        if self.pulls < 1:
            raise ValueError(f"multiarmed_bandit: pulls must be at least 1, got {self.pulls}.")

    @property
    def horizon(self) -> int:
        return self.pulls

    def default_params(self) -> tuple[()]:
        return ()

    def sample_task(self, key: Array, params: tuple[()]) -> Array:
        """float32 [K]: the chance that each arm pays."""
        return jax.random.uniform(key, (self.arms,), jnp.float32)

    def reset_to(self, key: Array, task: Array, params: tuple[()]) -> tuple[MultiarmedBanditState, TimeStep]:
        del key
        state = MultiarmedBanditState(task=task, arm=jnp.int32(-1), paid=jnp.zeros((), bool), t=jnp.int32(0))
        return state, opening(self._obs(state))

    def step(
        self, key: Array, state: MultiarmedBanditState, action: Array, params: tuple[()]
    ) -> tuple[MultiarmedBanditState, TimeStep]:
        paid = jax.random.uniform(key, (), jnp.float32) < state.task[action]
        state = MultiarmedBanditState(task=state.task, arm=jnp.asarray(action, jnp.int32), paid=paid, t=state.t + 1)
        reward = jnp.where(paid, 1.0, -1.0) / self.pulls
        return state, transition(self._obs(state), reward, terminated=state.t >= self.pulls)

    def _obs(self, state: MultiarmedBanditState) -> Array:
        return state.paid.astype(jnp.float32)[None]

    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (1,))

    def action_space(self) -> Discrete:
        return Discrete(self.arms)

    def expert(self, key: Array, state: MultiarmedBanditState, params: tuple[()]) -> Array:
        """The arm that pays most often. It knows the chances, so its return is a bound for whoever must find it."""
        del key
        return jnp.argmax(state.task).astype(jnp.int32)

    def optimal_return(self, task: Array, params: tuple[()]) -> Array:
        """float32 []: that of the best arm at every step."""
        return 2 * jnp.max(task) - 1

    def reference(self) -> dict[str, float]:
        """Exact: the largest of K uniform chances is K / (K + 1) on average. `reactive` is left out: a policy that sees
        the payout but not the arm may stay with one arm while it pays and else try any; its best mixture is unknown."""
        return {"random": 0.0, "expert": 2 * self.arms / (self.arms + 1) - 1}

    def render(self, state: MultiarmedBanditState, params: tuple[()]) -> Array:
        """uint8 [64, 128, 3]: the arms' chances (the best green); above the one pulled last a coin, or a red dot."""
        height, width, top, bottom, left, right = 64, 128, 14, 56, 4, 124
        image = draw.canvas(height, width, (240, 242, 246))
        x = np.arange(width) - left
        place = jnp.asarray(np.clip(x * self.arms // (right - left), 0, self.arms - 1), jnp.int32)
        gap = np.diff(np.floor(x * self.arms / (right - left)), prepend=-1) > 0
        column = jnp.asarray((x >= 0) & (x < right - left) & ~gap)
        y = draw.grid(height, width)[0]
        slot = (y >= top) & (y < bottom) & column
        best, pulled = place == jnp.argmax(state.task), place == state.arm
        image = draw.paint(image, slot, (222, 226, 232))
        image = draw.paint(image, slot & pulled, (246, 222, 186))
        filled = slot & (y > bottom - (bottom - top) * state.task[place])
        image = draw.paint(image, filled, (150, 158, 170))
        image = draw.paint(image, filled & best, draw.GREEN)
        centre = left + (state.arm + 0.5) * (right - left) / self.arms
        light = draw.disc(height, width, 7.0, centre, 4.5) & (state.arm >= 0)
        image = draw.paint(image, light, jnp.where(state.paid, jnp.asarray((240, 180, 20)), jnp.asarray(draw.RED)))
        done = draw.rectangle(height, width, height - 4, 0, height, width * state.t / self.pulls)
        return draw.paint(image, done, draw.BLUE)

    def ascii(self, state: MultiarmedBanditState, params: tuple[()]) -> str:
        arm, mark = int(state.arm), "+" if bool(state.paid) else "-"
        chances = " ".join(
            f"{'[' if i == arm else ' '}{p:.2f}{mark if i == arm else ' '}"
            for i, p in enumerate(np.asarray(state.task))
        )
        return f"pull {int(state.t)} of {self.pulls}\n{chances}"
