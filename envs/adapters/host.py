"""Episodes driven from Python, for the exports: one environment (`Solo`) or a batch that resets itself (`Batch`).

Keys: an environment has a stream, a uint32 drawn from its seed, and its e-th episode since then uses
`fold_in(fold_in(key(stream), e), t)` for the reset (t = 0) and for step t. So environment i of a batch with seed s
lives through the same episodes as one alone with seed s + i.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core.batching import where_rows
from jaxrl_seq.envs.core.checking import check_structure
from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.envs.core.protocol import Env, stacked_params
from jaxrl_seq.envs.core.spaces import Box, Discrete, MultiDiscrete, Space, Tree
from jaxrl_seq.envs.core.timestep import TimeStep

Array = jax.Array
PyTree = Any

FPS = 10
_DRAWN_BY = {"rgb_array": "render", "ansi": "ascii"}


@struct.dataclass
class Running:
    """One environment between two steps (`[B]` in front in a batch)."""

    state: PyTree
    stream: Array  # uint32 []
    episode: Array  # int32 [], episodes begun on this stream before this one
    t: Array  # int32 [], steps taken


class Solo:
    """One environment: raw reset and step, no auto-reset."""

    def __init__(self, env: Env, params: PyTree = None):
        self.env = env
        self.params = env.default_params() if params is None else params
        check_structure(env, self.params)
        self._running: Running | None = None
        self.over = True
        """Whether there is no episode to step: before the first reset, and after the last step of each."""

    @property
    def begun(self) -> bool:
        """Whether there is a state to draw."""
        return self._running is not None

    def reset(self, rng: np.random.Generator, renew: bool = False) -> Any:
        """Open the next episode; `renew` takes a new stream from `rng`, as the first reset does.

        Returns a TimeStep of NumPy arrays, as `step` does.
        """
        if renew or self._running is None:
            stream, episode = draw_stream(rng), np.int32(0)
        else:
            stream, episode = self._running.stream, self._running.episode + 1
        self._running, timestep = _open_one(self.env, stream, episode, self.params)
        self.over = False
        return jax.device_get(timestep)

    def step(self, action: Any) -> Any:
        """Act. ValueError if the action is not in the action space."""
        assert not self.over  # callers say it in their library's words
        action = checked_action(self.env, action)
        self._running, timestep = _advance_one(self.env, self._running, action, self.params)
        timestep = jax.device_get(timestep)
        self.over = bool(timestep.done)
        return timestep

    def draw(self, mode: str) -> Any:
        """The state as "rgb_array" (uint8 [H, W, 3]) or "ansi" (str)."""
        assert self._running is not None
        if mode == "ansi":
            return self.env.ascii(self._running.state, self.params)
        return np.array(_picture(self.env, self._running.state, self.params))


class Batch:
    """`num_envs` environments in one jitted step; an episode that ended is replaced by a new one in the same step.

    Params may carry a leading `[num_envs]` axis on any leaf.
    """

    def __init__(self, env: Env, num_envs: int, params: PyTree = None, seed: int | None = 0):
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
        self.env, self.num_envs = env, num_envs
        self.params = env.default_params() if params is None else params
        self._axes = stacked_params(env, self.params, num_envs)
        check_structure(env, self._params_of(0))
        self._streams = np.array([draw_stream(np.random.default_rng(s)) for s in self.seeds(seed)])
        self._episodes = np.full(num_envs, -1, np.int32)
        self._running: Running | None = None

    @property
    def begun(self) -> bool:
        return self._running is not None

    def seeds(self, seed: int | None) -> list[int | None]:
        """One seed an environment: seed, seed + 1, ..."""
        return [None if seed is None else seed + i for i in range(self.num_envs)]

    def reset(self, seeds: Sequence[int | None]) -> Any:
        """Open a new episode everywhere; where a seed is given, on a stream of its own. Returns as `Solo.reset`."""
        if self._running is not None:
            # Copies, because what comes from the device cannot be written.
            self._streams = np.array(self._running.stream)
            self._episodes = np.array(self._running.episode)
        self._episodes += 1
        for i, seed in enumerate(seeds):
            if seed is not None:
                self._streams[i], self._episodes[i] = draw_stream(np.random.default_rng(seed)), 0
        self._running, opened = _open_all(self.env, self._streams, self._episodes, self.params)
        return jax.device_get(opened)

    def step(self, action: Any) -> tuple[Any, Any]:
        """Two TimeSteps of NumPy arrays: what the actions brought, and what the next ones are chosen on (that of a
        reset where an episode ended)."""
        assert self._running is not None
        action = checked_action(self.env, action, (self.num_envs,))
        self._running, ended, opened = _advance_all(self.env, self._running, action, self.params)
        return jax.device_get((ended, opened))

    def draw(self, mode: str) -> list[Any]:
        """The states as "rgb_array" (uint8 [H, W, 3] each) or "ansi" (str each)."""
        assert self._running is not None
        if mode == "rgb_array":
            return list(np.array(_pictures(self.env, self._running.state, self.params)))
        states = jax.device_get(self._running.state)
        return [self.env.ascii(row(states, i), self._params_of(i)) for i in range(self.num_envs)]

    def _params_of(self, i: int) -> PyTree:
        def one(x: Any, axis: int | None) -> Any:
            return x if axis is None else x[i]

        return jax.tree.map(one, self.params, self._axes, is_leaf=lambda x: x is None)


# --- programs -------------------------------------------------------------------------------------------------------
def _key(stream: Array, episode: Array, t: Array) -> Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(stream), episode), t)


def _open(env: Env, stream: Array, episode: Array, params: PyTree) -> tuple[Running, TimeStep]:
    t = jnp.int32(0)
    state, timestep = env.reset(_key(stream, episode, t), params)
    return Running(state, stream, episode, t), timestep


def _advance(env: Env, running: Running, action: Any, params: PyTree) -> tuple[Running, TimeStep]:
    t = running.t + 1
    state, timestep = env.step(_key(running.stream, running.episode, t), running.state, action, params)
    return replace(running, state=state, t=t), timestep


def _render(env: Env, state: PyTree, params: PyTree) -> Array:
    return env.render(state, params)


_jit = functools.partial(jax.jit, static_argnames="env")
_open_one, _advance_one, _picture = _jit(_open), _jit(_advance), _jit(_render)


@_jit
def _open_all(env: Env, streams: Array, episodes: Array, params: PyTree) -> tuple[Running, TimeStep]:
    axes = stacked_params(env, params, streams.shape[0])
    return jax.vmap(functools.partial(_open, env), in_axes=(0, 0, axes))(streams, episodes, params)


@_jit
def _advance_all(env: Env, running: Running, action: Any, params: PyTree) -> tuple[Running, TimeStep, TimeStep]:
    axes = stacked_params(env, params, running.t.shape[0])
    running, ended = jax.vmap(functools.partial(_advance, env), in_axes=(0, 0, axes))(running, action, params)
    old = running, ended

    def reopen() -> tuple[Running, TimeStep]:
        return where_rows(ended.done, _open_all(env, running.stream, running.episode + 1, params), old)

    running, opened = jax.lax.cond(jnp.any(ended.done), reopen, lambda: old)
    return running, ended, opened


@_jit
def _pictures(env: Env, state: PyTree, params: PyTree) -> Array:
    axes = stacked_params(env, params, jax.tree.leaves(state)[0].shape[0])
    return jax.vmap(functools.partial(_render, env), in_axes=(0, axes))(state, params)


# --- at the border --------------------------------------------------------------------------------------------------
def draw_stream(rng: np.random.Generator) -> np.uint32:
    return rng.integers(2**32, dtype=np.uint32)


def row(tree: PyTree, i: Any) -> PyTree:
    """Row i of a batch of NumPy arrays."""
    return jax.tree.map(lambda x: x[i], tree)


def extras(timestep: Any) -> dict[str, Any]:
    """What a TimeStep has beyond observation, reward and flags, by name, for the `info` of other libraries."""
    mask = {} if timestep.action_mask is None else {"action_mask": timestep.action_mask.astype(np.int8)}
    return dict(timestep.info) | mask | ({} if timestep.cost is None else {"cost": timestep.cost})


def render_modes(env: Env) -> list[str]:
    return [mode for mode, capability in _DRAWN_BY.items() if env.has(capability)]


def checked_mode(env: Env, mode: str | None) -> str | None:
    """`mode` if `env` can be drawn that way. Raises ValueError with a suggestion otherwise."""
    return mode if mode is None else known(mode, render_modes(env), f"render mode of {env.name}")


def checked_action(env: Env, action: Any, lead: tuple[int, ...] = ()) -> Any:
    """`action` as NumPy arrays of the action space's dtype, `lead` axes in front. ValueError if it is not in it."""
    return _checked(env, env.action_space(), action, lead, "action")


