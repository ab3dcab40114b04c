"""Diagonal recurrences against slow numpy float64 twins: state_space, S4D, LRU, FFM, RG-LRU."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twins import close

from jaxrl_seq import ops
from jaxrl_seq.models import FFM, LRU, RGLRU, S4D, FFMConfig, GriffinConfig, LRUConfig, S4DConfig, as_functions
from jaxrl_seq.models.griffin import RGLRUState
from jaxrl_seq.ops.state_space import SPACE_IMPLS


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def draw(seed, *shape) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def numbers(seed, *shape):
    return draw(seed, *shape) + 1j * draw(seed + 1, *shape)


def pair(x):
    return jnp.asarray(x.real), jnp.asarray(x.imag)


def resets(seed, share, steps, batch=3):
    return np.random.default_rng(seed).random((steps, batch)) < share


def initial(mixer):
    """Parameters in float64, as jax takes them and as a dict of numpy arrays."""
    with jax.enable_x64(False):
        params = as_functions(mixer).init(jax.random.key(0), mixer.features)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
    return params, jax.tree.map(np.asarray, params["params"])


def recurrence(a, drive, h, reset):
    states = []
    for t in range(drive.shape[0]):
        h = a * np.where(reset[t].reshape(-1, *[1] * (h.ndim - 1)), 0, h) + drive[t]
        states.append(h)
    return np.stack(states)


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def gelu(x):
    return np.asarray(jax.nn.gelu(jnp.asarray(x)))


# state_space

STEPS, BATCH, WIDTH, STATES = 37, 3, 2, 4  # two chunks of 16 and one of 5


def space_case(seed):
    a = numbers(seed, WIDTH, STATES)
    a = a / np.abs(a) * np.random.default_rng(seed).uniform(0.2, 1, (WIDTH, STATES))
    c, u = numbers(seed + 2, WIDTH, STATES), draw(seed + 4, STEPS, BATCH, WIDTH)
    return a, c, u, numbers(seed + 5, BATCH, WIDTH, STATES)


def space_twin(a, c, u, h, reset):
    states = recurrence(a, u[..., None], h, reset)
    return states[-1], 2 * (c * states).sum(-1).real


def stepped_space(a, c, u, h, reset):
    def body(h, inputs):
        return ops.state_space_step(a, c, inputs[0], h, inputs[1])

    return jax.lax.scan(body, h, (u, reset))


@partial(jax.jit, static_argnames="impl")
def space_gradients(impl, arguments, reset, ct_h, ct_y):
    view: Any = stepped_space if impl == "step" else partial(ops.state_space, impl=impl)

    def loss(a, c, u, h):
        h, y = view(a, c, u, h, reset)
        return jnp.sum(ct_y * y) + sum(jnp.sum(ct * part) for ct, part in zip(ct_h, h, strict=True)), (h, y)

    return jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(*arguments)


@pytest.mark.parametrize("impl", SPACE_IMPLS)
def test_state_space_and_its_gradient(impl):
    for seed, share in ((0, 0.0), (10, 0.1), (20, 0.6), (30, 1.0)):
        a, c, u, h = space_case(seed)
        reset = resets(seed, share, STEPS)
        arguments = pair(a), pair(c), jnp.asarray(u), pair(h)
        ct = draw(seed + 7, 2, BATCH, WIDTH, STATES), draw(seed + 8, STEPS, BATCH, WIDTH)
        grads, (state, y) = space_gradients(impl, arguments, jnp.asarray(reset), *ct)
        want, (stepped, stepped_y) = space_gradients("step", arguments, jnp.asarray(reset), *ct)
        state_twin, y_twin = space_twin(a, c, u, h, reset)
        for found in ((state, y), (stepped, stepped_y)):
            close(found, (pair(state_twin), y_twin))
        close(grads, want)


def test_state_space_is_its_convolution_kernel():
    a, c, u, _ = space_case(40)
    none, zero = jnp.zeros((STEPS, BATCH), bool), pair(np.zeros((BATCH, WIDTH, STATES)))
    kernel = 2 * (c * a ** np.arange(STEPS)[:, None, None]).sum(-1).real
    want = [[np.convolve(u[:, b, d], kernel[:, d])[:STEPS] for d in range(WIDTH)] for b in range(BATCH)]
    got = ops.state_space(pair(a), pair(c), jnp.asarray(u), zero, none)[1]
    close(got, np.transpose(want, (2, 0, 1)))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"impl": "fft"}, "unknown impl 'fft'; known: convolution, recurrence"),
        (
            {"u": jnp.ones((3, 2, 5))},
            r"c must be too and u \[T, B, 2\]; got \(2, 4\) and \(3, 2, 5\)",
        ),
        ({"reset": jnp.zeros((3, 1), bool)}, r"reset \(3, 2\); got \(2, 2, 4\) and \(3, 1\)"),
    ],
)
def test_state_space_refuses(change, words):
    space = jnp.ones((WIDTH, STATES))
    arguments = {"a": (space, space), "c": (space, space), "u": jnp.ones((3, 2, WIDTH))}
    arguments |= {"h0": (jnp.ones((2, WIDTH, STATES)),) * 2, "reset": jnp.zeros((3, 2), bool), **change}
    with pytest.raises(ValueError, match=words):
        ops.state_space(**arguments)


# layers


def run(mixer, params, h, x, reset):
    """The parallel view and its twin's arguments, for a complex state h."""
    return jax.jit(as_functions(mixer).apply)(params, pair(h), jnp.asarray(x), jnp.asarray(reset))


