"""Cliff walk against gymnasium's and Bellman's equation; the safe grid against a plain search for its front."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from env_follow import follow
from hypothesis import given, settings
from hypothesis import strategies as st
from text_walk import ACTIONS, TextWalk, search

from jaxrl_seq.envs.gridworlds.cliff_walk import CliffWalk, _best_actions, _model
from jaxrl_seq.envs.gridworlds.grid import WalkState
from jaxrl_seq.envs.gridworlds.safe_grid import SafeGrid

STAIRS = [".....", ".x...", ".xx..", "SxxxG"]
CLIFF = ["............"] * 3 + ["SCCCCCCCCCCG"]


# --- cliff --------------------------------------------------------------------------------------------------
def test_cliff_walk_is_gymnasiums():
    """The same cell, reward and end after the same actions, over random walks and the shortest way."""
    theirs: Any = gymnasium.make("CliffWalking-v1").unwrapped
    env, rng = CliffWalk(limit=400), np.random.default_rng(0)
    shortest = [0] + [1] * 11 + [2]
    falls = ends = 0
    for walk in (rng.integers(0, 4, 400), rng.choice(4, 400, p=[0.4, 0.3, 0.2, 0.1]), np.resize(shortest, 400)):
        (state, opened), (_, later) = follow(env, 0, walk)
        assert theirs.reset()[0] == state.cell == opened.obs.argmax() == 36
        for t, action in enumerate(walk):
            cell, reward, over, _, _ = theirs.step(int(action))
            assert (later.obs[t] == np.eye(48)[cell]).all() and later.reward[t] == reward
            assert bool(later.terminated[t]) == over == bool(later.info["success"][t])
            falls, ends = falls + (reward == -100), ends + over
            if over:
                break
    assert falls > 10 and ends == 2


@pytest.mark.parametrize("slippery", [False, True])
def test_cliff_walk_has_gymnasiums_transition_table(slippery: bool):
    theirs: Any = gymnasium.make("CliffWalking-v1", is_slippery=slippery).unwrapped
    chances, rewards, ends = _model(CliffWalk(slippery=slippery))
    for cell in range(48):
        for action in range(4):
            expected, mean = np.zeros(48), 0.0
            for chance, there, reward, over in theirs.P[cell][action]:
                expected[there] += chance
                mean += chance * reward
                assert over == ends[there]
            np.testing.assert_allclose(chances[cell, action], expected, atol=1e-12)
            assert rewards[cell, action] == pytest.approx(mean)


def test_cliff_walk_slips_as_its_table_says():
    env = CliffWalk(slippery=True)
    chances, rewards, _ = _model(env)
    step = jax.jit(jax.vmap(env.step, in_axes=(0, None, None, None)))
    for cell, action in ((36, 0), (30, 1), (0, 3)):
        keys = jax.random.split(jax.random.key(cell), 3000)
        state, timestep = step(keys, WalkState(jnp.int32(cell), jnp.int32(0)), jnp.int32(action), env.default_params())
        seen = np.bincount(np.asarray(state.cell), minlength=48) / 3000
        np.testing.assert_allclose(seen, chances[cell, action], atol=0.04)
        assert float(timestep.reward.mean()) == pytest.approx(rewards[cell, action], abs=4 * 47 / 3000**0.5)


def test_cliff_walk_best_returns():
    env = CliffWalk()
    assert env.reference()["expert"] == env.reference()["reactive"] == -13.0
    assert CliffWalk(height=2, width=5).reference()["expert"] == -6.0
    assert CliffWalk(limit=7).reference()["expert"] == -7.0, "cut on the way"
    assert search(TextWalk(CLIFF, "S"), "G", allowed=".SG") == 13
    # On slippery ground the policy solves Bellman's equation: it equals the best reply to its own values.
    slippery = CliffWalk(slippery=True)
    chances, rewards, ends = _model(slippery)
    policy = np.eye(4)[_best_actions(slippery)]
    step = np.einsum("na,nam->nm", policy, chances) * ~ends
    values = np.linalg.solve(np.eye(48) - step, (policy * rewards).sum(axis=1))
    replies = rewards + chances @ (values * ~ends)
    np.testing.assert_allclose(replies.max(axis=1), values, atol=1e-5)
    assert "reactive" not in slippery.reference()
    long = CliffWalk(slippery=True, limit=3000).reference()["expert"]
    assert long == pytest.approx(values[36], abs=1e-3)


# --- safety -------------------------------------------------------------------------------------------------
@settings(deadline=None, max_examples=40)
@given(actions=ACTIONS, eager=st.booleans(), cost=st.sampled_from([1.0, 0.25]))
def test_safe_grid(actions: list[int], eager: bool, cost: float):
    env = SafeGrid(limit=10, hazards=3)
    assert [row[1:-1] for row in env.map.rows[1:-1]] == STAIRS
    actions[:3] = [1, 1, 1] if eager else actions[:3]
    walk = TextWalk(STAIRS, "S")
    (_, opened), (_, later) = follow(env, 0, actions, replace(env.default_params(), cost=jnp.float32(cost)))
    assert (opened.obs == walk.look()).all() and opened.cost.tolist() == [0.0] and opened.cost.dtype == np.float32
    for t, action in enumerate(actions):
        letter = walk.walk(action)
        assert (later.obs[t] == walk.look()).all() and later.reward[t] == -1
        assert later.cost[t].tolist() == [cost if letter == "x" else 0.0] and later.cost.dtype == np.float32
        assert bool(later.terminated[t]) == bool(later.info["success"][t]) == (letter == "G")
        assert bool(later.truncated[t]) == (t + 1 >= 10 and letter != "G")
        if later.terminated[t] or later.truncated[t]:
            break


def plain_front(drawing: list[str]) -> dict[int, int]:
    """Fewest steps to G by cost limit: breadth-first search over (place, cost so far)."""
    walk = TextWalk(drawing, "S")
    first, queue = {(walk.at, 0)}, deque([(walk.at, 0, 0)])
    best: dict[int, int] = {}
    while queue:
        at, cost, steps = queue.popleft()
        if drawing[at[0]][at[1]] == "G":
            if all(limit > cost or n > steps for limit, n in best.items()):
                best[cost] = steps
            continue
        for action in range(4):
            other = TextWalk(drawing, at)
            paid = cost + (other.walk(action) == "x")
            if (other.at, paid) not in first and paid <= 8:
                first.add((other.at, paid))
                queue.append((other.at, paid, steps + 1))
    return {cost: n for cost, n in best.items() if not any(c < cost and m <= n for c, m in best.items())}


@pytest.mark.parametrize("hazards", [1, 3, 5])
def test_safe_grid_front_is_exact_and_walked(hazards: int):
    env = SafeGrid(hazards=hazards)
    drawing = [row[1:-1] for row in env.map.rows[1:-1]]
    front = env.front()
    assert {limit: -value for limit, value in front} == plain_front(drawing)
    assert front == [(limit, -float(hazards + 1 + 2 * (hazards - limit))) for limit in range(hazards + 1)]
    params, guide = env.default_params(), jax.jit(env.guide)
    for limit, best in front:
        state, timestep = env.reset(jax.random.key(0), params)
        total, left = 0.0, limit
        while not bool(timestep.done):
            state, timestep = env.step(jax.random.key(0), state, guide(state, left), params)
            assert timestep.cost is not None
            total, left = total + float(timestep.reward), left - int(timestep.cost[0])
        assert (total, left) == (best, 0) and bool(timestep.terminated)


def test_safe_grid_guide_leaves_hazards_by_the_cheapest_way():
    """Over budget from the start: in the midst of hazards, with nothing left to spend, it still gets out and home."""
    env = SafeGrid(hazards=5)
    middle = next(i for i, cell in enumerate(env.map.cells.tolist()) if cell == [6, 4])  # the third of five hazards
    state, spent = WalkState(jnp.int32(middle), jnp.int32(0)), 0
    for _ in range(30):
        state, timestep = env.step(jax.random.key(0), state, env.guide(state, -spent), env.default_params())
        assert timestep.cost is not None
        spent += int(timestep.cost[0])
        if bool(timestep.terminated):
            break
    assert bool(timestep.terminated) and spent == 2
