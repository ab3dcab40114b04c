"""Scalar LSTM with exponential gates (sLSTM of xLSTM, Beck et al. 2024, arXiv:2405.04517).

    i, f, z, o = x @ w_input + bias + h @ w_hidden       w_hidden is block-diagonal, one block a head
    c' = sigmoid(f) c + exp(i) tanh(z)                   n' = sigmoid(f) n + exp(i)            h' = sigmoid(o) c' / n'

c and n are kept divided by exp(m), m the running maximum of their log-weights, so no exponential is ever above one. An
empty memory has m = -1e30: finite, so that differences never become nan. After one step n is at least one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_seq.ops.gated_scan import Gates, gated_scan, gated_step
from jaxrl_seq.ops.precision import Dtype, as_float, matmul

Array = jax.Array


class SLSTMState(NamedTuple):
    """All [B, F]."""

    c: Array  # cell, over exp(m)
    n: Array  # normaliser, over exp(m)
    h: Array  # output, which the gates see
    m: Array  # largest log-weight so far


class SLSTMWeights(NamedTuple):
    """Parameters of one layer with D inputs and N heads of H units, F = N * H; gates in the order i, f, z, o."""

    w_input: Array  # [D, 4F]
    bias: Array  # [4F]
    w_hidden: Array  # [4, N, H, H]


INITIAL = SLSTMState(0.0, 0.0, 0.0, -1e30)  # type: ignore[arg-type]


def empty_slstm(batch: tuple[int, ...], features: int) -> SLSTMState:
    """The float32 state that has seen nothing."""
    return SLSTMState(*(jnp.full((*batch, features), value, jnp.float32) for value in INITIAL))


def block_diagonal(w: Array) -> Array:
    """w[G, N, I, J] -> [N * I, G * N * J], G block-diagonal matrices of N blocks side by side.

    One product with zeros in it is faster than G * N small ones at the widths of policies. The zeros are chosen, not
    multiplied in: XLA takes a choice out of a loop of steps, and a product that makes more numbers than it reads not.
    """
    gates, heads, rows, columns = w.shape
    own = jnp.eye(heads, dtype=bool)[:, None, None, :, None]
    return jnp.where(own, w.transpose(1, 2, 0, 3)[:, :, :, None], 0).reshape(heads * rows, gates * heads * columns)


def slstm(
    weights: SLSTMWeights, state: SLSTMState, x: Array, reset: Array, *, dtype: Dtype | None = None
) -> tuple[SLSTMState, Array]:
    """x[T, B, D], reset[T, B] bool -> state after the chunk, h[T, B, F]. `dtype` rounds operands of products."""
    state, w_hidden = SLSTMState(*map(as_float, state)), block_diagonal(weights.w_hidden)
    states: Any = gated_scan(_cell, INITIAL, dtype, _input_gates(weights, x, dtype), w_hidden, state, reset)
    return SLSTMState(*(leaf[-1] for leaf in states)), states.h


def slstm_step(
    weights: SLSTMWeights, state: SLSTMState, x: Array, reset: Array, *, dtype: Dtype | None = None
) -> SLSTMState:
    """x[B, D], reset[B] bool -> next state, its h the output."""
    state, w_hidden = SLSTMState(*map(as_float, state)), block_diagonal(weights.w_hidden)
    return gated_step(_cell, INITIAL, dtype, _input_gates(weights, x, dtype), w_hidden, state, reset)


def _input_gates(weights: SLSTMWeights, x: Array, dtype: Dtype | None) -> Gates:
    """x[..., D] -> the input's share of i, f, z and o, four arrays [..., F]."""
    return tuple(jnp.split(matmul(x, weights.w_input, dtype) + weights.bias, 4, axis=-1))


def _cell(gates: Gates, state: SLSTMState) -> SLSTMState:
    i, f, z, o = gates
    kept = jax.nn.log_sigmoid(f) + state.m
    m = jnp.maximum(kept, i)
    keep, enter = jnp.exp(kept - m), jnp.exp(i - m)
    c = keep * state.c + enter * jnp.tanh(z)
    n = keep * state.n + enter
    return SLSTMState(c, n, jax.nn.sigmoid(o) * c / n, m)
