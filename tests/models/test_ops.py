"""Every operation against a slow, obvious numpy float64 twin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import close, flags

from jaxrl_seq import ops
from jaxrl_seq.ops.linear_recurrence import IMPLS

few = settings(max_examples=8, deadline=None)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


# segments


@few
@given(st.lists(st.lists(st.booleans(), min_size=2, max_size=2), min_size=1, max_size=8), st.integers(0, 2**30))
def test_segments_count_like_a_loop(rows, start):
    reset = np.array(rows)
    count, last, segment = np.full(2, start), np.full(2, -1), np.zeros(2, int)
    want = []
    for t, flag in enumerate(reset):
        count, last, segment = np.where(flag, 0, count), np.where(flag, t, last), segment + flag
        want.append((count, last, segment))
        count = count + 1
    got = (
        ops.steps_since_reset(jnp.asarray(reset), jnp.full(2, start, jnp.int32)),
        ops.last_reset_index(jnp.asarray(reset)),
        ops.segment_ids(jnp.asarray(reset)),
    )
    for array, expected in zip(got, zip(*want, strict=True), strict=True):
        assert array.dtype == jnp.int32
        np.testing.assert_array_equal(array, np.stack(expected))


def test_where_reset_kills_nan_and_passes_clocks():
    carry = {"h": jnp.full((3, 2), np.nan), "clock": jnp.int32(7)}
    init = {"h": jnp.zeros((3, 2)), "clock": jnp.int32(0)}
    got = ops.where_reset(jnp.array([True, False, True]), init, carry)
    assert np.isnan(got["h"]).any(1).tolist() == [False, True, False]
    assert got["clock"] == 7


def test_take_envs_and_clock_helpers():
    cache = ops.empty_cache((3,), 1, 4, 2, jnp.float32)
    tree = {"cache": cache, "h": jnp.arange(6.0).reshape(3, 2)}
    taken = ops.take_envs(tree, jnp.array([2, 0]))
    close(taken["h"], tree["h"][np.array([2, 0])])
    assert taken["cache"].keys.shape[0] == 2 and taken["cache"].clock.shape == ()
    close(ops.take_envs(jnp.arange(6.0).reshape(2, 3), jnp.array([1]), axis=1), np.array([[1.0], [4.0]]))
    axes = ops.carry_axes(tree)
    assert axes["h"] == 0 and axes["cache"].clock is None and axes["cache"].age == 0
    assert ops.set_clocks(tree, 9)["cache"].clock == 9


# linear recurrence


def recurrence_twin(a, b, h, reset):
    states = []
    for t in range(b.shape[0]):
        h = np.where(reset[t][:, None], 0, h)
        h = (a[t] if a.ndim == b.ndim else a) * h + b[t]
        states.append(h)
    return np.stack(states)


def recurrence_case(seed, length, varies, pair):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        x = rng.normal(size=shape)
        return x + 1j * rng.normal(size=shape) if pair else x

    shape = (length, 3, 4)
    return (
        draw(*(shape if varies else shape[2:])) * 0.6,
        draw(*shape),
        draw(*shape[1:]),
        flags(rng, length, 3),
    )


def split(x):
    return (jnp.asarray(x.real), jnp.asarray(x.imag)) if np.iscomplexobj(x) else jnp.asarray(x)


def naive_recurrence(a, b, h, reset):
    """Plain scan over complex or real arrays, for autodiff."""
    xs = (b, reset, jnp.broadcast_to(a, b.shape))

    def body(h, i):
        h = i[2] * jnp.where(i[1][:, None], 0, h) + i[0]
        return h, h

    return jax.lax.scan(body, h, xs)[1]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("varies", [False, True])
def test_linear_recurrence_and_its_gradient(impl, pair, varies):
    a, b, h0, reset = recurrence_case(0, 7, varies, pair)
    weight = np.random.default_rng(1).normal(size=(2, *b.shape))

    def value(a, b, h0):
        h = ops.linear_recurrence(a, b, h0, jnp.asarray(reset), impl=impl)
        return sum(jnp.sum(w * x) for w, x in zip(weight, h if pair else (h,), strict=False)), h

    def twin(a, b, h0):
        join = (lambda x: x[0] + 1j * x[1]) if pair else (lambda x: x)
        h = naive_recurrence(join(a), join(b), join(h0), jnp.asarray(reset))
        return jnp.sum(weight[0] * h.real) + (jnp.sum(weight[1] * h.imag) if pair else 0)

    arguments = (split(a), split(b), split(h0))
    grads, h = jax.jit(jax.grad(value, argnums=(0, 1, 2), has_aux=True))(*arguments)
    close(h, split(recurrence_twin(a, b, h0, reset)))
    close(grads, jax.jit(jax.grad(twin, argnums=(0, 1, 2)))(*arguments))


def test_linear_recurrence_step_continues_the_chunk():
    a, b, h0, reset = recurrence_case(2, 5, False, True)
    h = ops.linear_recurrence(split(a), split(b), split(h0), jnp.asarray(reset))
    state = split(h0)
    for t in range(5):
        state = ops.linear_recurrence_step(split(a), split(b[t]), state, jnp.asarray(reset[t]))
    close(state, jax.tree.map(lambda x: x[-1], h))
    assert ops.linear_recurrence(jnp.ones(4), jnp.ones((2, 3, 4)), jnp.zeros((3, 4)))[-1, 0, 0] == 2


@pytest.mark.parametrize("impl", IMPLS)
def test_linear_recurrence_nan_state_dies(impl):
    a, b, _, _ = recurrence_case(3, 4, False, False)
    reset = jnp.zeros((4, 3), bool).at[0].set(True)

    def total(a, b, h0):
        return ops.linear_recurrence(a, b, h0, reset, impl=impl).sum()

    bad = jnp.full((3, 4), np.nan)
    value, grads = jax.value_and_grad(total, argnums=(0, 1, 2))(jnp.asarray(a), jnp.asarray(b), bad)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in grads)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"impl": "fast"}, "unknown impl 'fast'"),
        ({"a": jnp.ones(3)}, r"a must be \(2, 3, 4\) or \(4,\), got \(3,\)"),
        ({"h0": jnp.ones((3, 5))}, r"h0 must be \(3, 4\), got \(3, 5\)"),
        ({"h0": (jnp.ones((3, 4)),) * 2}, "all be arrays or all be pairs"),
        ({"reset": jnp.zeros((3, 2), bool)}, r"reset must be \(2, 3\), got \(3, 2\)"),
    ],
)
def test_linear_recurrence_refuses(change, words):
    arguments = {"a": jnp.ones(4), "b": jnp.ones((2, 3, 4)), "h0": jnp.ones((3, 4)), **change}
    with pytest.raises(ValueError, match=words):
        ops.linear_recurrence(**arguments)


# GRU


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru_twin(w, h, x, reset):
    states = []
    for t in range(x.shape[0]):
        h = np.where(reset[t][:, None], 0, h)
        i_r, i_z, i_n = np.split(x[t] @ w.w_input + w.bias, 3, axis=-1)
        h_r, h_z, h_n = np.split(h @ w.w_hidden, 3, axis=-1)
        r, z = sigmoid(i_r + h_r), sigmoid(i_z + h_z)
        h = (1 - z) * np.tanh(i_n + r * (h_n + w.bias_n)) + z * h
        states.append(h)
    return np.stack(states)


def test_gru_and_its_gradient():
    rng = np.random.default_rng(0)
    length, batch, width, units = 6, 3, 5, 4
    shapes = ((width, 3 * units), (3 * units,), (units, 3 * units), (units,))
    weights = ops.GRUWeights(*(jnp.asarray(rng.normal(size=s)) for s in shapes))
    h0, x = rng.normal(size=(batch, units)), rng.normal(size=(length, batch, width))
    reset, ct = flags(rng, length, batch), rng.normal(size=(length, batch, units))

    def naive(weights, h0, x):
        def body(h, inputs):
            h = ops.gru_step(weights, h, *inputs)
            return h, h

        return jax.lax.scan(body, h0, (x, jnp.asarray(reset)))[1]

    def fast(weights, h0, x):
        return ops.gru(weights, h0, x, jnp.asarray(reset))

    arguments = jax.tree.map(jnp.asarray, (weights, h0, x))
    close(fast(*arguments), gru_twin(weights, h0, x, reset))
    close(naive(*arguments), gru_twin(weights, h0, x, reset))
    grads = [jax.grad(lambda *a, f=f: jnp.sum(ct * f(*a)), argnums=(0, 1, 2))(*arguments) for f in (fast, naive)]
    close(*grads)


# rotary


def test_integer_angles_are_exact_far_away():
    waves = ops.integer_wavelengths(8)
    assert all(isinstance(w, int) and w > 1 for w in waves)
    clock = 2**30 + 12345
    got = ops.integer_angles(jnp.int32(clock), waves, jnp.float32)
    want = [2 * np.pi * (clock % w) / w for w in waves]
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_rotation_only_shows_differences():
    rng = np.random.default_rng(0)
    q, k = jnp.asarray(rng.normal(size=(2, 8)))
    waves = ops.integer_wavelengths(8)

    def score(t, s):
        turn = [ops.integer_angles(jnp.int32(i), waves, jnp.float64) for i in (t, s)]
        return ops.rotate(q, turn[0]) @ ops.rotate(k, turn[1])

    close(score(7, 3), score(2**30 + 4, 2**30))
    turned = ops.rotate(q, ops.geometric_angles(jnp.int32(3), 8, dtype=jnp.float64))
    pairs = np.asarray(q[:4] + 1j * q[4:]) * np.exp(3j * 10000.0 ** (-np.arange(0, 8, 2) / 8))
    close(turned, np.concatenate([np.real(pairs), np.imag(pairs)]))


@pytest.mark.parametrize("make", [ops.integer_wavelengths, lambda n: ops.geometric_angles(jnp.int32(1), n)])
def test_rotary_refuses_odd_heads(make):
    with pytest.raises(ValueError, match="must be even; got 5"):
        make(5)


# discretisation


def test_hippo_is_the_spectrum_of_its_matrix():
    size = 8
    root = np.sqrt(2 * np.arange(size) + 1)
    legs = -np.tril(np.outer(root, root), -1) - np.diag(np.arange(size) + 1.0)
    low_rank = np.sqrt(np.arange(size) + 0.5)
    normal = legs + np.outer(low_rank, low_rank)
    found = ops.hippo_n(size)
    eigenvalues = found.re + 1j * found.im
    expected = np.linalg.eigvals(normal)
    close(np.sort(found.im), np.sort(expected.imag[expected.imag > 0]), 1e-9)
    assert (found.re == -0.5).all()
    basis = found.basis_re + 1j * found.basis_im
    close(normal @ basis, basis * eigenvalues, 1e-9)
    with pytest.raises(ValueError, match="even"):
        ops.hippo_n(7)


@pytest.mark.parametrize("kind", ops.DISCRETIZATIONS)
def test_discretization_against_complex_numbers(kind):
    rng = np.random.default_rng(0)
    dt = 10.0 ** rng.uniform(-12, 0.3, 200)
    eigenvalues = -rng.uniform(0.1, 2, 200) + 1j * rng.uniform(0, 50, 200)
    z = (eigenvalues * dt).astype(np.clongdouble)
    half = 1 - z / 2
    series = 1 + z / 2 * (1 + z / 3 * (1 + z / 4 * (1 + z / 5)))
    phi = np.where(np.abs(z) < 1e-3, series, (np.exp(z) - 1) / z)
    want = {"zoh": (np.exp(z), dt * phi), "bilinear": ((2 - half) / half, dt / half)}[kind]
    got = ops.discretize(kind, *(jnp.asarray(x) for x in (np.real(eigenvalues), np.imag(eigenvalues), dt)))
    for (re, im), expected in zip(got, want, strict=True):
        np.testing.assert_allclose(re + 1j * im, expected.astype(complex), rtol=1e-11)


def test_discretization_has_finite_gradients_at_zero():
    grad = jax.grad(lambda x: sum(y.sum() for y in ops.zoh(x, x, jnp.ones(1))[1]))(jnp.zeros(1))
    assert np.isfinite(grad).all()
    with pytest.raises(ValueError, match="unknown discretization 'euler'"):
        ops.discretize("euler", jnp.zeros(1), jnp.zeros(1), jnp.ones(1))


def test_matmul_rounds_operands_only():
    x = jnp.full((1, 300), 1.001, jnp.float32)
    w = jnp.ones((300, 1), jnp.float32)
    got = ops.matmul(x, w, jnp.bfloat16)
    assert got.dtype == jnp.float32 and got[0, 0] == 300
    assert abs(ops.matmul(x, w)[0, 0] - 300.3) < 1e-3
