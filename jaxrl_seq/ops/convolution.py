"""Causal depthwise convolution over time that never looks past an episode's beginning.

    y[t] = sum_k weights[k] * u[t - k]   over the k < K for which step t - k belongs to the episode of step t

The carry is the last K - 1 inputs, zero where they belong to an earlier episode.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_seq.ops.segments import last_reset_index

Array = jax.Array


def causal_conv1d(u: Array, weights: Array, history: Array, reset: Array) -> tuple[Array, Array]:
    """u[T, B, D], weights[K, D], history[B, K-1, D] oldest first, reset[T, B] bool -> y[T, B, D], history.

    `weights[0]` meets the present step. weights[K, 1] convolve all channels alike. Raises ValueError for shapes that do
    not fit one another.
    """
    _check(u, weights, history, reset)
    steps, past = u.shape[0], weights.shape[0] - 1
    history = jnp.where(reset[0][:, None, None], jnp.zeros_like(history), history)  # where: the carry may be nan
    line = jnp.concatenate([history.swapaxes(0, 1).astype(u.dtype), u])
    last = last_reset_index(reset)[..., None]
    start = jnp.where(last < 0, -past, last)  # the first step that belongs to the episode; history stands before 0
    time = jnp.arange(steps, dtype=jnp.int32)[:, None, None]
    y = u * weights[0]
    for lag in range(1, past + 1):
        shifted = line[past - lag : past - lag + steps]
        y = y + jnp.where(time - lag >= start, shifted, jnp.zeros_like(shifted)) * weights[lag]
    kept = line[steps:].swapaxes(0, 1)
    age = jnp.arange(past, dtype=jnp.int32)[:, None] + steps - past  # the time of each kept row
    alive = age >= start[-1][:, None]
    return y, jnp.where(alive, kept, jnp.zeros_like(kept)).astype(history.dtype)


def causal_conv1d_step(u: Array, weights: Array, history: Array, reset: Array) -> tuple[Array, Array]:
    """One step: u[B, D], weights[K, D], history[B, K-1, D], reset[B] -> y[B, D], history."""
    history = jnp.where(reset[:, None, None], jnp.zeros_like(history), history)
    line = jnp.concatenate([history.astype(u.dtype), u[:, None]], axis=1)
    return (line * weights[::-1]).sum(1), line[:, 1:].astype(history.dtype)


def _check(u: Array, weights: Array, history: Array, reset: Array) -> None:
    (steps, batch, width), kernel = u.shape, weights.shape[0]
    if weights.shape[1:] not in ((width,), (1,)):
        raise ValueError(f"causal_conv1d: u is {u.shape}, so weights must be [K, {width}], got {weights.shape}")
    if history.shape != (batch, kernel - 1, width):
        raise ValueError(
            f"causal_conv1d: with u {u.shape} and a kernel of {kernel} steps, history must be "
            f"{(batch, kernel - 1, width)}, got {history.shape}"
        )
    if reset.shape != (steps, batch):
        raise ValueError(f"causal_conv1d: u is {u.shape}, so reset must be {(steps, batch)}, got {reset.shape}")
