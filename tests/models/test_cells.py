"""Recurrent cells against slow numpy float64 twins, values and gradients."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twins import close, compiled

from jaxrl_seq import ops
from jaxrl_seq.models import MinGRU, MinLSTM, MinLSTMConfig


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def draw(seed, *shape) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def resets(seed, share, steps=7, batch=3):
    return np.random.default_rng(seed).random((steps, batch)) < share


def wide(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


# LSTM and sLSTM

STEPS, BATCH, WIDTH, UNITS = 7, 3, 5, 4


def lstm_twin(w, state, x, reset):
    """h[T, B, F] and the last (c, h)."""
    c, h = state
    outputs = []
    for t in range(x.shape[0]):
        c, h = (np.where(reset[t][:, None], 0, s) for s in (c, h))
        i, f, g, o = np.split(x[t] @ w.w_input + h @ w.w_hidden + w.bias, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return (c, h), np.stack(outputs)


def slstm_twin(w, state, x, reset):
    """Without a stabiliser: c and n themselves. Returns h[T, B, F] and the last (c, n, h)."""
    c, n, h = state.c * np.exp(state.m), state.n * np.exp(state.m), state.h
    heads = w.w_hidden.shape[1]
    outputs = []
    for t in range(x.shape[0]):
        c, n, h = (np.where(reset[t][:, None], 0, s) for s in (c, n, h))
        parts = [np.concatenate([h.reshape(BATCH, heads, -1)[:, k] @ gate[k] for k in range(heads)], axis=-1)
                 for gate in w.w_hidden]  # fmt: skip
        inputs = np.split(x[t] @ w.w_input + w.bias, 4, axis=-1)
        i, f, z, o = (a + b for a, b in zip(inputs, parts, strict=True))
        c = sigmoid(f) * c + np.exp(i) * np.tanh(z)
        n = sigmoid(f) * n + np.exp(i)
        h = sigmoid(o) * c / n
        outputs.append(h)
    return (c, n, h), np.stack(outputs)


def unscaled(state):
    """The last state as the twin has it."""
    if isinstance(state, ops.SLSTMState):
        return state.c * jnp.exp(state.m), state.n * jnp.exp(state.m), state.h
    return tuple(state)


def lstm_case(seed):
    shapes = (WIDTH, 4 * UNITS), (4 * UNITS,), (UNITS, 4 * UNITS)
    weights = ops.LSTMWeights(*(draw(seed + n, *shape) for n, shape in enumerate(shapes)))
    return weights, ops.LSTMState(*draw(seed + 4, 2, BATCH, UNITS)), draw(seed + 5, STEPS, BATCH, WIDTH)


def slstm_case(seed):
    shapes = (WIDTH, 4 * UNITS), (4 * UNITS,), (4, 2, UNITS // 2, UNITS // 2)
    weights = ops.SLSTMWeights(*(draw(seed + n, *shape) for n, shape in enumerate(shapes)))
    c, n, h, m = draw(seed + 4, 4, BATCH, UNITS)
    return weights, ops.SLSTMState(c, 1 + n * n, h, m), draw(seed + 5, STEPS, BATCH, WIDTH)


CELLS = {
    "lstm": (ops.lstm, ops.lstm_step, lstm_twin, lstm_case),
    "slstm": (ops.slstm, ops.slstm_step, slstm_twin, slstm_case),
}


@partial(jax.jit, static_argnums=0)
def values_and_gradients(cell, arguments, reset, ct_state, ct_h):
    """Of the op and of its step under a plain scan: ((state, h), gradients) each."""
    op, step, _, _ = CELLS[cell]

    def stepped(weights, state, x, reset):
        def body(state, inputs):
            state = step(weights, state, *inputs)
            return state, state.h

        return jax.lax.scan(body, state, (x, reset))

    def run(view):
        def loss(*arguments):
            state, h = view(*arguments, reset)
            return jnp.sum(ct_h * h) + sum(jnp.sum(ct * leaf) for ct, leaf in zip(ct_state, state, strict=True)), (
                state,
                h,
            )

        grads, found = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*arguments)
        return found, grads

    return run(op), run(stepped)


@pytest.mark.parametrize("cell", CELLS)
def test_cell_and_its_gradient(cell):
    _, _, twin, case = CELLS[cell]
    for seed, share in ((0, 0.0), (20, 0.3), (40, 1.0)):
        weights, state, x = case(seed)
        reset = resets(seed, share)
        arguments = wide((weights, state, x))
        cotangents = wide((list(draw(seed + 7, len(state), BATCH, UNITS)), draw(seed + 8, STEPS, BATCH, UNITS)))
        (found, grads), (stepped, want) = values_and_gradients(cell, arguments, jnp.asarray(reset), *cotangents)
        expected = twin(weights, state, x, reset)
        for last, h in (found, stepped):
            close((unscaled(last), h), expected)
        close(grads, want)


def test_lstm_remembers_through_open_gates_for_ever():
    size, large = 2, 50.0
    bias = jnp.concatenate([jnp.full(size, v) for v in (-large, large, 0.0, large)])  # nothing enters, nothing fades
    weights = ops.LSTMWeights(jnp.zeros((3, 4 * size)), bias, jnp.zeros((size, 4 * size)))
    start = ops.LSTMState(jnp.array([[0.3, -0.7]]), jnp.zeros((1, size)))
    state, h = ops.lstm(weights, start, jnp.ones((100, 1, 3)), jnp.zeros((100, 1), bool))
    close((state.c, h[-1]), (start.c, jnp.tanh(start.c)))


def test_slstm_overwrites_and_does_not_overflow():
    # a gate of e^1000 makes all that came before invisible; e^-1000 leaves it as it was
    for log_gate, expected in ((1000.0, np.tanh(2.0)), (-1000.0, 0.5)):
        bias = jnp.array([log_gate, 50.0, 2.0, 50.0])
        weights = ops.SLSTMWeights(jnp.zeros((1, 4)), bias, jnp.zeros((4, 1, 1, 1)))
        start = ops.SLSTMState(*(jnp.full((1, 1), value) for value in (0.5, 1.0, 0.0, 0.0)))

        def last(weights, start=start):
            return ops.slstm(weights, start, jnp.ones((1, 1, 1)), jnp.zeros((1, 1), bool))[1][0, 0, 0]

        value, grads = jax.value_and_grad(last)(weights)
        close(value, expected)
        assert all(np.isfinite(grad).all() for grad in grads)


def test_block_diagonal():
    w = np.arange(8.0).reshape(2, 2, 1, 2)
    close(ops.block_diagonal(jnp.asarray(w)), np.array([[0, 1, 0, 0, 4, 5, 0, 0], [0, 0, 2, 3, 0, 0, 6, 7]]))


# MinGRU and MinLSTM


def min_twin(kernel, bias, h, x, reset):
    states = []
    for t in range(x.shape[0]):
        h = np.where(reset[t][:, None], 0, h)
        *gates, value = np.split(x[t] @ kernel + bias, kernel.shape[1] // h.shape[1], axis=-1)
        if len(gates) == 1:
            z = sigmoid(gates[0])
            h = (1 - z) * h + z * value
        else:
            forget, enter = (sigmoid(gate) for gate in gates)
            h = (forget * h + enter * value) / (forget + enter)
        states.append(h)
    return np.stack(states)


@pytest.mark.parametrize("mixer", [MinGRU, MinLSTM])
def test_minimal_cells(mixer):
    model = compiled(mixer(4))
    with jax.enable_x64(False):
        params = model.init(jax.random.key(0), 4)
    params = wide(params)
    kernel, bias = (np.asarray(params["params"]["gates"][name]) for name in ("kernel", "bias"))
    h0, x = draw(1, 3, 4), draw(2, 7, 3, 4)
    for share in (0.0, 0.3, 1.0):
        reset = resets(3, share)
        want = min_twin(kernel, bias, h0, x, reset)
        carry, y = model.apply(params, jnp.asarray(h0), jnp.asarray(x), jnp.asarray(reset))
        close((carry, y), (want[-1], want))


def test_min_lstm_with_both_gates_shut_is_finite():
    model = compiled(MinLSTM(1))
    kernel, bias = jnp.zeros((1, 3)), jnp.array([-2000.0, -2000.0, 3.0])  # 0 / 0 in f / (f + i)
    params = {"params": {"gates": {"kernel": kernel, "bias": bias}}}

    def last(params):
        return model.apply(params, jnp.ones((1, 1)), jnp.ones((1, 1, 1)), jnp.zeros((1, 1), bool))[1][0, 0, 0]

    value, grads = jax.value_and_grad(last)(params)
    assert value == 2.0  # half of what was there, half of what comes
    assert all(np.isfinite(grad).all() for grad in jax.tree.leaves(grads))


def test_configs_refuse():
    with pytest.raises(ValueError, match="Unknown impl 'scann'. Did you mean 'scan'"):
        MinLSTMConfig(impl="scann")  # pyright: ignore[reportArgumentType]
