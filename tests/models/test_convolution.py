"""The causal convolution against a slow numpy twin, and the mixers made of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_seq import ops
from jaxrl_seq.models import CausalConvolution


def twin(u, weights, history, reset):
    """Each environment keeps the list of inputs of its running episode, silence before them."""
    steps, batch, width = u.shape
    past, y = weights.shape[0] - 1, np.zeros(u.shape)
    kept = np.zeros((batch, past, width))
    for b in range(batch):
        line = list(history[b])
        for t in range(steps):
            if reset[t, b]:
                line = [np.zeros(width)] * past
            line.append(u[t, b])
            y[t, b] = sum(weights[k] * line[-1 - k] for k in range(past + 1))
        kept[b] = np.array(line[len(line) - past :]).reshape(past, width)
    return y, kept


@pytest.mark.parametrize(
    "steps, kernel, shared", [(7, 4, False), (3, 6, False), (5, 2, True), (1, 3, False), (4, 1, False)]
)
def test_convolution_and_its_gradient(steps, kernel, shared):
    rng = np.random.default_rng(steps)
    u, history = rng.normal(size=(steps, 4, 3)), rng.normal(size=(4, kernel - 1, 3))
    weights = rng.normal(size=(kernel, 1 if shared else 3))
    reset = rng.random((steps, 4)) < [0.0, 0.2, 0.5, 1.0]
    ct_y, ct_history = rng.normal(size=u.shape), rng.normal(size=history.shape)

    def paid(u, weights, history):
        y, after = ops.causal_conv1d(u, weights, history, jnp.asarray(reset))
        return jnp.sum(ct_y * y) + jnp.sum(ct_history * after), (y, after)

    with jax.enable_x64(True):
        args = (u, weights, history)
        grads, got = jax.jit(jax.grad(paid, argnums=(0, 1, 2), has_aux=True))(*args)

        # the function is linear in each argument, so a finite difference of the twin is its gradient
        def value(*args):
            y, after = twin(*args, reset)
            return np.sum(ct_y * y) + np.sum(ct_history * after)

        for number, direction in enumerate(rng.normal(size=x.shape) for x in args):
            moved = [x + (direction if i == number else 0) for i, x in enumerate(args)]
            np.testing.assert_allclose(np.sum(grads[number] * direction), value(*moved) - value(*args), atol=1e-10)
        for a, b in zip(got, twin(*args, reset), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)

        state = jnp.asarray(history)
        for t in range(steps):
            y, state = ops.causal_conv1d_step(u[t], weights, state, jnp.asarray(reset[t]))
            np.testing.assert_allclose(y, got[0][t], atol=1e-12)
        np.testing.assert_allclose(state, got[1], atol=1e-12)


def test_filters_take_turns_from_the_reset_on():
    rng = np.random.default_rng(0)
    layer, one = CausalConvolution(4, 3, filters=2), CausalConvolution(4, 3)
    x, reset = rng.normal(size=(7, 2, 4)).astype(np.float32), np.zeros((7, 2), bool)
    reset[0], reset[3, 1] = True, True
    weights, bias = rng.normal(size=(2, 3, 4)), rng.normal(size=4)
    _, y = layer.apply({"params": {"weights": weights, "bias": bias}}, layer.initialize_carry((2,)), x, reset)
    alone = [
        np.asarray(one.apply({"params": {"weights": w[None], "bias": bias}}, one.initialize_carry((2,)), x, reset)[1])
        for w in weights
    ]
    turns = np.stack([np.arange(7) % 2, [0, 1, 0, 0, 1, 0, 1]], axis=1)
    want = np.where(turns[..., None] == 0, *alone)
    np.testing.assert_allclose(y, want, atol=1e-6)
    assert np.abs(alone[0] - alone[1]).max() > 0.1


@pytest.mark.parametrize(
    "weights, history, reset, words",
    [
        ((4, 2), (5, 3, 3), (7, 5), r"weights must be \[K, 3\], got \(4, 2\)"),
        ((4, 3), (5, 4, 3), (7, 5), r"kernel of 4 steps, history must be \(5, 3, 3\), got \(5, 4, 3\)"),
        ((4, 3), (5, 3, 3), (5, 7), r"reset must be \(7, 5\), got \(5, 7\)"),
    ],
)
def test_shapes_that_do_not_fit(weights, history, reset, words):
    with pytest.raises(ValueError, match=words):
        ops.causal_conv1d(jnp.ones((7, 5, 3)), jnp.ones(weights), jnp.ones(history), jnp.ones(reset, bool))
