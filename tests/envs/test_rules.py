"""The rules of each game against a slow, obvious twin, and the physics against gymnasium's."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_seq.envs import Env, make
from jaxrl_seq.envs.control.cartpole import (
    CartPole,
    CartPoleState,
    NoisyPositionOnlyCartPole,
    PositionOnlyCartPole,
)
from jaxrl_seq.envs.control.pendulum import Pendulum, PendulumState, PositionOnlyPendulum
from jaxrl_seq.envs.memory.associative_recall import AssociativeRecall
from jaxrl_seq.envs.memory.repeat_previous import RepeatPrevious
from jaxrl_seq.envs.memory.tmaze import TMaze


@functools.partial(jax.jit, static_argnames="env")
def _follow(env: Env, params: Any, key: Any, actions: Any) -> Any:
    state, opened = env.reset(key, params)

    def step(state: Any, action: Any) -> Any:
        state, timestep = env.step(key, state, action, params)
        return state, timestep

    return state, opened, jax.lax.scan(step, state, actions)[1]


def follow(env: Env, seed: int, actions: np.ndarray, params: Any = None) -> tuple[Any, Any, Any]:
    """(first state, its timestep, the timesteps after each action) as NumPy arrays."""
    params = env.default_params() if params is None else params
    return jax.device_get(_follow(env, params, jax.random.key(seed), jnp.asarray(actions)))


# --- T-maze -------------------------------------------------------------------------------------------------
class SlowTMaze:
    """A map drawn in text: '.' can be walked on; the cue is at column 0 of the corridor."""

    def __init__(self, length: int, active: bool, goal: int):
        self.length, self.back, self.goal = length, int(active), goal
        far = length + self.back
        self.cells = {(x, 0) for x in range(far + 1)} | {(far, 1), (far, -1)}
        self.x, self.y, self.t, self.cue_taken = self.back, 0, 0, False

    def look(self) -> tuple[float, float]:
        if self.x == 0 and not self.cue_taken:
            self.cue_taken = True
            return 0.0, float(self.goal)
        return float(self.x == self.length + self.back), float(self.y)

    def walk(self, action: int) -> tuple[tuple[float, float], float, bool]:
        dx, dy = {0: (1, 0), 1: (0, 1), 2: (-1, 0), 3: (0, -1)}[action]
        if (self.x + dx, self.y + dy) in self.cells:
            self.x, self.y = self.x + dx, self.y + dy
        self.t += 1
        over = self.t == self.length + 2 * self.back + 1
        late = self.x < self.t - self.back
        reward = float(self.y == self.goal) if over else (-1.0 / self.length if late else 0.0)
        return self.look(), reward, over


@settings(deadline=None, max_examples=60)
@given(
    length=st.sampled_from([2, 3, 6]),
    active=st.booleans(),
    seed=st.integers(0, 99),
    actions=st.lists(st.integers(0, 3), min_size=9, max_size=9),
    eager=st.booleans(),
)
def test_tmaze(length: int, active: bool, seed: int, actions: list[int], eager: bool):
    env = TMaze(length=length, active=active)
    moves = actions[: env.horizon]
    if eager:  # walk the shortest way for most of it, so that arms and goals are reached too
        moves[:-2] = ([2] * active + [0] * env.horizon)[: env.horizon - 2]
    state, opened, later = follow(env, seed, np.array(moves, np.int32))
    twin = SlowTMaze(length, active, int(state.goal))
    assert tuple(opened.obs) == twin.look()
    for t, action in enumerate(moves):
        obs, reward, over = twin.walk(action)
        assert tuple(later.obs[t]) == obs
        assert later.reward[t] == pytest.approx(reward)
        assert bool(later.terminated[t]) == over and not later.truncated[t]
        assert bool(later.info["success"][t]) == (over and reward == 1)


def test_tmaze_shortest_ways_earn_everything():
    for active, moves in ((False, [0, 0, 0, 0]), (True, [2, 0, 0, 0, 0, 0])):
        env = TMaze(length=3, active=active)
        for seed in range(6):
            goal = int(follow(env, seed, np.zeros(env.horizon, np.int32))[0].goal)
            moves[-1] = 1 if goal > 0 else 3
            assert float(follow(env, seed, np.array(moves, np.int32))[2].reward.sum()) == 1.0
            moves[-1] = 3 if goal > 0 else 1
            assert float(follow(env, seed, np.array(moves, np.int32))[2].reward.sum()) == 0.0


# --- cards --------------------------------------------------------------------------------------------------
@settings(deadline=None, max_examples=25)
@given(size=st.sampled_from([(1, 4), (1, 1), (1, 51), (2, 32)]), seed=st.integers(0, 999), cheat=st.floats(0, 1))
def test_repeat_previous(size: tuple[int, int], seed: int, cheat: float):
    decks, k = size
    env = RepeatPrevious(decks, k)
    total = 52 * decks
    rng = np.random.default_rng(seed)
    suits = follow(env, seed, np.zeros(total - 1, np.int32))[0].suits.astype(int)
    assert sorted(suits) == sorted(list(range(4)) * 13 * decks), "a whole deck, each card once"

    hand, pile = [suits[0]], list(suits[1:])
    actions, rewards, shown = [], [], []
    for _ in range(total - 1):
        answer = hand[-k] if len(hand) >= k else 0
        actions.append(answer if rng.random() < cheat else int(rng.integers(4)))
        rewards.append((1 if actions[-1] == hand[-k] else -1) / (total - k) if len(hand) >= k else 0)
        hand.append(pile.pop(0))
        shown.append(hand[-1])
    assert not pile
    _, opened, later = follow(env, seed, np.array(actions, np.int32))
    assert opened.obs.argmax() == suits[0] and (later.obs.argmax(axis=1) == shown).all()
    assert (later.obs.sum(axis=1) == 1).all()
    np.testing.assert_allclose(later.reward, rewards, atol=1e-6)
    assert later.terminated.tolist() == [False] * (total - 2) + [True] and not later.truncated.any()


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.sampled_from([(4, 0, 4, 8, 8), (3, 2, 2, 5, 4), (1, 5, 1, 1, 2)]),
    seed=st.integers(0, 999),
    cheat=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_associative_recall(sizes: tuple[int, ...], seed: int, cheat: float):
    pairs, delay, queries, num_keys, num_values = sizes
    env = AssociativeRecall(pairs, delay, queries, num_keys, num_values)
    rng = np.random.default_rng(seed)
    state = follow(env, seed, np.zeros(env.horizon, np.int32))[0]
    assert len(set(state.keys.tolist())) == pairs and len(set(state.order.tolist())) == queries
    table = dict(zip(state.keys.tolist(), state.values.tolist(), strict=True))

    # The script of the episode: what is on show at each time, as (key, value, question).
    script: list[tuple[int | None, int | None, bool]] = []
    for key, value in table.items():
        script += [(key, None, False), (None, value, False)]
    script += [(None, None, False)] * delay
    script += [(int(state.keys[i]), None, True) for i in state.order]
    actions, rewards = [], []
    for key, _, asks in script:
        right = table[key] if asks and key is not None else 0
        actions.append(right if rng.random() < cheat else int(rng.integers(num_values)))
        rewards.append((1 if actions[-1] == right else -1) / queries if asks else 0)
    script.append((None, None, False))

    _, opened, later = follow(env, seed, np.array(actions, np.int32))
    for t, (key, value, asks) in enumerate(script):
        picture = np.zeros(num_keys + num_values + 1)
        picture[[i for i in (key, None if value is None else num_keys + value) if i is not None]] = 1
        picture[-1] = asks
        np.testing.assert_array_equal(opened.obs if t == 0 else later.obs[t - 1], picture)
    np.testing.assert_allclose(later.reward, rewards, atol=1e-6)
    assert later.terminated.tolist() == [False] * (env.horizon - 1) + [True]
    assert bool(later.info["success"][-1]) == all(r >= 0 for r in rewards)
    assert not later.info["success"][:-1].any()


# --- physics ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make_env", [CartPole, PositionOnlyCartPole])
def test_cartpole_is_gymnasiums(make_env: Any):
    """The same state and action lead to the same next state, reward and end, over whole random episodes."""
    env = make_env()
    theirs: Any = gymnasium.make("CartPole-v1").unwrapped
    params, rng = env.default_params(), np.random.default_rng(0)
    step = jax.jit(env.step)
    seen = [0, 2] if make_env is PositionOnlyCartPole else [0, 1, 2, 3]
    ends = 0
    for episode in range(4):
        obs, _ = theirs.reset(seed=episode)
        over, t = False, 0
        while not over:
            state = CartPoleState(*map(jnp.float32, theirs.state), t=jnp.int32(t))
            action = int(rng.integers(2)) if episode else 1
            obs, reward, over, _, _ = theirs.step(action)
            _, timestep = step(jax.random.key(0), state, jnp.int32(action), params)
            np.testing.assert_allclose(timestep.obs, obs[seen], rtol=1e-4, atol=1e-5)
            assert float(timestep.reward) == pytest.approx(reward if make_env is CartPole else 1 / env.limit)
            assert bool(timestep.terminated) == over and not timestep.truncated
            ends, t = ends + over, t + 1
    assert ends == 4


def test_cartpole_time_limit():
    env, params = make("cartpole,limit=3")
    state, _ = env.reset(jax.random.key(0), params)
    flags = []
    for _ in range(3):
        state, timestep = env.step(jax.random.key(0), state, jnp.int32(0), params)
        flags.append((bool(timestep.terminated), bool(timestep.truncated)))
    assert flags == [(False, False), (False, False), (False, True)]
    # Falling in the very step of the limit is a fall: there is nothing left to bootstrap.
    fallen = replace(state, theta=jnp.float32(1.0), t=jnp.int32(2))
    timestep = env.step(jax.random.key(0), fallen, jnp.int32(0), params)[1]
    assert bool(timestep.terminated) and not bool(timestep.truncated)


def test_cartpole_follows_every_constant():
    """Other masses, lengths, ... also agree with gymnasium's, whose derived constants are set by hand here: a
    total mass stored beside its parts (as in gymnax) would have gone stale."""
    env = CartPole()
    theirs: Any = gymnasium.make("CartPole-v1").unwrapped
    new = {"gravity": 5.0, "masscart": 3.0, "masspole": 0.7, "length": 0.8, "force_mag": 6.0, "tau": 0.05}
    for name, value in new.items():
        setattr(theirs, name, value)
    theirs.total_mass, theirs.polemass_length = 3.7, 0.7 * 0.8
    params = type(env.default_params())(*map(jnp.float32, new.values()))
    theirs.reset(seed=0)
    theirs.state = np.array([0.1, 0.5, 0.1, -1.0])
    state = CartPoleState(*map(jnp.float32, theirs.state), t=jnp.int32(0))
    for action in (0, 1):
        theirs.state = np.array([0.1, 0.5, 0.1, -1.0])
        obs = theirs.step(action)[0]
        timestep = env.step(jax.random.key(0), state, jnp.int32(action), params)[1]
        np.testing.assert_allclose(timestep.obs, obs, rtol=1e-4)


def test_noise_is_fresh_clipped_and_as_large_as_said():
    env = NoisyPositionOnlyCartPole()
    params = replace(env.default_params(), noise=jnp.float32(0.05))
    state, _ = env.reset(jax.random.key(0), params)
    keys = jax.random.split(jax.random.key(1), 3000)
    stepped, timestep = jax.jit(jax.vmap(env.step, in_axes=(0, None, None, None)))(keys, state, jnp.int32(0), params)
    error = np.asarray(timestep.obs) - np.stack([stepped.x, stepped.theta], axis=1)
    np.testing.assert_allclose(error.std(axis=0), 0.05, rtol=0.08)
    assert abs(np.corrcoef(error.T)[0, 1]) < 0.08, "one draw for each number"
    started, opened = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys, params)
    error = np.asarray(opened.obs) - np.stack([started.x, started.theta], axis=1)
    spread = np.corrcoef(np.stack([error[:, 0], error[:, 1], started.x, started.theta]))
    assert np.abs(spread - np.eye(4)).max() < 0.08, "the noise does not repeat the draw of the state"
    loud = replace(params, noise=jnp.float32(100.0))
    obs = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys, loud)[1].obs
    assert np.asarray(jax.vmap(env.observation_space().contains)(obs)).all()


@pytest.mark.parametrize("make_env", [Pendulum, PositionOnlyPendulum])
def test_pendulum_is_gymnasiums(make_env: Any):
    env = make_env()
    theirs: Any = gymnasium.make("Pendulum-v1").unwrapped
    params, rng = env.default_params(), np.random.default_rng(1)
    step = jax.jit(env.step)
    theirs.reset(seed=0)
    for t in range(200):
        theta, speed = theirs.state
        state = PendulumState(jnp.float32((theta + np.pi) % (2 * np.pi) - np.pi), jnp.float32(speed), jnp.int32(t))
        torque = rng.uniform(-3, 3, 1).astype(np.float32)  # beyond the bounds too: both clip
        torque = np.abs(torque) * np.sign(speed) if t < 100 else torque  # first gather speed, so that its bound is met
        obs, reward, _, _, _ = theirs.step(torque)
        _, timestep = step(jax.random.key(0), state, jnp.asarray(torque, jnp.float32), params)
        np.testing.assert_allclose(timestep.obs, obs[: len(timestep.obs)], rtol=1e-4, atol=2e-4)
        mapped = reward if make_env is Pendulum else (reward + 8.1368022) / 8.1368022 / 200
        assert float(timestep.reward) == pytest.approx(mapped, rel=1e-3, abs=1e-4)
        assert bool(timestep.truncated) == (t == 199) and not timestep.terminated
