"""Gaussian bandits: noisy arms with independent means, and arms whose means are linear in known features."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.bandits.bandit import Bandit
from jaxrl_seq.envs.core.protocol import Array


@struct.dataclass
class GaussianParams:
    """float32 [] each; means are drawn from U[low, high]."""

    low: Array
    high: Array
    noise: Array  # standard deviation of a payout


@dataclass(frozen=True)
class GaussianBandit(Bandit[GaussianParams]):
    """Arms that pay their mean, drawn from U[low, high] for every episode, plus Gaussian noise (Lee et al. 2023).

    Observation float32 [1]: a constant. Actions: the arms. `pulls` pulls, each pays.
    """

    pulls: int = 500

    name: ClassVar[str] = "gaussian_bandit"
    paper: ClassVar[str] = "Lee et al. 2023 (arXiv 2306.14892)"

    def default_params(self) -> GaussianParams:
        return GaussianParams(low=jnp.float32(0), high=jnp.float32(1), noise=jnp.float32(0.3))

    def sample_task(self, key: Array, params: GaussianParams) -> Array:
        return jax.random.uniform(key, (self.arms,), jnp.float32, params.low, params.high)

    def payout(self, key: Array, mean: Array, params: GaussianParams) -> Array:
        return mean + params.noise * jax.random.normal(key, (), jnp.float32)

    def reference(self) -> dict[str, float]:
        """All exact, as for the Bernoulli bandit: the noise has mean zero."""
        blind = self.pulls / 2
        return {"random": blind, "reactive": blind, "expert": self.pulls * self.arms / (self.arms + 1)}


@struct.dataclass
class LinearParams:
    features: Array  # float32 [A, d], the same in every task
    noise: Array  # float32 [], standard deviation of a payout


@dataclass(frozen=True)
class LinearBandit(Bandit[LinearParams]):
    """An arm pays features[arm] . theta plus Gaussian noise; theta ~ N(0, 1 / d) is the task (Lee et al. 2023).

    The features are the same in all tasks, N(0, 1 / d), drawn once with NumPy's seed 0: a policy can know them by
    heart and find theta in d well-chosen pulls. Observation float32 [1]: a constant. Actions: the arms. `pulls` pulls,
    each pays.
    """

    arms: int = 10
    pulls: int = 200
    dimension: int = 2
    """d."""

    name: ClassVar[str] = "linear_bandit"
    paper: ClassVar[str] = "Lee et al. 2023 (arXiv 2306.14892)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dimension < 1:
            raise ValueError(f"{self.name}: dimension must be at least 1, got {self.dimension}.")

    def default_params(self) -> LinearParams:
        return LinearParams(features=jnp.asarray(self._features(), jnp.float32), noise=jnp.float32(0.3))

    def _features(self) -> np.ndarray:
        drawn = np.random.RandomState(0).standard_normal((self.arms, self.dimension))
        return drawn / math.sqrt(self.dimension)

    def sample_task(self, key: Array, params: LinearParams) -> Array:
        """float32 [d]: theta."""
        return jax.random.normal(key, (self.dimension,), jnp.float32) / math.sqrt(self.dimension)

    def means(self, task: Array, params: LinearParams) -> Array:
        return (params.features * task).sum(-1)

    def payout(self, key: Array, mean: Array, params: LinearParams) -> Array:
        return mean + params.noise * jax.random.normal(key, (), jnp.float32)

    def reference(self) -> dict[str, float]:
        """Exact: means are symmetric about zero. In two dimensions theta has a direction, uniform on the circle, and an
        independent length of mean sqrt(pi) / 2; in others the expert's figure is left out."""
        blind = {"random": 0.0, "reactive": 0.0}
        if self.dimension != 2:
            return blind
        angle = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
        best = (self._features() @ np.stack([np.cos(angle), np.sin(angle)])).max(axis=0).mean()
        return blind | {"expert": self.pulls * math.sqrt(math.pi) / 2 * float(best)}
