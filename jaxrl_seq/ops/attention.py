"""Causal attention over a sliding window of W steps, with episode boundaries, in two views.

Parallel view: keys are [cache | block], W + T of them, cache oldest first; query t stands at index W + t and
sees the indices start[t] .. W + t. One integer a query describes window, causality and episode at once (and is
what flash kernels take). Recurrent view: keys and values live in a ring of W slots with one clock for the whole
batch and an age per environment; a reset only sets the age to zero, nothing is cleared.

Shapes: B environments, N query heads, K key heads (K divides N), H head width, W window, T time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxrl_seq.ops.precision import Dtype, float_type
from jaxrl_seq.ops.segments import steps_since_reset

Array = jax.Array
AttentionImpl = Literal["auto", "dense", "mapped"]

MAX_AGE = 2**30  # ages saturate here, so that counting never overflows int32
MAPPED_SCORES = 2**17  # scores handled at a time on CPU: half a megabyte stays in a core's cache


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WindowCache:
    """The carry of a sliding-window attention. Position p sits in slot p mod W; dead slots keep stale numbers."""

    keys: Array  # [B, K, H, W], slots last: the scores of one query vectorise over them
    values: Array  # [B, K, W, H]
    age: Array  # [B] int32, steps taken since the last reset (saturating at 2**30)
    clock: Array  # [] int32, steps taken since the cache was made, the same for all environments


class Relative(NamedTuple):
    """A term of the scores that depends on the distance d = 0 .. W-1 to the key: queries . keys[d].

    Transformer-XL has queries of width H against embedded distances, ALiBi one constant feature against -slope * d.
    """

    queries: Array  # [B, N, T, F] (a step: [B, N, F]); scaling is the caller's
    keys: Array  # [N, W, F]


class Weighing(NamedTuple):
    """How scores become weights: a softmax, possibly with a learned sink and clipped."""

    sink: Array | None = None
    """[N] a logit beside each query's keys that takes weight and gives no value: a head may attend to nothing."""
    clip: tuple[float, float] = (0.0, 1.0)
    """Weights are stretched to this range and cut at 0 and 1; (-0.03, 1.03) makes exact zeros reachable
    (Bondarenko et al. 2023, arXiv:2306.12929)."""


SOFTMAX = Weighing()


def empty_cache(batch: tuple[int, ...], kv_heads: int, window: int, head_dim: int, dtype: Dtype) -> WindowCache:
    """A cache nobody has written to; batch is (B,)."""
    keys = jnp.zeros((*batch, kv_heads, head_dim, window), dtype)
    values = jnp.zeros((*batch, kv_heads, window, head_dim), dtype)
    return WindowCache(keys, values, jnp.zeros(batch, jnp.int32), jnp.zeros((), jnp.int32))


def episode_position(reset: Array, age: Array) -> Array:
    """reset[T, B], age[B] -> int32[T, B]: steps before x[t] in its episode (saturating)."""
    return jnp.minimum(steps_since_reset(reset, age), MAX_AGE - 1)


def key_start(position: Array, window: int) -> Array:
    """First visible index in [cache | block]: position[T, B] in the episode -> int32[B, T].

    A query at index W + t sees at most the W latest keys, itself included, and none from before its episode.
    """
    steps = jnp.arange(position.shape[0], dtype=jnp.int32)[:, None]
    return (window + steps - jnp.minimum(position, window - 1)).T