def _checked(env: Env, space: Space, action: Any, lead: tuple[int, ...], what: str) -> Any:
    if isinstance(space, Tree):
        if not isinstance(action, dict) or set(action) != set(space.spaces):
            raise ValueError(f"{env.name}: {what} must be a dict with the keys {', '.join(sorted(space.spaces))}.")
        return {
            name: _checked(env, part, action[name], lead, f"{what}[{name!r}]") for name, part in space.spaces.items()
        }
    assert isinstance(space, (Discrete, MultiDiscrete, Box))
    low, high = bounds(space)
    given = np.asarray(action)
    kinds = "iu" if space.dtype.kind in "iu" else "biuf"
    shape = (*lead, *space.shape)
    # Compared as given: a cast first would wrap integers round.
    if given.shape != shape or given.dtype.kind not in kinds:
        raise ValueError(
            f"{env.name}: {what} of shape {given.shape} and dtype {given.dtype} does not fit {space}: "
            f"expected {space.dtype}{list(shape)}."
        )
    given = given.astype(space.dtype) if space.dtype.kind == "f" else given
    inside = (given >= low) & (given <= high)
    if not inside.all():
        first = given[~inside].ravel()[0]
        raise ValueError(f"{env.name}: {what} {first} is outside its space {space}.")
    return given.astype(space.dtype)


def bounds(space: Discrete | MultiDiscrete | Box) -> tuple[np.ndarray, np.ndarray]:
    """(lowest, highest), both inclusive, of the space's shape and dtype."""
    if isinstance(space, Box):
        return space.bounds
    highest = np.asarray(space.n if isinstance(space, Discrete) else space.ns, space.dtype) - 1
    return np.zeros_like(highest), highest
