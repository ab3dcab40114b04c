"""Walks on graphs against a plain walk and returns by hand."""

from __future__ import annotations

import functools
from collections import deque

import jax
import numpy as np
import pytest
from env_follow import follow
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_seq.envs.planning.graph_walk import GraphWalk


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
