"""Evaluation: exact numbers of episodes, the probe's own returns, greedy and sampled play, and pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lab import quick
from probes import Ledger, Torque

from jaxrl_seq.envs import VecEnv
from jaxrl_seq.models import make_model
from jaxrl_seq.online import Episodes, evaluate, make_ppo, record

B, E = 32, 4


@pytest.fixture(scope="module")
def agent_and_params(random_params):
    learner = make_ppo(VecEnv(Ledger(), B, "select"), make_model("gru", width=8), num_steps=4)
    return learner.agent, random_params(learner.agent, Ledger())


@pytest.fixture(scope="module")
def judge_once(agent_and_params):
    """`judge_once(params, key, greedy, max_steps)`: an evaluation on the ledger."""
    agent, _ = agent_and_params

    def run(params, key, greedy=True, max_steps=None):
        env, env_params = VecEnv(Ledger(), B, "select"), Ledger().default_params()
        return evaluate(env, agent, params, key, env_params, episodes=E, greedy=greedy, max_steps=max_steps)

    return run


@pytest.fixture(scope="module")
def judge(judge_once):
    """The same, compiled."""
    return quick(judge_once, static_argnames=("greedy", "max_steps"))


def with_head(params, scale):
    """The same network with its preferences scaled and without bias: 0 has none, a large number is certain."""
    head = {"kernel": scale * params["params"]["policy_head"]["kernel"], "bias": jnp.zeros(2)}
    return {"params": params["params"] | {"policy_head": head}}


def digits(episodes):
    """How often action 1 was taken in each episode: what is left of the ledger's return."""
    length = np.asarray(episodes.lengths)
    rest = episodes.returns - length * (length - 2) - 0.1 * length * (length - 1) / 2
    return np.asarray(100 * rest)


def test_every_environment_plays_the_same_number_of_episodes(agent_and_params, judge):
    """All E of each, with the ledger's lengths, returns and successes; short ones are not favoured."""
    _, params = agent_and_params
    got = judge(params, jax.random.key(0))
    assert got.returns.shape == got.lengths.shape == got.success.shape == got.finished.shape == (B, E)
    assert np.all(got.finished)
    lengths = np.asarray(got.lengths)
    assert set(np.unique(lengths)) == {2, 3, 4, 5, 6}
    assert np.all((digits(got) > -0.01) & (digits(got) < lengths + 0.01))
    np.testing.assert_allclose(digits(got), np.round(digits(got)), atol=1e-2)
    np.testing.assert_array_equal(got.success, lengths == 2)
    # uniform over 2 .. 6: mean 4, standard error 0.125; the first 128 to finish would average below 3.5
    assert abs(lengths.mean() - 4) < 0.4
    means = got.means()
    np.testing.assert_allclose(means["return_mean"], np.mean(got.returns), rtol=1e-5)
    np.testing.assert_allclose(means["length_mean"], lengths.mean(), rtol=1e-5)
    np.testing.assert_allclose(means["success"], np.mean(lengths == 2), rtol=1e-5)
    assert means["unfinished"] == 0


def test_a_step_limit_leaves_the_rest_unfinished(agent_and_params, judge):
    """What ended within the limit is as without it; the rest is zero, and out of every mean."""
    _, params = agent_and_params
    full, cut = judge(params, jax.random.key(0)), judge(params, jax.random.key(0), max_steps=9)
    finished = np.cumsum(full.lengths, axis=1) <= 9
    assert 0.2 < finished.mean() < 0.8
    np.testing.assert_array_equal(cut.finished, finished)
    for field in ("returns", "lengths", "success"):
        np.testing.assert_array_equal(getattr(cut, field), np.where(finished, getattr(full, field), 0))
    means = cut.means()
    np.testing.assert_allclose(means["unfinished"], 1 - finished.mean(), rtol=1e-5)
    np.testing.assert_allclose(means["return_mean"], np.asarray(full.returns)[finished].mean(), rtol=1e-5)
    np.testing.assert_allclose(means["success"], np.asarray(full.success)[finished].mean(), rtol=1e-5)


