"""Encoders: every kind of space, any leading axes, and what is hidden at the first step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_seq.agents.encoders import InputEncoder, ObservationEncoder, is_image
from jaxrl_seq.envs import Box, Discrete, MultiDiscrete, Space, Tree
from jaxrl_seq.envs.core.vector import Inputs

IMAGE = Box(0, 255, (8, 8, 3), np.uint8)
SPACES = {
    "vector": (Box(-1.0, 1.0, (5,)), 5),
    "number": (Box(-1.0, 1.0), 1),
    "matrix": (Box(-1.0, 1.0, (2, 3)), 6),
    "discrete": (Discrete(4), 4),
    "multidiscrete": (MultiDiscrete((2, 3)), 5),
    "image": (IMAGE, 64),
    "tree": (Tree({"card": Discrete(4), "eye": IMAGE, "limbs": Tree({"arm": Box(-1.0, 1.0, (2,))})}), 70),
}
ACTIONS = [Discrete(3), MultiDiscrete((2, 3)), Box(-2.0, 2.0, (2,))]


def members(space: Space, *batch: int, seed: int = 0):
    """Members of `space`, [*batch, ...]."""
    keys = jax.random.split(jax.random.key(seed), batch)
    sample = space.sample
    for _ in batch:
        sample = jax.vmap(sample)
    return jax.jit(sample)(keys)


def inputs_of(observation: Space, action: Space, *batch: int) -> Inputs:
    return Inputs(
        obs=members(observation, *batch),
        prev_action=members(action, *batch, seed=1),
        prev_reward=jax.random.normal(jax.random.key(2), batch),
        first=jax.random.bernoulli(jax.random.key(3), 0.5, batch),
    )


@pytest.mark.parametrize("kind", SPACES)
def test_observations_of_any_space_and_any_leading_axes(kind):
    """[T, B], [B] and [2, T, B] are the same function of one observation, of the declared width."""
    space, width = SPACES[kind]
    encoder = ObservationEncoder(space)
    obs = members(space, 3, 2)
    both, params = jax.jit(encoder.init_with_output)(jax.random.key(0), obs)
    assert both.shape == (3, 2, width) and both.dtype == jnp.float32
    apply = jax.jit(encoder.apply)
    row = apply(params, jax.tree.map(lambda x: x[1], obs))
    np.testing.assert_allclose(row, both[1], rtol=1e-5, atol=1e-6)
    folded = apply(params, jax.tree.map(lambda x: jnp.stack([x, x]), obs))
    np.testing.assert_allclose(folded, np.stack([both, both]), rtol=1e-5, atol=1e-6)
    assert np.abs(both[0] - both[1]).max() > 1e-3


def test_discrete_observations_are_one_hot():
    """And entries of a MultiDiscrete one by one."""
    got = ObservationEncoder(Discrete(4)).apply({}, jnp.array([[0, 3]]))
    np.testing.assert_array_equal(got, [[[1, 0, 0, 0], [0, 0, 0, 1]]])
    got = ObservationEncoder(MultiDiscrete((2, 3))).apply({}, jnp.array([[1, 2]]))
    np.testing.assert_array_equal(got, [[0, 1, 0, 0, 1]])


def test_trees_are_encoded_leaf_by_leaf_in_order_of_names():
    """Whatever order the observation's own keys have."""
    tree = Tree({"b": Box(-9.0, 9.0, (1,)), "a": Discrete(2)})
    got = ObservationEncoder(tree).apply({}, {"b": jnp.array([7.0]), "a": jnp.int32(1)})
    np.testing.assert_array_equal(got, [0, 1, 7])


def test_pixels_are_scaled():
    """uint8 pictures enter the convolutions as [0, 1]: the same picture as floats in [0, 1] gives the same code."""
    assert is_image(IMAGE) and not is_image(Box(0.0, 1.0, (4, 8, 3))) and not is_image(Box(0.0, 1.0, (8, 8)))
    obs = members(IMAGE, 2)
    params = jax.jit(ObservationEncoder(IMAGE).init)(jax.random.key(0), obs)
    floats = ObservationEncoder(Box(0.0, 1.0, (8, 8, 3))).apply(params, obs.astype(jnp.float32) / 255)
    np.testing.assert_allclose(ObservationEncoder(IMAGE).apply(params, obs), floats, rtol=1e-4, atol=1e-5)


def test_an_unknown_space_is_refused_in_words():
    """ValueError with the spaces that are served."""
    with pytest.raises(ValueError, match="use Discrete, MultiDiscrete, Box or Tree"):
        ObservationEncoder(Space()).apply({}, jnp.zeros(2))


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_inputs_with_any_leading_axes(action):
    """[T, B] equals [B] by [B]; the width is `features`."""
    encoder = InputEncoder(Box(-1.0, 1.0, (2,)), action, 6)
    inputs = inputs_of(Box(-1.0, 1.0, (2,)), action, 3, 2)
    both, params = jax.jit(encoder.init_with_output)(jax.random.key(0), inputs)
    assert both.shape == (3, 2, 6)
    row = encoder.apply(params, jax.tree.map(lambda x: x[2], inputs))
    np.testing.assert_allclose(row, both[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_the_previous_action_is_hidden_where_first(action):
    """Another previous action changes the code exactly where an episode is under way."""
    encoder = InputEncoder(Discrete(2), action, 6)
    inputs = inputs_of(Discrete(2), action, 40)
    other = inputs.replace(prev_action=members(action, 40, seed=9))
    one, params = jax.jit(encoder.init_with_output)(jax.random.key(0), inputs)
    change = np.abs(one - encoder.apply(params, other)).max(-1)
    differs = np.any(np.reshape(inputs.prev_action != other.prev_action, (40, -1)), axis=-1)
    assert 0 < (differs & ~inputs.first).sum() and 0 < (differs & inputs.first).sum()
    np.testing.assert_array_equal(change > 0, differs & ~inputs.first)


@pytest.mark.parametrize("field", ("obs", "prev_reward", "first"))
def test_every_input_reaches_the_code(field):
    """The memory gets observation, previous reward and the first flag (the action: see above)."""
    space = Box(-1.0, 1.0, (2,))
    encoder = InputEncoder(space, Discrete(2), 6)
    inputs = inputs_of(space, Discrete(2), 8)
    one, params = jax.jit(encoder.init_with_output)(jax.random.key(0), inputs)
    value = getattr(inputs, field)
    other = inputs.replace(**{field: ~value if field == "first" else value + 1.0})
    assert np.abs(one - encoder.apply(params, other)).max(-1).min() > 0
