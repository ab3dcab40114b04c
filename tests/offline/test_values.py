"""Value heads: every kind says what it was told, and classes equal slow twins."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_seq.offline.values import KINDS, ValueHead, centres, hl_gauss, two_hot

LOW, HIGH, BINS = -3.0, 5.0, 17


def slow_hl_gauss(target: float) -> np.ndarray:
    """By the normal distribution's own function, class after class."""
    width = (HIGH - LOW) / (BINS - 1)

    def below(edge: float) -> float:
        return 0.5 * (1 + math.erf((edge - target) / (0.75 * width) / math.sqrt(2)))

    mass = np.array([below(c + width / 2) - below(c - width / 2) for c in np.linspace(LOW, HIGH, BINS)])
    return mass / mass.sum()


def slow_two_hot(target: float) -> np.ndarray:
    places = np.linspace(LOW, HIGH, BINS)
    right = min(max(int(np.searchsorted(places, target)), 1), BINS - 1)
    share = (target - places[right - 1]) / (places[right] - places[right - 1])
    out = np.zeros(BINS)
    out[right - 1], out[right] = 1 - share, share
    return out


@settings(max_examples=50, deadline=None)
@given(st.floats(LOW, HIGH))
def test_classes_equal_slow_twins(target):
    np.testing.assert_allclose(hl_gauss(jnp.float32(target), BINS, LOW, HIGH), slow_hl_gauss(target), atol=2e-5)
    np.testing.assert_allclose(two_hot(jnp.float32(target), BINS, LOW, HIGH), slow_two_hot(target), atol=2e-5)


def test_two_hot_means_its_target_and_a_gauss_does_inside():
    targets = jnp.linspace(LOW, HIGH, 101)
    places = centres(BINS, LOW, HIGH)
    np.testing.assert_allclose(two_hot(targets, BINS, LOW, HIGH) @ places, targets, atol=1e-5)
    inside = targets[15:-15]
    np.testing.assert_allclose(hl_gauss(inside, BINS, LOW, HIGH) @ places, inside, atol=2e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_comes_to_say_what_it_is_told(kind):
    """Gradient steps on the loss alone; beyond the support classes stay at its end, squared errors do not."""
    head = ValueHead(kind, BINS)
    targets = jnp.array([-2.5, 0.1, 4.4, 50.0])

    @jax.jit
    def learnt() -> jax.Array:
        def step(out: jax.Array, _: None) -> tuple[jax.Array, None]:
            grads = jax.grad(lambda out: head.loss(out, targets, LOW, HIGH).sum())(out)
            return out - (0.4 if kind == "mse" else 2.0) * grads, None

        return jax.lax.scan(step, jnp.zeros((4, head.width)), length=400)[0]

    said = head.value(learnt(), LOW, HIGH)
    np.testing.assert_allclose(said[:3], targets[:3], atol=0.15)
    assert said[3] == pytest.approx(50.0, abs=0.1) if kind == "mse" else 4.0 < said[3] <= HIGH


def test_gradients_are_finite_at_and_beyond_the_ends():
    for kind in KINDS:
        head = ValueHead(kind, BINS)
        for target in (LOW, HIGH, LOW - 1e4, HIGH + 1e4):
            grads = jax.grad(lambda out: head.loss(out, jnp.float32(target), LOW, HIGH))(jnp.ones(head.width))  # noqa: B023
            assert np.isfinite(grads).all()


@pytest.mark.parametrize(("kind", "bins", "words"), [("l2", 51, "one of mse"), ("two-hot", 1, "at least 2 bins")])
def test_heads_that_cannot_be_are_refused(kind, bins, words):
    with pytest.raises(ValueError, match=words):
        ValueHead(kind, bins)
