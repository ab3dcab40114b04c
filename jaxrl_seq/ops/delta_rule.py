"""Delta rule: a matrix state that replaces what a key recalls instead of adding to it, in chunks, with resets.

    S' = exp(log_decay[t]) S[t-1],    S[t] = S' + beta[t] k[t] (v[t] - S'^T k[t])^T,    y[t] = S[t]^T q[t]

Schlag et al. 2021 (arXiv:2102.11174); decays and chunks: Yang et al. 2024 (arXiv:2406.06484, arXiv:2412.06464). Shapes
as in `linear_attention`. What a chunk writes at its steps depends on what it wrote before, by a unit triangular system
of C equations. They are solved by substitution: a power series in A is all matrix products, but with keys that
resemble each other, as successive observations do, its terms grow to 1e8 and cancel.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular

from jaxrl_seq.ops.linear_attention import check_heads, chunk_decay, scan_chunks
from jaxrl_seq.ops.precision import as_float
from jaxrl_seq.ops.segments import where_reset

Array = jax.Array
ROWS = 16
"""Equations solved at once. Batches of systems of 32 were a thousand times slower than of 16 on CPU (LAPACK)."""


def gated_delta_rule(
    q: Array, k: Array, v: Array, log_decay: Array, beta: Array, state: Array, reset: Array, *, chunk: int = 32
) -> tuple[Array, Array]:
    """q, k [T, B, N, K], v[T, B, N, V], log_decay (at most 0) and beta [T, B, N] or [N], state[B, N, K, V],
    reset[T, B] bool -> y[T, B, N, V], state after the chunk.

    Keys should be of length one and beta in [0, 1], or [0, 2] to allow for reflections; else the state may grow.
    Raises ValueError for shapes that do not fit one another.
    """
    check_heads("gated_delta_rule", q, k, v, state, reset, log_decay=log_decay, beta=beta)
    log_decay, beta = (jnp.broadcast_to(x, (*reset.shape, x.shape[-1])) for x in (log_decay, beta))

    def body(state: Array, inputs: tuple[Array, ...]) -> tuple[Array, Array]:
        q, k, v, log_decay, beta, reset = inputs
        decay = chunk_decay(log_decay, reset)
        overlap = jnp.matmul(k, k.mT, precision=lax.Precision.HIGHEST)
        system = beta[..., None] * decay.between * overlap  # its diagonal is taken as ones
        wanted = beta[..., None] * (v - decay.entering(k @ state))
        written = _substitute(system, wanted)
        y = (q @ k.mT * decay.between) @ written + decay.entering(q @ state)
        return decay.leaving(state) + k.mT @ (decay.to_end[..., None] * written), y

    return scan_chunks(body, as_float(state), (q, k, v, log_decay, beta), reset, chunk)


def _substitute(system: Array, wanted: Array) -> Array:
    """Solve (1 + strictly lower part of system[..., C, C]) x = wanted[..., C, V], a few rows at a time."""
    solved = wanted[..., :0, :]
    for start in range(0, system.shape[-1], ROWS):
        rows = slice(start, start + ROWS)
        left = wanted[..., rows, :]
        if start:
            left = left - jnp.matmul(system[..., rows, :start], solved, precision=lax.Precision.HIGHEST)
        block = solve_triangular(system[..., rows, rows], left, lower=True, unit_diagonal=True)
        solved = jnp.concatenate([solved, block], axis=-2)
    return solved


def gated_delta_rule_step(
    q: Array, k: Array, v: Array, log_decay: Array, beta: Array, state: Array, reset: Array
) -> tuple[Array, Array]:
    """One step: q, k [B, N, K], v[B, N, V], log_decay and beta [B, N] or [N], state[B, N, K, V], reset[B]
    -> y[B, N, V], state.
    """
    state = as_float(state)
    state = jnp.exp(as_float(log_decay))[..., None, None] * where_reset(reset, jnp.zeros_like(state), state)
    recalled = (k[..., :, None] * state).sum(-2)
    state = state + k[..., :, None] * (as_float(beta)[..., None] * (v - recalled))[..., None, :]
    return (q[..., :, None] * state).sum(-2), state
