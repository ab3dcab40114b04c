"""Conformance of the puzzles to the `popgym` package: the same deck, fleet or mine field, played step by step.

Skipped where popgym is not installed. Where we differ on purpose, the test that meets it says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from env_follow import follow, opened

from jaxrl_seq.envs import make

pytest.importorskip("popgym")
PRESETS = ["easy", "medium", "hard"]
EPISODES = range(6)


def theirs_of(module: str, cls: str, preset: str) -> Any:
    return getattr(pytest.importorskip(f"popgym.envs.{module}"), cls + preset.capitalize())()


def mostly(rng: np.random.Generator, right: np.ndarray, share: float, choices: int) -> np.ndarray:
    """`right` with a share of random actions between."""
    return np.where(rng.random(len(right)) < share, right, rng.integers(choices, size=len(right))).astype(np.int32)


def dealt(kinds: np.ndarray, kinds_of_cards: np.ndarray) -> np.ndarray:
    """Card numbers of their deck, each once, of the given kinds place by place."""
    piles = {kind: np.flatnonzero(kinds_of_cards == kind).tolist() for kind in np.unique(kinds_of_cards)}
    return np.array([piles[kind].pop() for kind in kinds.tolist()])


@pytest.mark.parametrize("preset", PRESETS)
def test_concentration(preset: str):
    """Differs on purpose: they call the clock's end a truncation, with us it is a termination, as the horizon is part
    of the problem. (When all is matched with the last step they set both flags.)"""
    env, _ = make(f"concentration-{preset}")
    theirs = theirs_of("concentration", "Concentration", preset)
    assert theirs.action_space.n == env.action_space().n and theirs.episode_length == env.horizon
    ends = set()
    for episode in EPISODES:
        rng = np.random.default_rng(episode)
        deck = opened(env, episode).kinds
        right = np.argsort(deck, kind="stable")
        right = np.concatenate([np.repeat(right, 2)[: env.horizon - len(right)], right])
        if episode % 2:
            right = right[::-1]
        actions = mostly(rng, right, [0.0, 1.0, 0.5, 0.9, 0.98, 1.0][episode], env.num_cards)
        if episode == 5:  # pair by pair at once
            actions = np.argsort(deck, kind="stable").astype(np.int32)
        theirs.reset(seed=episode)
        theirs.deck.idx[:] = dealt(deck, theirs.deck_idx_type)
        (_, opening), (_, later) = follow(env, episode, actions)
        np.testing.assert_array_equal(opening.obs, np.eye(env.kinds + 1)[theirs.get_obs()].ravel())
        for t, action in enumerate(actions.tolist()):
            obs, reward, terminated, truncated, _ = theirs.step(action)
            np.testing.assert_array_equal(later.obs[t], np.eye(env.kinds + 1)[obs].ravel(), err_msg=f"step {t}")
            assert later.reward[t] == pytest.approx(reward, abs=1e-6)
            assert bool(later.terminated[t]) == (terminated or truncated) and not later.truncated[t]
            assert bool(later.info["success"][t]) == terminated
            if terminated or truncated:
                ends.add(bool(terminated))
                break
        else:
            pytest.fail("their episode did not end")
    assert ends == {True, False}


@pytest.mark.parametrize("preset", PRESETS)
def test_battleship(preset: str):
    """Differs on purpose: an action is one number, theirs is a row and a column; and where the last shot of all sinks
    the last ship they set both flags, we terminate only."""
    env, _ = make(f"battleship-{preset}")
    theirs = theirs_of("battleship", "Battleship", preset)
    assert theirs.max_episode_length == env.horizon and tuple(theirs.ship_sizes) == env.ships
    ends = set()
    for episode in EPISODES:
        rng = np.random.default_rng(episode)
        ships = opened(env, episode).ships
        targets = np.flatnonzero(ships)
        right = np.resize(targets, env.horizon)
        actions = mostly(rng, right, [0.0, 0.1, 0.3, 0.8, 1.0, 0.0][episode], env.cells)
        if episode == 5:  # the last cell of all with the last shot
            actions = np.concatenate([np.flatnonzero(ships == 0), targets]).astype(np.int32)
        obs, _ = theirs.reset(seed=episode)
        theirs.board[:] = (ships > 0).reshape(env.size, env.size)
        (_, opening), (_, later) = follow(env, episode, actions)
        assert opening.obs.tolist() == [obs]
        for t, action in enumerate(actions.tolist()):
            obs, reward, terminated, truncated, _ = theirs.step(divmod(action, env.size))
            assert later.obs[t].tolist() == [obs]
            assert later.reward[t] == pytest.approx(reward, abs=1e-6)
            assert bool(later.terminated[t]) == bool(later.info["success"][t]) == terminated
            assert bool(later.truncated[t]) == (truncated and not terminated)
            if terminated or truncated:
                ends.add((bool(terminated), bool(truncated)))
                break
        else:
            pytest.fail("their episode did not end")
    assert ends == {(True, False), (False, True), (True, True)}


def test_battleship_fleets_are_distributed_alike():
    """Each cell holds a ship as often in their fleets as in ours."""
    jax = pytest.importorskip("jax")
    env, params = make("battleship")
    theirs = theirs_of("battleship", "Battleship", "easy")
    num, boards = 2000, []
    theirs.reset(seed=0)
    for _ in range(num):
        theirs.reset()
        boards.append(theirs.board.ravel() > 0)
    keys = jax.random.split(jax.random.key(0), num)
    ours = np.asarray(jax.jit(jax.vmap(lambda key: env.reset(key, params)[0].ships))(keys)) > 0
    theirs_share, our_share = np.mean(boards, axis=0), ours.mean(axis=0)
    error = (2 * our_share * (1 - our_share) / num) ** 0.5
    assert np.abs((our_share - theirs_share) / error).max() < 4.5


@pytest.mark.parametrize("preset", PRESETS)
def test_minesweeper(preset: str):
    """Differs on purpose: an action is one number, theirs is a row and a column; and at the reset, when nothing is
    open yet, they show the number 0, we show none."""
    env, _ = make(f"minesweeper-{preset}")
    theirs = theirs_of("minesweeper", "MineSweeper", preset)
    classes = int(theirs.observation_space.n)
    assert theirs.max_episode_length == env.horizon and env.observation_space().shape == (classes,)
    ends = set()
    for episode in EPISODES:
        rng = np.random.default_rng(episode)
        mines = opened(env, episode).mines
        right = rng.permutation(np.flatnonzero(~mines))
        actions = mostly(rng, right, [0.0, 0.8, 0.9, 1.0, 1.0, 1.0][episode], env.cells)
        if episode == 4:  # one cell twice
            actions[-1] = actions[0]
        theirs.reset(seed=0)
        theirs.np_random = _Chosen(np.flatnonzero(mines))
        obs, _ = theirs.reset()
        assert obs == 0
        (_, opening), (_, later) = follow(env, episode, actions)
        assert not opening.obs.any()
        for t, action in enumerate(actions.tolist()):
            obs, reward, terminated, truncated, _ = theirs.step(divmod(action, env.size))
            np.testing.assert_array_equal(later.obs[t], np.eye(classes)[obs])
            assert later.reward[t] == pytest.approx(reward, abs=1e-6)
            assert bool(later.terminated[t]) == terminated and bool(later.truncated[t]) == truncated
            success = terminated and reward > 0
            assert bool(later.info["success"][t]) == success
            if terminated or truncated:
                ends.add("success" if success else "mine" if terminated else "late")
                break
        else:
            pytest.fail("their episode did not end")
    assert ends == {"success", "mine", "late"}


class _Chosen:
    """Stands for their random generator: chooses the given mines."""

    def __init__(self, mines: np.ndarray):
        self.mines = mines

    def choice(self, cells: np.ndarray, size: int, replace: bool) -> np.ndarray:
        assert len(self.mines) == size and not replace
        return self.mines
