"""Trials and tasks: what survives an episode's end, when a trial ends, and splits that share no task."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_seq.envs import Box, Discrete, TaskEnv, Tasks, TrialEnv, VecEnv, check_env, make, opening, transition

MOST = 4


@struct.dataclass
class CountdownState:
    task: Any
    t: Any


@dataclass(frozen=True)
class Countdown(TaskEnv[CountdownState, Any]):
    """Task n in 1 .. 4 lasts n steps and pays 10 n + its action a step; action 3 cuts it short by a truncation."""

    finite: bool = True

    name: ClassVar[str] = "countdown"
    time_limit: ClassVar[Any] = "truncate"
    fixed_length: ClassVar[bool] = False

    @property
    def horizon(self) -> int:
        return MOST

    def default_params(self):
        return ()

    def observation_space(self):
        return Box(0.0, 10.0, (1,))

    def action_space(self):
        return Discrete(4)

    def sample_task(self, key, params):
        return jax.random.randint(key, (), 1, MOST + 1)

    def tasks(self, params):
        return jnp.arange(1, MOST + 1)

    def has(self, capability: str) -> bool:
        return super().has(capability) and (self.finite or capability != "tasks")

    def reset_to(self, key, task, params):
        del key
        return CountdownState(task, jnp.int32(0)), opening(jnp.zeros(1), info={"lasts": task})

    def step(self, key, state, action, params):
        state = CountdownState(state.task, state.t + 1)
        obs = state.t.astype(jnp.float32)[None]
        paid = 10.0 * state.task + action
        return state, transition(obs, paid, state.t >= state.task, action == 3, info={"lasts": state.task})

    def expert(self, key, state, params):
        return jnp.int32(2)

    def optimal_return(self, task, params):
        return task * (10.0 * task + 2)


def roll(trial: TrialEnv, steps: int, num: int = 16, high: int = 3) -> dict[str, np.ndarray]:
    """`steps` steps of `num` trials under random actions below `high`, through VecEnv; [T, B, ...]."""
    vec, params = VecEnv(trial, num, "select"), trial.default_params()

    def one_step(state, key):
        act_key, key = jax.random.split(key)
        action = jax.random.randint(act_key, (num,), 0, high)
        after, outcome = vec.step(key, state, action, params)
        seen = dict(inputs=state.inputs, action=action, outcome=outcome, task=state.env.task, after=after.inputs)
        return after, seen

    @jax.jit
    def run(key):
        reset_key, key = jax.random.split(key)
        return jax.lax.scan(one_step, vec.reset(reset_key, params), jax.random.split(key, steps))[1]

    return jax.device_get(run(jax.random.key(0)))


@pytest.fixture(scope="module")
def played():
    """Three episodes a trial; of 3 .. 12 steps, so that 40 steps hold several trials."""
    return roll(TrialEnv(Countdown(), episodes=3), 40)


# --- trials -----------------------------------------------------------------------------------------------------------
def test_episodes_and_trials_end_where_they_should(played):
    """K episodes of the same task make a trial; its end is a termination, and an episode's end inside it nothing."""
    out, info = played["outcome"], played["outcome"].info
    inner, last = info["inner_done"], info["episode"] == 2
    np.testing.assert_array_equal(inner, info["inner_length"] == info["lasts"])
    np.testing.assert_array_equal(out.terminated, inner & last)
    assert out.terminated.any() and (inner & ~last).any() and not out.truncated.any()
    np.testing.assert_array_equal(out.episode_length[out.terminated], 3 * info["lasts"][out.terminated])
    np.testing.assert_array_equal(played["task"], info["lasts"])
    # within a trial the task stays; over all trials every task was drawn
    same = played["task"][1:] == played["task"][:-1]
    assert same[~out.terminated[:-1]].all() and set(np.unique(played["task"])) == {1, 2, 3, 4}


