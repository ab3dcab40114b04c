"""One small diagonal state space for each channel (S4D: Gu et al. 2022, arXiv:2206.11893), with resets.

    h[t] = a h[t-1] + u[t],    y[t] = 2 Re(sum over P of c h[t])        a, c, h: P complex numbers for each channel

Shapes: T time, B environments, D channels, P complex states a channel, as pairs (re, im). The state is P times as
large as the input, so training must not store it at every step. "convolution" keeps it at the ends of chunks of C
steps: within a chunk y is a sum over lags k < C of K[k] u[t-k], K[k] = 2 Re(c a^k), without lags beyond the latest
reset; what crosses from chunk to chunk goes in and out of the state by matrix products.
"""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax

from jaxrl_seq.ops.linear_recurrence import linear_recurrence, linear_recurrence_step, multiply
from jaxrl_seq.ops.precision import as_float
from jaxrl_seq.ops.segments import last_reset_index

Array = jax.Array
Pair = tuple[Array, Array]
SpaceImpl = Literal["convolution", "recurrence"]
SPACE_IMPLS: tuple[str, ...] = get_args(SpaceImpl)


def state_space(
    a: Pair, c: Pair, u: Array, h0: Pair, reset: Array, *, impl: SpaceImpl = "convolution", chunk: int = 16
) -> tuple[Pair, Array]:
    """a, c (re, im)[D, P], u[T, B, D], h0 (re, im)[B, D, P], reset[T, B] bool -> state after the chunk, y[T, B, D].

    impl: "convolution" (lags within `chunk` steps, states between) or "recurrence" (every state stored).
    Raises ValueError for mismatched shapes or an unknown impl.
    """
    _check(a, c, u, h0, reset, impl)
    u, h0 = as_float(u), (as_float(h0[0]), as_float(h0[1]))
    if impl == "recurrence":
        drive = jnp.broadcast_to(u[..., None], (*u.shape, a[0].shape[-1]))
        h = linear_recurrence(a, (drive, jnp.zeros_like(drive)), h0, reset)
        return (h[0][-1], h[1][-1]), _read(c, h)
    steps = u.shape[0]
    whole = steps - steps % chunk
    outputs = []
    for part, size in ((slice(0, whole), chunk), (slice(whole, steps), steps - whole)):
        if part.start < part.stop:
            h0, y = _convolve(a, c, u[part], h0, reset[part], size)
            outputs.append(y)
    return h0, jnp.concatenate(outputs)


def state_space_step(a: Pair, c: Pair, u: Array, h: Pair, reset: Array) -> tuple[Pair, Array]:
    """One step: a, c (re, im)[D, P], u[B, D], h (re, im)[B, D, P], reset[B] -> next state, y[B, D]."""
    drive = as_float(u)[..., None]
    h = linear_recurrence_step(a, (drive, jnp.zeros_like(drive)), h, reset)
    return h, _read(c, h)


def _read(c: Pair, h: Pair) -> Array:
    return 2 * (c[0] * h[0] - c[1] * h[1]).sum(-1)


def _convolve(a: Pair, c: Pair, u: Array, h0: Pair, reset: Array, size: int) -> tuple[Pair, Array]:
    """T must be a multiple of `size`."""
    u, reset = (x.reshape(-1, size, *x.shape[1:]) for x in (u, reset))
    last = last_reset_index(reset.swapaxes(0, 1)).swapaxes(0, 1)  # [chunk, C, B], -1: still in what came in
    powers = _powers(a, size + 1)  # [C + 1, D, P]
    weights = multiply(c, powers)

    index = jnp.arange(size)[:, None]
    y = _lags(2 * weights[0][:size].sum(-1), u, index - jnp.maximum(last, 0))

    kept = jnp.where((index >= last[:, -1:])[..., None], u, 0)
    enter = jnp.concatenate(powers, axis=-1)[size - 1 :: -1]  # [C, D, 2P]
    gathered = jnp.split(jnp.einsum("ncbd,cdp->nbdp", kept, enter), 2, axis=-1)
    h = linear_recurrence((powers[0][size], powers[1][size]), tuple(gathered), h0, reset.any(1))
    before = jnp.concatenate([jnp.concatenate(h0, axis=-1)[None], jnp.concatenate(h, axis=-1)[:-1]])
    before = jnp.where(reset[:, 0, :, None, None], 0, before)
    leave = jnp.concatenate([2 * weights[0], -2 * weights[1]], axis=-1)[1:]
    carried = jnp.einsum("nbdp,cdp->ncbd", before, leave)
    y = y + jnp.where((last < 0)[..., None], carried, 0)
    return (h[0][-1], h[1][-1]), y.reshape(-1, *y.shape[2:])


def _lags(kernel: Array, u: Array, age: Array) -> Array:
    """sum over k <= age of kernel[k] u[t-k]: kernel[C, D], u[chunk, C, B, D], age[chunk, C, B] -> [chunk, C, B, D]."""
    size = u.shape[1]
    padded = jnp.pad(u, ((0, 0), (size, 0), (0, 0), (0, 0)))

    @jax.checkpoint  # else the shifted inputs are kept for the gradient, C times the memory of u
    def add(y, inputs):
        k, weight = inputs
        before = lax.dynamic_slice_in_dim(padded, size - k, size, axis=1)
        return y + jnp.where((k <= age)[..., None], before, 0) * weight, None

    return lax.scan(add, jnp.zeros_like(u), (jnp.arange(size), kernel))[0]


def _powers(a: Pair, count: int) -> Pair:
    """a^0 ... a^(count - 1), (re, im)[count, D, P]."""
    one = jnp.ones_like(a[0]), jnp.zeros_like(a[1])
    return lax.scan(lambda power, _: (multiply(a, power), power), one, length=count)[1]


def _check(a: Pair, c: Pair, u: Array, h0: Pair, reset: Array, impl: str) -> None:
    if impl not in SPACE_IMPLS:
        raise ValueError(f"state_space: unknown impl {impl!r}; known: {', '.join(SPACE_IMPLS)}")
    space = a[0].shape
    if c[0].shape != space or u.ndim != 3 or u.shape[-1] != space[0]:
        raise ValueError(
            f"state_space: a is {space}, so c must be too and u [T, B, {space[0]}]; got {c[0].shape} and {u.shape}"
        )
    if h0[0].shape != (u.shape[1], *space) or reset.shape != u.shape[:2]:
        raise ValueError(
            f"state_space: u is {u.shape}, so h0 must be {(u.shape[1], *space)} and reset {u.shape[:2]}; "
            f"got {h0[0].shape} and {reset.shape}"
        )
