"""Lanes: each is the single run of its key, and a transformer's ring stays a slice under the vmap."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lab import B, T, fresh_acting, one_rollout, quick
from probes import Ledger

from jaxrl_seq.envs import VecEnv
from jaxrl_seq.online import make_ppo
from jaxrl_seq.ops import carry_axes, is_clock
from jaxrl_seq.run.lanes import Lanes, lane
from jaxrl_seq.testing.model_probe import WITH_SCATTERS
from tests.kinds import every_model

S = 3


def leaves(tree):
    """(path, leaf) of every leaf."""
    return jax.tree_util.tree_leaves_with_path(tree)


def assert_alike(a, b, tolerance):
    """Leaf for leaf to `tolerance`; keys and counts exactly."""
    for (path, x), (_, y) in zip(leaves(a), leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=jax.tree_util.keystr(path))


def test_a_lane_is_the_single_run_of_its_key(training):
    """After two updates, to 1e-4 (the batched program may be fused differently); lanes differ from one another."""
    learner, hyper = training.learner, training.hyper
    keys = jax.vmap(jax.random.key)(jnp.arange(S))
    lanes = Lanes(learner, S)
    assert lanes.steps_per_update == learner.steps_per_update

    @quick
    def two_updates(keys):
        start = lanes.init(keys, hyper)
        return start, jax.lax.scan(lambda s, _: lanes.update(s, hyper), start, length=2)

    start, (state, metrics) = two_updates(keys)
    assert all(x.shape == (2, S) for x in metrics.values())
    assert_alike(lane(start, 0), training.fresh, 1e-5)  # `fresh` is the learner's own init of key 0
    for i in range(S):
        alone, sums = training.rows(lane(start, i), hyper, 2)
        assert_alike(lane(state, i), alone, 1e-4)
        np.testing.assert_array_equal(metrics["episodes"][:, i], sums["episodes"][:2])
        np.testing.assert_allclose(metrics["return_sum"][:, i], sums["return_sum"][:2], rtol=1e-4)
    weights = np.asarray(state.params["params"]["policy_head"]["kernel"])
    assert np.abs(weights[0] - weights[1]).max() > 1e-3


def test_zero_lanes_are_refused(training):
    """ValueError with the number."""
    with pytest.raises(ValueError, match="num must be at least 1, got 0"):
        Lanes(training.learner, 0)


@pytest.mark.parametrize("name", every_model())
def test_clocks_are_shared_and_everything_else_leads_with_the_lanes(name, small_model):
    """In the state after init and after an update, for every model."""
    learner = make_ppo(VecEnv(Ledger(), B, "select"), small_model(name), num_steps=T)
    lanes, hyper = Lanes(learner, S), learner.default_hyper()
    own = learner.agent.initialize_carry((B,))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), S))
    state = jax.eval_shape(lanes.init, keys, hyper)
    after, metrics = jax.eval_shape(lanes.update, state, hyper)
    assert all(m.shape == (S,) for m in metrics.values())
    for tree in (state, after):
        clocks = [leaf for path, leaf in leaves(tree) if is_clock(path)]
        assert all(clock.shape == () for clock in clocks)
        assert bool(clocks) == any(is_clock(path) for path, _ in leaves(own))
        assert all(leaf.shape[0] == S for path, leaf in leaves(tree) if not is_clock(path))


@pytest.mark.parametrize("shared", [True, False], ids=("shared clock", "control: a clock a lane"))
def test_a_ring_is_written_by_slices_in_all_lanes(shared, small_model):
    """No scatter in the optimised rollout of a vmapped transformer; a clock for each lane would make some."""
    learner = make_ppo(VecEnv(Ledger(), B, "select"), small_model("transformer"), num_steps=T)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), S))
    state = jax.eval_shape(learner.init, jax.eval_shape(lambda: jax.random.key(0)), learner.default_hyper())
    axes = carry_axes(state.acting) if shared else 0
    acting = jax.eval_shape(jax.vmap(functools.partial(fresh_acting, learner), out_axes=axes), keys)
    rolls = jax.vmap(functools.partial(one_rollout, learner), in_axes=(None, axes, 0), out_axes=(axes, 0))
    program = quick(rolls).lower(state.params, acting, keys).compile(compiler_options=WITH_SCATTERS).as_text()
    assert program is not None and "dynamic-update-slice(" in program
    assert bool(re.search(r" scatter\(", program)) == (not shared)
