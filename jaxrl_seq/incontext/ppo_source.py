"""Learning histories of PPO: one learner a task, shown playing between its updates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import jax
import jax.numpy as jnp

from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.envs import Discrete, VecEnv
from jaxrl_seq.envs.core.timestep import TimeStep
from jaxrl_seq.envs.core.trials import TrialEnv
from jaxrl_seq.envs.core.wrappers import Wrapper
from jaxrl_seq.incontext.histories import History, play
from jaxrl_seq.incontext.imitation import take_window
from jaxrl_seq.incontext.policies import AgentPolicy
from jaxrl_seq.models import SequenceModel
from jaxrl_seq.online import PPO, PPOHyper
from jaxrl_seq.types import Array, PyTree


@dataclass(frozen=True)
class OneTask(Wrapper):
    """`env` on one task for good. Parameters are (task, those of `env`), so that a `vmap` over them is over tasks."""

    def default_params(self) -> PyTree:
        params = self.env.default_params()
        return self.env.sample_task(jax.random.key(0), params), params

    def reset(self, key: Array, params: PyTree) -> tuple[PyTree, TimeStep]:
        return self.env.reset_to(key, *params)

    def step(self, key: Array, state: PyTree, action: Any, params: PyTree) -> tuple[PyTree, TimeStep]:
        return self.env.step(key, state, action, params[1])

    def has(self, capability: str) -> bool:
        return False  # what learns in it needs none of them


@dataclass(frozen=True)
class PPOSource:
    """PPO from scratch on every task, by itself: after each update it plays one episode for the record.

    The learner collects whole episodes and does not remember across them. `trial` gives the environment and its tasks.
    Raises ValueError for environments whose episodes differ in length, because histories are whole episodes.
    """

    trial: TrialEnv
    model: SequenceModel
    num_envs: int = 16
    epochs: int = 4

    def __post_init__(self) -> None:
        env = self.trial.env
        if not env.fixed_length:
            raise ValueError(f"ppo: episodes of {env.name} differ in length; histories need those that do not.")

    @property
    def episode(self) -> TrialEnv:
        return replace(self.trial, episodes=1, steps=0)

    @property
    def agent(self) -> ActorCritic:
        return ActorCritic.for_env(self.episode, self.model)

    @property
    def learner(self) -> PPO:
        env = VecEnv(OneTask(self.episode), self.num_envs)
        return PPO(env, self.agent, num_steps=self.trial.env.horizon, epochs=self.epochs)

    def histories(
        self, tasks: PyTree, key: Array, hyper: PPOHyper, *, updates: int, every: int = 1, label: bool = False
    ) -> tuple[History, PyTree]:
        """(one stream for each of `tasks` [B, ...], the parameters [B, ...] that the learners ended with).

        A stream is the episodes after the first update and then after every `every`-th. label: keep the optimal
        actions, as `play` does; see `relabel` for those of the final policy. Jittable. The key is consumed. Raises
        ValueError where `every` does not divide `updates`.
        """
        if every < 1 or updates % every:
            raise ValueError(f"ppo: {updates} updates cannot be shown every {every}; choose a divisor.")
        params = self.trial.default_params() if hyper.env_params is None else hyper.env_params
        num = jax.tree.leaves(tasks)[0].shape[0]

        def learn(task: PyTree, key: Array) -> tuple[History, PyTree]:
            return self._learn(task, key, replace(hyper, env_params=(task, params)), updates, every, label)

        history, weights = jax.vmap(learn)(tasks, jax.random.split(key, num))
        # [B, K, H, 1, ...] -> [K * H, B, ...]
        seen = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(num, -1, *x.shape[4:]), 0, 1), history)
        return replace(seen, task=tasks), weights

    def _learn(
        self, task: PyTree, key: Array, hyper: PPOHyper, updates: int, every: int, label: bool
    ) -> tuple[History, PyTree]:
        """(what it showed [K, H, 1, ...], the parameters that it ended with)."""
        init_key, key = jax.random.split(key)
        one = jax.tree.map(lambda x: x[None], task)
        _, params = cast(Any, hyper.env_params)

        def show(state: Any, number: Array) -> tuple[Any, History]:
            state, _ = self.learner.update(state, hyper)
            policy = AgentPolicy(self.agent, state.params)
            shown = play(policy, self.episode, one, jax.random.fold_in(key, number), params, label=label)
            state, _ = jax.lax.scan(lambda s, _: (self.learner.update(s, hyper)[0], None), state, length=every - 1)
            return state, replace(shown, task=(), episode=shown.episode + number)

        state, history = jax.lax.scan(show, self.learner.init(init_key, hyper), jnp.arange(updates // every))
        return history, state.params


def relabel(history: History, agent: ActorCritic, params: PyTree) -> History:
    """`history` with the most likely action of a policy of each stream, `params` [B, ...], as the optimal one.

    XLand-100B (Nikulin et al. 2025, arXiv:2406.08973) labels with the final policy so, where there is no oracle. The
    policy remembers nothing across episodes. Raises ValueError for actions that are not discrete.
    """
    space = agent.action_space
    if not isinstance(space, Discrete):
        raise ValueError(f"relabel: sets of optimal actions need discrete actions, not {space}.")

    def one(params: PyTree, stream: Array) -> Array:
        window = take_window(history, jnp.arange(history.length)[:, None], stream[None], single=True)
        _, decision = agent.parallel(params, agent.initialize_carry((1,)), window.inputs, window.inputs.first)
        return agent.policy(cast(Any, decision), window.inputs).mode()[:, 0]

    best = jax.vmap(one, out_axes=1)(params, jnp.arange(history.streams))
    return replace(history, optimal=jax.nn.one_hot(best, space.n, dtype=bool))
