"""The recipes: what a sequence holds, that training and acting are one function, and that learning learns."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.envs import Tasks, TrialEnv, make
from jaxrl_seq.incontext.algorithms import make_algorithm
from jaxrl_seq.incontext.distill import Distill, DistillHyper
from jaxrl_seq.incontext.dpt import DPT, SetPolicy
from jaxrl_seq.incontext.headless import ActionSet, Headless, HeadlessPolicy
from jaxrl_seq.incontext.histories import History, episode_returns, join, mix, play, thin
from jaxrl_seq.incontext.imitation import Imitation, take_window
from jaxrl_seq.models import make_model

EPISODES, HORIZON, STREAMS = 6, 4, 5


@pytest.fixture(scope="module")
def trial() -> TrialEnv:
    env, _ = make(f"darkroom,size=3,limit={HORIZON}")
    return TrialEnv(env, episodes=EPISODES)


@pytest.fixture(scope="module")
def history(trial: TrialEnv) -> History:
    """A noisy demonstrator's, labelled."""
    tasks = jnp.arange(STREAMS, dtype=jnp.int32)
    policy = make_algorithm("noisy-expert", trial)
    return jax.jit(lambda key: play(policy, trial, tasks, key, label=True))(jax.random.key(0))


def numbered(history: History) -> History:
    """The same with rewards that tell stream and step apart."""
    steps = jnp.arange(history.length, dtype=jnp.float32)[:, None]
    return dataclasses.replace(history, reward=100.0 * jnp.arange(history.streams) + steps)


def imitation(trial: TrialEnv, model: str = "gru", **options: Any) -> Imitation:
    return Imitation(trial, ActorCritic.for_env(trial, make_model(model, width=16)), **options)


# Compiled whole: one by one, the operations of a network are a hundred compilations.
def initial(recipe: Any) -> Any:
    return jax.jit(recipe.init)(jax.random.key(0))


def drawn(recipe: Any, history: History, num: int) -> Any:
    return jax.jit(recipe.sequences, static_argnums=2)(jax.random.key(1), history, num)


def apply(recipe: Any, *inputs: Any, **options: Any) -> Any:
    return jax.jit(partial(recipe.agent.apply, **options))(*inputs)


# --- windows ----------------------------------------------------------------------------------------------------------
def test_a_window_shows_what_acting_would(history: History):
    stream = jnp.array([3, 1])
    window = take_window(history, jnp.array([5, 2]) + jnp.arange(7)[:, None], stream)
    for column, (s, start) in enumerate(((3, 5), (1, 2))):
        at = slice(start, start + 7)
        inputs = jax.tree.map(lambda x: np.asarray(x)[:, column], window.inputs)  # noqa: B023
        np.testing.assert_array_equal(inputs.obs["obs"], history.obs[at, s])
        np.testing.assert_array_equal(inputs.obs["first_inner"][:, 0], history.first[at, s])
        np.testing.assert_array_equal(inputs.prev_action[1:], history.action[at, s][:-1])
        np.testing.assert_array_equal(inputs.prev_reward[1:], history.reward[at, s][:-1])
        assert inputs.prev_action[0] == 0 and inputs.prev_reward[0] == 0
        np.testing.assert_array_equal(inputs.first, [True] + [False] * 6)
        np.testing.assert_array_equal(window.action[:, column], history.action[at, s])
    assert window.action.dtype == jnp.int32 and window.inputs.obs["obs"].dtype == jnp.int32


