"""A branch that stays a branch under vmap."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

Array = jax.Array
PyTree = Any


def apply_if_any(pred: Array, fn: Callable[..., PyTree], tree: PyTree, *operands: PyTree) -> PyTree:
    """`fn(tree, *operands)` if `pred` (bool []) else `tree`, and a real branch even inside `vmap`.

    `lax.cond` under vmap runs both sides for every lane. Here the lanes vote: if any of them asks, all of them run
    `fn`, so `fn` must leave what does not ask for a change as it is (a `where` on its own flags does). Pass every
    traced value as an operand: `fn` must not close over one. Not differentiable.
    """

    @custom_vmap
    def branch(pred: Array, tree: PyTree, *operands: PyTree) -> PyTree:
        return jax.lax.cond(pred, fn, lambda tree, *_: tree, tree, *operands)

    @branch.def_vmap
    def _(axis_size: int, in_batched: Any, pred: Array, tree: PyTree, *operands: PyTree) -> Any:
        tree = jax.tree.map(
            lambda x, b: x if b else jnp.broadcast_to(x, (axis_size, *jnp.shape(x))), tree, in_batched[1]
        )
        axes = jax.tree.map(lambda b: 0 if b else None, tuple(in_batched[2:]))
        out = apply_if_any(jnp.any(pred), jax.vmap(fn, in_axes=(0, *axes)), tree, *operands)
        return out, jax.tree.map(lambda _: True, out)

    return branch(pred, tree, *operands)


def where_rows(rows: Array, new: PyTree, old: PyTree) -> PyTree:
    """Leafwise `new` where `rows` (bool [B]) holds, else `old`; every leaf leads with B."""

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(rows.reshape(rows.shape + (1,) * (jnp.ndim(a) - rows.ndim)), a, b)

    return jax.tree.map(pick, new, old)
