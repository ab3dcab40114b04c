"""Point mass against exact optimal control; point maze against a slow twin of its walls."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from control_play import follow, openings, redrawn
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_seq.envs import Env
from jaxrl_seq.envs.control.point_mass import PointMass2D, PointMassState
from jaxrl_seq.envs.control.point_maze import LAYOUTS, PointMaze, PointMazeState


# --- point mass -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(3))
def test_point_mass_expert_is_the_least_squares_solution(seed: int):
    """Without shoves the best 40 actions along an axis solve one linear system; the expert plays them, for any
    params."""
    env, rng = PointMass2D(limit=40), np.random.default_rng(seed)
    params = redrawn(env.default_params(), rng) if seed else env.default_params()
    params = replace(params, gust=jnp.float32(0))
    p = {k: float(v) for k, v in vars(params).items()}
    step = np.array([[1, p["dt"]], [0, 1 - p["dt"] * p["drag"] / p["mass"]]])
    push = np.array([0, p["dt"] * p["force"] / p["mass"]])
    start = np.array([[0.7, -0.5], [0.3, 0.4]])  # position, velocity
    root = np.sqrt([p["position_cost"], p["velocity_cost"]])

    states, timestep = _expert_run(env, params, PointMassState(*jnp.float32(start), jnp.int32(0)), 40)
    cost = 0.0
    for axis in (0, 1):
        powers = [np.linalg.matrix_power(step, k) for k in range(41)]
        response = np.zeros((80, 40))  # of the weighted states 1 .. 40 to the actions 0 .. 39
        for k in range(40):
            for i in range(k + 1):
                response[2 * k : 2 * k + 2, i] = root * (powers[k - i] @ push)
        drift = np.concatenate([root * (power @ start[:, axis]) for power in powers[1:]])
        system = np.concatenate([response, np.sqrt(p["action_cost"]) * np.eye(40)])
        answer = np.concatenate([-drift, np.zeros(40)])
        actions, cost_axis, *_ = np.linalg.lstsq(system, answer, rcond=None)
        assert np.abs(actions).max() < 1
        np.testing.assert_allclose(states[1][:, axis], actions, atol=1e-4)
        cost += float(cost_axis[0])
    assert -timestep.reward.sum() == pytest.approx(cost, rel=1e-4)


@functools.partial(jax.jit, static_argnames=("env", "steps"))
def _expert_episode(env: Env, params: Any, state: Any, steps: int) -> Any:
    def step(state: Any, key: Any) -> Any:
        action = env.expert(key, state, params)
        state, timestep = env.step(key, state, action, params)
        return state, ((state, action), timestep)

    return jax.lax.scan(step, state, jax.random.split(jax.random.key(0), steps))[1]


def _expert_run(env: Env, params: Any, state: Any, steps: int) -> Any:
    """((states, actions), timesteps) of the expert, as NumPy arrays."""
    return jax.device_get(_expert_episode(env, params, state, steps))


def test_point_mass_expert_never_meets_the_bounds():
    """The largest action over every start and every sequence of shoves, in each direction."""
    env = PointMass2D()
    params = env.default_params()
    gains = np.asarray(env._gains(params), np.float64)
    step, push = np.array([[1, 0.1], [0, 0.98]]), np.array([0, 0.3])
    reach = [np.array([1.0, 0.0]), np.array([0.0, 0.5])]  # what the start and each shove have become by now
    largest = []
    for gain in gains:
        largest.append(sum(abs(gain @ x) for x in reach))
        reach = [step @ x - push * (gain @ x) for x in reach] + [np.array([0.0, 0.02])]
    assert 0.5 < max(largest) < 1


# --- point maze -------------------------------------------------------------------------------------------------
@functools.cache
def _blocks(layout: str) -> np.ndarray:
    """Lower left corners (x, y) of the walls, [walls, 2]."""
    rows = LAYOUTS[layout][::-1]
    return np.array([(x, y) for y, row in enumerate(rows) for x, cell in enumerate(row) if cell == "#"])


@functools.partial(jax.jit, static_argnames="env")
def _opened(env: Env, key: Any, params: Any) -> Any:
    return env.reset(key, params)[0]


def slow_roll(layout: str, position: np.ndarray, velocity: np.ndarray, action: np.ndarray) -> Any:
    """A step of the ball: every wall of the map is asked whether the ball's square has entered it."""
    position, velocity = position.copy(), velocity.copy()
    for _ in range(5):
        velocity = np.clip(velocity + 0.02 * (100 * np.clip(action, -1, 1) - velocity) / 4.19, -5, 5)
        for axis in (0, 1):
            position[axis] += 0.02 * velocity[axis]
            gap = position - _blocks(layout)
            slack = np.where(np.arange(2) == axis, 1e-6, 1e-4)  # to touch a wall's side is not to enter it
            entered = ((gap > -0.1 + slack) & (gap < 1.1 - slack)).all(axis=1)
            if entered.any():
                block = _blocks(layout)[entered][0]
                position[axis] = block[axis] - 0.1 if velocity[axis] > 0 else block[axis] + 1.1
                velocity[axis] = 0
    return position, velocity


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["umaze", "medium", "large"]))
def test_the_ball_stops_at_walls(seed: int, layout: str):
    env, rng = PointMaze(layout=layout), np.random.default_rng(seed)
    params = env.default_params()
    state = jax.device_get(_opened(env, jax.random.key(seed), params))
    actions = np.repeat(rng.uniform(-1.5, 1.5, (12, 2)), 5, axis=0).astype(np.float32)
    states, timestep = follow(env, state, actions, params)
    position, velocity = np.asarray(state.position, np.float64), np.asarray(state.velocity, np.float64)
    middle = np.array(env.size) / 2
    for t, action in enumerate(actions):
        position, velocity = slow_roll(layout, position, velocity, np.asarray(action, np.float64))
        # The twin starts each step from our state: a wall that is missed by a rounding error parts the two for good.
        np.testing.assert_allclose(states.position[t], position, atol=1e-4, err_msg=str(t))
        np.testing.assert_allclose(states.velocity[t], velocity, atol=1e-3, err_msg=str(t))
        distance = np.linalg.norm(states.position[t] - states.goal[t])
        np.testing.assert_allclose(timestep.obs[t, :2], states.position[t] - middle, atol=1e-6)
        assert timestep.reward[t] == float(distance <= 0.45) == float(timestep.info["success"][t])
        position, velocity = np.asarray(states.position[t], np.float64), np.asarray(states.velocity[t], np.float64)


