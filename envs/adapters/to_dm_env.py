"""Our environments as dm_env ones.

    env = to_dm_env(*make("tmaze-10"))
    timestep = env.reset()
    while not timestep.last():
        timestep = env.step(action)

The last step of an episode has StepType.LAST, discount 0.0 where it terminated and 1.0 where a time limit cut it, and
the episode's own last observation. As dm_env has it, a `step` before the first `reset` or after LAST opens an episode
and drops its action.
"""

from __future__ import annotations

from typing import Any

import dm_env  # pyright: ignore[reportMissingImports]
import jax
import numpy as np
from dm_env import specs  # pyright: ignore[reportMissingImports]

from jaxrl_seq.envs.adapters import host
from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.spaces import Box, Discrete, MultiDiscrete, Space, Tree

PyTree = Any


def to_dm_env(env: Env, params: PyTree = None, *, seed: int | None = 0) -> DmEnv:
    """A dm_env.Environment of one of ours (`params` None: its default; `seed` None: a random one)."""
    return DmEnv(env, params, seed)


class DmEnv(dm_env.Environment):
    """See `to_dm_env`."""

    def __init__(self, env: Env, params: PyTree, seed: int | None):
        self._solo = host.Solo(env, params)
        self._rng = np.random.default_rng(seed)

    def reset(self) -> dm_env.TimeStep:
        return dm_env.restart(_writable(self._solo.reset(self._rng).obs))

    def step(self, action: Any) -> dm_env.TimeStep:
        if self._solo.over:
            return self.reset()
        timestep = self._solo.step(action)
        obs, reward = _writable(timestep.obs), np.float32(timestep.reward)
        if timestep.terminated:
            return dm_env.termination(reward, obs)
        return dm_env.truncation(reward, obs) if timestep.truncated else dm_env.transition(reward, obs)

    def observation_spec(self) -> Any:
        return dm_spec(self._solo.env.observation_space(), "observation")

    def action_spec(self) -> Any:
        return dm_spec(self._solo.env.action_space(), "action")

    def reward_spec(self) -> specs.Array:
        return specs.Array((), np.float32, "reward")


def dm_spec(space: Space, name: str) -> Any:
    """The spec with the same members; a dict of specs for a Tree."""
    if isinstance(space, Tree):
        return {key: dm_spec(part, key) for key, part in space.spaces.items()}
    if isinstance(space, Discrete):
        return specs.DiscreteArray(space.n, space.dtype, name)
    if isinstance(space, (MultiDiscrete, Box)):
        return specs.BoundedArray(space.shape, space.dtype, *host.bounds(space), name=name)
    raise ValueError(f"{space!r} has no counterpart in dm_env; Discrete, MultiDiscrete, Box and Tree do.")


def _writable(tree: PyTree) -> PyTree:
    return jax.tree.map(np.array, tree)
