"""Drawn worlds against a slow, obvious twin; what all grid worlds, the graph and the gamble have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from env_follow import follow
from env_rollouts import plain_trajectory
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import checkify
from text_walk import ACTIONS, TextWalk, search

from jaxrl_seq.envs import make
from jaxrl_seq.envs.core.protocol import stacked_params
from jaxrl_seq.envs.gridworlds.cross_roads import CrossRoads
from jaxrl_seq.envs.gridworlds.grid import GridMap, clock_bar, mean_return, tiles, token
from jaxrl_seq.envs.gridworlds.grid_stitch import Corridors, GridStitch

IDS = ["graph_walk", "gamble", "grid_stitch", "cross_roads", "cliff_walk", "safe_grid"]
CROSSING = ["##G##", "##.##", "A.M.X", "##.##", "##B##"]
CORRIDORS = ["T.##.D", "#....#", "S.##.G"]


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
