"""Single steps, followed actions, many resets and other params, for the tests of the mechanical environments."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.envs import Env


@functools.partial(jax.jit, static_argnames="env")
def _step_all(env: Env, states: Any, actions: Any, params: Any) -> Any:
    keys = jax.random.split(jax.random.key(0), len(actions))
    return jax.vmap(env.step, in_axes=(0, 0, 0, None))(keys, states, actions, params)


def step_all(env: Env, states: list[Any], actions: Any, params: Any = None) -> Any:
    """(state, timestep) after one step from each of some states, as NumPy arrays with a leading axis."""
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
    dtype = jnp.int32 if np.issubdtype(np.asarray(actions).dtype, np.integer) else jnp.float32
    params = env.default_params() if params is None else params
    return jax.device_get(_step_all(env, stacked, jnp.asarray(np.asarray(actions), dtype), params))


@functools.partial(jax.jit, static_argnames="env")
def _follow(env: Env, state: Any, actions: Any, params: Any) -> Any:
    def step(state: Any, action: Any) -> Any:
        state, timestep = env.step(jax.random.key(0), state, action, params)
        return state, (state, timestep)

    return jax.lax.scan(step, state, actions)[1]


def follow(env: Env, state: Any, actions: np.ndarray, params: Any = None) -> Any:
    """(states, timesteps) after each action, as NumPy arrays."""
    params = env.default_params() if params is None else params
    return jax.device_get(_follow(env, state, jnp.asarray(actions), params))


@functools.partial(jax.jit, static_argnames="env")
def openings(env: Env, params: Any) -> Any:
    """4000 resets, as `env.reset` returns them."""
    return jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(jax.random.key(0), 4000), params)


def redrawn(params: Any, rng: np.random.Generator) -> Any:
    """Params in which every number but dt was drawn anew, up to 40 % off, in float32."""
    other = {k: jnp.float32(np.asarray(v) * rng.uniform(0.6, 1.4, np.shape(v))) for k, v in vars(params).items()}
    return replace(params, **(other | {"dt": params.dt}))