def test_a_fast_ball_does_not_cut_into_corners():
    """Long random rides at full force: the ball's square never overlaps a wall."""
    env = PointMaze(layout="large")
    params, rng = env.default_params(), np.random.default_rng(0)
    for seed in range(4):
        actions = np.repeat(rng.choice([-1.0, 0.0, 1.0], (100, 2)), 8, axis=0).astype(np.float32)
        states, _ = follow(env, _opened(env, jax.random.key(seed), params), actions)
        gap = states.position[:, None] - _blocks("large")  # [T, walls, 2]
        assert not ((gap > -0.1 + 1e-4) & (gap < 1.1 - 1e-4)).all(axis=-1).any()
        assert np.abs(states.velocity).max() == 5


def test_point_maze_expert_goes_from_everywhere_to_everywhere():
    env = PointMaze(layout="large", dense=True)
    params = env.default_params()
    cells = np.array(
        [(x + 0.5, y + 0.5) for x in range(12) for y in range(9) if [x, y] not in _blocks("large").tolist()]
    )
    free = {name: "".join(rows).count(".") for name, rows in LAYOUTS.items()}
    assert free == {"open": 15, "umaze": 7, "medium": 26, "large": 46} and len(cells) == 46
    goals, starts = (jnp.float32(np.repeat(cells, 46, 0)), jnp.float32(np.tile(cells, (46, 1))))
    count = len(goals)
    states = PointMazeState(starts, jnp.zeros((count, 2)), goals, jnp.zeros(count, jnp.int32))
    run = jax.vmap(lambda s: _expert_episode(env, params, s, 150), in_axes=0)
    (states, _), timestep = run(states)
    assert timestep.info["success"][:, -1].all()
    distance = np.linalg.norm(states.position - states.goal, axis=-1)
    np.testing.assert_allclose(timestep.reward, np.exp(-distance), atol=1e-5)


def test_point_maze_starts_away_from_its_goal():
    env = PointMaze(layout="medium")
    states, timestep = openings(env, env.default_params())
    start, goal = np.floor(states.position), np.floor(states.goal)
    assert (start != goal).any(axis=1).all() and not timestep.info["success"].all()
    for cells in (start, goal):
        counts = np.unique(cells, axis=0, return_counts=True)[1]
        assert len(counts) == 26 and abs(counts - 4000 / 26).max() < 5 * (4000 / 26) ** 0.5
    for place in (states.position, states.goal):
        assert 0.24 < np.abs(place - np.floor(place) - 0.5).max() <= 0.25 + 1e-5
