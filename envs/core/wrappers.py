"""Environments made of environments: pictures instead of vectors, random projections of what is seen and done."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core.protocol import Env, TaskEnv
from jaxrl_seq.envs.core.spaces import Box, Discrete, Space
from jaxrl_seq.envs.core.timestep import TimeStep

Array = jax.Array
PyTree = Any


@dataclass(frozen=True)
class Wrapper(Env[Any, Any]):
    """An environment around another: everything is the inner one's unless a subclass says otherwise."""

    env: Env

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.env.name

    @property
    def time_limit(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.env.time_limit

    @property
    def fixed_length(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.env.fixed_length

    @property
    def paper(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.env.paper

    @property
    def horizon(self) -> int:
        return self.env.horizon

    def default_params(self) -> PyTree:
        return self.env.default_params()

    def reset(self, key: Array, params: PyTree) -> tuple[PyTree, TimeStep]:
        return self.env.reset(key, params)

    def step(self, key: Array, state: PyTree, action: Any, params: PyTree) -> tuple[PyTree, TimeStep]:
        return self.env.step(key, state, action, params)

    def observation_space(self) -> Space:
        return self.env.observation_space()

    def action_space(self) -> Space:
        return self.env.action_space()

    def expert(self, key: Array, state: PyTree, params: PyTree) -> Any:
        return self.env.expert(key, state, params)

    def optimal_actions(self, state: PyTree, params: PyTree) -> Array:
        return self.env.optimal_actions(state, params)

    def reference(self) -> dict[str, float]:
        return self.env.reference()

    def sample_task(self, key: Array, params: PyTree) -> Any:
        return self.env.sample_task(key, params)

    def reset_to(self, key: Array, task: Any, params: PyTree) -> tuple[PyTree, TimeStep]:
        return self.env.reset_to(key, task, params)

    def tasks(self, params: PyTree) -> Any:
        return self.env.tasks(params)

    def optimal_return(self, task: Any, params: PyTree) -> Array:
        return self.env.optimal_return(task, params)

    def render(self, state: PyTree, params: PyTree) -> Array:
        return self.env.render(state, params)

    def ascii(self, state: PyTree, params: PyTree) -> str:
        return self.env.ascii(state, params)

    def has(self, capability: str) -> bool:
        return self.env.has(capability)


# --- pictures ---------------------------------------------------------------------------------------------------------
@struct.dataclass
class Undrawn:
    """What a picture will be drawn from."""

    state: PyTree
    params: PyTree


@dataclass(frozen=True)
class Picture(Space):
    """Pictures uint8 [height, width, 3] that are kept as the states they show, and drawn when they are looked at.

    A rollout of T x B observations stores a few bytes each instead of height x width x 3; an encoder calls `draw`
    inside the minibatch.
    """

    env: Env

    @property
    def drawn(self) -> Box:
        """The space of what `draw` returns."""
        picture = jax.eval_shape(self.env.render, self._example.state, self._example.params)
        return Box(0, 255, picture.shape, np.uint8)

    def draw(self, obs: Undrawn) -> Array:
        """obs [..., ] -> uint8 [..., height, width, 3]."""
        depth = jax.tree.leaves(obs)[0].ndim - jax.tree.leaves(self._example)[0].ndim
        render = self.env.render
        for _ in range(depth):
            render = jax.vmap(render)
        return render(obs.state, obs.params)

    def sample(self, key: Array) -> Undrawn:
        """A state that an episode may start from."""
        params = self.env.default_params()
        return Undrawn(self.env.reset(key, params)[0], params)

    def contains(self, x: Any) -> Array | bool:
        like = self._example
        if jax.tree.structure(x) != jax.tree.structure(like):
            return False
        pairs = zip(jax.tree.leaves(x), jax.tree.leaves(like), strict=True)
        return all(jnp.shape(a) == b.shape and a.dtype == b.dtype for a, b in pairs)

    def zeros(self, batch_shape: tuple[int, ...]) -> Undrawn:
        """Observations [*batch_shape] of the right types."""
        return jax.tree.map(lambda x: jnp.zeros((*batch_shape, *x.shape), x.dtype), self._example)

    @property
    def flat_dim(self) -> int:
        return math.prod(self.drawn.shape)

    @property
    def _example(self) -> Undrawn:
        return jax.eval_shape(lambda: self.sample(jax.random.key(0)))


@dataclass(frozen=True)
class PixelObs(Wrapper):
    """The environment seen through its own `render`: uint8 [height, width, 3].

    lazy: observations are `Undrawn` states of the space `Picture`, drawn inside the learner's minibatch. Otherwise
    they are the pictures. Raises ValueError if the environment draws none.
    """

    lazy: bool = True

    def __post_init__(self) -> None:
        if not self.env.has("render"):
            raise ValueError(f"{self.env.name} has no render method, so there are no pictures of it to learn from.")

    def reset(self, key: Array, params: PyTree) -> tuple[PyTree, TimeStep]:
        return self._seen(self.env.reset(key, params), params)

    def reset_to(self, key: Array, task: Any, params: PyTree) -> tuple[PyTree, TimeStep]:
        return self._seen(self.env.reset_to(key, task, params), params)

    def step(self, key: Array, state: PyTree, action: Any, params: PyTree) -> tuple[PyTree, TimeStep]:
        return self._seen(self.env.step(key, state, action, params), params)

    def observation_space(self) -> Space:
        picture = Picture(self.env)
        return picture if self.lazy else picture.drawn

    def _seen(self, made: tuple[PyTree, TimeStep], params: PyTree) -> tuple[PyTree, TimeStep]:
        state, timestep = made
        obs = Undrawn(state, params) if self.lazy else self.env.render(state, params)
        return state, replace(timestep, obs=obs)


def make_pixels(spec: str, lazy: bool = True, **options: Any) -> tuple[Env, PyTree]:
    """`make("pixels:tmaze,length=10")`: the environment of that id, seen as pictures."""
    from jaxrl_seq.envs.core.registry import make

    env, params = make(spec, **options)
    return PixelObs(env, lazy), params


# --- random projections -----------------------------------------------------------------------------------------------
@struct.dataclass
class Projection:
    """A task of `RandomProjection`."""

    which: Array  # int32 [], the member
    observe: Array  # float32 [D, d], from a member's (padded) observation to what is seen
    act: Array  # int32 [A], a permutation; or float32 [A, A], for continuous actions
    inner: tuple[PyTree, ...]  # each member's own task, () where it has none


@struct.dataclass
class ProjectedState:
    task: Projection
    members: tuple[PyTree, ...]


@dataclass(frozen=True)
class RandomProjection(TaskEnv[ProjectedState, tuple[PyTree, ...]]):
    """A set of environments under random linear maps of what is seen and done (Lu et al. 2023, arXiv:2303.03982).

    Every task draws one of `envs`, a map W of observations and one of actions: a permutation of discrete actions, an
    orthogonal matrix for continuous ones. Seen is W times the member's flat observation, float32 [width]; entries of W
    are N(0, 1 / d), d the widest member's. Actions beyond a member's number wrap around. All members step and one is
    looked at, so keep the set small, or give each its own batch. `info` has `which`.

    Raises ValueError for an empty set, observations that are no boxes, and a mix of discrete and continuous actions.
    """

    envs: tuple[Env, ...]
    width: int = 16
    """Numbers that are seen."""

    name: ClassVar[str] = "random_projection"
    paper: ClassVar[str] = "Lu et al. 2023 (arXiv 2303.03982)"

    def __post_init__(self) -> None:
        if not self.envs or self.width < 1:
            raise ValueError(
                f"random_projection: got {len(self.envs)} environments and width {self.width}; at least 1."
            )
        for env in self.envs:
            if not isinstance(env.observation_space(), Box):
                raise ValueError(
                    f"random_projection: {env.name} has observations {env.observation_space()}, not a Box."
                )
        kinds = {type(env.action_space()) for env in self.envs}
        if len(kinds) > 1 or not kinds <= {Discrete, Box}:
            names = ", ".join(f"{env.name}: {env.action_space()}" for env in self.envs)
            raise ValueError(f"random_projection: actions must be all discrete or all boxes, got {names}.")

    @property
    def horizon(self) -> int:
        return max(env.horizon for env in self.envs)

    @property
    def fixed_length(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return all(env.fixed_length and env.horizon == self.horizon for env in self.envs)

    @property
    def time_limit(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "truncate" if any(env.time_limit == "truncate" for env in self.envs) else "terminal"

    @property
    def num_actions(self) -> int:
        """A: the largest number of actions, or of action dimensions, of a member."""
        return max(env.action_space().flat_dim for env in self.envs)

    @property
    def is_discrete(self) -> bool:
        return isinstance(self.envs[0].action_space(), Discrete)

    def default_params(self) -> tuple[PyTree, ...]:
        return tuple(env.default_params() for env in self.envs)

    def sample_task(self, key: Array, params: tuple[PyTree, ...]) -> Projection:
        which, observe, act, inner = jax.random.split(key, 4)
        size = max(env.observation_space().flat_dim for env in self.envs)
        tasks = [
            env.sample_task(k, p) if env.has("sample_task") else ()
            for env, k, p in zip(self.envs, jax.random.split(inner, len(self.envs)), params, strict=True)
        ]
        number = self.num_actions
        return Projection(
            which=jax.random.randint(which, (), 0, len(self.envs), jnp.int32),
            observe=jax.random.normal(observe, (self.width, size), jnp.float32) / math.sqrt(size),
            act=jax.random.permutation(act, jnp.arange(number, dtype=jnp.int32))
            if self.is_discrete
            else jax.random.orthogonal(act, number, dtype=jnp.float32),
            inner=tuple(tasks),
        )

    def reset_to(self, key: Array, task: Projection, params: tuple[PyTree, ...]) -> tuple[ProjectedState, TimeStep]:
        made = [
            env.reset_to(k, t, p) if env.has("sample_task") else env.reset(k, p)
            for env, k, t, p in zip(self.envs, self._keys(key), task.inner, params, strict=True)
        ]
        return self._seen(task, made)

    def step(
        self, key: Array, state: ProjectedState, action: Any, params: tuple[PyTree, ...]
    ) -> tuple[ProjectedState, TimeStep]:
        made = [
            env.step(k, member, self._action(env, state.task, action), p)
            for env, k, member, p in zip(self.envs, self._keys(key), state.members, params, strict=True)
        ]
        return self._seen(state.task, made)

    def observation_space(self) -> Box:
        return Box(-math.inf, math.inf, (self.width,))

    def action_space(self) -> Space:
        return Discrete(self.num_actions) if self.is_discrete else Box(-1.0, 1.0, (self.num_actions,))

    def _keys(self, key: Array) -> Array:
        return jax.random.split(key, len(self.envs))

    def _action(self, env: Env, task: Projection, action: Array) -> Array:
        space = env.action_space()
        if isinstance(space, Discrete):
            return task.act[action] % space.n
        assert isinstance(space, Box)
        low, high = space.bounds
        unit = jnp.clip(task.act @ action, -1.0, 1.0)[: space.flat_dim].reshape(space.shape)
        return jnp.asarray(low) + (high - low) * (unit + 1) / 2

    def _seen(self, task: Projection, made: list[tuple[PyTree, TimeStep]]) -> tuple[ProjectedState, TimeStep]:
        size = task.observe.shape[1]
        flat = [jnp.asarray(timestep.obs, jnp.float32).ravel() for _, timestep in made]
        padded = jnp.stack([jnp.pad(x, (0, size - x.size)) for x in flat])
        picked = {
            field: jnp.stack([getattr(timestep, field) for _, timestep in made])[task.which]
            for field in ("reward", "terminated", "truncated", "first")
        }
        obs = task.observe @ padded[task.which]
        state = ProjectedState(task=task, members=tuple(member for member, _ in made))
        return state, TimeStep(obs=obs, info={"which": task.which}, **picked)
