"""gymnax environments under our contract: raw reset and step, so that our reset policies apply.

    env, params = make_gymnax("MemoryChain-bsuite", memory_length=16)
    env, params = make("gymnax:MemoryChain-bsuite,memory_length=16")        # the same
    env, params = from_gymnax(my_gymnax_env, my_gymnax_env.default_params)

What differs from gymnax 1.x: there is no auto-reset. `truncated` comes from `is_truncated` and gives way to
`terminated` where both hold: Catch, DeepSea, SimpleBandit, MemoryChain and UmbrellaChain end by themselves, which is a
termination; the Bernoulli and Gaussian bandits and most control tasks are cut by `max_steps_in_episode`, which is a
truncation. Observations have the declared dtype and shape, rewards are float32 [], and the state has the same strong
dtypes after a reset as after a step. gymnax's `info` is dropped. The observation space is widened where gymnax's own
excludes observations that occur (`_WIDER`).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.registry import as_leaf
from jaxrl_seq.envs.core.spaces import Box, Discrete, Space, Tree
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition

Array = jax.Array
PyTree = Any


class Config:
    """A gymnax environment that compares and hashes by its class and attributes, not by identity."""

    def __init__(self, env: Any):
        self.env = env
        self._key = (f"{type(env).__module__}.{type(env).__qualname__}", _frozen(vars(env)))
        self._hash = hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self._key == other._key

    def __repr__(self) -> str:
        return f"Config({self._key[0]})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GymnaxEnv(Env[Any, Any]):
    """A gymnax environment; make it with `make_gymnax` or `from_gymnax`. Horizon and spaces are those of the params
    given there: before sweeping a time limit or a bound inside `params`, build it with the largest value."""

    config: Config
    max_steps: int
    observations: Space
    actions: Space
    fixed_length: bool = False  # pyright: ignore[reportIncompatibleVariableOverride]
    name: str = "gymnax"  # pyright: ignore[reportIncompatibleVariableOverride]

    time_limit: ClassVar[Literal["terminal", "truncate"]] = "truncate"
    paper: ClassVar[str] = "Lange 2022 (github.com/RobertTLange/gymnax)"

    @property
    def horizon(self) -> int:
        return self.max_steps

    def default_params(self) -> PyTree:
        """gymnax's own default, as arrays."""
        return _as_arrays(self.config.env.default_params)

    def reset(self, key: Array, params: PyTree) -> tuple[PyTree, TimeStep]:
        obs, state = self.config.env.reset_env(key, params)
        return self._cast_state(state), opening(self._cast_obs(obs))

    def step(self, key: Array, state: PyTree, action: Any, params: PyTree) -> tuple[PyTree, TimeStep]:
        raw = self.config.env
        obs, state, reward, terminated, _ = raw.step_env(key, state, action, params)
        truncated = raw.is_truncated(state, params)
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        return self._cast_state(state), transition(self._cast_obs(obs), reward, terminated, truncated)

    def observation_space(self) -> Space:
        return self.observations

    def action_space(self) -> Space:
        return self.actions

    def _cast_obs(self, obs: PyTree) -> PyTree:
        return _cast_to_space(obs, self.observations)

    def _cast_state(self, state: PyTree) -> PyTree:
        dtypes = _state_dtypes(self.config, self.actions)
        return jax.tree.map(lambda x, dtype: jnp.asarray(x, dtype), state, dtypes)


