"""Checks of an environment that cost nothing but a trace."""

from typing import Any

import jax

from jaxrl_seq.envs.core.protocol import Env


def check_structure(env: Env, params: Any) -> None:
    """Raise ValueError unless `step` returns the pytree that `reset` does, leaf for leaf in shape and dtype.

    The message names the first differing leaf, both sides, and the fix.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    made = jax.eval_shape(env.reset, key, params)
    action = jax.eval_shape(env.action_space().sample, key)
    stepped = jax.eval_shape(env.step, key, made[0], action, params)
    for part, before, after in zip(("state", "timestep"), made, stepped, strict=True):
        _same(f"{env.name}: step's {part}", before, after)


def _same(what: str, before: Any, after: Any) -> None:
    leaves_before, leaves_after = (
        {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (before, after)
    )
    odd = sorted(leaves_before.keys() ^ leaves_after.keys())
    if odd or jax.tree.structure(before) != jax.tree.structure(after):
        raise ValueError(
            f"{what} has another structure than reset's (leaves on one side only: {', '.join(odd) or 'none'}). "
            "Return the same fields, and the same info keys, from both."
        )
    for name, leaf in leaves_before.items():
        other = leaves_after[name]
        if (leaf.shape, leaf.dtype) != (other.shape, other.dtype):
            raise ValueError(
                f"{what}{name} is {other.dtype}{list(other.shape)} but reset makes {leaf.dtype}{list(leaf.shape)}. "
                f"Cast it with jnp.asarray(..., jnp.{leaf.dtype}) or fix the shape."
            )