def windowed_attention(
    q: Array,
    k: Array,
    v: Array,
    start: Array,
    *,
    relative: Relative | None = None,
    weighing: Weighing = SOFTMAX,
    impl: AttentionImpl = "auto",
) -> Array:
    """q[B, N, T, H], k and v[B, K, W+T, H] as [cache | block], start[B, T] -> [B, N, T, H].

    Softmax in float32 or wider; heads are grouped without repeating keys. Queries are cut in blocks of C, each
    against its own keys and the W before them: O(T (W + C)) work and memory.
    impl: "dense" does all blocks at once; "mapped" loops over groups of them that fit a core's cache and recomputes
    the scores in the backward pass (on CPU 4 to 5 times faster); "auto" is "mapped" on CPU.
    Raises ValueError unless K divides N, and for an unknown impl.
    """
    heads, length = q.shape[1:3]
    window = k.shape[2] - length
    if impl not in ("auto", "dense", "mapped"):
        raise ValueError(f"windowed_attention: unknown impl {impl!r}; known: auto, dense, mapped")
    if heads % k.shape[1]:
        raise ValueError(f"windowed_attention: {heads} query heads cannot share {k.shape[1]} key heads evenly")
    if impl == "auto":
        impl = "mapped" if jax.default_backend() == "cpu" else "dense"
    k, v = _hide_unseen(k, start), _hide_unseen(v, start)
    size = min(length, _mapped_queries(window, heads // k.shape[1]) if impl == "mapped" else window)
    table = None if relative is None else relative.keys
    rows = _rows(q, k, v, start, None if relative is None else relative.queries, size)
    out = _attend(rows, table, weighing) if impl == "dense" else _attend_in_groups(rows, table, weighing)
    out = out.reshape(q.shape[0], -1, heads, size, q.shape[-1]).swapaxes(1, 2)
    return out.reshape(q.shape[0], heads, -1, q.shape[-1])[:, :, :length]


def extend_cache(cache: WindowCache, k: Array, v: Array) -> tuple[Array, Array]:
    """k, v[B, K, T, H] of a block -> [cache | block] keys and values, [B, K, W+T, H], oldest first."""
    shift = -jnp.remainder(cache.clock, cache.values.shape[2])
    keys, values = (jnp.roll(x, shift, axis=2) for x in (cache.keys.swapaxes(2, 3), cache.values))
    return (
        jnp.concatenate([keys, k.astype(keys.dtype)], axis=2),
        jnp.concatenate([values, v.astype(values.dtype)], axis=2),
    )


def cache_after(cache: WindowCache, keys: Array, values: Array, position: Array) -> WindowCache:
    """The cache after a block, from [cache | block] keys and values and position[T, B] in the episode."""
    window, clock = cache.values.shape[2], cache.clock + position.shape[0]
    shift = jnp.remainder(clock, window)
    keys, values = (jnp.roll(x[:, :, -window:], shift, axis=2) for x in (keys, values))
    return WindowCache(keys.swapaxes(2, 3), values, position[-1] + 1, clock)


def cache_write(cache: WindowCache, k: Array, v: Array, reset: Array) -> tuple[WindowCache, Array]:
    """Write one step k, v[B, K, H] after forgetting where reset[B] -> new cache, visible[B, W] bool slots.

    The slot index is a rank-0 number, so the write stays an in-place slice, also under a vmap over seeds.
    """
    window = cache.values.shape[2]
    slot = jnp.remainder(cache.clock, window)
    k, v = k[:, :, :, None].astype(cache.keys.dtype), v[:, :, None].astype(cache.values.dtype)
    keys = lax.dynamic_update_slice_in_dim(cache.keys, k, slot, 3)
    values = lax.dynamic_update_slice_in_dim(cache.values, v, slot, 2)
    age = jnp.minimum(jnp.where(reset, 0, cache.age), MAX_AGE - 1) + 1
    slot_age = jnp.remainder(slot - jnp.arange(window, dtype=jnp.int32), window)
    return WindowCache(keys, values, age, cache.clock + 1), slot_age < age[:, None]


def cached_attention(
    q: Array,
    cache: WindowCache,
    visible: Array,
    *,
    relative: Relative | None = None,
    weighing: Weighing = SOFTMAX,
) -> Array:
    """q[B, N, H] against the slots visible[B, W] -> [B, N, H]; at least one slot a row must be visible."""
    # a hidden slot may hold nan, and 0 * nan would bring it back
    values = jnp.where(visible[:, None, :, None], cache.values, jnp.zeros_like(cache.values))
    keys = jnp.where(visible[:, None, None], cache.keys, jnp.zeros_like(cache.keys))
    kv_heads, wide = keys.shape[1], float_type(keys)
    grouped = _group(_scale(q).astype(keys.dtype), kv_heads)
    exact = jax.lax.Precision.HIGHEST
    scores = jnp.einsum("bkgh,bkhw->bkgw", grouped.astype(wide), keys.astype(wide), precision=exact)
    if relative is not None:
        # slot s was written (clock - 1 - s) mod W steps ago
        table = jnp.roll(relative.keys[:, ::-1], cache.clock, axis=1)
        scores = scores + _group(jnp.einsum("bnf,nwf->bnw", relative.queries, table), kv_heads)
    weights = _weights(scores, visible[:, None, None], weighing)
    return _mix("bkgw,bkwh->bkgh", weights, values).reshape(q.shape)


class _Rows(NamedTuple):
    """Independent problems: R of them, each with C queries that stand at the end of S keys."""

    q: Array  # [R, N, C, H]
    k: Array  # [R, K, S, H]
    v: Array  # [R, K, S, H]
    start: Array  # [R, C]
    relative: Array | None  # [R, N, C, F]


def _rows(q: Array, k: Array, v: Array, start: Array, relative: Array | None, size: int) -> _Rows:
    """Cut T into n blocks of C = `size` queries, each with the keys it may see: R = B n, S = C + W rounded up to C."""
    length = q.shape[2]
    window = k.shape[2] - length
    blocks = -(-length // size)
    if blocks == 1:
        return _Rows(q, k, v, start, relative)
    front, back = -window % size, blocks * size - length

    def cut(x: Array) -> Array:
        x = _pad(x, 2, 0, back)
        x = x.reshape(*x.shape[:2], blocks, size, x.shape[-1]).swapaxes(1, 2)
        return x.reshape(-1, *x.shape[2:])

    first_key = size * jnp.arange(blocks, dtype=jnp.int32)[:, None]
    start = _pad(start, 1, 0, back).reshape(-1, blocks, size) + front - first_key
    k, v = (_windows(_pad(x, 2, front, back), blocks, size) for x in (k, v))
    return _Rows(cut(q), k, v, start.reshape(-1, size), None if relative is None else cut(relative))


def _windows(x: Array, blocks: int, size: int) -> Array:
    """x[B, K, (n + m) size, H] -> [B n, K, (m + 1) size, H]: behind each block, the m blocks before it."""
    x = x.reshape(*x.shape[:2], -1, size, x.shape[-1]).swapaxes(1, 2)
    before = x.shape[1] - blocks
    x = jnp.concatenate([x[:, j : j + blocks] for j in range(before + 1)], axis=3)
    return x.reshape(-1, *x.shape[2:])


def _mapped_queries(window: int, group: int) -> int:
    """Queries a block on CPU, where `group` heads share keys: few, as keys that only others of the block see are
    computed and masked; but products need rows, of which a group has more."""
    return max(16, min(window // 2, 64 if group == 1 else 32))


def _attend_in_groups(rows: _Rows, table: Array | None, weighing: Weighing) -> Array:
    count, heads, length = rows.q.shape[:3]
    wanted = max(1, MAPPED_SCORES // (heads * length * rows.k.shape[2]))
    group = max(n for n in range(1, min(count, wanted) + 1) if count % n == 0)
    grouped = jax.tree.map(lambda x: x.reshape(-1, group, *x.shape[1:]), rows)
    attend = jax.checkpoint(lambda rows: _attend(rows, table, weighing), prevent_cse=False)
    return lax.map(attend, grouped).reshape(rows.q.shape)


def _attend(rows: _Rows, table: Array | None, weighing: Weighing) -> Array:
    """Dense masked attention of C queries to S keys -> [R, N, C, H]; query c stands at S - C + c."""
    length, keys, kv_heads = rows.q.shape[2], rows.k.shape[2], rows.k.shape[1]
    index = jnp.arange(keys, dtype=jnp.int32)
    here = jnp.arange(length, dtype=jnp.int32)[:, None] + (keys - length)
    mask = (index >= rows.start[..., None]) & (index <= here)
    grouped = _group(_scale(rows.q).astype(rows.k.dtype), kv_heads)
    scores = jnp.einsum("bkgth,bksh->bkgts", grouped, rows.k, preferred_element_type=float_type(rows.k))
    if rows.relative is not None and table is not None:
        by_distance = jnp.einsum("bntf,nwf->bntw", rows.relative, table[:, ::-1])
        scores = scores + _group(_by_key(by_distance, keys), kv_heads)
    weights = _weights(scores, mask[:, None, None], weighing)
    return _mix("bkgts,bksh->bkgth", weights, rows.v).reshape(rows.q.shape)


def _by_key(x: Array, keys: int) -> Array:
    """x[..., C, W], farthest distance first -> [..., C, S]: row c, whose own key is S - C + c, moved to its W keys.

    Rows are laid out one longer than they are read, which shifts each by one more than the one above: no gather.
    """
    length, window = x.shape[-2:]
    front = keys - length - window + 1
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(front, keys + 1 - front - window)])
    x = x.reshape(*x.shape[:-2], length * (keys + 1))
    return x[..., : length * keys].reshape(*x.shape[:-1], length, keys)


def _scale(q: Array) -> Array:
    return q * q.shape[-1] ** -0.5


def _group(q: Array, kv_heads: int) -> Array:
    """q[B, N, ...] -> [B, K, N/K, ...]: query heads beside the key head they share."""
    return q.reshape(q.shape[0], kv_heads, -1, *q.shape[2:])


def _weights(scores: Array, mask: Array, weighing: Weighing) -> Array:
    """scores[B, K, G, ..., S] -> weights, zero where the mask is; clipping and the sink as `weighing` says."""
    # finite, so that no arithmetic on hidden scores can make nan; every row sees at least itself
    scores = jnp.where(mask, scores, 0.5 * jnp.finfo(scores.dtype).min)
    if weighing.sink is None:
        weights = jax.nn.softmax(scores, axis=-1)
    else:
        sink = weighing.sink.reshape(*scores.shape[1:3], *[1] * (scores.ndim - 3)).astype(scores.dtype)
        peak = lax.stop_gradient(jnp.maximum(scores.max(-1, keepdims=True), sink))
        raised = jnp.exp(scores - peak)
        weights = raised / (raised.sum(-1, keepdims=True) + jnp.exp(sink - peak))
    low, high = weighing.clip
    if (low, high) == (0.0, 1.0):
        return weights
    return jnp.where(mask, jnp.clip((high - low) * weights + low, 0.0, 1.0), 0.0)


def _mix(spec: str, weights: Array, v: Array) -> Array:
    return jnp.einsum(spec, weights.astype(v.dtype), v, preferred_element_type=float_type(v))


def _hide_unseen(x: Array, start: Array) -> Array:
    """Zero the cached keys (or values) before the first query's start: starts never fall, so nobody sees them.

    They may be nan, left by an episode that a reset ended.
    """
    index = jnp.arange(x.shape[2], dtype=jnp.int32)
    seen = index >= start[:, :1]
    return jnp.where(seen[:, None, :, None], x, jnp.zeros_like(x))


def _pad(x: Array, axis: int, before: int, after: int) -> Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (before, after)
    return jnp.pad(x, widths)
