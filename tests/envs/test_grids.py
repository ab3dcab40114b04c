"""Grid worlds, a graph and a gamble against slow, obvious twins, gymnasium's cliff, plain searches and arithmetic."""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import replace
from fractions import Fraction
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from env_rollouts import plain_trajectory
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import checkify

from jaxrl_seq.envs import Env, make
from jaxrl_seq.envs.bandits.gamble import Gamble
from jaxrl_seq.envs.core.protocol import stacked_params
from jaxrl_seq.envs.gridworlds.cliff_walk import CliffWalk, _best_actions, _model
from jaxrl_seq.envs.gridworlds.cross_roads import CrossRoads
from jaxrl_seq.envs.gridworlds.grid import GridMap, WalkState, clock_bar, mean_return, tiles, token
from jaxrl_seq.envs.gridworlds.grid_stitch import Corridors, GridStitch
from jaxrl_seq.envs.gridworlds.safe_grid import SafeGrid
from jaxrl_seq.envs.planning.graph_walk import GraphWalk

WAYS = {0: (-1, 0), 1: (0, 1), 2: (1, 0), 3: (0, -1), 4: (0, 0)}
IDS = ["graph_walk", "gamble", "grid_stitch", "cross_roads", "cliff_walk", "safe_grid"]


@functools.partial(jax.jit, static_argnames="env")
def _follow(env: Env, params: Any, key: Any, actions: Any) -> Any:
    reset_key, key = jax.random.split(key)
    opened = env.reset(reset_key, params)

    def step(state: Any, turn: Any) -> Any:
        out = env.step(turn[1], state, turn[0], params)
        return out[0], out

    return opened, jax.lax.scan(step, opened[0], (actions, jax.random.split(key, len(actions))))[1]


def follow(env: Env, seed: int, actions: Any, params: Any = None) -> Any:
    """((state, timestep) of the reset, (states, timesteps) after each action) as NumPy arrays."""
    params = env.default_params() if params is None else params
    return jax.device_get(_follow(env, params, jax.random.key(seed), jnp.asarray(actions, jnp.int32)))


class TextWalk:
    """Walks on the characters of a drawing."""

    def __init__(self, drawing: list[str], at: str | tuple[int, int]):
        self.drawing = drawing
        self.at = self.find(at) if isinstance(at, str) else at

    def find(self, letter: str) -> tuple[int, int]:
        return next((y, row.index(letter)) for y, row in enumerate(self.drawing) if letter in row)

    def walk(self, action: int) -> str:
        """Take a step; the character one stands on then."""
        y, x = self.at[0] + WAYS[action][0], self.at[1] + WAYS[action][1]
        if 0 <= y < len(self.drawing) and 0 <= x < len(self.drawing[0]) and self.drawing[y][x] != "#":
            self.at = y, x
        return self.drawing[self.at[0]][self.at[1]]

    def look(self) -> np.ndarray:
        cells = [(y, x) for y, row in enumerate(self.drawing) for x, letter in enumerate(row) if letter != "#"]
        return np.array([cell == self.at for cell in cells], np.float32)


def search(walk: TextWalk, goal: str, allowed: str | None = None) -> int | None:
    """Steps of a shortest way, by breadth-first search over places."""
    seen, queue = {walk.at}, deque([(walk.at, 0)])
    while queue:
        at, steps = queue.popleft()
        if walk.drawing[at[0]][at[1]] == goal:
            return steps
        for action in range(4):
            other = TextWalk(walk.drawing, at)
            letter = other.walk(action)
            if other.at not in seen and (allowed is None or letter in allowed):
                seen.add(other.at)
                queue.append((other.at, steps + 1))
    return None


CROSSING = ["##G##", "##.##", "A.M.X", "##.##", "##B##"]
CORRIDORS = ["T.##.D", "#....#", "S.##.G"]
STAIRS = [".....", ".x...", ".xx..", "SxxxG"]
CLIFF = ["............"] * 3 + ["SCCCCCCCCCCG"]
ACTIONS = st.lists(st.integers(0, 3), min_size=12, max_size=12)


