"""Exports to gymnasium: its own checker, its own SyncVectorEnv as the twin of the batch, and its registry."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import gymnasium as gym
import jax
import numpy as np
import pytest
from adapter_probe import Probe
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from jaxrl_seq.envs import Env, list_envs, make, register
from jaxrl_seq.envs.adapters.to_gymnasium import (
    gymnasium_name,
    register_gymnasium,
    to_gymnasium,
    to_gymnasium_vector,
)
from jaxrl_seq.envs.core import registry

QUICK = ("tmaze", "cartpole", "pendulum")
NAMES = sorted(list_envs())


@pytest.fixture(autouse=True)
def quick_compiles():
    """Programs here run for a moment only."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def checked(env: Any) -> None:
    """gymnasium's checker raises nothing and warns of nothing but bounds that are meant."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env)
    meant = ("infinity", "symmetric and normalized", "alternative render modes", "minimum values are equal")
    assert not [str(w.message) for w in caught if not any(m in str(w.message) for m in meant)]


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_every_id_passes_the_checker(name: str):
    env = gym.make(f"jaxrl_seq/{gymnasium_name(name)}-v0")
    checked(env.unwrapped)
    assert env.unwrapped.metadata["render_modes"] == ["rgb_array", "ansi"]


@pytest.mark.parametrize("acts", ["discrete", "multi", "box", "tree"])
def test_every_kind_of_space_passes_the_checker(acts: Any):
    env = to_gymnasium(Probe(acts=acts))
    checked(env)
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    for _ in range(20):
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert obs in env.observation_space and type(reward) is float
        assert type(terminated) is bool and type(truncated) is bool
        assert type(obs["clock"]) is np.int64 and obs["vector"].flags.writeable
        assert info["action_mask"].dtype == np.int8 and type(info["success"]) is bool
        if terminated or truncated:
            obs, _ = env.reset()


def test_an_episode_is_that_of_the_raw_functions():
    """Reset and steps with the keys that `host` documents, up to and with the terminal observation."""
    source, params = Probe(), Probe().default_params()
    env = to_gymnasium(source, params.replace(scale=np.float32(2.0)))
    env.reset(seed=5)
    obs, _ = env.reset()  # the second episode on this seed
    stream = np.random.default_rng(5).integers(2**32, dtype=np.uint32)
    key = jax.random.fold_in(jax.random.key(stream), 1)
    state, timestep = source.reset(jax.random.fold_in(key, 0), params)
    for t in range(1, 5):
        assert obs["vector"] == pytest.approx(np.asarray(timestep.obs["vector"]))
        obs, reward, terminated, truncated, info = env.step(2)
        state, timestep = source.step(jax.random.fold_in(key, t), state, np.int32(2), params)
        assert reward == 2.0 * t and (terminated, truncated) == (False, t == 4)
        assert info["count"] == t and info["energy"] == pytest.approx(float(timestep.info["energy"]))
    assert obs["clock"] == 4 and obs["vector"] == pytest.approx(np.asarray(timestep.obs["vector"]))
    env.reset()
    assert env.step(1)[2:4] == (True, False)


def test_seeds():
    def first(seed: int | None, reset_seed: int | None = None) -> float:
        return float(to_gymnasium(Probe(), seed=seed).reset(seed=reset_seed)[0]["vector"][0])

    assert first(0) == first(0) == first(7, reset_seed=0) != first(1)
    assert first(None) != first(None)
    env = to_gymnasium(Probe())
    tags = [float(env.reset()[0]["vector"][0]) for _ in range(4)]
    assert len(set(tags)) == 4, "each reset without a seed is a new episode"
    env.reset(seed=0)
    assert [float(env.reset()[0]["vector"][0]) for _ in range(3)] == tags[1:]


def test_what_does_not_fit_is_refused_in_words():
    with pytest.raises(ValueError, match="Did you mean 'ansi'"):
        to_gymnasium(Probe(), render_mode="ansy")
    with pytest.raises(ValueError, match="render mode of probe"):
        to_gymnasium_vector(Probe(), 2, render_mode="human")
    with pytest.raises(ValueError, match="num_envs must be at least 1"):
        to_gymnasium_vector(Probe(), 0)
    env = to_gymnasium(Probe(), render_mode="ansi")
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.step(0)
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.render()
    env.reset()
    for action in (3, -1, 2**32, 0.0, [0], np.float32(1), None, "left"):
        with pytest.raises(ValueError, match="probe: action"):
            env.step(action)
    with pytest.raises(ValueError, match="takes no options"):
        env.reset(options={"level": 3})
    env.step(1)
    with pytest.raises(gym.error.ResetNeeded, match="no episode is running"):
        env.step(0)
    box = to_gymnasium(Probe(acts="box"))
    box.reset()
    box.step([0.5])
    for action in ([2.1], [np.nan], 0.5, [[0.5]]):
        with pytest.raises(ValueError, match="probe: action"):
            box.step(action)
    tree = to_gymnasium(Probe(acts="tree"))
    tree.reset()
    for action in ({"which": 0}, {"which": 5, "how": [0.0, 0.0]}, 0):
        with pytest.raises(ValueError, match="probe: action"):
            tree.step(action)
    envs = to_gymnasium_vector(Probe(), 2)
    with pytest.raises(gym.error.ResetNeeded):
        envs.step([0, 0])
    envs.reset()
    for action in ([0, 3], 0, [0, 0, 0]):
        with pytest.raises(ValueError, match="probe: action"):
            envs.step(action)


def assert_twins(env: Env, params: Any, num: int, steps: int, seed: int = 3) -> tuple[int, int]:
    """The batch and gymnasium's SyncVectorEnv of single ones agree in everything. Returns (terminated, truncated)."""
    fast = to_gymnasium_vector(env, num, params)

    def single(i: int) -> Any:
        return lambda: to_gymnasium(env, params, seed=i)

    slow = SyncVectorEnv([single(i) for i in range(num)], autoreset_mode=AutoresetMode.SAME_STEP)
    assert fast.metadata["autoreset_mode"] == slow.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    for name in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
        assert getattr(fast, name) == getattr(slow, name)
    assert same(fast.reset(), slow.reset())
    assert same(fast.reset(), slow.reset()), "a second reset without a seed"
    assert same(fast.reset(seed=seed), slow.reset(seed=seed))
    ends = np.zeros(2, int)
    fast.action_space.seed(seed)
    for _ in range(steps):
        actions = fast.action_space.sample()
        ours, theirs = fast.step(actions), slow.step(actions)
        assert same(ours, theirs)
        assert ours[0] in fast.observation_space
        ends += ours[2].sum(), ours[3].sum()
    return int(ends[0]), int(ends[1])


