"""Samplers: every batch equals a slow twin, windows stay in their episodes and reach the ends, draws are uniform."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flat_data import META, dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from jaxrl_seq.offline import Dataset, Stats, Transitions, Windows
from jaxrl_seq.offline.sampler import read_transitions, read_windows

LENGTHS = (3, 1, 5, 2, 1, 4)
STEPS = sum(LENGTHS)
ANCHORS = ("start", "end", "first")


def slow_window(data, row: int, length: int, stop: int) -> dict[str, np.ndarray]:
    """One window by a loop, {column: [W, ...]}."""
    host = jax.device_get(data)
    out = {name: [] for name in ("obs", "action", "reward", "rtg", "next_obs", "prev_action", "prev_reward", "mask")}
    left = min(int(host.to_end[row]), stop)
    for k in range(length):
        inside, i = k <= left, row + min(k, left)
        opens = host.t[i] == 0
        for name in ("obs", "action", "reward", "rtg"):
            out[name].append(getattr(host, name)[i] * inside)
        out["next_obs"].append((host.obs[i] + np.array([0, 1])) * inside)
        out["prev_action"].append(0 if opens or not inside else host.action[i - 1])
        out["prev_reward"].append(0 if opens or not inside else host.reward[i - 1])
        out["mask"].append(inside)
    return {name: np.stack(values) for name, values in out.items()}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, STEPS - 1), st.integers(0, 6), st.integers(0, 9))
def test_windows_equal_a_slow_twin(row, stop, seed):
    data = dataset(LENGTHS, seed)
    rows, stops = jnp.array([row, 0], jnp.int32), jnp.array([stop, 3], jnp.int32)
    window = jax.jit(read_windows, static_argnums=2)(data, rows, 4, stops)
    for name, want in slow_window(data, row, 4, stop).items():
        np.testing.assert_allclose(getattr(window, name)[:, 0], want, err_msg=name, rtol=1e-6)
    np.testing.assert_array_equal(window.inputs.first[:, 0], (data.t[window.index[:, 0]] == 0) & window.mask[:, 0])
    np.testing.assert_array_equal(window.extra["cost"][:, 0, 0] == 0, ~window.mask[:, 0])


@pytest.mark.parametrize("weight", ["step", "episode"])
@pytest.mark.parametrize("anchor", ANCHORS)
def test_windows_stay_inside_their_episode_and_reach_its_end(anchor, weight):
    data, length = dataset(LENGTHS), 3
    sampler = jax.jit(lambda key: Windows(length, weight, anchor)(key, data, 4000))
    window = jax.device_get(sampler(jax.random.key(0)))
    episode, t, mask = window.obs[..., 0], window.obs[..., 1], window.mask
    np.testing.assert_array_equal(np.where(mask, episode, episode[0]), np.broadcast_to(episode[0], episode.shape))
    np.testing.assert_array_equal(np.where(mask, t - t[0], 0), np.where(mask, np.arange(length)[:, None], 0))
    assert (np.diff(mask.astype(int), axis=0) <= 0).all() and mask[0].all()  # padding is on the right only
    ends = (window.terminated | window.truncated).any(0)
    reached = set(episode[0][ends].astype(int))
    # an episode longer than the window is not seen to its end from its first step
    assert reached == {e for e, n in enumerate(LENGTHS) if anchor != "first" or n <= length}
    assert set(episode[0].astype(int)) == set(range(len(LENGTHS)))
    # for "start" a window is cut by the episode's end only; for "end" it shows what there is of the past
    full = mask.sum(0)
    begin, lengths = t[0].astype(int), np.asarray(LENGTHS)[episode[0].astype(int)]
    if anchor == "start":
        np.testing.assert_array_equal(full, np.minimum(length, lengths - begin))
    if anchor == "end":
        assert (full[begin > 0] == length).all() and (full <= lengths - begin).all()
    if anchor == "first":
        assert (begin == 0).all()


def test_windows_of_whole_episodes_begin_at_any_clock_and_others_at_zero():
    data, keys = dataset(LENGTHS), jax.random.split(jax.random.key(0), 500)
    clocks = {
        name: jax.vmap(lambda key, name=name: Windows(3, "step", name)(key, data, 2).clock)(keys) for name in ANCHORS
    }
    assert not clocks["start"].any() and not clocks["end"].any()
    assert chisquare(np.bincount(np.asarray(clocks["first"]) % 7, minlength=7)).pvalue > 1e-3


def chances(sampler, drawn) -> float:
    """p-value of the rows that are drawn, given equal chances of steps or of episodes."""
    data = dataset(LENGTHS)
    rows = np.asarray(drawn(jax.jit(lambda key: sampler(key, data, 20_000))(jax.random.key(3))))
    share = np.full(STEPS, 1 / STEPS)
    if sampler.weight == "episode":
        share = np.repeat([1 / (len(LENGTHS) * n) for n in LENGTHS], LENGTHS)
    return chisquare(np.bincount(rows, minlength=STEPS), share * len(rows)).pvalue


@pytest.mark.parametrize("weight", ["step", "episode"])
def test_draws_are_uniform_over_steps_or_over_episodes(weight):
    assert chances(Transitions(weight=weight), lambda batch: batch.index) > 1e-3
    # anchored at the end, each step is the last one of a window equally often
    assert chances(Windows(3, weight, "end"), lambda batch: batch.index[-1]) > 1e-3


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.floats(0, 1), st.integers(0, 9))
def test_transitions_equal_a_slow_twin(n, gamma, seed):
    data = dataset(LENGTHS, seed)
    batch = jax.jit(read_transitions, static_argnums=2)(data, jnp.arange(STEPS), n, jnp.float32(gamma))
    host = jax.device_get(data)
    for row in range(STEPS):
        steps = min(n, host.to_end[row] + 1)
        last = row + steps - 1
        want = sum(gamma**k * host.reward[row + k] for k in range(steps))
        np.testing.assert_allclose(batch.reward[row], want, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(batch.discount[row], gamma**steps, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(batch.next_obs[row], host.obs[last] + np.array([0, 1]))
        assert batch.terminated[row] == host.terminated[last] and batch.truncated[row] == host.truncated[last]
    np.testing.assert_array_equal(batch.obs, host.obs)


def test_one_key_one_batch_under_jit_vmap_and_scan():
    data, sampler = dataset(LENGTHS), Windows(3)
    keys = jax.random.split(jax.random.key(0), 5)
    alone = [jax.jit(sampler, static_argnums=2)(key, data, 4) for key in keys]
    lanes = jax.jit(jax.vmap(sampler, in_axes=(0, None, None)), static_argnums=2)(keys, data, 4)
    scanned = jax.jit(lambda data: jax.lax.scan(lambda c, k: (c, sampler(k, data, 4)), 0, keys)[1])(data)
    for i, one in enumerate(alone):
        for other in (lanes, scanned):
            jax.tree.map(np.testing.assert_array_equal, one, jax.tree.map(lambda x, i=i: x[i], other))
    assert not np.array_equal(alone[0].index, alone[1].index)


def big(steps: int) -> Dataset:
    """The shapes of a data set of so many steps, without its memory."""

    def column(dtype, *shape):
        return jax.ShapeDtypeStruct((steps, *shape), dtype)

    few = jax.ShapeDtypeStruct((steps // 100,), jnp.int32)
    obs = jax.ShapeDtypeStruct((17,), jnp.float32)
    one = jax.ShapeDtypeStruct((), jnp.float32)
    flags, clock, numbers = column(bool), column(jnp.int32), column(jnp.float32)
    return Dataset(
        obs=column(jnp.float32, 17),
        action=column(jnp.int32),
        reward=numbers,
        terminated=flags,
        truncated=flags,
        t=clock,
        to_end=clock,
        episode=clock,
        rtg=numbers,
        final_obs=jax.ShapeDtypeStruct((steps // 100, 17), jnp.float32),
        start=few,
        length=few,
        source=few,
        stats=Stats(obs, obs, few, few, one, one, one, few),
        extra={},
        meta=META,
    )


@pytest.mark.parametrize("sampler", [Windows(20, "episode", "end"), Transitions(3)], ids=str)
def test_a_million_steps_are_sampled_without_a_copy(sampler):
    """What a program needs beside its arguments is the batch: under 1 MB, where the data has 90 MB."""

    @partial(jax.jit, static_argnums=2)
    def train(keys, data, batch):
        def one(total, key):
            drawn = sampler(key, data, batch)
            return total + sum(jnp.sum(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(drawn)), None

        return jax.lax.scan(one, 0.0, keys)[0]

    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 100))
    memory = train.lower(keys, big(1_000_000), 64).compile().memory_analysis()
    assert memory is not None
    assert memory.argument_size_in_bytes > 80e6 and memory.temp_size_in_bytes < 1e6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Windows(0), "length must be at least 1, got 0"),
        (lambda: Windows(3, "size"), "weight must be one of step, episode, got 'size'"),
        (lambda: Windows(3, anchor="middle"), "anchor must be one of start, end, first"),
        (lambda: Transitions(0), r"n \(0\) must be at least 1"),
    ],
)
def test_impossible_samplers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
