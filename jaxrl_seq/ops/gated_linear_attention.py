"""Linear attention with a decay for each key channel (Yang et al. 2023, arXiv:2312.06635), in chunks, with resets.

    S[t] = diag(exp(log_decay[t])) S[t-1] + k[t] v[t]^T,    y[t] = S[t]^T q[t]         S[K, V] for each head

Shapes as in `linear_attention`. The decays between all pairs of steps of a chunk are formed channel by channel:
C x C x K numbers of at most one. Written as products of exp(+decay) and exp(-decay) they would allow for matrix
products, and overflow float32 as soon as a chunk decays by more than exp(-88).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_seq.ops.linear_attention import check_heads, no_reset_yet, same_segment, scan_chunks
from jaxrl_seq.ops.precision import as_float
from jaxrl_seq.ops.segments import where_reset

Array = jax.Array


def gated_linear_attention(
    q: Array, k: Array, v: Array, log_decay: Array, state: Array, reset: Array, *, chunk: int = 8
) -> tuple[Array, Array]:
    """q, k, log_decay (at most 0) [T, B, N, K], v[T, B, N, V], state[B, N, K, V], reset[T, B] bool
    -> y[T, B, N, V], state after the chunk. Raises ValueError for shapes that do not fit one another.
    """
    check_heads("gated_linear_attention", q, k, v, state, reset)
    if log_decay.shape != k.shape:
        raise ValueError(
            f"gated_linear_attention: k is {k.shape}, so log_decay must be too, got {log_decay.shape}; "
            "chunked_linear_attention takes one decay a head"
        )

    def body(state: Array, inputs: tuple[Array, ...]) -> tuple[Array, Array]:
        q, k, v, log_decay, reset = inputs
        same = same_segment(reset)[..., None]
        log_decay = jnp.where(reset[..., None], 0, log_decay)
        total = jnp.where(same, log_decay[..., None, :, :], 0).sum(-2)  # no cumsum: see chunk_decay
        # masked before exp: above the diagonal it would overflow
        between = jnp.exp(jnp.where(same, total[..., :, None, :] - total[..., None, :, :], -jnp.inf))
        carried = no_reset_yet(reset)[..., None]
        from_start = jnp.where(carried, jnp.exp(total), 0)
        scores = (q[..., :, None, :] * k[..., None, :, :] * between).sum(-1)
        y = scores @ v + jnp.where(carried, (q * from_start) @ state, 0)
        left = jnp.where(carried[..., -1:, :], from_start[..., -1, :, None] * state, 0)
        return left + (k * between[..., -1, :, :]).mT @ v, y

    return scan_chunks(body, as_float(state), (q, k, v, log_decay), reset, chunk)


def gated_linear_attention_step(
    q: Array, k: Array, v: Array, log_decay: Array, state: Array, reset: Array
) -> tuple[Array, Array]:
    """One step: q, k, log_decay [B, N, K], v[B, N, V], state[B, N, K, V], reset[B] -> y[B, N, V], state."""
    state = as_float(state)
    decay = jnp.exp(as_float(log_decay))[..., None]
    state = decay * where_reset(reset, jnp.zeros_like(state), state) + k[..., :, None] * v[..., None, :]
    return (q[..., :, None] * state).sum(-2), state
