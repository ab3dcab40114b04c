"""Data sets: what is derived equals slow twins, parts and unions are what they say, and bad columns are named."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flat_data import META, columns, dataset, slow_returns_to_go
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_seq.envs import Box, Discrete, Tree, make
from jaxrl_seq.offline import Meta, build, concatenate, require_env, returns_to_go, take_episodes, top_fraction
from jaxrl_seq.offline import warn_target as warn
from jaxrl_seq.offline.dataset import next_obs, same_kind

LENGTHS = (3, 1, 5, 2, 1, 4)
few_lengths = st.lists(st.integers(1, 6), min_size=1, max_size=8).filter(lambda x: sum(x) <= 20)


def padded(lengths):
    """The lengths with one more episode, so that there are 32 steps: one shape, one compilation."""
    return [*lengths, 32 - sum(lengths)]


@settings(max_examples=25, deadline=None)
@given(few_lengths, st.floats(0, 1), st.integers(0, 99))
def test_clock_columns_and_returns_to_go_equal_slow_twins(lengths, gamma, seed):
    lengths = padded(lengths)
    data = dataset(lengths, seed)
    np.testing.assert_array_equal(data.t, np.concatenate([np.arange(n) for n in lengths]))
    np.testing.assert_array_equal(data.to_end, np.concatenate([np.arange(n)[::-1] for n in lengths]))
    np.testing.assert_array_equal(data.episode, np.repeat(np.arange(len(lengths)), lengths))
    np.testing.assert_array_equal(data.length, lengths)
    reward = np.asarray(data.reward)
    np.testing.assert_allclose(data.rtg, slow_returns_to_go(reward, lengths, 1.0), rtol=1e-5, atol=1e-5)
    discounted = jax.jit(returns_to_go)(data.reward, data.to_end, jnp.float32(gamma))
    np.testing.assert_allclose(discounted, slow_returns_to_go(reward, lengths, gamma), rtol=1e-5, atol=1e-5)
    sums = [part.sum() for part in np.split(reward, np.cumsum(lengths)[:-1])]
    np.testing.assert_allclose(data.returns, sums, rtol=1e-5, atol=1e-5)
    # g_t - r_t = g_(t+1) inside an episode, 0 at its end
    following = np.where(data.to_end > 0, np.append(data.rtg[1:], 0), 0)
    np.testing.assert_allclose(data.rtg - data.reward, following, rtol=1e-5, atol=1e-5)


def test_a_reward_that_is_no_number_stays_in_its_episode():
    given = columns(LENGTHS)
    given["reward"][4] = np.nan
    rtg = build(**given, meta=META).rtg
    np.testing.assert_array_equal(np.isnan(rtg), np.arange(16) == 4)


def test_what_an_action_led_to():
    data = dataset(LENGTHS)
    seen = next_obs(data, jnp.arange(data.steps))
    np.testing.assert_array_equal(seen, data.obs + np.array([0, 1]))


def test_statistics_normalise_floats_and_leave_the_rest():
    space = Tree({"floats": Box(-9, 9, (3,)), "which": Discrete(7)})
    given = columns(LENGTHS)
    floats = np.random.default_rng(1).normal(5, 3, (16, 3)).astype(np.float32)
    floats[:, 2] = 4.0  # never varies
    which = np.arange(16, dtype=np.int32) % 7
    given |= {"obs": {"floats": floats, "which": which}, "final_obs": {"floats": floats[:6], "which": which[:6]}}
    data = build(**given, meta=Meta(space, Discrete(5)))
    seen = data.stats.normalise(data.obs)
    np.testing.assert_allclose(seen["floats"][:, :2].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(seen["floats"][:, :2].std(0), 1, rtol=1e-5)
    np.testing.assert_array_equal(seen["floats"][:, 2], 0)
    np.testing.assert_array_equal(seen["which"], which)
    assert int(data.stats.length_max) == 5 and int(data.stats.action_high) == given["action"].max()
    assert float(data.stats.return_high) == float(data.returns.max())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c | {"action": c["action"][:-1]}, r"action has shape \(15,\), but there are 16 rewards"),
        (lambda c: c | {"final_obs": c["final_obs"][1:]}, r"final_obs has shape \(5, 2\), but there are 6 episodes"),
        (lambda c: c | {"source": c["source"][1:]}, r"source has shape \(5,\), but there are 6 episodes"),
        (lambda c: c | {"length": [3, 0, 1, 5, 2, 1, 4]}, "Episode 1 has no steps: leave it out"),
        (
            lambda c: c | {"truncated": c["truncated"] & (np.arange(16) < 15)},
            "Episode 5, which opens at row 12 of 16, has",
        ),
        (lambda c: c | {"length": [3, 1, 5, 2, 1]}, "Episode 5, which opens at row 12 of 16, has no end"),
        (lambda c: c | {"length": [3, 1, 4, 3, 1, 4]}, "Episode 2, step 3 is its last one but neither"),
        (lambda c: c | {"length": [4, 5, 2, 1, 4]}, "Episode 0, step 2 of 4 carries a flag of end"),
        (lambda c: c | {"truncated": c["truncated"] | c["terminated"]}, "Episode 0, step 2 is both terminated and"),
        (lambda c: {k: v[:0] if k != "extra" else {} for k, v in c.items()}, "needs at least one step"),
    ],
)
def test_columns_that_do_not_fit_are_refused(change, message):
    given = columns(LENGTHS)
    with pytest.raises(ValueError, match=message):
        build(**change(given), meta=META)


def test_parts_and_unions():
    data = dataset(LENGTHS)
    part = take_episodes(data, [4, 2])
    np.testing.assert_array_equal(part.obs[:, 0], [4, 2, 2, 2, 2, 2])
    np.testing.assert_array_equal(part.source, [4, 2])
    np.testing.assert_array_equal(part.final_obs, [[4, 1], [2, 5]])
    assert float(part.stats.return_high) == pytest.approx(float(data.returns[jnp.array([4, 2])].max()))
    again = concatenate([take_episodes(data, [0, 1, 2]), take_episodes(data, [3, 4, 5])])
    jax.tree.map(np.testing.assert_array_equal, again, data)
    both = concatenate([data, part], number=True)
    np.testing.assert_array_equal(both.source, [0] * 6 + [1] * 2)
    with pytest.raises(ValueError, match=r"episodes 0 \.\. 5; got \[6\]"):
        take_episodes(data, [6])
    other = build(**columns(LENGTHS), meta=Meta(Box(-1, 1, (3,)), Discrete(5)))
    with pytest.raises(ValueError, match="Part 1 has the observation_space"):
        concatenate([data, other])
    bare = build(**(columns(LENGTHS) | {"extra": {}}), meta=META)
    with pytest.raises(ValueError, match=r"Part 1 has the further columns \[\], part 0 \['cost'\]"):
        concatenate([data, bare])


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.8, 1.0])
def test_the_top_fraction_is_counted_in_steps(fraction):
    data = dataset(LENGTHS)
    best = top_fraction(data, fraction)
    kept, returns = np.asarray(best.source), np.asarray(data.returns)
    left_out = np.setdiff1d(np.arange(6), kept)
    assert (np.diff(kept) > 0).all() and (returns[left_out, None] <= returns[kept]).all()
    assert best.steps >= fraction * data.steps
    worst = kept[np.argmin(returns[kept])]  # without it there would be too few
    assert best.steps - LENGTHS[worst] < fraction * data.steps


def test_scores_columns_and_targets():
    data = dataset(LENGTHS)
    assert data.score(5.0) == 50.0
    with pytest.raises(ValueError, match="Scores need returns of random play"):
        build(**columns(LENGTHS), meta=Meta(META.observation_space, META.action_space)).score(5.0)
    more = data.with_column("ctg", returns_to_go(data.extra["cost"][:, 0], data.to_end))
    assert sorted(more.extra) == ["cost", "ctg"] and sorted(data.extra) == ["cost"]
    with pytest.raises(ValueError, match=r"Column 'x' has shape \(3,\); a data set of 16 steps"):
        data.with_column("x", jnp.zeros(3))
    low, high = float(data.stats.return_low), float(data.stats.return_high)
    with pytest.warns(UserWarning, match=r"target return 99 is outside of the data's range \["):
        warn(data.stats, [low, 99.0, high])
    with pytest.raises(ValueError, match="fraction is 0"):
        top_fraction(data, 0)


def test_data_of_another_environment_is_refused():
    env, _ = make("cartpole")
    with pytest.raises(ValueError, match=r"differ in observations: Box.*shape=\(2,\).*cartpole|cartpole differ"):
        require_env(dataset(LENGTHS), env)
    given = columns(LENGTHS) | {"action": np.full((16, 2), 3.0, np.float32)}
    given |= {"obs": np.zeros((16, 4), np.float32), "final_obs": np.zeros((6, 4), np.float32)}
    far = build(**given, meta=Meta(Box(-1, 1, (4,)), Box(-5, 5, (2,))))
    with pytest.raises(ValueError, match=r"actions from \[3. 3.\] to \[3. 3.\], outside of Box"):
        require_env(far, make("point_mass")[0])
    assert same_kind(Tree({"a": Box(0, 1, (2,))}), Tree({"a": Box(0, 9, (2,))}))
    assert not same_kind(Tree({"a": Box(0, 1, (2,))}), Tree({"b": Box(0, 1, (2,))}))
