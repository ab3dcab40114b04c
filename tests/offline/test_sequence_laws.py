"""Training and acting are one function: every layout of tokens, kind of model and mode of inference."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sequence_lab import HORIZON, LENGTHS, World, columns, recorded, replay

from jaxrl_seq.offline.learner import SequenceLearner
from jaxrl_seq.offline.methods import METHODS, make_method
from jaxrl_seq.offline.network import columns_of
from jaxrl_seq.offline.sampler import read_windows

EPISODES = (0, 1, 2, 4)
LAYOUTS = {
    "dt": ("rtg | obs* | action", True),
    "fused": ("obs + prev_action + prev_reward + rtg*", False),
    "lram": ("obs | rtg* | reward", False),
    "pairs": ("rtg + obs* | action + reward", True),
}
SEGMENT = 4
SIZES: dict[str, dict[str, Any]] = {
    "gpt": {"context": 3 * HORIZON, "layers": 2},
    "rmt": {"segment": SEGMENT, "memory": 2},
}
"""Two layers of attention, as a cache and a window are the same with one; segments that end within an episode."""
MODELS = {"window": ("gpt", "s5", "convformer"), "cache": ("gpt", "transformer_xl"), "recurrent": ("s5", "rmt", "gru")}
WINDOW = 3


def learner_of(
    small_model: Any, tokens: str, model: str, mode: str, world: World | None = None, **options: Any
) -> SequenceLearner:
    world = world or World(continuous=model == "s5")
    window = WINDOW if mode == "window" else HORIZON
    built = small_model(model, **SIZES.get(model, {}))
    return make_method("dt", world, built, tokens=tokens, mode=mode, window=window, batch=4, **options)


def lively(learner: SequenceLearner, hyper: Any) -> Any:
    """A state whose predictions differ from step to step: fresh heads would hide what a model does."""
    state = learner.init(jax.random.key(1), hyper)
    return state.replace(params=jax.tree.map(lambda x: 2.0 * x, state.params))


QUICK = [
    ("dt", "gpt", "window"),
    ("dt", "gpt", "cache"),
    ("pairs", "convformer", "window"),
    ("fused", "gru", "recurrent"),
    ("fused", "rmt", "recurrent"),
]
"""Every mode, and layouts and memories of different kinds; their product is slow."""
PRODUCT = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
    for mode, models in MODELS.items()
    for case in itertools.product(LAYOUTS, models, [mode])
]


@pytest.mark.parametrize(("layout", "model", "mode"), PRODUCT)
def test_a_stored_episode_played_back_gives_the_predictions_of_training(small_model, layout, model, mode):
    """Also the second time: a memory's clock runs on, and training knows episodes from any clock on."""
    tokens, _ = LAYOUTS[layout]
    learner = learner_of(small_model, tokens, model, mode)
    data = recorded(learner.env)
    hyper = learner.hyper(data)
    shown = columns(data, EPISODES, HORIZON)
    episodes = jnp.array(EPISODES)

    @jax.jit
    def both(hyper: Any) -> tuple[Any, Any]:
        state = lively(learner, hyper)
        policy = learner.policy(state, {"rtg": hyper.data.returns[episodes]}, True)
        acted = replay(policy, shown, before=1)["action"]

        def trained_at(t: Any) -> Any:
            """As in training, at step t: in a window that ends there, or in the whole episode."""
            back = jnp.minimum(t, learner.window - 1)
            start = hyper.data.start[episodes] + jnp.minimum(t, hyper.data.length[episodes] - 1)
            window = read_windows(hyper.data, start - jnp.minimum(back, hyper.data.t[start]), learner.window)
            at = jnp.minimum(back, hyper.data.t[start])
            clock = jnp.int32(0 if mode == "window" else HORIZON)
            outs = learner.net.parallel(state.variables, columns_of(window), window.reset, clock)
            return outs["action"][at, jnp.arange(len(EPISODES))]

        return acted, jax.vmap(trained_at)(jnp.arange(HORIZON))

    acted, trained = both(hyper)
    valid = np.arange(HORIZON)[:, None] < np.array(LENGTHS)[list(EPISODES)]
    assert np.abs(trained[valid]).max() > 0.01
    np.testing.assert_allclose(acted[valid], trained[valid], atol=2e-5)


def test_whole_episodes_are_learnt_from_any_clock_on(small_model):
    """Segments of memory tokens are cut by the clock, and only the first episode of an evaluation begins at zero."""
    learner = learner_of(small_model, LAYOUTS["fused"][0], "rmt", "recurrent")
    hyper = learner.hyper(recorded(learner.env))
    state = lively(learner, hyper)
    window = learner.sampler(jax.random.key(0), hyper.data, learner.batch)
    loss = jax.jit(lambda clock: learner.loss(state.variables, window.replace(clock=clock))[0])
    phases = np.array([loss(jnp.int32(clock)) for clock in range(SEGMENT + 1)])
    assert phases[0] == phases[SEGMENT] and len(np.unique(phases)) > 1
    drawn = learner.loss(state.variables, window)[0]
    np.testing.assert_allclose(drawn, phases[int(window.clock) % SEGMENT], rtol=1e-6)


