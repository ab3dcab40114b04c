"""The gymnax adapter, over every environment that gymnax registers."""

from __future__ import annotations

from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from env_rollouts import assert_same

from jaxrl_seq.envs import Discrete, VecEnv, make
from jaxrl_seq.envs.adapters.gymnax import from_gymnax, make_gymnax
from jaxrl_seq.envs.core.checking import check_structure

IDS = sorted(gymnax.registered_envs)
# One of each kind here, the others (seconds of compiling each) with the slow tests.
QUICK = {
    "BernoulliBandit-misc",
    "CartPole-v1",
    "Catch-bsuite",
    "DeepSea-bsuite",
    "FrozenLake-misc",
    "MemoryChain-bsuite",
    "MetaMaze-misc",
    "MNISTBandit-bsuite",
    "Pendulum-v1",
}
STEPS = 11


@pytest.fixture(autouse=True)
def tiny_mnist(monkeypatch: pytest.MonkeyPatch):
    """gymnax's MNIST bandit downloads its data when it is built; here it gets four images, read as it reads
    them."""
    from gymnax.environments.bsuite import mnist

    images = np.arange(4 * 28 * 28, dtype=np.uint8).reshape(4, 28, 28).view(np.int8)
    data = images, np.arange(4, dtype=np.uint8)
    monkeypatch.setattr(mnist.load_mnist, "load_mnist", lambda *_: (data, data))


