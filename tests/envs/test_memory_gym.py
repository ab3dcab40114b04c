"""Memory Gym's tasks against slow, obvious twins, and the figures they claim."""

from __future__ import annotations

import heapq
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recall_twins import check, follow

from jaxrl_seq.envs.memory.mortar_mayhem import MortarMayhem
from jaxrl_seq.envs.memory.mystery_path import MysteryPath, _cheapest_path


# --- mystery path -------------------------------------------------------------------------------------------
def path_of(steps_left: np.ndarray) -> list[tuple[int, int]]:
    """The cells of a path, the origin first; asserts that it is one, and that only neighbours on it touch."""
    cells = sorted([(int(y), int(x)) for y, x in np.argwhere(steps_left >= 0)], key=lambda cell: -steps_left[cell])
    assert [int(steps_left[cell]) for cell in cells] == list(range(len(cells)))[::-1]
    for i, j in itertools.combinations(range(len(cells)), 2):
        touch = abs(cells[i][0] - cells[j][0]) + abs(cells[i][1] - cells[j][1]) == 1
        assert touch == (j == i + 1)
    return cells


@settings(deadline=None, max_examples=60)
@given(
    env=st.sampled_from([MysteryPath(), MysteryPath(5, 50, 0.1)]),
    seed=st.integers(0, 9999),
    skill=st.sampled_from([0.0, 0.8, 0.95, 1.0]),
)
def test_mystery_path(env: MysteryPath, seed: int, skill: float):
    n = env.size
    state, opened, actions, later = follow(env, seed, skill)
    path = path_of(np.asarray(state.task.steps_left))
    ends = sorted([path[0], path[-1]])
    assert (ends[0][0], ends[1][0]) == (0, n - 1) or sorted([ends[0][1], ends[1][1]]) == [0, n - 1]

    def picture(at: tuple[int, int], facing: str, fell: bool) -> list[float]:
        spots = [[float(i == p) for i in range(n)] for place in (at, path[0], path[-1]) for p in place]
        look = [float(facing == f) for f in "NWSE"] + [float(fell)]
        return sum(spots[:2], []) + look + sum(spots[2:], [])

    at, facing, fell, visited = path[0], "N", False, {path[0], path[-1]}
    assert opened.obs.tolist() == picture(at, facing, fell)
    for t, action in enumerate(actions):
        if fell:
            at = path[0]
        elif action in (1, 2):
            facing = "NWSE"[("NWSE".index(facing) + (1 if action == 1 else 3)) % 4]
        elif action == 3:
            to = at[0] + {"N": -1, "S": 1}.get(facing, 0), at[1] + {"W": -1, "E": 1}.get(facing, 0)
            at = to if 0 <= to[0] < n and 0 <= to[1] < n else at
        fell = at not in path
        won = at == path[-1]
        reward = won + (env.progress if not fell and at not in visited else 0.0)
        visited.add(at)
        assert later.obs[t].tolist() == picture(at, facing, fell)
        check(later, t, reward, won or t == env.horizon - 1, won)
        if won:
            break
    assert won or skill < 1


def test_mystery_path_is_the_cheapest():
    n, rng = 7, np.random.default_rng(0)
    search = jax.jit(_cheapest_path)
    for _ in range(30):
        costs = rng.uniform(1, 8, (n, n)).astype(np.float32)
        costs[rng.random((n, n)) < 0.3] = 1e3
        start, end = (0, int(rng.integers(n))), (n - 1, int(rng.integers(n)))
        cheapest, queue = {}, [(0.0, start)]
        while queue:
            cost, cell = heapq.heappop(queue)
            if cell in cheapest:
                continue
            cheapest[cell] = cost
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                to = cell[0] + dy, cell[1] + dx
                if 0 <= to[0] < n and 0 <= to[1] < n:
                    heapq.heappush(queue, (cost + float(costs[to]), to))
        path = path_of(np.asarray(search(jnp.asarray(costs), jnp.array(start), jnp.array(end))))
        assert path[0] == start and path[-1] == end
        assert sum(float(costs[c]) for c in path[1:]) == pytest.approx(cheapest[end], rel=1e-5)


