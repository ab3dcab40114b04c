"""How long units remember before they have learnt anything."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax.linen.initializers import Initializer

Array = jax.Array


def spread(key: Array, shape: tuple[int], dtype: Any) -> Array:
    """Numbers [N] in [0, 1], rising, one in each N-th part: a uniform draw that leaves no gap, few as they may be."""
    return (jnp.arange(shape[0], dtype=dtype) + jax.random.uniform(key, shape, dtype)) / shape[0]


def chrono_bias(horizon: int, signs: tuple[int, ...]) -> Initializer:
    """Initialiser of the biases [G F] of G gates side by side: chrono initialisation (Tallec & Ollivier 2018,
    arXiv:1804.11188), after which units forget over 1 .. horizon steps, evenly spread.

    signs: for each gate 1 where it keeps, -1 where it lets in, 0 for a bias of zero. A horizon of 0 makes all zero.
    """

    def init(key: Array, shape: tuple[int], dtype: Any = jnp.float32) -> Array:
        keep = jnp.log(1 + max(horizon - 2, 0) * spread(key, (shape[0] // len(signs),), dtype))
        return jnp.concatenate([sign * keep for sign in signs])

    return init


def require_horizon(horizon: int) -> None:
    """ValueError unless `horizon` is 0 (off) or at least 2 steps."""
    if horizon < 0 or horizon == 1:
        raise ValueError(f"horizon must be 0, which leaves gates as they are, or at least 2 steps, got {horizon}")
