"""Concentration, battleship and minesweeper against slow, obvious twins; exact returns against enumerations."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import replace
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
from jaxrl_seq.envs.memory.battleship import Battleship
from jaxrl_seq.envs.memory.concentration import Concentration, random_return
from jaxrl_seq.envs.memory.minesweeper import Minesweeper

SEEDS = st.integers(0, 999)


def check(later: Any, shown: list[Any], rewards: list[float], over: str, success: bool) -> None:
    """The steps of an episode that the twin played: it ends `over` ("terminated" or "truncated") with its last one."""
    steps = len(rewards)
    np.testing.assert_array_equal(later.obs[:steps], np.array(shown))
    np.testing.assert_allclose(later.reward[:steps], rewards, atol=1e-6)
    ends = {"terminated": later.terminated, "truncated": later.truncated}
    for flag, happened in ends.items():
        assert happened[:steps].tolist() == [False] * (steps - 1) + [flag == over]
    assert later.info["success"][:steps].tolist() == [False] * (steps - 1) + [success]


# --- concentration ------------------------------------------------------------------------------------------
def play_concentration(deck: list[int], actions: list[int]) -> tuple[list[Any], list[float], bool]:
    """(pictures as lists of what each place shows, rewards, whether all pairs were found), until the end."""
    table = ["down"] * len(deck)
    hand: list[int] = []
    pictures, rewards = [], []
    for action in actions:
        up_before = table[action] == "matched"
        hand.append(action)
        pictures.append([deck[i] if table[i] == "matched" or i in hand else None for i in range(len(deck))])
        rewards.append(0.0)
        if up_before:
            rewards[-1] = -len(hand) / (2 * len(deck))
            hand = []
        elif len(hand) == 2:
            a, b = hand
            if a != b and deck[a] == deck[b]:
                table[a] = table[b] = "matched"
                rewards[-1] = 2 / len(deck)
            else:
                rewards[-1] = -2 / (2 * len(deck))
            hand = []
        if "down" not in table:
            return pictures, rewards, True
    return pictures, rewards, False


def memory_player(deck: list[int], rng: np.random.Generator, slip: float, steps: int) -> list[int]:
    """Picks pairs of the deck, and random places with the chance `slip`: finished, unfinished and silly games."""
    left, actions = list(range(len(deck))), []
    while len(actions) < steps:
        if rng.random() < slip or not left:
            actions += rng.integers(len(deck), size=rng.integers(1, 4)).tolist()
            if rng.random() < 0.3:
                actions.append(actions[-1])
            continue
        first = int(rng.choice(left))
        like = [i for i in left if deck[i] == deck[first] and i != first]
        second = int(rng.choice(like))
        actions += [first, second]
        if rng.random() < 0.9:
            left = [i for i in left if i not in (first, second)]
    return actions[:steps]


@settings(deadline=None, max_examples=40)
@given(sizes=st.sampled_from([(1, 2), (1, 13), (2, 4)]), seed=SEEDS, slip=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]))
def test_concentration(sizes: tuple[int, int], seed: int, slip: float):
    env = Concentration(*sizes)
    kinds, total = sizes[1], 52 * sizes[0]
    deck = opened(env, seed).kinds.tolist()
    assert sorted(deck) == sorted(list(range(kinds)) * (total // kinds))
    actions = memory_player(deck, np.random.default_rng(seed), slip, env.horizon)
    (_, opening), (_, later) = follow(env, seed, np.array(actions, np.int32))
    pictures, rewards, success = play_concentration(deck, actions)

    down = np.eye(kinds + 1)[kinds]
    assert (opening.obs.reshape(total, kinds + 1) == down).all() and not opening.info["success"]
    shown = [
        np.concatenate([down if kind is None else np.eye(kinds + 1)[kind] for kind in picture]) for picture in pictures
    ]
    check(later, shown, rewards, "terminated", success)


def test_concentration_games_of_every_kind_are_played():
    """The strategy above finishes some games and not others, and meets every penalty."""
    deck = opened(Concentration(), 0).kinds.tolist()
    played = [
        play_concentration(deck, memory_player(deck, np.random.default_rng(s), slip, 104))
        for s in range(20)
        for slip in (0.0, 0.1, 1.0)
    ]
    assert 0 < sum(success for *_, success in played) < len(played)
    seen = {round(reward * 104) for _, rewards, _ in played for reward in rewards}
    assert seen == {0, 4, -1, -2}


def test_concentration_all_matched_with_the_last_step():
    env = Concentration(kinds=13)
    deck = opened(env, 4).kinds.tolist()
    order = np.argsort(deck, kind="stable").tolist()
    actions = [order[0]] * 52 + order  # the same card twice, again and again, then pair by pair
    later = follow(env, 4, np.array(actions, np.int32))[1][1]
    assert later.terminated.tolist() == [False] * 103 + [True] and later.info["success"][-1]
    assert later.reward.sum() == pytest.approx(1 - 26 * 2 / 104)


@pytest.mark.parametrize(("kinds", "copies"), [(2, 2), (1, 4), (3, 2), (2, 4)])
def test_random_concentration_is_enumerated(kinds: int, copies: int):
    """With fractions, over every action at every step of a small deck, remembering situations."""
    deck = tuple(kind for kind in range(kinds) for _ in range(copies))
    total = len(deck)

    @functools.cache
    def value(matched: frozenset[int], waiting: int, left: int) -> Fraction:
        if not left or len(matched) == total:
            return Fraction(0)
        worth = Fraction(0)
        for action in range(total):
            second = waiting >= 0
            if action in matched:
                worth += Fraction(-1 - second, 2 * total) + value(matched, -1, left - 1)
            elif not second:
                worth += value(matched, action, left - 1)
            elif action != waiting and deck[action] == deck[waiting]:
                worth += Fraction(2, total) + value(matched | {action, waiting}, -1, left - 1)
            else:
                worth += Fraction(-2, 2 * total) + value(matched, -1, left - 1)
        return worth / total

    assert random_return(kinds, copies) == pytest.approx(float(value(frozenset(), -1, 2 * total)), abs=1e-12)


# --- battleship ---------------------------------------------------------------------------------------------
@settings(deadline=None, max_examples=60)
@given(
    sizes=st.sampled_from([(8, (2, 3, 3, 4)), (3, (1, 2)), (2, (2,))]),
    seed=SEEDS,
    aim=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
)
def test_battleship(sizes: tuple[int, tuple[int, ...]], seed: int, aim: float):
    size, ships = sizes
    env, rng = Battleship(size, ships), np.random.default_rng(seed)
    board = opened(env, seed).ships.reshape(size, size)
    for number, length in enumerate(ships, start=1):
        rows, cols = np.nonzero(board == number)
        assert len(rows) == length and (np.ptp(rows), np.ptp(cols)) in ((0, length - 1), (length - 1, 0))
    targets = np.flatnonzero(board).tolist()

    actions = [
        int(targets[t % len(targets)] if rng.random() < aim else rng.integers(size**2)) for t in range(env.horizon)
    ]
    (_, opening), (_, later) = follow(env, seed, np.array(actions, np.int32))
    assert opening.obs.tolist() == [0.0] and not opening.info["success"]
    alive, shown, rewards, over = set(targets), [], [], ""
    for t, action in enumerate(actions, start=1):
        hit = action in alive
        alive -= {action}
        shown.append([float(hit)])
        rewards.append(1 / sum(ships) if hit else -1 / (size**2 - sum(ships)))
        over = "" if alive and t < size**2 else "truncated" if alive else "terminated"
        if over:
            break
    check(later, shown, rewards, over, not alive)


def test_battleship_sweeps_and_late_hits():
    env = Battleship(3, (3,))
    for seed in range(8):
        cells = np.flatnonzero(opened(env, seed).ships)
        sweep = follow(env, seed, np.arange(9, dtype=np.int32))[1][1]
        steps = int(cells.max()) + 1
        assert sweep.reward[:steps].sum() == pytest.approx(1 - (steps - 3) / 6)
        assert int(sweep.terminated.argmax()) == steps - 1
        water = next(cell for cell in range(9) if cell not in cells)
        late = follow(env, seed, np.array([water] * 6 + cells.tolist(), np.int32))[1][1]
        assert late.terminated[-1] and not late.truncated.any() and late.reward.sum() == pytest.approx(0, abs=1e-6)


def test_battleship_blind_sweep_earns_what_the_class_says():
    env, num = Battleship(), 4096
    keys = jax.random.split(jax.random.key(0), num)
    fleets = np.asarray(jax.jit(jax.vmap(lambda key: env.reset(key, ())[0].ships))(keys)) > 0
    last = 63 - fleets[:, ::-1].argmax(axis=1)
    returns = 1 - (last - 11) / 52
    assert returns.mean() == pytest.approx(0.167, abs=4 * returns.std() / num**0.5)


def layouts(size: int, ships: tuple[int, ...]) -> dict[tuple[int, ...], Fraction]:
    """The chance of every board (ship numbers row by row): a start, an axis and a sense are drawn until they fit."""
    boards = {(0,) * size**2: Fraction(1)}
    for number, length in enumerate(ships, start=1):
        after: dict[tuple[int, ...], Fraction] = {}
        for board, chance in boards.items():
            fits = []
            for row, col, (dy, dx) in itertools.product(range(size), range(size), ((0, 1), (0, -1), (1, 0), (-1, 0))):
                cells = [(row + i * dy, col + i * dx) for i in range(length)]
                if all(0 <= y < size and 0 <= x < size and not board[size * y + x] for y, x in cells):
                    fits.append({size * y + x for y, x in cells})
            for cells in fits:
                new = tuple(number if i in cells else v for i, v in enumerate(board))
                after[new] = after.get(new, Fraction(0)) + chance / len(fits)
        boards = after
    return boards


def test_battleship_places_ships_as_the_source_does():
    """Drawing a start and a direction until they fit is a uniform draw among what fits; chi-squared of 20k boards."""
    env, num = Battleship(3, (1, 2, 1)), 20_000
    want = layouts(3, (1, 2, 1))
    assert len({chance for chance in want.values()}) > 1, "not all boards are equally likely"
    keys = jax.random.split(jax.random.key(0), num)
    boards = np.asarray(jax.jit(jax.vmap(lambda key: env.reset(key, ())[0].ships))(keys))
    found, counts = np.unique(boards, axis=0, return_counts=True)
    seen = dict(zip(map(tuple, found.tolist()), counts.tolist(), strict=True))
    assert set(seen) == set(want)
    chi2 = sum((seen[board] - num * float(p)) ** 2 / (num * float(p)) for board, p in want.items())
    free = len(want) - 1
    assert abs(chi2 - free) < 4 * (2 * free) ** 0.5


def test_random_battleship_is_enumerated():
    env = Battleship(2, (2,))
    total = Fraction(0)
    for shots in itertools.product(range(4), repeat=4):  # the ship lies on cells 0 and 1
        alive = {0, 1}
        for shot in shots:
            total += Fraction(1 if shot in alive else -1, 2)
            alive -= {shot}
            if not alive:
                break
    assert env.reference()["random"] == pytest.approx(float(total / 4**4), abs=1e-12)


# --- minesweeper --------------------------------------------------------------------------------------------
@settings(deadline=None, max_examples=60)
@given(
    sizes=st.sampled_from([(4, 2), (8, 10), (4, 12), (2, 1)]),
    seed=SEEDS,
    care=st.sampled_from([0.0, 0.8, 0.97, 1.0]),
    again=st.sampled_from([0.0, 0.2]),
)
def test_minesweeper(sizes: tuple[int, int], seed: int, care: float, again: float):
    size, mines = sizes
    env, rng = Minesweeper(size, mines), np.random.default_rng(seed)
    field = opened(env, seed).mines.reshape(size, size)
    assert field.sum() == mines
    safe = size**2 - mines
    plan = rng.permutation(np.flatnonzero(~field)).tolist()
    actions = [int(a if rng.random() < care else rng.integers(size**2)) for a in plan]
    actions = [actions[max(0, t - 1)] if rng.random() < again else a for t, a in enumerate(actions)]

    (_, opening), (states, later) = follow(env, seed, np.array(actions, np.int32))
    classes = min(mines + 1, 10)
    assert opening.obs.tolist() == [0.0] * classes and not opening.info["success"]
    found: set[int] = set()
    shown, rewards, over = [], [], ""
    for t, action in enumerate(actions, start=1):
        row, col = divmod(action, size)
        near = [field[y, x] for y in range(size) for x in range(size) if abs(y - row) <= 1 and abs(x - col) <= 1]
        shown.append(np.eye(classes)[sum(near)])
        if field[row, col]:
            rewards.append(-0.5 - 1 / safe)
            over = "terminated"
        elif action in found:
            rewards.append(-0.5 / (safe - 2))
        else:
            found.add(action)
            rewards.append(1 / safe)
            over = "terminated" if len(found) == safe else ""
        over = over or ("truncated" if t == safe else "")
        if over:
            break
    check(later, shown, rewards, over, len(found) == safe)
    assert set(np.flatnonzero(states.opened[len(shown) - 1])) == found


def test_mines_are_uniform():
    env, num = Minesweeper(3, 2), 7200
    keys = jax.random.split(jax.random.key(0), num)
    fields = np.asarray(jax.jit(jax.vmap(lambda key: env.reset(key, ())[0].mines))(keys))
    counts = np.unique(fields, axis=0, return_counts=True)[1]
    free = math.comb(9, 2) - 1
    assert len(counts) == free + 1
    assert abs(((counts - 200) ** 2 / 200).sum() - free) < 4 * (2 * free) ** 0.5


def test_random_minesweeper_is_enumerated():
    env = Minesweeper(2, 1)
    total = Fraction(0)
    for cells in itertools.product(range(4), repeat=3):  # the mine lies on cell 3
        found: set[int] = set()
        for cell in cells:
            if cell == 3:
                total -= Fraction(1, 2) + Fraction(1, 3)
                break
            total += Fraction(-1, 2) if cell in found else Fraction(1, 3)
            found.add(cell)
            if len(found) == 3:
                break
    assert env.reference()["random"] == pytest.approx(float(total / 4**3), abs=1e-12)


# --- sizes, indices, pictures -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "spec",
    [
        "concentration,decks=0",
        "concentration,kinds=4",
        "concentration,kinds=26",
        "battleship,size=1",
        "battleship,size=65",
        "minesweeper,size=1",
        "minesweeper,mines=0",
        "minesweeper,mines=14",
    ],
)
def test_bad_sizes_are_refused_in_words(spec: str):
    with pytest.raises(ValueError, match=f"{spec.split(',')[0]}: {spec.split(',')[1].split('=')[0]} must be"):
        make(spec)


@pytest.mark.parametrize("ships", [(), (9,), (0, 2), (8,) * 9, (2, 2, 2, 3), (1,) * 16])
def test_bad_fleets_are_refused_in_words(ships: tuple[int, ...]):
    with pytest.raises(ValueError, match="battleship: ships must"):
        Battleship(4 if len(ships) != 9 else 8, ships)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["concentration-hard", "battleship", "minesweeper"])
def test_no_index_is_out_of_bounds(name: str):
    """Over whole episodes and what lies after them, with experts and pictures."""
    env, params = make(name)

    def episode(key: Any) -> Any:
        state, timestep = plain_trajectory(env, params, key, env.horizon + 2)
        expert = jax.vmap(env.expert, in_axes=(None, 0, None))(key, state, params)
        last = jax.tree.map(lambda x: x[-1], state)
        return timestep, expert, env.render(last, params)

    error, _ = jax.jit(checkify.checkify(episode, errors=checkify.index_checks))(jax.random.key(5))
    error.throw()


def test_pictures_tell_situations_apart():
    """Each fact of the state has its look: a hit from a miss, a number from another, a card from another."""

    def put(array: np.ndarray, place: int, value: Any) -> np.ndarray:
        return np.where(np.arange(len(array)) == place, value, array).astype(array.dtype)

    fleet = opened(Battleship(), 0)
    target, water = int(np.flatnonzero(fleet.ships)[0]), int(np.flatnonzero(np.asarray(fleet.ships) == 0)[0])
    field = opened(Minesweeper(), 0)
    deck = opened(Concentration(kinds=13), 0)
    looks: dict[Any, list[Any]] = {
        Battleship(): [
            fleet,
            *(replace(fleet, shot=put(fleet.shot, i, True)) for i in (target, water)),
            replace(fleet, last=jnp.int32(0)),
        ],
        Minesweeper(): [
            field,
            *(
                replace(field, opened=put(field.opened, 0, True), counts=put(field.counts, 0, count))
                for count in range(10)
            ),
            replace(field, mines=~field.mines),
        ],
        Concentration(kinds=13): [
            deck,
            *(
                replace(deck, kinds=put(deck.kinds, 0, kind), turned=jnp.array([0, -1], jnp.int32))
                for kind in range(13)
            ),
            replace(deck, matched=put(deck.matched, 0, True)),
        ],
    }
    for env, states in looks.items():
        render = jax.jit(env.render)
        pictures = {np.asarray(render(state, ())).tobytes() for state in states}
        assert len(pictures) == len(states)
