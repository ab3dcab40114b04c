"""Algorithms against slow twins of their updates, log-probabilities against frequencies, and what does not fit."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl_seq.envs import make
from jaxrl_seq.envs.bandits.bernoulli import BernoulliBandit
from jaxrl_seq.envs.core.trials import TrialEnv
from jaxrl_seq.envs.core.vector import Inputs
from jaxrl_seq.envs.planning.tabular_mdp import value_iteration
from jaxrl_seq.incontext.algorithms import ALGORITHMS, make_algorithm
from jaxrl_seq.incontext.algorithms.bandits import (
    BetaThompson,
    GaussianThompson,
    LinThompson,
    LinUCB,
    Pulls,
    gamma,
)
from jaxrl_seq.incontext.algorithms.tabular import PSRL, UCBVI
from jaxrl_seq.incontext.histories import play
from jaxrl_seq.incontext.policies import Step, Streams, View


def trial_of(spec: str, episodes: int = 1) -> tuple[TrialEnv, Any]:
    env, params = make(spec)
    return TrialEnv(env, episodes=episodes), params


def view_of(obs: Any = 0, first: bool = False, episode: int = 0, mask: Any = None) -> View:
    inner = {"obs": jnp.asarray(obs), "first_inner": jnp.full(1, first, jnp.float32)}
    inputs = Inputs(inner, jnp.int32(0), jnp.float32(0), jnp.asarray(first), mask)
    return View(inputs, SimpleNamespace(episode=episode))


def step_of(obs: Any, action: int, reward: float, done: bool = False, after: Any = 0) -> Step:
    return Step(view_of(obs), jnp.int32(action), jnp.float32(reward), jnp.asarray(done), view_of(after, first=done))


def learnt(algorithm: Any, steps: list[Step]) -> Any:
    memory = algorithm.init(jax.random.key(0))
    for step in steps:
        memory = algorithm.observe(jax.random.key(1), memory, step)
    return memory


# --- twins ------------------------------------------------------------------------------------------------------------
def test_beta_posterior(strict: None):
    payouts = [(0, 1), (0, 0), (2, 1), (0, 1), (2, 1), (2, 1)]
    algorithm = BetaThompson(arms=3)
    a, b = algorithm.posterior(learnt(algorithm, [step_of(1.0, arm, paid) for arm, paid in payouts]))
    x = (np.arange(4000) + 0.5) / 4000
    for arm in range(3):
        density = np.prod([x if paid else 1 - x for i, paid in payouts if i == arm], axis=0) * np.ones_like(x)
        density /= density.mean()
        np.testing.assert_allclose(scipy.stats.beta(a[arm], b[arm]).pdf(x), density, rtol=1e-3, atol=1e-4)


def test_gaussian_posterior(strict: None):
    rng = np.random.default_rng(0)
    payouts = [
        (int(arm), float(paid)) for arm, paid in zip(rng.integers(0, 2, 9), rng.normal(0.4, 0.3, 9), strict=True)
    ]
    algorithm = GaussianThompson(arms=3, prior_mean=0.4, prior_variance=0.2, noise=0.7)
    mean, variance = algorithm.posterior(learnt(algorithm, [step_of(1.0, arm, paid) for arm, paid in payouts]))
    x = np.linspace(-4, 5, 40_001)
    for arm in range(3):
        log = -((x - 0.4) ** 2) / (2 * 0.2)
        log -= sum((paid - x) ** 2 / (2 * 0.7**2) for i, paid in payouts if i == arm)
        weight = np.exp(log - log.max())
        weight /= weight.sum()
        np.testing.assert_allclose(mean[arm], weight @ x, atol=1e-5)
        np.testing.assert_allclose(variance[arm], weight @ x**2 - (weight @ x) ** 2, rtol=1e-4)


def test_ridge_regression(strict: None):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(6, 3)).astype(np.float32)
    arms, paid = rng.integers(0, 6, 20), rng.normal(size=20)
    ucb = LinUCB(features=jnp.asarray(features), ridge=0.5, bonus=0.8)
    memory = learnt(ucb, [step_of(1.0, int(arm), float(y)) for arm, y in zip(arms, paid, strict=True)])
    x = features[arms].astype(np.float64)
    covariance = np.linalg.inv(x.T @ x + 0.5 * np.eye(3))
    theta = covariance @ x.T @ paid
    np.testing.assert_allclose(ucb.estimate(memory)[0], theta, atol=1e-4)
    bounds = [f @ theta + 0.8 * np.sqrt(f @ covariance @ f) for f in features]
    assert int(ucb.act(jax.random.key(0), memory, view_of(1.0))[1]) == np.argmax(bounds)
    # draws of theta have the posterior's covariance, which is seen in how often each arm wins
    thompson = LinThompson(features=jnp.asarray(features), ridge=0.5, noise=1.5)
    won = frequencies(thompson, memory, view_of(1.0), 6)[0]
    drawn = rng.multivariate_normal(theta, 1.5**2 * covariance, 20_000)
    twin = np.bincount(np.argmax(drawn @ features.T, axis=1), minlength=6) / 20_000
    assert abs(won - twin).max() < 0.025


def test_priors_are_those_of_the_environment():
    trial, params = trial_of("linear_bandit")
    linear = make_algorithm("lin-thompson", trial, params).algorithm
    assert float(linear.noise**2 / linear.ridge) == pytest.approx(1 / 2)  # theta ~ N(0, 1 / d)
    arms = make_algorithm("thompson", trial, params).algorithm
    drawn = jax.vmap(trial.sample_task, in_axes=(0, None))(jax.random.split(jax.random.key(0), 20_000), params)
    np.testing.assert_allclose(arms.prior_variance, (drawn @ params.features.T).var(0), rtol=0.05)
    trial, params = trial_of("gaussian_bandit")
    arms = make_algorithm("thompson", trial, params.replace(high=jnp.float32(3))).algorithm
    np.testing.assert_allclose([arms.prior_mean, arms.prior_variance, arms.noise], [1.5, 0.75, 0.3], rtol=1e-6)


def test_model_of_an_mdp_and_its_posterior(strict: None):
    rng = np.random.default_rng(2)
    algorithm = PSRL(states=3, actions=2, horizon=4, reward_mean=0.5, reward_spread=2.0, noise=0.5)
    walk = [(*map(int, rng.integers(0, (3, 2, 3))), float(rng.normal()), t % 4 == 3) for t in range(40)]
    model = learnt(algorithm, [step_of(s, a, r, done, after) for s, a, after, r, done in walk])
    mean, variance = algorithm.posterior(model)
    x = np.linspace(-8, 8, 20_001)
    for s, a in itertools.product(range(3), range(2)):
        for after in range(3):
            seen = sum((s, a, after) == step[:3] and not step[4] for step in walk)
            assert float(model.moves[s, a, after]) == seen
        weight = scipy.stats.norm(0.5, 2.0).pdf(x)
        for step in walk:
            if step[:2] == (s, a):
                weight = weight * scipy.stats.norm(step[3], 0.5).pdf(x)
        weight /= weight.sum()
        np.testing.assert_allclose(mean[s, a], weight @ x, atol=1e-4)
        np.testing.assert_allclose(variance[s, a], weight @ x**2 - (weight @ x) ** 2, rtol=1e-3)
    assert int(model.t) == 0


def test_value_iteration_against_every_policy(strict: None):
    rng = np.random.default_rng(3)
    chances, rewards = rng.dirichlet(np.ones(2), (2, 2)), rng.normal(size=(2, 2))
    best = np.full(2, -np.inf)
    for choice in itertools.product(range(2), repeat=6):
        value = np.zeros(2)
        for actions in np.reshape(choice, (3, 2)):
            value = np.array([rewards[s, actions[s]] + chances[s, actions[s]] @ value for s in range(2)])
        best = np.maximum(best, value)
    q, value = value_iteration(jnp.asarray(chances, jnp.float32), jnp.asarray(rewards, jnp.float32), 3)
    np.testing.assert_allclose(value[0], best, atol=1e-6)
    np.testing.assert_allclose(q[2], rewards, atol=1e-6)


def test_optimism_of_ucb_vi(strict: None):
    algorithm = UCBVI(states=2, actions=2, horizon=3, steps=100.0, top=4.0, bonus=0.2, delta=0.1)
    seen = [step_of(0, 0, 1.0, after=1), step_of(0, 0, 2.0, after=1), step_of(1, 0, 0.5, after=0)]
    plan = np.asarray(algorithm.plan(jax.random.key(0), learnt(algorithm, seen)))
    log = np.log(5 * 2 * 2 * 100 / 0.1)
    first, second = 1.5 + 0.2 * np.sqrt(log / 2), 0.5 + 0.2 * np.sqrt(log)
    np.testing.assert_allclose(plan[2], [[first, 4.0], [second, 4.0]], rtol=1e-5)
    np.testing.assert_allclose(plan[0], [[first + 8.0, 12.0], [second + 8.0, 12.0]], rtol=1e-5)


@pytest.mark.parametrize("terminal", [False, True])
def test_q_learnings_update(terminal: bool, strict: None):
    trial, params = trial_of("tabular_mdp,states=3,actions=2", 10)
    algorithm = make_algorithm(
        "q-learning", trial, params, learning_rate=0.5, discount=0.8, terminal=terminal
    ).algorithm
    seen = [step_of(0, 1, 1.0, after=2), step_of(1, 0, 0.0, after=0), step_of(2, 0, 4.0, True, after=0)]
    end = 2.0 if terminal else 0.0
    np.testing.assert_allclose(learnt(algorithm, seen), [[0, 0.5], [0.2, 0], [end, 0]], atol=1e-6)


@pytest.mark.parametrize("shape", [1.0, 1.5, 4.0, 60.0])
def test_gamma_draws(shape: float, strict: None):
    drawn = jax.jit(gamma)(jax.random.key(0), jnp.full(50_000, shape, jnp.float32))
    assert scipy.stats.kstest(np.asarray(drawn), scipy.stats.gamma(shape).cdf).pvalue > 1e-3


# --- chances ----------------------------------------------------------------------------------------------------------
def frequencies(algorithm: Any, memory: Any, view: View, actions: int, draws: int = 20_000) -> tuple[Any, Any]:
    """How often each action is taken [A], and the chance that it is said to have (NaN if never taken)."""
    state, inputs = view.state, view.inputs

    def act(key: jax.Array) -> Any:
        return algorithm.act(key, memory, View(inputs, state))[1:]

    action, log_prob = jax.jit(jax.vmap(act))(jax.random.split(jax.random.key(5), draws))
    taken = np.bincount(np.asarray(action), minlength=actions) / draws
    said = np.full(actions, np.nan)
    said[np.asarray(action)] = np.exp(np.asarray(log_prob))
    return taken, said


def check_chances(taken: np.ndarray, chances: Any) -> None:
    chances = np.asarray(chances)
    assert (abs(taken - chances) <= 4 * np.sqrt(chances * (1 - chances) / 20_000)).all()


def test_log_probs_are_the_frequencies():
    coins, _ = trial_of("bernoulli_bandit,arms=4,pulls=10")
    room, _ = trial_of("darkroom,size=5,limit=12", 10)
    two_best = Pulls(counts=jnp.array([2.0, 4.0, 2.0, 1.0]), sums=jnp.array([1.0, 1.0, 1.0, 0.0]))
    table = jnp.zeros((25, 5)).at[3, 2].set(1.0)
    cases = [
        ("uniform", coins, (), view_of(1.0), [0.25] * 4),
        ("uniform", coins, (), view_of(1.0, mask=jnp.array([True, False, True, False])), [0.5, 0, 0.5, 0]),
        ("greedy", coins, two_best, view_of(1.0), [0.5, 0, 0.5, 0]),
        ("ucb", coins, two_best, view_of(1.0), [0.5, 0, 0.5, 0]),
        ("dpt-behaviour", coins, jnp.array([0.1, 0.2, 0.3, 0.4]), view_of(1.0), [0.1, 0.2, 0.3, 0.4]),
        ("q-learning", room, table, view_of([0, 3], episode=3), np.array([2, 2, 7, 2, 2]) / 15),
        ("q-learning", room, table, view_of([0, 4], episode=9), [0.2] * 5),
    ]
    for name, trial, memory, view, chances in cases:
        taken, said = frequencies(make_algorithm(name, trial).algorithm, memory, view, trial.action_space().n)
        check_chances(taken, chances)
        there = np.asarray(chances) > 0
        np.testing.assert_allclose(said[there], np.asarray(chances)[there], rtol=1e-5, err_msg=name)


def test_thompson_sampling_matches_its_posterior():
    memory = Pulls(counts=jnp.array([4.0, 10.0]), sums=jnp.array([3.0, 6.0]))
    taken, said = frequencies(BetaThompson(arms=2), memory, view_of(1.0), 2)
    x = (np.arange(20_000) + 0.5) / 20_000
    first = np.mean(scipy.stats.beta(4, 2).pdf(x) * scipy.stats.beta(7, 5).cdf(x))
    check_chances(taken, [first, 1 - first])
    assert np.isnan(said).all()  # not known, and not claimed to be


def test_noisy_expert_in_a_room():
    trial, params = trial_of("darkroom,size=5,limit=12", 20)
    algorithm = make_algorithm("noisy-expert", trial, params, max_performance=0.8).algorithm
    state, _ = trial.reset_to(jax.random.key(0), jnp.int32(2), params)  # the goal is up
    view = View(view_of(12).inputs, state.replace(episode=jnp.int32(9)))
    eps = 1 - 0.8 * 9 / 18
    chances = eps / 5 + (1 - eps) * np.eye(5)[0]
    taken, said = frequencies(algorithm, algorithm.init(jax.random.key(0)), view, 5)
    check_chances(taken, chances)
    np.testing.assert_allclose(said, chances, rtol=1e-5)
    expert = make_algorithm("expert", trial, params).algorithm
    assert [float(x) for x in expert.act(jax.random.key(0), (), view)[1:]] == [0, 0]


def test_noise_falls_to_its_floor_and_stays():
    trial, _ = trial_of("darkroom", 100)
    noisy = make_algorithm("noisy-expert", trial, max_performance=0.7).algorithm
    eps = [float(noisy.chance_of_noise(jnp.float32(0), jnp.int32(n))) for n in (0, 45, 90, 99)]
    np.testing.assert_allclose(eps, [1.0, 0.65, 0.3, 0.3], atol=1e-6)
    fixed = make_algorithm("noisy-expert", trial, schedule="constant", eps=0.4).algorithm
    assert float(fixed.chance_of_noise(fixed.init(jax.random.key(0)), jnp.int32(90))) == pytest.approx(0.4)
    own = make_algorithm("noisy-expert", trial, max_performance=0.7, schedule="stream").init(jax.random.key(0), 5000)
    assert scipy.stats.kstest(np.asarray(own), scipy.stats.uniform(0.3, 0.7).cdf).pvalue > 1e-3


# --- streams ----------------------------------------------------------------------------------------------------------
def test_streams_do_not_mind_each_other():
    """Nor that plans are made for all streams in one go, whether or not their episodes open."""
    policy = Streams(PSRL(states=3, actions=2, horizon=4))
    views = [view_of(s, first=first) for s, first in ((0, True), (2, False), (1, True))]
    flat = [View(view.inputs, ()) for view in views]
    key, rng = jax.random.key(0), np.random.default_rng(0)
    memory = policy.init(key, 3)
    memory = memory.replace(
        moves=jnp.asarray(rng.integers(0, 4, memory.moves.shape), jnp.float32),
        visits=jnp.asarray(rng.integers(8, 9, memory.visits.shape), jnp.float32),
        rewards=jnp.asarray(rng.normal(size=memory.rewards.shape), jnp.float32),
        plan=jnp.asarray(rng.normal(size=memory.plan.shape), jnp.float32),
    )
    together = jax.jit(policy.act)(key, memory, jax.tree.map(lambda *x: jnp.stack(x), *flat))
    act = jax.jit(policy.algorithm.act)
    for i, own in enumerate(jax.random.split(key, 3)):
        one = jax.tree.map(lambda x, i=i: x[i], memory)
        alone = act(own, one, flat[i])
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5), together, alone)
        assert np.array_equal(alone[0].plan, one.plan) == (i == 1)


def test_behaviours_differ_between_streams():
    trial, _ = trial_of("gaussian_bandit,arms=3,pulls=5")
    policy = make_algorithm("dpt-behaviour", trial)
    chances = np.asarray(jax.jit(policy.init, static_argnums=1)(jax.random.key(0), 20_000))
    np.testing.assert_allclose(chances.sum(1), 1, rtol=1e-5)
    # 1 of 11 streams pulls one arm only; in the mean arms are alike
    only = (chances.max(1) > 1 - 1e-6).mean()
    assert abs(only - 1 / 11) < 4 * (1 / 11 * 10 / 11 / 20_000) ** 0.5
    np.testing.assert_allclose(chances.mean(0), 1 / 3, atol=0.01)
    # E[sum of squares], with E[c] = 1/2 and E[c^2] = .35: of a flat Dirichlet 1/2, of the point 1, between them 1/3
    np.testing.assert_allclose((chances**2).sum(1).mean(), 0.35 / 2 + 0.35 + 2 * 0.15 / 3, atol=0.006)


# --- what does not fit ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "spec", "options", "words"),
    [
        ("thomson", "bernoulli_bandit", {}, "Did you mean 'thompson'"),
        ("ucb", "bernoulli_bandit", {"bonsu": 1.0}, "option of ucb 'bonsu'. Did you mean 'bonus'"),
        ("thompson", "darkroom", {}, "needs a bandit; darkroom is none"),
        ("lin-ucb", "gaussian_bandit", {}, "needs LinearBandit"),
        ("q-learning", "point_robot", {}, "not numbers of states"),
        ("q-learning", "darkroom,coordinates=true", {}, "not numbers of states"),
        ("sweeper", "darkroom,permuted=true", {}, "not permuted"),
        ("sweeper", "dark_key_to_door", {}, "dark rooms"),
        ("roamer", "odd_bandit", {}, "dark rooms"),
        ("posterior", "darkroom", {"commit": "steps"}, "Did you mean 'step'"),
        ("noisy-expert", "point_robot", {}, "discrete actions"),
        ("noisy-expert", "darkroom", {"schedule": "lineal"}, "Did you mean 'linear'"),
    ],
)
def test_what_does_not_fit_is_said_before_compiling(name: str, spec: str, options: dict[str, Any], words: str):
    trial, params = trial_of(spec)
    with pytest.raises(ValueError, match=words):
        make_algorithm(name, trial, params, **options)


def test_oracles_need_an_expert():
    @dataclass(frozen=True)
    class Unsolved(BernoulliBandit):
        def has(self, capability: str) -> bool:
            return capability != "expert" and super().has(capability)

    for name in ("expert", "noisy-expert"):
        with pytest.raises(ValueError, match="bernoulli_bandit has none"):
            make_algorithm(name, TrialEnv(Unsolved(), episodes=1))


def test_an_environment_is_no_trial():
    env, params = make("bernoulli_bandit")
    with pytest.raises(ValueError, match="wrap it, TrialEnv"):
        make_algorithm("thompson", env, params)  # pyright: ignore[reportArgumentType]


def test_every_name_makes_a_policy_whose_numbers_are_traced():
    specs = {"lin-": "linear_bandit", "thompson": "linear_bandit", "sweeper": "darkroom", "q-": "darkroom"}
    specs |= {"psrl": "tabular_mdp", "ucb-vi": "tabular_mdp"} | dict.fromkeys(("noisy", "roam", "post"), "darkroom")
    for name in ALGORITHMS:
        trial, params = trial_of(next((spec for start, spec in specs.items() if name.startswith(start)), "odd_bandit"))
        policy = make_algorithm(name, trial, params)
        assert isinstance(policy, Streams)
        # a swept option is one value per lane, not a new program
        assert all(isinstance(leaf, jax.Array | float) for leaf in jax.tree.leaves(policy))


def test_continuous_actions_are_for_oracles_and_chance():
    """A uniform action has a density, that of an expert has none."""
    trial, params = trial_of("point_robot,limit=5")
    tasks = jax.vmap(trial.sample_task, in_axes=(0, None))(jax.random.split(jax.random.key(0), 3), params)
    run = jax.jit(play, static_argnums=1)
    for name, said in (("expert", np.nan), ("uniform", -2 * np.log(0.2))):  # of the square [-.1, .1]^2
        h = run(make_algorithm(name, trial, params), trial, tasks, jax.random.key(1), params)
        np.testing.assert_allclose(h.log_prob, said, rtol=1e-6)
