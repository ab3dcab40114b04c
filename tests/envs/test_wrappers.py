"""Pictures drawn late are the pictures drawn early; projections keep the game that they hide."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from env_rollouts import assert_same

from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.envs import Box, PixelObs, RandomProjection, VecEnv, check_env, make
from jaxrl_seq.envs.control.cartpole import CartPole
from jaxrl_seq.envs.control.pendulum import Pendulum
from jaxrl_seq.envs.core.wrappers import Picture, Undrawn
from jaxrl_seq.envs.memory.associative_recall import AssociativeRecall
from jaxrl_seq.envs.memory.tmaze import TMaze
from jaxrl_seq.models import make_model
from jaxrl_seq.online import make_ppo

CHECKS = ["structure", "flags", "spaces", "hashing", "x64", "host_calls", "key_reuse", "vmap", "observations", "ends"]


@pytest.mark.parametrize("lazy", [True, False])
def test_pictures_are_the_environments_own(lazy: bool):
    env, params = make(f"pixels:tmaze,length=5,lazy={lazy}")
    assert isinstance(env, PixelObs) and env.env == TMaze(length=5) and env.horizon == 6 and env.name == "tmaze"
    check_env(env, params, checks=CHECKS, episodes=16)
    state, timestep = env.reset(jax.random.key(0), params)
    for key in jax.random.split(jax.random.key(1), 3):
        state, timestep = env.step(key, state, jnp.int32(0), params)
    obs = Picture(env.env).draw(timestep.obs) if lazy else timestep.obs
    assert obs.dtype == jnp.uint8
    np.testing.assert_array_equal(obs, env.render(state, params))


@pytest.mark.slow
def test_an_update_from_late_pictures_is_the_update_from_early_ones():
    """And a rollout stores a few bytes an observation instead of the picture's."""
    updated, sizes = {}, {}
    for lazy in (True, False):
        env = PixelObs(TMaze(length=5), lazy=lazy)
        learner = make_ppo(VecEnv(env, 4), make_model("gru", width=8, layers=1), num_steps=12, epochs=1, minibatches=2)
        hyper = learner.default_hyper()
        state = jax.jit(learner.init)(jax.random.key(0), hyper)
        updated[lazy] = jax.jit(learner.update)(state, hyper)[0].params
        obs = jax.eval_shape(env.reset, jax.random.key(0), env.default_params())[1].obs
        sizes[lazy] = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(obs))
    assert_same(updated[True], updated[False], atol=1e-6, rtol=1e-5)
    assert sizes == {True: 21, False: 40 * 160 * 3}


def test_a_picture_knows_its_own():
    space = Picture(TMaze(length=5))
    assert space.drawn == Box(0, 255, (40, 160, 3), np.uint8) and space.flat_dim == 19200
    member = space.sample(jax.random.key(0))
    assert space.contains(member) and not space.contains(member.state)
    assert not space.contains(Undrawn(member.state.replace(t=jnp.float32(0)), member.params))
    assert hash(space) == hash(Picture(TMaze(length=5))) and space == Picture(TMaze(length=5))
    assert ActorCritic.for_env(PixelObs(TMaze(length=5)), make_model("mlp")).observation_space == space


DISCRETE = RandomProjection((CartPole(), AssociativeRecall()), width=12)
CONTINUOUS = RandomProjection((Pendulum(),), width=5)


@pytest.mark.slow
@pytest.mark.parametrize("env", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_a_projection_is_an_environment(env: RandomProjection):
    check_env(env, checks=[*CHECKS, "tasks", "parameters", "after_end"], episodes=32)


def test_a_projection_hides_the_same_game():
    """Unmapped, observations and actions are the member's own, step by step."""
    params = DISCRETE.default_params()
    key = jax.random.key(3)
    seen = set()
    for number in range(4):
        task = DISCRETE.sample_task(jax.random.fold_in(key, number), params)
        which = int(task.which)
        member, member_params = DISCRETE.envs[which], params[which]
        seen.add(which)
        reset_keys = jax.random.split(jax.random.key(4), 2)
        state, timestep = DISCRETE.reset_to(jax.random.key(4), task, params)
        inner, alone = member.reset(reset_keys[which], member_params)
        for step in range(3):
            padded = np.zeros(task.observe.shape[1])
            padded[: alone.obs.size] = np.asarray(alone.obs).ravel()
            np.testing.assert_allclose(timestep.obs, task.observe @ padded, atol=1e-5)
            step_key, action = jax.random.key(10 + step), jnp.int32(step)
            state, timestep = DISCRETE.step(step_key, state, action, params)
            mapped = task.act[action] % member.action_space().n  # pyright: ignore[reportAttributeAccessIssue]
            inner, alone = member.step(jax.random.split(step_key, 2)[which], inner, mapped, member_params)
            assert float(timestep.reward) == float(alone.reward) and bool(timestep.done) == bool(alone.done)
    assert seen == {0, 1}


def test_a_rotation_keeps_the_length_of_actions():
    tasks = [CONTINUOUS.sample_task(key, CONTINUOUS.default_params()) for key in jax.random.split(jax.random.key(0), 4)]
    for task in tasks:
        np.testing.assert_allclose(task.act @ task.act.T, np.eye(1), atol=1e-6)
    observe = np.stack([task.observe for task in tasks])
    assert observe.std() == pytest.approx(1 / math.sqrt(3), rel=0.3)


def test_bad_sets_are_refused_in_words():
    with pytest.raises(ValueError, match="at least 1"):
        RandomProjection(())
    with pytest.raises(ValueError, match="all discrete or all boxes"):
        RandomProjection((CartPole(), Pendulum()))
    with pytest.raises(ValueError, match="not a Box"):
        RandomProjection((PixelObs(TMaze()),))
    with pytest.raises(ValueError, match="no render"):
        make("pixels:gymnax:CartPole-v1")
