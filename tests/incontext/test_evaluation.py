"""In-context evaluation: policies whose curves are known exactly, and the numbers of those curves by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.agents.actor_critic import example_inputs
from jaxrl_seq.envs import Box, Discrete, TaskEnv, TrialEnv, opening, transition
from jaxrl_seq.envs.core.trials import TrialState
from jaxrl_seq.envs.core.vector import Inputs
from jaxrl_seq.incontext.evaluation import (
    anchors,
    compare,
    controls,
    evaluate_in_context,
    mean_curve,
    summary,
    switched,
)
from jaxrl_seq.incontext.policies import AgentPolicy, Streams, View
from jaxrl_seq.models import make_model

ARMS, PULLS = 3, 4
EXPLORING = 4 / 3
"""Arms 0, 1, 2, 0: 2 where the paying arm is 0, 1 otherwise."""


@struct.dataclass
class LeverState:
    task: Any
    t: Any


@dataclass(frozen=True)
class Levers(TaskEnv[LeverState, Any]):
    """One of three levers pays 1, four pulls an episode; `brief`: an episode ends with the first pull that pays;
    `shut`: the last lever must not be pulled."""

    brief: bool = False
    shut: bool = False

    name: ClassVar[str] = "levers"

    @property
    def fixed_length(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return not self.brief

    @property
    def horizon(self) -> int:
        return PULLS

    def default_params(self):
        return ()

    def observation_space(self):
        return Box(1.0, 1.0, (1,))

    def action_space(self):
        return Discrete(ARMS)

    def sample_task(self, key, params):
        return jax.random.randint(key, (), 0, ARMS)

    def tasks(self, params):
        return jnp.arange(ARMS)

    def reset_to(self, key, task, params):
        del key
        return LeverState(task, jnp.int32(0)), opening(
            jnp.ones(1), action_mask=self._mask(), info={"regret": jnp.float32(0)}
        )

    def step(self, key, state, action, params):
        paid = action == state.task
        state = LeverState(state.task, state.t + 1)
        over = (state.t >= PULLS) | (paid & self.brief)
        info = {"regret": 1.0 - paid.astype(jnp.float32)}
        return state, transition(jnp.ones(1), paid, terminated=over, action_mask=self._mask(), info=info)

    def _mask(self):
        return jnp.arange(ARMS) < ARMS - 1 if self.shut else None

    def expert(self, key, state, params):
        return state.task

    def optimal_return(self, task, params):
        return jnp.float32(PULLS)


@struct.dataclass
class Learner:
    """Tries 0, 1, 2, 0 for an episode, then keeps to what paid; an episode that pays nothing sends it back to trying.

    forgets: the number of the episode that it enters having forgotten everything.
    """

    forgets: int = struct.field(pytree_node=False, default=-1)

    def init(self, key):
        return {"best": jnp.int32(-1), "found": jnp.int32(-1), "t": jnp.int32(0), "episode": jnp.int32(0)}

    def act(self, key, memory, view):
        action = jnp.where(memory["best"] < 0, memory["t"] % ARMS, memory["best"])
        return memory, action, jnp.float32(0)

    def observe(self, key, memory, step):
        found = jnp.where(step.reward > 0, step.action, memory["found"])
        episode = memory["episode"] + step.done
        kept = jnp.where(episode == self.forgets, -1, found)
        return {
            "best": jnp.where(step.done, kept, memory["best"]),
            "found": jnp.where(step.done, -1, found),
            "t": jnp.where(step.done, 0, memory["t"] + 1),
            "episode": episode,
        }


TRIAL = TrialEnv(Levers(), episodes=6)
TASKS = jnp.arange(ARMS)


def play(policy, trial=TRIAL, tasks=TASKS):
    return jax.device_get(jax.jit(lambda key: evaluate_in_context(policy, trial, tasks, key))(jax.random.key(0)))


def curve(scores):
    return mean_curve(scores.returns, scores.finished)


def test_the_oracle_is_at_the_top_from_the_start():
    scores = play(anchors(TRIAL)["oracle"])
    np.testing.assert_array_equal(scores.returns, np.full((3, 6), PULLS))
    np.testing.assert_array_equal(scores.optimal, np.full(3, PULLS))
    np.testing.assert_array_equal(scores.episode_regret, 0)
    assert scores.finished.all() and not scores.regret.any() and scores.regret.shape == (24, 3)


def test_a_learner_is_seen_to_learn():
    """One episode of trying, then the optimum; regret stops growing there."""
    scores = play(Streams(Learner()))
    np.testing.assert_array_equal(scores.returns, [[2, 4, 4, 4, 4, 4], [1, 4, 4, 4, 4, 4], [1, 4, 4, 4, 4, 4]])
    np.testing.assert_array_equal(scores.regret[:5], [[0, 1, 1], [1, 1, 2], [2, 2, 2], [2, 3, 3], [2, 3, 3]])
    np.testing.assert_array_equal(scores.regret[-1], [2, 3, 3])
    np.testing.assert_array_equal(scores.episode_regret.sum(1), [2, 3, 3])
    numbers = summary(scores, oracle=PULLS, random=EXPLORING)
    expected = {
        "zero_shot": EXPLORING,
        "k_shot": 4,
        "last_k": 4,
        "auc": (EXPLORING + 5 * 4) / 6,
        "improvement": 4 - EXPLORING,
        "drawdown": 0,
        "normalised": 1,
    }
    assert numbers.keys() == expected.keys()
    for name, value in expected.items():
        assert numbers[name] == pytest.approx(value), name


def test_forgetting_is_a_drawdown():
    """Entering episode 3 (from 0) with nothing costs one episode, which the last ones do not show."""
    scores = play(Streams(Learner(forgets=3)))
    np.testing.assert_allclose(curve(scores), [EXPLORING, 4, 4, EXPLORING, 4, 4])
    numbers = summary(scores, k=3, last=3)
    assert numbers["drawdown"] == pytest.approx(4 - EXPLORING)
    assert numbers["k_shot"] == pytest.approx(EXPLORING)
    assert numbers["last_k"] == pytest.approx((EXPLORING + 8) / 3)
    assert "normalised" not in numbers


def test_random_play_does_not_learn():
    scores = play(anchors(TRIAL)["random"], tasks=jnp.arange(600) % ARMS)
    # 3600 episodes of 4 pulls, each with variance 2/9: standard error 0.04 an episode
    np.testing.assert_allclose(curve(scores), EXPLORING, atol=0.16)
    numbers = summary(scores, oracle=PULLS, random=EXPLORING)
    assert abs(numbers["improvement"]) < 0.2 and abs(numbers["normalised"]) < 0.08


def test_random_play_is_legal():
    """Where the mask forbids the last lever, the other two are pulled half of the time each."""
    trial = TrialEnv(Levers(shut=True), episodes=50)
    scores = play(anchors(trial)["random"], trial)
    np.testing.assert_allclose(scores.returns.mean(1), [2, 2, 0], atol=0.6)  # standard error 0.14
    assert not scores.returns[2].any()


def test_controls_take_away_what_is_learnt_from():
    """No reward: trying for ever. Another stream's: its neighbour's lever, until the neighbour fails too."""
    rows = compare(controls(Streams(Learner())), TRIAL, TASKS, jax.random.key(0))
    np.testing.assert_allclose(curve(rows["zero reward"]), EXPLORING)
    np.testing.assert_allclose(curve(rows["shuffled reward"]), [EXPLORING, 0] * 3)


def test_a_task_that_changes_unsaid():
    """Every stream starts on its neighbour's task: after three episodes the old lever pays nothing, for one episode."""
    trial, pairs = switched(TRIAL, TASKS)
    np.testing.assert_array_equal(pairs, [[2, 0], [0, 1], [1, 2]])
    scores = play(Streams(Learner()), trial, pairs)
    np.testing.assert_array_equal(scores.returns, [[1, 4, 4, 0, 2, 4], [2, 4, 4, 0, 1, 4], [1, 4, 4, 0, 1, 4]])
    assert scores.optimal is None
    oracle = play(anchors(trial)["oracle"], trial, pairs)
    np.testing.assert_array_equal(oracle.returns, np.full((3, 6), PULLS))
    with pytest.raises(ValueError, match="got 6 episodes and 1 streams"):
        switched(TRIAL, TASKS[:1])
    with pytest.raises(ValueError, match="got 1 episodes and 3 streams"):
        switched(TrialEnv(Levers(), episodes=1), TASKS)