def make_gymnax(name: str, **options: Any) -> tuple[GymnaxEnv, Any]:
    """Build (env, params) from a gymnax id; an option names a constructor argument or a leaf of the params.

    Raises ValueError with a suggestion for an unknown id or option.
    """
    from gymnax import registration

    name = known(name, registration.registered_envs, "gymnax environment")
    arguments = inspect.signature(registration._registry[name]).parameters.values()
    static = {p.name for p in arguments if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    anything = any(p.kind is p.VAR_KEYWORD for p in arguments)
    env, params = registration.make(name, **{k: v for k, v in options.items() if k in static})
    leaves = {f.name for f in dataclasses.fields(params)}
    traced = {k: v for k, v in options.items() if k not in static}
    extra = {k: v for k, v in traced.items() if k not in leaves}
    if extra and anything:
        env, params = registration.make(name, **{k: v for k, v in options.items() if k not in leaves})
        traced = {k: v for k, v in traced.items() if k in leaves}
    for option in traced:
        known(option, static | leaves, f"option of {name}")
    arrays = _as_arrays(params)
    cast = {k: as_leaf(f"{name}: {k}", v, getattr(arrays, k)) for k, v in traced.items()}
    return _wrap(name, env, dataclasses.replace(arrays, **cast))


def from_gymnax(env: Any, params: Any = None) -> tuple[GymnaxEnv, Any]:
    """(env, params) of ours from those of gymnax (`params` None: its default). Two instances with the same attributes
    give equal environments. Raises ValueError for a gymnax older than 1.0."""
    return _wrap(env.name, env, _as_arrays(env.default_params if params is None else params))


def _wrap(name: str, raw: Any, params: Any) -> tuple[GymnaxEnv, Any]:
    if not hasattr(raw, "is_truncated"):
        raise ValueError(f"gymnax environment {name}: no is_truncated method; gymnax 1.0 or later is needed.")
    steps, fixed = _episode_length(raw, params)
    env = GymnaxEnv(
        name=name,
        config=Config(raw),
        max_steps=steps,
        fixed_length=fixed,
        observations=_observations(raw, params),
        actions=_translate(raw.action_space(params)),
    )
    return env, params


# --- dtypes ---------------------------------------------------------------------------------------------------------
def _as_arrays(params: PyTree) -> PyTree:
    """Python numbers become int32, float32 or bool arrays, so that every leaf can be traced and stacked."""

    def leaf(x: Any) -> Array:
        return jnp.asarray(x, jax.dtypes.canonicalize_dtype(jnp.asarray(x).dtype))

    return jax.tree.map(leaf, params)


@functools.lru_cache(maxsize=256)
def _state_dtypes(config: Config, actions: Space) -> PyTree:
    """The dtype of each state leaf: the smallest that holds both what reset makes of it and what step does.

    gymnax opens many episodes with Python numbers, whose dtypes then change at the first step.
    """
    raw, key = config.env, jax.eval_shape(lambda: jax.random.key(0))
    params, action = (
        jax.eval_shape(lambda: _as_arrays(raw.default_params)),
        jax.eval_shape(actions.sample, key),
    )
    state = jax.eval_shape(raw.reset_env, key, params)[1]
    for _ in range(4):  # one round suffices unless a leaf's dtype depends on another's
        state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
        stepped = jax.eval_shape(raw.step_env, key, state, action, params)[1]
        wider = jax.tree.map(
            lambda x, y: jax.ShapeDtypeStruct(x.shape, jnp.promote_types(x.dtype, y.dtype)), state, stepped
        )
        if wider == state:
            break
        state = wider
    return jax.tree.map(lambda x: x.dtype, state)


def _cast_to_space(obs: PyTree, space: Space) -> PyTree:
    if isinstance(space, Tree):
        return {name: _cast_to_space(obs[name], part) for name, part in space.spaces.items()}
    assert isinstance(space, (Discrete, Box))  # all that _translate makes
    return jnp.asarray(obs, space.dtype).reshape(space.shape)


# --- spaces ---------------------------------------------------------------------------------------------------------
def _translate(space: Any) -> Space:
    from gymnax.environments import spaces as theirs

    if isinstance(space, theirs.Discrete):
        return Discrete(int(space.n))
    if isinstance(space, theirs.Box):
        return _box(space, space.low, space.high)
    if isinstance(space, theirs.Dict):
        return Tree({name: _translate(part) for name, part in space.spaces.items()})
    raise ValueError(f"gymnax space {space!r} has no counterpart here; Discrete, Box and Dict do.")


def _box(space: Any, low: Any, high: Any) -> Box:
    """A Box whose bounds of float32's own size, which mean "none", are infinite."""
    shape, dtype = tuple(space.shape), np.dtype(space.dtype)

    def bound(x: Any) -> tuple[float, ...] | float:
        x = np.asarray(x, np.float64)
        x = np.where(np.abs(x) >= np.finfo(np.float32).max, np.copysign(np.inf, x), x)
        return float(x.ravel()[0]) if x.size == 1 else tuple(np.broadcast_to(x, shape).ravel().tolist())

    return Box(bound(low), bound(high), shape, dtype)


_ROUNDING = 1e-6  # a compiled t / n may exceed 1 by this much when t = n


def _observations(raw: Any, params: Any) -> Space:
    declared = raw.observation_space(params)
    widen = _WIDER.get(_builtin(raw))
    return _box(declared, *widen(raw, params, declared)) if widen else _translate(declared)


def _builtin(raw: Any) -> str:
    """The class name of one of gymnax's own environments, else ""."""
    return type(raw).__name__ if type(raw).__module__.startswith("gymnax.") else ""


def _clock(params: Any, low: float, high: float, span: float) -> tuple[float, float]:
    """Range of a clock that runs from `low` to `high` in `span` steps, or counts steps if not normalised."""
    steps = float(params.max_steps_in_episode)
    if not bool(params.normalize_time):
        return 0.0, steps
    return low - _ROUNDING, max(high, low + (high - low) * steps / span) + _ROUNDING


def _memory_chain(raw: Any, params: Any, declared: Any) -> tuple[Any, Any]:
    return (-_ROUNDING, 0, *[-1] * raw.num_bits), (1, max(1, raw.num_bits - 1), *[1] * raw.num_bits)


def _umbrella_chain(raw: Any, params: Any, declared: Any) -> tuple[Any, Any]:
    return (0, 0, -_ROUNDING, *[0] * raw.n_distractor), 1


def _gaussian_bandit(raw: Any, params: Any, declared: Any) -> tuple[Any, Any]:
    low, high = _clock(params, -1, 1, 100)
    return (-math.inf, 0, 0, low), (math.inf, 1, 1, high)


def _bernoulli_bandit(raw: Any, params: Any, declared: Any) -> tuple[Any, Any]:
    low, high = _clock(params, float(params.min_lim), float(params.max_lim), float(params.t_max))
    return (0, 0, 0, low), (1, 1, 1, high)


def _meta_maze(raw: Any, params: Any, declared: Any) -> tuple[Any, Any]:
    low, high = _clock(params, -1, 1, 100)
    reward, punishment = float(params.reward), float(params.punishment)
    cells = raw.rf_size**2 + raw.num_actions
    least, most = min(reward, 0) + min(punishment, 0), max(reward, 0) + max(punishment, 0)
    return (*[0] * cells, least, low), (*[1] * cells, most, high)


def _mnist(raw: Any, params: Any, declared: Any) -> tuple[Any, Any]:
    return (
        -128 / 255,
        1.0,
    )  # gymnax reads the pixels as int8, so that the bright half of them comes out negative


_WIDER: dict[str, Callable[[Any, Any, Any], tuple[Any, Any]]] = {
    "MemoryChain": _memory_chain,
    "UmbrellaChain": _umbrella_chain,
    "GaussianBandit": _gaussian_bandit,
    "BernoulliBandit": _bernoulli_bandit,
    "MetaMaze": _meta_maze,
    "MNISTBandit": _mnist,
}


# --- lengths --------------------------------------------------------------------------------------------------------
_NEVER = math.inf
_LENGTH: dict[str, Callable[[Any, Any], float]] = {
    "SimpleBandit": lambda raw, params: 1,
    "MNISTBandit": lambda raw, params: 1,
    "Catch": lambda raw, params: raw.rows - 1,
    "DeepSea": lambda raw, params: raw.size,
    "MemoryChain": lambda raw, params: int(params.memory_length) + 1,
    "UmbrellaChain": lambda raw, params: int(params.chain_length),
} | dict.fromkeys(
    (
        "DiscountingChain",
        "BernoulliBandit",
        "GaussianBandit",
        "Pendulum",
        "PointRobot",
        "Reacher",
        "Swimmer",
        "MinFreeway",
    ),
    lambda raw, params: _NEVER,
)
"""Steps after which gymnax's own environments terminate whatever is done; those not listed can end at any time."""


def _episode_length(raw: Any, params: Any) -> tuple[int, bool]:
    """(upper bound on the steps of an episode, whether every episode has exactly that many)."""
    limit = math.ceil(float(params.max_steps_in_episode))
    length = _LENGTH.get(_builtin(raw))
    return (limit, False) if length is None else (int(min(limit, length(raw, params))), True)


def _frozen(value: Any) -> Any:
    """A hashable stand-in for an attribute of an environment: by value where there is one, else by identity."""
    if isinstance(value, dict):
        return tuple((name, _frozen(value[name])) for name in sorted(value))
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(x) for x in value)
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    if isinstance(value, (jax.Array, np.ndarray)):
        array = np.asarray(value)
        return array.shape, str(array.dtype), array.tobytes()
    try:
        hash(value)
    except TypeError:
        return id(value)
    return type(value).__name__, value
