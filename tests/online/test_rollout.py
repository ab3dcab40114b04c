"""What is written into a trajectory, and that acting and training agree about it for every model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lab import B, T, one_rollout, open_all, play, quick, run
from probes import Ledger, LedgerTerminal, Masked, Torque

from jaxrl_seq.envs import VecEnv
from jaxrl_seq.models import make_model
from jaxrl_seq.online import PPOHyper, make_ppo
from jaxrl_seq.online.ppo import _with_advantages


def joined(played):
    """Both rollouts of `played` as one of 2T steps, as NumPy arrays (carry left out)."""
    parts = [t.replace(carry=(), last_value=()) for t in played.trajectories]
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def once(env, random_params, num_envs):
    """(trajectory, sums) of one rollout of a small memoryless agent."""
    learner = make_ppo(VecEnv(env, num_envs), make_model("mlp", width=8, layers=1), num_steps=T)
    params = random_params(learner.agent, env)
    start = open_all(learner, jax.random.key(3))
    return jax.tree.map(np.asarray, run(learner, params, start, jax.random.key(4))[1])


# --- alignment -------------------------------------------------------------------------------------------------------
def test_every_row_belongs_together(played):
    """Row t holds what was seen, what was then done, and what that brought: the ledger shows each of them."""
    t = joined(played)
    secret, clock = t.inputs.obs[..., 0], t.inputs.obs[..., 1]
    np.testing.assert_allclose(t.reward, secret + clock / 10 + t.action / 100, atol=1e-6)
    np.testing.assert_array_equal(t.inputs.first, clock == 0)
    over = clock + 1 == secret + 2
    np.testing.assert_array_equal(t.terminated, over & (secret % 2 == 0))
    np.testing.assert_array_equal(t.truncated, over & (secret % 2 == 1))
    assert t.terminated.sum() > 5 and t.truncated.sum() > 5

    # and the next row starts where this one led, through the seam of two rollouts too
    done = (t.terminated | t.truncated)[:-1]
    np.testing.assert_array_equal(t.inputs.first[1:], done)
    np.testing.assert_array_equal(t.inputs.prev_action[1:], np.where(done, 0, t.action[:-1]))
    np.testing.assert_array_equal(t.inputs.prev_reward[1:], np.where(done, 0, t.reward[:-1]))
    np.testing.assert_array_equal(clock[1:], np.where(done, 0, clock[:-1] + 1))
    np.testing.assert_array_equal(secret[1:][~done], secret[:-1][~done])
    assert np.all(t.inputs.first[0]) and np.all(t.inputs.prev_action[0] == 0)


def test_sums_over_episodes_are_recounted(played):
    """Episodes, returns, lengths and successes of all that ended, those that span two rollouts included."""
    t = joined(played)
    count, returns, lengths, success = 0, 0.0, 0, 0
    for b in range(B):
        total, length = 0.0, 0
        for step in range(2 * T):
            total, length = total + t.reward[step, b], length + 1
            if t.terminated[step, b] or t.truncated[step, b]:
                count, returns, lengths = count + 1, returns + total, lengths + length
                success += t.inputs.obs[step, b, 0] == 0
                total, length = 0.0, 0
    got = jax.tree.map(lambda a, b: float(a + b), *played.sums)
    assert (got["episodes"], got["length_sum"], got["success_sum"]) == (count, lengths, success)
    np.testing.assert_allclose(got["return_sum"], returns, rtol=1e-5)
    assert got["overflow"] == 0


def test_fresh_episodes_are_drawn_anew(played):
    """All five secrets turn up, and not in the same order everywhere."""
    secret = joined(played).inputs.obs[..., 0]
    assert len(np.unique(secret)) == 5
    assert len(np.unique(secret, axis=1).T) == B


# --- memory ----------------------------------------------------------------------------------------------------------
def test_the_first_ratio_is_one(played):
    """The law of PPO with memory: training sees each action as likely as acting did, resets inside, for every model.

    Whatever shifts a reset, drops the carry or mixes up environments breaks it. The policy is lively, so it can.
    """
    ratio, replay = played.replay["ratio"], played.replay
    assert np.sum(np.asarray(played.trajectory.inputs.first)) > 10
    assert replay["entropy"] < 0.95 * np.log(2) and np.std(played.trajectory.log_prob) > 0.1
    np.testing.assert_allclose(ratio, 1.0, atol=1e-4)
    assert replay["ratio_error"] < 1e-4
    np.testing.assert_allclose(replay["ratio_error"], np.abs(ratio - 1).max(), atol=2e-6)


def test_the_ratio_notices_a_lost_carry_and_a_lost_reset(played):
    """The control of the test above: either mistake moves the ratio by far more than its bar."""
    if not played.learner.agent.model.has_memory:
        pytest.skip("a model without memory has nothing to lose")
    agent, t = played.learner.agent, played.trajectory

    @quick
    def ratio(carry, reset):
        _, decision = agent.apply(played.params, carry, t.inputs, reset)
        return jnp.exp(agent.policy(decision, t.inputs).log_prob(t.action) - t.log_prob)

    first = t.inputs.first
    assert np.abs(ratio(agent.initialize_carry((B,)), first) - 1).max() > 1e-3
    assert np.abs(ratio(t.carry, jnp.zeros_like(first)) - 1).max() > 1e-3
    assert np.abs(ratio(t.carry, jnp.roll(first, 1, axis=0)) - 1).max() > 1e-3


def test_values_are_those_of_a_replay_by_hand(played):
    """V of each step, of the final observation with the memory before the reset, and of the step after the last."""
    t, replay = jax.tree.map(np.asarray, played.trajectory), played.replay
    np.testing.assert_allclose(t.value, replay["value"], atol=1e-5)
    np.testing.assert_allclose(t.log_prob, replay["log_prob"], atol=1e-5)
    np.testing.assert_allclose(t.last_value, replay["last"], atol=1e-5)
    np.testing.assert_allclose(t.final_value, np.where(t.truncated, replay["beyond"], 0.0), atol=1e-5)
    assert t.truncated.sum() > 3 and np.abs(t.final_value[t.truncated]).min() > 1e-4


@pytest.fixture(scope="module")
def gru(small_model, random_params):
    learner = make_ppo(VecEnv(Ledger(), B, "select"), small_model("gru"), num_steps=T)
    return play(learner, random_params(learner.agent, Ledger()))


def test_lanes_that_are_cut_at_other_times_bootstrap_alike(gru):
    """Under vmap all lanes vote on the extra pass; each gets the final values it has alone."""
    keys = jax.random.split(jax.random.key(5), 2)
    batched = quick(jax.vmap(functools.partial(one_rollout, gru.learner), in_axes=(None, None, 0)))
    many = batched(gru.params, gru.start, keys)[1][0]
    for i, key in enumerate(keys):
        one = run(gru.learner, gru.params, gru.start, key)[1][0]
        np.testing.assert_array_equal(many.truncated[i], one.truncated)
        np.testing.assert_allclose(many.final_value[i], one.final_value, atol=1e-5)
    cut: np.ndarray = np.any(many.truncated, axis=-1)
    assert np.sum(cut[0] != cut[1]) >= 1
    assert np.all(np.abs(many.final_value)[np.asarray(many.truncated)] > 0)


def test_a_cut_and_a_termination_have_different_targets(gru, small_model):
    """Same steps, same rewards: the target of the last step is r + gamma V(final) for a cut, r for a termination."""
    twin = make_ppo(VecEnv(LedgerTerminal(), B, "select"), small_model("gru"), num_steps=T)
    start = open_all(twin, jax.random.key(0))
    other = run(twin, gru.params, start, jax.random.key(1))[1][0]
    hyper = PPOHyper(gamma=0.9, gae_lambda=0.0)
    cut, ended = (quick(_with_advantages)(t, hyper) for t in (gru.trajectories[0], other))
    t = cut.trajectory
    for field in ("action", "reward", "value", "inputs"):
        jax.tree.map(np.testing.assert_array_equal, getattr(t, field), getattr(ended.trajectory, field))
    assert not np.any(ended.trajectory.truncated) and np.all(ended.trajectory.final_value == 0)
    at: np.ndarray = np.asarray(t.truncated)
    np.testing.assert_array_equal(ended.trajectory.terminated, at | t.terminated)
    np.testing.assert_allclose(ended.target[at], t.reward[at], atol=1e-6)
    np.testing.assert_allclose(cut.target[at], (t.reward + 0.9 * t.final_value)[at], atol=1e-6)
    np.testing.assert_allclose(cut.target[~at], ended.target[~at], atol=1e-6)


# --- what reaches the environment ------------------------------------------------------------------------------------
def test_masks_are_respected(random_params):
    """No illegal action in a rollout, the mask is kept for the epochs, and every legal one is tried."""
    trajectory, sums = once(Masked(), random_params, 32)
    assert sums["episodes"] > 50 and sums["return_sum"] == 0
    assert trajectory.inputs.action_mask.shape == (T, 32, 5)
    legal = np.take_along_axis(trajectory.inputs.action_mask, trajectory.action[..., None], -1)
    assert legal.all()
    assert len(np.unique(trajectory.action)) == 5
    assert np.all(np.isfinite(trajectory.log_prob))


def test_box_actions_are_stored_as_made_and_sent_clipped(random_params):
    """The environment gets its own units, the trajectory keeps the policy's, and the memory sees what was done."""
    trajectory, _ = once(Torque(), random_params, 32)
    assert np.abs(trajectory.action).max() > 1
    sent = np.clip([1.0, 2.0] + 2.0 * trajectory.action, [-1.0, 0.0], [3.0, 4.0])
    np.testing.assert_allclose(trajectory.reward, np.abs(sent - [1.0, 2.0]).max(-1), atol=1e-6)
    running = ~trajectory.inputs.first[1:]
    np.testing.assert_allclose(trajectory.inputs.prev_action[1:][running], sent[:-1][running], atol=1e-6)
