"""Advantages and bootstrap values against the definition, written as slow loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxrl_seq.online.losses import approximate_kl, clipped_surrogate, clipped_value_loss
from jaxrl_seq.online.returns import generalized_advantage, next_values

T = 9
NUMBERS = hnp.arrays(np.float64, T, elements=st.floats(-5, 5, width=32))
FLAGS = hnp.arrays(np.bool_, T)
UNIT = st.floats(0, 1, width=32)
gae = jax.jit(generalized_advantage)


def by_definition(reward, value, next_value, terminated, truncated, gamma, lam):
    """The double sum of Schulman et al. 2016, eq. 16, cut where an episode ends."""
    advantage = np.zeros(T)
    for t in range(T):
        weight = 1.0
        for k in range(t, T):
            future = 0.0 if terminated[k] else next_value[k]
            advantage[t] += weight * (reward[k] + gamma * future - value[k])
            weight *= gamma * lam
            if terminated[k] or truncated[k]:
                break
    return advantage


@settings(max_examples=150, deadline=None)
@given(NUMBERS, NUMBERS, NUMBERS, FLAGS, FLAGS, UNIT, UNIT)
def test_advantages_are_their_definition(reward, value, next_value, terminated, truncated, gamma, lam):
    """Any mixture of terminations, truncations and both, any gamma and lambda."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        args = reward, value, next_value, terminated, truncated, np.float64(gamma), np.float64(lam)
        got = gae(*args)
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, by_definition(*args), rtol=1e-10, atol=1e-10)


@settings(max_examples=50, deadline=None)
@given(NUMBERS, FLAGS, NUMBERS, st.floats(-5, 5, width=32))
def test_next_values_are_looked_up_where_the_action_led(value, truncated, final_value, last_value):
    """V(t+1), except the final observation's at a cut and the rollout's last value at its end."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        got = next_values(jnp.asarray(value), jnp.asarray(truncated), final_value, jnp.float64(last_value))
    expected = [*value[1:], last_value]
    for t in range(T):
        if truncated[t]:
            expected[t] = final_value[t]
    np.testing.assert_array_equal(got, expected)


@pytest.fixture
def sequence():
    rng = np.random.default_rng(0)
    reward, value, last = rng.normal(size=(3, T)).astype(np.float32)
    no = np.zeros(T, bool)
    return reward, value, np.append(value[1:], last[0]).astype(np.float32), no


def test_lambda_one_without_ends_is_the_discounted_return(sequence, strict):
    """A + V = sum gamma^k r + gamma^n V(last): nothing of the values in between is left."""
    reward, value, following, no = sequence
    got = gae(reward, value, following, no, no, np.float32(0.9), np.float32(1.0)) + value
    for t in range(T):
        powers = 0.9 ** np.arange(T - t)
        expected = np.sum(powers * reward[t:]) + 0.9 ** (T - t) * following[-1]
        np.testing.assert_allclose(got[t], expected, rtol=1e-4, atol=1e-5)


def test_lambda_zero_is_the_temporal_difference(sequence, strict):
    """A = r + gamma V' - V, step by step."""
    reward, value, following, no = sequence
    got = gae(reward, value, following, no, no, np.float32(0.9), np.float32(0.0))
    np.testing.assert_allclose(got, reward + np.float32(0.9) * following - value, rtol=1e-5, atol=1e-6)


def test_a_termination_forgets_the_future_and_a_cut_values_it(sequence, strict):
    """At the end itself: r - V against r + gamma V(final) - V; earlier episodes never see later ones."""
    reward, value, following, no = sequence
    end = np.arange(T) == 4
    gamma, lam = np.float32(0.9), np.float32(0.8)
    terminal = gae(reward, value, following, end, no, gamma, lam)
    cut = gae(reward, value, following, no, end, gamma, lam)
    np.testing.assert_allclose(terminal[4], reward[4] - value[4], rtol=1e-5)
    np.testing.assert_allclose(cut[4] - terminal[4], gamma * following[4], rtol=1e-4)
    changed = gae(reward + 7 * (np.arange(T, dtype=np.float32) > 4), value, following, no, end, gamma, lam)
    np.testing.assert_array_equal(cut[:5], changed[:5])
    assert np.abs(cut[5:] - changed[5:]).min() > 1


# --- losses, per sample ----------------------------------------------------------------------------------------------
def test_clipped_surrogate_by_hand(strict):
    """Four corners at clip 0.2: gains are capped, losses are not."""
    ratio = np.array([1.5, 1.5, 0.5, 0.5, 1.1], np.float32)
    advantage = np.array([2.0, -2.0, 2.0, -2.0, 3.0], np.float32)
    got = clipped_surrogate(ratio, advantage, np.float32(0.2))  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(got, [-2.4, 3.0, -1.0, 1.6, -3.3], rtol=1e-6)


def test_the_surrogate_pays_for_nothing_beyond_the_clip(strict):
    """Its gradient in the ratio is -A inside, and 0 where the policy already moved too far to its own gain."""
    slope = jax.vmap(jax.grad(clipped_surrogate), in_axes=(0, 0, None))
    ratio = np.array([1.0, 1.5, 1.5, 0.5, 0.5], np.float32)
    advantage = np.array([2.0, 2.0, -2.0, 2.0, -2.0], np.float32)
    np.testing.assert_allclose(slope(ratio, advantage, 0.2), [-2.0, 0.0, 2.0, -2.0, 0.0])


def test_clipped_value_loss_by_hand(strict):
    """Half the larger of both squared errors; clip 0 is plain half squared error."""
    value = np.array([3.0, 3.0, 1.2], np.float32)
    old, target = np.ones(3, np.float32), np.array([3.0, 0.0, 2.0], np.float32)
    got = clipped_value_loss(value, old, target, np.float32(0.5))  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(got, [0.5 * 1.5**2, 0.5 * 9, 0.5 * 0.8**2], rtol=1e-5)
    plain = clipped_value_loss(value, old, target, np.float32(0.0))  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(plain, [0.0, 4.5, 0.32], rtol=1e-5)
    slope = jax.vmap(jax.grad(clipped_value_loss), in_axes=(0, 0, 0, None))(value, old, target, 0.0)
    np.testing.assert_allclose(slope, value - target, rtol=1e-6)


def test_approximate_kl_is_unbiased_and_never_negative(strict):
    """Its mean under the old policy is KL(old || new), of three categories by hand."""
    old, new = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])
    log_ratio = np.log(new / old).astype(np.float32)
    terms = np.asarray(approximate_kl(log_ratio))  # pyright: ignore[reportArgumentType]
    assert np.all(terms >= 0) and terms[2] == 0
    np.testing.assert_allclose(np.sum(old * terms), np.sum(old * np.log(old / new)), rtol=1e-4)
