"""Recurrent memory tokens against a slow twin: segments, clocks that wrap, episodes that begin inside a segment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twins import compiled

from jaxrl_seq import ops
from jaxrl_seq.models import MemoryAttention, RecurrentMemoryConfig

STEPS, BATCH, WIDTH, HEADS, SEGMENT, MEMORY = 15, 3, 6, 2, 4, 2
SIZE = WIDTH // HEADS


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def attend(p, x, tokens, past, slot):
    """One vector x[D] at `slot` reads tokens[M, D] and past: (slot, input[D]) of its episode in this segment."""
    seen = [(slot, token) for token in tokens] + past
    inputs = np.stack([vector for _, vector in seen])
    distance = np.array([slot - other for other, _ in seen])
    q, _, _ = (x @ p["qkv"]["kernel"]).reshape(3, HEADS, SIZE)
    k, v = np.moveaxis((inputs @ p["qkv"]["kernel"]).reshape(-1, 3, HEADS, SIZE), 1, 0)[1:]
    y = []
    for n in range(HEADS):
        raised = np.exp(k[:, n] @ q[n] / np.sqrt(SIZE) - 2.0 ** (-8 * (n + 1) / HEADS) * distance)
        y.append(raised / raised.sum() @ v[:, n])
    return np.concatenate(y) @ p["out"]["kernel"]


def twin(p, x, reset, clock):
    """x[T, B, D] of environments that all begin at the first step -> y[T, B, D]."""
    y = np.zeros_like(x)
    for b in range(BATCH):
        tokens, past = p["initial"], []
        for t in range(STEPS):
            slot = (clock + t) % SEGMENT
            if reset[t, b]:
                tokens, past = p["initial"], []
            past = [*past, (slot, x[t, b])]
            y[t, b] = attend(p, x[t, b], tokens, past, slot)
            if slot == SEGMENT - 1:
                read = np.stack([attend(p, token, tokens, past, slot) for token in tokens])
                new = tokens + read
                tokens = p["norm"]["scale"] * new / np.sqrt((new**2).mean(-1, keepdims=True) + 1e-6)
                past = []
    return y


def case(seed):
    model = compiled(MemoryAttention(WIDTH, HEADS, SEGMENT, MEMORY))
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), WIDTH))
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
    x = rng.normal(size=(STEPS, BATCH, WIDTH))
    reset = rng.random((STEPS, BATCH)) < 0.15
    reset[0], reset[1:, 0] = True, False  # the first environment crosses every boundary
    fresh = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        model.initialize_carry((BATCH,)),
    )
    return model, params, x, reset, fresh, rng


def test_both_views_are_the_twin_at_any_clock():
    model, params, x, reset, fresh, _ = case(0)
    apply, step = jax.jit(model.apply), jax.jit(model.step)
    for clock in (0, 1, SEGMENT - 1, 2**31 - 6):  # the last wraps on the way
        carry = ops.set_clocks(fresh, clock)
        want = twin(params["params"], x, reset, clock)
        after, y = apply(params, carry, x, reset)
        np.testing.assert_allclose(y, want, atol=1e-10)
        for t in range(STEPS):
            carry, y = step(params, carry, x[t], reset[t])
            np.testing.assert_allclose(y, want[t], atol=1e-10)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), after, carry)


def test_gradient_runs_through_rewritten_memory():
    model, params, x, reset, fresh, rng = case(1)
    dx, ct = rng.normal(size=(2, *x.shape))
    ct[: 3 * SEGMENT] = 0  # only what came through memory and the last segment counts
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)

    def loss(params, x):
        return jnp.sum(ct * model.apply(params, fresh, x, reset)[1])

    of_params, of_x = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, jnp.asarray(x))
    assert float(jnp.abs(of_x[:SEGMENT, 0]).max()) > 1e-6
    slope = sum(np.sum(g * d) for g, d in zip(jax.tree.leaves(of_params), jax.tree.leaves(direction), strict=True))
    slope += np.sum(of_x * dx)

    def moved(by):
        there = jax.tree.map(lambda p, d: p + by * d, params, direction)
        return np.sum(ct * twin(there["params"], x + by * dx, reset, 0))

    assert slope == pytest.approx((moved(1e-6) - moved(-1e-6)) / 2e-6, rel=1e-6, abs=1e-6)


def test_refuses():
    with pytest.raises(ValueError, match="segment=12 must be a power of two; nearest: 8 or 16"):
        RecurrentMemoryConfig(segment=12)
    with pytest.raises(ValueError, match="memory must be positive, got 0"):
        RecurrentMemoryConfig(memory=0)
    with pytest.raises(ValueError, match="width=10 must be a multiple of heads=4; nearest: 8 or 12"):
        RecurrentMemoryConfig(width=10)