def test_trials_of_steps_leave_episodes_unfinished():
    """Ten steps: task i takes i + 1 of trying, then one an episode; slots that nobody reached are no zeros."""
    trial = TrialEnv(Levers(brief=True), steps=10)
    scores = play(Streams(Learner()), trial)
    np.testing.assert_array_equal(scores.finished.sum(1), [10, 9, 8])
    np.testing.assert_array_equal(scores.returns, scores.finished)
    np.testing.assert_array_equal(curve(scores), np.ones(10))
    assert scores.optimal is None and scores.regret[-1].tolist() == [0, 1, 2]
    assert np.isnan(mean_curve([[1.0, 2.0]], [[True, False]])).tolist() == [False, True]


def test_all_are_compared_on_the_same_tasks_and_chances():
    """The same policy under two names has the same scores, random as it is."""
    policy = anchors(TRIAL)["random"]
    rows = compare({"a": policy, "b": policy}, TRIAL, TASKS, jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, rows["a"], rows["b"])


def network():
    agent = ActorCritic.for_env(TRIAL, make_model("gru", width=8))
    inputs = example_inputs(TRIAL, (1, 1))
    return AgentPolicy(agent, agent.init(jax.random.key(0), agent.initialize_carry((1,)), inputs, inputs.first))


def test_a_network_is_a_policy_like_others():
    """RL^2 needs its parameters and nothing else."""
    scores = play(network())
    assert scores.returns.shape == (3, 6) and scores.finished.all()


