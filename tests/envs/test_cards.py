"""POPGym's card games and bandit against slow, obvious twins, their reference returns against other sums."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from env_follow import follow, opened
from env_rollouts import plain_trajectory
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import checkify

from jaxrl_seq.envs import make
from jaxrl_seq.envs.control.cartpole import VelocityOnlyCartPole
from jaxrl_seq.envs.control.pendulum import NoisyPositionOnlyPendulum, PendulumState, PositionOnlyPendulum
from jaxrl_seq.envs.memory.autoencode import Autoencode
from jaxrl_seq.envs.memory.cards import draw_card, shuffled, table
from jaxrl_seq.envs.memory.count_recall import CountRecall
from jaxrl_seq.envs.memory.higher_lower import HigherLower, counting_return
from jaxrl_seq.envs.memory.multiarmed_bandit import MultiarmedBandit
from jaxrl_seq.envs.memory.repeat_first import RepeatFirst

SEEDS, CHEATS = st.integers(0, 999), st.floats(0, 1)


def one_hot(kinds: Any, n: int) -> np.ndarray:
    return np.eye(n, dtype=np.float32)[np.asarray(kinds, int)]


def mostly(right: list[int], cheat: float, choices: int, seed: int) -> np.ndarray:
    """The right answers, each with probability `cheat`, else uniform ones."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(right)) < cheat, right, rng.integers(choices, size=len(right))).astype(np.int32)


def check(played: Any, shown: np.ndarray, rewards: list[float]) -> None:
    """The episode shows `shown` [T + 1, ...], pays `rewards` [T], and its last step is the only end."""
    (_, opening), (_, later) = played
    np.testing.assert_array_equal(np.concatenate([opening.obs[None], later.obs]), shown)
    np.testing.assert_allclose(later.reward, rewards, atol=1e-7)
    assert later.terminated.tolist() == [False] * (len(rewards) - 1) + [True] and not later.truncated.any()
    assert opening.first and not later.first.any() and opening.info == {}


@pytest.mark.parametrize(("decks", "kinds"), [(1, 2), (1, 4), (3, 13)])
def test_a_deck_is_whole_and_every_place_is_uniform(decks: int, kinds: int):
    keys = jax.random.split(jax.random.key(0), 4000)
    dealt = np.asarray(jax.jit(jax.vmap(lambda key: shuffled(key, decks, kinds)))(keys))
    assert dealt.dtype == np.int8
    assert (np.sort(dealt, axis=1) == np.sort(np.arange(52 * decks) % kinds)).all()
    share = one_hot(dealt, kinds).mean(axis=0)
    assert np.abs(share - 1 / kinds).max() < 5 * (1 / kinds * (1 - 1 / kinds) / 4000) ** 0.5


@settings(deadline=None, max_examples=20)
@given(decks=st.sampled_from([1, 2]), seed=SEEDS, cheat=CHEATS)
def test_repeat_first(decks: int, seed: int, cheat: float):
    env, total = RepeatFirst(decks), 52 * decks
    suits = opened(env, seed).suits
    actions = mostly([suits[0]] * (total - 1), cheat, 4, seed)
    rewards = [(1 if action == suits[0] else -1) / (total - 1) for action in actions]
    check(follow(env, seed, actions), one_hot(suits, 4), rewards)


@settings(deadline=None, max_examples=20)
@given(decks=st.sampled_from([1, 2]), seed=SEEDS, cheat=CHEATS)
def test_autoencode(decks: int, seed: int, cheat: float):
    env, total = Autoencode(decks), 52 * decks
    suits = opened(env, seed).suits.tolist()
    right = [0] * (total - 1) + suits[::-1]
    actions = mostly(right, cheat, 4, seed)
    rewards, heap, shown = [], [suits[0]], [[1, 0, *one_hot(suits[0], 4)]]
    for action in actions:
        if len(rewards) < total - 1:  # watch: one more card on the heap
            heap.append(suits[len(heap)])
            rewards.append(0.0)
            play = len(heap) == total
            shown.append([not play, play, *one_hot(heap[-1], 4)])
        else:  # play: take them off again
            rewards.append((1 if action == heap.pop() else -1) / total)
            shown.append([0, 1, 0, 0, 0, 0])
    assert not heap
    check(follow(env, seed, actions), np.array(shown, np.float32), rewards)


