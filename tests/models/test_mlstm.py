"""The mLSTM, in chunks, against a slow numpy twin that does without any scale."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twins import close

from jaxrl_seq import ops

BATCH, HEADS, KEYS, VALUES = 3, 2, 4, 5


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def twin(q, k, v, log_forget, log_input, state, reset):
    """Outputs, and the state times exp(scale)."""
    size = np.exp(state.scale)[..., None]
    matrix = np.array(state.memory[..., :-1] * size[..., None])
    normaliser = np.array(state.memory[..., -1] * size)
    outputs = np.zeros(v.shape)
    for t, b, n in np.ndindex(v.shape[:3]):
        keep = 0 if reset[t, b] else np.exp(log_forget[t, b, n])
        write = np.exp(log_input[t, b, n])
        matrix[b, n] = keep * matrix[b, n] + write * np.outer(k[t, b, n], v[t, b, n])
        normaliser[b, n] = keep * normaliser[b, n] + write * k[t, b, n]
        outputs[t, b, n] = q[t, b, n] @ matrix[b, n] / max(abs(q[t, b, n] @ normaliser[b, n]), 1)
    return outputs, np.concatenate([matrix, normaliser[..., None]], axis=-1)


def naive(q, k, v, log_forget, log_input, state, reset, step: Any = ops.mlstm_step):
    """The step view scanned over time, for autodiff."""

    def body(state, inputs):
        *numbers, reset = inputs
        y, state = step(*numbers, state, reset)
        return state, y

    state, y = jax.lax.scan(body, state, (q, k, v, log_forget, log_input, reset))
    return y, state


def case(seed, steps, spread=2.0) -> Any:
    rng = np.random.default_rng(seed)
    q, k = rng.normal(size=(2, steps, BATCH, HEADS, KEYS))
    v = rng.normal(size=(steps, BATCH, HEADS, VALUES))
    log_forget, log_input = -rng.exponential(size=v.shape[:-1]), spread * rng.normal(size=v.shape[:-1])
    memory, scale = rng.normal(size=(BATCH, HEADS, KEYS, VALUES + 1)), rng.normal(size=(BATCH, HEADS))
    state = ops.MLSTMState(jnp.asarray(memory), jnp.asarray(scale))
    return (q, k, v, log_forget, log_input, state), rng


def paid(run, weights):
    def loss(arguments, reset):
        result = run(*arguments, reset)
        return sum(jnp.sum(w * x) for w, x in zip(weights, jax.tree.leaves(result), strict=True)), result

    return jax.jit(jax.grad(loss, has_aux=True))


@pytest.mark.parametrize("steps, chunk", [(1, 4), (7, 8), (13, 4)])
def test_chunks_steps_and_gradients(steps, chunk):
    arguments, rng = case(steps, steps)
    state = arguments[-1]
    weights = [rng.normal(size=shape) for shape in (arguments[2].shape, state.memory.shape, state.scale.shape)]
    fast, slow = paid(lambda *a: ops.mlstm(*a, chunk=chunk), weights), paid(naive, weights)
    for share in (0.0, 0.2, 0.6, 1.0):
        reset = rng.random((steps, BATCH)) < share
        grads, got = fast(arguments, reset)
        want_grads, want = slow(arguments, reset)
        close(got, want)
        close(grads, want_grads)
        y, full = twin(*arguments, reset=reset)
        close(got[0], y)
        close(got[1].memory * np.exp(got[1].scale)[..., None, None], full)


def test_gates_of_any_size_in_float32():
    """exp(log_input) overflows float32; the latest huge one decides."""
    (q, k, v, log_forget, log_input, _), _ = case(1, 12)
    log_input[0], log_input[3], log_input[8] = -1000, 200, 400
    empty = ops.empty_mlstm((BATCH,), HEADS, KEYS, VALUES)
    never: Any = np.zeros((12, BATCH), bool)
    arguments = [jnp.asarray(x, jnp.float32) for x in (q, k, v, log_forget, log_input)]
    with jax.enable_x64(False):
        grads, (y, state) = paid(lambda *a: ops.mlstm(*a, chunk=4), (1.0, 1.0, 1.0))((*arguments, empty), never)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((grads, y, state)))
    match = (q[8] * k[8]).sum(-1, keepdims=True)
    close(y[8], np.sign(match) * v[8], 1e-4)
    close(y[0], 0 * v[0], 1e-20)


def test_nan_states_die():
    arguments, _ = case(4, 9)
    reset: Any = np.zeros((9, BATCH), bool)
    reset[0] = True
    bad = jax.tree.map(lambda x: np.nan * x, arguments[-1])
    grads, got = paid(lambda *a: ops.mlstm(*a, chunk=4), (1.0, 1.0, 1.0))((*arguments[:-1], bad), reset)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((got, grads)))
    assert all((x == 0).all() for x in grads[-1])


def test_shapes_that_do_not_fit():
    (q, k, v, log_forget, log_input, state), _ = case(0, 7)
    reset: Any = np.zeros((7, BATCH), bool)
    with pytest.raises(ValueError, match=r"mlstm: v is .* so log_input must be \(7, 3, 2\)"):
        ops.mlstm(q, k, v, log_forget, log_input[:2], state, reset)
    with pytest.raises(ValueError, match=r"state must be \(3, 2, 4, 6\), got \(3, 2, 4, 5\)"):
        ops.mlstm(q, k, v, log_forget, log_input, state._replace(memory=state.memory[..., 1:]), reset)
