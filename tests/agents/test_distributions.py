"""Action distributions against scipy.stats, masks, and the units of boxes."""

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


def repeated(space: Space, **options) -> tuple[np.ndarray, np.ndarray]:
    """(one parameter vector [P], SAMPLES actions drawn from it)."""
    params = parameters(space)
    many = jnp.broadcast_to(params, (SAMPLES, params.shape[-1]))
    return params, np.asarray(Policy(space, many, **options).sample(jax.random.key(0)))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return scipy.special.log_softmax(np.asarray(logits, np.float64), axis=-1)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_shapes_for_any_leading_axes(space, strict):
    """sample and mode are [..., *shape] of the right dtype; log_prob and entropy are [...] float32."""
    for batch in ((), (5,), (2, 3), (2, 1, 3)):
        policy = Policy(space, jnp.asarray(parameters(space, *batch)))
        for action in (policy.sample(jax.random.key(0)), policy.mode()):
            assert action.shape == (*batch, *space.shape)
            assert action.dtype == (jnp.float32 if isinstance(space, Box) else jnp.int32)
            for number in (policy.log_prob(action), policy.entropy()):
                assert number.shape == batch and number.dtype == jnp.float32


def test_discrete_against_scipy(strict):
    """log_prob, entropy, mode, and frequencies of samples."""
    params = parameters(DISCRETE, 3)
    policy = Policy(DISCRETE, jnp.asarray(params))
    expected = log_softmax(params)
    for action in range(4):
        np.testing.assert_allclose(
            policy.log_prob(jnp.full(3, action, jnp.int32)), expected[:, action], rtol=1e-5
        )
    np.testing.assert_allclose(policy.entropy(), scipy.stats.entropy(np.exp(expected), axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(policy.mode(), params.argmax(-1))

    logits, actions = repeated(DISCRETE)
    counts = np.bincount(actions, minlength=4)
    assert scipy.stats.chisquare(counts, SAMPLES * np.exp(log_softmax(logits))).pvalue > 1e-3


def test_multidiscrete_is_independent_categoricals(strict):
    """log_prob and entropy add up over entries; entries are drawn from their own logits, independently."""
    params = parameters(MULTI, 3)
    parts = [log_softmax(p) for p in np.split(params, (2, 5), axis=-1)]
    policy = Policy(MULTI, jnp.asarray(params))
    action = np.array([[0, 2, 1], [1, 0, 3], [1, 1, 0]], np.int32)
    expected = sum(part[range(3), action[:, i]] for i, part in enumerate(parts))
    np.testing.assert_allclose(policy.log_prob(jnp.asarray(action)), expected, rtol=1e-5)
    expected = sum(scipy.stats.entropy(np.exp(part), axis=-1) for part in parts)
    np.testing.assert_allclose(policy.entropy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(policy.mode(), np.stack([part.argmax(-1) for part in parts], -1))

    logits, actions = repeated(MULTI)
    for i, part in enumerate(np.split(logits, (2, 5))):
        counts = np.bincount(actions[:, i], minlength=len(part))
        assert scipy.stats.chisquare(counts, SAMPLES * np.exp(log_softmax(part))).pvalue > 1e-3
    table = scipy.stats.contingency.crosstab(actions[:, 1], actions[:, 2]).count
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize("space", BOXES, ids=str)
def test_box_against_scipy(space, strict):
    """A diagonal Gaussian over the flattened box: density, entropy, mode, and moments of samples."""
    params = parameters(space, 3)
    mean, log_std = np.split(params.astype(np.float64), 2, axis=-1)
    normal = scipy.stats.norm(mean, np.exp(log_std))
    policy = Policy(space, jnp.asarray(params))
    action = np.random.default_rng(1).normal(size=(3, *space.shape)).astype(np.float32)
    expected = normal.logpdf(action.reshape(3, -1)).sum(-1)
    np.testing.assert_allclose(policy.log_prob(jnp.asarray(action)), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(policy.entropy(), normal.entropy().sum(-1), rtol=1e-5)
    np.testing.assert_allclose(policy.mode(), mean.reshape(3, *space.shape), rtol=1e-6)

    one, actions = repeated(space)
    mean, log_std = np.split(one, 2)
    flat, std = actions.reshape(SAMPLES, -1), np.exp(log_std)
    assert np.all(np.abs(flat.mean(0) - mean) < 4 * std / np.sqrt(SAMPLES))
    assert np.all(np.abs(flat.std(0) / std - 1) < 4 / np.sqrt(2 * SAMPLES))
    assert np.all(np.abs(np.corrcoef(flat.T) - np.eye(space.flat_dim)) < 4 / np.sqrt(SAMPLES))


def test_spread_of_a_box_is_bounded():
    """A log standard deviation out of range is clipped, so that no density becomes infinite."""
    policy = Policy(Box(-1.0, 1.0, (1,)), jnp.array([[0.0, -80.0], [0.0, 80.0]]))
    expected = scipy.stats.norm(0, np.exp([-10.0, 2.0])).logpdf(0)
    np.testing.assert_allclose(policy.log_prob(jnp.zeros((2, 1))), expected, rtol=1e-5)
    assert np.abs(policy.sample(jax.random.key(0))).max() < 50


# --- masks ------------------------------------------------------------------------------------------------------------
MASK = np.array([False, True, False, True])


def test_masked_actions_are_impossible(strict):
    """Never sampled, never the mode, probability exactly 0; the rest is renormalised."""
    logits, actions = repeated(DISCRETE, mask=jnp.broadcast_to(MASK, (SAMPLES, 4)))
    legal = log_softmax(logits[MASK])
    counts = np.bincount(actions, minlength=4)
    assert counts[~MASK].sum() == 0
    assert scipy.stats.chisquare(counts[MASK], SAMPLES * np.exp(legal)).pvalue > 1e-3

    policy = Policy(DISCRETE, jnp.broadcast_to(logits, (4, 4)), jnp.broadcast_to(MASK, (4, 4)))
    probability = np.exp(np.asarray(policy.log_prob(jnp.arange(4, dtype=jnp.int32))))
    assert np.all(probability[~MASK] == 0)
    np.testing.assert_allclose(probability[MASK], np.exp(legal), rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), scipy.stats.entropy(np.exp(legal)), rtol=1e-5)
    assert MASK[np.asarray(policy.mode())].all()


def test_a_masked_favourite_is_not_taken():
    """Even where the network is all but certain of an illegal action."""
    logits = jnp.broadcast_to(jnp.array([90.0, -3.0, 90.0, 0.0]), (100, 4))
    policy = Policy(DISCRETE, logits, jnp.broadcast_to(MASK, (100, 4)))
    assert MASK[np.asarray(policy.sample(jax.random.key(1)))].all()
    assert np.all(policy.mode() == 3)


@pytest.mark.parametrize("mask", [MASK, np.eye(4, dtype=bool)[2], np.ones(4, bool)], ids=("two", "one", "all"))
def test_gradients_through_a_mask_are_finite(mask):
    """Of log-probability and entropy; exactly zero towards masked logits."""

    def objective(logits):
        policy = Policy(DISCRETE, logits, jnp.asarray(mask))
        return policy.log_prob(policy.mode()) + policy.entropy()

    for logits in (parameters(DISCRETE), 30 * parameters(DISCRETE)):
        value, gradient = jax.value_and_grad(objective)(jnp.asarray(logits))
        assert np.isfinite(value) and np.isfinite(gradient).all()
        assert np.all(gradient[~mask] == 0)
        if mask.sum() == 1:
            assert value == 0 and np.all(gradient == 0)


def test_a_mask_needs_a_discrete_space():
    """Said in words, before anything is computed."""
    policy = Policy(MULTI, jnp.zeros((2, 9)), jnp.ones((2, 9), bool))
    with pytest.raises(ValueError, match="mask needs a Discrete action space"):
        policy.sample(jax.random.key(0))


# --- the units of a box -------------------------------------------------------------------------------------------------
ASYMMETRIC = Box((-2.0, 0.0, -1.0, -np.inf), (6.0, 1.0, 1.0, np.inf), (4,))


def test_to_env_scales_and_clips():
    """[-1, 1] becomes [low, high]; beyond that is clipped; unbounded directions are left alone."""
    unit = jnp.array([[-1.0] * 4, [0.0] * 4, [1.0] * 4, [9.0] * 4, [-9.0] * 4])
    got = np.asarray(to_env(ASYMMETRIC, unit))
    np.testing.assert_allclose(got[:3].T, [[-2, 2, 6], [0, 0.5, 1], [-1, 0, 1], [-1, 0, 1]])
    np.testing.assert_array_equal(got[3], [6, 1, 1, 9])
    np.testing.assert_array_equal(got[4], [-2, 0, -1, -9])


@pytest.mark.parametrize("space", BOXES, ids=str)
def test_every_action_reaches_the_environment_inside_its_box(space):
    """Whatever a policy samples, in the space's dtype and shape."""
    wild = 50 * jax.random.normal(jax.random.key(0), (1000, *space.shape))
    policy = Policy(space, jnp.zeros((1000, parameter_dim(space))))
    assert np.all(jax.vmap(space.contains)(policy.to_env(wild)))


@pytest.mark.parametrize("space", [*BOXES, ASYMMETRIC], ids=str)
def test_to_unit_inverts_to_env_on_the_interior(space, strict):
    """And flattens to [..., flat_dim] for the encoder."""
    unit = jax.random.uniform(jax.random.key(0), (3, 2, *space.shape), minval=-0.999, maxval=0.999)
    back = to_unit(space, to_env(space, unit))
    assert back.shape == (3, 2, space.flat_dim)
    np.testing.assert_allclose(back, unit.reshape(back.shape), atol=1e-6)


def test_discrete_actions_pass_unchanged_and_encode_one_hot():
    """Discrete and MultiDiscrete: the environment's action is the policy's; the network sees one-hots."""
    action = jnp.array([[1, 2, 0], [0, 0, 3]], jnp.int32)
    assert to_env(MULTI, action) is action
    np.testing.assert_array_equal(
        to_unit(MULTI, action), [[0, 1, 0, 0, 1, 1, 0, 0, 0], [1, 0, 1, 0, 0, 0, 0, 0, 1]]
    )
    np.testing.assert_array_equal(to_unit(DISCRETE, action[0, :2]), [[0, 1, 0, 0], [0, 0, 1, 0]])


@pytest.mark.parametrize("space", [Tree({"a": DISCRETE}), Box(0, 5, (2,), np.int32)], ids=("tree", "integers"))
def test_a_space_without_a_head_is_named_with_those_that_have_one(space):
    """ValueError: the space, and the list of what is served."""
    with pytest.raises(ValueError, match=r"(?s)(Tree|Box).*Served: Discrete\(n\), MultiDiscrete\(ns\), Box\("):
        parameter_dim(space)
