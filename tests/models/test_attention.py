"""Windowed attention and its ring cache against slow numpy twins, with every term that scores may have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import close, flags

from jaxrl_seq import ops
from jaxrl_seq.ops import Relative, Weighing

few = settings(max_examples=8, deadline=None)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def attention_twin(q, k, v, start, relative=None, sink=None, clip=(0.0, 1.0)):
    """Query after query over its own keys; relative: (queries[B, N, T, F], keys[N, W, F]), sink[N]."""
    batch, heads, length, size = q.shape
    window, share = k.shape[2] - length, heads // k.shape[1]
    out = np.zeros_like(q)
    for b, n, t in np.ndindex(batch, heads, length):
        seen = slice(start[b, t], window + t + 1)
        scores = k[b, n // share, seen] @ q[b, n, t] / np.sqrt(size)
        if relative is not None:
            distances = window + t - np.arange(seen.start, seen.stop)
            scores = scores + relative[1][n, distances] @ relative[0][b, n, t]
        weights = np.exp(scores)
        weights = weights / (weights.sum() + (0 if sink is None else np.exp(sink[n])))
        weights = np.clip((clip[1] - clip[0]) * weights + clip[0], 0, 1)
        out[b, n, t] = weights @ v[b, n // share, seen]
    return out


@pytest.mark.parametrize("impl", ["dense", "mapped"])
@pytest.mark.parametrize("length, window", [(1, 3), (5, 5), (17, 4), (40, 6), (70, 50)])
def test_windowed_attention(impl, length, window):
    rng = np.random.default_rng(length)
    batch, heads, kv_heads, size = 3, 4, 2, 2
    q = rng.normal(size=(batch, heads, length, size))
    k, v = rng.normal(size=(2, batch, kv_heads, window + length, size))
    position = ops.episode_position(jnp.asarray(flags(rng, length, batch, share=0.1)), jnp.array([0, 2, 99]))
    start = np.asarray(ops.key_start(position.astype(jnp.int32), window))
    expected = attention_twin(q, k, v, start)
    k[:, :, : start.min()] = np.nan  # never seen by anyone
    close(jax.jit(ops.windowed_attention, static_argnames="impl")(q, k, v, start, impl=impl), expected)


def test_attention_impls_have_the_same_gradient():
    rng = np.random.default_rng(0)
    q, ct = rng.normal(size=(2, 2, 4, 70, 4))
    k, v = rng.normal(size=(2, 2, 2, 80, 4))
    position = ops.episode_position(jnp.asarray(flags(rng, 70, 2, share=0.05)), jnp.array([3, 0]))
    start = ops.key_start(position, 10)

    def gradient(impl):
        def loss(q, k, v):
            return jnp.sum(ct * ops.windowed_attention(q, k, v, start, impl=impl))

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v)

    close(gradient("dense"), gradient("mapped"))


@jax.jit
def ring_step(cache, q, k, v, reset):
    cache, visible = ops.cache_write(cache, k, v, reset)
    return cache, ops.cached_attention(q, cache, visible)


@few
@given(st.integers(0, 10**6), st.sampled_from([1, 4]), st.sampled_from([0, 5, 2**30]))
def test_ring_cache_is_a_list_of_the_latest_steps(seed, window, clock):
    rng = np.random.default_rng(seed)
    steps, batch, size = 9, 2, 2
    q, k, v = rng.normal(size=(3, steps, batch, 1, size))
    reset = flags(rng, steps, batch)
    cache = ops.set_clocks(ops.empty_cache((batch,), 1, window, size, jnp.float64), clock)
    past = [[] for _ in range(batch)]
    for t in range(steps):
        cache, got = ring_step(cache, q[t], k[t], v[t], reset[t])
        for b in range(batch):
            past[b] = ([] if reset[t, b] else past[b])[-window + 1 :] if window > 1 else []
            past[b].append(t)
            scores = k[past[b], b, 0] @ q[t, b, 0] / np.sqrt(size)
            weights = np.exp(scores) / np.exp(scores).sum()
            close(got[b, 0], weights @ v[past[b], b, 0])
    assert cache.clock == clock + steps and cache.clock.dtype == jnp.int32


def test_attention_refuses():
    q, k = jnp.zeros((1, 3, 1, 2)), jnp.zeros((1, 2, 3, 2))
    start = jnp.zeros((1, 1), jnp.int32)
    with pytest.raises(ValueError, match="3 query heads cannot share 2 key heads"):
        ops.windowed_attention(q, k, k, start)
    with pytest.raises(ValueError, match="unknown impl 'flash'"):
        ops.windowed_attention(q, q, q, start, impl="flash")  # pyright: ignore[reportArgumentType]


def options_case(seed, length, window):
    """Arguments of windowed_attention, and of its twin, with all options in use."""
    rng = np.random.default_rng(seed)
    batch, heads, kv_heads, size, extra = 2, 4, 2, 2, 3
    q = rng.normal(size=(batch, heads, length, size))
    k, v = rng.normal(size=(2, batch, kv_heads, window + length, size))
    reset = flags(rng, length, batch, share=0.1)
    position = ops.episode_position(jnp.asarray(reset), jnp.array([0, 99], jnp.int32))
    start = np.asarray(ops.key_start(position, window))
    relative = (rng.normal(size=(batch, heads, length, extra)), rng.normal(size=(heads, window, extra)))
    return (q, k, v, start), relative, rng.normal(size=heads), (-0.2, 1.1)


@pytest.mark.parametrize("impl", ["dense", "mapped"])
@pytest.mark.parametrize("length, window", [(1, 3), (6, 6), (40, 7), (70, 33)])
def test_terms_of_scores_and_weights(impl, length, window):
    """A term by distance, a sink and clipped weights, in blocks smaller and larger than the window."""
    arguments, relative, sink, clip = options_case(length, length, window)

    @jax.jit
    def run(arguments, relative, sink):
        options = {"relative": Relative(*relative), "weighing": Weighing(sink, clip), "impl": impl}
        return ops.windowed_attention(*arguments, **options)

    close(run(arguments, relative, sink), attention_twin(*arguments, relative, sink, clip))


@pytest.mark.parametrize("clock", [0, 3, 2**30 + 1])
def test_a_cache_reads_the_same_terms(clock):
    """Acting step after step gives what the parallel view gives, wherever the ring stands."""
    length, window = 11, 4
    arguments, relative, sink, clip = options_case(1, length, window)
    q, k, v, _ = arguments
    k, v = k[:, :, window:], v[:, :, window:]
    reset = flags(np.random.default_rng(2), length, 2)
    reset[0] = True
    cache = ops.set_clocks(ops.empty_cache((2,), 2, window, 2, jnp.float64), clock)
    weighing = Weighing(jnp.asarray(sink), clip)

    keys, values = ops.extend_cache(cache, k, v)
    start = ops.key_start(ops.episode_position(jnp.asarray(reset), cache.age), window)
    want = ops.windowed_attention(q, keys, values, start, relative=Relative(*relative), weighing=weighing)

    @jax.jit
    def step(cache, q, k, v, reset, distance_queries):
        cache, visible = ops.cache_write(cache, k, v, reset)
        term = Relative(distance_queries, jnp.asarray(relative[1]))
        return cache, ops.cached_attention(q, cache, visible, relative=term, weighing=weighing)

    for t in range(length):
        cache, y = step(cache, q[:, :, t], k[:, :, t], v[:, :, t], reset[t], relative[0][:, :, t])
        close(y, want[:, :, t])


def test_a_sink_can_take_everything_and_clipping_reaches_zero():
    q, k = jnp.zeros((1, 1, 1, 2)), jnp.zeros((1, 1, 5, 2))
    v, start = jnp.ones((1, 1, 5, 2)), jnp.zeros((1, 1), jnp.int32)

    def attend(**weighing):
        return float(ops.windowed_attention(q, k, v, start, weighing=Weighing(**weighing))[0, 0, 0, 0])

    assert attend() == pytest.approx(1)
    assert attend(sink=jnp.array([50.0])) == pytest.approx(0, abs=1e-15)
    assert attend(sink=jnp.array([np.log(5.0)])) == pytest.approx(0.5)
    assert attend(clip=(-0.3, 1.0)) == 0.0  # five weights of 1/5 are stretched to 1.3 / 5 - 0.3


def test_alibi_prefers_what_is_near_and_its_slopes_halve():
    assert ops.alibi_slopes(8) == (0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625)
