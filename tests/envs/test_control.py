"""Classic control against gymnasium, and the contract where the generic tests do not name these environments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from control_play import follow, step_all
from env_rollouts import assert_same, plain_trajectory
from jax.experimental import checkify

from jaxrl_seq.envs import make
from jaxrl_seq.envs.control.acrobot import Acrobot, AcrobotState
from jaxrl_seq.envs.control.mountain_car import MountainCar, MountainCarContinuous, MountainCarState


# --- against gymnasium ----------------------------------------------------------------------------------------
def theirs(name: str, starts: list[list[float]], choose: Callable[[Any, int], Any]) -> list[tuple[Any, ...]]:
    """(state, action, obs, reward, terminated) of gymnasium from given states, up to 250 steps each."""
    env: Any = gymnasium.make(name).unwrapped
    rows = []
    for start in starts:
        env.reset(seed=0)
        env.state = np.array(start)
        for t in range(250):
            state = np.array(env.state, np.float64)
            action = choose(state, t)
            obs, reward, over, _, _ = env.step(action)
            rows.append((state, action, obs, reward, over))
            if over:
                break
    return rows


@pytest.mark.parametrize("make_env", [MountainCar, MountainCarContinuous])
def test_mountain_car_is_gymnasiums(make_env: Any):
    env, rng = make_env(), np.random.default_rng(0)
    continuous = make_env is MountainCarContinuous

    def choose(state: Any, t: int) -> Any:
        # Random for a while, then along the speed, which leads to both ends.
        side = rng.uniform(-1, 1) if t < 60 else np.where(state[1] < 0, -1.0, 1.0) * rng.uniform(0.7, 1)
        return np.array([side], np.float32) if continuous else int(np.round(side)) + 1

    # The wall, the speed limit and the goal, each a step away, and ordinary starts.
    starts = [[-1.19, -0.05], [-0.55, 0.07], [-0.5, -0.07], [0.44, 0.03], [0.49, 0.02], [0.59, 0.07]]
    starts += [[x, 0.0] for x in (-0.6, -0.5236, -0.45, -0.4)]
    rows = theirs("MountainCarContinuous-v0" if continuous else "MountainCar-v0", starts, choose)
    states = [MountainCarState(jnp.float32(s[0]), jnp.float32(s[1]), jnp.int32(0)) for s, *_ in rows]
    _, timestep = step_all(env, states, [row[1] for row in rows])
    np.testing.assert_allclose(timestep.obs, [row[2] for row in rows], atol=2e-6)
    np.testing.assert_allclose(timestep.reward, [row[3] for row in rows], atol=1e-5)
    over = np.array([row[4] for row in rows])
    np.testing.assert_array_equal(timestep.terminated, over)
    np.testing.assert_array_equal(timestep.info["success"], over)
    speeds, places = np.array([row[2] for row in rows]).T[::-1]
    assert over.sum() > 6 and np.isclose(places, -1.2).any() and np.isclose(np.abs(speeds), 0.07).any()


def _acrobot_rows(**constants: Any) -> tuple[list[Any], Any, list[tuple[Any, ...]]]:
    original: Any = gymnasium.make("Acrobot-v1").unwrapped
    before = {name: getattr(type(original), name) for name in constants}
    rng = np.random.default_rng(1)
    try:
        for name, value in constants.items():
            setattr(type(original), name, value)
        pump = lambda s, t: int(rng.integers(3)) if t < 40 else 2 * int(s[3] >= 0)  # noqa: E731
        starts = [*rng.uniform(-0.1, 0.1, (3, 4)).tolist(), [1.0, -2.0, 12.5, -28.0], [-3.0, 3.0, -12.0, 28.0]]
        rows = theirs("Acrobot-v1", starts, pump)
    finally:
        for name, value in before.items():
            setattr(type(original), name, value)
    rows = [r for r in rows if np.abs(r[0][3]) < 20 or np.abs(r[0][2]) > 11]  # chaos in between is not a check
    states = [AcrobotState(jnp.float32(s[:2]), jnp.float32(s[2:]), jnp.int32(0)) for s, *_ in rows]
    return states, [r[1] for r in rows], rows


def test_acrobot_is_gymnasiums():
    states, actions, rows = _acrobot_rows()
    _, timestep = step_all(Acrobot(), states, actions)
    np.testing.assert_allclose(timestep.obs, [row[2] for row in rows], rtol=2e-3, atol=2e-3)
    ordinary = np.array([np.abs(row[0][2:]).max() < 6 for row in rows])
    np.testing.assert_allclose(timestep.obs[ordinary], np.array([row[2] for row in rows])[ordinary], atol=1e-4)
    np.testing.assert_array_equal(timestep.terminated, [row[4] for row in rows])
    np.testing.assert_array_equal(timestep.reward, [row[3] for row in rows])
    assert timestep.terminated.sum() >= 2 and ordinary.sum() > 100
    assert np.isclose(np.abs(timestep.obs[:, 5]), 9 * np.pi).any(), "the speed's bound is met"


def test_acrobot_follows_every_constant():
    """Also with other masses, lengths and so on; gymnasium's gravity is written into its equations."""
    states, actions, rows = _acrobot_rows(
        LINK_MASS_1=1.3, LINK_MASS_2=0.7, LINK_LENGTH_1=1.2, LINK_COM_POS_1=0.4, LINK_COM_POS_2=0.6, LINK_MOI=0.8,
        AVAIL_TORQUE=[-2.0, 0.0, 2.0], dt=0.1,
    )  # fmt: skip
    params = replace(
        Acrobot().default_params(),
        masses=jnp.float32([1.3, 0.7]),
        length=jnp.float32(1.2),
        centres=jnp.float32([0.4, 0.6]),
        moment=jnp.float32(0.8),
        torque=jnp.float32(2.0),
        dt=jnp.float32(0.1),
    )
    _, timestep = step_all(Acrobot(), states, actions, params)
    np.testing.assert_allclose(timestep.obs, [row[2] for row in rows], rtol=2e-3, atol=2e-3)


