"""What the checks look at: an environment with its compiled functions and a few recorded episodes, made on demand."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core.protocol import Env

Array = jax.Array
PyTree = Any

LONGEST = 20_000
"""Steps of the longest episode that is played to its end."""


@struct.dataclass
class Episodes:
    """E first episodes, `[E]` each: returns and lengths, how they ended, and the first step that broke a rule."""

    returns: Array
    lengths: Array
    terminated: Array
    truncated: Array
    illegal_obs: Array  # int32, step whose obs left its space (0 is the reset), -1 if none
    illegal_action: Array  # int32, step at which the expert's action left its space
    suboptimal: Array  # int32, step at which the expert's action was not among optimal_actions()
    bad_reward: Array  # int32, step with a reward that is not finite
    reopened: Array  # int32, step after the reset with `first` set
    both_ends: Array  # int32, step with terminated and truncated
    illegal_after: Array  # int32, step after the end whose obs left its space
    success: Array


class Probe:
    """An environment under test. Everything heavy is made once, when the first check asks for it."""

    lanes, steps = 4, 12

    def __init__(self, env: Env, params: PyTree, seed: int, episodes: int):
        self.env, self.params, self.seed, self.num_episodes = env, params, seed, episodes
        self.key = jax.random.key(seed)
        self.reset: Any = jax.jit(env.reset)
        self.step: Any = jax.jit(env.step)

    def some_key(self, purpose: int) -> Array:
        return jax.random.fold_in(self.key, purpose)

    @functools.cached_property
    def sample(self) -> Any:
        return jax.jit(self.env.action_space().sample)

    @functools.cached_property
    def opened(self) -> tuple[PyTree, Any]:
        """(state, timestep) of a reset."""
        return self.reset(self.some_key(0), self.params)

    @functools.cached_property
    def action(self) -> PyTree:
        return self.sample(self.some_key(1))

    @functools.cached_property
    def stepped(self) -> tuple[PyTree, Any]:
        """(state, timestep) of a step from `opened` with `action`."""
        return self.step(self.some_key(2), self.opened[0], self.action, self.params)

    @functools.cached_property
    def shapes(self) -> tuple[PyTree, PyTree]:
        """Types of what reset and step return."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        made = jax.eval_shape(self.env.reset, key, self.params)
        action = jax.eval_shape(self.env.action_space().sample, key)
        return made, jax.eval_shape(self.env.step, key, made[0], action, self.params)

    @property
    def is_short(self) -> bool:
        return self.env.horizon <= LONGEST

    @functools.cached_property
    def play(self) -> dict[str, Episodes]:
        """Episodes of random play, and of the expert's where there is one, with two steps beyond the horizon."""
        names = ("random", "expert") if self.env.has("expert") else ("random",)
        keys = jax.random.split(self.some_key(3), len(names) * self.num_episodes).reshape(len(names), -1)
        expert = jnp.arange(len(names)) == 1
        played = jax.device_get(_play(self.env, self.params, keys, expert))
        return {name: jax.tree.map(lambda x, i=i: x[i], played) for i, name in enumerate(names)}

    def trajectory(self, key: Array, params: PyTree, expert: Array | None = None) -> PyTree:
        """(states, timesteps), `[steps + 1, ...]` each, of random play, and of the expert's where `expert` (bool
        [steps], by default every second one of a dozen) says so."""
        if expert is None:
            expert = jnp.arange(min(self.steps, self.env.horizon)) % 2 == 1
        reset_key, key = jax.random.split(key)
        opened = self.env.reset(reset_key, params)

        def step(state: PyTree, inputs: tuple[Array, Array]) -> tuple[PyTree, PyTree]:
            act_key, step_key = jax.random.split(inputs[0])
            out = self.env.step(step_key, state, choose(self.env, act_key, state, params, inputs[1]), params)
            return out[0], out

        _, later = jax.lax.scan(step, opened[0], (jax.random.split(key, len(expert)), expert))
        return jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), opened, later)


def choose(env: Env, key: Array, state: PyTree, params: PyTree, expert: Array) -> PyTree:
    """A random action, or the expert's where `expert` holds and there is one."""
    sampled = env.action_space().sample(key)
    if not env.has("expert"):
        return sampled
    scripted = env.expert(key, state, params)
    return jax.tree.map(lambda a, b: jnp.where(expert, a, b), scripted, sampled)