@pytest.mark.parametrize("size", [4, 7, 11])
def test_mystery_path_walls_leave_a_way(size: int):
    env = MysteryPath(size, limit=2 * size**2)

    def one(key: Any) -> Any:
        ends, walls_key, _ = jax.random.split(key, 3)
        origin, goal = env._ends(ends)
        return env._walls(walls_key, origin, goal), env.sample_task(key, ())

    walls, tasks = jax.device_get(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 400)))
    paths = tasks.steps_left >= 0
    assert not (walls & paths).any()
    border = np.ones((size, size), bool)
    border[1:-1, 1:-1] = False
    assert set((walls & border).sum(axis=(1, 2)).tolist()) <= set(range(9))
    assert not (walls[:, -2, 1:-1] | walls[:, 1:-1, -2]).any()
    inner = walls[:, 1:-2, 1:-2]
    assert abs(inner.mean() - 0.33) < 4 * (0.33 * 0.67 / inner.size) ** 0.5
    sides = np.stack([tasks.origin[:, 0] == 0, tasks.origin[:, 0] == size - 1, tasks.origin[:, 1] == 0,
                      tasks.origin[:, 1] == size - 1])  # fmt: skip
    assert (sides.mean(axis=1) > 0.2).all()


def test_mystery_path_pays_its_optimum():
    """The expert earns `optimal_return` of each task, and that is what the mean of the paths says."""
    env = MysteryPath(progress=0.1)

    def one(key: Any) -> Any:
        task = env.sample_task(key, ())
        state, _ = env.reset_to(key, task, ())

        def step(carry: Any, _: None) -> Any:
            state, total, live = carry
            state, timestep = env.step(key, state, env.expert(key, state, ()), ())
            return (state, total + live * timestep.reward, live & ~timestep.done), None

        carry = (state, jnp.float32(0), jnp.bool_(True))
        return jax.lax.scan(step, carry, None, length=env.horizon)[0][1], env.optimal_return(task, ())

    earned, optimal = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 500))
    np.testing.assert_allclose(earned, optimal, rtol=1e-5)


# --- mortar mayhem ------------------------------------------------------------------------------------------
MOVES = {0: (0, 1), 1: (1, 0), 2: (0, -1), 3: (-1, 0), 4: (0, 0)}


class SlowMortarMayhem:
    """A machine with counters: a show to be watched, then a fuse that burns down and an explosion that lasts."""

    def __init__(self, env: MortarMayhem, state: Any):
        self.env, self.list = env, state.commands.tolist()
        self.at, self.facing = (int(state.row), int(state.col)), 0
        self.target, self.carried_out = self.next_target(self.at, self.list[0]), 0
        self.frames: list[int | None] = []
        if not env.given:
            for command in self.list:
                self.frames += [command] * env.show + [None] * env.blank
        self.shown = self.frames.pop(0) if self.frames else None
        self.fuse, self.burning = env.delay + 1, 0
        self.over = False

    def next_target(self, at: tuple[int, int], command: int) -> tuple[int, int]:
        to = at[0] + MOVES[command][0], at[1] + MOVES[command][1]
        assert all(0 <= x < self.env.size for x in to), "commands stay on the board"
        return to

    def look(self) -> list[float]:
        size, n = self.env.size, self.env.commands
        one_hot = lambda i, k: [float(i == j) for j in range(k)]  # noqa: E731
        out = one_hot(self.at[0], size) + one_hot(self.at[1], size) + one_hot(self.facing, 4)
        out.append(float(self.burning > 0))
        if not self.env.given:
            return out + one_hot(self.shown, 5)
        rest = self.list[self.carried_out :]
        out += one_hot((self.fuse if self.fuse else self.env.delay + self.burning) - 1, self.env.delay + self.env.blast)
        return out + sum([one_hot(c, 5) for c in rest], []) + [0.0] * 5 * (n - len(rest))

    def act(self, action: int) -> float:
        if self.frames:
            self.shown = self.frames.pop(0)
            return 0.0
        self.shown = None
        if action in (1, 2):
            self.facing = (self.facing + (1 if action == 1 else -1)) % 4
        if action == 3:
            dy, dx = ((-1, 0), (0, -1), (1, 0), (0, 1))[self.facing]
            to = self.at[0] + dy, self.at[1] + dx
            self.at = to if all(0 <= x < self.env.size for x in to) else self.at
        reward = 0.0
        if self.burning:
            self.burning -= 1
            if not self.burning:
                self.fuse = self.env.delay
                self.target = self.next_target(self.target, self.list[self.carried_out])
            else:
                self.over = self.at != self.target
        else:
            self.fuse -= 1
            if not self.fuse:
                self.burning = self.env.blast
                self.carried_out += 1
                self.over = self.at != self.target or self.carried_out == self.env.commands
                reward = float(self.at == self.target) / self.env.commands
        return reward


