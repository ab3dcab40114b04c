"""Recurrent cells that are pointwise but for one product with the previous output: LSTM and sLSTM.

    gates = inputs + split(h @ w_hidden),    state' = cell(gates, state),    state.h is what the gates see

The gradient is written by hand, for any such cell: the gates are recomputed for all steps in one product, the backward
scan differentiates the pointwise cell at each step, and the gradient of w_hidden is one product over all T * B rows
instead of T small ones accumulated inside the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxrl_seq.ops.precision import Dtype, matmul
from jaxrl_seq.ops.segments import where_reset

Array = jax.Array
Gates = tuple[Array, ...]
State = Any  # a NamedTuple of arrays [B, F], one of them `h`
Cell = Callable[[Gates, State], State]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def gated_scan(
    cell: Cell, initial: State, dtype: Dtype | None, inputs: Gates, w_hidden: Array, state: State, reset: Array
) -> State:
    """All states [T, B, F]. initial: a state of numbers, what a reset puts back. dtype: of the product's operands.

    inputs: the inputs' share of each gate, [T, B, F] (one array a gate: XLA's CPU loops do not vectorise over slices
    of a scanned array). w_hidden[F, gates * F], state before the chunk [B, F], reset[T, B] bool.
    """

    def body(state, now):
        inputs_t, reset_t = now
        state = gated_step(cell, initial, dtype, inputs_t, w_hidden, state, reset_t)
        return state, state

    return lax.scan(body, state, (inputs, reset))[1]


def gated_step(
    cell: Cell, initial: State, dtype: Dtype | None, inputs: Gates, w_hidden: Array, state: State, reset: Array
) -> State:
    """One step of `gated_scan`: inputs[B, F] each, state[B, F], reset[B] -> next state."""
    state = where_reset(reset, initial, state)
    return cell(_gates(dtype, inputs, w_hidden, state.h), state)


def _gates(dtype: Dtype | None, inputs: Gates, w_hidden: Array, h: Array) -> Gates:
    hidden = jnp.split(matmul(h, w_hidden, dtype), len(inputs), axis=-1)
    return tuple(x + y for x, y in zip(inputs, hidden, strict=True))


def _forward(cell, initial, dtype, inputs, w_hidden, state, reset):
    states = gated_scan(cell, initial, dtype, inputs, w_hidden, state, reset)
    return states, (inputs, w_hidden, state, reset, states)


def _backward(cell, initial, dtype, residuals, cotangent):
    inputs, w_hidden, first, reset, states = residuals
    before = jax.tree.map(lambda x, y: jnp.concatenate([x[None], y[:-1]]), first, states)
    before = where_reset(reset, initial, before)
    gates = _gates(dtype, inputs, w_hidden, before.h)
    w_back = w_hidden.T
    zero = jax.tree.map(jnp.zeros_like, first)

    def body(d_state, now):
        ct, gates_t, before_t, reset_t = now
        d_gates, d_state = jax.vjp(cell, gates_t, before_t)[1](jax.tree.map(jnp.add, d_state, ct))
        d_h = d_state.h + matmul(jnp.concatenate(d_gates, axis=-1), w_back, dtype)
        return where_reset(reset_t, zero, d_state._replace(h=d_h)), d_gates

    d_first, d_gates = lax.scan(body, zero, (cotangent, gates, before, reset), reverse=True)
    rows = jnp.concatenate(d_gates, axis=-1)
    h = before.h.reshape(-1, before.h.shape[-1])
    d_w_hidden = matmul(h.T, rows.reshape(-1, rows.shape[-1]), dtype).astype(w_hidden.dtype)
    return d_gates, d_w_hidden, d_first, None


gated_scan.defvjp(_forward, _backward)
