"""Transformer-XL and GTrXL as whole models against the formulas of their papers, one query at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twins import compiled

from jaxrl_seq.models import GTrXLConfig, TransformerXLConfig, make_model

STEPS, BATCH, WIDTH, HEADS, WINDOW = 13, 2, 8, 2, 4


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rms(p, x):
    return p["scale"] * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def relative_attention(p, x, reset):
    """Scores (q + u) k_j + (q + v) W_kR R_{t-j} over sqrt(H); reset[0] is True everywhere."""
    size = WIDTH // HEADS
    q, k, v = np.moveaxis((x @ p["qkv"]["kernel"]).reshape(*x.shape[:2], 3, HEADS, size), 2, 0)
    frequencies = 10000.0 ** (-np.arange(0, WIDTH, 2) / WIDTH)
    y = np.zeros_like(q)
    for t, b, n in np.ndindex(q.shape[:3]):
        episode = np.flatnonzero(reset[: t + 1, b])[-1]
        seen = range(max(episode, t - WINDOW + 1), t + 1)
        scores = []
        for j in seen:
            wave = np.concatenate([np.sin((t - j) * frequencies), np.cos((t - j) * frequencies)])
            r = (wave @ p["distance"]["kernel"]).reshape(HEADS, size)[n]
            content = (q[t, b, n] + p["content_bias"][n]) @ k[j, b, n]
            scores.append((content + (q[t, b, n] + p["position_bias"][n]) @ r) / np.sqrt(size))
        weights = np.exp(scores) / np.exp(scores).sum()
        y[t, b, n] = weights @ v[list(seen), b, n]
    return y.reshape(x.shape) @ p["out"]["kernel"]


def net(p, x):
    hidden = np.maximum(x @ p["widen"]["kernel"] + p["widen"]["bias"], 0)
    return hidden @ p["narrow"]["kernel"] + p["narrow"]["bias"]


def gate(p, x, y):
    y_r, y_z, y_h = np.split(y @ p["from_y"]["kernel"], 3, axis=-1)
    x_r, x_z = np.split(x @ p["from_x"]["kernel"], 2, axis=-1)
    r, z = sigmoid(y_r + x_r), sigmoid(y_z + x_z - p["bias"])
    return (1 - z) * x + z * np.tanh(y_h + (r * x) @ p["candidate"]["kernel"])


def twin(name, p, x, reset):
    """One layer: attention, then a ReLU net, each in the block of that model."""
    for block, branch in (("blocks_0", "mixer"), ("blocks_1", "net")):
        part, residual = p[block][branch], p[block]["residual"]

        def run(x, part=part, branch=branch):
            return net(part, x) if branch == "net" else relative_attention(part, x, reset)

        if name == "transformer_xl":
            x = rms(residual["norm"], x + run(x))
        else:
            x = gate(residual["gate"], x, np.maximum(run(rms(residual["norm"], x)), 0))
    return rms(p["norm"], x)


@pytest.mark.parametrize("name", ["transformer_xl", "gtrxl"])
def test_both_views_are_the_paper(name):
    model = compiled(make_model(name, width=WIDTH, layers=1, heads=HEADS, window=WINDOW, expand=2))
    rng = np.random.default_rng(len(name))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), WIDTH))
    params = jax.tree.map(lambda leaf: 0.7 * rng.normal(size=leaf.shape), shapes)
    x = rng.normal(size=(STEPS, BATCH, WIDTH))
    reset = rng.random((STEPS, BATCH)) < 0.15
    reset[0] = True
    want = twin(name, params["params"], x, reset)

    fresh = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        model.initialize_carry((BATCH,)),
    )
    _, y = jax.jit(model.apply)(params, fresh, x, reset)
    np.testing.assert_allclose(y, want, atol=1e-10)

    step, carry = jax.jit(model.step), fresh
    for t in range(STEPS):
        carry, y = step(params, carry, x[t], reset[t])
        np.testing.assert_allclose(y, want[t], atol=1e-10)


@pytest.mark.slow
def test_gtrxl_begins_nearly_reactive():
    """Shut gates let less of the past through than a residual that adds all of it."""
    with jax.enable_x64(False):
        x = jax.random.normal(jax.random.key(1), (WINDOW, 1, WIDTH))
        other = x.at[0].set(-x[0])
        reset = jnp.zeros((WINDOW, 1), bool)
        change = {}
        for name in ("transformer_xl", "gtrxl"):
            model = compiled(make_model(name, width=WIDTH, heads=HEADS, window=WINDOW))
            params = model.init(jax.random.key(0), WIDTH)
            last = jax.jit(lambda x, m=model, p=params: m.apply(p, m.initialize_carry((1,)), x, reset)[1][-1])
            change[name] = float(jnp.abs(last(x) - last(other)).max())
        assert 0 < change["gtrxl"] < 0.5 * change["transformer_xl"]


@pytest.mark.parametrize("config", [TransformerXLConfig, GTrXLConfig])
def test_refuses(config):
    with pytest.raises(ValueError, match="width=10 must be a multiple of heads=4; nearest: 8 or 12"):
        config(width=10)
    with pytest.raises(ValueError, match="window must be positive, got 0"):
        config(window=0)
