"""Trials: episodes of one hidden task in a row, through which a policy may learn; and the tasks they are drawn from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.spaces import Box, Tree
from jaxrl_seq.envs.core.timestep import TimeStep, opening
from jaxrl_seq.envs.core.wrappers import Wrapper

Array = jax.Array
PyTree = Any


@dataclass(frozen=True)
class Tasks:
    """A distribution over the tasks of `env`: all of them, or one side of a split.

    A finite family (`env.tasks`) is split by a permutation of its members, so the two sides share none. Of an infinite
    one `draws` members are drawn, each from a key of its own, and these are split alike. Raises ValueError for an
    environment without tasks, for a split that leaves a side empty, and where a list is needed and there is none.
    """

    env: Env
    part: Literal["all", "train", "test"] = "all"
    held_out: float = 0.0
    """Share of the members that are "test"."""
    seed: int = 0
    """Of the permutation, and of the draws."""
    draws: int = 0
    """Members that are drawn of an infinite family; 0: every sample is a new one."""

    def __post_init__(self) -> None:
        name = self.env.name
        if not self.env.has("sample_task"):
            raise ValueError(f"{name} has no tasks: every episode is alike. Environments with tasks subclass TaskEnv.")
        if self.draws < 0 or (self.draws and self.env.has("tasks")):
            raise ValueError(f"{name}: draws ({self.draws}) are for infinite families; use 0.")
        if self.part != "all" and not len(self.members):
            raise ValueError(
                f"{name}: holding out {self.held_out} of {self.count} tasks leaves none to {self.part}; "
                "choose a share with at least one task on either side."
            )

    @property
    def count(self) -> int:
        """G: how many tasks the family has. ValueError for an infinite family without `draws`."""
        if self.env.has("tasks"):
            return jax.tree.leaves(jax.eval_shape(self.env.tasks, self.env.default_params()))[0].shape[0]
        if not self.draws:
            raise ValueError(f"{self.env.name} has infinitely many tasks: say how many to draw (draws=...).")
        return self.draws

    @property
    def members(self) -> np.ndarray:
        """int32 [G']: which of the family's tasks are on this side, in increasing order."""
        order = np.random.default_rng(self.seed).permutation(self.count).astype(np.int32)
        cut = round(self.held_out * self.count)
        return np.sort({"all": order, "train": order[cut:], "test": order[:cut]}[self.part])

    def split(self, held_out: float, seed: int = 0, draws: int = 0) -> tuple[Tasks, Tasks]:
        """(train, test): disjoint, and together everything."""
        if self.part != "all":
            raise ValueError(f"{self.env.name}: this is the {self.part} side of a split already.")
        sides = [Tasks(self.env, part, held_out, seed, draws or self.draws) for part in ("train", "test")]
        return sides[0], sides[1]

    def sample(self, key: Array, params: PyTree) -> PyTree:
        """One task. The key is consumed."""
        if self.part == "all" and not self.draws:
            return self.env.sample_task(key, params)
        members = jnp.asarray(self.members)
        return self._member(members[jax.random.randint(key, (), 0, len(members))], params)

    def enumerate(self, params: PyTree) -> PyTree:
        """All tasks of this side, stacked [G', ...]."""
        return jax.vmap(self._member, in_axes=(0, None))(jnp.asarray(self.members), params)

    def _member(self, index: Array, params: PyTree) -> PyTree:
        if self.env.has("tasks"):
            return jax.tree.map(lambda x: x[index], self.env.tasks(params))
        return self.env.sample_task(jax.random.fold_in(jax.random.key(self.seed), index), params)


@struct.dataclass
class TrialState:
    task: PyTree
    inner: PyTree
    """The state of the running episode."""
    episode: Array  # int32 [], its number, from 0
    inner_return: Array  # float32 [], of the running episode
    inner_length: Array  # int32 []
    t: Array  # int32 [], steps of the trial


@dataclass(frozen=True)
class TrialEnv(Wrapper):
    """`episodes` episodes, or `steps` steps, of one task in a row: an episode of episodes (Duan et al. 2016).

    Memory is reset at the start of a trial only, because `first` is set there only; its end is a termination. Where an
    episode ends inside a trial the next one opens in the same step: nothing is terminal, previous action and reward
    stay, and `obs["first_inner"]` says so. Observations are {"obs": the inner one, "first_inner": float32 [1]}.
    `info` adds to the inner one `episode` (int32, which this step belonged to), `inner_done`, `inner_return` and
    `inner_length` (of that episode so far, this step included).

    Trials are tasks themselves: `sample_task`, `reset_to`, `tasks` and `optimal_return` are those of a whole trial.
    Raises ValueError unless one of `episodes` and `steps` is given, and for `steps` that cut a fixed-length episode.
    """

    tasks_from: Tasks | None = None
    """Where tasks come from; None: the environment's own distribution."""
    episodes: int = 0
    """K."""
    steps: int = 0

    def __post_init__(self) -> None:
        name, steps, horizon = self.env.name, self.steps, self.env.horizon
        if min(self.episodes, steps) < 0 or bool(self.episodes) == bool(steps):
            raise ValueError(f"A trial of {name}: give episodes or steps, one of them; got {self.episodes}, {steps}.")
        if self.env.fixed_length and steps % horizon:
            near = " or ".join(str(n) for n in (steps // horizon * horizon, -(-steps // horizon) * horizon) if n)
            raise ValueError(
                f"A trial of {name}: {steps} steps cut its episodes of {horizon} steps; use {near}, or give episodes."
            )
        if self.tasks_from is not None and self.tasks_from.env != self.env:
            raise ValueError(f"A trial of {name} cannot draw its tasks from {self.tasks_from.env}.")
        if self.tasks_from is None:
            object.__setattr__(self, "tasks_from", Tasks(self.env))

    @property
    def horizon(self) -> int:
        return self.steps or self.episodes * self.env.horizon

    @property
    def fixed_length(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return bool(self.steps) or self.env.fixed_length

    @property
    def time_limit(self) -> Literal["terminal"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "terminal"

    @property
    def max_episodes(self) -> int:
        """K, or an upper bound on it where trials are counted in steps."""
        return self.episodes or (-(-self.steps // self.env.horizon) if self.env.fixed_length else self.steps)

    def observation_space(self) -> Tree:
        return Tree({"obs": self.env.observation_space(), "first_inner": Box(0.0, 1.0, (1,))})

    def sample_task(self, key: Array, params: PyTree) -> PyTree:
        assert self.tasks_from is not None
        return self.tasks_from.sample(key, params)

    def tasks(self, params: PyTree) -> PyTree:
        assert self.tasks_from is not None
        return self.tasks_from.enumerate(params)

    def reset(self, key: Array, params: PyTree) -> tuple[TrialState, TimeStep]:
        """Open a trial of a task drawn anew. The key is consumed."""
        task_key, key = jax.random.split(key)
        return self.reset_to(key, self.sample_task(task_key, params), params)

    def reset_to(self, key: Array, task: PyTree, params: PyTree) -> tuple[TrialState, TimeStep]:
        inner, timestep = self.env.reset_to(key, task, params)
        zero = jnp.int32(0)
        state = TrialState(task, inner, episode=zero, inner_return=jnp.float32(0), inner_length=zero, t=zero)
        info = timestep.info | self._info(state, jnp.zeros((), bool))
        return state, opening(_seen(timestep), action_mask=timestep.action_mask, cost=timestep.cost, info=info)

    def step(self, key: Array, state: TrialState, action: Any, params: PyTree) -> tuple[TrialState, TimeStep]:
        step_key, open_key = jax.random.split(key)
        inner, timestep = self.env.step(step_key, state.inner, action, params)
        done = timestep.done
        state = replace(
            state,
            inner_return=state.inner_return + timestep.reward,
            inner_length=state.inner_length + 1,
            t=state.t + 1,
        )
        over = state.t >= self.steps if self.steps else done & (state.episode + 1 >= self.episodes)
        info = timestep.info | self._info(state, done)
        # the last episode of a trial stays as it ended
        opens = done & ~over
        new = (*self.env.reset_to(open_key, state.task, params), state.episode + 1, jnp.float32(0), jnp.int32(0))
        old = (inner, timestep, state.episode, state.inner_return, state.inner_length)
        inner, shown, episode, inner_return, length = jax.tree.map(lambda a, b: jnp.where(opens, a, b), new, old)
        state = replace(state, inner=inner, episode=episode, inner_return=inner_return, inner_length=length)
        return state, replace(
            timestep,
            obs=_seen(shown),
            action_mask=shown.action_mask,
            terminated=over,
            truncated=jnp.zeros((), bool),
            info=info,
        )

    def expert(self, key: Array, state: TrialState, params: PyTree) -> Any:
        return self.env.expert(key, state.inner, params)

    def optimal_actions(self, state: TrialState, params: PyTree) -> Array:
        return self.env.optimal_actions(state.inner, params)

    def optimal_return(self, task: PyTree, params: PyTree) -> Array:
        """float32 []: of a whole trial, for who knows the task from the start."""
        return self.max_episodes * self.env.optimal_return(task, params)

    def reference(self) -> dict[str, float]:
        """Those of the inner environment times the episodes of a trial. `expert` knows the task, so that no learner
        reaches it; `reactive` remembers nothing."""
        return {name: self.max_episodes * value for name, value in self.env.reference().items()}

    def has(self, capability: str) -> bool:
        assert self.tasks_from is not None
        counted = bool(self.episodes) or self.env.fixed_length
        if capability in ("optimal_return", "reference") and not counted:
            return False
        whole = self.tasks_from.part == "all" and not self.tasks_from.draws
        if capability == "tasks":
            return self.env.has("tasks") or bool(self.tasks_from.draws)
        return self.env.has(capability) and (whole or capability != "reference")

    def render(self, state: TrialState, params: PyTree) -> Array:
        return self.env.render(state.inner, params)

    def ascii(self, state: TrialState, params: PyTree) -> str:
        return f"{self.env.ascii(state.inner, params)}\nepisode {int(state.episode) + 1}"

    def _info(self, state: TrialState, done: Array) -> dict[str, Array]:
        """Of the episode that the step belonged to."""
        return {
            "episode": state.episode,
            "inner_done": done,
            "inner_return": state.inner_return,
            "inner_length": state.inner_length,
        }


def _seen(timestep: TimeStep) -> dict[str, PyTree]:
    return {"obs": timestep.obs, "first_inner": timestep.first.astype(jnp.float32)[None]}
