"""Checks of an environment that cost nothing but a trace."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.spaces import Box, Discrete, MultiDiscrete


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


def check_actions(env: Env, num: int, actions: Any) -> None:
    """Raise ValueError unless `actions` are `num` members of the action space, stacked.

    Shapes and kinds of numbers are known while tracing; that the values lie in the space only outside of `jit`.
    """
    space = env.action_space()
    want = jax.tree.map(
        lambda x: (num, *x.shape), jax.eval_shape(space.sample, jax.eval_shape(lambda: jax.random.key(0)))
    )
    found = jax.tree.map(jnp.shape, actions)
    if jax.tree.structure(found) != jax.tree.structure(want) or jax.tree.leaves(found) != jax.tree.leaves(want):
        raise ValueError(f"{env.name}: actions have shape {found}; expected {want}, one of {space} per environment.")
    for leaf in jax.tree.leaves(actions) if isinstance(space, Discrete | MultiDiscrete) else ():
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.integer):
            raise ValueError(f"{env.name}: actions are {jnp.result_type(leaf)}; {space} takes whole numbers.")
    if isinstance(space, Discrete | MultiDiscrete | Box) and not isinstance(actions, Tracer):
        low, high = space.bounds if isinstance(space, Box) else (0, np.array(getattr(space, "ns", space.flat_dim)) - 1)
        given = np.asarray(actions)
        outside = np.argwhere(~((given >= low) & (given <= high)))
        if len(outside):
            raise ValueError(
                f"{env.name}: action {given[outside[0][0]]} of environment {outside[0][0]} is outside of {space}."
            )


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
