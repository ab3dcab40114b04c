"""GaLiTe against its formula, and what the waves of AGaLiTe promise."""

import jax
import jax.numpy as jnp
import numpy as np
from twins import compiled

from jaxrl_seq.models import AGaLiTe, GaLiTe
from jaxrl_seq.models.agalite import EPSILON, flat


def exact(layer, params, x):
    """The same layer with the full matrix state, in numpy: x[T, D] of one episode -> y before the output product."""
    bound = layer.bind(params)
    *wide, v, beta = (np.asarray(part, np.float64) for part in bound._inputs(jnp.asarray(x)))
    q, k, gamma = (flat(part) for part in wide)
    matrix, s, y = np.zeros((*k.shape[1:], v.shape[-1])), np.zeros(k.shape[1:]), []
    for t in range(len(x)):
        keep = (1 - gamma[t])[:, :, None] * (1 - beta[t])[:, None, :]
        matrix = keep * matrix + (gamma[t] * k[t])[:, :, None] * (beta[t] * v[t])[:, None, :]
        s = (1 - gamma[t]) * s + gamma[t] * k[t]
        y.append(np.einsum("nmh,nm->nh", matrix, q[t]) / ((s * q[t]).sum(-1)[:, None] + EPSILON))
    return np.asarray(bound.out(jnp.asarray(np.stack(y)).reshape(len(x), -1)))


def outputs(layer, x):
    fns = compiled(layer)
    params = fns.init(jax.random.key(0), 8)
    first = jnp.zeros((len(x), 1), bool).at[0].set(True)
    y = jax.jit(fns.apply)(params, fns.initialize_carry((1,)), x[:, None], first)[1]
    return y[:, 0], exact(layer, params, x)


def test_galite_is_its_formula():
    y, want = outputs(GaLiTe(8, heads=2, eta=2), jax.random.normal(jax.random.key(1), (19, 8)))
    np.testing.assert_allclose(y, want, atol=2e-5)


def test_as_many_waves_as_steps_are_the_exact_matrix_state():
    x = jax.random.normal(jax.random.key(1), (12, 8))
    y, want = outputs(AGaLiTe(8, heads=2, eta=2, frequencies=12), x)
    np.testing.assert_allclose(y, want, atol=2e-5)


def test_fewer_waves_approximate():
    """The error falls as waves are added, and is not zero with few."""
    x = jax.random.normal(jax.random.key(2), (24, 8))
    errors = []
    for frequencies in (1, 6, 24):
        y, want = outputs(AGaLiTe(8, heads=2, eta=2, frequencies=frequencies), x)
        errors.append(float(np.abs(y - want).mean()))
    assert errors[0] > 1.5 * errors[1] > 1.5 * 10 * errors[2]


def test_value_gates_start_from_half_to_a_fiftieth():
    layer = GaLiTe(16, heads=2, eta=2)
    params = compiled(layer).init(jax.random.key(0), 16)
    beta = layer.bind(params)._inputs(jnp.zeros((1, 16)))[-1]
    np.testing.assert_allclose(beta[0, :, 0], 1 / 2, atol=1e-6)
    np.testing.assert_allclose(beta[0, :, -1], 1 / (1 + np.exp(4)), atol=1e-6)
    assert np.all(np.diff(beta) < 0)