# --- maps ---------------------------------------------------------------------------------------------------
@settings(deadline=None, max_examples=60)
@given(
    picks=st.lists(st.lists(st.sampled_from("##...G"), min_size=4, max_size=4), min_size=3, max_size=3),
    actions=st.lists(st.integers(0, 4), min_size=8, max_size=8),
)
def test_maps_move_and_measure_as_drawn(picks: list[list[str]], actions: list[int]):
    picks[1][2] = "S"
    drawing = ["".join(row) for row in picks]
    grid = GridMap("\n".join(drawing))
    walk, cell = TextWalk(drawing, "S"), grid.index("S")
    assert grid.letters == "".join(drawing).replace("#", "") and (grid.height, grid.width) == (3, 4)
    for action in actions:
        letter, cell = walk.walk(action), int(grid.moves[cell, action])
        assert tuple(grid.cells[cell]) == walk.at and grid.letters[cell] == letter
        assert (walk.look() == np.eye(len(grid.cells))[cell]).all()
        text = grid.text_with(cell).split("\n")
        assert [(y, row.index("@")) for y, row in enumerate(text) if "@" in row] == [walk.at]
    for goal, place in enumerate(grid.cells.tolist()):
        marked = [row.replace("G", ".") for row in drawing]
        marked[place[0]] = marked[place[0]][: place[1]] + "Z" + marked[place[0]][place[1] + 1 :]
        steps = search(TextWalk(marked, walk.at), "Z")
        assert grid.distances[goal, cell] == (len(grid.cells) if steps is None else steps)
        if steps:  # the route is a way of that length
            here = cell
            for _ in range(steps):
                here = grid.moves[here, grid.routes[goal, here]]
            assert here == goal


def test_ragged_maps_are_walled():
    grid = GridMap("\n..\n...\n")
    assert grid.rows == ("..#", "...") and len(grid.cells) == 5 and grid.moves.dtype == np.int32


def test_tiles_tokens_and_clocks_are_where_they_should_be():
    colors = np.full((2, 3, 3), 200, np.uint8)
    colors[1, 2] = (10, 20, 30)
    image = np.asarray(clock_bar(token(tiles(colors), 0, 1, (1, 2, 3)), jnp.float32(0.5)))
    assert image.shape == (36, 48, 3) and image.dtype == np.uint8
    assert (image[7, 23] == (1, 2, 3)).all() and (image[23, 40] == (10, 20, 30)).all() and (image[5, 5] == 200).all()
    assert (image[34, 0] == image[34, 23]).all() and (image[34, 24] == image[34, 47]).all()
    assert (image[34, 23] != image[34, 24]).any()


# --- stitching ----------------------------------------------------------------------------------------------
@settings(deadline=None, max_examples=60)
@given(
    world=st.sampled_from([(CrossRoads(limit=9, arm=2), CROSSING), (GridStitch(limit=9, arm=2, overlap=2), CORRIDORS)]),
    place=st.integers(0, 99),
    actions=ACTIONS,
)
def test_corridors(world: tuple[Corridors, list[str]], place: int, actions: list[int]):
    env, drawing = world
    assert [row.strip("#") for row in env.map.rows[1:-1]] == [row.strip("#") for row in drawing]
    walk = TextWalk(drawing, env.opens)
    params = env.default_params()
    if place < 90:
        cells = [(y, x) for y, row in enumerate(drawing) for x, letter in enumerate(row) if letter != "#"]
        walk.at = cells[place % len(cells)]
        params = replace(params, start=jnp.int32(place % len(cells)))
    (_, opened), (_, later) = follow(env, 0, actions, params)
    assert (opened.obs == walk.look()).all() and opened.first and not opened.info["success"]
    for t, action in enumerate(actions):
        letter = walk.walk(action)
        assert (later.obs[t] == walk.look()).all()
        reward = {"G": 1.0, "X": -1.0}.get(letter, 0.0)
        assert later.reward[t] == reward and bool(later.info["success"][t]) == (reward == 1)
        assert bool(later.terminated[t]) == (reward != 0)
        assert bool(later.truncated[t]) == (t + 1 >= 9 and reward == 0)
        if later.terminated[t] or later.truncated[t]:
            break