@settings(deadline=None, max_examples=20)
@given(size=st.sampled_from([(1, 2), (2, 4), (1, 13)]), seed=SEEDS, cheat=CHEATS)
def test_count_recall(size: tuple[int, int], seed: int, cheat: float):
    decks, kinds = size
    env, total = CountRecall(decks, kinds), 52 * decks
    state = opened(env, seed)
    values, queries = state.values.tolist(), state.queries.tolist()
    assert values != queries and sorted(values) == sorted(queries)
    right = [values[: t + 1].count(queries[t]) for t in range(total - 1)]
    actions = mostly(right, cheat, total // kinds + 1, seed)
    rewards = [(1 if action == count else -1) / (total - 1) for action, count in zip(actions, right, strict=True)]
    check(follow(env, seed, actions), np.concatenate([one_hot(values, kinds), one_hot(queries, kinds)], 1), rewards)


@settings(deadline=None, max_examples=20)
@given(decks=st.sampled_from([1, 2]), seed=SEEDS, cheat=CHEATS)
def test_higher_lower(decks: int, seed: int, cheat: float):
    env, total = HigherLower(decks), 52 * decks
    ranks = opened(env, seed).ranks.astype(int)
    right = [int(after < before) for before, after in itertools.pairwise(ranks)]
    actions = mostly(right, cheat, 2, seed)
    rewards = []
    for action, (before, after) in zip(actions, itertools.pairwise(ranks), strict=True):
        guess = "higher" if action == 0 else "lower"
        truth = "higher" if after > before else "lower" if after < before else "push"
        rewards.append(0.0 if truth == "push" else (1 if guess == truth else -1) / total)
    check(follow(env, seed, actions), one_hot(ranks, 13), rewards)


# --- reference returns --------------------------------------------------------------------------------------
def test_counting_is_enumerated():
    """Over all orders of small decks, with fractions: whoever knows what remains gains |higher - lower| / remaining."""
    for ranks, copies in ((3, 2), (2, 3), (6, 1), (1, 3)):
        deck = [rank for rank in range(ranks) for _ in range(copies)]
        orders = list(itertools.permutations(deck))
        total = Fraction(0)
        for order in orders:
            for t in range(len(deck) - 1):
                gain = sum((card > order[t]) - (card < order[t]) for card in order[t + 1 :])
                total += Fraction(abs(gain), len(deck) - 1 - t)
        assert counting_return(ranks, copies) == pytest.approx(float(total / len(orders) / len(deck)), abs=1e-12)


@pytest.mark.parametrize("decks", [1, 3])
def test_the_counting_expert_counts(decks: int):
    env = HigherLower(decks)
    states = follow(env, 5, np.zeros(env.horizon, np.int32))[1][0]
    chosen = jax.jit(jax.vmap(env.expert, in_axes=(None, 0, None)))(jax.random.key(0), states, ())
    ranks = states.ranks[0].astype(int)
    ties = 0
    for t, action in enumerate(np.asarray(chosen)[:-1], start=1):
        rest = ranks[t + 1 :]
        gain = (rest > ranks[t]).sum() - (rest < ranks[t]).sum()
        ties += gain == 0
        assert gain == 0 or action == (gain < 0)
    assert ties < len(ranks) / 4


def best_reactive(obs: np.ndarray, right: np.ndarray) -> float:
    """The largest share of right answers of a map from what is seen, obs [episodes, T], to an answer."""
    hits = np.zeros((obs.max() + 1, right.max() + 1))
    np.add.at(hits, (obs.ravel(), right.ravel()), 1)
    return float(hits.max(axis=1).sum() / obs.size)


def test_reactive_returns_are_the_best_maps_found():
    """A table fitted to 20k decks may only be a little better on them than the best map is on all decks."""
    rng, episodes = np.random.default_rng(0), 20_000
    suits = rng.permuted(np.tile(np.arange(52) % 4, (episodes, 1)), axis=1)
    visible, relative = suits[:, :-1], (suits[:, :1] - suits[:, :-1]) % 4  # suits are alike: only equality can matter
    share = best_reactive(np.zeros_like(visible), relative)
    assert 2 * share - 1 == pytest.approx(RepeatFirst().reference()["reactive"], abs=3e-4)

    seen = np.concatenate([suits[:, 51:], np.full((episodes, 51), 4)], axis=1)
    share = best_reactive(seen, suits[:, ::-1])
    assert 2 * share - 1 == pytest.approx(Autoencode().reference()["reactive"], abs=3e-4)

    ranks = rng.permuted(np.tile(np.arange(52) % 13, (episodes, 1)), axis=1)
    rise = np.sign(ranks[:, 1:] - ranks[:, :-1])
    by_rank = [abs(rise[ranks[:, :-1] == rank].sum()) for rank in range(13)]
    assert sum(by_rank) / episodes / 52 == pytest.approx(HigherLower().reference()["reactive"], abs=2e-3)


@pytest.mark.parametrize(("decks", "kinds"), [(1, 2), (1, 13), (2, 4)])
def test_count_recall_without_memory_is_summed_term_by_term(decks: int, kinds: int):
    total, copies = 52 * decks, 52 * decks // kinds

    def right(same: bool, answer: int) -> Fraction:
        """The chance that `answer` is right at a random step, if the visible card is (not) of the queried kind."""
        alike, drawn = copies - same, answer - same  # of the other total - 1 cards, and of the t dealt before
        if not 0 <= drawn <= alike:
            return Fraction(0)
        ways = (
            Fraction(math.comb(alike, drawn) * math.comb(total - 1 - alike, t - drawn), math.comb(total - 1, t))
            for t in range(drawn, total - 1)
        )
        return sum(ways, Fraction(0)) / (total - 1)

    same, other = (max(right(same, answer) for answer in range(copies + 1)) for same in (True, False))
    share = (same + (kinds - 1) * other) / kinds
    assert 2 * float(share) - 1 == pytest.approx(CountRecall(decks, kinds).reference()["reactive"], abs=1e-12)


# --- bandit -------------------------------------------------------------------------------------------------
def test_multiarmed_bandit_pays_as_its_task_says():
    env = MultiarmedBandit(arms=4, pulls=6)
    task = jnp.array([0.0, 0.3, 0.9, 1.0], jnp.float32)
    num, arms = 4000, np.array([0, 1, 2, 3, 1, 2], np.int32)

    def episode(key: Any) -> Any:
        state, first = env.reset_to(key, task, ())

        def step(state: Any, turn: Any) -> Any:
            state, timestep = env.step(turn[1], state, turn[0], ())
            return state, (state, timestep)

        return first, jax.lax.scan(step, state, (jnp.asarray(arms), jax.random.split(key, len(arms))))[1]

    first, (states, later) = jax.device_get(jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), num)))
    assert (first.obs == 0).all() and (states.task == np.asarray(task)).all() and (states.arm == arms).all()
    paid = later.obs[..., 0]
    np.testing.assert_allclose(later.reward, (2 * paid - 1) / env.pulls, atol=1e-7)
    chance = np.asarray(task)[arms]
    assert (np.abs(paid.mean(axis=0) - chance) <= 4 * (chance * (1 - chance) / num) ** 0.5).all()
    random = paid[:, (chance > 0) & (chance < 1)]
    assert np.abs(np.corrcoef(random.T) - np.eye(4)).max() < 4 / num**0.5, "every pull is a draw of its own"
    assert (later.terminated == [False] * 5 + [True]).all() and not later.truncated.any()


