"""Delta rule: a matrix state that replaces what a key recalls instead of adding to it, in chunks, with resets.

    S' = exp(log_decay[t]) S[t-1],    S[t] = S' + beta[t] k[t] (v[t] - S'^T k[t])^T,    y[t] = S[t]^T q[t]

Schlag et al. 2021 (arXiv:2102.11174); decays and chunks: Yang et al. 2024 (arXiv:2406.06484, arXiv:2412.06464). Shapes
as in `linear_attention`. What a chunk writes at its steps depends on what it wrote before, by a unit triangular system
of C equations. Its matrix is inverted in blocks of 1, 2, 4, ... steps, which is all matrix products and as stable as
substitution; a power series is not: with keys that resemble each other, as successive observations do, its terms grow
to 1e8 and cancel. (The triangular solver of XLA's CPU backend is 2 to 1000 times slower on batches of such systems, and
can deadlock under vmap: jaxlib 0.10.)
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxrl_seq.ops.linear_attention import check_heads, chunk_decay, read_matrix, scan_chunks
from jaxrl_seq.ops.precision import as_float
from jaxrl_seq.ops.segments import where_reset

Array = jax.Array
_product = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)


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
        overlap = _product(k, k.mT)
        system = beta[..., None] * decay.between * overlap
        wanted = beta[..., None] * (v - decay.entering(k @ state))
        written = _product(invert_unit_lower(system), wanted)
        y = (q @ k.mT * decay.between) @ written + decay.entering(q @ state)
        return decay.leaving(state) + k.mT @ (decay.to_end[..., None] * written), y

    return scan_chunks(body, as_float(state), (q, k, v, log_decay, beta), reset, chunk)


@jax.custom_vjp
def invert_unit_lower(x: Array) -> Array:
    """The inverse of 1 + the strictly lower part of x[..., C, C]; the rest of x is not looked at."""
    step = jnp.arange(x.shape[-1])

    def double(level: Array, inverse: Array) -> Array:
        """From blocks of 2^level steps on the diagonal, each inverted, to blocks twice as large."""
        block = step >> level
        corner = jnp.where((block[:, None] % 2 == 1) & (block == block[:, None] - 1), x, 0)
        return inverse - _product(inverse, _product(corner, inverse))

    identity = jnp.broadcast_to(jnp.eye(x.shape[-1], dtype=x.dtype), x.shape)
    # a loop and not its five rounds: a fifth of the code to compile
    return lax.fori_loop(0, (x.shape[-1] - 1).bit_length(), double, identity)


def _invert_forward(x: Array) -> tuple[Array, Array]:
    inverse = invert_unit_lower(x)
    return inverse, inverse


def _invert_backward(inverse: Array, gradient: Array) -> tuple[Array]:
    return (-jnp.tril(_product(inverse.mT, _product(gradient, inverse.mT)), -1),)


invert_unit_lower.defvjp(_invert_forward, _invert_backward)


def gated_delta_rule_step(
    q: Array, k: Array, v: Array, log_decay: Array, beta: Array, state: Array, reset: Array
) -> tuple[Array, Array]:
    """One step: q, k [B, N, K], v[B, N, V], log_decay and beta [B, N] or [N], state[B, N, K, V], reset[B]
    -> y[B, N, V], state.
    """
    state = as_float(state)
    state = jnp.exp(as_float(log_decay))[..., None, None] * where_reset(reset, jnp.zeros_like(state), state)
    recalled = read_matrix(k, state)
    state = state + k[..., :, None] * (as_float(beta)[..., None] * (v - recalled))[..., None, :]
    return read_matrix(q, state), state