def walked(env: Corridors, leg: str) -> tuple[str, float, bool, bool]:
    """(letters passed, return, terminated, truncated) of an episode from one letter to another by `guide`."""
    params = replace(env.default_params(), start=jnp.int32(env.cell(leg[0])))
    state, timestep = env.reset(jax.random.key(0), params)
    passed, total = env.map.letters[int(state.cell)], 0.0
    while not bool(timestep.done):
        state, timestep = env.step(jax.random.key(0), state, env.guide(state, env.cell(leg[1])), params)
        passed += env.map.letters[int(state.cell)]
        total += float(timestep.reward)
    return passed, total, bool(timestep.terminated), bool(timestep.truncated)


def test_cross_roads_has_the_data_sets_of_its_task():
    env = CrossRoads(limit=20, arm=3)
    assert walked(env, "AX") == ("A..M..X", -1.0, True, False)
    assert walked(env, "BG") == ("B..M..G", 1.0, True, False)
    assert walked(env, "AG") == ("A..M..G", 1.0, True, False)
    short = CrossRoads(limit=3, arm=3)  # the pieces of a way that no episode walks
    assert walked(short, "AM") == ("A..M", 0.0, False, True) and walked(short, "MG") == ("M..G", 1.0, True, False)
    legs = {leg for walks in env.legs.values() for leg in walks}
    assert legs == {"AX", "BG", "AM", "MG"} and "AG" not in legs
    assert env.reference()["expert"] == 1.0 and env.reference()["random"] == pytest.approx(0.0, abs=1e-12)
    assert CrossRoads(limit=5, arm=3).reference()["expert"] == 0.0, "nobody is there in time"


def test_grid_stitch_has_the_data_set_of_its_task():
    env = GridStitch(limit=8, arm=2, overlap=3)
    assert env.way == 8
    first, second, best = (walked(env, leg) for leg in ("SD", "TG", "SG"))
    assert first[0][-1] == "D" and first[1:] == (0.0, False, True) and len(first[0]) == 9
    assert second[0][-1] == "G" and second[1:] == (1.0, True, False)
    assert best[0][-1] == "G" and best[1:] == (1.0, True, False) and len(best[0]) == 9
    assert env.legs == {"stitch": ("SD", "TG")}
    assert search(TextWalk(list(env.map.rows), "S"), "G") == 8


def test_starts_differ_between_the_lanes_of_a_batch():
    """What a recorder does: one start per environment, all legs of a data set at once."""
    env = CrossRoads(limit=10, arm=2)
    starts = jnp.array([env.cell(leg[0]) for leg in env.legs["crossing"]], jnp.int32)
    targets = jnp.array([env.cell(leg[1]) for leg in env.legs["crossing"]], jnp.int32)
    params = replace(env.default_params(), start=starts)
    states, opened = jax.vmap(env.reset, in_axes=(None, 0))(jax.random.key(0), params)
    assert opened.obs.argmax(axis=1).tolist() == starts.tolist()
    assert jax.vmap(env.guide)(states, targets).tolist() == [1, 0]
    assert jax.tree.leaves(stacked_params(env, params, 2)) == [0]


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


# --- graph --------------------------------------------------------------------------------------------------
@functools.cache
def edges(env: GraphWalk) -> dict[int, list[int]]:
    return {node: sorted(set(row.tolist())) for node, row in enumerate(env.graph.neighbours)}