@pytest.mark.parametrize("order", ["time", "shuffled", "single"])
def test_windows_stay_in_their_stream_and_order(trial: TrialEnv, history: History, order: Any):
    recipe = imitation(trial, window=12, order=order)
    batch = drawn(recipe, numbered(history), 400)
    paid = np.asarray(batch.inputs.prev_reward)[1:]  # rewards of rows 0 .. T-2
    stream, step = np.divmod(paid, 100)
    assert (stream == stream[0]).all() and set(stream[0]) == set(range(STREAMS))
    ordered = (np.diff(step, axis=0) == 1).all(axis=0)
    if order == "shuffled":
        assert 0 < ordered.mean() < 0.2  # 1 / 120 of 6 * 5 * 4 orders, and a few more
        inside = np.diff(step, axis=0)[[0, 1, 2, 4, 5, 6, 8, 9]]  # within an episode
        assert (inside == 1).all() and (step[0] % HORIZON == 0).all()
    else:
        assert ordered.all()
    first = np.asarray(batch.inputs.first)
    opens = np.asarray(batch.inputs.obs["first_inner"])[..., 0] > 0
    np.testing.assert_array_equal(first[1:], opens[1:] if order == "single" else np.zeros_like(opens[1:]))


def test_beginnings_and_ends_are_seen_as_often_as_the_rest(trial: TrialEnv, history: History):
    recipe = imitation(trial, window=8)
    steps = np.asarray(recipe._steps(jax.random.key(0), history, 20_000))
    seen = np.bincount(steps.ravel(), minlength=history.length) / 20_000
    assert seen.min() > 0.18 and seen.max() < 0.6  # uniform starts would see the first step in 1 / 17 of the windows


def test_bad_sizes_are_refused(trial: TrialEnv, history: History):
    with pytest.raises(ValueError, match="windows of 25 steps do not fit into histories of 24"):
        imitation(trial, window=25).check(history)
    with pytest.raises(ValueError, match="whole episodes of 4"):
        imitation(trial, window=10, order="shuffled").check(history)
    blind = dataclasses.replace(history, optimal=None)
    for recipe in (imitation(trial, window=8, target="optimal"), DPT(trial, make_model("gru"), window=8)):
        with pytest.raises(ValueError, match="no optimal actions"):
            recipe.check(blind)
    mixed = mix({3: history, 5: history})
    with pytest.raises(ValueError, match="use headless-ad"):
        imitation(trial, window=8).check(mixed)
    with pytest.raises(ValueError, match="use headless-ad"):
        DPT(trial, make_model("gru"), window=8).check(dataclasses.replace(mixed, optimal=history.optimal))
    with pytest.raises(ValueError, match="at most action_width"):
        Headless(trial, make_model("gru"), action_width=4)
    with pytest.raises(ValueError, match="differ in their arrays"):
        join([history, thin(history, 2, HORIZON)])
    with pytest.raises(ValueError, match="do not consist of episodes of 5"):
        thin(history, 2, 5)


def test_thinning_keeps_whole_episodes(history: History):
    kept = thin(history, 2, HORIZON)
    np.testing.assert_array_equal(np.unique(kept.episode), [0, 2, 4])
    all_returns, returns = episode_returns(history, EPISODES), episode_returns(kept, EPISODES)
    np.testing.assert_allclose(returns[:, ::2], all_returns[:, ::2])
    assert (returns[:, 1::2] == 0).all()


# --- training and acting are one function -----------------------------------------------------------------------------
@pytest.mark.parametrize("single", [False, True])
def test_a_stored_trial_read_at_once_has_the_chances_it_was_acted_with(trial: TrialEnv, single: bool):
    recipe = imitation(trial, window=trial.horizon, order="single" if single else "time")
    params = initial(recipe)
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(1), x.shape), params)
    tasks = jnp.arange(STREAMS, dtype=jnp.int32)
    history = jax.jit(lambda policy, key: play(policy, trial, tasks, key))(
        recipe.policy(params, False), jax.random.key(2)
    )
    steps = jnp.broadcast_to(jnp.arange(history.length)[:, None], (history.length, STREAMS))
    window = take_window(history, steps, jnp.arange(STREAMS), single)
    loss, metrics = jax.jit(recipe.loss)(params, window)
    assert float(loss) == pytest.approx(-float(history.log_prob.mean()), abs=1e-5)
    assert 0.2 < float(metrics["agreement"]) <= 1


