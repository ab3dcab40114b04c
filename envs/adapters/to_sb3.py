"""Our environments for Stable-Baselines3: a VecEnv that steps all its environments in one jitted call.

    from stable_baselines3 import PPO

    env, params = make("cartpole")
    venv = to_sb3(env, 8, params)
    PPO("MlpPolicy", VecMonitor(venv)).learn(100_000)

`infos[i]["terminal_observation"]` is the last observation of the episode that ended, and
`infos[i]["TimeLimit.truncated"]` says whether a time limit cut it. Action masks, where there are any, reach
sb3-contrib's MaskablePPO as `action_masks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import jax
import numpy as np
from stable_baselines3.common.vec_env import VecEnv  # pyright: ignore[reportMissingImports]

from jaxrl_seq.envs.adapters import host
from jaxrl_seq.envs.adapters.to_gymnasium import gymnasium_space, members
from jaxrl_seq.envs.core.protocol import Env

PyTree = Any


def to_sb3(
    env: Env, num_envs: int, params: PyTree = None, *, seed: int | None = 0, render_mode: str | None = None
) -> SB3VecEnv:
    """A Stable-Baselines3 VecEnv of `num_envs` of ours (`params` None: the default; a leaf may lead with [num_envs]).

    Environment i starts on the seed `seed + i`. `render_mode` "rgb_array" is what SB3's video recorder needs.
    """
    return SB3VecEnv(env, num_envs, params, seed=seed, render_mode=render_mode)


class SB3VecEnv(VecEnv):
    """See `to_sb3`."""

    def __init__(self, env: Env, num_envs: int, params: PyTree, *, seed: int | None, render_mode: str | None):
        self._mode = host.checked_mode(env, render_mode)
        self._batch = host.Batch(env, num_envs, params, seed)
        self._space = gymnasium_space(env.observation_space())
        self._masks: np.ndarray | None = None
        self._actions: Any = None
        super().__init__(num_envs, self._space, gymnasium_space(env.action_space()))
        _, opened = jax.eval_shape(env.reset, jax.eval_shape(lambda: jax.random.key(0)), env.default_params())
        self._masked = opened.action_mask is not None

    def reset(self) -> Any:
        if any(self._options):
            raise ValueError(f"{self._batch.env.name}: reset takes no options, got {self._options}.")
        opened = self._batch.reset(self._seeds)
        self._reset_seeds()
        self._masks = opened.action_mask
        self.reset_infos = self._infos(opened)
        return members(self._space, opened.obs)

    def step_async(self, actions: Any) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        if not self._batch.begun:
            raise RuntimeError(f"{self._batch.env.name}: call reset() before step().")
        ended, opened = self._batch.step(self._actions)
        self._masks = opened.action_mask
        infos, done = self._infos(ended), ended.terminated | ended.truncated
        for i, info in enumerate(infos):
            info["TimeLimit.truncated"] = bool(ended.truncated[i])
        if done.any():
            reset_infos = self._infos(opened)
            for i in np.flatnonzero(done):
                infos[i]["terminal_observation"] = members(self._space, host.row(ended.obs, i))
                self.reset_infos[i] = reset_infos[i]
        return members(self._space, opened.obs), np.array(ended.reward), done, infos

    def _infos(self, timestep: Any) -> list[dict[str, Any]]:
        columns = host.extras(timestep)
        return [{name: _plain(values[i]) for name, values in columns.items()} for i in range(self.num_envs)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        if self._mode != "rgb_array":
            raise ValueError(f'{self._batch.env.name}: pictures need render_mode="rgb_array" when it is made.')
        if not self._batch.begun:
            raise RuntimeError(f"{self._batch.env.name}: call reset() before render().")
        return self._batch.draw("rgb_array")

    def action_masks(self) -> np.ndarray:
        """bool [B, A]: the legal actions of each environment."""
        if self._masks is None:
            raise RuntimeError(f"{self._batch.env.name}: call reset() first, and only where there are action masks.")
        return np.array(self._masks)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the environment (`name`, `horizon`, its sizes), the same for every index."""
        rows = list(self._get_indices(indices))
        if attr_name == "render_mode":
            return [self._mode for _ in rows]
        if attr_name == "action_masks" and self._masked:
            return [self._mask_of(i) for i in rows]
        return [getattr(self._batch.env, attr_name) for _ in rows]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise AttributeError(f"{self._batch.env.name}: an environment is frozen; make another one instead.")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        methods = self.get_attr(method_name, indices)
        return [method(*method_args, **method_kwargs) for method in methods]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]

    def close(self) -> None:
        """Nothing is held."""

    def _mask_of(self, i: int) -> Callable[[], np.ndarray]:
        return lambda: self.action_masks()[i]


def _plain(value: Any) -> Any:
    return value.item() if value.ndim == 0 else np.array(value)
