"""A return to earn and a cost not to exceed: relabelled episodes, limits side by side, and what is learnt."""

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
from jaxrl_seq.offline.constrained import CostTerm, with_pareto
from jaxrl_seq.offline.methods import make_method
from jaxrl_seq.offline.network import prepare
from jaxrl_seq.offline.signals import CostToGo, ReturnToGo


def test_relabelled_episodes_are_shifted_wholes_that_keep_to_their_limit():
    data = prepare(recorded(World(), lengths=(3, 2, 4, 1, 5, 2)), (ReturnToGo(), CostToGo()))
    more = jax.device_get(with_pareto(data, 40, seed=3))
    assert more.num_episodes == 46 and more.reward.shape == more.extra["ctg"].shape[:1]
    for e in range(6, 46):
        rows = slice(more.start[e], more.start[e] + more.length[e])
        rtg, ctg = more.extra["rtg"][rows, 0], more.extra["ctg"][rows, 0]
        np.testing.assert_allclose(rtg - more.rtg[rows], rtg[0] - more.rtg[rows][0], atol=1e-4)
        np.testing.assert_allclose(ctg[:-1] - ctg[1:], more.extra["cost"][rows][:-1, 0], atol=1e-4)
        assert ctg[0] >= more.extra["cost"][rows].sum() - 1e-4, "an episode is asked to cost less than it does"
        assert rtg[0] >= more.rtg[rows][0] - 1.0, "what is asked for is no less than the front, but for its fit"


def test_costly_steps_are_told_from_free_ones():
    out = jnp.array([[9.0], [-9.0]])
    columns = {"cost": jnp.array([[1.0], [0.0]])}
    np.testing.assert_allclose(CostTerm().loss(out, columns), 0.0, atol=1e-3)
    assert (CostTerm().loss(-out, columns) > 8).all()


@pytest.fixture(scope="module")
def grid() -> Any:
    env, params = make("safe_grid,hazards=2,limit=12")
    return env, params, make_dataset("eps-mix", env, params, jax.random.key(0), 3000)


@pytest.mark.slow
def test_limits_are_played_side_by_side(grid):
    env, params, data = grid
    model = make_model("mlp", width=8, layers=1)
    learner = make_method("cdt", env, model, window=2, num_envs=3, batch=4)
    hyper = learner.hyper(data, env_params=params, target=-4.0)
    assert hyper.data.num_episodes == data.num_episodes + round(0.3 * data.num_episodes)

    @jax.jit
    def play(hyper: Any) -> Any:
        state = learner.init(jax.random.key(0), hyper)
        return learner.asked(hyper), learner.evaluate(state, hyper, jax.random.key(1), episodes=2)

    asked, played = play(hyper)
    assert played.costs.shape == (3, 2) and played.numbers["online_episodes"] == 7 * 3 * 2
    most = float(hyper.data.extra["ctg"][hyper.data.start].max())
    np.testing.assert_allclose(asked["ctg"], [hyper.cost_limit, *most * np.linspace(0, 1, 6)], rtol=1e-5)
    assert (asked["rtg"] == -4.0).all() and 0 <= played.numbers["violations"] <= 1


def test_an_environment_without_costs_is_refused():
    env, params = make("gamble")
    data = make_dataset("random", env, params, jax.random.key(0), 20)
    with pytest.raises(ValueError, match="no column `cost`"):
        make_method("cdt", env, make_model("mlp", width=8), window=1).hyper(data)


@pytest.mark.slow
def test_the_way_that_is_taken_depends_on_what_it_may_cost():
    """Data of walks along every row, so that all points of the exact front are in it."""
    env, params = make("safe_grid,hazards=2,limit=12")
    data = make_dataset("random", env, params, jax.random.key(0), 30_000)
    model = make_model("gpt", width=32, layers=2, heads=2, context=40)
    learner = make_method("cdt", env, model, num_envs=64)
    hyper = learner.hyper(data, env_params=params, decay_updates=1500.0, lr=2e-3, target=-5.0, cost_limit=0.0)
    run = train(learner, hyper, total_steps=1500 * learner.steps_per_update, evaluations=1, progress=False)
    row = run.rows[-1]
    print({name: value for name, value in row.items() if "at_" in name})
    assert row["cost_mean"] < 0.3