@pytest.fixture(autouse=True)
def quick_compiles():
    """Two dozen environments are compiled once each and run for a moment."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def run_ours(env: Any, params: Any, key: Any) -> Any:
    """(key data, actions, whether every obs was legal, outcome of each step, first inputs) of two
    environments."""
    venv, space = VecEnv(env, 2, "select"), env.observation_space()
    reset_key, key = jax.random.split(key)
    first = venv.reset(reset_key, params)

    def step(state: Any, key: Any) -> Any:
        act_key, step_key = jax.random.split(key)
        action = jax.vmap(env.action_space().sample)(jax.random.split(act_key, 2))
        state, outcome = venv.step(step_key, state, action, params)
        legal = jax.vmap(space.contains)(outcome.final.obs) & jax.vmap(space.contains)(state.inputs.obs)
        return state, (jax.random.key_data(jax.random.split(step_key, 2)), action, legal, outcome)

    return first.inputs.obs, jax.lax.scan(step, first, jax.random.split(key, STEPS))[1]


@pytest.mark.parametrize("name", IDS)
def test_every_id_has_our_structure(name: str):
    env, params = make_gymnax(name)
    check_structure(env, params)
    opened = jax.eval_shape(env.reset, jax.random.key(0), params)
    assert not any(x.weak_type for x in jax.tree.leaves((opened, params)))
    assert opened[1].reward.dtype == jnp.float32
    same, _ = make_gymnax(name)
    assert same == env and hash(same) == hash(env)


@pytest.mark.parametrize("name", [i if i in QUICK else pytest.param(i, marks=pytest.mark.slow) for i in IDS])
def test_every_id_behaves_as_its_raw_step(name: str):
    """Spaces and VecEnv's program hold, and each number is the one that gymnax's `step_env` gives."""
    env, params = make_gymnax(name)
    key = jax.random.key(0)
    first_obs, (keys, actions, legal, outcome) = jax.device_get(jax.jit(lambda key: run_ours(env, params, key))(key))
    assert legal.all(), "an observation outside its space"

    raw, raw_params = gymnax.make(name)
    obs, state = raw.reset_env(jax.random.split(jax.random.split(key)[0], 2)[0], raw_params)
    np.testing.assert_allclose(np.asarray(obs, np.float64), first_obs[0].astype(np.float64), atol=1e-5)
    raw_step = jax.jit(raw.step_env)
    for t in range(STEPS):
        step_key = jax.random.wrap_key_data(jnp.asarray(keys[t, 0]))
        obs, state, reward, terminated, _ = raw_step(step_key, state, actions[t, 0], raw_params)
        truncated = bool(raw.is_truncated(state, raw_params)) and not bool(terminated)
        np.testing.assert_allclose(np.asarray(obs, np.float64), outcome.final.obs[t, 0].astype(np.float64), atol=1e-4)
        np.testing.assert_allclose(float(reward), outcome.reward[t, 0], rtol=1e-4, atol=1e-4)
        assert (bool(terminated), truncated) == (
            bool(outcome.terminated[t, 0]),
            bool(outcome.truncated[t, 0]),
        )
        assert outcome.reward.dtype == np.float32
        if terminated or truncated:
            break
    if env.fixed_length:
        done = outcome.terminated | outcome.truncated
        assert (outcome.episode_length[done] == env.horizon).all()
        assert done.any() == (env.horizon <= STEPS)


@pytest.mark.parametrize(
    ("spec", "horizon", "terminates"),
    [
        ("MemoryChain-bsuite,memory_length=4", 5, True),
        ("MemoryChain-bsuite,memory_length=40,max_steps_in_episode=6", 6, False),
        ("UmbrellaChain-bsuite,chain_length=6", 6, True),
        ("BernoulliBandit-misc,max_steps_in_episode=7", 7, False),
        ("GaussianBandit-misc,max_steps_in_episode=7", 7, False),
        ("CartPole-v1,max_steps_in_episode=3", 3, False),
    ],
)
def test_terminated_and_truncated_stay_apart(spec: str, horizon: int, terminates: bool):
    """What ends by itself terminates; what gymnax cuts at `max_steps_in_episode` is truncated."""
    env, params = make(f"gymnax:{spec}")
    assert env.horizon == horizon
    _, (_, _, legal, outcome) = jax.device_get(jax.jit(lambda key: run_ours(env, params, key))(jax.random.key(1)))
    ended = outcome.terminated if terminates else outcome.truncated
    assert ended[horizon - 1].all() and not ended[: horizon - 1].any() and legal.all()
    assert not (outcome.truncated if terminates else outcome.terminated).any()


def test_options_reach_the_constructor_and_the_parameters():
    env, params = make_gymnax("MemoryChain-bsuite", num_bits=3, memory_length=9)
    assert env == make("gymnax:MemoryChain-bsuite,num_bits=3,memory_length=9")[0]
    assert env.observation_space().contains(env.reset(jax.random.key(0), params)[1].obs)
    assert env.config.env.num_bits == 3 and int(params.memory_length) == 9
    assert env != make("gymnax:MemoryChain-bsuite")[0]
    assert (
        make_gymnax("MemoryChain-bsuite", memory_length=9)[0] == make_gymnax("MemoryChain-bsuite", memory_length=9)[0]
    )
    fast: Any = make("gymnax:MountainCar-v0,max_speed=0.5")[0].observation_space()
    assert fast.high[1] == 0.5, "bounds follow the parameters given"


def test_parameters_are_traced_and_can_be_swept():
    env, params = make("gymnax:Pendulum-v1")
    swept = params.replace(g=jnp.array([0.0, 10.0, 20.0]))
    axes = jax.tree.map(lambda _: None, params).replace(g=0)
    keys = jax.random.split(jax.random.key(0), 3)

    @jax.jit
    def speeds(swept: Any) -> Any:
        def one(params: Any) -> Any:
            state, _ = env.reset(keys[0], params)
            return env.step(keys[1], state, jnp.zeros(1), params)[1].obs[2]

        return jax.vmap(one, in_axes=(axes,))(swept)

    assert len(set(np.asarray(speeds(swept)).tolist())) == 3
    venv = VecEnv(env, 3)
    assert venv.reset_policy == "sync", "its episodes all last 200 steps"
    jax.jit(lambda p: venv.step(keys[1], venv.reset(keys[0], p), jnp.zeros((3, 1)), p))(swept)


def test_from_gymnax_takes_any_environment_and_compares_by_configuration():
    raw, raw_params = gymnax.make("Catch-bsuite", rows=6)
    env, params = from_gymnax(raw, raw_params)
    assert env == from_gymnax(gymnax.make("Catch-bsuite", rows=6)[0])[0]
    assert env != from_gymnax(gymnax.make("Catch-bsuite", rows=7)[0])[0]
    assert env.horizon == 5 and env.action_space() == Discrete(3)
    assert_same(env.default_params(), params)

    class Old:
        name = "old"
        default_params = raw_params

    with pytest.raises(ValueError, match=r"1\.0"):
        from_gymnax(Old())


def test_the_package_does_not_import_gymnax_until_asked():
    import subprocess
    import sys

    code = "import sys, jaxrl_seq.envs, jaxrl_seq.envs.adapters.gymnax; assert 'gymnax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
