"""Machinery for the tests of environments: whole episodes, vmapped and jitted, and walks over their jaxprs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs import Env, make

Array = jax.Array
Policy = Callable[[Env, Array, Any, Any], Any]


@struct.dataclass
class Episodes:
    """E first episodes, `[E]` each: their returns and lengths, how they ended, and whether every obs was legal."""

    returns: Array
    lengths: Array
    terminated: Array
    truncated: Array
    legal: Array
    success: Array


def random_policy(env: Env, key: Array, state: Any, params: Any) -> Any:
    return env.action_space().sample(key)


def expert_policy(env: Env, key: Array, state: Any, params: Any) -> Any:
    return env.expert(key, state, params)


@functools.partial(jax.jit, static_argnames=("env", "num", "policy"))
def play(env: Env, params: Any, key: Array, num: int, policy: Policy = random_policy) -> Episodes:
    """`num` episodes from independent keys; what happens after the end of one is not counted."""

    def one(key: Array) -> Episodes:
        reset_key, key = jax.random.split(key)
        state, timestep = env.reset(reset_key, params)
        zero, no = jnp.int32(0), jnp.zeros((), bool)
        legal = jnp.asarray(env.observation_space().contains(timestep.obs)) & timestep.first & ~timestep.done
        tally = Episodes(jnp.float32(0), zero, no, no, legal, no)

        def step(carry: Any, key: Array) -> tuple[Any, None]:
            state, tally = carry
            act_key, step_key = jax.random.split(key)
            action = policy(env, act_key, state, params)
            state, timestep = env.step(step_key, state, action, params)
            running = ~(tally.terminated | tally.truncated)
            fine = jnp.asarray(env.observation_space().contains(timestep.obs)) & ~timestep.first
            fine &= jnp.asarray(env.action_space().contains(action)) & jnp.isfinite(timestep.reward)
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

    return jax.vmap(one)(jax.random.split(key, num))


@functools.lru_cache(maxsize=None)
def measured(spec: str, expert: bool, num: int = 1024) -> tuple[Env, Any, Episodes]:
    """(env, params, episodes as NumPy arrays) of a registered environment; kept, so that tests share them."""
    env, params = make(spec)
    policy = expert_policy if expert else random_policy
    return env, params, jax.tree.map(np.asarray, play(env, params, jax.random.key(7), num, policy))


@functools.partial(jax.jit, static_argnames=("env", "steps"))
def trajectory(env: Env, params: Any, key: Array, steps: int) -> tuple[Any, Any]:
    """(states, timesteps), the first `steps` steps of random play with the reset in front: `[steps + 1, ...]`."""
    reset_key, key = jax.random.split(key)
    opened = env.reset(reset_key, params)

    def step(state: Any, key: Array) -> tuple[Any, Any]:
        act_key, step_key = jax.random.split(key)
        out = env.step(step_key, state, env.action_space().sample(act_key), params)
        return out[0], out

    _, later = jax.lax.scan(step, opened[0], jax.random.split(key, steps))
    return jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), opened, later)


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


def assert_same(a: Any, b: Any, **tolerance: float) -> None:
    """Two pytrees agree leaf for leaf (exactly, if no tolerance is given)."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        x, y = (np.asarray(jax.random.key_data(v) if _is_key(v) else v) for v in (x, y))
        assert x.dtype == y.dtype, f"{jax.tree_util.keystr(path)}: {x.dtype} and {y.dtype}"
        np.testing.assert_allclose(
            x.astype(np.float64), y.astype(np.float64), err_msg=jax.tree_util.keystr(path), **({"rtol": 0} | tolerance)
        )


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