@pytest.mark.parametrize("discretization", ops.DISCRETIZATIONS)
def test_s4d(discretization):
    mixer = S4D(4, state=6, discretization=discretization)
    params, p = initial(mixer)
    h, x, reset = numbers(0, 3, 4, 3), draw(2, 7, 3, 4), resets(3, 0.3, 7)
    rate, dt = -np.exp(p["log_decay"]) + 1j * p["frequency"], np.exp(p["log_dt"])
    close(rate, np.broadcast_to(-0.5 + 1j * np.pi * np.arange(3), (4, 3)), 1e-6)
    half = 1 - rate * dt / 2
    rules = {"zoh": (np.exp(rate * dt), np.expm1(rate * dt) / rate), "bilinear": ((2 - half) / half, dt / half)}
    a, gain = rules[discretization]
    state, y = space_twin(a, gain * (p["c"][0] + 1j * p["c"][1]), x, h, reset)
    value, gate = np.split(dense(p["mix"], gelu(y + p["skip"] * x)), 2, axis=-1)
    close(run(mixer, params, h, x, reset), (pair(state), value * sigmoid(gate)))


def test_lru():
    mixer = LRU(4, state=6)
    params, p = initial(mixer)
    h, x, reset = numbers(0, 3, 3), draw(2, 7, 3, 4), resets(3, 0.3, 7)
    a = np.exp(-np.exp(p["nu"]) + 1j * np.exp(p["theta"]))
    w = (p["w_in"][0] + 1j * p["w_in"][1]) * np.sqrt(1 - np.abs(a) ** 2)
    states = recurrence(a, x @ w, h, reset)
    y = gelu(2 * (states @ (p["w_out"][0] + 1j * p["w_out"][1])).real + p["skip"] * x)
    close(run(mixer, params, h, x, reset), (pair(states[-1]), y * sigmoid(dense(p["gate"], y))))


def test_lru_starts_on_its_ring_and_scales_long_memories_right():
    mixer = LRU(4, state=2000, r_min=0.5, r_max=0.7, max_phase=0.3)
    _, p = initial(mixer)
    size, phase = np.exp(-np.exp(p["nu"])), np.exp(p["theta"])
    assert 0.5 <= size.min() < 0.51 and 0.69 < size.max() <= 0.7
    assert 0 < phase.min() < 0.01 and 0.29 < phase.max() <= 0.3 + 1e-6
    assert abs(np.median(size**2) - (0.25 + 0.49) / 2) < 0.01  # uniform by area
    with jax.enable_x64(False):  # |a| rounds to 1 in float32, the gain must not become 0
        weights = {"nu": jnp.full(1, -20.0), "theta": jnp.zeros(1), "w_in": jnp.ones((2, 1, 1))}
        rest = {"w_out": jnp.ones((2, 1, 1)), "skip": jnp.ones(1)}
        discrete: Any = LRU(1, state=2).apply({"params": weights | rest}, method="_discrete")
    np.testing.assert_allclose(discrete[1][0][0, 0], np.sqrt(2 * np.exp(-20.0)), rtol=1e-5)