@settings(deadline=None, max_examples=60)
@given(
    env=st.sampled_from(
        [MortarMayhem(), MortarMayhem(given=True), MortarMayhem(3, 4, 1, 0, 2, 1), MortarMayhem(2, 3, 2, 2, 3, 4, True)]
    ),
    seed=st.integers(0, 9999),
    skill=st.sampled_from([0.0, 0.9, 0.98, 1.0]),
)
def test_mortar_mayhem(env: MortarMayhem, seed: int, skill: float):
    state, opened, actions, later = follow(env, seed, skill)
    twin = SlowMortarMayhem(env, state)
    assert opened.obs.tolist() == twin.look()
    for t, action in enumerate(actions):
        reward = twin.act(int(action))
        success = twin.over and twin.at == twin.target and twin.carried_out == env.commands
        check(later, t, reward, twin.over, success)
        if twin.over:
            break
        assert later.obs[t].tolist() == twin.look()
    assert twin.over, "the horizon is the longest episode"
    assert success or skill < 1
    assert not success or t == env.horizon - 1


def test_mortar_mayhem_lasts_as_long_as_said():
    assert MortarMayhem().horizon == 118 and MortarMayhem(given=True).horizon == 79


def test_mortar_mayhem_failing_the_last_command_is_no_success():
    env = MortarMayhem(commands=1)
    outcomes = set()
    for seed in range(12):
        state, _, _, later = follow(env, seed, actions=np.zeros(env.horizon, np.int32))
        stays = int(state.commands[0]) == 4
        check(later, env.horizon - 1, float(stays), True, stays)
        outcomes.add(stays)
    assert outcomes == {True, False}


def test_mortar_mayhem_commands_are_uniform_among_the_legal_ones():
    env = MortarMayhem(size=3, commands=1)
    state, _ = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(jax.random.split(jax.random.key(0), 9000), ())
    counts = np.zeros((9, 5))
    np.add.at(counts, (np.asarray(state.row * 3 + state.col), np.asarray(state.commands[:, 0], np.int32)), 1)
    for cell in range(9):
        row, col = divmod(cell, 3)
        legal = [0 <= row + dy < 3 and 0 <= col + dx < 3 for dy, dx in MOVES.values()]
        share = counts[cell] / counts[cell].sum()
        assert 850 < counts[cell].sum() < 1150
        np.testing.assert_allclose(share, np.array(legal) / sum(legal), atol=0.07)


def test_mortar_mayhem_given_needs_no_memory():
    """A policy of the present observation alone: turn early in the countdown, walk at its end."""
    env = MortarMayhem(given=True)

    def policy(obs: Any) -> Any:
        facing = jnp.argmax(obs[10:14])
        until, command = jnp.argmax(obs[15:23]) + 1, jnp.argmax(obs[23:28])
        want = jnp.array([3, 2, 1, 0, 0])[command]
        turn = jnp.where(facing == want, 0, jnp.where((want - facing) % 4 == 3, 2, 1))
        return jnp.where(command == 4, 0, jnp.where(until == 1, 3, jnp.where(until <= 7, turn, 0))).astype(jnp.int32)

    def one(key: Any) -> Any:
        state, opened = env.reset(key, ())

        def step(carry: Any, _: None) -> Any:
            state, obs, total, live = carry
            state, timestep = env.step(key, state, policy(obs), ())
            return (state, timestep.obs, total + live * timestep.reward, live & ~timestep.done), None

        carry = (state, opened.obs, jnp.float32(0), jnp.bool_(True))
        return jax.lax.scan(step, carry, None, length=env.horizon)[0][2]

    returns = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 200))
    np.testing.assert_allclose(returns, 1.0, rtol=1e-5)
    assert env.reference()["reactive"] == 1.0 and "reactive" not in MortarMayhem().reference()