def test_a_lower_temperature_sharpens_what_is_sampled_once_warm_episodes_are_over():
    policy = network()
    _, timestep = jax.vmap(TRIAL.reset_to, in_axes=(0, 0, None))(jax.random.split(jax.random.key(0), 3), TASKS, ())
    opens = jnp.ones((3, 1))
    inputs = Inputs(timestep.obs | {"first_inner": opens}, jnp.zeros(3, jnp.int32), jnp.ones(3), jnp.ones(3, bool))
    state = TrialState(TASKS, (), jnp.arange(3), jnp.zeros(3), jnp.zeros(3), jnp.zeros(3))
    carry, view, key = policy.init(jax.random.key(0), 3), View(inputs, state), jax.random.key(2)
    grown = jax.tree.map(lambda x: 3 * jax.random.normal(jax.random.key(x.size), x.shape), policy.params)
    policy = policy.replace(params=grown)
    logits = policy.agent.recurrent(grown, carry, inputs, inputs.first)[1].policy_params
    for temperature in (1.0, 0.5):
        _, action, log_prob = policy.replace(temperature=temperature).act(key, carry, view)
        chance = jax.nn.log_softmax(logits / temperature)[jnp.arange(3), action]
        np.testing.assert_allclose(log_prob, chance, atol=1e-5)
    cold, likeliest = (policy.replace(**options).act(key, carry, view)[1] for options in (
        {"temperature": 1e-4}, {"greedy": True}
    ))  # fmt: skip
    np.testing.assert_array_equal(cold, likeliest)
    log_probs = {t: policy.replace(temperature=t).act(key, carry, view)[2] for t in (1.0, 0.5)}
    warm = policy.replace(temperature=0.5, warm_episodes=2).act(key, carry, view)[2]
    np.testing.assert_allclose(warm, jnp.where(jnp.arange(3) < 2, log_probs[1.0], log_probs[0.5]), atol=1e-5)


def test_an_emptied_memory_is_a_fresh_one():
    """Where an episode opens inside a trial; elsewhere, and without the control, the carry is kept."""
    policy = network()
    _, timestep = jax.vmap(TRIAL.reset_to, in_axes=(0, 0, None))(jax.random.split(jax.random.key(0), 3), TASKS, ())
    opens = jnp.array([[1.0], [0.0], [1.0]])
    inputs = Inputs(timestep.obs | {"first_inner": opens}, jnp.zeros(3, jnp.int32), jnp.ones(3), jnp.zeros(3, bool))
    used = jax.tree.map(lambda x: jax.random.normal(jax.random.key(1), x.shape), policy.init(jax.random.key(0), 3))

    def carry(policy, memory):
        return np.asarray(jax.tree.leaves(policy.act(jax.random.key(2), memory, View(inputs, ()))[0])[0])

    emptied, kept = carry(controls(policy)["memory emptied"], used), carry(policy, used)
    np.testing.assert_array_equal(emptied[1], kept[1])
    assert (emptied[[0, 2]] != kept[[0, 2]]).any(-1).all()
    # what the memory was does not matter to who starts afresh
    np.testing.assert_array_equal(
        emptied[[0, 2]], carry(controls(policy)["memory emptied"], jax.tree.map(jnp.negative, used))[[0, 2]]
    )
    assert "memory emptied" not in controls(Streams(Learner()))


@pytest.mark.parametrize("options", [{"last": 0}, {"last": 7}, {"k": -1}])
def test_summaries_refuse_what_there_is_not(options):
    with pytest.raises(ValueError, match="curve of 6 episodes"):
        summary(np.ones(6), **options)


def test_a_long_trial_is_summed_up_by_its_last_tenth():
    numbers = summary(np.arange(50.0))
    assert numbers["last_k"] == np.arange(45, 50).mean() and numbers["improvement"] == 47 and numbers["k_shot"] == 1
    assert (
        summary(np.array([3.0, 1.0, 2.0]), k=9)["k_shot"] == 2 and summary(np.array([3.0, 1.0, 2.0]))["drawdown"] == 2
    )
