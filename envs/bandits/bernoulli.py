"""Bernoulli bandits: arms that pay 1 or nothing, under three priors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.bandits.bandit import Bandit, Params, expected_maximum
from jaxrl_seq.envs.core.protocol import Array


@dataclass(frozen=True)
class _Coins(Bandit[Params]):
    """Payouts 0 or 1."""

    def payout(self, key: Array, mean: Array, params: Params) -> Array:
        return jax.random.bernoulli(key, mean).astype(jnp.float32)


@struct.dataclass
class UniformPrior:
    """float32 [] each."""

    low: Array
    high: Array


@dataclass(frozen=True)
class BernoulliBandit(_Coins[UniformPrior]):
    """Arms that pay 1 with chances drawn from U[low, high] for every episode, else nothing (Duan et al. 2016).

    Observation float32 [1]: a constant. Actions: the arms. `pulls` pulls, each pays.
    """

    name: ClassVar[str] = "bernoulli_bandit"
    paper: ClassVar[str] = "Duan et al. 2016 (arXiv 1611.02779)"

    def default_params(self) -> UniformPrior:
        return UniformPrior(low=jnp.float32(0), high=jnp.float32(1))

    def sample_task(self, key: Array, params: UniformPrior) -> Array:
        return jax.random.uniform(key, (self.arms,), jnp.float32, params.low, params.high)

    def reference(self) -> dict[str, float]:
        """All exact: K / (K + 1) is the mean of the largest of K uniform numbers. Without memory no arm is better."""
        blind = self.pulls / 2
        return {"random": blind, "reactive": blind, "expert": self.pulls * self.arms / (self.arms + 1)}


@dataclass(frozen=True)
class DependentBandit(_Coins[tuple[()]]):
    """Two arms that pay 1 with chances p and 1 - p, whichever is which (Wang et al. 2016).

    Observation float32 [1]: a constant. Actions: the arms. `pulls` pulls, each pays.
    """

    arms: int = 2
    chance: float = 0.25
    """p: 0.1 is easy, 0.4 is hard."""

    name: ClassVar[str] = "dependent_bandit"
    paper: ClassVar[str] = "Wang et al. 2016 (arXiv 1611.05763)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.arms != 2 or not 0 <= self.chance <= 1:
            raise ValueError(f"{self.name}: arms must be 2 and chance in 0 .. 1, got {self.arms} and {self.chance}.")

    def default_params(self) -> tuple[()]:
        return ()

    def sample_task(self, key: Array, params: tuple[()]) -> Array:
        return self.tasks(params)[jax.random.bernoulli(key).astype(jnp.int32)]

    def tasks(self, params: tuple[()]) -> Array:
        """float32 [2, 2]."""
        return jnp.array([[self.chance, 1 - self.chance], [1 - self.chance, self.chance]], jnp.float32)

    def reference(self) -> dict[str, float]:
        """All exact."""
        blind = self.pulls / 2
        return {"random": blind, "reactive": blind, "expert": self.pulls * max(self.chance, 1 - self.chance)}


@struct.dataclass
class OddPrior:
    share: Array
    """float32 []: how often it is the odd arms that are good."""


@dataclass(frozen=True)
class OddBandit(_Coins[OddPrior]):
    """Good arms have chances from U[0.5, 1], bad ones from U[0, 0.5]; in most episodes the odd ones are good.

    With chance `share` it is arms 1, 3, ... (counted from 0), else arms 0, 2, ...: train with share 0.95 and test with
    0.05 to see whether a policy learns in context or knows by heart (Laskin et al. 2022). Observation float32 [1]: a
    constant. Actions: the arms. `pulls` pulls, each pays.
    """

    arms: int = 10

    name: ClassVar[str] = "odd_bandit"
    paper: ClassVar[str] = "Laskin et al. 2022 (arXiv 2210.14215)"

    def default_params(self) -> OddPrior:
        return OddPrior(share=jnp.float32(0.95))

    def sample_task(self, key: Array, params: OddPrior) -> Array:
        side_key, key = jax.random.split(key)
        odd = jax.random.bernoulli(side_key, params.share)
        good = (jnp.arange(self.arms, dtype=jnp.int32) % 2 == 1) == odd
        return 0.5 * (good + jax.random.uniform(key, (self.arms,), jnp.float32))

    def reference(self) -> dict[str, float]:
        """All exact: mixtures over the two sides."""
        odd = np.arange(self.arms) % 2 == 1
        sides = [(0.95, odd), (0.05, ~odd)]
        best = sum(share * expected_maximum(0.5 * good, 0.5 * good + 0.5) for share, good in sides)
        random = sum(share * (0.25 + 0.5 * good.mean()) for share, good in sides)
        return {
            "random": self.pulls * float(random),
            "reactive": self.pulls * (0.95 * 0.75 + 0.05 * 0.25),
            "expert": self.pulls * best,
        }