@functools.partial(jax.jit, static_argnames="env")
def _play(env: Env, params: PyTree, keys: Array, expert: Array) -> Episodes:
    """Episodes [policies, E] from keys [policies, E]; both policies are one program, so it compiles once."""

    def legal(space: Any, x: Any) -> Array:
        finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(x) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return functools.reduce(jnp.logical_and, finite, jnp.asarray(space.contains(x), bool))

    def one(key: Array, expert: Array) -> Episodes:
        reset_key, key = jax.random.split(key)
        state, timestep = env.reset(reset_key, params)
        never, no = jnp.int32(-1), jnp.zeros((), bool)
        illegal = jnp.where(legal(env.observation_space(), timestep.obs), -1, 0).astype(jnp.int32)
        tally = Episodes(
            returns=jnp.float32(0), lengths=jnp.int32(0), terminated=no, truncated=no, illegal_obs=illegal,
            illegal_action=never, suboptimal=never, bad_reward=never,
            reopened=never, both_ends=never, illegal_after=never, success=no,
        )  # fmt: skip

        def step(carry: Any, inputs: tuple[Array, Array]) -> tuple[Any, None]:
            (state, tally), (key, t) = carry, inputs
            act_key, step_key = jax.random.split(key)
            action = choose(env, act_key, state, params, expert)
            missed = expert & ~env.optimal_actions(state, params)[action] if env.has("optimal_actions") else no
            state, timestep = env.step(step_key, state, action, params)
            running = ~(tally.terminated | tally.truncated)
            seen = legal(env.observation_space(), timestep.obs)

            def first(found: Array, bad: Array) -> Array:
                return jnp.where((found < 0) & bad, t, found)

            reward = jnp.sum(timestep.reward.astype(jnp.float32))
            return (
                state,
                Episodes(
                    returns=tally.returns + jnp.where(running, reward, 0.0),
                    lengths=tally.lengths + running,
                    terminated=tally.terminated | (running & timestep.terminated),
                    truncated=tally.truncated | (running & timestep.truncated),
                    illegal_obs=first(tally.illegal_obs, running & ~seen),
                    illegal_action=first(tally.illegal_action, running & ~legal(env.action_space(), action)),
                    suboptimal=first(tally.suboptimal, running & missed),
                    bad_reward=first(tally.bad_reward, running & ~jnp.isfinite(reward)),
                    reopened=first(tally.reopened, running & timestep.first),
                    both_ends=first(tally.both_ends, running & timestep.terminated & timestep.truncated),
                    illegal_after=first(tally.illegal_after, ~running & ~seen),
                    success=tally.success | (running & timestep.info.get("success", no)),
                ),
            ), None

        steps = env.horizon + 2
        inputs = jax.random.split(key, steps), jnp.arange(1, steps + 1, dtype=jnp.int32)
        return jax.lax.scan(step, (state, tally), inputs)[0][1]

    return jax.vmap(jax.vmap(one, in_axes=(0, None)))(keys, expert)


def primitives(jaxpr: Any) -> Iterator[Any]:
    """Every equation of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        inner = list(equation.params.values())
        for part in jax.tree.leaves(inner, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns"):
                yield from primitives(part)


def host(tree: PyTree) -> dict[str, np.ndarray]:
    """Leaf name -> NumPy array, keys as their data."""

    def plain(x: Any) -> np.ndarray:
        is_key = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    return {jax.tree_util.keystr(path): plain(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def first_difference(a: PyTree, b: PyTree, tolerance: float = 0.0) -> str | None:
    """Where two trees differ by more than `tolerance` (relative and absolute), in words; None if nowhere."""
    left, right = host(a), host(b)
    for name in left.keys() | right.keys():
        if name not in left or name not in right:
            return f"leaf {name} is on one side only"
    for name, x in left.items():
        y = right[name]
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            return f"leaf {name} is {x.dtype}{list(x.shape)} and {y.dtype}{list(y.shape)}"
        floats = np.issubdtype(x.dtype, np.floating)
        same = np.isclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True) if floats else x == y
        if not np.all(same):
            place = tuple(int(i) for i in np.argwhere(~same)[0])
            return f"leaf {name}{list(place) if place else ''} is {x[place]!r} and {y[place]!r}"
    return None