@settings(deadline=None, max_examples=40)
@given(nodes=st.integers(2, 30), density=st.sampled_from([0.0, 0.1, 1.0]), seed=st.integers(0, 999))
def test_graphs_are_connected_simple_and_of_the_size_named(nodes: int, density: float, seed: int):
    env = GraphWalk(nodes=nodes, density=density, seed=seed)
    near = edges(env)
    assert all(node in near[other] for node in near for other in near[node]), "both ways"
    assert not any(node in near[node] for node in near)
    count = sum(map(len, near.values())) // 2
    assert (density > 0 or count == nodes - 1) and (density < 1 or count == nodes * (nodes - 1) // 2)
    degree = max(map(len, near.values()))
    assert env.action_space().n == degree
    for node, row in enumerate(env.graph.neighbours.tolist()):
        assert row == [near[node][action % len(near[node])] for action in range(degree)]
    for goal in range(nodes):
        found, queue = {goal: 0}, deque([goal])
        while queue:
            node = queue.popleft()
            for other in near[node]:
                if other not in found:
                    found[other] = found[node] + 1
                    queue.append(other)
        assert env.graph.distances[goal].tolist() == [found[node] for node in range(nodes)], "connected, and measured"
        for node in set(range(nodes)) - {goal}:
            assert found[env.graph.neighbours[node, env.graph.routes[goal, node]]] == found[node] - 1
    assert ((env.graph.layout >= 0) & (env.graph.layout <= 1)).all()


def test_graphs_differ_by_seed_and_are_frozen():
    assert edges(GraphWalk(seed=1)) != edges(GraphWalk(seed=2))
    assert edges(GraphWalk(nodes=6, density=0.2)) == {
        0: [2],
        1: [4, 5],
        2: [0, 3, 4, 5],
        3: [2],
        4: [1, 2],
        5: [1, 2],
    }, "data sets rely on the graph of a seed"


@settings(deadline=None, max_examples=40)
@given(
    vary_goal=st.booleans(),
    seed=st.integers(0, 999),
    actions=st.lists(st.integers(0, 6), min_size=10, max_size=10),
)
def test_graph_walk(vary_goal: bool, seed: int, actions: list[int]):
    env = GraphWalk(vary_goal=vary_goal)
    near, one_hot = edges(env), np.eye(20, dtype=np.float32)
    (state, opened), (_, later) = follow(env, seed, actions)
    node, goal = int(state.node), int(state.goal)
    assert node != goal and (vary_goal or goal == 0)
    tail = [one_hot[goal]] * vary_goal
    assert (opened.obs == np.concatenate([one_hot[node], *tail])).all()
    for t, action in enumerate(actions):
        node = near[node][action % len(near[node])]
        assert (later.obs[t] == np.concatenate([one_hot[node], *tail])).all() and later.reward[t] == -1
        assert bool(later.terminated[t]) == (node == goal or t == 9) and not later.truncated[t]
        assert bool(later.info["success"][t]) == (node == goal)
        if later.terminated[t]:
            break


def test_graph_walk_opens_everywhere_else():
    for env in (GraphWalk(nodes=5), GraphWalk(nodes=5, vary_goal=True)):
        keys = jax.random.split(jax.random.key(0), 4000)
        state, _ = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys, ())
        pairs = np.bincount(np.asarray(state.node * 5 + state.goal), minlength=25).reshape(5, 5) / 4000
        expected = (1 - np.eye(5)) / 20 if env.vary_goal else np.outer([0, 1, 1, 1, 1], [1, 0, 0, 0, 0]) / 4
        np.testing.assert_allclose(pairs, expected, atol=0.03)


def test_graph_walk_random_return_by_hand():
    """Two joined nodes; and a path of three, whose middle is the goal or not."""
    assert GraphWalk(nodes=2).reference() == {"random": -1.0, "reactive": -1.0, "expert": -1.0}
    for seed in range(20):
        env = GraphWalk(nodes=3, density=0.0, seed=seed, limit=2)
        middle = len(edges(env)[0]) == 2
        # From an end: goal in the middle is one step; else from the middle 1/2 at once, and from the far end never
        # before the second step.
        expected = -1.0 if middle else -(1.5 + 2.0) / 2
        assert env.reference()["random"] == pytest.approx(expected)
        assert env.reference()["expert"] == (-1.0 if middle else -1.5)


# --- gamble -------------------------------------------------------------------------------------------------
def test_gamble_pays_as_declared():
    env = Gamble()
    keys = jax.random.split(jax.random.key(0), 4000)
    state, opened = env.reset(keys[0], env.default_params())
    assert opened.obs.tolist() == [1.0]
    step = jax.jit(jax.vmap(env.step, in_axes=(0, None, None, None)))
    for arm, (win, loss) in enumerate(((5, -15), (1, -6), (1, 1))):
        _, timestep = step(keys, state, jnp.int32(arm), env.default_params())
        assert set(timestep.reward.tolist()) == {win, loss}
        if win != loss:
            assert float((timestep.reward == win).mean()) == pytest.approx(0.5, abs=0.04)
        assert bool(timestep.terminated.all()) and not timestep.obs.any()
        assert set(timestep.info["mean"].tolist()) == {(win + loss) / 2}


