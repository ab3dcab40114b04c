"""Exports to gymnax: its step, its wrappers, loops written for it, and the way back."""

from __future__ import annotations

import copy
from typing import Any

import gymnax.wrappers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapter_probe import Probe
from env_rollouts import assert_same
from gymnax.environments import environment, spaces

from jaxrl_seq.envs import Box, Discrete, MultiDiscrete, Tree, make
from jaxrl_seq.envs.adapters.gymnax import from_gymnax
from jaxrl_seq.envs.adapters.to_gymnax import gymnax_space, to_gymnax


def test_an_episode_is_that_of_the_raw_functions_and_then_the_next_begins():
    """gymnax's step splits its key into one for the step and one for the reset."""
    source = Probe()
    env, params = to_gymnax(source, source.default_params().replace(scale=jnp.float32(2.0)))
    assert isinstance(env, environment.Environment) and env.name == "probe" and env.num_actions == 3
    key = jax.random.key(0)
    obs, state = env.reset(key, params)
    raw, opened = source.reset(key, params.inner)
    assert_same(obs, opened.obs, atol=1e-6)
    for t in range(1, 5):
        step_key, reset_key = jax.random.split(jax.random.fold_in(key, t))
        obs, state, reward, terminated, truncated, info = env.step(jax.random.fold_in(key, t), state, 2, params)
        raw, timestep = source.step(step_key, raw, jnp.int32(2), params.inner)
        assert_same(info["final_observation"], timestep.obs, atol=1e-6)
        assert float(reward) == 2.0 * t and (bool(terminated), bool(truncated)) == (False, t == 4)
        assert float(info["discount"]) == 1.0 and int(info["count"]) == t
        assert info["action_mask"].shape == (3,) and info["cost"].shape == (1,)
    assert_same(obs, source.reset(reset_key, params.inner)[1].obs, atol=1e-6)
    assert int(state.time) == 0 and not bool(state.truncated)
    *_, terminated, truncated, info = env.step(key, state, 1, params)
    assert bool(terminated) and not bool(truncated) and float(info["discount"]) == 0.0


def test_their_time_limit_cuts_and_default_params_work():
    env, params = to_gymnax(Probe())
    assert params.max_steps_in_episode == 4 and env.default_params.max_steps_in_episode == 4
    state = env.reset(jax.random.key(0))[1]
    short = params.replace(max_steps_in_episode=2)
    ends = []
    for t in range(2):
        _, state, _, terminated, truncated, _ = env.step(jax.random.key(t), state, 0, short)
        ends.append((bool(terminated), bool(truncated)))
    assert ends == [(False, False), (False, True)]
    # An episode that terminates at its horizon is not cut there as well.
    env, params = to_gymnax(*make("tmaze,length=2"))
    state = env.reset(jax.random.key(0), params)[1]
    for t in range(3):
        _, state, _, terminated, truncated, _ = env.step(jax.random.key(t), state, 0, params)
    assert bool(terminated) and not bool(truncated)


def test_equal_exports_share_a_compilation():
    env, params = to_gymnax(Probe())
    again, _ = to_gymnax(Probe())
    assert env == again and hash(env) == hash(again) and env != to_gymnax(Probe(length=9))[0]
    step = jax.jit(lambda env, key, state: env.step(key, state, 0, params), static_argnums=0)
    _, state = env.reset(jax.random.key(0), params)
    _, after, *_ = step(env, jax.random.key(1), state)
    step(again, jax.random.key(2), after)
    assert step._cache_size() == 1, "equal environments, and the same types after a step as after a reset"


def test_legacy_step_has_five_values():
    env, params = to_gymnax(Probe(), legacy=True)
    assert copy.deepcopy(env) == env != to_gymnax(Probe())[0]
    _, state = env.reset(jax.random.key(0), params)
    out = env.step(jax.random.key(0), state, 1, params)
    assert len(out) == 5 and bool(out[3]) and bool(out[4]["terminated"]) and not bool(out[4]["truncated"])


