"""Our environments for gymnasium: one (`to_gymnasium`), a batch (`to_gymnasium_vector`), and their ids in its registry.

    import gymnasium as gym
    import jaxrl_seq.envs.adapters.to_gymnasium                             # registers the ids

    env = gym.make("jaxrl_seq/TMaze-v0", length=50)                         # options as for `make`
    env = gym.make("jaxrl_seq/RepeatPrevious-hard-v0")                      # a preset
    envs = gym.make_vec("jaxrl_seq/CartPole-v0", num_envs=8)                # one jitted step for all 8
    env = to_gymnasium(*make("tmaze,length=50"), render_mode="ansi")        # any env of ours, without an id

gymnasium 1.0 dropped its plugin entry points, so that an import is what registers; the ids also work as
`gym.make("jaxrl_seq.envs.adapters.to_gymnasium:jaxrl_seq/TMaze-v0")`, which imports by itself.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from jaxrl_seq.envs.adapters import host
from jaxrl_seq.envs.core import registry
from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.spaces import Box, Discrete, MultiDiscrete, Space, Tree

PyTree = Any
_HERE = "jaxrl_seq.envs.adapters.to_gymnasium"
_METADATA = {"render_modes": ["rgb_array", "ansi"], "render_fps": host.FPS}


def to_gymnasium(
    env: Env, params: PyTree = None, *, seed: int | None = 0, render_mode: str | None = None
) -> GymnasiumEnv:
    """A gymnasium.Env of one of ours (`params` None: its default).

    `seed` is the one of the first reset, if that is given none: copies that are to differ need seeds that do, and None
    takes a random one. An action mask (int8, as gymnasium's `sample(mask=...)` wants it) and costs are in `info`.
    """
    return GymnasiumEnv(env, params, seed=seed, render_mode=render_mode)


def to_gymnasium_vector(
    env: Env, num_envs: int, params: PyTree = None, *, seed: int | None = 0, render_mode: str | None = None
) -> GymnasiumVectorEnv:
    """A gymnasium VectorEnv of `num_envs` of ours: one jitted step, same-step autoreset.

    Where an episode ended, `infos["final_obs"][i]` is its own last observation and the returned one opens the next.
    Equal, number for number, to a SyncVectorEnv of `to_gymnasium(env, seed=seed + i)`. Any leaf of `params` may have a
    leading `[num_envs]` axis.
    """
    return GymnasiumVectorEnv(env, num_envs, params, seed=seed, render_mode=render_mode)


class GymnasiumEnv(gym.Env):
    """See `to_gymnasium`."""

    metadata: dict[str, Any] = _METADATA

    def __init__(self, env: Env, params: PyTree = None, *, seed: int | None = 0, render_mode: str | None = None):
        self.render_mode = host.checked_mode(env, render_mode)
        self.metadata = _METADATA | {"render_modes": host.render_modes(env)}
        self.observation_space = gymnasium_space(env.observation_space())
        self.action_space = gymnasium_space(env.action_space())
        self._solo = host.Solo(env, params)
        if seed is not None:
            self._np_random, self._np_random_seed = seeding.np_random(seed)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        _no_options(self._solo.env, options)
        timestep = self._solo.reset(self.np_random, renew=seed is not None)
        return members(self.observation_space, timestep.obs), _info(timestep)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._solo.over:
            raise gym.error.ResetNeeded(f"{self._solo.env.name}: no episode is running; call reset() before step().")
        timestep = self._solo.step(action)
        obs, flags = members(self.observation_space, timestep.obs), (timestep.terminated, timestep.truncated)
        return obs, float(timestep.reward), bool(flags[0]), bool(flags[1]), _info(timestep)

    def render(self) -> Any:
        if self.render_mode is None:
            gym.logger.warn("render() needs a render_mode, given when the environment is made; nothing is drawn.")
            return None
        if not self._solo.begun:
            raise gym.error.ResetNeeded(f"{self._solo.env.name}: call reset() before render().")
        return self._solo.draw(self.render_mode)


class GymnasiumVectorEnv(VectorEnv):
    """See `to_gymnasium_vector`."""

    def __init__(
        self,
        env: Env,
        num_envs: int,
        params: PyTree = None,
        *,
        seed: int | None = 0,
        render_mode: str | None = None,
    ):
        self.num_envs = num_envs
        self.render_mode = host.checked_mode(env, render_mode)
        modes = {"render_modes": host.render_modes(env), "autoreset_mode": AutoresetMode.SAME_STEP}
        self.metadata = _METADATA | modes
        self._batch = host.Batch(env, num_envs, params, seed)
        self.single_observation_space = gymnasium_space(env.observation_space())
        self.single_action_space = gymnasium_space(env.action_space())
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Environment i gets the seed `seed + i`."""
        super().reset(seed=seed)
        _no_options(self._batch.env, options)
        opened = self._batch.reset(self._batch.seeds(seed))
        return members(self.single_observation_space, opened.obs), self._infos(opened)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        if not self._batch.begun:
            raise gym.error.ResetNeeded(f"{self._batch.env.name}: call reset() before step().")
        ended, opened = self._batch.step(actions)
        infos, done = self._infos(opened), ended.terminated | ended.truncated
        if done.any():
            infos |= {"final_obs": self._final_obs(ended.obs, done), "_final_obs": done}
            infos |= {"final_info": self._infos(ended, done), "_final_info": done.copy()}
        obs = members(self.single_observation_space, opened.obs)
        return obs, ended.reward.astype(np.float64), np.array(ended.terminated), np.array(ended.truncated), infos

    def render(self) -> tuple[Any, ...] | None:
        if self.render_mode is None:
            gym.logger.warn("render() needs a render_mode, given when the environment is made; nothing is drawn.")
            return None
        if not self._batch.begun:
            raise gym.error.ResetNeeded(f"{self._batch.env.name}: call reset() before render().")
        return tuple(self._batch.draw(self.render_mode))

    def _final_obs(self, obs: PyTree, done: np.ndarray) -> np.ndarray:
        """object [B]: the last observation of each episode that ended, None elsewhere."""
        final = np.full(self.num_envs, None, object)
        for i in np.flatnonzero(done):
            final[i] = members(self.single_observation_space, host.row(obs, i))
        return final

    def _infos(self, timestep: Any, rows: np.ndarray | None = None) -> dict[str, Any]:
        """gymnasium's batched info: under each name an array [B, ...], and under `_name` which rows have it."""
        rows = np.ones(self.num_envs, bool) if rows is None else rows
        infos: dict[str, Any] = {}
        for name, values in host.extras(timestep).items():
            values = np.asarray(values) if values.ndim > 1 else _python_dtype(values)
            kept = rows.reshape(rows.shape + (1,) * (values.ndim - 1))
            infos |= {name: np.where(kept, values, np.zeros_like(values)), f"_{name}": rows.copy()}
        return infos


# --- spaces and values ----------------------------------------------------------------------------------------------
def gymnasium_space(space: Space) -> gym.Space:
    """The gymnasium space with the same members (integers of Discrete and MultiDiscrete as its default int64)."""
    if isinstance(space, Discrete):
        return gym.spaces.Discrete(space.n)
    if isinstance(space, MultiDiscrete):
        return gym.spaces.MultiDiscrete(list(space.ns))
    if isinstance(space, Box):
        low, high = space.bounds
        return gym.spaces.Box(low, high, space.shape, space.dtype.type)
    if isinstance(space, Tree):
        return gym.spaces.Dict({name: gymnasium_space(part) for name, part in space.spaces.items()})
    raise ValueError(f"{space!r} has no counterpart in gymnasium; Discrete, MultiDiscrete, Box and Tree do.")


def members(space: gym.Space, values: Any) -> Any:
    """One member of `space` (or a batch of them) as gymnasium wants it: NumPy arrays that the caller may write to."""
    if isinstance(space, gym.spaces.Dict):
        return {name: members(part, values[name]) for name, part in space.spaces.items()}
    array = np.array(values, space.dtype)
    return array[()] if isinstance(space, gym.spaces.Discrete) else array  # a single integer is a NumPy scalar


def _info(timestep: Any) -> dict[str, Any]:
    return {name: x.item() if x.ndim == 0 else np.array(x) for name, x in host.extras(timestep).items()}


def _python_dtype(values: np.ndarray) -> np.ndarray:
    """[B] of the dtype that NumPy gives to Python's bool, int or float: what single environments have in `info`."""
    return values.astype({"b": np.bool_, "f": np.float64}.get(values.dtype.kind, np.int64))


def _no_options(env: Env, options: dict[str, Any] | None) -> None:
    if options:
        raise ValueError(f"{env.name}: reset takes no options, got {', '.join(map(str, options))}.")


# --- ids ------------------------------------------------------------------------------------------------------------
class RegisteredEnv(GymnasiumEnv):
    """What the ids in gymnasium's registry build: `spec` and `options` go to `jaxrl_seq.envs.make`."""

    def __init__(self, spec: str, *, seed: int | None = None, render_mode: str | None = None, **options: Any):
        env, params = registry.make(spec, **options)
        super().__init__(env, params, seed=seed, render_mode=render_mode)


def registered_vector(
    spec: str, num_envs: int, *, seed: int | None = None, render_mode: str | None = None, **options: Any
) -> GymnasiumVectorEnv:
    """The same for `gymnasium.make_vec`."""
    env, params = registry.make(spec, **options)
    return to_gymnasium_vector(env, num_envs, params, seed=seed, render_mode=render_mode)


def register_gymnasium() -> list[str]:
    """Put every registered id and preset into gymnasium's registry; returns the names there.

    `repeat_previous` is `jaxrl_seq/RepeatPrevious-v0` and its preset hard `jaxrl_seq/RepeatPrevious-hard-v0`.
    Importing this file calls it; call it again after `jaxrl_seq.envs.register`.
    """
    names = []
    for name, presets in registry.list_envs().items():
        for preset in ("", *presets):
            spec = f"{name}-{preset}" if preset else name
            theirs = f"jaxrl_seq/{gymnasium_name(name)}{f'-{preset}' if preset else ''}-v0"
            if theirs not in gym.registry:
                gym.register(
                    theirs,
                    entry_point=f"{_HERE}:RegisteredEnv",
                    vector_entry_point=f"{_HERE}:registered_vector",
                    kwargs={"spec": spec},
                )
            names.append(theirs)
    return names


def gymnasium_name(name: str) -> str:
    """The middle part of the gymnasium id of one of ours: in camel case, its capitals those of the class (TMaze)."""
    factory = registry._entries()[name].factory
    written = factory.rpartition(":")[2] if isinstance(factory, str) else getattr(factory, "__name__", "")
    if written.lower() == name.replace("_", "") and written[:1].isupper():
        return written
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


register_gymnasium()