# --- contract ---------------------------------------------------------------------------------------------------
MINE = [
    "mountain_car", "mountain_car_continuous", "acrobot", "cartpole_swing_up", "reacher", "swimmer", "point_mass",
    "point_maze",
]  # fmt: skip


@pytest.mark.parametrize("name", MINE)
def test_time_cuts_and_does_not_end(name: str):
    env, params = make(name) if name == "point_maze" else make(f"{name},limit=3")
    state, _ = env.reset(jax.random.key(0), params)
    state = replace(state, t=jnp.int32(env.horizon - 2))
    action = jnp.zeros_like(env.action_space().sample(jax.random.key(0)))
    flags = follow(env, state, jnp.stack([action] * 2), params)[1]
    assert flags.truncated.tolist() == [False, True] and not flags.terminated.any()


@pytest.mark.parametrize("name", ["point_mass", "point_maze"])
def test_no_index_is_out_of_bounds(name: str):
    """Over whole episodes, their last step included, and experts' actions too."""
    env, params = make(name)

    def episode(key: Any) -> Any:
        state, timestep = plain_trajectory(env, params, key, env.horizon)
        return timestep, jax.vmap(env.expert, in_axes=(None, 0, None))(key, state, params)

    error, _ = jax.jit(checkify.checkify(episode, errors=checkify.index_checks))(jax.random.key(5))
    error.throw()


@pytest.mark.parametrize("name", ["acrobot", "reacher"])
def test_compiled_and_plain_python_agree(name: str):
    env, params = make(name)
    action = env.action_space().sample(jax.random.key(4))

    def two(key: Any) -> Any:
        state, opened = env.reset(key, params)
        return opened, env.step(key, state, action, params)

    with jax.disable_jit():
        plain = two(jax.random.key(5))
    assert_same(jax.jit(two)(jax.random.key(5)), plain, atol=1e-5, rtol=1e-5)


BAD = [*(f"{name},limit=0" for name in MINE[:-1]), "swimmer,links=1", "point_maze,layout=big"]


@pytest.mark.parametrize("spec", BAD)
def test_bad_sizes_are_refused_in_words(spec: str):
    with pytest.raises(ValueError, match=spec.split(",")[0] + ": "):
        make(spec)
