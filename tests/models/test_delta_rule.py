"""The delta rule, in chunks, against a slow numpy float64 twin and what it is known to recall."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twins import close

from jaxrl_seq import ops
from jaxrl_seq.models import model_config

BATCH, HEADS, KEYS, VALUES = 3, 2, 4, 5


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def twin(q, k, v, log_decay, beta, state, reset):
    state, outputs = state.copy(), np.zeros(v.shape)
    for t, b, n in np.ndindex(v.shape[:3]):
        old = np.zeros((KEYS, VALUES)) if reset[t, b] else np.exp(log_decay[t, b, n]) * state[b, n]
        erase = np.eye(KEYS) - beta[t, b, n] * np.outer(k[t, b, n], k[t, b, n])
        state[b, n] = erase @ old + beta[t, b, n] * np.outer(k[t, b, n], v[t, b, n])
        outputs[t, b, n] = state[b, n].T @ q[t, b, n]
    return outputs, state


def naive(q, k, v, log_decay, beta, state, reset, step: Any = ops.gated_delta_rule_step):
    """The step view scanned over time, for autodiff."""

    def body(state, inputs):
        *numbers, reset = inputs
        y, state = step(*numbers, state, reset)
        return state, y

    state, y = jax.lax.scan(body, state, (q, k, v, log_decay, beta, reset))
    return y, state


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def case(seed, steps) -> Any:
    rng = np.random.default_rng(seed)
    q, k = unit(rng.normal(size=(2, steps, BATCH, HEADS, KEYS)))
    v = rng.normal(size=(steps, BATCH, HEADS, VALUES))
    log_decay, beta = -rng.exponential(size=v.shape[:-1]), rng.uniform(size=v.shape[:-1])
    return (q, k, v, log_decay, beta, rng.normal(size=(BATCH, HEADS, KEYS, VALUES))), rng


def paid(run, weights):
    def loss(arguments, reset):
        result = run(*arguments, reset)
        return sum(jnp.sum(w * x) for w, x in zip(weights, result, strict=True)), result

    return jax.jit(jax.grad(loss, has_aux=True))


@pytest.mark.parametrize("steps, chunk", [(1, 4), (13, 4), (40, 20)])
def test_chunks_steps_and_gradients(steps, chunk):
    arguments, rng = case(steps, steps)
    weights = rng.normal(size=arguments[2].shape), rng.normal(size=arguments[-1].shape)
    fast = paid(lambda *a: ops.gated_delta_rule(*a, chunk=chunk), weights)
    slow = paid(naive, weights)
    for share in (0.0, 0.2, 0.6):
        reset = rng.random((steps, BATCH)) < share
        grads, got = fast(arguments, reset)
        want_grads, want = slow(arguments, reset)
        close(got, twin(*arguments, reset=reset))
        close(want, twin(*arguments, reset=reset))
        close(grads, want_grads)


def test_it_recalls_exactly_and_overwrites():
    """Orthonormal keys with beta = 1: whatever was last written under a key comes back."""
    rng = np.random.default_rng(0)
    keys = np.linalg.qr(rng.normal(size=(KEYS, KEYS)))[0]
    order = [0, 1, 2, 3, 1, 0, 3]
    k = jnp.broadcast_to(keys[order][:, None, None], (7, BATCH, HEADS, KEYS))
    v = jnp.asarray(rng.normal(size=(7, BATCH, HEADS, VALUES)))
    state, never = jnp.zeros((BATCH, HEADS, KEYS, VALUES)), jnp.zeros((7, BATCH), bool)
    y, state = ops.gated_delta_rule(k, k, v, jnp.zeros(1), jnp.ones(1), state, never, chunk=4)
    close(y, v)
    recalled = np.einsum("ck,bnkv->cbnv", keys, state)
    close(recalled, v[np.array([5, 4, 2, 6])])


def test_equal_keys_in_float32():
    """Where a power series of the triangular system would lose all digits."""
    (q, k, v, _, _, state), _ = case(3, 64)
    q, k = (np.broadcast_to(x[:1], x.shape) for x in (q, k))
    never: Any = np.zeros((64, BATCH), bool)
    arguments = [x.astype(np.float32) for x in (q, k, v, np.zeros(HEADS), np.ones(HEADS), state)]
    with jax.enable_x64(False):
        y, _ = ops.gated_delta_rule(*arguments, reset=never, chunk=64)
    everywhere = np.zeros(v.shape[:-1])
    close(y, twin(q, k, v, everywhere, everywhere + 1, state, never)[0], 1e-4)


def test_nan_states_die():
    arguments, _ = case(4, 9)
    reset: Any = np.zeros((9, BATCH), bool)
    reset[0] = True
    run = paid(lambda *a: ops.gated_delta_rule(*a, chunk=4), (1.0, 1.0))
    grads, got = run((*arguments[:-1], np.nan * arguments[-1]), reset)
    assert all(np.isfinite(x).all() for x in (*got, *grads))
    assert (grads[-1] == 0).all()


def test_what_does_not_fit():
    (q, k, v, log_decay, beta, state), _ = case(0, 7)
    reset: Any = np.zeros((7, BATCH), bool)
    with pytest.raises(ValueError, match=r"gated_delta_rule: v is .* so beta must be \(7, 3, 2\)"):
        ops.gated_delta_rule(q, k, v, log_decay, beta[:3], state, reset)
    with pytest.raises(ValueError, match=r"state must be \(3, 2, 4, 5\)"):
        ops.gated_delta_rule(q, k, v, log_decay, beta, state[:1], reset)
    with pytest.raises(ValueError, match="kernel must be positive, got 0"):
        model_config("delta_net", kernel=0)