def test_gamble_expert_follows_the_parameters():
    env, params = Gamble(), Gamble().default_params()
    state, _ = env.reset(jax.random.key(0), params)
    assert int(env.expert(jax.random.key(0), state, params)) == 2
    lucky = replace(params, chance=jnp.array([0.9, 0.5, 0.5], jnp.float32))
    assert int(env.expert(jax.random.key(0), state, lucky)) == 0


def test_gamble_conditioned_on_a_return_is_bayes():
    env = Gamble()
    policy, value = env.conditioned(1.0)
    np.testing.assert_allclose(policy, [0, 1 / 3, 2 / 3])
    assert value == pytest.approx(-1 / 6)
    assert env.conditioned(5.0)[1] == -5.0 and env.conditioned(-6.0)[1] == -2.5
    assert env.conditioned(1.0, (0.0, 0.8, 0.2))[0].tolist() == pytest.approx([0, 2 / 3, 1 / 3])
    assert env.reference()["random"] == pytest.approx(float(Fraction(-13, 6)))
    with pytest.raises(ValueError, match="gamble"):
        env.conditioned(2.0)
    with pytest.raises(ValueError, match="gamble"):
        env.conditioned(5.0, (0.0, 0.5, 0.5))
    # The same from data: of many uniform pulls, those that paid 1.
    keys, arms = jax.random.split(jax.random.key(1), 6000), jnp.arange(6000, dtype=jnp.int32) % 3
    state, _ = env.reset(keys[0], env.default_params())
    rewards = jax.vmap(env.step, in_axes=(0, None, 0, None))(keys, state, arms, env.default_params())[1].reward
    shares = np.bincount(np.asarray(arms)[np.asarray(rewards) == 1.0], minlength=3)
    np.testing.assert_allclose(shares / shares.sum(), policy, atol=0.04)


# --- all ----------------------------------------------------------------------------------------------------
def test_mean_return_of_a_coin():
    """From cell 0 a fair coin stays (pays 1) or ends (pays 0): 1/2 + 1/4 + ... within the horizon."""
    chances = np.array([[[0.5, 0.5]], [[0.0, 1.0]]])
    rewards, ends = np.array([[0.5], [9.0]]), np.array([False, True])
    assert mean_return(chances, rewards, ends, np.ones((2, 1)), 0, 4) == pytest.approx(1 - 1 / 16)


@pytest.mark.parametrize("name", IDS)
def test_no_index_is_out_of_bounds(name: str):
    """Over whole episodes and beyond their end, the expert's actions and the pictures too."""
    env, params = make(name)

    def episode(key: Any) -> Any:
        state, timestep = plain_trajectory(env, params, key, env.horizon + 2)
        return timestep, jax.vmap(env.expert, in_axes=(None, 0, None))(key, state, params)

    error, _ = jax.jit(checkify.checkify(episode, errors=checkify.index_checks))(jax.random.key(5))
    error.throw()


@pytest.mark.parametrize(
    "spec",
    [
        "graph_walk,nodes=1",
        "graph_walk,limit=0",
        "graph_walk,seed=-1",
        "graph_walk,density=1.5",
        "grid_stitch,arm=1",
        "grid_stitch,overlap=-1",
        "grid_stitch,limit=0",
        "cross_roads,arm=0",
        "cross_roads,limit=0",
        "cliff_walk,height=1",
        "cliff_walk,width=2",
        "cliff_walk,limit=0",
        "safe_grid,hazards=0",
        "safe_grid,limit=15",
    ],
)
def test_bad_sizes_are_refused_in_words(spec: str):
    name, _, option = spec.partition(",")
    field, _, value = option.partition("=")
    with pytest.raises(ValueError, match=f"{name}: {field} must be .* got {value}"):
        make(spec)
