"""Conformance to the `popgym` package: both play the same deck (or state) with the same actions, step by step.

Skipped where popgym is not installed. Where we differ on purpose, the test that meets it says so.
"""

from __future__ import annotations

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from env_follow import follow, opened

from jaxrl_seq.envs import make
from jaxrl_seq.envs.control.cartpole import CartPoleState
from jaxrl_seq.envs.control.pendulum import PendulumState

pytest.importorskip("popgym")


def theirs_of(name: str, preset: str = "easy") -> Any:
    """Their environment: `repeat_first`, "hard" is popgym.envs.repeat_first.RepeatFirstHard."""
    module = importlib.import_module(f"popgym.envs.{name}")
    wanted = (name.replace("_", "") + preset).lower()
    return next(value for key, value in vars(module).items() if key.lower() == wanted)()


class Dealer:
    """Stands for their random generator: shuffles decks into given orders, pays where told, adds given noise."""

    def __init__(self, *decks: np.ndarray, task: np.ndarray | None = None, payouts: Any = (), noise: Any = None):
        self.decks, self.task, self.payouts, self.noise = list(decks), task, list(payouts), noise

    def shuffle(self, deck: np.ndarray) -> None:
        deck[:] = self.decks.pop(0)[::-1]  # they deal from the end

    def random(self, size: int | None = None, dtype: Any = None) -> Any:
        if size is not None and self.task is not None:
            return self.task.astype(dtype)
        return 0.0 if self.payouts.pop(0) else 1.0

    def normal(self, mean: float, sigma: np.ndarray) -> np.ndarray:
        return mean + sigma * self.noise


def as_cards(kinds: np.ndarray, kinds_of_cards: np.ndarray) -> np.ndarray:
    """Card numbers of their deck, each once, whose kinds are `kinds` in dealing order."""
    piles = {kind: np.flatnonzero(kinds_of_cards == kind).tolist() for kind in np.unique(kinds_of_cards)}
    return np.array([piles[kind].pop() for kind in kinds.tolist()])


def one_hots(*indices_and_sizes: tuple[Any, int]) -> np.ndarray:
    return np.concatenate([np.eye(size)[int(index)] for index, size in indices_and_sizes])


def suit(obs: Any) -> np.ndarray:
    return one_hots((obs, 4))


def compare(name: str, preset: str, theirs: Any, actions: np.ndarray, encode: Any) -> None:
    """Their whole episode is ours; `encode(obs, t)` writes their observation as we do."""
    env, _ = make(f"{name}-{preset}")
    assert len(actions) == env.horizon
    assert theirs.action_space.n == env.action_space().n
    (_, opening), (_, later) = follow(env, 3, actions)
    obs, _ = theirs.reset()
    np.testing.assert_array_equal(opening.obs, encode(obs, 0))
    for t, action in enumerate(actions):
        obs, reward, terminated, truncated, _ = theirs.step(int(action))
        np.testing.assert_array_equal(later.obs[t], encode(obs, t + 1), err_msg=f"step {t}")
        assert later.reward[t] == pytest.approx(reward, abs=1e-7)
        assert bool(later.terminated[t] | later.truncated[t]) == (terminated or truncated) == (t == env.horizon - 1)


def half_right(right: Any, choices: int) -> np.ndarray:
    """The right answers, every other one replaced by a random one."""
    rng, right = np.random.default_rng(1), np.asarray(right)
    return np.where(rng.random(len(right)) < 0.5, right, rng.integers(choices, size=len(right))).astype(np.int32)


def ours(name: str, preset: str) -> tuple[Any, Any]:
    env, _ = make(f"{name}-{preset}")
    return env, opened(env, 3)


@pytest.mark.parametrize("preset", ["easy", "medium", "hard"])
def test_repeat_first(preset: str):
    env, state = ours("repeat_first", preset)
    theirs = theirs_of("repeat_first", preset)
    theirs.np_random = Dealer(as_cards(state.suits, theirs.deck.suits_idx))
    actions = half_right([state.suits[0]] * env.horizon, 4)
    compare("repeat_first", preset, theirs, actions, lambda obs, t: suit(obs))


@pytest.mark.parametrize("preset", ["easy", "medium", "hard"])
def test_repeat_previous(preset: str):
    env, state = ours("repeat_previous", preset)
    theirs = theirs_of("repeat_previous", preset)
    theirs.np_random = Dealer(as_cards(state.suits, theirs.deck.suits_idx))
    right = [state.suits[max(0, t + 1 - env.k)] for t in range(env.horizon)]
    compare("repeat_previous", preset, theirs, half_right(right, 4), lambda obs, t: suit(obs))


@pytest.mark.parametrize("preset", ["easy", "medium", "hard"])
def test_autoencode(preset: str):
    """Differs on purpose: once no card is on show they still show suit 0, we show none."""
    env, state = ours("autoencode", preset)
    theirs = theirs_of("autoencode", preset)
    theirs.np_random = Dealer(as_cards(state.suits, theirs.deck.suits_idx))

    def encode(obs: Any, t: int) -> np.ndarray:
        play, shown = obs
        assert t < env.num_cards or shown == 0
        return np.concatenate([one_hots((play == 0, 2)), suit(shown) * (t < env.num_cards)])

    right = [0] * (env.num_cards - 1) + state.suits[::-1].tolist()
    compare("autoencode", preset, theirs, half_right(right, 4), encode)


@pytest.mark.parametrize("preset", ["easy", "medium", "hard"])
def test_count_recall(preset: str):
    env, state = ours("count_recall", preset)
    theirs = theirs_of("count_recall", preset)
    theirs.np_random = Dealer(*(as_cards(deck, theirs.deck_idx_type) for deck in (state.values, state.queries)))
    right = [(state.values[: t + 1] == state.queries[t]).sum() for t in range(env.horizon)]
    actions = half_right(right, env.copies + 1)
    compare("count_recall", preset, theirs, actions, lambda obs, t: one_hots(*((kind, env.kinds) for kind in obs)))


