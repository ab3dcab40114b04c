"""h[t] = a[t] * h[t-1] + b[t], elementwise, with resets: the time axis of every diagonal state-space model.

Numbers are real arrays, or complex ones written as a pair `(re, im)`: complex dtypes cost twice the needed
products, confuse optimisers and are unknown to GPU kernels.

A reset makes a[t] zero and the carry is folded into b[0] under a `where`, so the associative operator needs no flag
(models in this library use no third channel as Lu et al. 2023, "Structured State Space Models for In-Context
Reinforcement Learning", do). The gradient is written by hand: it is the same recurrence run backwards,
and keeps one array of states (plus `a` when it varies) instead of the ~5 that differentiating a scan tree keeps.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax

from jaxrl_seq.ops.choice import fastest
from jaxrl_seq.ops.precision import as_float

Array = jax.Array
Number = Any  # an Array, or a pair (re, im) of Arrays
Parts = tuple[Array, ...]  # internal form: (x,) or (re, im)
Impl = Literal["auto", "scan", "associative", "chunked"]
IMPLS: tuple[str, ...] = get_args(Impl)


def linear_recurrence(a: Number, b: Number, h0: Number, reset: Array | None = None, *, impl: Impl = "auto") -> Number:
    """All states h[T, B, ...] of h[t] = a[t] * h[t-1] + b[t], where a reset at t replaces h[t-1] by zero.

    a: decay, [...] the same at every step and environment, or [T, B, ...]; array or pair (re, im), as b is.
    b: input [T, B, ...]. h0: state before the chunk [B, ...]. reset: bool [T, B] or None.
    impl: "scan" (one pass through cache, best on CPU), "associative" (log-depth), "chunked" (2 sqrt(T) steps over all
    chunks side by side), "auto" (`jaxrl_seq.ops.choice`).
    Returns h, float32 or wider, array or pair as b; the carry for the next chunk is h[-1].
    Differentiable (reverse mode) in a, b and h0. Raises ValueError for mixed pairs, mismatched shapes or unknown impl.
    """
    is_pair = isinstance(b, tuple)
    a_parts, b_parts, h_parts = _parts(a), _parts(b), _parts(h0)
    _check(a_parts, b_parts, h_parts, reset, impl)
    if reset is None:
        reset = jnp.zeros(b_parts[0].shape[:2], bool)
    chosen: str = impl
    if impl == "auto":
        numbers = sum(math.prod(x.shape[1:]) for x in b_parts)
        chosen = fastest("linear_recurrence", b_parts[0].shape[0], numbers, default=_default_impl())
    h: Parts = _recurrence(chosen, a_parts, b_parts, h_parts, reset)
    return h if is_pair else h[0]


def linear_recurrence_step(a: Number, b: Number, h: Number, reset: Array) -> Number:
    """One step: a * where(reset, 0, h) + b, for b, h [B, ...], a [...] or [B, ...], reset[B]; arrays or pairs."""
    parts = _advance(_parts(a), _parts(b), _clear(reset, _parts(h)))
    return parts if isinstance(b, tuple) else parts[0]


def multiply(a: Number, b: Number) -> Number:
    """Product of two real arrays or of two pairs (re, im), broadcasting."""
    parts = _times(_parts(a), _parts(b))
    return parts if isinstance(b, tuple) else parts[0]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recurrence(impl: str, a: Parts, b: Parts, h0: Parts, reset: Array) -> Parts:
    return _run(impl, a, b, _clear(reset[0], h0), reset)


def _forward(impl, a, b, h0, reset):
    h = _recurrence(impl, a, b, h0, reset)
    return h, (a, h, h0, reset)


def _backward(impl, residuals, cotangent):
    """g[t] = ct[t] + conj(a[t+1]) * g[t+1]; then db = g, da[t] = g[t] * conj(h[t-1]), dh0 = conj(a[0]) * g[0]."""
    a, h, h0, reset = residuals
    conj = _conjugate(a)
    later = _shift_up(conj) if _varies(a, h) else conj
    no_reset = jnp.zeros_like(reset[:1])
    resets_later = jnp.concatenate([reset[1:], no_reset])
    zero = tuple(jnp.zeros_like(x) for x in h0)
    g = _run(impl, later, cotangent, zero, resets_later, reverse=True)

    first = tuple(x[:1].astype(y.dtype) for x, y in zip(_lead(h0), h, strict=True))
    before = tuple(jnp.concatenate([x, y[:-1]]) for x, y in zip(first, h, strict=True))
    da = _times(_conjugate(_clear(reset, before)), g)
    if not _varies(a, h):
        da = tuple(x.sum((0, 1)) for x in da)
    da = tuple(x.astype(y.dtype) for x, y in zip(da, a, strict=True))
    a_first = tuple(x[0] for x in conj) if _varies(a, h) else conj
    dh0 = _clear(reset[0], _times(a_first, tuple(x[0] for x in g)))
    return da, g, dh0, None


_recurrence.defvjp(_forward, _backward)


def _run(impl: str, a: Parts, b: Parts, h0: Parts, reset: Array, reverse: bool = False) -> Parts:
    run = {"scan": _run_scan, "associative": _run_associative, "chunked": _run_chunked}[impl]
    return run(a, b, h0, reset, reverse)


def _default_impl() -> str:
    return "scan" if jax.default_backend() == "cpu" else "associative"


def _run_scan(a: Parts, b: Parts, h0: Parts, reset: Array, reverse: bool) -> Parts:
    varies = _varies(a, b)

    def body(h, inputs):
        flags, b_t, a_t = inputs
        h = _advance(a_t if varies else a, b_t, _clear(flags, h))
        return h, h

    return lax.scan(body, h0, (reset, b, a if varies else None), reverse=reverse)[1]


def _run_associative(a: Parts, b: Parts, h0: Parts, reset: Array, reverse: bool) -> Parts:
    decay = _clear(reset, tuple(jnp.broadcast_to(x, y.shape) for x, y in zip(a, b, strict=True)))
    edge = -1 if reverse else 0
    carried = _times(tuple(x[edge] for x in decay), h0)
    b = tuple(_add_at_edge(x, y, reverse) for x, y in zip(b, carried, strict=True))

    def combine(left, right):
        return _times(right[0], left[0]), _advance(right[0], right[1], left[1])

    return lax.associative_scan(combine, (decay, b), reverse=reverse)[1]


def _run_chunked(a: Parts, b: Parts, h0: Parts, reset: Array, reverse: bool) -> Parts:
    """All chunks of about sqrt(T) steps side by side from zero, then chunk after chunk what came in before."""
    steps = b[0].shape[0]
    size = 2 ** round(math.log2(steps) / 2)
    decay = _clear(reset, tuple(jnp.broadcast_to(x, y.shape) for x, y in zip(a, b, strict=True)))
    decay, b = (tuple(_chunks(x, size, reverse) for x in parts) for parts in (decay, b))

    def within(carry, inputs):
        h, product = carry
        a_t, b_t = inputs
        h, product = _advance(a_t, b_t, h), _times(a_t, product)
        return (h, product), (h, product)

    zero = tuple(jnp.zeros_like(x[0]) for x in b)
    one = (jnp.ones_like(zero[0]), *zero[1:])
    (h_last, product_last), (h, product) = lax.scan(within, (zero, one), (decay, b), reverse=reverse)

    def across(h, inputs):
        product_j, h_j = inputs
        return _advance(product_j, h_j, h), h

    h_before = lax.scan(across, h0, (product_last, h_last), reverse=reverse)[1]
    h = _advance(product, h, h_before)
    h = tuple(x.swapaxes(0, 1).reshape(-1, *x.shape[2:]) for x in h)
    return tuple(x[-steps:] if reverse else x[:steps] for x in h)


def _chunks(x: Array, size: int, reverse: bool) -> Array:
    """x[T, ...] -> [size, T / size, ...], filled up with zeros at the end (when reversed, at the start)."""
    fill = -x.shape[0] % size
    x = jnp.pad(x, [(fill, 0) if reverse else (0, fill)] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(-1, size, *x.shape[1:]).swapaxes(0, 1)


def _add_at_edge(x: Array, y: Array, reverse: bool) -> Array:
    rows = (x.shape[0] - 1, 0) if reverse else (0, x.shape[0] - 1)
    return x + jnp.pad(y[None], [rows] + [(0, 0)] * y.ndim)


def _advance(a: Parts, b: Parts, h: Parts) -> Parts:
    return tuple(x + y for x, y in zip(_times(a, h), b, strict=True))


def _times(a: Parts, b: Parts) -> Parts:
    if len(a) == 1:
        return (a[0] * b[0],)
    return (a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0])


def _conjugate(a: Parts) -> Parts:
    return a if len(a) == 1 else (a[0], -a[1])


def _clear(reset: Array, h: Parts) -> Parts:
    def clear(x):
        return jnp.where(reset.reshape(reset.shape + (1,) * (x.ndim - reset.ndim)), jnp.zeros_like(x), x)

    return tuple(clear(x) for x in h)


def _varies(a: Parts, b: Parts) -> bool:
    return a[0].ndim == b[0].ndim


def _shift_up(a: Parts) -> Parts:
    return tuple(jnp.concatenate([x[1:], jnp.zeros_like(x[:1])]) for x in a)


def _lead(h0: Parts) -> Parts:
    return tuple(x[None] for x in h0)


def _parts(x: Number) -> Parts:
    return tuple(as_float(y) for y in x) if isinstance(x, tuple) else (as_float(x),)


def _check(a: Parts, b: Parts, h0: Parts, reset: Array | None, impl: str) -> None:
    if impl not in IMPLS:
        raise ValueError(f"linear_recurrence: unknown impl {impl!r}; known: {', '.join(IMPLS)}")
    if not len(a) == len(b) == len(h0):
        raise ValueError("linear_recurrence: a, b and h0 must all be arrays or all be pairs (re, im)")
    steps, state = b[0].shape, b[0].shape[1:]
    if h0[0].shape != state:
        raise ValueError(f"linear_recurrence: b is {steps} so h0 must be {state}, got {h0[0].shape}")
    if a[0].shape not in (steps, steps[2:]):
        raise ValueError(f"linear_recurrence: b is {steps} so a must be {steps} or {steps[2:]}, got {a[0].shape}")
    if reset is not None and reset.shape != steps[:2]:
        raise ValueError(f"linear_recurrence: b is {steps} so reset must be {steps[:2]}, got {reset.shape}")
