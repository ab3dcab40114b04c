"""Graph walk: find the shortest way through a random graph."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.spaces import Box, Discrete
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition

Array = jax.Array

_SIZE = 144  # pixels along the side of the picture


@struct.dataclass
class GraphWalkState:
    node: Array  # int32 [], 0 .. nodes - 1
    goal: Array  # int32 []
    t: Array  # int32 [], steps taken


@dataclass(frozen=True)
class GraphWalk(Env[GraphWalkState, tuple[()]]):
    """Walk to the goal of one fixed random connected graph (the motivating example of Chen et al. 2021).

    The graph is a function of `nodes`, `density` and `seed`: a random tree, and of all other pairs a share `density`
    joined. Episodes open at a random node other than the goal, which is node 0, or with `vary_goal` another one each
    episode. Observation float32 [nodes]: the current node, one-hot; with `vary_goal` [2 nodes], followed by the
    goal's. Actions 0 .. D - 1, D the largest degree: to the a-th neighbour in rising order, counted around (a modulo
    the degree), so that every action is a step along an edge and uniform play is the random walk that the data are
    made of. Each step pays -1. The episode ends at the goal, or after `limit` steps; the steps left never change
    which way is best. `info["success"]`: the goal was reached. No params.
    """

    nodes: int = 20
    density: float = 0.1
    """Share of the pairs outside of the tree that are joined."""
    seed: int = 0
    """Which graph."""
    limit: int = 10
    """Steps until the episode ends."""
    vary_goal: bool = False

    name: ClassVar[str] = "graph_walk"
    paper: ClassVar[str] = "Chen et al. 2021 (arXiv 2106.01345)"
    fixed_length: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for field, least in (("nodes", 2), ("limit", 1), ("seed", 0)):
            if getattr(self, field) < least:
                raise ValueError(f"graph_walk: {field} must be at least {least}, got {getattr(self, field)}.")
        if not 0 <= self.density <= 1:
            raise ValueError(f"graph_walk: density must be in 0 .. 1, got {self.density}.")

    @property
    def horizon(self) -> int:
        return self.limit

    @property
    def graph(self) -> Graph:
        return _graph(self.nodes, self.density, self.seed)

    def default_params(self) -> tuple[()]:
        return ()

    def reset(self, key: Array, params: tuple[()]) -> tuple[GraphWalkState, TimeStep]:
        goal, others = jnp.int32(0), self.nodes - 1
        if self.vary_goal:
            key, goal_key = jax.random.split(key)
            goal = jax.random.randint(goal_key, (), 0, self.nodes, jnp.int32)
        node = (goal + 1 + jax.random.randint(key, (), 0, others, jnp.int32)) % self.nodes
        state = GraphWalkState(node=node, goal=goal, t=jnp.int32(0))
        return state, opening(self._obs(state), info={"success": jnp.zeros((), bool)})

    def step(
        self, key: Array, state: GraphWalkState, action: Array, params: tuple[()]
    ) -> tuple[GraphWalkState, TimeStep]:
        del key
        state = replace(state, node=jnp.asarray(self.graph.neighbours)[state.node, action], t=state.t + 1)
        success = state.node == state.goal
        over = success | (state.t >= self.limit)
        return state, transition(self._obs(state), -1.0, terminated=over, info={"success": success})

    def _obs(self, state: GraphWalkState) -> Array:
        seen = jnp.stack([state.node, state.goal]) if self.vary_goal else state.node
        return jax.nn.one_hot(seen, self.nodes, dtype=jnp.float32).reshape(-1)

    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (self.nodes * (2 if self.vary_goal else 1),))

    def action_space(self) -> Discrete:
        return Discrete(self.graph.neighbours.shape[1])

    def expert(self, key: Array, state: GraphWalkState, params: tuple[()]) -> Array:
        """A shortest way."""
        del key
        return jnp.asarray(self.graph.routes)[state.goal, state.node]

    def reference(self) -> dict[str, float]:
        """All exact: distances, and random play by propagation. The observation is all that matters of the state."""
        goals = range(self.nodes) if self.vary_goal else range(1)
        random = float(np.mean([self._random_return(goal) for goal in goals]))
        steps = np.minimum(self.graph.distances[list(goals)], self.limit)
        best = -float(steps.sum()) / (len(goals) * (self.nodes - 1))
        return {"random": random, "reactive": best, "expert": best}

    def _random_return(self, goal: int) -> float:
        neighbours = self.graph.neighbours
        chances = np.eye(self.nodes)[neighbours].mean(axis=1)
        at = np.where(np.arange(self.nodes) == goal, 0.0, 1 / (self.nodes - 1))
        total = 0.0
        for _ in range(self.limit):
            total -= at.sum()
            at = at @ chances
            at[goal] = 0.0
        return total

    def render(self, state: GraphWalkState, params: tuple[()]) -> Array:
        """uint8 [148, 144, 3]: the graph, the goal green, the current node orange, and the clock below."""
        image, places = jnp.asarray(_picture(self.graph)), jnp.asarray(self.graph.layout * _SIZE, jnp.float32)
        discs = (state.goal, 8.0, draw.GREEN), (state.node, 5.5, draw.WHITE), (state.node, 4.5, draw.ORANGE)
        for node, radius, color in discs:
            y, x = places[node]
            image = draw.paint(image, draw.disc(_SIZE, _SIZE, y, x, radius), color)
        done = draw.rectangle(4, _SIZE, 0, 0, 4, _SIZE * state.t / self.limit)
        return jnp.concatenate([image, draw.paint(draw.canvas(4, _SIZE, draw.GREY), done, draw.BLUE)])

    def ascii(self, state: GraphWalkState, params: tuple[()]) -> str:
        node, goal = int(state.node), int(state.goal)
        near = " ".join(str(n) for n in sorted(set(self.graph.neighbours[node].tolist())))
        return f"step {int(state.t)} of {self.limit}: at node {node}, next to {near}; goal {goal}"


class Graph(NamedTuple):
    neighbours: np.ndarray
    """int32 [nodes, D]: the neighbours of each node in rising order, repeated up to the largest degree D."""
    distances: np.ndarray
    """int32 [nodes, nodes]."""
    routes: np.ndarray
    """int32 [nodes, nodes]: the first action of a shortest way from a node (second axis) to a goal (first)."""
    layout: np.ndarray
    """float [nodes, 2]: where to draw each node, in 0 .. 1."""


@functools.lru_cache(maxsize=64)
def _graph(nodes: int, density: float, seed: int) -> Graph:
    rng = np.random.RandomState(seed)  # its stream is frozen, unlike that of default_rng
    joined = np.triu(rng.random_sample((nodes, nodes)) < density, k=1)
    order = rng.permutation(nodes)
    for i in range(1, nodes):
        joined[order[i], order[rng.randint(i)]] = True
    joined |= joined.T
    degree = joined.sum(axis=1).max()
    neighbours = np.stack([np.resize(np.flatnonzero(row), degree) for row in joined]).astype(np.int32)
    distances = np.where(np.eye(nodes, dtype=bool), 0, nodes).astype(np.int32)
    for _ in range(nodes):
        distances = np.minimum(distances, 1 + distances[:, neighbours].min(axis=2))
    routes = distances[:, neighbours].argmin(axis=2).astype(np.int32)
    return Graph(neighbours, distances, routes, _layout(distances))


def _layout(distances: np.ndarray) -> np.ndarray:
    """Places in 0 .. 1 whose distances are like those in the graph: stress majorisation, from a circle."""
    num = len(distances)
    weights = 1.0 / np.maximum(distances, 1) ** 2 * ~np.eye(num, dtype=bool)
    angle = 2 * np.pi * np.arange(num) / num
    places = np.stack([np.cos(angle), np.sin(angle)], axis=1) * distances.max() / 2
    for _ in range(300):
        apart = places[:, None] - places
        pull = places + apart * (distances / np.maximum(np.linalg.norm(apart, axis=2), 1e-9))[..., None]
        places = (weights[..., None] * pull).sum(axis=1) / weights.sum(axis=1, keepdims=True)
    low, high = places.min(axis=0), places.max(axis=0)
    return 0.08 + 0.84 * (places - low) / np.maximum(high - low, 1e-9)


@functools.lru_cache(maxsize=64)
def _picture_of(neighbours: bytes, layout: bytes, nodes: int) -> np.ndarray:
    scale = 3  # drawn larger and averaged, for smooth lines
    size = _SIZE * scale
    places = np.frombuffer(layout).reshape(nodes, 2) * size
    y, x = np.arange(size)[:, None] + 0.5, np.arange(size)[None] + 0.5
    image = np.full((size, size, 3), 255.0)
    for node, row in enumerate(np.frombuffer(neighbours, np.int32).reshape(nodes, -1)):
        for other in {n for n in row.tolist() if n > node}:
            (y0, x0), (dy, dx) = places[node], places[other] - places[node]
            along = np.clip(((y - y0) * dy + (x - x0) * dx) / max(dy**2 + dx**2, 1e-9), 0, 1)
            image[(y - y0 - along * dy) ** 2 + (x - x0 - along * dx) ** 2 < (0.7 * scale) ** 2] = (176, 180, 190)
    for y0, x0 in places:
        away = (y - y0) ** 2 + (x - x0) ** 2
        image[away < (4.5 * scale) ** 2] = (90, 98, 116)
        image[away < (3.2 * scale) ** 2] = (226, 230, 238)
    return image.reshape(_SIZE, scale, _SIZE, scale, 3).mean(axis=(1, 3)).astype(np.uint8)


def _picture(graph: Graph) -> np.ndarray:
    """uint8 [144, 144, 3]: edges and nodes."""
    return _picture_of(graph.neighbours.tobytes(), graph.layout.tobytes(), len(graph.layout))
