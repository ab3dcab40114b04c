"""Trajectory Transformer: words lose little, the loss sees what it should, and the search is what brute force finds."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sequence_lab import World, recorded

from jaxrl_seq import train
from jaxrl_seq.envs import make
from jaxrl_seq.envs.core.vector import Inputs, Outcome
from jaxrl_seq.models import make_model
from jaxrl_seq.offline import Search, make_dataset, make_trajectory
from jaxrl_seq.offline.sampler import read_windows
from jaxrl_seq.offline.vocabulary import Vocabulary


def small(world: World, search: Search, model: str = "gpt", **options: Any) -> Any:
    sizes = {"context": 32} if model == "gpt" else {}
    built = make_model(model, width=16, layers=1, **({"heads": 2} | sizes if model == "gpt" else {}))
    return make_trajectory(world, built, bins=8, window=5, search=search, **options)  # pyright: ignore


def fresh(learner: Any, world: World, seed: int = 0) -> tuple[Any, Any]:
    """(hyper, a state whose weights are large enough for clear preferences)."""
    hyper = learner.hyper(recorded(world))
    state = jax.jit(learner.init)(jax.random.key(seed), hyper)
    grown = jax.tree.map(lambda x: x + 0.5 * jax.random.normal(jax.random.key(x.size), x.shape), state.params)
    return hyper, state.replace(params=grown)


def outcome(reward: Any) -> Outcome:
    flags = jnp.zeros(reward.shape, bool)
    inputs = Inputs(None, None, None, flags)
    return Outcome(reward, flags, flags, inputs, reward, reward, {}, None, jnp.int32(0))


# --- words ------------------------------------------------------------------------------------------------------------
def test_words_are_equally_likely_and_read_back_closely():
    env, params = make("point_mass")
    data = make_dataset("random", env, params, jax.random.key(0), 5000)
    words = Vocabulary(env.observation_space(), env.action_space(), 50)
    book = words.fit(data, data.rtg)
    numbers = words.write(data.obs, data.action, data.reward)
    classes = book.classes(numbers)
    assert classes.shape == (data.steps, words.places) and int(classes.min()) == 0 and int(classes.max()) == 49
    counts = np.bincount(np.asarray(classes[:, 0]), minlength=50)
    assert counts.min() > 0.5 * data.steps / 50 and counts.max() < 1.5 * data.steps / 50
    left = np.asarray(jnp.std(numbers - book.numbers(classes), axis=0) / jnp.std(numbers, axis=0))
    assert np.all(left < 0.25), left  # rewards have a long tail, and the last class is wide
    read = words.action(book.numbers(classes)[:, words.acted])
    assert jnp.all(jnp.abs(read - data.action) <= 0.5) and read.shape == data.action.shape


def test_choices_are_their_own_words_and_what_never_occurs_is_never_said():
    world = World()
    data = recorded(world)
    data = data.replace(action=jnp.minimum(data.action, 1))  # the third choice is never made
    words = Vocabulary(world.observation_space(), world.action_space(), 8)
    book = words.fit(data, data.rtg)
    classes = book.classes(words.write(data.obs, data.action, data.reward))
    np.testing.assert_array_equal(classes[:, 2], data.action)
    np.testing.assert_array_equal(words.action(book.numbers(classes)[:, words.acted]), data.action)
    np.testing.assert_array_equal(book.used[2], [True, True] + [False] * 6)
    learner = small(world, Search(beam=4, expand=3, horizon=2, nucleus=1.0))
    hyper = learner.hyper(data)
    state = learner.init(jax.random.key(0), hyper)
    policy = learner.policy(state, {}, True)
    inputs = Inputs(data.obs[:64], None, None, jnp.ones(min(64, data.steps), bool))
    _, action = jax.jit(lambda p, k: p.act(k, p.init(inputs), inputs))(policy, jax.random.key(1))
    assert int(jnp.max(action)) <= 1


# --- the loss ---------------------------------------------------------------------------------------------------------
def test_what_is_padding_teaches_nothing():
    world = World(continuous=True)
    learner = small(world, Search(horizon=2))
    hyper, state = fresh(learner, world)
    window = read_windows(hyper.data, hyper.data.start, 5)  # of 5, 2, 7, 1 and 4 steps
    assert not bool(window.mask.all())

    def junk(x: Any) -> Any:
        mask = window.mask.reshape(*window.mask.shape, *[1] * (x.ndim - 2))
        return jnp.where(mask, x, jnp.asarray(7, x.dtype))

    names = ("obs", "action", "reward")
    spoilt = dataclasses.replace(window, **{name: junk(getattr(window, name)) for name in names})
    spoilt = dataclasses.replace(spoilt, extra={"value": junk(window.extra["value"])})
    grads = jax.jit(jax.grad(lambda p, w: learner.loss({"params": p, "stats": state.stats}, w)[0]))
    for a, b in zip(
        jax.tree.leaves(grads(state.params, window)), jax.tree.leaves(grads(state.params, spoilt)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_the_loss_is_the_mean_over_words_one_by_one():
    world = World()
    learner = small(world, Search(horizon=2))
    hyper, state = fresh(learner, world)
    window = read_windows(hyper.data, hyper.data.start[jnp.array([2, 1])], 5)
    value, found = jax.jit(learner.loss)(state.variables, window)
    book, words = state.stats, learner.vocabulary
    classes = np.asarray(book.classes(words.write(window.obs, window.action, window.reward)).swapaxes(1, 2))
    values = np.asarray(book.value_class(window.extra["value"]))
    carry = learner.net.model.initialize_carry((2,))
    _, logits = learner.net.apply({"params": state.params}, carry, jnp.asarray(classes), window.reset)

    def nats(logits: Any, place: int, word: int) -> float:
        return -float(jax.nn.log_softmax(book.possible(logits, place))[word])

    total, count, of_actions = 0.0, 0, []
    for b, t in itertools.product(range(2), range(5)):
        if not window.mask[t, b]:
            continue
        for place in range(words.places):  # what is said at a place was predicted one word before
            if t == place == 0:
                continue
            before = logits[t, place - 1, b] if place else logits[t - 1, -2, b]
            error = nats(before, place, classes[t, place, b])
            acts = words.acted.start <= place < words.acted.stop
            of_actions += [error] if acts else []
            total, count = total + (5 * error if acts else error), count + 1
        total, count = total + nats(logits[t, -1, b], words.places, values[t, b]), count + 1
    np.testing.assert_allclose(value, total / count, rtol=1e-5)
    np.testing.assert_allclose(found["action_loss"], np.mean(of_actions), rtol=1e-5)


# --- the search -------------------------------------------------------------------------------------------------------
def brute_force(learner: Any, state: Any, past: np.ndarray, obs: np.ndarray) -> dict[tuple[int, ...], float]:
    """Worth of every sequence of H choices behind the classes past [t, P] and obs [N], read anew for every word."""
    words, book, horizon = learner.vocabulary, state.stats, learner.search.horizon
    plans = list(itertools.product(range(3), repeat=horizon))
    steps, places, seen = len(past), words.places, words.observed
    line = np.zeros((learner.window, places, len(plans)), np.int32)
    line[:steps] = past[..., None]
    line[steps, :seen] = obs[:, None]
    reset = jnp.zeros((learner.window, len(plans)), bool).at[0].set(True)
    carry = learner.net.model.initialize_carry((len(plans),))
    run = jax.jit(lambda line: learner.net.apply({"params": state.params}, carry, line, reset)[1])

    def before(step: int, place: int) -> Any:
        logits = run(jnp.asarray(line))
        if place == places:
            return book.possible(logits[step, -1], place)
        return book.possible(logits[step, place - 1] if place else logits[step - 1, -2], place)

    def mean(logits: Any, place: int) -> np.ndarray:
        return np.asarray(jax.nn.softmax(logits) @ book.centres[place])

    paid = np.zeros(len(plans))
    for k in range(horizon):
        now = steps + k
        for place in range(seen) if k else ():
            line[now, place] = np.argmax(before(now, place), axis=-1)
        line[now, seen] = [plan[k] for plan in plans]
        logits = before(now, places - 1)
        paid += learner.gamma**k * mean(logits, places - 1)
        line[now, places - 1] = np.argmax(logits, axis=-1)
    worth = paid + learner.gamma**horizon * mean(before(steps + horizon - 1, places), places)
    return dict(zip(plans, worth.tolist(), strict=True))


@pytest.mark.parametrize("model", [pytest.param("gpt", marks=pytest.mark.slow), "gru"])
def test_a_wide_search_finds_what_trying_everything_finds(model: str):
    world, steps = World(), 4
    learner = small(world, Search(beam=27, expand=3, horizon=3, nucleus=1.0), model, gamma=0.9)
    hyper, state = fresh(learner, world)
    data, book, words = hyper.data, state.stats, learner.vocabulary
    policy = learner.policy(state, {}, True)
    rows = int(data.start[2]) + np.arange(steps)  # an episode of seven steps
    obs, action, reward = (jnp.asarray(x)[rows] for x in (data.obs, data.action, data.reward))
    classes = np.asarray(book.classes(words.write(obs, action, reward)))

    @jax.jit
    def plan(memory: Any, obs: Any, first: Any, key: Any) -> Any:
        memory, chosen = policy.act(key, memory, Inputs(obs[None], None, None, first))
        plans = policy.plan(key, memory)
        return memory, chosen[0], plans.worth, plans.first[:, 0]

    memory = policy.init(Inputs(obs[:1], None, None, jnp.ones(1, bool)))
    for t in range(steps):
        memory, chosen, worth, first = plan(memory, obs[t], jnp.array([t == 0]), jax.random.key(t))
        kept = min(t, policy.past)
        tried = brute_force(learner, state, classes[t - kept : t], classes[t, : words.observed])
        np.testing.assert_allclose(np.sort(worth), np.sort(list(tried.values())), atol=1e-4)
        for choice in range(3):
            best = max(value for plan, value in tried.items() if plan[0] == choice)
            np.testing.assert_allclose(np.max(np.asarray(worth)[np.asarray(first) == choice]), best, atol=1e-4)
        assert int(chosen) == max(tried, key=lambda plan: tried[plan])[0]
        memory = policy.observe(memory, action[t : t + 1], outcome(reward[t : t + 1]))


def test_one_plan_of_the_likeliest_words_is_imitation():
    world = World(continuous=True)
    learner = small(world, Search(beam=1, expand=1, horizon=1, nucleus=0.0))
    hyper, state = fresh(learner, world)
    policy, book, words = learner.policy(state, {}, True), state.stats, learner.vocabulary
    obs = hyper.data.obs[:6]
    inputs = Inputs(obs, None, None, jnp.ones(6, bool))
    _, chosen = jax.jit(lambda key: policy.act(key, policy.init(inputs), inputs))(jax.random.key(3))
    line = jnp.zeros((1, words.places, 6), jnp.int32).at[0, :2].set(book.classes(obs).T)
    for place in range(2, 4):
        carry = learner.net.model.initialize_carry((6,))
        _, logits = learner.net.apply({"params": state.params}, carry, line, jnp.ones((1, 6), bool))
        said = jnp.argmax(book.possible(logits[0, place - 1], place), axis=-1)
        line = line.at[0, place].set(said)
    np.testing.assert_allclose(chosen, words.action(book.numbers(line[0, 2:4].T, 2)))


# --- bad input --------------------------------------------------------------------------------------------------------
def test_what_does_not_fit_is_refused_in_words():
    world, gpt = World(), make_model("gpt", width=16, layers=1, heads=2, context=16)
    with pytest.raises(ValueError, match="a window of 5 steps has 20 words.*context of 20, or use a window of 4 steps"):
        make_trajectory(world, gpt, window=5, search=Search(horizon=2))  # pyright: ignore
    with pytest.raises(ValueError, match="a plan of 5 steps is longer than the windows of 4"):
        make_trajectory(world, gpt)  # pyright: ignore
    with pytest.raises(ValueError, match="up to 3 choices, and there are 2 bins"):
        make_trajectory(world, gpt, bins=2)  # pyright: ignore
    with pytest.raises(ValueError, match="expand of at least 1"):
        Search(expand=0)
    env, _ = make("tmaze")
    assert make_trajectory(env, gpt, search=Search(horizon=1)).window >= 1


# --- learning ---------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_searching_beats_imitating_which_beats_what_was_imitated():
    env, params = make("point_mass")
    data = make_dataset("eps-mix", env, params, jax.random.key(0), 20_000)
    model = make_model("gpt", width=64, layers=2, heads=4, context=70)
    learner = make_trajectory(env, model, bins=32, window=10, search=Search(beam=16), batch=64, num_envs=32)
    hyper = learner.hyper(data, env_params=params, decay_updates=1000.0)
    run = train(learner, hyper, total_steps=1000 * learner.steps_per_update, progress=False, evaluations=0)

    def played(search: Search, episodes: int) -> float:
        judge = dataclasses.replace(learner, search=search)
        found = jax.jit(lambda key: judge.evaluate(run.state, hyper, key, episodes=episodes))(jax.random.key(5))
        return float(found.means()["return_mean"])

    # a clone at best equals what it clones; one that never says the unlikely leaves out most of the noise
    planned, imitated, cloned = played(Search(beam=16), 1), played(Search(1, 1, 1), 8), played(Search(1, 1, 1, 1.0), 8)
    behaviour = float(data.stats.return_mean)
    assert planned > max(cloned + 50, imitated + 0.5), (planned, imitated, cloned)
    assert imitated > behaviour + 1.0, (imitated, behaviour)
