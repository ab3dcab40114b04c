"""mLSTM (Beck et al. 2024, arXiv:2405.04517): linear attention with exponential input gates, in chunks, with resets.

    S[t] = exp(log_forget[t]) S[t-1] + exp(log_input[t]) k[t] [v[t], 1]^T,    y[t] = S_v^T q / max(|S_1^T q|, 1)

Shapes as in `linear_attention`. The normaliser S_1 is the last column of S. Since exp(log_input) may be of any size,
the state is kept as S exp(-scale) with scale[t] = max(scale[t-1] + log_forget[t], log_input[t]), which chunks arrive at
too. It is a constant to gradients: no y depends on it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxrl_seq.ops.linear_attention import (
    check_heads,
    no_reset_yet,
    read_matrix,
    same_segment,
    scan_chunks,
    total_log_decay,
)
from jaxrl_seq.ops.precision import as_float
from jaxrl_seq.ops.segments import where_reset

Array = jax.Array
FAINT = -60.0
"""Scale below which y is taken as of this scale, which is nothing: exp(-scale) must not overflow."""
NOTHING = -1e30
"""Scale of an empty state. Finite, because inf - inf is nan."""


class MLSTMState(NamedTuple):
    """State before or after a chunk."""

    memory: Array  # [B, N, K, V + 1]
    scale: Array  # [B, N] log of what memory must be multiplied by


def empty_mlstm(batch: tuple[int, ...], heads: int, key_size: int, value_size: int) -> MLSTMState:
    """The state that nothing was written to."""
    memory = jnp.zeros((*batch, heads, key_size, value_size + 1), jnp.float32)
    return MLSTMState(memory, jnp.full((*batch, heads), NOTHING, jnp.float32))


def mlstm(
    q: Array,
    k: Array,
    v: Array,
    log_forget: Array,
    log_input: Array,
    state: MLSTMState,
    reset: Array,
    *,
    chunk: int = 32,
) -> tuple[Array, MLSTMState]:
    """q, k [T, B, N, K], v[T, B, N, V], log_forget (at most 0) and log_input [T, B, N], state, reset[T, B] bool
    -> y[T, B, N, V], state after the chunk. Raises ValueError for shapes that do not fit one another.
    """
    v = _with_ones(v)
    check_heads("mlstm", q, k, v, state.memory, reset, log_forget=log_forget, log_input=log_input)
    real = jnp.ones((*reset.shape, 1), v.dtype)  # tells steps from what fills up the last chunk

    def body(state: MLSTMState, inputs: tuple[Array, ...]) -> tuple[MLSTMState, Array]:
        q, k, v, log_forget, log_input, real, reset = inputs
        total = total_log_decay(log_forget, reset)
        log_input = jnp.where(real > 0, log_input, NOTHING)
        weight = total[..., :, None] - total[..., None, :] + log_input[..., None, :]
        weight = jnp.where(same_segment(reset), weight, NOTHING)
        carried = no_reset_yet(reset)
        kept = jnp.where(carried, total + state.scale[..., None], NOTHING)
        scale = lax.stop_gradient(jnp.maximum(weight.max(-1), kept))
        weight, kept = jnp.exp(weight - scale[..., None]), jnp.exp(kept - scale)[..., None]
        read = (q @ k.mT * weight) @ v + jnp.where(carried[..., None], kept * (q @ state.memory), 0)
        memory = jnp.where(carried[..., -1:, None], kept[..., -1:, :] * state.memory, 0)
        memory = memory + k.mT @ (weight[..., -1, :, None] * v)
        return MLSTMState(memory, scale[..., -1]), _normalise(read, scale)

    state = MLSTMState(*(as_float(x) for x in state))
    return scan_chunks(body, state, (q, k, v, log_forget, log_input, real), reset, chunk)


def mlstm_step(
    q: Array, k: Array, v: Array, log_forget: Array, log_input: Array, state: MLSTMState, reset: Array
) -> tuple[Array, MLSTMState]:
    """One step: q, k [B, N, K], v[B, N, V], log_forget, log_input [B, N], state, reset[B] -> y[B, N, V], state."""
    v = _with_ones(v)
    empty = MLSTMState(jnp.zeros_like(state.memory), jnp.full_like(state.scale, NOTHING))
    memory, before = where_reset(reset, empty, state)
    before = before + log_forget
    scale = lax.stop_gradient(jnp.maximum(before, log_input))
    keep, write = (jnp.exp(x - scale)[..., None, None] for x in (before, log_input))
    memory = keep * memory + write * k[..., :, None] * v[..., None, :]
    return _normalise(read_matrix(q, memory), scale), MLSTMState(memory, scale)


def _with_ones(v: Array) -> Array:
    v = as_float(v)
    return jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)


def _normalise(read: Array, scale: Array) -> Array:
    """read[..., V + 1] by exp(-scale) too small -> [..., V]."""
    one = jnp.exp(-jnp.maximum(scale, FAINT))[..., None]
    return read[..., :-1] / jnp.maximum(jnp.abs(read[..., -1:]), one)
