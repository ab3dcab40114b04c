"""The export to Stable-Baselines3, beside its own DummyVecEnv, and a PPO of theirs that learns on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from adapter_probe import Probe

from jaxrl_seq.envs import make

vec_env = pytest.importorskip("stable_baselines3.common.vec_env")

from jaxrl_seq.envs.adapters.to_gymnasium import to_gymnasium  # noqa: E402
from jaxrl_seq.envs.adapters.to_sb3 import to_sb3  # noqa: E402


def assert_equal(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert set(a) == set(b)
        for name in a:
            assert_equal(a[name], b[name])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("flat", [True, False])
def test_the_batch_is_their_dummy_vec_env(flat: bool):
    """Observations, rewards, flags and infos (terminal observations among them) agree with those of SB3's own loop."""
    source = Probe(flat=flat)

    def single(seed: int) -> Any:
        return lambda: to_gymnasium(source, seed=seed)

    slow = vec_env.DummyVecEnv([single(i) for i in range(3)])
    fast = to_sb3(source, 3)
    assert fast.observation_space == slow.observation_space and fast.action_space == slow.action_space
    assert_equal(fast.reset(), slow.reset())
    fast.seed(5)
    slow.seed(5)
    assert_equal(fast.reset(), slow.reset())
    assert_equal(fast.reset_infos, slow.reset_infos)
    rng, kinds = np.random.default_rng(0), set()
    for _ in range(25):
        actions = rng.integers(3, size=3)
        ours, theirs = fast.step(actions), slow.step(actions)
        assert_equal(list(ours), list(theirs))
        assert_equal(fast.reset_infos, slow.reset_infos)
        kinds |= {info["TimeLimit.truncated"] for info, done in zip(ours[3], ours[2], strict=True) if done}
    assert kinds == {True, False}, "both ways of ending were seen"


def test_terminal_observation_is_the_episodes_own_last():
    venv = to_sb3(Probe(flat=True), 2)
    before = venv.reset()
    obs, rewards, dones, infos = venv.step(np.array([0, 1]))
    assert dones.tolist() == [False, True] and rewards.dtype == np.float32
    final = infos[1]["terminal_observation"]
    assert final[0] == before[1, 0] and final[2] == 1, "the old episode, one step on"
    assert obs[1, 0] != before[1, 0] and obs[1, 2] == 0 and "terminal_observation" not in infos[0]


def test_wrappers_pictures_and_masks():
    venv = to_sb3(Probe(flat=True), 3, render_mode="rgb_array")
    with pytest.raises(RuntimeError, match="call reset"):
        venv.get_images()
    monitored = vec_env.VecMonitor(vec_env.VecNormalize(venv, norm_reward=False))
    monitored.reset()
    infos = [monitored.step(np.zeros(3, int))[3] for _ in range(4)][-1]
    assert [info["episode"]["l"] for info in infos] == [4, 4, 4] and infos[0]["episode"]["r"] == 10
    assert venv.render().shape == (16, 16, 3)
    assert venv.get_attr("name") == ["probe"] * 3 and venv.get_attr("length", indices=[1]) == [4]
    assert not venv.has_attr("no_such_thing") and venv.env_is_wrapped(vec_env.VecMonitor) == [False] * 3
    venv.reset()
    assert np.stack(venv.env_method("action_masks")).tolist() == [[True, False, True]] * 3
    assert not to_sb3(Probe(masked=False), 2).has_attr("action_masks")


def test_what_does_not_fit_is_refused_in_words():
    with pytest.raises(ValueError, match="Did you mean 'rgb_array'"):
        to_sb3(Probe(), 2, render_mode="rgb_aray")
    with pytest.raises(ValueError, match="num_envs"):
        to_sb3(Probe(), 0)
    venv = to_sb3(Probe(flat=True), 2)
    with pytest.raises(RuntimeError, match="call reset"):
        venv.step(np.array([0, 0]))
    venv.reset()
    with pytest.raises(ValueError, match="probe: action 3"):
        venv.step(np.array([0, 3]))
    with pytest.raises(ValueError, match="render_mode"):
        venv.get_images()
    with pytest.raises(AttributeError, match="frozen"):
        venv.set_attr("length", 3)
    venv.set_options({"level": 1})
    with pytest.raises(ValueError, match="takes no options"):
        venv.reset()


@pytest.mark.slow
def test_their_ppo_learns_the_cart_pole():
    from stable_baselines3 import PPO  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.evaluation import evaluate_policy  # pyright: ignore[reportMissingImports]

    pytest.importorskip("torch").set_num_threads(1)  # more of them only wait for each other
    source, params = make("cartpole")
    train = vec_env.VecMonitor(to_sb3(source, 8, params))
    options = {"n_steps": 64, "batch_size": 256, "n_epochs": 10, "gamma": 0.98, "gae_lambda": 0.9}
    agent = PPO("MlpPolicy", train, learning_rate=1e-3, seed=0, device="cpu", **options)
    test = vec_env.VecMonitor(to_sb3(source, 8, params, seed=100))
    before, _ = evaluate_policy(agent, test, 24, deterministic=False)
    agent.learn(30_000)
    after, _ = evaluate_policy(agent, test, 24)
    assert before < 50 and after > 200, "uniform actions last 22 steps"
