"""Resets as arithmetic: who is in which episode, how long ago it began, and how a carry forgets.

Shapes: T time, B environments. `reset[t]` means: forget everything *before* consuming x[t].
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array
Tree = Any


def last_reset_index(reset: Array) -> Array:
    """reset[T, ...] bool -> int32[T, ...]: index of the latest reset at or before t, -1 where there is none."""
    steps = _steps_like(reset)
    return lax.cummax(jnp.where(reset, steps, -1), axis=0)


def steps_since_reset(reset: Array, carry_in: Array) -> Array:
    """reset[T, B] bool, carry_in[B] int32 steps already taken -> int32[T, B], the position of x[t] in its episode.

    The first step of an episode has position 0. The next chunk continues with `result[-1] + 1`.
    """
    last = last_reset_index(reset)
    steps = _steps_like(reset)
    return jnp.where(last >= 0, steps - last, carry_in.astype(jnp.int32) + steps)


def segment_ids(reset: Array) -> Array:
    """reset[T, ...] bool -> int32[T, ...]: 0 while still in the carried episode, then 1, 2, ... after each reset."""
    return jnp.cumsum(reset, axis=0, dtype=jnp.int32)


def where_reset(reset: Array, init: Tree, carry: Tree) -> Tree:
    """Leafwise `init` where reset[B], else `carry`; leaves lead with B, rank-0 leaves of `carry` pass through.

    A `where`, never a multiplication: a non-finite carry must die at a reset (0 * nan is nan).
    """

    def pick(fresh, old):
        if jnp.ndim(old) == 0:
            return old
        flags = reset.reshape(reset.shape + (1,) * (jnp.ndim(old) - reset.ndim))
        return jnp.where(flags, fresh, old)

    return jax.tree.map(pick, init, carry)


def take_envs(tree: Tree, index: Array, axis: int = 0) -> Tree:
    """Environments `index` of every leaf: axis=0 for a carry [B, ...], axis=1 for data [T, B, ...].

    Rank-0 leaves (clocks) belong to the whole batch and pass through. On a mesh with an axis `data` (run/mesh.py) what
    is taken is shared out over it, as everything that follows from it then is.
    """
    mesh = jax.sharding.get_abstract_mesh()
    spread = dict(mesh.shape).get("data", 1) > 1

    def pick(leaf):
        if jnp.ndim(leaf) == 0:
            return leaf
        taken = jnp.take(leaf, index, axis=axis)
        place = jax.sharding.PartitionSpec(*(None,) * axis, "data")
        return lax.with_sharding_constraint(taken, place) if spread else taken

    return jax.tree.map(pick, tree)


def is_clock(path: tuple) -> bool:
    """Whether a `jax.tree_util` key path ends in a field or dict key named `clock`."""
    if not path:
        return False
    last = path[-1]
    return getattr(last, "name", getattr(last, "key", None)) == "clock"


def carry_axes(carry: Tree, axis: int = 0) -> Tree:
    """`in_axes` / `out_axes` for a vmap over stacked carries: `axis` for every leaf, None for clocks.

    A clock shared by all seeds keeps ring-buffer writes in-place slices; a batched one turns them into scatters.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: None if is_clock(path) else axis, carry)


def set_clocks(carry: Tree, value: int | Array) -> Tree:
    """`carry` with every clock leaf set to `value`, int32 []: as if it had taken so many steps before."""

    def put(path, leaf):
        return jnp.full_like(leaf, value) if is_clock(path) else leaf

    return jax.tree_util.tree_map_with_path(put, carry)


def _steps_like(reset: Array) -> Array:
    steps = jnp.arange(reset.shape[0], dtype=jnp.int32)
    return steps.reshape((-1,) + (1,) * (reset.ndim - 1))