def test_memory_is_told_of_trials_only_and_the_policy_of_both(played):
    """`first` follows a trial's end, `first_inner` every episode's, and the first observation is of a new episode."""
    out, inputs, after = played["outcome"], played["inputs"], played["after"]
    ended, inner = out.terminated, out.info["inner_done"]
    assert inputs.first[0].all()
    np.testing.assert_array_equal(after.first, ended)
    np.testing.assert_array_equal(after.obs["first_inner"][..., 0], inner.astype(np.float32))
    np.testing.assert_array_equal(inputs.obs["first_inner"][0], 1)
    np.testing.assert_array_equal(after.obs["obs"][..., 0], np.where(inner, 0, out.info["inner_length"]))


def test_action_and_reward_outlive_an_episode_but_not_a_trial(played):
    out, after = played["outcome"], played["after"]
    np.testing.assert_array_equal(after.prev_action, np.where(out.terminated, 0, played["action"]))
    np.testing.assert_array_equal(after.prev_reward, np.where(out.terminated, 0, out.reward))
    inside = out.info["inner_done"] & ~out.terminated
    assert (after.prev_reward[inside] >= 10).all() and inside.any()
    assert not played["inputs"].prev_reward[0].any()


def test_info_is_of_the_episode_that_the_step_belonged_to(played):
    """Its number, its length and return so far, this step included, also where the next one has opened already."""
    out, info = played["outcome"], played["outcome"].info
    for b in range(out.reward.shape[1]):
        episode = length = 0
        paid = 0.0
        for t in range(out.reward.shape[0]):
            paid, length = paid + out.reward[t, b], length + 1
            got = info["episode"][t, b], info["inner_length"][t, b], info["inner_return"][t, b]
            assert got == (episode, length, paid), (t, b)
            if info["inner_done"][t, b]:
                episode, length, paid = episode + 1, 0, 0.0
            if out.terminated[t, b]:
                episode = 0


def test_a_truncated_episode_is_an_end_inside_a_trial_like_any_other():
    """The inner clock or a cut ends an episode; the trial still only terminates."""
    out = roll(TrialEnv(Countdown(), episodes=2), 30, high=4)["outcome"]
    cut = out.info["inner_done"] & (out.info["inner_length"] < out.info["lasts"])
    assert cut.any() and (cut & out.terminated).any() and not out.truncated.any()
    np.testing.assert_array_equal(out.terminated, out.info["inner_done"] & (out.info["episode"] == 1))


def test_trials_of_steps_end_with_them():
    """Seven steps, wherever the episode is; its length is then fixed."""
    trial = TrialEnv(Countdown(), steps=7)
    assert trial.fixed_length and trial.horizon == 7 and trial.max_episodes == 7
    out = roll(trial, 14)["outcome"]
    expected = np.zeros((14, 16), bool)
    expected[[6, 13]] = True
    np.testing.assert_array_equal(out.terminated, expected)
    assert (~out.info["inner_done"][6]).any() and not out.truncated.any()
    assert not trial.has("optimal_return") and not trial.has("reference")


def test_a_trial_has_the_numbers_of_its_episodes():
    inner, params = make("darkroom-small")
    trial = TrialEnv(inner, episodes=8)
    assert (trial.horizon, trial.max_episodes, trial.fixed_length) == (8 * inner.horizon, 8, True)
    assert TrialEnv(inner, steps=8 * inner.horizon).max_episodes == 8
    task = jax.tree.map(lambda x: x[3], trial.tasks(params))
    assert trial.optimal_return(task, params) == 8 * inner.optimal_return(task, params)
    assert trial.reference() == {name: 8 * value for name, value in inner.reference().items()}
    assert trial.time_limit == "terminal" and trial.name == inner.name
    train, _ = Tasks(inner).split(0.2)
    assert not TrialEnv(inner, train, episodes=8).has("reference")


@pytest.mark.slow
def test_trials_are_environments():
    inner, _ = make("darkroom,size=3,limit=5")
    report = check_env(TrialEnv(inner, episodes=2), episodes=256, raise_on_failure=False)
    assert not report.failed, str(report)