def test_nothing_finished_is_not_a_division_by_zero():
    """All means are 0 and everything is unfinished."""
    none = jnp.zeros((B, E))
    means = Episodes(returns=none, lengths=none, success=none, finished=none > 0).means()
    expected = {"return_mean": 0, "length_mean": 0, "success": 0, "unfinished": 1}
    assert {name: float(value) for name, value in means.items()} == expected


def test_greedy_takes_the_mode_and_sampling_does_not(agent_and_params, judge):
    """A policy without preferences: the mode is action 0 for ever, samples are even. A certain one: no difference."""
    _, params = agent_and_params
    even = with_head(params, 0.0)
    assert np.all(np.abs(digits(judge(even, jax.random.key(0)))) < 0.01)
    sampled = judge(even, jax.random.key(0), greedy=False)
    share = digits(sampled).sum() / np.sum(sampled.lengths)
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(np.sum(sampled.lengths))

    taken = []
    for certain in (with_head(params, 1e6), with_head(params, -1e6)):
        greedy, drawn = (judge(certain, jax.random.key(0), greedy=g) for g in (True, False))
        jax.tree.map(np.testing.assert_array_equal, greedy, drawn)
        taken.append(digits(greedy))
    assert np.abs(taken[0] - taken[1]).max() > 0.9  # the opposite network opens with the opposite action


def test_keys_decide_what_is_played(agent_and_params, judge):
    """The same key, the same episodes; another key, others."""
    _, params = agent_and_params
    one, same, other = (judge(params, jax.random.key(k)) for k in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert np.any(one.lengths != other.lengths)


def test_evaluation_can_be_vmapped_over_parameters_and_keys(agent_and_params, judge, judge_once):
    """Lanes end at different times; each gets what it would get alone."""
    _, params = agent_and_params
    several = [params, with_head(params, -1.0), with_head(params, 0.0)]
    keys = jax.random.split(jax.random.key(3), 3)
    many = quick(jax.vmap(judge_once))(jax.tree.map(lambda *x: jnp.stack(x), *several), keys)
    for i, one in enumerate(several):
        alone = judge(one, keys[i])
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-5), many, alone)


def test_success_is_absent_where_the_environment_does_not_report_it(random_params):
    """None in the table and no entry in the means, not a zero. Fixed-length episodes need no slack steps."""
    learner = make_ppo(VecEnv(Torque(), 4), make_model("mlp", width=8, layers=1))
    params, env_params = random_params(learner.agent, Torque()), Torque().default_params()
    got = quick(lambda p: evaluate(learner.env, learner.agent, p, jax.random.key(0), env_params, episodes=3))(params)
    assert got.success is None and "success" not in got.means()
    assert np.all(got.lengths == 4) and np.all(got.finished)


def test_a_recording_is_of_the_first_episode(agent_and_params):
    """Pictures of its states, [T+1, B, height, width, 3], and how many steps belong to the episode."""
    agent, params = agent_and_params
    env, env_params = VecEnv(Ledger(), 16, "select"), Ledger().default_params()
    draw = jax.vmap(jax.vmap(env.env.render, in_axes=(0, None)), in_axes=(0, None))

    def pictures(params, steps):
        recording = record(env, agent, params, jax.random.key(0), env_params, max_steps=steps)
        return draw(recording.states, env_params), recording.lengths

    play = quick(pictures, static_argnums=1)
    frames, count = play(params, 200)
    assert frames.shape == (7, 16, 2, 2, 3) and frames.dtype == jnp.uint8 and count.dtype == jnp.int32
    secret = np.asarray(frames[0, :, 0, 0, 0])
    np.testing.assert_array_equal(count, secret + 2)
    for b in range(16):
        for t in range(int(count[b]) + 1):
            np.testing.assert_array_equal(frames[t, b], np.broadcast_to([secret[b], t, 0], (2, 2, 3)))
    frames, count = play(params, 3)
    assert frames.shape[0] == 4
    np.testing.assert_array_equal(count, np.minimum(secret + 2, 3))