def test_multiarmed_bandit_tasks():
    env, params = make("multiarmed_bandit")
    tasks = jax.jit(jax.vmap(env.sample_task, in_axes=(0, None)))(jax.random.split(jax.random.key(0), 5000), params)
    chances = np.asarray(tasks)
    assert chances.shape == (5000, 10) and chances.min() >= 0 and chances.max() < 1
    assert np.abs(chances.mean(axis=0) - 1 / 2).max() < 4 / 60000**0.5 * 5
    np.testing.assert_allclose(chances.var(axis=0), 1 / 12, rtol=0.1)
    best = np.asarray(jax.vmap(env.optimal_return, in_axes=(0, None))(tasks, params))
    np.testing.assert_allclose(best, 2 * chances.max(axis=1) - 1, rtol=1e-5, atol=1e-6)
    assert best.mean() == pytest.approx(env.reference()["expert"], abs=4 * float(best.std()) / 5000**0.5)
    state, _ = env.reset(jax.random.key(1), params)
    assert int(env.expert(jax.random.key(0), state, params)) == int(state.task.argmax())


# --- the partially observed classics ------------------------------------------------------------------------
def test_velocity_only_cartpole_shows_velocities_from_the_reset_on():
    env, actions = VelocityOnlyCartPole(limit=8), np.array([0, 1, 1, 0, 1, 0, 0, 1], np.int32)
    (state, opening), (states, later) = follow(env, 0, actions)
    assert opening.obs.tolist() == [state.x_dot, state.theta_dot] != [state.x, state.theta]
    np.testing.assert_array_equal(later.obs, np.stack([states.x_dot, states.theta_dot], axis=1))
    np.testing.assert_allclose(later.reward, 1 / 8)
    assert later.truncated.tolist() == [False] * 7 + [True] and not later.terminated.any()
    whole = follow(make("cartpole,limit=8")[0], 0, actions)[1][1]
    np.testing.assert_array_equal(whole.obs[:, [1, 3]], later.obs)