def test_a_set_read_at_once_decides_as_one_that_grew(trial: TrialEnv, history: History):
    recipe = DPT(trial, make_model("gru", width=16), window=history.length, queries=3)
    params = initial(recipe)
    batch = drawn(recipe, history, 4)
    reset = jnp.zeros_like(batch.valid).at[0].set(True)
    carry = recipe.model.initialize_carry((4,))
    _, logits = apply(recipe, params, carry, batch.tokens, reset, batch.query)

    def grow(carry: Any, token: Any) -> Any:
        carry, summary = recipe.agent.apply(params, carry, *token, method="read")  # pyright: ignore[reportGeneralTypeIssues]
        return carry, recipe.agent.apply(params, summary[:, None], batch.query, method="decide")

    _, decided = jax.jit(partial(jax.lax.scan, grow))(carry, (batch.tokens, reset))
    np.testing.assert_allclose(decided, logits, atol=1e-5)


def test_sets_are_shuffled_and_labels_are_the_queries_own(trial: TrialEnv, history: History):
    recipe = DPT(trial, make_model("gru", width=16), window=10, queries=3)
    batch = drawn(recipe, numbered(history), 200)
    stream, step = np.divmod(np.asarray(batch.tokens.reward)[1:], 100)
    assert (stream == stream[0]).all()
    assert all(len(set(column)) == 10 for column in step.T) and (np.diff(step, axis=0) < 0).mean() > 0.3
    goal = np.asarray(history.task)[stream[0].astype(int)]
    row, col = np.moveaxis(np.asarray(batch.query), -1, 0)
    there = (row == goal[:, None] // 3) & (col == goal[:, None] % 3)
    best = np.asarray(batch.optimal)
    assert best[there][:, 4].all()  # staying on the goal
    assert not best[~there][:, 4].any() and best[~there].any(-1).all()
    after = np.asarray(batch.tokens.next_obs)[1:][~np.asarray(batch.tokens.done)[1:]]
    before = np.asarray(batch.tokens.obs)[1:][~np.asarray(batch.tokens.done)[1:]]
    assert (np.abs(after - before).sum(-1) <= 1).all()


@pytest.mark.parametrize("commit", ["step", "episode"])
def test_a_context_is_committed_by_step_or_by_episode(trial: TrialEnv, commit: Any):
    recipe = DPT(trial, make_model("gru", width=16), window=8, commit=commit)
    params = initial(recipe)
    policy = SetPolicy(recipe, params)

    class Watched:
        """What is acted on, in place of the action's log-probability."""

        def init(self, key: Any, num: int) -> Any:
            return policy.init(key, num)

        def act(self, key: Any, memory: Any, view: Any) -> Any:
            memory, action, _ = policy.act(key, memory, view)
            return memory, action, memory.shown.sum(-1)

        def observe(self, key: Any, memory: Any, step: Any) -> Any:
            return policy.observe(key, memory, step)

    watch = jax.jit(lambda key: play(Watched(), trial, jnp.arange(2, dtype=jnp.int32), key).log_prob)
    shown = watch(jax.random.key(0))
    changed = np.any(np.diff(shown, axis=0) != 0, axis=1)
    expected = np.arange(1, trial.horizon) % HORIZON == 0 if commit == "episode" else True
    np.testing.assert_array_equal(changed, np.broadcast_to(expected, changed.shape))


# --- headless ---------------------------------------------------------------------------------------------------------
def test_relabelled_actions_are_chosen_alike(history: History, trial: TrialEnv):
    recipe = Headless(trial, make_model("gru", width=16), window=8, action_width=8)
    params = initial(recipe)
    batch = drawn(recipe, history, 6)
    order = jnp.array([3, 0, 4, 1, 2])  # new name of each action
    mask = jnp.array([[True, True, True, False, True]]).repeat(6, axis=0)
    actions = ActionSet(batch.actions.vectors, mask)
    names = jnp.argsort(order)
    renamed = ActionSet(actions.vectors[:, names], mask[:, names])
    inputs = batch.window.inputs
    other = dataclasses.replace(inputs, prev_action=order[inputs.prev_action])
    carry = recipe.model.initialize_carry((6,))
    _, logits = apply(recipe, params, carry, inputs, actions)
    _, after = apply(recipe, params, carry, other, renamed)
    np.testing.assert_allclose(after, logits[..., names], rtol=1e-4, atol=1e-6)
    assert np.ptp(np.asarray(logits), axis=-1).min() > 1e-4


def test_actions_that_are_not_there_take_no_part(history: History, trial: TrialEnv):
    recipe = Headless(trial, make_model("gru", width=16), window=8, action_width=8)
    params = initial(recipe)
    three = dataclasses.replace(history, action=history.action % 3)
    mixed = mix({3: three, 5: history})
    batch = drawn(recipe, mixed, 64)
    count = np.asarray(batch.actions.mask.sum(-1))
    assert set(count) == {3, 5} and (np.asarray(batch.window.action).max(0)[count == 3] < 3).all()
    gram = np.einsum("bae,bce->bac", batch.actions.vectors, batch.actions.vectors)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(5), gram.shape), atol=1e-5)
    _, metrics = jax.jit(recipe.loss)(params, batch)
    assert np.isfinite(metrics["agreement"])
    wide, _ = make("bernoulli_bandit,arms=7,pulls=5")
    trial7 = TrialEnv(wide, episodes=1)
    bandit = Headless(TrialEnv(make("bernoulli_bandit,arms=3,pulls=5")[0], episodes=1), recipe.model, 5, 8)
    acting = HeadlessPolicy(bandit, initial(bandit), num_actions=7)
    task = trial7.sample_task(jax.random.key(0), trial7.default_params())[None]
    played = jax.jit(lambda key: play(acting, trial7, task, key))(jax.random.key(1))
    assert int(played.action.max()) <= 6 and np.isfinite(played.log_prob).all()
    with pytest.raises(ValueError, match="9 actions need an action_width"):
        HeadlessPolicy(bandit, {}, num_actions=9).init(jax.random.key(0), 1)


