"""PPO learns: values of probes in closed form, memory where it is needed, and (slow) the tasks of the library."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import CONSTANT, DELAYED, ENDING, ENDLESS, MATCHING, SHOWN, Recall, Values

from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.envs import VecEnv, make
from jaxrl_seq.models import make_model
from jaxrl_seq.online import PPO, PPOHyper, make_ppo, rollout
from jaxrl_seq.run.lanes import Lanes
from jaxrl_seq.run.stats import bootstrap_ci

KINDS = {
    "constant": CONSTANT,
    "shown": SHOWN,
    "delayed": DELAYED,
    "matching": MATCHING,
    "ending": ENDING,
    "endless": ENDLESS,
}
GAMMA = 0.8


@pytest.fixture(scope="module")
def learned_values():
    """All six value probes trained in one vmapped program: a sweep over `env_params`.

    Gives (observations, values) of a last rollout, [kind, T, B, ...].
    """
    learner = make_ppo(
        VecEnv(Values(), 16, "select"), make_model("mlp", width=16, layers=1), num_steps=8, minibatches=1
    )

    @jax.jit
    @jax.vmap
    def train(key, kind):
        env_params = dataclasses.replace(Values().default_params(), kind=kind)
        hyper = PPOHyper(lr=5e-3, gamma=GAMMA, entropy_coef=0.0, anneal_updates=300.0, env_params=env_params)
        state = learner.init(key, hyper)
        state, _ = jax.lax.scan(lambda s, _: learner.update(s, hyper), state, length=300)
        key = jax.random.key(99)
        last = rollout(learner.env, learner.agent, state.params, state.acting, key, env_params, 8)[1][0]
        return last.inputs.obs, last.value

    kinds = jnp.arange(len(KINDS), dtype=jnp.int32)
    return jax.tree.map(np.asarray, train(jax.random.split(jax.random.key(0), len(KINDS)), kinds))


@pytest.mark.parametrize("name", KINDS)
def test_values_reach_their_closed_form(name, learned_values):
    """Rewards, observations, discounting, the end of an episode and its absence: each probe isolates one of them.

    ENDLESS is 5 only if cuts are bootstrapped (else at most 2.95), ENDING ends at 1 only if terminations are not.
    """
    kind = KINDS[name]
    obs, value = (x[kind] for x in learned_values)
    expected = Values().value(kind, obs, GAMMA)
    np.testing.assert_allclose(value, expected, atol=0.12 + 0.02 * np.abs(expected).max())
    assert len(np.unique(expected)) == {"shown": 2, "delayed": 2, "ending": 4}.get(name, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "solves"), [("gru", True), ("mlp", False)])
def test_memory_is_what_solves_recall(model, solves):
    """A cue of two steps ago, four seeds: a GRU takes all of it, a net without memory stays at the guess.

    Greedy evaluation agrees, so it carries memory as well.
    """
    agent = ActorCritic.for_env(Recall(), make_model(model, width=16, layers=1), previous=solves)
    learner = PPO(VecEnv(Recall(), 32), agent, num_steps=12, minibatches=1)
    hyper = PPOHyper(lr=5e-3, gamma=0.9, entropy_coef=0.02)

    @jax.jit
    @jax.vmap
    def train(key):
        state = learner.init(key, hyper)
        state, metrics = jax.lax.scan(lambda s, _: learner.update(s, hyper), state, length=120)
        greedy = learner.evaluate(state, hyper, jax.random.fold_in(key, 1), episodes=8)
        return metrics["return_sum"] / metrics["episodes"], greedy.means()["return_mean"]

    returns, greedy = train(jax.random.split(jax.random.key(0), 4))
    np.testing.assert_allclose(returns[:, 0], 0.5, atol=0.2)
    if solves:
        assert np.all(returns[:, -20:].mean(axis=1) > 0.95) and np.all(greedy > 0.99)
    else:
        # 2560 episodes, then 256: standard errors 0.01 and 0.03
        np.testing.assert_allclose(returns[:, -20:].mean(axis=1), 0.5, atol=0.05)
        np.testing.assert_allclose(greedy, 0.5, atol=0.14)


# --- minutes ----------------------------------------------------------------------------------------------------------
def train_lanes(env, env_params, agent, *, seeds, updates, num_envs, num_steps, episodes, epochs=4, **hyper):
    """Greedy evaluations of `seeds` trained lanes: Episodes with leaves [S, B, E]."""
    learner = PPO(VecEnv(env, num_envs), agent, num_steps=num_steps, epochs=epochs)
    lanes, numbers = Lanes(learner, seeds), PPOHyper(env_params=env_params, **hyper)

    @jax.jit
    def train(keys):
        state = lanes.init(keys, numbers)
        state, _ = jax.lax.scan(lambda s, _: lanes.update(s, numbers), state, length=updates)
        judge = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
        return lanes.evaluate(state, numbers, judge, episodes=episodes)

    return jax.tree.map(np.asarray, train(jax.vmap(jax.random.key)(jnp.arange(seeds))))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s5", "transformer", "mlp"])
def test_tmaze_of_length_20(name):
    """Every memory solves it in 3 of 3 seeds; without memory the turn is a guess (Ni et al. 2023)."""
    env, env_params = make("tmaze-20")
    # The transformer learns in 20 updates at any rate and falls back later unless the rate is small and falls.
    transformer = name == "transformer"
    model = make_model(name, width=64, **({"window": 32} if transformer else {}))
    agent = ActorCritic.for_env(env, model, previous=name != "mlp")
    episodes = train_lanes(
        env,
        env_params,
        agent,
        seeds=3,
        updates=60,
        num_envs=64,
        num_steps=105,
        episodes=16,
        entropy_coef=0.03,
        **({"lr": 3e-4, "anneal_updates": 60.0} if transformer else {}),  # pyright: ignore[reportArgumentType]
    )
    success = episodes.success.mean(axis=(1, 2))
    print(f"\ntmaze-20 {name}: success by seed {success}")
    assert np.all(episodes.finished)
    if name == "mlp":
        assert np.all(np.abs(success - 0.5) < 0.05)
    else:
        assert np.all(success >= 0.95)


@pytest.mark.slow
def test_pendulum_improves_over_random():
    """Continuous actions and cuts: the 95 % interval over 5 seeds lies far above random play."""
    env, env_params = make("pendulum")
    episodes = train_lanes(
        env,
        env_params,
        ActorCritic.for_env(env, make_model("mlp", width=64)),
        seeds=5,
        updates=80,
        num_envs=32,
        num_steps=100,
        epochs=8,
        episodes=4,
        gamma=0.9,
        entropy_coef=0.0,
    )
    interval = bootstrap_ci(episodes.returns.mean(axis=(1, 2)))
    print(f"\npendulum: return {interval}")
    assert interval.lo > env.reference()["random"] + 300
