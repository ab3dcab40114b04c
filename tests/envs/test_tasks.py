"""Environments with a hidden task: the task decides, an episode can be opened anew, and optima are exact."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_seq.envs import make
from jaxrl_seq.envs.bandits.bandit import expected_maximum
from jaxrl_seq.envs.gridworlds.darkroom import DarkKeyToDoor, DarkRoom, KeyDoorTask
from jaxrl_seq.envs.planning.tabular_mdp import TabularMDP

# Lower-case ids that test_envs checks; here what is particular about tasks.
SPECS = (
    "bernoulli_bandit",
    "dependent_bandit-hard",
    "odd_bandit,share=0.05",
    "gaussian_bandit-3x200",
    "linear_bandit",
    "tabular_mdp",
    "darkroom-small",
    "darkroom,size=4,limit=9,once=true",
    "darkroom,size=3,limit=9,permuted=true,corner=true",
    "dark_key_to_door,size=4,limit=12",
    "point_robot,limit=20",
    "point_robot-dense,limit=20,distance=0.5",
)


@functools.partial(jax.jit, static_argnames=("env", "episodes"))
def expert_returns(env: Any, params: Any, task: Any, key: Any, episodes: int) -> Any:
    """Returns [E] of the expert on one task."""

    def one(key: Any) -> Any:
        reset_key, key = jax.random.split(key)

        def step(state: Any, key: Any) -> Any:
            state, timestep = env.step(key, state, env.expert(key, state, params), params)
            return state, timestep.reward

        state, _ = env.reset_to(reset_key, task, params)
        return jax.lax.scan(step, state, jax.random.split(key, env.horizon))[1].sum()

    return jax.vmap(one)(jax.random.split(key, episodes))


@pytest.mark.parametrize("spec", SPECS)
def test_the_experts_mean_is_the_optimal_return(spec: str):
    env, params = make(spec)
    for number in range(2):
        task = env.sample_task(jax.random.key(number), params)
        returns = np.asarray(expert_returns(env, params, task, jax.random.key(7), 512), np.float64)
        best = float(env.optimal_return(task, params))
        assert returns.mean() == pytest.approx(best, abs=4.5 * returns.std() / 512**0.5 + 1e-4 * (1 + abs(best)))


@pytest.mark.parametrize("spec", [spec for spec in SPECS if not spec.startswith(("point", "tabular"))])
def test_any_optimal_action_is_optimal(spec: str):
    """Choosing at random among them loses nothing, and leaving any out would leave out an expert's choice."""
    env, params = make(spec)

    class Any_(type(env)):
        def expert(self, key: Any, state: Any, params: Any) -> Any:
            chances = jnp.log(self.optimal_actions(state, params).astype(jnp.float32))
            return jax.random.categorical(key, chances).astype(jnp.int32)

    random = Any_(**{field.name: getattr(env, field.name) for field in dataclasses.fields(env)})
    for number in range(2):
        task = env.sample_task(jax.random.key(number), params)
        returns = np.asarray(expert_returns(random, params, task, jax.random.key(7), 512), np.float64)
        best = float(env.optimal_return(task, params))
        assert returns.mean() == pytest.approx(best, abs=4.5 * returns.std() / 512**0.5 + 1e-4 * (1 + abs(best)))


def test_no_shortest_way_is_left_out():
    env = DarkRoom(size=5, limit=9, corner=True)
    state, _ = env.reset_to(jax.random.key(0), jnp.int32(12), ())
    assert env.optimal_actions(state, ()).tolist() == [False, True, True, False, False]
    there = dataclasses.replace(state, cell=jnp.int32(0), task=jnp.int32(0))
    assert env.optimal_actions(there, ()).tolist() == [True, False, False, True, True]  # walls keep one there


