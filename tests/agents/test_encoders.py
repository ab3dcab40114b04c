"""Encoders: every kind of space, any leading axes, and what is hidden at the first step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from members import members, random_inputs

from jaxrl_seq.agents.encoders import InputEncoder, ObservationEncoder, is_image
from jaxrl_seq.envs import Box, Discrete, MultiDiscrete, Space, Tree

IMAGE = Box(0, 255, (8, 8, 3), np.uint8)
SPACES = {
    "vector": (Box(-1.0, 1.0, (5,)), 5),
    "number": (Box(-1.0, 1.0), 1),
    "matrix": (Box(-1.0, 1.0, (2, 3)), 6),
    "discrete": (Discrete(4), 4),
    "multidiscrete": (MultiDiscrete((2, 3)), 5),
    "image": (IMAGE, 64),
    "tree": (Tree({"card": Discrete(4), "limbs": Tree({"arm": Box(-1.0, 1.0, (2, 3))})}), 10),
}
ACTIONS = [Discrete(3), MultiDiscrete((2, 3)), Box(-2.0, 2.0, (2,))]


def axes_agree(encoder, x) -> tuple[np.ndarray, dict]:
    """(code of x[T, B], params), after checking that x[B] and x[2, T, B] get the same one."""

    @jax.jit
    def run(x):
        code, params = encoder.init_with_output(jax.random.key(0), x)
        row = encoder.apply(params, jax.tree.map(lambda y: y[1], x))
        return code, row, encoder.apply(params, jax.tree.map(lambda y: jnp.stack([y, y]), x)), params

    code, row, folded, params = run(x)
    np.testing.assert_allclose(row, code[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(folded, np.stack([code, code]), rtol=1e-5, atol=1e-6)
    return code, params


@pytest.mark.parametrize("kind", SPACES)
def test_observations_of_any_space_and_any_leading_axes(kind):
    """[T, B], [B] and [2, T, B] are the same function of one observation, of the declared width."""
    space, width = SPACES[kind]
    code, _ = axes_agree(ObservationEncoder(space), members(space, 3, 2))
    assert code.shape == (3, 2, width) and code.dtype == jnp.float32
    assert np.abs(code[0] - code[1]).max() > 1e-3


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

    @jax.jit
    def both(obs):
        code, params = ObservationEncoder(IMAGE).init_with_output(jax.random.key(0), obs)
        floats = obs.astype(jnp.float32) / 255
        return code, ObservationEncoder(Box(0.0, 1.0, (8, 8, 3))).apply(params, floats)

    code, of_floats = both(members(IMAGE, 2))
    np.testing.assert_allclose(code, of_floats, rtol=1e-4, atol=1e-5)
    assert np.abs(code).max() < 10


def test_an_unknown_space_is_refused_in_words():
    """ValueError with the spaces that are served."""
    with pytest.raises(ValueError, match="use Discrete, MultiDiscrete, Box or Tree"):
        ObservationEncoder(Space()).apply({}, jnp.zeros(2))


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_inputs_of_a_step(action):
    """Any leading axes; the previous action is seen exactly where no episode opens; everything else always is."""
    space = Box(-1.0, 1.0, (2,))
    encoder = InputEncoder(space, action, 6)
    inputs = random_inputs(space, action, 10, 4, first=0.5)
    code, params = axes_agree(encoder, inputs)
    assert code.shape == (10, 4, 6)

    apply = jax.jit(encoder.apply)

    def change(**fields):
        return np.abs(code - apply(params, inputs.replace(**fields))).max(-1)

    other = members(action, 10, 4, seed=9)
    differs = np.any(np.reshape(inputs.prev_action != other, (10, 4, -1)), axis=-1)
    assert np.any(differs & ~inputs.first) and np.any(differs & inputs.first)
    np.testing.assert_array_equal(change(prev_action=other) > 0, differs & ~inputs.first)
    assert change(obs=inputs.obs + 1.0).min() > 0
    assert change(prev_reward=inputs.prev_reward + 1.0).min() > 0
    assert change(first=~inputs.first).min() > 0


def test_without_previous_only_observation_and_flag_are_read():
    """A control without memory must not read its own last action or reward: neither changes a bit."""
    space, action = Box(-1.0, 1.0, (2,)), Discrete(3)
    encoder = InputEncoder(space, action, 6, previous=False)
    inputs = random_inputs(space, action, 10, 4)
    other = inputs.replace(prev_action=members(action, 10, 4, seed=9), prev_reward=inputs.prev_reward + 1.0)

    @jax.jit
    def codes(inputs, other):
        code, params = encoder.init_with_output(jax.random.key(0), inputs)
        changed = [encoder.apply(params, x) for x in (other, inputs.replace(obs=-inputs.obs))]
        return code, *changed, encoder.apply(params, inputs.replace(first=~inputs.first))

    code, of_other, *seen = codes(inputs, other)
    np.testing.assert_array_equal(code, of_other)
    assert all(np.abs(code - x).max(-1).min() > 0 for x in seen)
