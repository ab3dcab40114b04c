"""Elastic pasts: each length is what a window of that length would be, and the one that promises most is taken."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sequence_lab import World, columns, recorded, replay

from jaxrl_seq import train
from jaxrl_seq.envs import make
from jaxrl_seq.models import make_model
from jaxrl_seq.offline import make_dataset
from jaxrl_seq.offline.elastic import PromiseTerm
from jaxrl_seq.offline.methods import make_method
from jaxrl_seq.offline.network import columns_of
from jaxrl_seq.offline.sampler import read_windows


def test_a_past_is_cut_to_what_promises_most():
    world, episode, steps, window = World(), 2, 7, 4
    model = make_model("gpt", width=8, layers=1, heads=2, context=8)
    learner = make_method("edt", world, model, window=window, stride=1)
    hyper = learner.hyper(recorded(world))
    shown = columns(hyper.data, (episode,), steps)

    @jax.jit
    def both(hyper: Any) -> Any:
        state = learner.init(jax.random.key(0), hyper)
        state = state.replace(params=jax.tree.map(lambda x: 2.0 * x, state.params))
        acted = replay(learner.policy(state, {}, True), shown)

        def fresh(t: Any, length: Any) -> Any:
            """A window of its own that ends at step t and has at most `length` steps."""
            back = jnp.minimum(t, length - 1)
            read = read_windows(hyper.data, (hyper.data.start[episode] + t - back)[None], window)
            seen = columns_of(read)
            promise = learner.net.parallel(state.variables, seen, read.reset)["promise"]
            outs = learner.net.parallel(state.variables, seen | {"rtg": promise}, read.reset)
            return jax.tree.map(lambda x: x[back, 0], outs)

        lengths, now = jnp.arange(1, window + 1), jnp.arange(steps)
        return acted, jax.vmap(lambda t: jax.vmap(lambda n: fresh(t, n))(lengths))(now)

    acted, tried = jax.device_get(both(hyper))
    best = np.argmax(tried["promise"][..., 0], axis=1)
    assert len(set(best)) > 1
    np.testing.assert_allclose(acted["length"][:, 0, 0], np.minimum(best, np.arange(steps)) + 1)
    for name in ("promise", "action"):
        np.testing.assert_allclose(acted[name][:, 0], tried[name][np.arange(steps), best], atol=1e-5)


def test_an_expectile_lies_near_the_best():
    term, target = PromiseTerm(), jnp.arange(100.0)[:, None]

    @jax.jit
    def fitted() -> jax.Array:
        def step(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            out = lambda x: jnp.full((100, 1), x)  # noqa: E731
            return x - 2000.0 * jax.grad(lambda x: term.loss(out(x), {"rtg": target}).mean())(x), None

        return jax.lax.scan(step, jnp.float32(0.0), length=500)[0]

    x = float(fitted())
    above, below = np.maximum(np.arange(100) - x, 0).mean(), np.maximum(x - np.arange(100), 0).mean()
    assert above * 0.99 == pytest.approx(below * 0.01, rel=0.02) and x > 85


@pytest.mark.parametrize(
    ("options", "words"), [({"mode": "cache"}, "its mode is window"), ({"stride": 0}, "stride must be at least 1")]
)
def test_learners_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        make_method("edt", World(), make_model("gpt", width=8, heads=2), **options)


@pytest.mark.slow
def test_a_bad_past_is_dropped_at_the_crossing():
    """From the start of the walks that miss the goal, where a policy with the whole past goes on as they do."""
    env, params = make("cross_roads")
    data = make_dataset("crossing", env, params, jax.random.key(0), 4000)
    past = 12  # steps; the walks of the data take 8
    found = {}
    for name, options in {"edt": {"stride": 1}, "dt": {}}.items():
        model = make_model("gpt", width=32, layers=2, heads=2, context=3 * past)
        learner = make_method(name, env, model, window=past, num_envs=16, **options)
        hyper = learner.hyper(data, env_params=params, decay_updates=800.0, lr=2e-3)
        run = train(learner, hyper, total_steps=800 * learner.steps_per_update, evaluations=1, progress=False)
        found[name] = (run.summary["eval_return_mean"], run.summary["eval_success"])
    print(found)
    assert found["edt"][0] >= found["dt"][0] and found["edt"][1] > 0.9
