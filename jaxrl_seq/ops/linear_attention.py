"""Linear attention with a decay for each head, in chunks, with resets.

    S[t] = exp(log_decay[t]) S[t-1] + k[t] v[t]^T,    y[t] = S[t]^T q[t]         S[K, V] for each environment and head

Shapes: T time, B environments, N heads, K key size, V value size, C steps of a chunk. Within a chunk y is a product of
masked C x C matrices, as in attention; the state goes from chunk to chunk. Resets are a mask on pairs of steps: a huge
negative log-decay would ruin the digits of all decays after it. Retention, Mamba-2's state space duality and
unnormalised linear attention are this operation; append a column of ones to v to get a normaliser along with y.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxrl_seq.ops.precision import as_float
from jaxrl_seq.ops.segments import where_reset

Array = jax.Array
Tree = Any


def chunked_linear_attention(
    q: Array, k: Array, v: Array, log_decay: Array, state: Array, reset: Array, *, chunk: int = 32
) -> tuple[Array, Array]:
    """q, k [T, B, N, K], v[T, B, N, V], log_decay[T, B, N] or [N], at most 0, state[B, N, K, V], reset[T, B] bool
    -> y[T, B, N, V], state after the chunk.

    q and k may have one head, and log_decay too, shared by the N heads of v. Raises ValueError for shapes that do not
    fit one another.
    """
    check_heads("chunked_linear_attention", q, k, v, state, reset, log_decay=log_decay)
    log_decay = jnp.broadcast_to(log_decay, (*reset.shape, log_decay.shape[-1]))

    def body(state: Array, inputs: tuple[Array, ...]) -> tuple[Array, Array]:
        q, k, v, log_decay, reset = inputs
        decay = chunk_decay(log_decay, reset)
        y = (q @ k.mT * decay.between) @ v + decay.entering(q @ state)
        return decay.leaving(state) + k.mT @ (decay.to_end[..., None] * v), y

    return scan_chunks(body, as_float(state), (q, k, v, log_decay), reset, chunk)


def linear_attention_step(
    q: Array, k: Array, v: Array, log_decay: Array, state: Array, reset: Array
) -> tuple[Array, Array]:
    """One step: q, k [B, N, K], v[B, N, V], log_decay[B, N] or [N], state[B, N, K, V], reset[B] -> y, state."""
    state = as_float(state)
    decay = jnp.exp(as_float(log_decay))[..., None, None]
    state = decay * where_reset(reset, jnp.zeros_like(state), state) + k[..., :, None] * v[..., None, :]
    return read_matrix(q, state), state


def read_matrix(q: Array, state: Array) -> Array:
    """q[..., K], state[..., K, V] -> [..., V]. As a product: in a fused sum, XLA computes the state, with all that was
    written into it, anew for every use (on a CPU 15 to 30 times slower at K = V = 128)."""
    return jnp.einsum("...k,...kv->...v", as_float(q), state, precision=lax.Precision.HIGHEST)


class ChunkDecay(NamedTuple):
    """What is left of a step's contribution at a later step of the chunk; zero across a reset."""

    between: Array  # [B, N, C, C] from the column's step to the row's, zero above the diagonal
    from_start: Array  # [B, N, C] from what came into the chunk
    to_end: Array  # [B, N, C] to the chunk's end
    carried: Array  # [B, 1, C] bool: no reset yet

    def entering(self, read: Array) -> Array:
        """What the C steps read from the state that came in, [B, N, C, V]."""
        return jnp.where(self.carried[..., None], self.from_start[..., None] * read, 0)

    def leaving(self, state: Array) -> Array:
        """What is left of the state that came in, [B, N, K, V]."""
        return jnp.where(self.carried[..., -1:, None], self.from_start[..., -1:, None] * state, 0)


def chunk_decay(log_decay: Array, reset: Array) -> ChunkDecay:
    """log_decay[B, N, C], reset[B, 1, C] bool -> decays between all steps of the chunk."""
    same = same_segment(reset)
    total = total_log_decay(log_decay, reset)
    # masked before exp: above the diagonal it would overflow
    between = jnp.exp(jnp.where(same, total[..., :, None] - total[..., None, :], -jnp.inf))
    carried = no_reset_yet(reset)
    return ChunkDecay(between, jnp.where(carried, jnp.exp(total), 0), between[..., -1, :], carried)


