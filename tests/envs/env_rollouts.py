"""Machinery for the tests of environments: whole episodes, vmapped and jitted, and walks over their
jaxprs."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs import Env, make

Array = jax.Array


@struct.dataclass
class Episodes:
    """E first episodes, `[E]` each: their returns and lengths, how they ended, and whether every obs was
    legal."""

    returns: Array
    lengths: Array
    terminated: Array
    truncated: Array
    legal: Array
    success: Array


@functools.partial(jax.jit, static_argnames=("env", "num"))
def play(env: Env, params: Any, key: Array, num: int) -> tuple[Episodes, Episodes]:
    """`num` episodes of random play and `num` of the expert's, from independent keys.

    What happens after the end of an episode is not counted. Both policies are one program: it compiles once.
    """

    def one(key: Array, expert: Array) -> Episodes:
        reset_key, key = jax.random.split(key)
        state, timestep = env.reset(reset_key, params)
        zero, no = jnp.int32(0), jnp.zeros((), bool)
        legal = jnp.asarray(env.observation_space().contains(timestep.obs)) & timestep.first & ~timestep.done
        tally = Episodes(jnp.float32(0), zero, no, no, legal, no)

        def step(carry: Any, key: Array) -> tuple[Any, None]:
            state, tally = carry
            act_key, step_key = jax.random.split(key)
            scripted, sampled = env.expert(act_key, state, params), env.action_space().sample(act_key)
            action = jnp.where(expert, scripted, sampled)
            state, timestep = env.step(step_key, state, action, params)
            running = ~(tally.terminated | tally.truncated)
            fine = jnp.asarray(env.observation_space().contains(timestep.obs)) & ~timestep.first
            fine &= jnp.asarray(env.action_space().contains(scripted)) & jnp.isfinite(timestep.reward)
            fine &= ~(timestep.terminated & timestep.truncated)
            return (
                state,
                Episodes(
                    returns=tally.returns + jnp.where(running, timestep.reward, 0.0),
                    lengths=tally.lengths + running,
                    terminated=tally.terminated | (running & timestep.terminated),
                    truncated=tally.truncated | (running & timestep.truncated),
                    legal=tally.legal & (fine | ~running),
                    success=tally.success | (running & timestep.info.get("success", no)),
                ),
            ), None

        keys = jax.random.split(key, env.horizon)
        return jax.lax.scan(step, (state, tally), keys)[0][1]

    both = jax.vmap(one)(jax.random.split(key, 2 * num), jnp.arange(2 * num) >= num)
    return jax.tree.map(lambda x: x[:num], both), jax.tree.map(lambda x: x[num:], both)


@functools.cache
def measured(spec: str, num: int = 1024) -> tuple[Env, dict[str, Episodes]]:
    """A registered environment and its episodes as NumPy arrays, by policy; kept, so that tests share
    them."""
    env, params = make(spec)
    by_random, by_expert = jax.tree.map(np.asarray, play(env, params, jax.random.key(7), num))
    return env, {"random": by_random, "expert": by_expert}


def plain_trajectory(env: Env, params: Any, key: Array, steps: int) -> tuple[Any, Any]:
    """(states, timesteps), the first `steps` steps of random play with the reset in front: `[steps + 1,
    ...]`."""
    reset_key, key = jax.random.split(key)
    opened = env.reset(reset_key, params)

    def step(state: Any, key: Array) -> tuple[Any, Any]:
        act_key, step_key = jax.random.split(key)
        out = env.step(step_key, state, env.action_space().sample(act_key), params)
        return out[0], out

    _, later = jax.lax.scan(step, opened[0], jax.random.split(key, steps))
    return jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), opened, later)


trajectory = functools.partial(jax.jit, static_argnames=("env", "steps"))(plain_trajectory)


def primitives(jaxpr: Any) -> Iterator[str]:
    """The name of every primitive in a jaxpr and in those inside it."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


def assert_same(a: Any, b: Any, atol: float = 0.0, rtol: float = 0.0) -> None:
    """Two pytrees agree leaf for leaf (exactly, if no tolerance is given)."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        x, y = (np.asarray(jax.random.key_data(v) if _is_key(v) else v) for v in (x, y))
        assert x.dtype == y.dtype, f"{jax.tree_util.keystr(path)}: {x.dtype} and {y.dtype}"
        x, y = x.astype(np.float64), y.astype(np.float64)
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol, err_msg=jax.tree_util.keystr(path))


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
