"""Lanes: each is the single run of its key, and a transformer's ring stays a slice under the vmap."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lab import B, T, run
from probes import Ledger

from jaxrl_seq.envs import VecEnv
from jaxrl_seq.models import MODELS
from jaxrl_seq.online import make_ppo
from jaxrl_seq.ops import carry_axes, is_clock
from jaxrl_seq.run.lanes import Lanes, lane

S = 3


def leaves(tree):
    """(path, leaf) of every leaf."""
    return jax.tree_util.tree_leaves_with_path(tree)


def test_a_lane_is_the_single_run_of_its_key(training):
    """After two updates, to 1e-4 (the batched program may be fused differently); lanes differ from one another."""
    learner, hyper = training.learner, training.hyper
    keys = jax.vmap(jax.random.key)(jnp.arange(S))
    lanes = Lanes(learner, S)
    assert lanes.steps_per_update == learner.steps_per_update

    @jax.jit
    def two_updates(keys):
        start = lanes.init(keys, hyper)
        return start, jax.lax.scan(lambda s, _: lanes.update(s, hyper), start, length=2)

    start, (state, metrics) = two_updates(keys)
    assert all(x.shape == (2, S) for x in metrics.values())
    for i in range(S):
        single = training.state.replace(params=lane(start.params, i), key=keys[i])
        # the lane's own start: init(keys[i]) of the learner alone
        single = jax.tree.map(lambda x, i=i: x[i], start) if i else jax.jit(learner.init)(keys[i], hyper)
        if i == 0:
            jax.tree.map(
                functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
                *(jax.tree.leaves((s.params, s.opt_state, s.acting)) for s in (single, lane(start, 0))),
            )
        alone, sums = training.rows(single, hyper, 2)
        for part in ("params", "opt_state", "acting"):
            for (path, a), (_, b) in zip(
                leaves(getattr(alone, part)), leaves(lane(getattr(state, part), i)), strict=True
            ):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=f"lane {i} {path}")
        np.testing.assert_array_equal(metrics["episodes"][:, i], sums["episodes"][:2])
    weights = np.asarray(state.params["params"]["policy_head"]["kernel"])
    assert np.abs(weights[0] - weights[1]).max() > 1e-3


def test_zero_lanes_are_refused(training):
    """ValueError with the number."""
    with pytest.raises(ValueError, match="num must be at least 1, got 0"):
        Lanes(training.learner, 0)


@pytest.mark.parametrize("name", MODELS)
def test_clocks_are_shared_and_everything_else_leads_with_the_lanes(name, small_model):
    """In the state after init and after an update, for every model."""
    learner = make_ppo(VecEnv(Ledger(), B, "select"), small_model(name), num_steps=T)
    lanes, hyper = Lanes(learner, S), learner.default_hyper()
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), S))
    state = jax.eval_shape(lanes.init, keys, hyper)
    after, metrics = jax.eval_shape(lanes.update, state, hyper)
    assert all(m.shape == (S,) for m in metrics.values())
    for tree in (state, after):
        clocks = [leaf for path, leaf in leaves(tree) if is_clock(path)]
        assert all(clock.shape == () for clock in clocks)
        assert bool(clocks) == (name == "transformer")
        assert all(leaf.shape[0] == S for path, leaf in leaves(tree) if not is_clock(path))


def test_a_ring_is_written_by_slices_in_all_lanes(small_model, random_params):
    """No scatter in the optimised rollout of a vmapped transformer; with a clock a lane there would be one.

    XLA on the CPU turns scatters into loops, so what it is given is looked at as well.
    """
    learner = make_ppo(VecEnv(Ledger(), B, "select"), small_model("transformer"), num_steps=T)
    params = random_params(learner.agent, Ledger())
    keys = jax.random.split(jax.random.key(0), S)

    def start(key):
        from jaxrl_seq.online.rollout import start_acting

        return start_acting(learner.env, learner.agent, key, Ledger().default_params())

    axes = carry_axes(jax.eval_shape(start, keys[0]))
    acting = jax.eval_shape(jax.vmap(start, out_axes=axes), keys)
    rolls = jax.jit(jax.vmap(functools.partial(run, learner), in_axes=(None, axes, 0), out_axes=((axes, 0))))
    given = rolls.lower(params, acting, keys)
    assert "dynamic_update_slice" in given.as_text() and "stablehlo.scatter" not in given.as_text()
    assert not re.search(r" scatter\(", given.compile().as_text())

    acting = jax.eval_shape(jax.vmap(start), keys)
    clocked = jax.jit(jax.vmap(functools.partial(run, learner), in_axes=(None, 0, 0)))
    assert "stablehlo.scatter" in clocked.lower(params, acting, keys).as_text()