def total_log_decay(log_decay: Array, reset: Array) -> Array:
    """log_decay[B, N, C], reset[B, 1, C] bool -> sums since the episode's or the chunk's beginning, [B, N, C]."""
    log_decay = jnp.where(reset, 0, log_decay)  # it acts on nothing
    # no cumsum: its gradient adds up terms of later episodes that cancel, but not to the last digit
    return jnp.where(same_segment(reset), log_decay[..., None, :], 0).sum(-1)


def no_reset_yet(reset: Array) -> Array:
    """reset[..., C] bool -> [..., C] bool: whether the step still belongs to the episode that came into the chunk."""
    return jnp.cumsum(reset, axis=-1) == 0


def same_segment(reset: Array) -> Array:
    """reset[..., C] bool -> [..., C, C] bool: the column's step is at or before the row's, with no reset between."""
    steps = jnp.arange(reset.shape[-1])
    segment = jnp.cumsum(reset, axis=-1)
    return (segment[..., :, None] == segment[..., None, :]) & (steps[:, None] >= steps)


def scan_chunks(
    body: Callable[[Tree, tuple[Array, ...]], tuple[Tree, Array]],
    state: Tree,
    arrays: tuple[Array, ...],
    reset: Array,
    chunk: int,
) -> tuple[Array, Tree]:
    """Run `body(state, chunk of (*arrays, reset)) -> state, y` over time; returns y[T, B, N, ...], state.

    arrays are [T, B, N] or [T, B, N, X] and reach the body as [B, N, C] and [B, N, C, X], reset as [B, 1, C]. The last
    chunk is filled up with zeros, which must leave the state alone. The gradient computes the body again.
    """
    steps = reset.shape[0]
    count = -(-steps // chunk)
    size = -(-steps // count)
    arrays = tuple(_split(as_float(x), count, size) for x in arrays)
    inputs = (*arrays, _split(reset[..., None], count, size))
    state = where_reset(reset[0], jax.tree.map(jnp.zeros_like, state), state)  # where: the carry may be nan
    if count == 1:
        state, y = body(state, tuple(x[0] for x in inputs))
        return jnp.moveaxis(y, 2, 0)[:steps], state
    state, y = lax.scan(jax.checkpoint(body, prevent_cse=False), state, inputs)
    y = jnp.moveaxis(y, 3, 1)
    return y.reshape(-1, *y.shape[2:])[:steps], state


def _split(x: Array, count: int, size: int) -> Array:
    """x[T, B, N, ...] -> [chunks, B, N, C, ...]."""
    x = jnp.pad(x, [(0, count * size - x.shape[0])] + [(0, 0)] * (x.ndim - 1))
    return jnp.moveaxis(x.reshape(count, size, *x.shape[1:]), 1, 3)


def check_heads(op: str, q: Array, k: Array, v: Array, state: Array, reset: Array, **per_head: Array) -> None:
    """ValueError unless shapes are those of `chunked_linear_attention`; per_head: arrays [T, B, N] or [N]."""
    if v.ndim != 4:
        raise ValueError(f"{op}: v must be [T, B, N, V], got {v.shape}")
    steps, batch, heads, size = v.shape
    if q.shape != k.shape or q.ndim != 4 or q.shape[:2] != (steps, batch) or q.shape[2] not in (1, heads):
        raise ValueError(
            f"{op}: v is {v.shape}, so q and k must both be ({steps}, {batch}, {heads}, K), or have one head; "
            f"got {q.shape} and {k.shape}"
        )
    if state.shape != (batch, heads, q.shape[-1], size):
        raise ValueError(
            f"{op}: k is {k.shape} and v {v.shape}, so state must be {(batch, heads, q.shape[-1], size)}, "
            f"got {state.shape}"
        )
    for name, x in per_head.items():
        if x.shape not in (v.shape[:-1], (heads,), (steps, batch, 1), (1,)):
            raise ValueError(f"{op}: v is {v.shape}, so {name} must be {v.shape[:-1]} or ({heads},), got {x.shape}")
    if reset.shape != (steps, batch):
        raise ValueError(f"{op}: v is {v.shape}, so reset must be {(steps, batch)}, got {reset.shape}")