def test_spaces():
    space: Any = gymnax_space(Probe().observation_space())
    assert isinstance(space, spaces.Dict) and set(space.spaces) == {"vector", "clock", "pair", "pixels"}
    assert space.spaces["clock"].n == 5 and space.spaces["pixels"].dtype == np.uint8
    assert space.spaces["pair"].high.tolist() == [4, 2] and space.spaces["vector"].low.tolist() == [0, 0, 0, -2]
    box: Any = gymnax_space(Box(-2.0, 2.0, (3,)))
    assert (box.low, box.high, box.shape) == (-2.0, 2.0, (3,))
    assert isinstance(gymnax_space(Discrete(4)), spaces.Discrete)
    with pytest.raises(ValueError, match="no counterpart"):
        gymnax_space(object())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="gymnax has no counterpart of the action space"):
        to_gymnax(Probe(acts="multi"))
    assert isinstance(Probe(acts="multi").action_space(), MultiDiscrete)


@pytest.mark.parametrize("spec", ["tmaze-10", "cartpole"])
def test_there_and_back_again(spec: str):
    """Exported and imported again, an environment does what it did."""
    source, params = make(spec)
    env, env_params = from_gymnax(*to_gymnax(source, params))
    assert env.horizon == source.horizon and env.action_space() == source.action_space()
    for ours, theirs in zip(env.observation_space().bounds, source.observation_space().bounds, strict=True):
        np.testing.assert_array_equal(ours, theirs)

    def rollout(env: Any, params: Any, key: Any) -> Any:
        state, opened = env.reset(key, params)

        def step(state: Any, key: Any) -> Any:
            state, timestep = env.step(key, state, jax.random.randint(key, (), 0, 2), params)
            return state, timestep.replace(info={})

        return opened.replace(info={}), jax.lax.scan(step, state, jax.random.split(key, 12))[1]

    key = jax.random.key(0)
    assert_same(rollout(env, env_params, key), rollout(source, params, key), atol=1e-5)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_loop_in_the_style_of_purejaxrl(legacy: bool):
    """Vmapped environments under gymnax's LogWrapper in a scan; returns and lengths are those of uniform play."""
    source, source_params = make("tmaze-10")
    env, params = to_gymnax(source, source_params, legacy=legacy)
    # gymnax's LogWrapper speaks the new API; the loops of old bring their own, which is the few lines below.
    env = env if legacy else gymnax.wrappers.LogWrapper(env)
    num = 256

    @jax.jit
    def run(key: Any) -> Any:
        reset_key, key = jax.random.split(key)
        obs, state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(reset_key, num), params)

        def step(carry: Any, key: Any) -> Any:
            obs, state, running = carry
            act_key, step_key = jax.random.split(key)
            action = jax.vmap(env.action_space(params).sample)(jax.random.split(act_key, num))
            out = jax.vmap(env.step, in_axes=(0, 0, 0, None))(jax.random.split(step_key, num), state, action, params)
            obs, state, reward, *flags, info = out
            done = flags[0] if legacy else flags[0] | flags[1]
            episode = running + reward
            ended = episode if legacy else info["returned_episode_returns"]
            return (obs, state, jnp.where(done, 0.0, episode)), (done, ended)

        return jax.lax.scan(step, (obs, state, jnp.zeros(num)), jax.random.split(key, 3 * source.horizon))[1]

    done, returns = jax.device_get(run(jax.random.key(0)))
    assert done.sum() == 3 * num and done[source.horizon - 1 :: source.horizon].all()
    ended = returns[done]
    error = float(ended.std()) / len(ended) ** 0.5
    assert ended.mean() == pytest.approx(source.reference()["random"], abs=4 * error)


def test_tree_observations_go_through():
    env, params = to_gymnax(Probe())
    obs, _ = env.reset(jax.random.key(0), params)
    assert isinstance(Probe().observation_space(), Tree) and set(obs) == {"vector", "clock", "pair", "pixels"}


@pytest.mark.slow
def test_rejax_trains_on_it():
    """rejax's PPO (written for the five-value step) learns the cart-pole."""
    rejax = pytest.importorskip("rejax")
    env, params = to_gymnax(*make("cartpole"), legacy=True)
    config = {"env": env, "env_params": params, "num_envs": 16, "num_steps": 64, "num_epochs": 4, "num_minibatches": 4}
    config |= {"learning_rate": 1e-3, "total_timesteps": 32_768, "eval_freq": 16_384, "gamma": 0.98}
    agent = rejax.PPO.create(**config, agent_kwargs={"activation": "tanh"})
    _, (lengths, returns) = jax.jit(agent.train)(jax.random.key(0))
    returns = np.asarray(returns).mean(-1)
    assert np.asarray(lengths).max() <= 500
    assert returns[0] < 40 and returns[-1] > 80, "well above the 22 of uniform actions"
