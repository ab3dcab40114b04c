"""Episodes and checks shared by the tests of the recall tasks."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxrl_seq.envs import Env


@functools.partial(jax.jit, static_argnames="env")
def _follow(env: Env, key: Any, actions: Any, expert: Any) -> Any:
    state, opened = env.reset(key, env.default_params())

    def step(state: Any, inputs: Any) -> Any:
        action, by_expert = inputs
        action = jnp.where(by_expert, env.expert(key, state, env.default_params()), action)
        state, timestep = env.step(key, state, action, env.default_params())
        return state, (action, timestep)

    return state, opened, jax.lax.scan(step, state, (actions, expert))[1]


def follow(env: Env, seed: int, skill: float = 0.0, actions: np.ndarray | None = None) -> tuple[Any, Any, Any, Any]:
    """(first state, its timestep, actions, the timesteps after them) as NumPy arrays; an action is the expert's with
    chance `skill`, else as given, else uniform."""
    rng, steps = np.random.default_rng(seed), env.horizon
    if actions is None:
        actions = rng.integers(0, env.action_space().flat_dim, steps)
    by_expert = jnp.asarray(rng.random(steps) < skill)
    state, opened, (played, later) = _follow(env, jax.random.key(seed), jnp.asarray(actions, jnp.int32), by_expert)
    return jax.device_get((state, opened, played, later))


def check(later: Any, t: int, reward: float, over: bool, success: bool) -> None:
    assert later.reward[t] == pytest.approx(reward, abs=1e-6)
    assert bool(later.terminated[t]) == over and not later.truncated[t]
    assert bool(later.info["success"][t]) == success


SKILL = st.sampled_from([0.0, 0.7, 0.95, 1.0])
