"""PPO in trials: evaluated on tasks that were held out, by sampling, with returns per episode inside the trial."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_seq.envs import Tasks, TrialEnv, VecEnv, make
from jaxrl_seq.models import make_model
from jaxrl_seq.online import PPOHyper, make_ppo

LIMIT, ABOVE = 3, 1
"""The cell above the start, where the first action leads and stays."""


@pytest.fixture(scope="module")
def held_out():
    """(learner, state whose policy is uniform with ties broken towards "up"); the cell above is held out."""
    env, _ = make("darkroom", size=2, limit=LIMIT)
    splits = (Tasks(env).split(0.25, seed) for seed in range(100))
    train, test = next(pair for pair in splits if pair[1].members.tolist() == [ABOVE])
    learner = make_ppo(
        VecEnv(TrialEnv(env, train, episodes=2), 16),
        make_model("mlp", width=4),
        num_steps=2 * LIMIT,
        eval_env=TrialEnv(env, test, episodes=2),
    )
    state = learner.init(jax.random.key(0), PPOHyper())
    return learner, replace(state, params=jax.tree.map(jnp.zeros_like, state.params))


def judged(learner, state, **options):
    return jax.device_get(learner.evaluate(state, PPOHyper(), jax.random.key(1), episodes=2, **options))


def test_evaluation_plays_the_held_out_tasks(held_out):
    learner, state = held_out
    paid = judged(learner, state, greedy=True)
    assert (paid.returns == 2 * LIMIT).all() and (paid.lengths == 2 * LIMIT).all() and paid.finished.all()
    assert (paid.first_inner == LIMIT).all() and (paid.last_inner == LIMIT).all()
    assert (judged(replace(learner, eval_env=None), state, greedy=True).returns == 0).all()


def test_trials_are_sampled_unless_told(held_out):
    learner, state = held_out
    drawn = judged(learner, state)
    np.testing.assert_array_equal(drawn.returns, drawn.first_inner + drawn.last_inner)
    assert (drawn.first_inner != drawn.last_inner).any() and len(np.unique(drawn.returns)) > 2
    assert (judged(replace(learner, greedy=True), state).returns == 2 * LIMIT).all()
    assert (judged(learner, state, greedy=False).returns == drawn.returns).all()


def test_what_is_played_must_look_like_what_is_learnt(held_out):
    other, _ = make("darkroom", size=3, limit=LIMIT)
    with pytest.raises(ValueError, match="eval_env has spaces"):
        replace(held_out[0], eval_env=TrialEnv(other, episodes=2))
