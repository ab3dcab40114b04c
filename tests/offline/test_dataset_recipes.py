"""Recipes: the same key gives the same data, returns are those of who acted, and episodes of any length are as frequent
in the data as in the world."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flat_data import META
from scipy.stats import spearmanr

from jaxrl_seq.envs import Discrete, make
from jaxrl_seq.offline import Meta, Teacher, check_dataset, make_dataset
from jaxrl_seq.offline.behaviours import Careful, Recording, from_recording, record_episodes
from jaxrl_seq.offline.dataset import next_obs
from jaxrl_seq.offline.recipes import _goal, _Order


def made(recipe: str, spec: str, steps: int, seed: int = 0, **options):
    env, params = make(spec)
    data = make_dataset(recipe, env, params, jax.random.key(seed), steps, **options)
    assert data.steps >= steps and data.meta.recipe == recipe
    assert check_dataset(data, env).failed == ()
    return data, env


def error_of_mean(data) -> float:
    return float(np.std(data.returns)) / np.sqrt(data.num_episodes)


def test_random_play_of_episodes_that_end_early_is_not_biased_towards_short_ones():
    data, env = made("random", "cartpole", 8000)
    assert abs(float(data.returns.mean()) - env.reference()["random"]) < 4 * error_of_mean(data)
    assert data.steps < 8000 + int(data.stats.length_max)
    assert int(data.length.sum()) == data.steps and set(np.asarray(data.source)) == {100}


def test_an_expert_earns_its_reference_return_and_one_key_is_one_data_set():
    data, env = made("expert", "point_mass", 3000)
    assert abs(float(data.returns.mean()) - env.reference()["expert"]) < 4 * error_of_mean(data)
    assert data.steps == 3000 and bool(data.truncated[49]) and not data.terminated.any()
    again, _ = made("expert", "point_mass", 3000)
    jax.tree.map(np.testing.assert_array_equal, again, data)
    other, _ = made("expert", "point_mass", 3000, seed=1)
    assert not np.array_equal(other.obs, data.obs)
    # the dynamics say where an action leads to, also at the end of an episode
    moved = data.obs[:, :2] + 0.1 * data.obs[:, 2:]
    np.testing.assert_allclose(next_obs(data, jnp.arange(data.steps))[:, :2], moved, atol=1e-6)


def test_mixed_noise_is_drawn_for_each_episode():
    data, _ = made("eps-mix", "safe_grid", 3000)
    eps = np.asarray(data.source)
    assert eps.min() < 10 and eps.max() > 90 and data.extra["cost"].shape == (data.steps, 1)
    assert spearmanr(eps, data.returns).statistic < -0.5


@pytest.mark.parametrize(("recipe", "spec", "way"), [("stitch", "grid_stitch", 13), ("stitch", "cross_roads", 4)])
def test_stitching_data_holds_no_way_from_start_to_goal(recipe, spec, way):
    data, env = made(recipe, spec, 40 * way)
    assert (data.length == way).all() and set(np.asarray(data.source)) == {0, 1}
    start = np.asarray(env._obs(env.reset(jax.random.key(0), env.default_params())[0]))
    from_start = (np.asarray(data.obs)[np.asarray(data.start)] == start).all(-1)
    assert from_start.any() and not from_start.all()
    assert (np.asarray(data.returns)[from_start] == 0).all() and (np.asarray(data.returns)[~from_start] == 1).all()


@pytest.mark.slow
def test_careful_walks_earn_the_most_that_their_budget_allows():
    data, env = made("budgets", "safe_grid,hazards=3,limit=20", 4000)
    assert set(np.asarray(data.source)) == {0, 1, 2, 3}
    data = record_episodes(env, env.default_params(), Careful(env, eps=0.0), jax.random.key(1), 1000, META)
    cost = np.add.reduceat(np.asarray(data.extra["cost"])[:, 0], np.asarray(data.start))
    assert (cost == np.asarray(data.source)).all()
    assert (np.asarray(data.returns) == [dict(env.front())[int(budget)] for budget in cost]).all()


def test_a_teacher_that_is_good_enough_at_once_is_recorded_as_it_is():
    teacher = Teacher(goal=-1e9, model="mlp", width=8, num_envs=4)
    data, _ = made("medium-replay", "point_mass,limit=5", 100, teacher=teacher)
    assert data.steps == 100 and set(np.asarray(data.source)) == {0}
    assert dict(data.meta.notes)["teacher_updates"] == "0" and dict(data.meta.reference).keys() == {"random", "expert"}


def test_a_recording_keeps_whole_episodes_in_the_order_of_their_number():
    done = np.zeros((6, 3), bool)
    done[[1, 4], 0] = done[[3], 1] = done[[0, 1, 5], 2] = True
    obs = jnp.arange(18).reshape(6, 3)  # 3 t + b
    recording = Recording(
        obs=obs,
        action=obs % 5,
        reward=jnp.ones((6, 3)),
        terminated=jnp.asarray(done),
        truncated=jnp.zeros((6, 3), bool),
        after=obs + 100,
        source=obs,
        extra={},
    )
    meta = Meta(Discrete(18), Discrete(5))
    data = from_recording(recording, meta, steps=99)
    np.testing.assert_array_equal(data.source, [0, 1, 2, 6, 5, 8])
    np.testing.assert_array_equal(data.length, [2, 4, 1, 3, 1, 4])
    np.testing.assert_array_equal(data.final_obs, [103, 110, 102, 112, 105, 117])
    np.testing.assert_array_equal(data.obs[:6], [0, 3, 1, 4, 7, 10])
    early = from_recording(recording, meta, steps=99, wanted=2)
    np.testing.assert_array_equal(early.source, [0, 1, 2, 5])  # what began in the first two steps
    few = from_recording(recording, meta, steps=3)
    np.testing.assert_array_equal(few.source, [0, 1])
    with pytest.raises(ValueError, match="No episode ended within 6 steps"):
        still = jnp.zeros((6, 3), bool)
        from_recording(recording.replace(terminated=still), meta, steps=3)


@pytest.mark.parametrize(
    ("recipe", "spec", "message"),
    [
        ("expret", "cartpole", "Unknown recipe 'expret'. Did you mean 'expert'"),
        ("budgets", "cartpole", "cartpole has no guide that keeps to a budget; safe_grid has"),
        ("stitch", "cartpole", "cartpole names no such walks; grid_stitch and cross_roads"),
        ("expert", "gymnax:CartPole-v1", "has no expert; recipes without one"),
        ("medium", "gymnax:CartPole-v1", "no reference returns .* Give the teacher a goal"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(recipe, spec, message):
    env, params = make(spec)
    with pytest.raises(ValueError, match=message):
        make_dataset(recipe, env, params, jax.random.key(0), 100, teacher=Teacher(model="mlp", width=8, num_envs=2))


def test_impossible_sizes_are_refused():
    env, params = make("cartpole")
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        make_dataset("random", env, params, jax.random.key(0), 0)
    with pytest.raises(ValueError, match="fraction is 2"):
        Teacher(fraction=2)
    with pytest.raises(ValueError, match="every must be at least 1"):
        Teacher(every=0)


@pytest.mark.slow
def test_a_teacher_makes_data_between_random_and_expert():
    env, _ = make("point_mass")
    reference = env.reference()
    teacher = Teacher(model="mlp")
    medium, replay, both, again = (
        made(recipe, "point_mass", 5000, teacher=teacher)[0]
        for recipe in ("medium", "medium-replay", "medium-expert", "medium-replay")
    )
    third = reference["random"] + (reference["expert"] - reference["random"]) / 3
    returns = {name: float(x.returns.mean()) for name, x in (("medium", medium), ("replay", replay), ("both", both))}
    assert abs(returns["medium"] - third) < 40 + 4 * error_of_mean(medium)
    assert reference["random"] - 20 < returns["replay"] < returns["medium"] < returns["both"] < reference["expert"]
    assert float(dict(medium.meta.notes)["teacher_return"]) >= third
    assert (np.diff(np.asarray(replay.source)) >= 0).all() and len(set(np.asarray(replay.source))) > 3
    assert np.bincount(np.asarray(both.source)).tolist() == [50, 50]
    jax.tree.map(np.testing.assert_array_equal, again, replay)


@pytest.mark.slow
def test_histories_record_a_whole_training_and_a_failing_teacher_says_how_far_it_got():
    teacher = Teacher(max_updates=6, every=2, num_envs=8, model="mlp", width=8)
    histories, _ = made("histories", "cartpole", 2000, teacher=teacher)
    assert sorted(set(np.asarray(histories.source))) == [0, 2, 4, 6]
    with pytest.raises(ValueError, match=r"did not reach a return of 181\.5 in 6 updates; the best was"):
        made("medium", "cartpole", 100, teacher=teacher)


def test_medium_lies_between_random_play_and_the_expert():
    env, params = make("cartpole")
    goals = [_goal(_Order(env, params, jax.random.key(0), 1, META, Teacher(fraction=x))) for x in (0.25, 1.0)]
    assert goals == [2.5, 10.0]
