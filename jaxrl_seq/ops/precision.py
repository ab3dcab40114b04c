"""Which numbers may be rounded: only the operands of matrix products, never states, decays or normalisers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
Dtype = Any


def float_type(*arrays: Array) -> Any:
    """The type states are kept in: float32, or float64 when an argument already is (the checkers use that)."""
    return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)


def as_float(x: Array) -> Array:
    """`x` in float32 or wider."""
    return x.astype(float_type(x))


def matmul(x: Array, w: Array, dtype: Dtype | None = None) -> Array:
    """x[..., I] @ w[I, O] with operands rounded to `dtype` (None: as they are) and float32 accumulation.

    Returns float32 (float64 for float64 operands) whatever `dtype` is, so that only the operands lose digits.
    """
    if x.ndim > 2 and jax.default_backend() == "cpu":
        # rows in one axis: XLA's CPU products over [T, B, I] cost up to twice as much in the gradient of w;
        # elsewhere the axes stay apart, so that B can be sharded
        return matmul(x.reshape(-1, x.shape[-1]), w, dtype).reshape(*x.shape[:-1], w.shape[-1])
    if dtype is None:
        return jnp.matmul(x, w)
    out = float_type(x, w)
    return jnp.matmul(x.astype(dtype), w.astype(dtype), preferred_element_type=out)