# --- learning ---------------------------------------------------------------------------------------------------------
def test_an_update_is_reproducible_and_learns(trial: TrialEnv, history: History):
    train, test = Tasks(trial.env).split(0.3)
    recipe = imitation(TrialEnv(trial.env, train, EPISODES), window=12)
    learner = Distill(recipe, TrialEnv(trial.env, test, EPISODES), batch=32, steps=4)
    hyper = DistillHyper(lr=3e-3, warmup_updates=1.0, history=history)
    update = jax.jit(learner.update)
    init = jax.jit(learner.init)
    state = init(jax.random.key(0), hyper)
    losses = []
    for _ in range(40):
        state, metrics = update(state, hyper)
        losses.append(float(metrics["loss"]))
    assert losses[0] == pytest.approx(np.log(5), abs=0.05)
    assert np.mean(losses[-5:]) < losses[0] - 0.1
    again = init(jax.random.key(0), hyper)
    again, metrics = update(again, hyper)
    assert float(metrics["loss"]) == losses[0]
    episodes = jax.jit(lambda s, k: learner.evaluate(s, hyper, k, episodes=2))(state, jax.random.key(1))
    assert episodes.returns.shape == (2 * len(test.members), EPISODES) and bool(episodes.finished.all())
    np.testing.assert_array_equal(episodes.lengths, HORIZON)


@pytest.mark.slow
def test_fresh_histories_teach_the_best_arm():
    """DPT without a data set: after 20 pulls of four arms it knows the best one far better than chance."""
    env, params = make("gaussian_bandit,arms=4,pulls=20,noise=0.1")
    trial = TrialEnv(env, episodes=1)
    recipe = DPT(trial, make_model("gru", width=32), window=20, queries=1)
    learner = Distill(recipe, trial, batch=64, steps=10)
    hyper = DistillHyper(lr=5e-3, source=make_algorithm("uniform", trial, params), env_params=params)
    state = learner.init(jax.random.key(0), hyper)
    update = jax.jit(learner.update)
    for _ in range(30):
        state, metrics = update(state, hyper)
    assert float(metrics["loss"]) < 1.15  # chance is log 4 = 1.39; half of a context has seen few arms
    with pytest.raises(ValueError, match="either a history or a source"):
        learner.init(jax.random.key(0), DistillHyper())
