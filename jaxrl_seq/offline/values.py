"""Three ways to learn a number: squared error, two-hot classes, or classes smoothed by a Gaussian (HL-Gauss).

Classes are `bins` numbers spread evenly over [low, high]; what they say is their mean. After Farebrother et al. 2024
(arXiv:2403.03950), who find that a classification loss makes value functions scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr

from jaxrl_seq.types import Array

Kind = Literal["mse", "two-hot", "hl-gauss"]
KINDS: tuple[str, ...] = get_args(Kind)
_SPREAD = 0.75  # of the Gaussian, in widths of a class


@dataclass(frozen=True)
class ValueHead:
    """What `width` outputs of a network mean as a number. Raises ValueError for unknown kinds and too few bins."""

    kind: str = "mse"
    bins: int = 51

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"A value head is one of {', '.join(KINDS)}, got {self.kind!r}.")
        if self.bins < 2:
            raise ValueError(f"A value head needs at least 2 bins, got {self.bins}.")

    @property
    def width(self) -> int:
        return 1 if self.kind == "mse" else self.bins

    def value(self, out: Array, low: Array | float, high: Array | float) -> Array:
        """float32 [...] of outputs [..., width]: in the units of low and high."""
        if self.kind == "mse":
            return (low + high) / 2 + (high - low) / 2 * out[..., 0]
        return jnp.sum(jax.nn.softmax(out) * centres(self.bins, low, high), axis=-1)

    def loss(self, out: Array, target: Array, low: Array | float, high: Array | float) -> Array:
        """float32 [...] of outputs [..., width] and targets [...]: squared error in units where [low, high] is [-1, 1],
        or cross-entropy in nats, for which targets are cut to [low, high]."""
        if self.kind == "mse":
            return (out[..., 0] - (2 * target - low - high) / (high - low)) ** 2
        make = two_hot if self.kind == "two-hot" else hl_gauss
        return -jnp.sum(make(target, self.bins, low, high) * jax.nn.log_softmax(out), axis=-1)


def centres(bins: int, low: Array | float, high: Array | float) -> Array:
    """float32 [bins]: the numbers that classes stand for."""
    return low + (high - low) * jnp.linspace(0.0, 1.0, bins)


def two_hot(target: Array, bins: int, low: Array | float, high: Array | float) -> Array:
    """Weights [..., bins] of the two classes around a target, whose mean is the target."""
    place = jnp.clip((target - low) / (high - low), 0.0, 1.0) * (bins - 1)
    return jnp.maximum(1.0 - jnp.abs(place[..., None] - jnp.arange(bins)), 0.0)


def hl_gauss(target: Array, bins: int, low: Array | float, high: Array | float) -> Array:
    """The share of a Gaussian around the target that falls to each class, [..., bins]."""
    place = jnp.clip((target - low) / (high - low), 0.0, 1.0) * (bins - 1)
    edges = (jnp.arange(bins + 1) - 0.5 - place[..., None]) / _SPREAD
    mass = jnp.diff(ndtr(edges), axis=-1)
    return mass / jnp.sum(mass, axis=-1, keepdims=True)
