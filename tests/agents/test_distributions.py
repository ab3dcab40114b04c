"""Action distributions against scipy.stats, masks, and the units of boxes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jaxrl_seq.agents import Policy
from jaxrl_seq.agents.distributions import parameter_dim, to_env, to_unit
from jaxrl_seq.envs import Box, Discrete, MultiDiscrete, Space, Tree

DISCRETE = Discrete(4)
MULTI = MultiDiscrete((2, 3, 4))
BOXES = [Box(-1.0, 1.0), Box(-2.0, 6.0, (3,)), Box(-1.0, 1.0, (2, 3)), Box(-np.inf, np.inf, (2,))]
SPACES = [DISCRETE, MULTI, *BOXES]
SAMPLES = 20_000


def parameters(space: Space, *batch: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    params = rng.normal(0.0, 1.0, (*batch, parameter_dim(space)))
    if isinstance(space, Box):
        params[..., space.flat_dim :] *= 0.5
    return params.astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def facts(space: Space, params: jax.Array, action: jax.Array, mask: jax.Array | None = None) -> dict[str, jax.Array]:
    """What `Policy` says about a batch [N, P] and actions [N, ...], and many samples of its first row."""

    def many(x):
        return None if x is None else jnp.broadcast_to(x[0], (SAMPLES, x.shape[-1]))

    policy = Policy(space, params, mask)
    return {
        "log_prob": policy.log_prob(action),
        "entropy": policy.entropy(),
        "mode": policy.mode(),
        "samples": Policy(space, jnp.asarray(many(params)), many(mask)).sample(jax.random.key(0)),
    }


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return scipy.special.log_softmax(np.asarray(logits, np.float64), axis=-1)


def assert_frequencies(actions: np.ndarray, probability: np.ndarray) -> None:
    """Counts of `actions` fit `probability`; what has probability 0 never occurs."""
    counts = np.bincount(actions, minlength=len(probability))
    possible = probability > 0
    assert counts[~possible].sum() == 0
    assert scipy.stats.chisquare(counts[possible], SAMPLES * probability[possible]).pvalue > 1e-3


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_shapes_for_any_leading_axes(space, strict):
    """sample and mode are [..., *shape] of the right dtype; log_prob and entropy are [...] float32."""

    def all_of(params):
        policy = Policy(space, params)
        actions = policy.sample(jax.random.key(0)), policy.mode()
        return actions, [policy.log_prob(actions[0]), policy.log_prob(actions[1]), policy.entropy()]

    for batch in ((), (5,), (2, 3), (2, 1, 3)):
        actions, numbers = jax.eval_shape(all_of, parameters(space, *batch))
        for action in actions:
            assert action.shape == (*batch, *space.shape)
            assert action.dtype == (jnp.float32 if isinstance(space, Box) else jnp.int32)
        for number in numbers:
            assert number.shape == batch and number.dtype == jnp.float32


def test_discrete_against_scipy(strict):
    """log_prob, entropy, mode, and frequencies of samples."""
    params, action = parameters(DISCRETE, 4), np.arange(4, dtype=np.int32)
    got, expected = facts(DISCRETE, params, action), log_softmax(params)
    np.testing.assert_allclose(got["log_prob"], expected[action, action], rtol=1e-5)
    np.testing.assert_allclose(got["entropy"], scipy.stats.entropy(np.exp(expected), axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(got["mode"], params.argmax(-1))
    assert_frequencies(got["samples"], np.exp(expected[0]))


def test_multidiscrete_is_independent_categoricals(strict):
    """log_prob and entropy add up over entries; entries are drawn from their own logits, independently."""
    params, cuts = parameters(MULTI, 3), (2, 5)
    parts = [log_softmax(p) for p in np.split(params, cuts, axis=-1)]
    action = np.array([[0, 2, 1], [1, 0, 3], [1, 1, 0]], np.int32)
    got = facts(MULTI, params, action)
    expected = sum(part[range(3), action[:, i]] for i, part in enumerate(parts))
    np.testing.assert_allclose(got["log_prob"], expected, rtol=1e-5)
    expected = sum(scipy.stats.entropy(np.exp(part), axis=-1) for part in parts)
    np.testing.assert_allclose(got["entropy"], expected, rtol=1e-5)
    np.testing.assert_array_equal(got["mode"], np.stack([part.argmax(-1) for part in parts], -1))

    samples = np.asarray(got["samples"])
    for i, part in enumerate(parts):
        assert_frequencies(samples[:, i], np.exp(part[0]))
    table = scipy.stats.contingency.crosstab(samples[:, 1], samples[:, 2]).count
    independence: Any = scipy.stats.chi2_contingency(table)
    assert independence.pvalue > 1e-3


@pytest.mark.parametrize("space", BOXES, ids=str)
def test_box_against_scipy(space, strict):
    """A diagonal Gaussian over the flattened box: density, entropy, mode, and moments of samples."""
    params = parameters(space, 3)
    mean, log_std = np.split(params.astype(np.float64), 2, axis=-1)
    normal: Any = scipy.stats.norm(mean, np.exp(log_std))
    action = np.random.default_rng(1).normal(size=(3, *space.shape)).astype(np.float32)
    got = facts(space, params, action)
    expected = normal.logpdf(action.reshape(3, -1)).sum(-1)
    np.testing.assert_allclose(got["log_prob"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got["entropy"], normal.entropy().sum(-1), rtol=1e-5)
    np.testing.assert_allclose(got["mode"], mean.reshape(3, *space.shape), rtol=1e-6)

    flat, std = np.asarray(got["samples"]).reshape(SAMPLES, -1), np.exp(log_std[0])
    assert np.all(np.abs(flat.mean(0) - mean[0]) < 4 * std / np.sqrt(SAMPLES))
    assert np.all(np.abs(flat.std(0) / std - 1) < 4 / np.sqrt(2 * SAMPLES))
    assert np.all(np.abs(np.corrcoef(flat.T) - np.eye(space.flat_dim)) < 4 / np.sqrt(SAMPLES))


def test_spread_of_a_box_is_bounded():
    """A log standard deviation out of range is clipped, so that no density becomes infinite."""
    space, params = BOXES[0], np.array([[0.0, 80.0], [0.0, -80.0], [0.0, 0.0]], np.float32)
    got = facts(space, params, np.zeros(3, np.float32))
    normal: Any = scipy.stats.norm(0, np.exp([2.0, -10.0, 0.0]))
    np.testing.assert_allclose(got["log_prob"], normal.logpdf(0), rtol=1e-5)
    assert np.abs(np.std(got["samples"]) / np.exp(2.0) - 1) < 0.05


# --- masks -----------------------------------------------------------------------------------------------------------
MASK = np.array([False, True, False, True])


@pytest.mark.parametrize("favourite", [0.0, 90.0], ids=("lively", "certain of an illegal action"))
def test_masked_actions_are_impossible(favourite, strict):
    """Never sampled, never the mode, probability exactly 0; the rest is renormalised."""
    logits = (parameters(DISCRETE) + favourite * ~MASK).astype(np.float32)
    rows, action = np.tile(logits, (4, 1)), np.arange(4, dtype=np.int32)
    got = facts(DISCRETE, rows, action, np.tile(MASK, (4, 1)))
    legal = np.where(MASK, np.exp(logits.astype(np.float64)), 0.0)
    legal /= legal.sum()
    assert_frequencies(got["samples"], legal)
    probability = np.exp(np.asarray(got["log_prob"]))
    assert np.all(probability[~MASK] == 0)
    np.testing.assert_allclose(probability, legal, rtol=1e-5)
    np.testing.assert_allclose(got["entropy"], scipy.stats.entropy(legal), rtol=1e-5)
    np.testing.assert_array_equal(got["mode"], legal.argmax())


@jax.jit
@jax.value_and_grad
def _masked_gradient(logits, mask):
    policy = Policy(DISCRETE, logits, mask)
    return policy.log_prob(policy.mode()) + policy.entropy()


@pytest.mark.parametrize("mask", [MASK, np.eye(4, dtype=bool)[2], np.ones(4, bool)], ids=("two", "one", "all"))
def test_gradients_through_a_mask_are_finite(mask):
    """Of log-probability and entropy; exactly zero towards masked logits."""

    for logits in (parameters(DISCRETE), 30 * parameters(DISCRETE)):
        value, gradient = _masked_gradient(logits, mask)
        assert np.isfinite(value) and np.isfinite(gradient).all()
        assert np.all(gradient[~mask] == 0)
        if mask.sum() == 1:
            assert value == 0 and np.all(gradient == 0)


def test_a_mask_needs_a_discrete_space():
    """Said in words, before anything is computed."""
    policy = Policy(MULTI, jnp.zeros((2, 9)), jnp.ones((2, 9), bool))
    with pytest.raises(ValueError, match="mask needs a Discrete action space"):
        policy.sample(jax.random.key(0))


# --- the units of a box ----------------------------------------------------------------------------------------------
ASYMMETRIC = Box((-2.0, 0.0, -1.0, -np.inf), (6.0, 1.0, 1.0, np.inf), (4,))


def test_to_env_scales_and_clips():
    """[-1, 1] becomes [low, high]; beyond that is clipped; unbounded directions are left alone."""
    unit = jnp.array([[-1.0] * 4, [0.0] * 4, [1.0] * 4, [9.0] * 4, [-9.0] * 4])
    got = np.asarray(to_env(ASYMMETRIC, unit))
    np.testing.assert_allclose(got[:3].T, [[-2, 2, 6], [0, 0.5, 1], [-1, 0, 1], [-1, 0, 1]])
    np.testing.assert_array_equal(got[3], [6, 1, 1, 9])
    np.testing.assert_array_equal(got[4], [-2, 0, -1, -9])


@pytest.mark.parametrize("space", [*BOXES, ASYMMETRIC], ids=str)
def test_the_units_of_a_box(space, strict):
    """Wild actions reach the environment as members of the space; `to_unit` inverts `to_env` on the interior."""
    rng = np.random.default_rng(0)
    inside = rng.uniform(-0.999, 0.999, (3, 2, *space.shape)).astype(np.float32)
    wild = (50 * rng.normal(size=(100, *space.shape))).astype(np.float32)

    @jax.jit
    def both(wild, inside):
        policy = Policy(space, jnp.zeros((100, parameter_dim(space))))
        return jax.vmap(space.contains)(policy.to_env(wild)), to_unit(space, to_env(space, inside))

    contained, back = both(wild, inside)
    assert np.all(contained)
    assert back.shape == (3, 2, space.flat_dim)
    np.testing.assert_allclose(back, inside.reshape(back.shape), atol=1e-6)


def test_discrete_actions_pass_unchanged_and_encode_one_hot():
    """Discrete and MultiDiscrete: the environment's action is the policy's; the network sees one-hots."""
    action = jnp.array([[1, 2, 0], [0, 0, 3]], jnp.int32)
    assert to_env(MULTI, action) is action
    np.testing.assert_array_equal(to_unit(MULTI, action), [[0, 1, 0, 0, 1, 1, 0, 0, 0], [1, 0, 1, 0, 0, 0, 0, 0, 1]])
    np.testing.assert_array_equal(to_unit(DISCRETE, action[0, :2]), [[0, 1, 0, 0], [0, 0, 1, 0]])


@pytest.mark.parametrize("space", [Tree({"a": DISCRETE}), Box(0, 5, (2,), np.int32)], ids=("tree", "integers"))
def test_a_space_without_a_head_is_named_with_those_that_have_one(space):
    """ValueError: the space, and the list of what is served."""
    with pytest.raises(ValueError, match=r"(?s)(Tree|Box).*Served: Discrete\(n\), MultiDiscrete\(ns\), Box\("):
        parameter_dim(space)
