"""The gamble against arithmetic: what it pays, and Bayes' rule on a return."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_seq.envs.bandits.gamble import Gamble


def test_gamble_pays_as_declared():
    env = Gamble()
    keys = jax.random.split(jax.random.key(0), 4000)
    state, opened = env.reset(keys[0], env.default_params())
    assert opened.obs.tolist() == [1.0]
    step = jax.jit(jax.vmap(env.step, in_axes=(0, None, None, None)))
    for arm, (win, loss) in enumerate(((5, -15), (1, -6), (1, 1))):
        _, timestep = step(keys, state, jnp.int32(arm), env.default_params())
        assert set(timestep.reward.tolist()) == {win, loss}
        if win != loss:
            assert float((timestep.reward == win).mean()) == pytest.approx(0.5, abs=0.04)
        assert bool(timestep.terminated.all()) and not timestep.obs.any()
        assert set(timestep.info["mean"].tolist()) == {(win + loss) / 2}


def test_gamble_expert_follows_the_parameters():
    env, params = Gamble(), Gamble().default_params()
    state, _ = env.reset(jax.random.key(0), params)
    assert int(env.expert(jax.random.key(0), state, params)) == 2
    lucky = replace(params, chance=jnp.array([0.9, 0.5, 0.5], jnp.float32))
    assert int(env.expert(jax.random.key(0), state, lucky)) == 0


def test_gamble_conditioned_on_a_return_is_bayes():
    env = Gamble()
    policy, value = env.conditioned(1.0)
    np.testing.assert_allclose(policy, [0, 1 / 3, 2 / 3])
    assert value == pytest.approx(-1 / 6)
    assert env.conditioned(5.0)[1] == -5.0 and env.conditioned(-6.0)[1] == -2.5
    assert env.conditioned(1.0, (0.0, 0.8, 0.2))[0].tolist() == pytest.approx([0, 2 / 3, 1 / 3])
    assert env.reference()["random"] == pytest.approx(float(Fraction(-13, 6)))
    with pytest.raises(ValueError, match="gamble"):
        env.conditioned(2.0)
    with pytest.raises(ValueError, match="gamble"):
        env.conditioned(5.0, (0.0, 0.5, 0.5))
    # The same from data: of many uniform pulls, those that paid 1.
    keys, arms = jax.random.split(jax.random.key(1), 6000), jnp.arange(6000, dtype=jnp.int32) % 3
    state, _ = env.reset(keys[0], env.default_params())
    rewards = jax.vmap(env.step, in_axes=(0, None, 0, None))(keys, state, arms, env.default_params())[1].reward
    shares = np.bincount(np.asarray(arms)[np.asarray(rewards) == 1.0], minlength=3)
    np.testing.assert_allclose(shares / shares.sum(), policy, atol=0.04)