@pytest.mark.parametrize("preset", ["easy", "medium", "hard"])
def test_higher_lower(preset: str):
    env, state = ours("higher_lower", preset)
    theirs = theirs_of("higher_lower", preset)
    theirs.np_random = Dealer(as_cards(state.ranks, theirs.deck.ranks_idx))
    actions = np.random.default_rng(2).integers(2, size=env.horizon).astype(np.int32)
    compare("higher_lower", preset, theirs, actions, lambda obs, t: one_hots((obs, 13)))


@pytest.mark.parametrize("preset", ["easy", "medium", "hard"])
def test_multiarmed_bandit(preset: str):
    """Our payouts are dealt to them. Differs on purpose: they call the clock's end a truncation and reveal the arms'
    chances in `info`; with us it is a termination, as the horizon is part of the problem, and `info` is empty."""
    env, state = ours("multiarmed_bandit", preset)
    theirs = theirs_of("multiarmed_bandit", preset)
    actions = np.random.default_rng(2).integers(env.arms, size=env.horizon).astype(np.int32)
    later = follow(env, 3, actions)[1][1]
    theirs.np_random = Dealer(task=state.task, payouts=later.obs[:, 0])
    compare("multiarmed_bandit", preset, theirs, actions, lambda obs, t: np.array([obs]))
    assert later.terminated[-1] and not later.truncated.any() and later.info == {}


@pytest.mark.parametrize("name", ["position_only_cartpole", "velocity_only_cartpole", "noisy_position_only_cartpole"])
def test_cartpoles(name: str):
    """From the same state and with the same noise. Differs on purpose: their velocity-only cart-pole shows the
    positions at the reset."""
    env, params = make(name)
    theirs, rng, step = theirs_of(name), np.random.default_rng(0), jax.jit(env.step)
    ends = 0
    for episode in range(3):
        theirs.np_random = np.random.default_rng(episode)
        if "noisy" in name:
            theirs.np_random = _Noisy(episode)
        first, _ = theirs.reset()
        if name.startswith("velocity"):
            np.testing.assert_allclose(first, np.asarray(theirs.state)[[0, 2]], rtol=1e-5)
        over, t = False, 0
        while not over:
            key = jax.random.key(t)
            noise = np.asarray(jax.random.normal(key, (2,), jnp.float32))
            if "noisy" in name:
                theirs.np_random.noise = noise
            if episode == 2:  # held upright, so that the episode is cut
                theirs.state = np.asarray(theirs.state) * 0.5
            state = CartPoleState(*map(jnp.float32, theirs.state), t=jnp.int32(t))
            action = int(rng.integers(2))
            obs, reward, terminated, truncated, _ = theirs.step(action)
            _, timestep = step(key, state, jnp.int32(action), params)
            np.testing.assert_allclose(timestep.obs, obs, rtol=1e-4, atol=1e-5)
            assert float(timestep.reward) == pytest.approx(reward)
            assert bool(timestep.terminated) == terminated
            assert bool(timestep.truncated) == (truncated and not terminated)
            over, t, ends = terminated or truncated, t + 1, ends + truncated
    assert ends == 1


class _Noisy(Dealer):
    """Given noise, but starting states of its own."""

    def __init__(self, seed: int):
        super().__init__(noise=np.zeros(2))
        self.uniform = np.random.default_rng(seed).uniform


@pytest.mark.parametrize("name", ["position_only_pendulum", "noisy_position_only_pendulum"])
def test_pendulums(name: str):
    """From the same state and with the same noise, over a whole episode."""
    env, params = make(name)
    theirs, rng, step = theirs_of(name), np.random.default_rng(0), jax.jit(env.step)
    theirs.np_random = _Noisy(0)
    theirs.reset()
    for t in range(env.limit):
        theta, speed = theirs.state
        key = jax.random.key(t)
        theirs.np_random.noise = np.asarray(jax.random.normal(key, (2,), jnp.float32))
        theta = (theta + np.pi) % (2 * np.pi) - np.pi
        state = PendulumState(jnp.float32(theta), jnp.float32(speed), jnp.int32(t))
        torque = np.abs(rng.uniform(-3, 3, 1)) * np.sign(speed) if t < 100 else rng.uniform(-3, 3, 1)
        obs, reward, terminated, truncated, _ = theirs.step(torque)
        _, timestep = step(key, state, jnp.asarray(torque, jnp.float32), params)
        np.testing.assert_allclose(timestep.obs, obs, rtol=1e-4, atol=2e-4)
        assert float(timestep.reward) == pytest.approx(reward, rel=1e-3, abs=2e-6)
        assert bool(timestep.truncated) == truncated == (t == env.limit - 1) and not terminated
        assert not timestep.terminated


@pytest.mark.parametrize("preset", ["easy", "medium", "hard"])
@pytest.mark.parametrize(
    "name",
    [
        "position_only_cartpole",
        "velocity_only_cartpole",
        "noisy_position_only_cartpole",
        "position_only_pendulum",
        "noisy_position_only_pendulum",
    ],
)
def test_presets(name: str, preset: str):
    env, params = make(f"{name}-{preset}")
    theirs = theirs_of(name, preset)
    assert env.horizon == theirs.max_episode_length
    if "noisy" in name:
        np.testing.assert_allclose(theirs.noise_sigma, params.noise)
    low, high = env.observation_space().bounds
    np.testing.assert_allclose((low, high), (theirs.observation_space.low, theirs.observation_space.high), rtol=1e-6)
