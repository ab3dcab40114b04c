"""PPO.update: one pure program, the same numbers however it is called, and a bad step that costs nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxprs import primitives, talks_to_the_host
from lab import B, T, quick, run
from probes import Ledger

from jaxrl_seq.envs import VecEnv
from jaxrl_seq.envs.core.batching import apply_if_any
from jaxrl_seq.online import PPOHyper, make_ppo
from jaxrl_seq.online.ppo import Batch, _take_batch, _with_advantages
from tests.kinds import every_model


def plain(tree):
    """NumPy leaves; keys as their data."""

    def leaf(x):
        return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)

    return jax.tree.map(leaf, tree)


def assert_same(a, b):
    """Bit for bit, leaf for leaf."""
    jax.tree.map(np.testing.assert_array_equal, plain(a), plain(b))


def assert_close(a, b, tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), plain(a), plain(b))


def distance(a, b):
    """Largest difference of two parameter trees."""
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(np.abs(x - y).max()), a, b)))


def metric(sums, name, n):
    """The first n rows of a metric; what lies beyond them is zero."""
    row = np.asarray(sums[name])
    assert np.all(row[n:] == 0)
    return row[:n]


# --- one program -----------------------------------------------------------------------------------------------------
def test_the_walk_finds_a_hidden_callback():
    """The control of the next test: a print inside branch, loop, gradient rule and batching rule is seen."""

    @jax.custom_vjp
    def noisy(x):
        jax.lax.cond(x > 0, lambda: jax.debug.print("here"), lambda: None)
        return x

    noisy.defvjp(lambda x: (noisy(x), None), lambda _, g: (g,))

    def program(x):
        return jax.lax.scan(lambda c, _: (apply_if_any(c > 0, noisy, c), None), x, length=2)[0]

    assert talks_to_the_host(jax.make_jaxpr(program)(1.0))
    assert talks_to_the_host(jax.make_jaxpr(jax.vmap(program))(jnp.ones(2)))


@pytest.mark.parametrize("name", every_model())
def test_nothing_leaves_the_device_in_an_update(name, small_model):
    """No callback, print or feed anywhere in the update of any model; acting, branch and epochs are really inside."""
    learner = make_ppo(VecEnv(Ledger(), B, "select"), small_model(name), num_steps=T)
    hyper = learner.default_hyper()
    state = jax.eval_shape(learner.init, jax.random.key(0), hyper)
    jaxpr = jax.make_jaxpr(learner.update)(state, hyper)
    assert talks_to_the_host(jaxpr) == set()
    assert {"scan", "cond", "dot_general", "random_bits"} <= set(primitives(jaxpr))


def test_the_same_key_gives_the_same_numbers(training):
    """Twice the same state, twice the same bits; another key, other numbers."""
    state, sums = training.rows(training.state, training.hyper, 2)
    again, same = training.rows(training.state, training.hyper, 2)
    assert_same((state, sums), (again, same))
    other, _ = training.rows(training.state.replace(key=jax.random.key(9)), training.hyper, 2)
    assert distance(state.params, other.params) > 1e-4


def test_cutting_a_run_into_chunks_changes_no_bit(training):
    """5 updates are 2 and then 3."""
    whole, sums = training.rows(training.state, training.hyper, 5)
    half, first = training.rows(training.state, training.hyper, 2)
    rest, second = training.rows(half, training.hyper, 3)
    assert_same(whole, rest)
    assert int(whole.update) == 5
    for name in sums:
        parts = [metric(first, name, 2), metric(second, name, 3)]
        np.testing.assert_array_equal(metric(sums, name, 5), np.concatenate(parts))


def test_a_scan_in_user_code_gives_the_same_numbers(training):
    """`jit(scan(update))` against the program of a run.

    To 1e-4 and not bit for bit: a loop of known and one of unknown length may be fused differently. Episodes and
    actions are counted exactly.
    """
    learner, hyper = training.learner, training.hyper

    @jax.jit
    def script(state):
        return jax.lax.scan(lambda state, _: learner.update(state, hyper), state, length=3)

    state, metrics = script(training.state)
    expected, sums = training.rows(training.state, hyper, 3)
    assert_close(state, expected, 1e-4)
    for name in sums:
        np.testing.assert_allclose(metrics[name], metric(sums, name, 3), rtol=1e-3, atol=1e-4, err_msg=name)
    np.testing.assert_array_equal(metrics["episodes"], sums["episodes"][:3])


def test_a_run_learns_from_what_it_did(training):
    """Metrics of a healthy update: the first ratio is 1 also here, everything is finite, parameters move."""
    state, sums = training.rows(training.state, training.hyper, 3)
    assert metric(sums, "ratio_error", 3).max() < 1e-4
    assert np.all(np.isfinite([np.asarray(v) for v in sums.values()]))
    assert np.all(metric(sums, "skipped", 3) == 0)
    assert np.all(metric(sums, "grad_norm", 3) > 0) and np.all(metric(sums, "approx_kl", 3) > 0)
    assert 1e-4 < distance(state.params, training.state.params) < 0.1
    assert int(state.update) == 3
    assert_same(state.key, training.state.key)


# --- hyper-parameters are traced -------------------------------------------------------------------------------------
def test_a_sweep_over_numbers_is_one_compilation(training):
    """Every field of the hyper-parameters may change without a trace, and the learning rate matters."""
    training.rows(training.state, training.hyper, 1)
    before = training.rows._cache_size()
    fast = training.hyper.replace(lr=1e-2)
    state, _ = training.rows(training.state, fast, 1)
    slow, _ = training.rows(training.state, training.hyper, 1)
    ratio = distance(state.params, training.state.params) / distance(slow.params, training.state.params)
    assert 5 < ratio < 20
    for field in dataclasses.fields(PPOHyper):
        if field.name != "env_params":
            changed = training.hyper.replace(**{field.name: 0.5 * getattr(fast, field.name) + 0.1})
            training.rows(training.state, changed, 1)
    assert training.rows._cache_size() == before


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 0.5},
        {"gae_lambda": 0.2},
        {"clip": 1e-3},
        {"value_clip": 1e-3},
        {"value_coef": 5.0},
        {"entropy_coef": 1.0},
        {"max_grad_norm": 1e-4},
        {"anneal_updates": 2.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_hyper_parameter_is_read(training, change):
    """Changing any of them changes the parameters after two updates."""
    base, _ = training.rows(training.state, training.hyper, 2)
    other, _ = training.rows(training.state, training.hyper.replace(**change), 2)
    assert distance(base.params, other.params) > 1e-6


def test_the_learning_rate_falls_to_zero_and_stays_there(training):
    """Linearly over `anneal_updates`; at zero nothing moves any more."""
    hyper = training.hyper.replace(lr=2e-3, anneal_updates=4.0)
    four, sums = training.rows(training.state, hyper, 4)
    np.testing.assert_allclose(metric(sums, "lr", 4), [2e-3, 1.5e-3, 1e-3, 0.5e-3], rtol=1e-5)
    six, sums = training.rows(four, hyper, 2)
    np.testing.assert_array_equal(metric(sums, "lr", 2), 0)
    assert_same(six.params, four.params)
    assert int(six.update) == 6


# --- a bad step ------------------------------------------------------------------------------------------------------
def test_a_poisoned_reward_leaves_no_trace_in_the_parameters(training):
    """Not-a-number rewards: every step is skipped and counted, parameters and optimiser stay bit for bit.

    When the poison is gone the memories are rid of it at their next reset, and learning goes on.
    """
    healthy, _ = training.rows(training.state, training.hyper, 1)
    poison = training.hyper.replace(env_params=training.hyper.env_params.replace(scale=jnp.float32(np.nan)))
    ill, sums = training.rows(healthy, poison, 2)
    np.testing.assert_array_equal(metric(sums, "skipped", 2), 2 * 2)
    assert_same((ill.params, ill.opt_state), (healthy.params, healthy.opt_state))
    assert int(ill.update) == 3

    cured, sums = training.rows(ill, training.hyper, 3)
    skipped = metric(sums, "skipped", 3)
    assert skipped[0] == 4 and np.all(skipped[1:] == 0)
    assert np.all(np.isfinite(np.concatenate([np.ravel(x) for x in jax.tree.leaves(plain(cured))])))
    assert distance(cured.params, healthy.params) > 1e-4


# --- minibatches -----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def batch(training):
    """A rollout with its advantages."""
    middle, _ = run(training.learner, training.state.params, training.state.acting, jax.random.key(1))
    _, (trajectory, _) = run(training.learner, training.state.params, middle, jax.random.key(2))
    return quick(_with_advantages)(trajectory, training.hyper)


def test_a_minibatch_is_whole_environments_in_time_order(batch):
    """Every leaf of it, the carry included, is the batch's at those environments."""
    envs = np.array([6, 1, 3])
    part = _take_batch(batch, jnp.asarray(envs))
    t, cut = batch.trajectory, part.trajectory
    across = ("inputs", "action", "log_prob", "value", "reward", "terminated", "truncated", "final_value")
    pairs = [(getattr(t, name), getattr(cut, name), np.s_[:, envs]) for name in across]
    pairs += [(batch.advantage, part.advantage, np.s_[:, envs]), (batch.target, part.target, np.s_[:, envs])]
    pairs += [(t.carry, cut.carry, envs), (t.last_value, cut.last_value, envs)]
    for whole, taken, where in pairs:
        jax.tree.map(lambda a, b, where=where: np.testing.assert_array_equal(np.asarray(a)[where], b), whole, taken)
    assert isinstance(part, Batch) and len(jax.tree.leaves(t.carry)) > 0


