"""Steps as words: every number of an observation, action and reward becomes a class of its own place.

Letters: P places of a step, in the order observation, action, reward; K classes (bins). One further place, the last,
is for the value: the discounted rewards behind this step. It is predicted but never shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.agents.distributions import MASKED_LOGIT
from jaxrl_seq.envs import Box, Discrete, MultiDiscrete, Space
from jaxrl_seq.offline.dataset import Dataset
from jaxrl_seq.types import Array, PyTree


@struct.dataclass
class Codebook:
    """What the classes of every place stand for."""

    edges: Array
    """float32 [P+1, K-1], ascending: class k lies between the edges k - 1 and k; infinite where there is no class."""
    centres: Array
    """float32 [P+1, K]: the number that a class is read as, the mean of what fell into it."""
    used: Array
    """bool [P+1, K]: classes that occur; the others are never predicted."""

    def classes(self, numbers: Array, start: int = 0) -> Array:
        """int32 [..., p] of the numbers [..., p] of the places from `start` on."""
        return _classes(self.edges[start : start + numbers.shape[-1]], numbers)

    def value_class(self, value: Array) -> Array:
        """int32 [...]: of discounted rewards to come [...]."""
        return _classes(self.edges[-1:], value[..., None])[..., 0]

    def possible(self, logits: Array, places: Any) -> Array:
        """Logits [..., K] of these places (int, or int32 [...]), without the classes that never occur."""
        return jnp.where(self.used[jnp.asarray(places)], logits, MASKED_LOGIT)

    def numbers(self, classes: Array, start: int = 0) -> Array:
        """float32 [..., p] of the classes [..., p] of the places from `start` on."""
        return self.centres[start + jnp.arange(classes.shape[-1]), classes]


@dataclass(frozen=True)
class Vocabulary:
    """The places of a step of these spaces. Raises ValueError for spaces that are no row of numbers, and for more
    choices than there are classes."""

    observation_space: Space
    action_space: Space
    bins: int = 100

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise ValueError(f"A vocabulary needs at least 2 bins, got {self.bins}.")
        for name, space in (("observations", self.observation_space), ("actions", self.action_space)):
            if not isinstance(space, Box | Discrete | MultiDiscrete):
                raise ValueError(f"The {name} {space} are no row of numbers: they must be a Box, or discrete.")
            if (most := max(_choices(space), default=0)) > self.bins:
                raise ValueError(
                    f"The {name} {space} have up to {most} choices, and there are {self.bins} bins: give at least as "
                    "many bins."
                )

    @property
    def observed(self) -> int:
        """Places of an observation."""
        return _places(self.observation_space)

    @property
    def acted(self) -> slice:
        """Places of an action."""
        return slice(self.observed, self.observed + _places(self.action_space))

    @property
    def places(self) -> int:
        """P."""
        return self.acted.stop + 1

    def write(self, obs: PyTree, action: PyTree, reward: Array) -> Array:
        """float32 [..., P] of steps [...]."""
        return jnp.concatenate([self.observation(obs), self.behaviour(action, reward)], axis=-1)

    def observation(self, obs: PyTree) -> Array:
        """float32 [..., N] of observations [...]."""
        return _row(self.observation_space, obs).astype(jnp.float32)

    def behaviour(self, action: PyTree, reward: Array) -> Array:
        """float32 [..., M + 1] of the rest of steps [...]."""
        return jnp.concatenate([_row(self.action_space, action).astype(jnp.float32), reward[..., None]], axis=-1)

    def action(self, numbers: Array) -> Array:
        """Actions [...] of the environment, of the numbers [..., M] of their places."""
        space = self.action_space
        if isinstance(space, Box):
            low, high = space.bounds
            return jnp.clip(numbers.reshape(*numbers.shape[:-1], *space.shape), low, high).astype(space.dtype)
        whole = jnp.round(numbers).astype(jnp.int32)
        return whole[..., 0] if isinstance(space, Discrete) else whole

    def fit(self, dataset: Dataset, value: Array) -> Codebook:
        """Classes that occur equally often (quantiles), or the choices themselves where a space is discrete. value:
        float32 [N], the discounted rewards behind each step."""
        numbers = self.write(dataset.obs, dataset.action, dataset.reward)
        columns = jnp.concatenate([numbers, value[:, None]], axis=-1).T
        shares = jnp.arange(1, self.bins) / self.bins
        edges = jnp.stack([_distinct(jnp.quantile(column, shares)) for column in columns])
        choices = [*_choices(self.observation_space), *_choices(self.action_space), 0, 0]
        for place, count in enumerate(choices):
            if count:
                steps = np.where(np.arange(self.bins - 1) < count - 1, np.arange(self.bins - 1) + 0.5, np.inf)
                edges = edges.at[place].set(steps)
        return Codebook(edges, *_means(edges, columns, self.bins))


def _classes(edges: Array, numbers: Array) -> Array:
    """int32 [..., p] of numbers [..., p] by edges [p, K-1]."""

    def find(edge: Array, column: Array) -> Array:
        return jnp.searchsorted(edge, column, side="right")

    flat = numbers.reshape(-1, numbers.shape[-1])
    return jax.vmap(find, (0, 1), 1)(edges, flat).astype(jnp.int32).reshape(numbers.shape)


def _distinct(edges: Array) -> Array:
    """Ascending [K-1], each edge once, infinite behind the last: a number that occurs often takes one class."""
    again = jnp.concatenate([jnp.zeros(1, bool), edges[1:] <= edges[:-1]])
    return jnp.sort(jnp.where(again, jnp.inf, edges))


def _means(edges: Array, columns: Array, bins: int) -> tuple[Array, Array]:
    """(means, which have any) [P+1, K] of the numbers [P+1, N] of every class."""

    def one(edge: Array, column: Array) -> tuple[Array, Array]:
        found = jnp.searchsorted(edge, column, side="right")
        count = jnp.zeros(bins).at[found].add(1.0)
        total = jnp.zeros(bins).at[found].add(column)
        return total / jnp.maximum(count, 1.0), count > 0

    return jax.vmap(one)(edges, columns)


def _places(space: Any) -> int:
    return math.prod(space.shape) if isinstance(space, Box) else len(_choices(space))


def _choices(space: Any) -> tuple[int, ...]:
    """Choices of each place; 0 for a number."""
    if isinstance(space, Discrete):
        return (space.n,)
    return space.ns if isinstance(space, MultiDiscrete) else (0,) * math.prod(space.shape)


def _row(space: Any, x: Array) -> Array:
    """[..., p] of members [...] of the space."""
    rank = len(space.shape) if isinstance(space, Box) else int(isinstance(space, MultiDiscrete))
    return x.reshape(*x.shape[: x.ndim - rank], -1)