@pytest.mark.parametrize("spec", SPECS)
def test_episodes_of_a_task_share_it_and_others_do_not(spec: str):
    env, params = make(spec)
    keys = jax.random.split(jax.random.key(0), 3)
    task = env.sample_task(keys[0], params)
    one, two = (env.reset_to(key, task, params)[0] for key in keys[1:])
    for a, b, c in zip(*(jax.tree.leaves(x) for x in (task, one.task, two.task)), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    tasks = [jax.tree.leaves(env.reset(key, params)[0].task) for key in jax.random.split(jax.random.key(1), 16)]
    assert any((x != y).any() for other in tasks[1:] for x, y in zip(tasks[0], other, strict=True))


# --- rules, slowly ----------------------------------------------------------------------------------------------------
MOVES = {0: (-1, 0), 1: (0, 1), 2: (1, 0), 3: (0, -1), 4: (0, 0)}


def walk(size: int, place: tuple[int, int], move: int) -> tuple[int, int]:
    row, col = place[0] + MOVES[move][0], place[1] + MOVES[move][1]
    return (row, col) if 0 <= row < size and 0 <= col < size else place


@settings(deadline=None, max_examples=40)
@given(goal=st.integers(0, 15), once=st.booleans(), moves=st.lists(st.integers(0, 4), min_size=9, max_size=9))
def test_darkroom_by_hand(goal: int, once: bool, moves: list[int]):
    env = DarkRoom(size=4, limit=9, once=once)
    state, timestep = env.reset_to(jax.random.key(0), jnp.int32(goal), ())
    place, found = (2, 2), False
    for t, move in enumerate(moves, start=1):
        state, timestep = _step(env, state, move)
        place = walk(4, place, move)
        there = place == divmod(goal, 4)
        assert float(timestep.reward) == float(there and not (once and found))
        found |= there
        assert tuple(timestep.obs) == place
        assert bool(timestep.info["success"]) == found and bool(timestep.terminated) == (t == 9)


@functools.partial(jax.jit, static_argnums=0)
def _step(env: Any, state: Any, action: Any) -> Any:
    return env.step(jax.random.key(0), state, jnp.asarray(action, jnp.int32), ())


@settings(deadline=None, max_examples=40)
@given(key_cell=st.integers(0, 8), door=st.integers(0, 8), moves=st.lists(st.integers(0, 4), min_size=12, max_size=12))
def test_key_and_door_by_hand(key_cell: int, door: int, moves: list[int]):
    """Each pays once, and the door not in the step that takes the key (a port pays it at every step)."""
    env = DarkKeyToDoor(size=3, limit=12)
    task = KeyDoorTask(key_cell=jnp.int32(key_cell), door_cell=jnp.int32(door))
    state, _ = env.reset_to(jax.random.key(0), task, ())
    place, has_key, opened = divmod(int(state.cell), 3), False, False
    for move in moves:
        state, timestep = _step(env, state, move)
        place, reward = walk(3, place, move), 0.0
        if has_key and not opened and place == divmod(door, 3):
            reward, opened = 1.0, True
        if not has_key and place == divmod(key_cell, 3):
            reward, has_key = 1.0, True
        assert float(timestep.reward) == reward and bool(timestep.info["success"]) == opened


def test_a_permutation_is_undone_by_the_expert():
    env = DarkRoom(size=3, limit=6, corner=True, permuted=True)
    returns = jax.vmap(lambda task: expert_returns(env, (), task, jax.random.key(0), 1))(env.tasks(()))
    assert returns.shape == (120, 1) and (returns == 3.0).all()


def test_published_anchors():
    """Figures of Laskin et al. 2022 and Lee et al. 2023, as recomputed for them."""
    for spec, random, expert in (
        ("darkroom", 0.247, 16.54),
        ("darkroom-dpt", 1.0, 91.99),
        ("darkroom-small", 0.48, 10.56),
    ):
        reference = make(spec)[0].reference()
        assert reference["random"] == pytest.approx(random, abs=5e-4)
        assert reference["expert"] == pytest.approx(expert, abs=5e-3)
    for spec, best in (
        ("bernoulli_bandit", 83.33),
        ("bernoulli_bandit-10x100", 90.91),
        ("bernoulli_bandit-50x100", 98.04),
    ):
        assert make(spec)[0].reference()["expert"] == pytest.approx(best, abs=5e-3)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 999), limit=st.integers(1, 4))
def test_the_mdps_solution_is_backward_induction(seed: int, limit: int):
    rng = np.random.RandomState(seed)
    chances, means = rng.dirichlet(np.ones(4), (4, 3)), rng.normal(1, 1, (4, 3))
    env = TabularMDP(states=4, actions=3, limit=limit)
    task = env.solve(jnp.asarray(chances, jnp.float32), jnp.asarray(means, jnp.float32))
    value, best = np.zeros(4), []
    for _ in range(limit):
        q = means + chances @ value
        value, best = q.max(1), [q.argmax(1), *best]
    assert float(task.value) == pytest.approx(value[0], abs=1e-5)
    np.testing.assert_array_equal(task.best, best)


def test_the_mdp_moves_by_its_chances():
    env = TabularMDP(states=3, actions=2, limit=1)
    params = env.default_params()
    chances = np.array([[[0.2, 0.5, 0.3], [0.0, 1.0, 0.0]]] * 3)
    task = env.solve(jnp.asarray(chances, jnp.float32), jnp.full((3, 2), 2.0))
    state, _ = env.reset_to(jax.random.key(0), task, params)
    step = jax.jit(jax.vmap(env.step, in_axes=(0, None, None, None)))
    keys = jax.random.split(jax.random.key(1), 20_000)
    for action in range(2):
        after, timestep = step(keys, state, jnp.int32(action), params)
        found = np.bincount(np.asarray(after.state), minlength=3) / len(keys)
        np.testing.assert_allclose(found, chances[0, action], atol=4 * 0.5 / len(keys) ** 0.5)
        assert timestep.reward.mean() == pytest.approx(2.0, abs=0.03) and timestep.reward.std() == pytest.approx(
            1, abs=0.03
        )


@pytest.mark.parametrize("low, high", [([0.0, 0.0], [1.0, 1.0]), ([0.5, 0.0, 0.2], [1.0, 0.5, 0.9])])
def test_expected_maximum(low: list[float], high: list[float]):
    drawn = np.random.RandomState(0).uniform(low, high, (400_000, len(low))).max(1)
    assert expected_maximum(low, high) == pytest.approx(drawn.mean(), abs=4.5 * drawn.std() / 400_000**0.5)


@pytest.mark.parametrize(
    "spec",
    [
        "bernoulli_bandit,arms=1",
        "gaussian_bandit,pulls=0",
        "dependent_bandit,arms=3",
        "dependent_bandit,chance=1.5",
        "linear_bandit,dimension=0",
        "tabular_mdp,states=0",
        "tabular_mdp,actions=200",
        "darkroom,size=1",
        "dark_key_to_door,limit=0",
        "point_robot,limit=0",
    ],
)
def test_bad_sizes_are_refused_in_words(spec: str):
    with pytest.raises(ValueError, match=spec.split(",")[0]):
        make(spec)