def test_the_order_of_environments_does_not_matter(training, batch):
    """One minibatch an epoch: a permuted batch moves the parameters to the same place, to 1e-6.

    A shuffle inside the sequences, or a carry left behind, would show.
    """
    learner = dataclasses.replace(training.learner, minibatches=1)
    permuted = _take_batch(batch, jnp.array([3, 0, 7, 1, 6, 2, 5, 4]))
    foreign = dataclasses.replace(permuted.trajectory, carry=batch.trajectory.carry)
    mixed_up = dataclasses.replace(permuted, trajectory=foreign)

    @quick
    def learn(batch):
        lr = jnp.float32(1e-3)
        (params, _), metrics = learner._optimise(
            jax.random.key(0), training.state.params, training.state.opt_state, batch, training.hyper, lr
        )
        return params, metrics["ratio_error"]

    (one, error), (other, same), (wrong, bad) = learn(batch), learn(permuted), learn(mixed_up)
    assert distance(one, training.state.params) > 1e-4
    assert_close(one, other, 1e-6)
    assert error < 1e-4 and same < 1e-4
    assert distance(one, wrong) > 1e-5 and bad > 1e-3


def test_every_environment_is_used_once_an_epoch(training, batch):
    """With as many minibatches as environments, one epoch at learning rate 0 averages the whole batch's losses."""
    hyper = training.hyper
    loss = quick(lambda batch: training.learner._loss(training.state.params, batch, hyper)[1])(batch)
    learner = dataclasses.replace(training.learner, minibatches=B, epochs=1)
    (params, _), mean = quick(
        lambda batch: learner._optimise(
            jax.random.key(0), training.state.params, training.state.opt_state, batch, hyper, jnp.float32(0.0)
        )
    )(batch)
    assert_same(params, training.state.params)
    for name in ("policy_loss", "value_loss", "entropy"):
        np.testing.assert_allclose(mean[name], loss[name], rtol=1e-4, atol=1e-6)


# --- impossible sizes ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("envs", "options", "message"),
    [
        (6, {"minibatches": 4}, r"num_envs \(6\).*minibatches \(4\).*num_envs 4 or 8, or minibatches 3"),
        (3, {"minibatches": 4}, r"Use num_envs 4, or minibatches 3"),
        (10, {"minibatches": 4}, r"Use num_envs 8 or 12, or minibatches 5"),
        (8, {"num_steps": 0}, r"num_steps must be at least 1, got 0"),
        (8, {"epochs": -1}, r"epochs must be at least 1, got -1"),
        (8, {"minibatches": 0}, r"minibatches must be at least 1, got 0"),
    ],
)
def test_bad_sizes_are_refused_with_the_nearest_good_ones(envs, options, message, small_model):
    """ValueError before anything is traced, with the numbers and the fix."""
    with pytest.raises(ValueError, match=message):
        make_ppo(VecEnv(Ledger(), envs, "select"), small_model("mlp"), **options)


def test_steps_per_update_counts_all_environments(training):
    """What the host counts steps with."""
    assert training.learner.steps_per_update == B * T
