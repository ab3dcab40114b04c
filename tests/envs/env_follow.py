"""Drive an environment by given actions, for tests that compare it with a twin or with another library."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.envs import Env


@functools.partial(jax.jit, static_argnames="env")
def _follow(env: Env, params: Any, key: Any, actions: Any) -> Any:
    reset_key, key = jax.random.split(key)
    opened = env.reset(reset_key, params)

    def step(state: Any, turn: Any) -> Any:
        action, key = turn
        out = env.step(key, state, action, params)
        return out[0], out

    _, later = jax.lax.scan(step, opened[0], (actions, jax.random.split(key, len(actions))))
    return opened, later


def follow(env: Env, seed: int, actions: Any, params: Any = None) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """((state, timestep) of the reset, (states, timesteps) after each action) as NumPy arrays."""
    params = env.default_params() if params is None else params
    if isinstance(actions, list):
        actions = np.array(actions, np.int32)
    return jax.device_get(_follow(env, params, jax.random.key(seed), jnp.asarray(actions)))


def opened(env: Env, seed: int) -> Any:
    """The state that `follow` starts from."""
    return follow(env, seed, np.zeros(env.horizon, np.int32))[0][0]
