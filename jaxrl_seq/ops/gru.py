"""Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078; the variant with the reset gate after the product).

    r, z = sigmoid(gi_r + gh_r), sigmoid(gi_z + gh_z)        gi = x @ w_input + bias,  gh = h @ w_hidden
    n    = tanh(gi_n + r * (gh_n + bias_n))                   h' = (1 - z) * n + z * h

The input product is one matrix product outside the scan. The gradient is written by hand: the gates are recomputed
for all steps at once, the backward scan carries nothing but dh, and the recurrent weight gradient is one product
over all T * B rows instead of T small ones accumulated inside the loop.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxrl_seq.ops.precision import Dtype, as_float, matmul

Array = jax.Array
Gates = tuple[Array, Array, Array]


class GRUWeights(NamedTuple):
    """Parameters of one GRU layer with D inputs and F units; gates in the order r, z, n."""

    w_input: Array  # [D, 3F]
    bias: Array  # [3F]
    w_hidden: Array  # [F, 3F]
    bias_n: Array  # [F] added to the hidden product of n, inside the reset gate


def gru(weights: GRUWeights, h0: Array, x: Array, reset: Array, *, dtype: Dtype | None = None) -> Array:
    """h0[B, F], x[T, B, D], reset[T, B] bool -> all states h[T, B, F]; the next carry is h[-1].

    `dtype` rounds the operands of matrix products (bfloat16); states and gates stay float32 or wider.
    """
    return _scan(dtype, _input_gates(weights, x, dtype), weights.w_hidden, weights.bias_n, as_float(h0), reset)


def gru_step(weights: GRUWeights, h: Array, x: Array, reset: Array, *, dtype: Dtype | None = None) -> Array:
    """h[B, F], x[B, D], reset[B] bool -> h[B, F]."""
    h = _clear(reset, as_float(h))
    return _cell(dtype, _input_gates(weights, x, dtype), weights.w_hidden, weights.bias_n, h)


def _input_gates(weights: GRUWeights, x: Array, dtype: Dtype | None) -> Gates:
    """x[..., D] -> the input's share of r, z and n, three arrays [..., F].

    Split before the scan: XLA's CPU loops do not vectorise over slices of a scanned array (3 times slower).
    """
    r, z, n = jnp.split(matmul(x, weights.w_input, dtype) + weights.bias, 3, axis=-1)
    return r, z, n


def _clear(reset: Array, h: Array) -> Array:
    return jnp.where(reset[..., None], jnp.zeros_like(h), h)


def _cell(dtype: Dtype | None, gates: Gates, w_hidden: Array, bias_n: Array, h: Array) -> Array:
    _, z, n, _ = _activate(dtype, gates, w_hidden, bias_n, h)
    return n + z * (h - n)


def _activate(dtype, gates, w_hidden, bias_n, h):
    """r, z, n and the term of n behind r, all [..., F], from input gates and the previous state h[..., F]."""
    hidden_r, hidden_z, hidden_n = jnp.split(matmul(h, w_hidden, dtype), 3, axis=-1)
    r = jax.nn.sigmoid(gates[0] + hidden_r)
    z = jax.nn.sigmoid(gates[1] + hidden_z)
    inner = hidden_n + bias_n
    return r, z, jnp.tanh(gates[2] + r * inner), inner


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(dtype, gates, w_hidden, bias_n, h0, reset):
    def body(h, inputs):
        gates_t, reset_t = inputs
        h = _cell(dtype, gates_t, w_hidden, bias_n, _clear(reset_t, h))
        return h, h

    return lax.scan(body, h0, (gates, reset))[1]


def _forward(dtype, gates, w_hidden, bias_n, h0, reset):
    h = _scan(dtype, gates, w_hidden, bias_n, h0, reset)
    return h, (gates, w_hidden, bias_n, h0, reset, h)


def _backward(dtype, residuals, cotangent):
    gates, w_hidden, bias_n, h0, reset, h = residuals
    before = _clear(reset, jnp.concatenate([h0[None], h[:-1]]))
    r, z, n, inner = _activate(dtype, gates, w_hidden, bias_n, before)
    # d h' / d (pre-activation) of r, z, n; the hidden product of n sits behind r
    slope_n = (1 - z) * (1 - n * n)
    slopes = (slope_n * inner * r * (1 - r), (before - n) * z * (1 - z), slope_n * r)
    w_back = w_hidden.T

    def body(dh, inputs):
        ct, slopes_t, z_t, reset_t = inputs
        dh = dh + ct
        d_hidden = jnp.concatenate([dh * slope for slope in slopes_t], axis=-1)
        return _clear(reset_t, dh * z_t + matmul(d_hidden, w_back, dtype)), dh

    dh0, dh = lax.scan(body, jnp.zeros_like(h0), (cotangent, slopes, z, reset), reverse=True)
    d_r, d_z, d_hidden_n = (dh * slope for slope in slopes)
    d_hidden = jnp.concatenate([d_r, d_z, d_hidden_n], axis=-1)
    size = h0.shape[-1]
    d_w_hidden = matmul(before.reshape(-1, size).T, d_hidden.reshape(-1, 3 * size), dtype)
    d_bias_n = d_hidden_n.sum((0, 1)).astype(bias_n.dtype)
    return (d_r, d_z, dh * slope_n), d_w_hidden.astype(w_hidden.dtype), d_bias_n, dh0, None


_scan.defvjp(_forward, _backward)
