"""Recall tasks against slow, obvious twins, and the figures they claim against enumeration."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from env_rollouts import measured, plain_trajectory
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import checkify
from recall_twins import SKILL, check, follow

from jaxrl_seq.envs import make
from jaxrl_seq.envs.memory.key_to_door import KeyToDoor
from jaxrl_seq.envs.memory.memory_chain import MemoryLen, MemorySize
from jaxrl_seq.envs.memory.tmaze import TMaze, TMazeState


# --- T-maze of great length ---------------------------------------------------------------------------------
def test_tmaze_of_a_million_cells_counts_exactly():
    env, params = make("tmaze-1000000")
    assert env.horizon == 1_000_001

    @jax.jit
    def walk(key: Any) -> Any:
        state, opened = env.reset(key, params)

        def step(carry: Any, _: None) -> Any:
            state, lost, seen = carry
            state, timestep = env.step(key, state, env.expert(key, state, params), params)
            seen = seen + (timestep.obs != 0).astype(jnp.int32)
            return (state, lost + (timestep.reward < 0), seen), (timestep.reward > 0) | timestep.terminated

        carry = (state, jnp.int32(0), (opened.obs != 0).astype(jnp.int32))
        (state, lost, seen), ended = jax.lax.scan(step, carry, None, length=env.horizon)
        return state, lost, seen, ended.sum(), ended[-1], opened.obs

    state, lost, seen, ends, last, first_obs = jax.device_get(walk(jax.random.key(0)))
    assert state.x == 1_000_000 and state.t == 1_000_001 and state.y == state.goal == first_obs[1]
    assert lost == 0 and ends == 1 and last
    assert seen.tolist() == [2, 2], "the junction, then the arm beyond it; the cue, then the arm's row"


@pytest.mark.parametrize("active", [False, True])
def test_tmaze_of_a_million_cells_sees_a_lag_of_one(active: bool):
    """Neighbouring integers stay apart in the clock, the position and the penalty."""
    env = TMaze(1_000_000, active)
    params = env.default_params()
    for t in (999_998, 999_999, 1_000_000):
        for lag in (0, 1):
            at = jnp.int32(t - env.start - lag)
            state = TMazeState(x=at, y=jnp.int32(0), goal=jnp.int32(1), seen=jnp.bool_(True), t=jnp.int32(t))
            later, timestep = env.step(jax.random.key(0), state, jnp.int32(0), params)
            assert later.x == min(at + 1, env.junction) and later.t == t + 1
            if not timestep.terminated:
                assert timestep.reward == np.float32(-lag / 1e6), "exact: nothing was rounded on the way"
            assert env.observation_space().contains(timestep.obs)


@pytest.mark.parametrize(("length", "active"), [(2, False), (3, False), (2, True)])
def test_tmaze_random_return_is_that_of_all_action_sequences(length: int, active: bool):
    start = int(active)
    total = 0.0
    sequences = list(itertools.product(range(4), repeat=length + 1 + 2 * start))
    for actions in sequences:
        x, y = start, 0
        for t, action in enumerate(actions, start=1):
            move = {0: (1, 0), 1: (0, 1), 2: (-1, 0), 3: (0, -1)}[action]
            to = x + move[0], y + move[1]
            if (0 <= to[0] <= length + start and to[1] == 0) or (to[0] == length + start and abs(to[1]) == 1):
                x, y = to
            total += (y == 1) if t == len(actions) else -(x < t - start) / length
    assert TMaze(length, active).reference()["random"] == pytest.approx(total / len(sequences), abs=1e-12)


def test_tmaze_random_return_of_long_corridors():
    """The expected number of steps that are in time: sum of 4^-t, and of 4^-t (2 t^2 + t + 1) with the detour."""
    for length in (100, 10_000, 1_000_000):
        assert TMaze(length).reference()["random"] == pytest.approx(-(length - 1 / 3) / length, abs=1e-12)
        active = TMaze(length, active=True).reference()["random"]
        assert active == pytest.approx(-(length + 2 - 61 / 27) / length, abs=1e-12)


# --- memory chains ------------------------------------------------------------------------------------------
@settings(deadline=None, max_examples=40)
@given(size=st.sampled_from([(1, 1), (2, 10), (5, 3), (10, 1)]), seed=st.integers(0, 999), skill=SKILL)
def test_memory_chain(size: tuple[int, int], seed: int, skill: float):
    length, bits = size
    env = MemorySize(length, bits)
    state, opened, actions, later = follow(env, seed, skill)
    context, query = state.context.tolist(), int(state.query)
    assert set(context) <= {0, 1} and 0 <= query < bits

    pages = [[1 - i / length, 0.0] + [0.0] * bits for i in range(length + 1)]
    pages[0][2:] = [2.0 * b - 1 for b in context]
    pages[length - 1][1] = query
    shown = [pages[0], *pages[:-1], pages[-1]][: length + 2]
    np.testing.assert_allclose(np.concatenate([opened.obs[None], later.obs]), shown[: length + 2], atol=1e-6)
    for t, action in enumerate(actions):
        last = t == length
        right = action == context[query]
        check(later, t, (1 if right else -1) * last, last, last and bool(right))


def test_memory_chain_is_gymnaxs():
    gymnax = pytest.importorskip("gymnax")
    theirs, constants = gymnax.make("MemoryChain-bsuite")
    env, constants = MemoryLen(6), constants.replace(memory_length=6)
    their_step = jax.jit(theirs.step_env)
    key, answers = jax.random.key(0), []
    for seed in range(6):
        state, opened, actions, later = follow(env, seed)
        _, other = theirs.reset_env(key, constants)
        other = other.replace(context=jnp.asarray(state.context, other.context.dtype), query=jnp.asarray(state.query))
        for t, action in enumerate(actions):
            obs, other, reward, done, _ = their_step(key, other, jnp.int32(action), constants)
            np.testing.assert_allclose(later.obs[t], np.ravel(obs), atol=1e-6)
            assert float(later.reward[t]) == float(reward) and bool(later.terminated[t]) == bool(done)
        answers.append(float(later.reward[-1]))
    assert set(answers) == {-1.0, 1.0}


# --- key to door --------------------------------------------------------------------------------------------
ROOMS = (
    ["..#######..", "..#     #..", "..#     #..", "..##   ##..", "..#     #..", "..#     #..", "..#######.."],
    ["###########", *["#         #"] * 5, "###########"],
    ["...........", "...##D##...", "...#   #...", "...#   #...", "...#   #...", "...#####...", "..........."],
)


class SlowKeyToDoor:
    """Rooms drawn in text ('.' is outside), things in dictionaries."""

    def __init__(self, env: KeyToDoor, state: Any):
        self.env, self.t, self.pocket, self.opened = env, 0, False, False
        self.at, self.key = divmod(int(state.cell), 11), divmod(int(state.key_cell), 11)
        spots = [(r, c) for r in range(1, 6) for c in range(1, 10) if (r + c) % 2 == 0 and (r, c) != (5, 5)]
        self.apples = {spot: 0 for spot, ready in zip(spots, state.ready, strict=True) if ready == 0}

    @property
    def room(self) -> int:
        return 0 if self.t < 15 else 1 if self.t < 15 + self.env.delay else 2

    def look(self) -> list[float]:
        flags = []
        for dy, dx in itertools.product(range(-2, 3), repeat=2):
            cell = self.at[0] + dy, self.at[1] + dx
            inside = 0 <= cell[0] < 7 and 0 <= cell[1] < 11
            flags += [
                inside and ROOMS[self.room][cell[0]][cell[1]] == "#",
                self.room == 0 and cell == self.key and not self.pocket,
                self.room == 1 and self.apples.get(cell, 10**6) <= self.t,
                self.room == 2 and cell == (1, 5),
            ]
        return [float(f) for f in flags]

    def act(self, action: int) -> float:
        move = {0: (0, 1), 1: (-1, 0), 2: (0, -1), 3: (1, 0)}[action]
        to, reward, room = (self.at[0] + move[0], self.at[1] + move[1]), 0.0, self.room
        if ROOMS[room][to[0]][to[1]] == " " or (ROOMS[room][to[0]][to[1]] == "D" and self.pocket):
            self.at = to
        if room == 0 and self.at == self.key:
            self.pocket = True
        if room == 1 and self.apples.get(self.at, 10**6) <= self.t:
            reward += self.env.apple_reward
            self.apples[self.at] = self.t + 1 + 21
        if room == 2 and ROOMS[2][self.at[0]][self.at[1]] == "D" and not self.opened:
            reward += self.env.door_reward
            self.opened = True
        self.t += 1
        if self.room != room:
            self.at = (5, 5) if self.room == 1 else (3, 5)
        return reward


@settings(deadline=None, max_examples=40)
@given(
    env=st.sampled_from([KeyToDoor(), KeyToDoor(5, 0, 1.0, 1.0), KeyToDoor(30, 22, 0.5, 2.0), KeyToDoor(0)]),
    seed=st.integers(0, 999),
    skill=SKILL,
)
def test_key_to_door(env: KeyToDoor, seed: int, skill: float):
    state, opened, actions, later = follow(env, seed, skill)
    twin = SlowKeyToDoor(env, state)
    assert len(twin.apples) == env.apples
    assert twin.key[0] in (1, 2) and twin.at[0] in (4, 5) and 3 <= twin.key[1] <= 7 and 3 <= twin.at[1] <= 7
    assert opened.obs.tolist() == twin.look()
    for t, action in enumerate(actions):
        reward = twin.act(int(action))
        assert later.obs[t].tolist() == twin.look()
        check(later, t, reward, t == env.horizon - 1, twin.opened)


def test_key_to_door_draws_every_cell():
    state, _ = jax.jit(jax.vmap(KeyToDoor().reset, in_axes=(0, None)))(jax.random.split(jax.random.key(0), 2000), ())
    for cells in (state.cell, state.key_cell):
        counts = np.bincount(cells)
        assert (counts > 0).sum() == 10 and (counts[counts > 0] > 140).all()
    assert (np.abs((np.asarray(state.ready) == 0).mean(axis=0) - 10 / 22) < 0.06).all()


# --- all of them --------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("spec", ["memory_size", "key_to_door", "mystery_path", "mortar_mayhem", "mortar_mayhem-given"])
def test_no_index_is_out_of_bounds(spec: str):
    """Over whole episodes and beyond, with the experts' actions too."""
    env, params = make(spec)

    def episode(key: Any) -> Any:
        state, timestep = plain_trajectory(env, params, key, env.horizon + 2)
        return timestep, jax.vmap(env.expert, in_axes=(None, 0, None))(key, state, params)

    error, _ = jax.jit(checkify.checkify(episode, errors=checkify.index_checks))(jax.random.key(5))
    error.throw()


@pytest.mark.parametrize("spec", ["memory_len", "key_to_door", "mystery_path", "mortar_mayhem"])
def test_success_is_the_experts(spec: str):
    _, by_policy = measured(spec)
    assert by_policy["expert"].success.all() and not by_policy["random"].success.all()


@pytest.mark.parametrize(
    "spec",
    [
        "memory_len,length=0",
        "memory_size,bits=0",
        "key_to_door,delay=-1",
        "key_to_door,apples=23",
        "key_to_door,apples=-1",
        "key_to_door,door_reward=1e999",
        "mystery_path,size=3",
        "mystery_path,size=12",
        "mystery_path,limit=97",
        "mystery_path,progress=1e999",
        "mortar_mayhem,size=1",
        "mortar_mayhem,size=12",
        "mortar_mayhem,commands=0",
        "mortar_mayhem,show=0",
        "mortar_mayhem,blank=-1",
        "mortar_mayhem,delay=1",
        "mortar_mayhem,blast=0",
    ],
)
def test_bad_sizes_are_refused_in_words(spec: str):
    name, option = spec.split(",")
    with pytest.raises(ValueError, match=f"{name}: {option.split('=')[0]} must be .*, "):
        make(spec)
