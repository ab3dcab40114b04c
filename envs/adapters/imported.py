"""What the importers of brax, craftax, jumanji, navix and pgx share: a clock, dtypes and spaces.

Their environments come in over raw reset and step, so that our reset policies apply. They have no params here: options
go to `make("library:id,option=value")`. Whatever keys they keep in their states stay there.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.spaces import Box, Space, Tree
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition

Array = jax.Array
PyTree = Any


class Held:
    """An object of another library that compares by how it was made, not by its contents (often unhashable)."""

    def __init__(self, env: Any, *made: Any):
        self.env, self.made = env, made

    def __hash__(self) -> int:
        return hash(self.made)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and self.made == other.made

    def __repr__(self) -> str:
        return f"Held{self.made}"


@struct.dataclass
class ImportedState:
    inner: PyTree
    t: Array  # int32 [], steps taken


@dataclasses.dataclass(frozen=True, kw_only=True)
class Imported(Env[ImportedState, Any]):
    """An environment of another library; a subclass says how to reset and to step it."""

    held: Held
    max_steps: int
    """An episode that has not ended by then is truncated."""
    observations: Space
    actions: Space
    name: str = "imported"  # pyright: ignore[reportIncompatibleVariableOverride]

    time_limit: ClassVar[Literal["terminal", "truncate"]] = "truncate"
    fixed_length: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ValueError(f"{self.name}: max_steps must be at least 1, got {self.max_steps}.")

    # --- for subclasses -----------------------------------------------------------------------------------------
    def raw_reset(self, key: Array) -> tuple[PyTree, PyTree, dict[str, Any]]:
        """(their state, observation, other fields of the TimeStep)."""
        raise NotImplementedError

    def raw_step(self, key: Array, inner: PyTree, t: Array, action: Any) -> tuple[PyTree, PyTree, Any, Any, Any, dict]:
        """(their state, observation, reward, terminated, truncated, other fields of the TimeStep)."""
        raise NotImplementedError

    # --- the contract -------------------------------------------------------------------------------------------
    @property
    def horizon(self) -> int:
        return self.max_steps

    def default_params(self) -> tuple[()]:
        return ()

    def reset(self, key: Array, params: PyTree) -> tuple[ImportedState, TimeStep]:
        inner, obs, fields = self.raw_reset(key)
        return ImportedState(self._cast(inner), jnp.int32(0)), opening(as_member(obs, self.observations), **fields)

    def step(self, key: Array, state: ImportedState, action: Any, params: PyTree) -> tuple[ImportedState, TimeStep]:
        inner, obs, reward, terminated, truncated, fields = self.raw_step(key, state.inner, state.t, action)
        state = ImportedState(self._cast(inner), state.t + 1)
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        truncated = truncated | (state.t >= self.max_steps)
        return state, transition(as_member(obs, self.observations), reward, terminated, truncated, **fields)

    def observation_space(self) -> Space:
        return self.observations

    def action_space(self) -> Space:
        return self.actions

    def _cast(self, inner: PyTree) -> PyTree:
        return jax.tree.map(lambda x, dtype: x if _is_key(dtype) else jnp.asarray(x, dtype), inner, _dtypes(self))


@functools.lru_cache(maxsize=256)
def _dtypes(env: Imported) -> PyTree:
    """The dtype of each leaf of their state: the smallest that holds what reset makes of it and what step does."""
    key, t = jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct((), jnp.int32)
    action = jax.eval_shape(env.action_space().sample, key)
    state = jax.eval_shape(env.raw_reset, key)[0]
    stepped = jax.eval_shape(env.raw_step, key, state, t, action)[0]
    return jax.tree.map(
        lambda x, y: x.dtype if _is_key(x.dtype) else jnp.promote_types(x.dtype, y.dtype), state, stepped
    )


def _is_key(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jax.dtypes.prng_key)


def space_of(obs: Any, low: float = -np.inf, high: float = np.inf) -> Space:
    """The space of an observation's shapes (from `eval_shape`): floats within the given bounds, flags as 0 and 1 of
    float32, integers within their dtype; a Tree for anything with named parts."""
    named = parts(obs)
    if named is not None:
        return Tree({name: space_of(part, low, high) for name, part in named.items()})
    if obs.dtype == np.bool_:
        return Box(0, 1, obs.shape, np.float32)
    if np.issubdtype(obs.dtype, np.integer):
        limits = np.iinfo(obs.dtype)
        return Box(limits.min, limits.max, obs.shape, obs.dtype)
    return Box(low, high, obs.shape, np.float32)


def as_member(obs: Any, space: Space) -> Any:
    """`obs` with the structure, shapes and dtypes of `space`."""
    if isinstance(space, Tree):
        named = parts(obs) or {}
        return {name: as_member(named[name], part) for name, part in space.spaces.items()}
    assert isinstance(space, Box)
    return jnp.asarray(obs, space.dtype).reshape(space.shape)


def parts(obs: Any) -> dict[str, Any] | None:
    """The named parts of a dict, named tuple or dataclass; None for an array."""
    if isinstance(obs, dict):
        return obs
    if hasattr(obs, "_asdict"):
        return obs._asdict()
    if dataclasses.is_dataclass(obs):
        return {field.name: getattr(obs, field.name) for field in dataclasses.fields(obs)}
    return None


def shapes(function: Any) -> Any:
    """The shapes of what `function(key)` returns."""
    return jax.eval_shape(function, jax.eval_shape(lambda: jax.random.key(0)))


def library(module: str) -> Any:
    """The module of another library. ImportError that says what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(f"{package} is needed for this environment: pip install {package}.") from error


def options_key(options: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted(options.items()))
