"""Our environments as gymnax 1.x ones, for code written against gymnax.

    env, params = to_gymnax(*make("tmaze-10"))
    obs, state = env.reset(key, params)
    obs, state, reward, terminated, truncated, info = env.step(key, state, action, params)    # resets by itself
    env, params = to_gymnax(*make("tmaze-10"), legacy=True)
    obs, state, reward, done, info = env.step(key, state, action, params)                     # as gymnax 0.0.x did

`step` is gymnax's own: it resets at every step and keeps that where the episode ended, and the episode's own last
observation is `info["final_observation"]`. For resets that cost less use `VecEnv`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_seq.envs.core.checking import check_structure
from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.spaces import Box, Discrete, MultiDiscrete, Space, Tree
from jaxrl_seq.envs.core.timestep import TimeStep

Array = jax.Array
PyTree = Any


@struct.dataclass
class ExportState(environment.EnvState):
    """gymnax's `time`, our state, and how the last step ended."""

    inner: PyTree
    terminated: Array
    truncated: Array


@struct.dataclass
class ExportParams(environment.EnvParams):
    """gymnax's time limit (an episode is cut there if it has not ended before) and our params."""

    inner: PyTree = None


class GymnaxExport(environment.Environment[ExportState, ExportParams]):
    """See `to_gymnax`. Exports of equal environments are equal, so that they share a compilation."""

    def __init__(self, env: Env):
        self._source = env

    def __hash__(self) -> int:
        return hash((type(self), self._source))

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._source == other._source

    @property
    def default_params(self) -> ExportParams:
        return ExportParams(max_steps_in_episode=self._source.horizon, inner=self._source.default_params())

    def reset_env(self, key: Array, params: ExportParams) -> tuple[Any, ExportState]:
        state, timestep = self._source.reset(key, params.inner)
        return timestep.obs, self._state(jnp.int32(0), state, timestep)

    def step_env(
        self, key: Array, state: ExportState, action: Any, params: ExportParams
    ) -> tuple[Any, ExportState, Array, Array, dict[Any, Any]]:
        inner, timestep = self._source.step(key, state.inner, action, params.inner)
        info = dict(timestep.info) | {"discount": 1.0 - timestep.terminated.astype(jnp.float32)}
        info |= {} if timestep.action_mask is None else {"action_mask": timestep.action_mask}
        info |= {} if timestep.cost is None else {"cost": timestep.cost}
        state = self._state(state.time + 1, inner, timestep)
        return timestep.obs, state, timestep.reward, timestep.terminated, info

    def _state(self, time: Any, inner: PyTree, timestep: TimeStep) -> ExportState:
        return ExportState(time=time, inner=inner, terminated=timestep.terminated, truncated=timestep.truncated)

    def is_terminated(self, state: ExportState, params: ExportParams) -> Array:
        return state.terminated

    def is_truncated(self, state: ExportState, params: ExportParams) -> Array:
        late = jnp.asarray(state.time >= params.max_steps_in_episode)
        return (state.truncated | late) & ~state.terminated

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def num_actions(self) -> int:
        space = self._source.action_space()
        return space.n if isinstance(space, Discrete) else space.flat_dim

    def action_space(self, params: ExportParams | None = None) -> spaces.Space:
        return gymnax_space(self._source.action_space())

    def observation_space(self, params: ExportParams | None = None) -> spaces.Space:
        return gymnax_space(self._source.observation_space())


class LegacyExport(GymnaxExport):
    """The same with the five-value `step`. gymnax's own wrapper for that can be neither copied nor compared."""

    @functools.partial(jax.jit, static_argnames=("self",))
    def step(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, key: Array, state: ExportState, action: Any, params: ExportParams | None = None
    ) -> tuple[Any, ExportState, Array, Array, dict[Any, Any]]:
        obs, state, reward, terminated, truncated, info = super().step(key, state, action, params)
        return obs, state, reward, terminated | truncated, info


def to_gymnax(env: Env, params: PyTree = None, *, legacy: bool = False) -> tuple[GymnaxExport, ExportParams]:
    """(environment, params) as `gymnax.make` gives them (`params` None: the default).

    `legacy` gives the `step` of gymnax before 1.0, (obs, state, reward, done, info); `info` still tells
    "terminated" from "truncated". Raises ValueError for an action space that gymnax does not have.
    """
    if isinstance(env.action_space(), MultiDiscrete):
        raise ValueError(f"{env.name}: gymnax has no counterpart of the action space {env.action_space()}.")
    params = env.default_params() if params is None else params
    check_structure(env, params)
    export = LegacyExport(env) if legacy else GymnaxExport(env)
    return export, ExportParams(max_steps_in_episode=env.horizon, inner=params)


def gymnax_space(space: Space) -> spaces.Space:
    """The gymnax space with the same members; MultiDiscrete becomes a Box of int32."""
    if isinstance(space, Discrete):
        return spaces.Discrete(space.n)
    if isinstance(space, MultiDiscrete):
        return spaces.Box(jnp.int32(0), jnp.asarray(space.ns, jnp.int32) - 1, space.shape, jnp.int32)
    if isinstance(space, Box):
        low, high = (
            bound if isinstance(bound, float) else jnp.asarray(bound, space.dtype).reshape(space.shape)
            for bound in (space.low, space.high)
        )
        return spaces.Box(low, high, space.shape, space.dtype)
    if isinstance(space, Tree):
        return spaces.Dict({name: gymnax_space(part) for name, part in space.spaces.items()})
    raise ValueError(f"{space!r} has no counterpart in gymnax; Discrete, MultiDiscrete, Box and Tree do.")
