"""Batches drawn from a data set: pure functions of a key that run inside the compiled loop.

    sampler = Windows(length=20)
    batch = sampler(key, dataset, 64)           # [W, B, ...] = [20, 64, ...]

A sampler is a frozen dataclass of static choices. It reads the rows that it needs and no others: a step of training
costs the batch, however large the data set is. Pass the data set to `jit` as an argument, not as a constant.

Windows lie within one episode. What would reach past its end is zero and `mask` is False there (padding is on the right
only); windows do reach the last step, and episodes shorter than a window are drawn like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.envs.core.vector import Inputs
from jaxrl_seq.offline.dataset import Dataset, next_obs
from jaxrl_seq.types import Array, PyTree

Weight = Literal["step", "episode"]
Anchor = Literal["start", "end", "first"]


@struct.dataclass
class Window:
    """W steps in a row of B episodes, [W, B, ...] each unless said; zero where `mask` is False."""

    obs: PyTree
    action: PyTree
    reward: Array
    next_obs: PyTree
    """What the action led to; at an episode's end the final observation."""
    terminated: Array
    truncated: Array
    t: Array
    """int32: steps before this one in its episode."""
    rtg: Array
    """float32: return-to-go, this reward included."""
    prev_action: PyTree
    prev_reward: Array
    """Of the step before, also before the window; zero where `t` is 0."""
    mask: Array
    """bool: a step of the episode, no padding."""
    extra: dict[str, Array]
    """Further columns of the data set."""
    index: Array
    """int32: row in the data set; in padding that of the episode's last step."""
    clock: Array
    """int32 []: steps that a memory has taken before the window; see `jaxrl_seq.ops.set_clocks`."""

    @property
    def reset(self) -> Array:
        """bool [W, B]: where a memory starts afresh, the first step of a window."""
        return jnp.zeros_like(self.mask).at[0].set(True)

    @property
    def inputs(self) -> Inputs:
        """As an agent of `jaxrl_seq.agents` reads them; `first` is True where an episode opens."""
        first = self.mask & (self.t == 0)
        return Inputs(self.obs, self.prev_action, self.prev_reward, first, self.extra.get("action_mask"))


@struct.dataclass
class Transition:
    """B steps, or n steps in one, [B, ...] each: the target is reward + discount * ~terminated * V(next_obs)."""

    obs: PyTree
    action: PyTree
    reward: Array
    """float32: discounted sum of the rewards of these steps."""
    next_obs: PyTree
    """After the last of them; of a truncated episode its final observation."""
    terminated: Array
    """bool: the last of them terminated the episode, so nothing lies beyond."""
    truncated: Array
    """bool: it was cut; `next_obs` still has a value."""
    discount: Array
    """float32: gamma to the number of steps, which is less than n before an end."""
    extra: dict[str, Array]
    index: Array
    """int32: row of the first of them."""


@dataclass(frozen=True)
class Windows:
    """Draws windows of `length` steps. Raises ValueError for sizes and names that make no sense."""

    length: int
    """W."""
    weight: Weight = "step"
    """What is drawn uniformly: "step", so that an episode counts by its length, or "episode", then a step of it."""
    anchor: Anchor = "start"
    """The drawn step is the window's "start" (Chen et al. 2021) or its "end" (each step is the last one equally often,
    and opening steps have as little past as they do when acting), or every window opens its episode ("first")."""

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"Windows: length must be at least 1, got {self.length}.")
        for name, kinds in (("weight", ("step", "episode")), ("anchor", ("start", "end", "first"))):
            if getattr(self, name) not in kinds:
                raise ValueError(f"Windows: {name} must be one of {', '.join(kinds)}, got {getattr(self, name)!r}.")

    def __call__(self, key: Array, dataset: Dataset, batch: int) -> Window:
        """`batch` windows, [W, B, ...]. The key is consumed."""
        if self.anchor == "first":
            row_key, clock_key = jax.random.split(key)
            row = _draw(row_key, dataset, batch, self.weight)
            # a memory of whole episodes acts in one after the other, so that they begin at any clock
            clock = jax.random.randint(clock_key, (), 0, 1 << 16, jnp.int32)
            return replace(read_windows(dataset, row - dataset.t[row], self.length), clock=clock)
        row = _draw(key, dataset, batch, self.weight)
        if self.anchor == "start":
            return read_windows(dataset, row, self.length)
        back = jnp.minimum(dataset.t[row], self.length - 1)
        return read_windows(dataset, row - back, self.length, stop=back)