def same(a: Any, b: Any) -> bool:
    """Equal in structure, dtypes and numbers, as gymnasium's checker compares them."""
    return bool(data_equivalence(a, b))


@pytest.mark.parametrize("acts", ["discrete", "multi", "box"])
def test_the_batch_is_gymnasiums_own_sync_vector_env(acts: Any):
    terminated, truncated = assert_twins(Probe(acts=acts), None, num=3, steps=24)
    assert truncated and (terminated or acts == "box")


@pytest.mark.parametrize("spec", ["tmaze,length=3", "cartpole"])
def test_the_batch_of_ours_is_gymnasiums_own_sync_vector_env(spec: str):
    env, params = make(spec)
    assert sum(assert_twins(env, params, num=3, steps=40)) >= 3


def test_final_obs_is_the_episodes_own_last():
    envs = to_gymnasium_vector(Probe(), 3)
    before, _ = envs.reset(seed=0)
    obs, rewards, terminations, truncations, infos = envs.step([0, 1, 0])
    assert terminations.tolist() == [False, True, False] and not truncations.any()
    assert infos["_final_obs"].tolist() == [False, True, False] and infos["final_obs"][0] is None
    final = infos["final_obs"][1]
    assert final["vector"][0] == before["vector"][1, 0] and final["clock"] == 1, "the old episode, one step on"
    assert obs["vector"][1, 0] != before["vector"][1, 0] and obs["clock"].tolist() == [1, 0, 1]
    assert infos["count"].tolist() == [1, 0, 1] and infos["final_info"]["count"].tolist() == [0, 1, 0]
    assert infos["final_info"]["_count"].tolist() == [False, True, False]
    assert rewards.tolist() == [1, 1, 1]
    _, _, _, _, infos = envs.step([0, 0, 0])
    assert "final_obs" not in infos and "final_info" not in infos


def test_params_may_differ_per_environment():
    params = Probe().default_params().replace(scale=np.array([1.0, 2.0, 3.0], np.float32))
    envs = to_gymnasium_vector(Probe(), 3, params, render_mode="ansi")
    envs.reset()
    assert envs.step([0, 0, 0])[1].tolist() == [1, 2, 3]
    assert all(text.startswith("step 1") for text in envs.render() or ())


