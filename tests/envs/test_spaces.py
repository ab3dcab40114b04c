"""Spaces: what they draw they contain, and what is not theirs they refuse."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_seq.envs import Box, Discrete, MultiDiscrete, Space, Tree

bounds = st.floats(-1e3, 1e3, width=32)
boxes = st.builds(
    lambda a, b, shape, dtype: Box(np.floor(min(a, b)), np.ceil(max(a, b)), tuple(shape), dtype),
    bounds,
    bounds,
    st.lists(st.integers(1, 3), max_size=2),
    st.sampled_from([np.float32, np.int32]),
)
leaves = st.one_of(
    st.builds(Discrete, st.integers(1, 9)),
    st.builds(MultiDiscrete, st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)),
    boxes,
)
spaces = st.one_of(leaves, st.dictionaries(st.sampled_from("abc"), leaves, min_size=1).map(Tree))


@settings(deadline=None, max_examples=20)
@given(space=spaces, seed=st.integers(0, 2**31 - 1))
def test_samples_are_members(space: Space, seed: int):
    assert bool(space.contains(space.sample(jax.random.key(seed))))
    assert hash(space) == hash(space) and space.flat_dim >= 1


@pytest.mark.parametrize(
    ("space", "outsiders"),
    [
        (Discrete(3), [jnp.int32(3), jnp.int32(-1), jnp.float32(1), jnp.zeros(1, jnp.int32), 1, 1.7]),
        (MultiDiscrete((2, 3)), [jnp.array([2, 0]), jnp.array([0, -1]), jnp.array([0, 0, 0]), jnp.zeros(2)]),
        (
            Box(0, 1, (3,)),
            [jnp.zeros(7), 2 * jnp.ones(3), -jnp.ones(3), jnp.zeros(3, jnp.int32), jnp.full(3, jnp.nan)],
        ),
        (Box((0, -1), (1, 5), (2,)), [jnp.array([0.5, 6.0]), jnp.array([1.5, 0.0])]),
        (Tree({"a": Discrete(2)}), [{"b": jnp.int32(0)}, {"a": jnp.int32(2)}, {}, jnp.int32(0)]),
    ],
)
def test_outsiders_are_refused(space: Space, outsiders: list[Any]):
    assert not any(bool(space.contains(x)) for x in outsiders)


def test_spaces_compare_by_value_and_contain_under_jit():
    assert Box(0, 1, (2,)) == Box(0.0, 1.0, (2,)) and Tree({"a": Discrete(2)}) == Tree({"a": Discrete(2)})
    assert len({Discrete(2), Discrete(2), Discrete(3)}) == 2
    assert bool(jax.jit(Box(0, 1, (2,)).contains)(jnp.ones(2)))
    unbounded = Box((-np.inf, 0, -3e38), (np.inf, 1, 3e38), (3,))
    sample = jax.vmap(unbounded.sample)(jax.random.split(jax.random.key(0), 500))
    assert np.isfinite(sample).all() and 0.5 < float(sample[:, 0].std()) < 2


@pytest.mark.parametrize(
    "bad",
    [
        lambda: Discrete(0),
        lambda: MultiDiscrete(()),
        lambda: Box(1, 0),
        lambda: Box((0, 0), 1, (3,)),
        lambda: Tree({}),
    ],
)
def test_impossible_spaces_are_refused(bad: Any):
    with pytest.raises(ValueError):
        bad()