def test_noisy_pendulum_is_the_clean_one_seen_through_fresh_noise():
    env, params = make("noisy_position_only_pendulum,limit=5,noise=0.05")
    clean = PositionOnlyPendulum(limit=5)
    assert isinstance(env, NoisyPositionOnlyPendulum)
    keys, action = jax.random.split(jax.random.key(0), 4000), jnp.array([0.7], jnp.float32)
    state = PendulumState(theta=jnp.float32(0.8), speed=jnp.float32(1.0), t=jnp.int32(0))
    _, noisy = jax.jit(jax.vmap(env.step, in_axes=(0, None, None, None)))(keys, state, action, params)
    _, exact = clean.step(keys[0], state, action, clean.default_params())
    error = np.asarray(noisy.obs - exact.obs)
    np.testing.assert_allclose(error.std(axis=0), 0.05, rtol=0.06)
    assert np.abs(error.mean(axis=0)).max() < 0.004 and abs(np.corrcoef(error.T)[0, 1]) < 0.07
    assert (np.asarray(noisy.reward) == np.asarray(exact.reward)).all()
    states, opening = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys, params)
    error = np.asarray(opening.obs) - np.stack([np.cos(states.theta), np.sin(states.theta)], axis=1)
    far = np.abs(np.asarray(opening.obs)) < 0.9  # where the bounds do not bite
    assert error[far].std() == pytest.approx(0.05, rel=0.1)
    spread = np.corrcoef(np.stack([error[:, 0], error[:, 1], states.theta, states.speed]))[:2, 2:]
    assert np.abs(spread).max() < 0.08, "the noise does not repeat the draw of the state"
    loud = make("noisy_position_only_pendulum,noise=100.0")[1]
    assert np.asarray(jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys[:64], loud)[1].obs).max() == 1


# --- sizes, indices, pictures -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "spec",
    [
        "repeat_first,decks=0",
        "autoencode,decks=0",
        "count_recall,decks=0",
        "count_recall,kinds=3",
        "higher_lower,decks=-1",
        "multiarmed_bandit,arms=1",
        "multiarmed_bandit,pulls=0",
        "velocity_only_cartpole,limit=0",
        "noisy_position_only_pendulum,limit=0",
    ],
)
def test_bad_sizes_are_refused_in_words(spec: str):
    with pytest.raises(ValueError, match=f"{spec.split(',')[0]}: {spec.split(',')[1].split('=')[0]} must be"):
        make(spec)


@pytest.mark.parametrize(
    "name", ["repeat_first", "autoencode", "count_recall", "count_recall-hard", "higher_lower", "multiarmed_bandit"]
)
def test_no_index_is_out_of_bounds(name: str):
    """Over whole episodes, their last step and what lies after it included, with experts and pictures."""
    env, params = make(name)

    def episode(key: Any) -> Any:
        state, timestep = plain_trajectory(env, params, key, env.horizon + 2)
        expert = jax.vmap(env.expert, in_axes=(None, 0, None))(key, state, params)
        last = jax.tree.map(lambda x: x[-3], state)
        return timestep, expert, env.render(last, params)

    error, _ = jax.jit(checkify.checkify(episode, errors=checkify.index_checks))(jax.random.key(5))
    error.throw()


def test_every_face_is_its_own():
    for kinds in (2, 4, 13):
        faces = [
            np.asarray(draw_card(table(40, 40), 2, 6, kinds, jnp.int32(kind), True, (0, 0, 0))) for kind in range(kinds)
        ]
        back = np.asarray(draw_card(table(40, 40), 2, 6, kinds, jnp.int32(0), False, (0, 0, 0)))
        assert len({face.tobytes() for face in [*faces, back]}) == kinds + 1
