"""Learners with value functions: what they read of the data, and that they know what luck is worth."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sequence_lab import World, recorded

from jaxrl_seq import train
from jaxrl_seq.envs import make
from jaxrl_seq.models import make_model
from jaxrl_seq.offline import make_dataset
from jaxrl_seq.offline.critic_learner import CriticLearner, and_after, make_critic
from jaxrl_seq.offline.critics import Scene
from jaxrl_seq.offline.methods import make_method
from jaxrl_seq.offline.sampler import read_windows
from jaxrl_seq.offline.values import KINDS

MEMORY = "obs + prev_action + prev_reward*"


def critic(name: str, env: Any, model: str = "mlp", **options: Any) -> CriticLearner:
    return make_critic(name, env, make_model(model, width=8, layers=1), **({"batch": 8, "num_envs": 4} | options))


def test_what_comes_after_is_what_the_action_led_to():
    """Also at the end of an episode, and inside a longer window."""
    data = recorded(World())
    window = read_windows(data, data.start[jnp.array([0, 1, 3])], 3)
    longer = jax.device_get(and_after(window))
    for column, episode in enumerate((0, 1, 3)):
        length, start = min(int(data.length[episode]), 3), int(data.start[episode])
        follows = [*data.obs[start : start + int(data.length[episode])], data.final_obs[episode]]
        np.testing.assert_array_equal(longer["obs"][: length + 1, column], np.stack(follows)[: length + 1])
        np.testing.assert_array_equal(
            longer["prev_action"][1 : length + 1, column], data.action[start : start + length]
        )
        np.testing.assert_array_equal(
            longer["prev_reward"][1 : length + 1, column], data.reward[start : start + length]
        )


@pytest.mark.parametrize("model", [pytest.param("mlp", marks=pytest.mark.slow), "gru"])
def test_targets_equal_a_slow_twin(model):
    """reward + gamma V(next), nothing beyond a terminal step, and the value that a memory has there."""
    world = World()
    options = {"tokens": MEMORY, "mode": "recurrent"} if model == "gru" else {}
    learner = critic("iql", world, model, **options)
    hyper = learner.hyper(recorded(world), gamma=0.9)

    @jax.jit
    def backups(hyper: Any) -> Any:
        state = learner.init(jax.random.key(0), hyper)
        params = jax.tree.map(lambda x: 3.0 * x, state.params)
        rows = hyper.data.start if model == "gru" else jnp.arange(hyper.data.steps)
        window = read_windows(hyper.data, rows, learner.window)
        scene = Scene(learner, params, state.target, state.stats, and_after(window), window, hyper)
        values = scene.number(scene.states(params))
        return values, scene.backup(values[1:]), window

    values, targets, window = jax.device_get(backups(hyper))
    assert np.ptp(values) > 0.01
    for t, b in np.argwhere(window.mask):
        after = 0.0 if window.terminated[t, b] else values[t + 1, b]
        np.testing.assert_allclose(targets[t, b], window.reward[t, b] + 0.9 * after, rtol=1e-5)
    if model == "mlp":  # and the same row's value as what follows another: one network
        inside = np.flatnonzero(np.asarray(hyper.data.to_end) > 0)
        np.testing.assert_allclose(values[1, inside], values[0, inside + 1], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "head", "continuous"),
    [
        ("td3bc", "mse", True),
        pytest.param("cql", "two-hot", False, marks=pytest.mark.slow),
        ("iql", "hl-gauss", True),
        pytest.param("cql", "mse", True, marks=pytest.mark.slow),
        pytest.param("iql", "mse", False, marks=pytest.mark.slow),
    ],
)
def test_every_method_moves_all_its_networks(name, head, continuous):
    world = World(continuous)
    learner = critic(name, world, value_head=head)
    hyper = learner.hyper(recorded(world), warmup_updates=1.0, weight_decay=0.0, polyak=0.005)

    @jax.jit
    def go(hyper: Any) -> Any:
        start = learner.init(jax.random.key(0), hyper)
        end, metrics = jax.lax.scan(lambda s, _: learner.update(s, hyper), start, length=2)
        return start, end, jax.tree.map(lambda x: x[-1], metrics)

    start, end, metrics = jax.device_get(go(hyper))
    assert all(np.isfinite(x) for x in metrics.values()) and not metrics["skipped"]
    for part in end.params:
        pairs = zip(jax.tree.leaves(end.params[part]), jax.tree.leaves(start.params[part]), strict=True)
        assert not any(np.array_equal(new, old) for new, old in pairs), part
    for part in end.target:  # slowly
        after, before, ahead = map(jax.tree.leaves, (end.target[part], start.target[part], end.params[part]))
        for x, old, new in zip(after, before, ahead, strict=True):
            assert (np.abs(x - old) <= 0.011 * np.abs(new - old).max() + 1e-7).all()


def test_an_actor_never_moves_its_critic():
    world = World(continuous=True)
    learner = critic("td3bc", world)
    hyper = learner.hyper(recorded(world))

    def gradients(hyper: Any) -> Any:
        state = learner.init(jax.random.key(0), hyper)
        window = learner.sampler(jax.random.key(1), hyper.data, 8)

        def actor_loss(params: Any) -> Any:
            from jaxrl_seq.offline.critic_losses import td3_bc

            scene = Scene(learner, params, state.target, state.stats, and_after(window), window, hyper)
            return td3_bc(scene, jax.random.key(2))["actor_loss"]

        return jax.grad(actor_loss)(state.params)

    grads = jax.device_get(jax.jit(gradients)(hyper))
    assert not any(x.any() for x in jax.tree.leaves(grads["critic"]))
    assert any(x.any() for x in jax.tree.leaves(grads["actor"]))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("td3bc", {}, "td3bc needs continuous actions"),
        ("iql", {"tokens": "obs + action*"}, "before the action is chosen"),
        ("iql", {"tokens": "obs* | action"}, "cannot show 'action'"),
        ("iqn", {}, "Did you mean 'iql'"),
    ],
)
def test_learners_that_cannot_be_are_refused(name, options, words):
    with pytest.raises(ValueError, match=words):
        critic(name, World(), **options)


# --- known answers ----------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("name", ["iql", "cql"])
@pytest.mark.parametrize("head", KINDS)
def test_a_sure_thing_is_preferred_to_luck(name, head):
    """The gamble that return-conditioned imitation loses (Paster et al. 2022): its best mean payoff is 1."""
    env, params = make("gamble")
    data = make_dataset("random", env, params, jax.random.key(0), 8000)
    learner = make_critic(name, env, make_model("mlp", width=32, layers=1), value_head=head, batch=128, num_envs=64)
    hyper = learner.hyper(data, env_params=params, decay_updates=500.0, lr=3e-3, polyak=0.05)
    run = train(learner, hyper, total_steps=500 * 128, evaluations=1, progress=False)
    assert run.summary["eval_return_mean"] == 1.0


@pytest.mark.slow
def test_a_puck_is_steered_better_than_by_imitation():
    """By values, which must have come a long way: the cheapest single step is not to push at all."""
    env, params = make("point_mass,limit=20")
    seeds = range(3)
    sets = [make_dataset("eps-mix", env, params, jax.random.key(seed), 8000) for seed in seeds]

    def score(learner: Any) -> np.ndarray:
        returns = []
        for seed, data in zip(seeds, sets, strict=True):
            hyper = learner.hyper(data, env_params=params, decay_updates=1000.0, lr=2e-3)
            steps = 1000 * learner.steps_per_update
            run = train(learner, hyper, total_steps=steps, evaluations=1, progress=False, seed=seed)
            returns.append(run.summary["eval_return_mean"])
        return np.array(returns)

    def model() -> Any:
        return make_model("mlp", width=64, layers=1)

    imitated = score(make_method("bc", env, model(), batch=128))
    for name in ("td3bc", "iql", "cql"):
        assert np.all(score(make_critic(name, env, model(), batch=128)) > imitated), name
