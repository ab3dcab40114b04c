"""Linear attention with a decay for each key channel (Yang et al. 2023, arXiv:2312.06635), in chunks, with resets.

    S[t] = diag(exp(log_decay[t])) S[t-1] + k[t] v[t]^T,    y[t] = S[t]^T q[t]         S[K, V] for each head

Shapes as in `linear_attention`. The decays between all pairs of steps of a chunk are formed channel by channel:
C x C x K numbers of at most one. Written as products of exp(+decay) and exp(-decay) they would allow for matrix
products, and overflow float32 as soon as a chunk decays by more than exp(-88).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_seq.ops.linear_attention import check_heads, no_reset_yet, read_matrix, same_segment, scan_chunks
from jaxrl_seq.ops.precision import as_float
from jaxrl_seq.ops.segments import where_reset

Array = jax.Array


def gated_linear_attention(
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array,
    state: Array,
    reset: Array,
    *,
    value_log_decay: Array | None = None,
    chunk: int = 8,
) -> tuple[Array, Array]:
    """q, k, log_decay (at most 0) [T, B, N, K], v[T, B, N, V], state[B, N, K, V], reset[T, B] bool
    -> y[T, B, N, V], state after the chunk.

    value_log_decay[T, B, N, V] decays the state's value channels as well: S[k, v] by exp(log_decay[k] + that[v]).
    Raises ValueError for shapes that do not fit one another.
    """
    check_heads("gated_linear_attention", q, k, v, state, reset)
    if log_decay.shape != k.shape:
        raise ValueError(
            f"gated_linear_attention: k is {k.shape}, so log_decay must be too, got {log_decay.shape}; "
            "chunked_linear_attention takes one decay a head"
        )
    if value_log_decay is not None and value_log_decay.shape != v.shape:
        raise ValueError(
            f"gated_linear_attention: v is {v.shape}, so value_log_decay must be too, got {value_log_decay.shape}"
        )

    def body(state: Array, inputs: tuple[Array, ...]) -> tuple[Array, Array]:
        q, k, v, log_decay, *of_values, reset = inputs
        decay = _channel_decay(log_decay, reset)
        scores = (q[..., :, None, :] * k[..., None, :, :] * decay.between).sum(-1)
        read = (q * decay.from_start) @ state
        left, written = decay.from_start[..., -1, :, None] * state, (k * decay.between[..., -1, :, :]).mT
        if of_values:
            values = _channel_decay(of_values[0], reset)
            within = (scores[..., None] * values.between * v[..., None, :, :]).sum(-2)
            read, left = values.from_start * read, values.from_start[..., -1, None, :] * left
            v = values.between[..., -1, :, :] * v
        else:
            within = scores @ v
        carried = no_reset_yet(reset)[..., None]
        return jnp.where(carried[..., -1:, :], left, 0) + written @ v, within + jnp.where(carried, read, 0)

    arrays = (q, k, v, log_decay) + (() if value_log_decay is None else (value_log_decay,))
    return scan_chunks(body, as_float(state), arrays, reset, chunk)


class _ChannelDecay(NamedTuple):
    """What is left, channel by channel, of a step's contribution at a later one, and of what came into the chunk."""

    between: Array  # [B, N, C, C, K] from the column's step to the row's, zero across a reset and above the diagonal
    from_start: Array  # [B, N, C, K]; zero behind a reset


def _channel_decay(log_decay: Array, reset: Array) -> _ChannelDecay:
    """log_decay[B, N, C, K], reset[B, 1, C] bool."""
    same = same_segment(reset)[..., None]
    log_decay = jnp.where(reset[..., None], 0, log_decay)
    total = jnp.where(same, log_decay[..., None, :, :], 0).sum(-2)  # no cumsum: see total_log_decay
    # masked before exp: above the diagonal it would overflow
    between = jnp.exp(jnp.where(same, total[..., :, None, :] - total[..., None, :, :], -jnp.inf))
    return _ChannelDecay(between, jnp.where(no_reset_yet(reset)[..., None], jnp.exp(total), 0))


def gated_linear_attention_step(
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array,
    state: Array,
    reset: Array,
    *,
    value_log_decay: Array | None = None,
) -> tuple[Array, Array]:
    """One step: q, k, log_decay [B, N, K], v[B, N, V], state[B, N, K, V], reset[B] -> y[B, N, V], state."""
    state = as_float(state)
    decay = jnp.exp(as_float(log_decay))[..., None]
    if value_log_decay is not None:  # two exponentials a channel; the exponential of their sum is one a number of S
        decay = decay * jnp.exp(as_float(value_log_decay))[..., None, :]
    state = decay * where_reset(reset, jnp.zeros_like(state), state) + k[..., :, None] * v[..., None, :]
    return read_matrix(q, state), state