# --- tasks ------------------------------------------------------------------------------------------------------------
@given(
    size=st.integers(2, 6),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**31),
    where=st.sampled_from(["", "draws"]),
)
@settings(max_examples=60, deadline=None)
def test_a_split_is_disjoint_and_complete(size, share, seed, where):
    """No task on both sides, every task on one, in the wanted proportion; the same for the same seed."""
    env = make(f"darkroom,size={size}")[0] if not where else Countdown(finite=False)
    draws, count = (0, size**2) if not where else (size**2, size**2)
    held_out = round(share * count)
    if not 0 < held_out < count:
        with pytest.raises(ValueError, match="leaves none"):
            Tasks(env).split(share, seed, draws)
        return
    train, test = Tasks(env).split(share, seed, draws)
    assert set(train.members) & set(test.members) == set()
    assert sorted([*train.members, *test.members]) == list(range(count))
    assert len(test.members) == held_out
    again = Tasks(env).split(share, seed, draws)
    np.testing.assert_array_equal(again[1].members, test.members)


def test_samples_come_from_their_side_alone():
    """The goals of 200 trials are those of the side, all of them."""
    env, params = make("darkroom-small")
    for side in Tasks(env).split(0.3, seed=4):
        keys = jax.random.split(jax.random.key(1), 400)
        drawn = np.unique(jax.vmap(side.sample, in_axes=(0, None))(keys, params))
        np.testing.assert_array_equal(drawn, np.sort(side.enumerate(params)))


def test_draws_are_the_same_tasks_every_time():
    """A list of arms drawn once for all: each sample is one of them; another seed, another list."""
    env, params = make("bernoulli_bandit")
    tasks = Tasks(env, draws=8)
    listed = np.asarray(tasks.enumerate(params))
    assert listed.shape == (8, 5) and len(np.unique(listed, axis=0)) == 8
    drawn = np.asarray(jax.vmap(tasks.sample, in_axes=(0, None))(jax.random.split(jax.random.key(0), 200), params))
    np.testing.assert_array_equal(np.unique(drawn, axis=0), np.unique(listed, axis=0))
    assert not np.isin(np.asarray(replace(tasks, seed=1).enumerate(params)), listed).any()
    train, test = tasks.split(0.25)
    both = np.concatenate([train.enumerate(params), test.enumerate(params)])
    np.testing.assert_array_equal(np.unique(both, axis=0), np.unique(listed, axis=0))
    assert TrialEnv(env, tasks, episodes=1).has("tasks") and not TrialEnv(env, episodes=1).has("tasks")


# --- refusals ---------------------------------------------------------------------------------------------------------
ROOM = make("darkroom-small")[0]
BANDIT = make("bernoulli_bandit")[0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TrialEnv(ROOM), "give episodes or steps, one of them; got 0, 0"),
        (lambda: TrialEnv(ROOM, episodes=2, steps=24), "got 2, 24"),
        (lambda: TrialEnv(ROOM, episodes=-1), "got -1, 0"),
        (lambda: TrialEnv(ROOM, steps=30), "30 steps cut its episodes of 12 steps; use 24 or 36"),
        (lambda: TrialEnv(ROOM, steps=5), "use 12, or give episodes"),
        (lambda: TrialEnv(ROOM, Tasks(BANDIT), episodes=2), "cannot draw its tasks from"),
        (lambda: TrialEnv(make("minesweeper")[0], episodes=2), "minesweeper has no tasks"),
        (lambda: Tasks(ROOM, draws=3), r"draws \(3\) are for infinite families"),
        (lambda: Tasks(BANDIT, draws=-1), r"draws \(-1\)"),
        (lambda: Tasks(ROOM).split(0.0), "leaves none to test"),
        (lambda: Tasks(ROOM).split(1.0), "leaves none to train"),
        (lambda: Tasks(BANDIT).split(0.5), "infinitely many tasks"),
        (lambda: Tasks(BANDIT).count, "say how many to draw"),
        (lambda: Tasks(ROOM).split(0.5)[0].split(0.5), "this is the train side of a split already"),
    ],
)
def test_refusals_say_why(build, message):
    with pytest.raises(ValueError, match=message):
        build()
