"""Histories of PPO learners: every stream learns its own task, and what it ends with can label it."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_seq.envs import TrialEnv, make
from jaxrl_seq.incontext import PPOSource, relabel
from jaxrl_seq.models import make_model
from jaxrl_seq.online import PPOHyper
from jaxrl_seq.run.histories import Source, collect

pytestmark = pytest.mark.slow
UPDATES, EVERY, STEPS, CELLS = 24, 4, 5, 9


@pytest.fixture(scope="module")
def taught():
    env, params = make("darkroom", size=3, limit=STEPS)
    source = PPOSource(TrialEnv(env, episodes=1), make_model("mlp", width=16), num_envs=8)
    tasks = source.trial.tasks(params)
    hyper = PPOHyper(lr=1e-2, gamma=0.9, entropy_coef=0.01)

    def make_them(key):
        return source.histories(tasks, key, hyper, updates=UPDATES, every=EVERY, label=True)

    history, weights = jax.jit(make_them)(jax.random.key(0))
    return source, history, weights


def test_a_stream_is_one_learner_on_its_task(taught):
    _, history, _ = taught
    episodes = UPDATES // EVERY
    assert history.reward.shape == (episodes * STEPS, CELLS)
    np.testing.assert_array_equal(history.task, np.arange(CELLS))
    np.testing.assert_array_equal(history.episode[:, 3], np.repeat(np.arange(episodes), STEPS))
    np.testing.assert_array_equal(history.first[:, 0], np.arange(episodes * STEPS) % STEPS == 0)
    assert history.valid.all()
    # rewards are those of the stream's own goal: the cell that the next row is in, but for the last of an episode
    cell = np.asarray(history.obs)[..., 0] * 3 + np.asarray(history.obs)[..., 1]
    inside = ~np.asarray(history.done)[:-1]
    np.testing.assert_array_equal((cell[1:] == np.arange(CELLS))[inside], np.asarray(history.reward)[:-1][inside])


def test_it_learns(taught):
    _, history, _ = taught
    paid = np.asarray(history.reward).reshape(-1, STEPS, CELLS).sum(1)
    best = np.array([min(STEPS, STEPS + 1 - max(abs(g // 3 - 1) + abs(g % 3 - 1), 1)) for g in range(CELLS)])
    assert paid[0].mean() < 0.4 * best.mean() and paid[-1].mean() > 0.8 * best.mean()


def test_the_final_policy_labels_what_it_would_do(taught):
    source, history, weights = taught
    labelled = relabel(history, source.agent, weights)
    assert labelled.optimal is not None and history.optimal is not None
    assert (labelled.optimal.sum(-1) == 1).all()
    good = (labelled.optimal & history.optimal).any(-1)
    late = np.asarray(good)[-STEPS:].mean()
    assert late > 0.8
    # of another stream's learner, the labels are for another goal
    wrong = relabel(history, source.agent, jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), weights))
    assert wrong.optimal is not None
    assert np.asarray((wrong.optimal & history.optimal).any(-1))[-STEPS:].mean() < late - 0.2


def test_collect_takes_it_by_name():
    env, params = make("darkroom", size=2, limit=2)
    trial = TrialEnv(env, episodes=1)
    source = Source("ppo,num_envs=4,width=8,lr=1e-2", source_episodes=4, every=2, streams=2)
    history = collect(source, trial, params, label=True)
    assert history.reward.shape == (4, 8) and history.optimal is not None
    with pytest.raises(ValueError, match="option of ppo"):
        collect(replace(source, source="ppo,learning_rate=1"), trial, params)
    with pytest.raises(ValueError, match="4 updates cannot be shown every 3"):
        collect(replace(source, every=3), trial, params)
    paths, _ = make("mystery_path")
    with pytest.raises(ValueError, match="differ in length"):
        PPOSource(TrialEnv(paths, episodes=1), make_model("mlp", width=8))