def test_ffm():
    mixer = FFM(4, traces=3, contexts=2, max_period=8.0)
    params, p = initial(mixer)
    h, x, reset = numbers(0, 3, 6), draw(2, 7, 3, 4), resets(3, 0.3, 7)
    trace, trace_gate, gate, skip = np.split(dense(p["input"], x), [3, 6, 10], axis=-1)
    rate = -np.exp(p["log_rate"])[:, None] + 1j * p["frequency"]
    close(rate, -np.array([[1e-6], [0.25], [0.5]]) + 2j * np.pi / np.array([1, 8]), 1e-6)
    drive = (trace * sigmoid(trace_gate))[..., None] * np.ones(2)
    states: Any = recurrence(np.exp(rate).reshape(-1), drive.reshape(7, 3, 6), h, reset)
    z = dense(p["mix"], np.concatenate([states.real, states.imag], axis=-1))
    z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5)
    close(run(mixer, params, h, x, reset), (pair(states[-1]), sigmoid(gate) * z + (1 - sigmoid(gate)) * skip))


def test_rglru():
    mixer = RGLRU(4, heads=2, kernel=3)
    params, p = initial(mixer)
    h, history, x, reset = draw(0, 3, 4), draw(1, 3, 2, 4), draw(2, 7, 3, 4), resets(3, 0.3, 7)
    gate, u = np.split(dense(p["branches"], x), 2, axis=-1)
    w = [np.block([[k[0], np.zeros((2, 2))], [np.zeros((2, 2)), k[1]]]) for k in p["w_gates"]]
    bias = np.split(p["gates_bias"], 2)
    line, state, outputs = list(history.swapaxes(0, 1)), h, []
    for t in range(7):
        fresh = reset[t][:, None]
        line = [np.where(fresh, 0, old) for old in line[-2:]] + [u[t]]
        v = sum(tap * old for tap, old in zip(p["taps"], line[::-1], strict=True)) + p["taps_bias"]
        r, i = (sigmoid(v @ w[n] + bias[n]) for n in range(2))
        a = np.exp(-8 * np.log1p(np.exp(p["lam"])) * r)
        state = a * np.where(fresh, 0, state) + np.where(fresh, 1, np.sqrt(1 - a**2)) * i * v
        outputs.append(state)
    carry = RGLRUState(jnp.asarray(h), jnp.asarray(history))
    carry, y = jax.jit(as_functions(mixer).apply)(params, carry, jnp.asarray(x), jnp.asarray(reset))
    close(y, dense(p["out"], gelu(gate) * np.stack(outputs)))
    close(tuple(carry), (state, np.stack(line[-2:], axis=1)))


def test_rglru_with_a_shut_gate_is_finite_and_starts_slow():
    mixer = RGLRU(2, heads=1)
    params, p = initial(mixer)
    strongest = np.exp(-8 * np.log1p(np.exp(p["lam"])))
    assert (strongest >= 0.9 - 1e-6).all() and (strongest <= 0.999 + 1e-6).all()
    params["params"]["gates_bias"] = jnp.full(4, -2000.0)  # r = 0: sqrt(1 - a^2) is 0, where its slope is infinite

    def total(params):
        x, reset = jnp.ones((3, 1, 2)), jnp.zeros((3, 1), bool)
        return as_functions(mixer).apply(params, mixer.initialize_carry((1,)), x, reset)[1].sum()

    with jax.enable_x64(False):
        grads = jax.jit(jax.grad(total))(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params))
    assert all(np.isfinite(grad).all() for grad in jax.tree.leaves(grads))


def test_griffin_is_two_recurrences_to_each_attention():
    carry = GriffinConfig(layers=7).build().initialize_carry((1,))
    assert [hasattr(state, "history") for state in carry] == [True, True, False] * 2 + [True]


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: LRUConfig(state=9), "state=9 must be a multiple of numbers in a pair=2; nearest: 8 or 10"),
        (lambda: LRUConfig(r_min=0.9, r_max=1.0), "0 < r_min < r_max < 1, got r_min=0.9, r_max=1.0"),
        (lambda: FFMConfig(max_period=0.5), "max_period=0.5 must be at least 1 step"),
        (lambda: FFMConfig(traces=0), "traces must be positive, got 0"),
        (lambda: GriffinConfig(width=20), r"width=20 must be a multiple of 2 \* heads=8; nearest: 16 or 24"),
        (lambda: S4DConfig(dt_max=1e-4), "dt_max=0.0001 must be at least dt_min=0.001"),
        (lambda: S4DConfig(impl="fft"), "Unknown impl 'fft'.*Known: convolution, recurrence"),  # type: ignore
    ],
)
def test_configs_refuse(make, words):
    with pytest.raises(ValueError, match=words):
        make()
