"""How well a policy learns in context: return per episode of a trial, next to anchors and to deprived copies of itself.

    scores = evaluate_in_context(policy, trial, tasks, key)              # one trial on each task, jittable
    rows = compare(anchors(trial) | {"ours": policy} | controls(policy), trial, tasks, key)
    summary(rows["ours"], oracle=..., random=...)                         # the few numbers of a curve

Intervals are made elsewhere (`run.stats`): every number here follows from a mean curve, so that whoever resamples tasks
or seeds can ask for it again.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from numpy.typing import ArrayLike

from jaxrl_seq.envs.core.timestep import TimeStep
from jaxrl_seq.envs.core.trials import TrialEnv, TrialState
from jaxrl_seq.incontext.algorithms import make_algorithm
from jaxrl_seq.incontext.histories import episode_returns, play
from jaxrl_seq.incontext.policies import AgentPolicy, Deprived
from jaxrl_seq.types import Array, PyTree


@struct.dataclass
class Scores:
    """One trial of K episodes in each of B streams."""

    returns: Array
    """float32 [B, K]: of each episode, as far as it got."""
    lengths: Array
    """float32 [B, K]: steps of each."""
    finished: Array
    """bool [B, K]: the episode ended within the trial. Always, where trials are counted in episodes."""
    regret: Array | None = None
    """float32 [T, B]: what was lost to the best action so far; None where the environment reports no `regret`."""
    optimal: Array | None = None
    """float32 [B]: what an episode of the task pays who knows it; None where the environment cannot say."""

    @property
    def episode_regret(self) -> Array | None:
        """float32 [B, K]: what each episode fell short of the optimum in its return, which chance moves too."""
        return None if self.optimal is None else self.optimal[:, None] - self.returns


def evaluate_in_context(policy: Any, trial: TrialEnv, tasks: PyTree, key: Array, params: PyTree = None) -> Scores:
    """One trial of `policy` on each of `tasks` [B, ...]. Jittable. The key is consumed.

    params: of the environment; None for its defaults.
    """
    params = trial.default_params() if params is None else params
    history = play(policy, trial, tasks, key, params)
    lost = history.info.get("regret")
    optimal = None
    if trial.has("optimal_return"):
        optimal = jax.vmap(trial.env.optimal_return, in_axes=(0, None))(tasks, params)

    def by_episode(x: Array) -> Array:
        return episode_returns(replace(history, reward=x.astype(jnp.float32)), trial.max_episodes)

    return Scores(
        returns=episode_returns(history, trial.max_episodes),
        lengths=by_episode(history.valid),
        finished=by_episode(history.done) > 0,
        regret=None if lost is None else jnp.cumsum(jnp.where(history.valid, lost, 0.0), axis=0),
        optimal=optimal,
    )


def compare(
    policies: dict[str, Any], trial: TrialEnv, tasks: PyTree, key: Array, params: PyTree = None
) -> dict[str, Scores]:
    """`evaluate_in_context` of each policy, on the same tasks and with the same key. The key is consumed."""
    return {name: evaluate_in_context(policy, trial, tasks, key, params) for name, policy in policies.items()}


# --- what a policy is measured against --------------------------------------------------------------------------------
def anchors(trial: TrialEnv, params: PyTree = None) -> dict[str, Any]:
    """{"random": ..., "oracle": ...}: the levels 0 and 1. No oracle where the environment has no expert.

    With them the known ways of learning there: "thompson" and "ucb" for bandits, "sweeper" for dark rooms.
    """
    params = trial.default_params() if params is None else params
    found = {"random": make_algorithm("uniform", trial, params)}
    if trial.has("expert"):
        found["oracle"] = make_algorithm("expert", trial, params)
    for name in ("thompson", "ucb", "sweeper"):
        with contextlib.suppress(ValueError):  # which says that it does not fit
            found[name] = make_algorithm(name, trial, params)
    return found


def controls(policy: Any) -> dict[str, Any]:
    """`policy` without what it could learn from: a learner stays at its first episode, a fixed policy does not care.

    All have the type of `Deprived(policy)`, so that they are one compiled program with it.
    """
    emptied = {"memory emptied": Deprived(policy, 1.0, 0.0, True)} if isinstance(policy, AgentPolicy) else {}
    return {
        "zero reward": Deprived(policy, 0.0, 0.0, False),
        "shuffled reward": Deprived(policy, 0.0, 1.0, False),
        **emptied,
    }


# --- the wrong context ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class SwitchedTrial(TrialEnv):
    """A trial whose task changes half-way, between two episodes, without a word: tasks are pairs [2, ...].

    What a policy learnt in the first half is about another task, so that it must let go of it. Use `switched`.
    """

    def reset_to(self, key: Array, task: PyTree, params: PyTree) -> tuple[TrialState, TimeStep]:
        state, timestep = super().reset_to(key, _one_of(task, 0), params)
        return replace(state, task=task), timestep

    def step(self, key: Array, state: TrialState, action: Any, params: PyTree) -> tuple[TrialState, TimeStep]:
        # a trial's task is looked at where its next episode opens
        late = (state.episode + 1 >= self.max_episodes // 2).astype(jnp.int32)
        after, timestep = super().step(key, replace(state, task=_one_of(state.task, late)), action, params)
        return replace(after, task=state.task), timestep

    def has(self, capability: str) -> bool:
        return capability != "optimal_return" and super().has(capability)


def switched(trial: TrialEnv, tasks: PyTree) -> tuple[SwitchedTrial, PyTree]:
    """(the trial, pairs of tasks [B, 2, ...]): every stream ends on its own task and starts on the next stream's.

    Raises ValueError for fewer than two streams or episodes. Neighbours should have different tasks.
    """
    num = jax.tree.leaves(tasks)[0].shape[0]
    if num < 2 or trial.max_episodes < 2:
        raise ValueError(
            f"A task changes within a trial of 2 episodes or more, to that of another of 2 streams or more; "
            f"got {trial.max_episodes} episodes and {num} streams."
        )
    pairs = jax.tree.map(lambda x: jnp.stack([jnp.roll(x, 1, axis=0), x], axis=1), tasks)
    return SwitchedTrial(trial.env, trial.tasks_from, trial.episodes, trial.steps), pairs


def _one_of(task: PyTree, which: Any) -> PyTree:
    return jax.tree.map(lambda x: x[which], task)


# --- the numbers of a curve, on the host ------------------------------------------------------------------------------
def mean_curve(returns: ArrayLike, finished: ArrayLike) -> np.ndarray:
    """float64 [K]: mean return over the streams that finished the episode; NaN where none did. Both [B, K]."""
    ended = np.asarray(finished)
    total = np.where(ended, np.asarray(returns, np.float64), 0.0).sum(0)
    return np.divide(total, ended.sum(0), out=np.full(total.shape, np.nan), where=ended.any(0))


def summary(
    scores: Scores | ArrayLike,
    *,
    oracle: float | None = None,
    random: float | None = None,
    k: int = 1,
    last: int | None = None,
) -> dict[str, float]:
    """The numbers of a trial's curve of returns, each a mean over streams.

        zero_shot     first episode            k_shot       the episode after k of them
        last_k        mean of the last         improvement  last_k - zero_shot
        auc           mean of all              drawdown     deepest fall of the curve below its highest point so far
        normalised    last_k where `random` (return of an episode) is 0 and `oracle` is 1; where both are given

    scores: `Scores`, or a mean curve [K] (episodes that nobody finished are NaN and left out).
    last: how many episodes `last_k` is of; by default a tenth, rounded up.
    Raises ValueError for a last that the trial has no episodes for, and a negative k; a k beyond the trial is its end.
    """
    curve = mean_curve(scores.returns, scores.finished) if isinstance(scores, Scores) else np.asarray(scores)
    curve = curve[~np.isnan(curve)]
    last = -(-len(curve) // 10) if last is None else last
    if not len(curve) or not 1 <= last <= len(curve) or k < 0:
        raise ValueError(f"last ({last}) and k ({k}) do not fit a curve of {len(curve)} episodes.")
    end = float(curve[-last:].mean())
    numbers = {
        "zero_shot": float(curve[0]),
        "k_shot": float(curve[min(k, len(curve) - 1)]),
        "last_k": end,
        "auc": float(curve.mean()),
        "improvement": end - float(curve[0]),
        "drawdown": float(np.max(np.maximum.accumulate(curve) - curve)),
    }
    if oracle is not None and random is not None and oracle != random:
        numbers["normalised"] = (end - random) / (oracle - random)
    return numbers