def test_rendering():
    source, params = make("tmaze,length=3")
    env = to_gymnasium(source, params, render_mode="rgb_array")
    env.reset(seed=0)
    first: Any = env.render()
    env.step(0)
    second: Any = env.render()
    assert first.shape == (40, 160, 3) and first.dtype == np.uint8 and (first != second).any()
    text = to_gymnasium(source, params, render_mode="ansi")
    text.reset(seed=0)
    assert "A" in str(text.render())
    envs = to_gymnasium_vector(source, 2, params, render_mode="rgb_array")
    envs.reset(seed=0)
    pictures: Any = envs.render()
    assert len(pictures) == 2 and (pictures[0] == first).all()
    silent = to_gymnasium(source, params)
    silent.reset()
    with pytest.warns(UserWarning, match="render_mode"):
        assert silent.render() is None

    class Blind(Probe):
        render = Env.render

    assert to_gymnasium(Blind()).metadata["render_modes"] == ["ansi"]
    with pytest.raises(ValueError, match="Known: ansi"):
        to_gymnasium(Blind(), render_mode="rgb_array")


# --- the registry ---------------------------------------------------------------------------------------------------
def test_every_id_and_preset_is_registered():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # gymnasium warns when an id is overridden
        names = register_gymnasium()
    assert len(names) == len(set(names)) == sum(1 + len(presets) for presets in list_envs().values())
    for name in names:
        spec = gym.spec(name)
        assert gym.envs.registration.EnvSpec.from_json(spec.to_json()) == spec
    for name in ("TMaze", "TMaze-10", "TMaze-active", "RepeatPrevious", "RepeatPrevious-hard", "CartPole"):
        assert f"jaxrl_seq/{name}-v0" in names


def test_options_and_presets_reach_our_make():
    env: Any = gym.make("jaxrl_seq/TMaze-v0", length=7, penalty=0.0)
    env.reset(seed=0)
    steps = [env.step(2) for _ in range(8)]
    assert [s[1] for s in steps] == [0.0] * 8 and [s[2] for s in steps] == [False] * 7 + [True]
    hard: Any = gym.make("jaxrl_seq/RepeatPrevious-hard-v0")
    assert hard.unwrapped.spec.kwargs == {"spec": "repeat_previous-hard"}
    with pytest.raises(ValueError, match="Did you mean 'length'"):
        gym.make("jaxrl_seq/TMaze-v0", lenght=7)
    assert gym.make("jaxrl_seq/TMaze-v0").reset()[0].shape == (2,)


def test_make_vec_takes_the_jitted_batch():
    envs: Any = gym.make_vec("jaxrl_seq/CartPole-v0", num_envs=3, limit=5)
    assert type(envs).__name__ == "GymnasiumVectorEnv" and envs.num_envs == 3
    envs = gym.wrappers.vector.RecordEpisodeStatistics(envs)
    envs.reset(seed=1)
    for t in range(5):
        infos = envs.step(np.array([t % 2] * 3))[4]
    assert infos["episode"]["l"].tolist() == [5, 5, 5] and infos["episode"]["r"].tolist() == [5.0] * 3
    two = gym.make_vec("jaxrl_seq/CartPole-v0", num_envs=2)
    other = gym.make_vec("jaxrl_seq/CartPole-v0", num_envs=2)
    assert (two.reset()[0] != other.reset()[0]).any(), "without a seed, each is random"


def test_wrappers_of_gymnasium_work():
    env: Any = gym.make("jaxrl_seq/CartPole-v0", max_episode_steps=3, render_mode="rgb_array_list")
    env.reset(seed=0)
    ends = [env.step(t % 2)[2:4] for t in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]
    assert len(env.render()) == 4


def test_later_registrations(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    register("long_probe", Probe, {"short": {"length": 2}})
    try:
        register_gymnasium()
        env: Any = gym.make("jaxrl_seq/LongProbe-short-v0")
        env.reset()
        assert [env.step(0)[3] for _ in range(2)] == [False, True]
    finally:
        for name in ("jaxrl_seq/LongProbe-v0", "jaxrl_seq/LongProbe-short-v0"):
            gym.registry.pop(name, None)


def test_gymnasium_is_imported_only_when_asked_for():
    code = (
        "import sys, jaxrl_seq.envs; assert 'gymnasium' not in sys.modules;"
        "import gymnasium as gym; assert not any(i.startswith('jaxrl_seq') for i in gym.registry);"
        "env = gym.make('jaxrl_seq.envs.adapters.to_gymnasium:jaxrl_seq/TMaze-v0', length=50);"
        "assert env.spec.kwargs['length'] == 50"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
