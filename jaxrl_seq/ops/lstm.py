"""Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    i, f, g, o = x @ w_input + bias + h @ w_hidden
    c' = sigmoid(f) c + sigmoid(i) tanh(g)          h' = sigmoid(o) tanh(c')

The input product is one matrix product outside the scan.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_seq.ops.gated_scan import Gates, gated_scan, gated_step
from jaxrl_seq.ops.precision import Dtype, as_float, matmul

Array = jax.Array


class LSTMState(NamedTuple):
    """Both [B, F]."""

    c: Array  # cell
    h: Array  # output, which the gates see


class LSTMWeights(NamedTuple):
    """Parameters of one LSTM layer with D inputs and F units; gates in the order i, f, g, o."""

    w_input: Array  # [D, 4F]
    bias: Array  # [4F]
    w_hidden: Array  # [F, 4F]


INITIAL = LSTMState(0.0, 0.0)  # type: ignore[arg-type]


def lstm(
    weights: LSTMWeights, state: LSTMState, x: Array, reset: Array, *, dtype: Dtype | None = None
) -> tuple[LSTMState, Array]:
    """state[B, F], x[T, B, D], reset[T, B] bool -> state after the chunk, h[T, B, F].

    `dtype` rounds the operands of matrix products (bfloat16); states and gates stay float32 or wider.
    """
    state = LSTMState(*map(as_float, state))
    states: Any = gated_scan(_cell, INITIAL, dtype, _input_gates(weights, x, dtype), weights.w_hidden, state, reset)
    return LSTMState(*(leaf[-1] for leaf in states)), states.h


def lstm_step(
    weights: LSTMWeights, state: LSTMState, x: Array, reset: Array, *, dtype: Dtype | None = None
) -> LSTMState:
    """state[B, F], x[B, D], reset[B] bool -> next state, its h the output."""
    state = LSTMState(*map(as_float, state))
    return gated_step(_cell, INITIAL, dtype, _input_gates(weights, x, dtype), weights.w_hidden, state, reset)


def _input_gates(weights: LSTMWeights, x: Array, dtype: Dtype | None) -> Gates:
    """x[..., D] -> the input's share of i, f, g and o, four arrays [..., F]."""
    return tuple(jnp.split(matmul(x, weights.w_input, dtype) + weights.bias, 4, axis=-1))


def _cell(gates: Gates, state: LSTMState) -> LSTMState:
    i, f, g, o = gates
    c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return LSTMState(c, jax.nn.sigmoid(o) * jnp.tanh(c))
