"""The attention layer with its options against the papers' formulas, query after query, values and slopes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twins import compiled

from jaxrl_seq import ops
from jaxrl_seq.models import SlidingWindowAttention, TransformerConfig

STEPS, BATCH, WIDTH, HEADS, WINDOW = 11, 2, 8, 4, 3


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rms(x, scale):
    return scale * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def layer_twin(p, x, reset, *, kv_heads, positions="none", sink=False, clipped=False, gated=False, qk_norm=False):
    """x[T, B, D] of environments that all begin at the first step -> y[T, B, D]."""
    size = WIDTH // HEADS
    projected = (x @ p["qkv"]["kernel"]).reshape(*x.shape[:2], HEADS + 2 * kv_heads, size)
    q, k, v = np.split(projected, [HEADS, HEADS + kv_heads], axis=2)
    if qk_norm:
        q, k = rms(q, p["q_norm"]["scale"]), rms(k, p["k_norm"]["scale"])
    y = np.zeros((*x.shape[:2], HEADS, size))
    for t, b, n in np.ndindex(*x.shape[:2], HEADS):
        episode = np.flatnonzero(reset[: t + 1, b])[-1]
        seen = np.arange(max(episode, t - WINDOW + 1), t + 1)
        shared = n * kv_heads // HEADS
        scores = k[seen, b, shared] @ q[t, b, n] / np.sqrt(size)
        if positions == "alibi":
            scores = scores - 2.0 ** (-8 * (n + 1) / HEADS) * (t - seen)
        raised = np.exp(scores)
        weights = raised / (raised.sum() + (np.exp(p["sink_logit"][n]) if sink else 0))
        if clipped:
            weights = np.clip(1.06 * weights - 0.03, 0, 1)
        y[t, b, n] = weights @ v[seen, b, shared]
    if gated:
        y = y * sigmoid(x @ p["gate"]["kernel"] + p["gate"]["bias"])[..., None]
    return y.reshape(x.shape) @ p["out"]["kernel"]


def drawn(params, rng):
    """All parameters random: those that begin at zero or one would hide a wrong formula."""
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)


CASES = {
    "alibi": (4, {"positions": "alibi"}),
    "sink": (2, {"positions": "none", "sink": True}),
    "clipped": (1, {"positions": "none", "clipped": True, "qk_norm": True}),
    "all": (2, {"positions": "alibi", "sink": True, "clipped": True, "gated": True, "qk_norm": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_layer_is_the_formula(case):
    kv_heads, options = CASES[case]
    model = compiled(SlidingWindowAttention(WIDTH, HEADS, kv_heads, WINDOW, **options))
    rng = np.random.default_rng(len(case))
    params = drawn(jax.eval_shape(lambda: model.init(jax.random.key(0), WIDTH)), rng)
    x, dx, ct = rng.normal(size=(3, STEPS, BATCH, WIDTH))
    reset = rng.random((STEPS, BATCH)) < 0.2
    reset[0] = True
    fresh = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        model.initialize_carry((BATCH,)),
    )

    def twin(params, x):
        return layer_twin(params["params"], x, reset, kv_heads=kv_heads, **options)

    def loss(params, x):
        y = model.apply(params, fresh, x, reset)[1]
        return jnp.sum(ct * y), y

    gradient, y = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, jnp.asarray(x))
    np.testing.assert_allclose(y, twin(params, x), atol=1e-10)

    direction = drawn(params, rng)
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves((direction, dx)), strict=True)
    slope = sum(float(np.sum(g * d)) for g, d in pairs)

    def moved(by):
        return np.sum(ct * twin(jax.tree.map(lambda p, d: p + by * d, params, direction), x + by * dx))

    assert slope == pytest.approx((moved(1e-6) - moved(-1e-6)) / 2e-6, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("impl", ["dense", "mapped"])
@pytest.mark.parametrize("length, window", [(9, 4), (70, 5)])
def test_gradients_of_every_term(impl, length, window):
    """Against jax.grad of one dense softmax over gathered distances, in blocks smaller and larger than T."""
    rng = np.random.default_rng(length)
    batch, heads, kv_heads, size, extra, clip = 2, 4, 2, 2, 3, (-0.2, 1.1)
    q, ct = rng.normal(size=(2, batch, heads, length, size))
    k, v = rng.normal(size=(2, batch, kv_heads, window + length, size))
    sink, queries = rng.normal(size=heads), rng.normal(size=(batch, heads, length, extra))
    table = rng.normal(size=(heads, window, extra))
    reset = jnp.asarray(rng.random((length, batch)) < 0.1)
    start = ops.key_start(ops.episode_position(reset, jnp.array([0, 99], jnp.int32)), window)

    def twin(q, k, v, queries, table, sink):
        k, v = (jnp.repeat(a, heads // kv_heads, axis=1) for a in (k, v))
        distance = window + jnp.arange(length)[:, None] - jnp.arange(window + length)
        mask = (jnp.arange(window + length) >= start[..., None]) & (distance >= 0)
        scores = jnp.einsum("bnth,bnsh->bnts", q, k) / np.sqrt(size)
        by_distance = jnp.einsum("bntf,nwf->bntw", queries, table)
        index = jnp.broadcast_to(jnp.clip(distance, 0, window - 1), scores.shape)
        scores = scores + jnp.take_along_axis(by_distance, index, axis=-1)
        raised = jnp.where(mask[:, None], jnp.exp(scores), 0)
        weights = raised / (raised.sum(-1, keepdims=True) + jnp.exp(sink)[:, None, None])
        return jnp.clip((clip[1] - clip[0]) * weights + clip[0], 0, 1) @ v

    def op(q, k, v, queries, table, sink):
        options = {"relative": ops.Relative(queries, table), "weighing": ops.Weighing(sink, clip), "impl": impl}
        return ops.windowed_attention(q, k, v, start, **options)

    arguments = tuple(map(jnp.asarray, (q, k, v, queries, table, sink)))
    got, want = (
        jax.jit(jax.value_and_grad(lambda *a, f=f: jnp.sum(ct * f(*a)), argnums=range(6)))(*arguments)
        for f in (op, twin)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), got, want)
    assert all(float(jnp.abs(g).max()) > 1e-3 for g in want[1])


def test_refuses_choices_that_do_not_exist():
    with pytest.raises(ValueError, match="alibi"):
        TransformerConfig(positions="alibbi")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="width=10 must be a multiple of heads=4; nearest: 8 or 12"):
        TransformerConfig(width=10, positions="alibi")