@pytest.mark.parametrize(("layout", "model"), [("lram", "gpt"), pytest.param("dt", "gru", marks=pytest.mark.slow)])
def test_nothing_is_learnt_from_padding_from_later_steps_or_from_the_action_itself(small_model, layout, model):
    tokens, _ = LAYOUTS[layout]
    learner = learner_of(small_model, tokens, model, "window", World())
    hyper = learner.hyper(recorded(learner.env))
    rows = hyper.data.start[jnp.array([0, 1, 3])]  # whole, one step short, and two steps short
    at = 1

    @jax.jit
    def sensitivity(hyper: Any) -> tuple[Any, Any]:
        state = lively(learner, hyper)
        window = read_windows(hyper.data, rows, WINDOW)

        def predicted(shown: Any) -> Any:
            outs = learner.net.parallel(state.variables, columns_of(window) | shown, window.reset)
            return jnp.sum(outs["action"][at])

        def loss(shown: Any) -> Any:
            changed = window.replace(obs=shown["obs"], extra=window.extra | {"rtg": shown["rtg"]})
            return learner.loss(state.variables, changed)[0]

        shown = {"obs": window.obs, "rtg": window.extra["rtg"], "reward": window.reward}
        other = {"action": (window.action + 1) % 3}
        behind = jnp.arange(WINDOW)[:, None] >= at
        later = predicted({"action": jnp.where(behind, other["action"], window.action)}) - predicted({})
        return (jax.grad(predicted)(shown), later), (jax.grad(loss)(shown), window.mask)

    (ahead, later), (padding, mask) = jax.device_get(sensitivity(hyper))
    assert later == 0, "an action that is not taken yet is seen"
    assert not ahead["reward"][at:].any()
    for name in ("obs", "rtg"):
        assert not ahead[name][at + 1 :].any() and ahead[name][: at + 1].any()
        assert not padding[name][~mask].any() and padding[name][mask].any()


@pytest.mark.parametrize(("head", "continuous"), [("auto", False), ("auto", True), ("ce", True), ("gaussian", True)])
def test_losses_are_means_over_valid_steps(small_model, head, continuous):
    """A batch's loss is the mean of its steps, however much padding stands between them."""
    learner = learner_of(small_model, "obs + rtg*", "mlp", "window", World(continuous), head=head)
    hyper = learner.hyper(recorded(learner.env))

    @jax.jit
    def losses(hyper: Any) -> tuple[Any, Any]:
        state = lively(learner, hyper)
        wide = read_windows(hyper.data, hyper.data.start, HORIZON)
        narrow = read_windows(hyper.data, jnp.arange(hyper.data.steps), 1)
        return learner.loss(state.variables, wide)[0], learner.loss(state.variables, narrow)[0]

    wide, narrow = losses(hyper)
    np.testing.assert_allclose(wide, narrow, rtol=1e-5)


def test_the_last_update_moves_parameters_and_units_stay(small_model):
    learner = learner_of(small_model, "obs + rtg*", "mlp", "window")
    hyper = learner.hyper(recorded(learner.env), warmup_updates=2.0, decay_updates=5.0)
    start = jax.jit(learner.init)(jax.random.key(0), hyper)

    @jax.jit
    def run(state: Any) -> Any:
        return jax.lax.scan(lambda s, _: (learner.update(s, hyper)[0], s), state, length=5)

    end, before = run(start)
    for new, old in zip(jax.tree.leaves(end.params), jax.tree.leaves(before.params), strict=True):
        assert not np.array_equal(new, old[-1])
    jax.tree.map(np.testing.assert_array_equal, end.stats, start.stats)


def test_units_are_those_of_the_data(small_model):
    learner = learner_of(small_model, "obs + prev_reward + rtg*", "mlp", "window")
    data = recorded(learner.env)
    stats = jax.jit(learner.init)(jax.random.key(0), learner.hyper(data)).stats
    np.testing.assert_allclose(stats["standard"]["of_data"]["mean"], data.obs.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["units_rtg"]["numbers"]["std"], [data.rtg.std()], rtol=1e-5)
    np.testing.assert_allclose(stats["units_prev_reward"]["numbers"]["mean"], [data.reward.mean()], rtol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_learner(small_model, name):
    """One update and one look in its own mode, as far as shapes can tell; the slow tests train some."""
    world, row = World(), METHODS[name]
    learner = make_method(name, world, small_model(row.model, context=60), batch=2)
    data = recorded(world)
    shown = columns(data, EPISODES, 2)

    def go(hyper: Any) -> Any:
        state, metrics = learner.update(learner.init(jax.random.key(0), hyper), hyper)
        return metrics, replay(
            learner.policy(state, {signal.name: jnp.ones(len(EPISODES)) for signal in learner.signals}, True), shown
        )["action"]

    metrics, outs = jax.eval_shape(go, learner.hyper(data))
    assert outs.shape == (2, len(EPISODES), 3) and metrics["loss"].shape == ()