def read_windows(dataset: Dataset, row: Array, length: int, stop: Array | None = None) -> Window:
    """The windows of `length` steps that begin at the rows `row` (int32 [B]), [W, B, ...].

    stop: int32 [B], steps after the first that are shown at most; None: to the end of the episode.
    """
    left = dataset.to_end[row] if stop is None else jnp.minimum(dataset.to_end[row], stop)
    steps = jnp.arange(length, dtype=jnp.int32)[:, None]
    mask, index = steps <= left, row + jnp.minimum(steps, left)
    before, opens = jnp.maximum(index - 1, 0), dataset.t[index] == 0

    def read(column: PyTree) -> PyTree:
        return jax.tree.map(lambda x: _zero_unless(mask, x[index]), column)

    def previous(column: PyTree) -> PyTree:
        return jax.tree.map(lambda x: _zero_unless(mask & ~opens, x[before]), column)

    return Window(
        obs=read(dataset.obs),
        action=read(dataset.action),
        reward=read(dataset.reward),
        next_obs=jax.tree.map(lambda x: _zero_unless(mask, x), next_obs(dataset, index)),
        terminated=read(dataset.terminated),
        truncated=read(dataset.truncated),
        t=read(dataset.t),
        rtg=read(dataset.rtg),
        prev_action=previous(dataset.action),
        prev_reward=previous(dataset.reward),
        mask=mask,
        extra=read(dataset.extra),
        index=index,
        clock=jnp.int32(0),
    )


@dataclass(frozen=True)
class Transitions:
    """Draws transitions over `n` steps. Raises ValueError for sizes and names that make no sense."""

    n: int = 1
    weight: Weight = "step"

    def __post_init__(self) -> None:
        if self.n < 1 or self.weight not in ("step", "episode"):
            raise ValueError(f"Transitions: n ({self.n}) must be at least 1, weight ({self.weight!r}) step or episode.")

    def __call__(self, key: Array, dataset: Dataset, batch: int, gamma: Array | float = 0.99) -> Transition:
        """`batch` transitions, [B, ...]; gamma may be traced. The key is consumed."""
        return read_transitions(dataset, _draw(key, dataset, batch, self.weight), self.n, gamma)


def read_transitions(dataset: Dataset, row: Array, n: int, gamma: Array | float) -> Transition:
    """The transitions over `n` steps that begin at the rows `row` (int32 [B])."""
    left = jnp.minimum(dataset.to_end[row], n - 1)
    last, steps = row + left, jnp.arange(n, dtype=jnp.int32)[:, None]
    inside = steps <= left
    rewards = jnp.where(inside, dataset.reward[row + jnp.minimum(steps, left)], 0.0)
    powers = jnp.asarray(gamma, jnp.float32) ** steps.astype(jnp.float32)

    def first(column: PyTree) -> Any:
        return jax.tree.map(lambda x: x[row], column)

    return Transition(
        obs=first(dataset.obs),
        action=first(dataset.action),
        reward=jnp.sum(powers * rewards, axis=0),
        next_obs=next_obs(dataset, last),
        terminated=dataset.terminated[last],
        truncated=dataset.truncated[last],
        discount=jnp.asarray(gamma, jnp.float32) ** (left + 1).astype(jnp.float32),
        extra=first(dataset.extra),
        index=row,
    )


def _draw(key: Array, dataset: Dataset, batch: int, weight: Weight) -> Array:
    """int32 [B]: rows of the data set. The key is consumed."""
    if weight == "step":
        return jax.random.randint(key, (batch,), 0, dataset.steps, jnp.int32)
    episode_key, step_key = jax.random.split(key)
    episode = jax.random.randint(episode_key, (batch,), 0, dataset.num_episodes, jnp.int32)
    return dataset.start[episode] + jax.random.randint(step_key, (batch,), 0, dataset.length[episode], jnp.int32)


def _zero_unless(mask: Array, x: Array) -> Array:
    return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, jnp.zeros((), x.dtype))
