"""Mystery path: cross a board on a path that is not visible; every slip leads back to where one came from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.protocol import TaskEnv
from jaxrl_seq.envs.core.spaces import Box, Discrete
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition
from jaxrl_seq.envs.memory import walker

Array = jax.Array

_WALL_SHARE, _BORDER_WALLS = 0.33, (4, 8)
_WALL_COST, _FAR = 1e3, 1e6

# Of random play, (chance to reach the goal, mean number of inner cells entered) by (size, limit), 262144 episodes each;
# 95 %: +- 0.0004 and 0.005 (size 7), 0.001 and 0.004 (size 5).
_RANDOM = {(7, 128): (0.0103, 2.569), (5, 128): (0.0787, 2.421)}
# Mean number of inner cells of a path by size, 262144 paths each; 95 %: +- 0.006 and 0.004.
_INNER_CELLS = {7: 7.944, 5: 4.895}


@struct.dataclass
class MysteryPathTask:
    steps_left: Array  # int8 [size, size], cells to go to the goal along the path; -1 off the path
    origin: Array  # int32 [2], row and column
    goal: Array  # int32 [2]


@struct.dataclass
class MysteryPathState:
    task: MysteryPathTask
    row: Array  # int32 []
    col: Array  # int32 []
    facing: Array  # int32 [], north, west, south, east
    fell: Array  # bool [], off the path; the next step leads back to the origin
    nearest: Array  # int32 [], fewest cells to go that were ever left
    t: Array  # int32 [], steps taken


@dataclass(frozen=True)
class MysteryPath(TaskEnv[MysteryPathState, tuple[()]]):
    """Find the hidden path from one edge of the board to the opposite one (Pleines et al. 2023, MysteryPathGrid).

    The agent starts at the path's origin, facing north. Actions: stay, turn left, turn right, walk forward. Off the
    path it is seen where it fell; the next step, whatever the action, puts it back to the origin, facing as before.
    The goal pays 1 and ends the episode; each inner cell of the path pays `progress` when it is first entered. The
    clock ends the episode after `limit` steps. Observation float32 [6 size + 5]: row and column of the agent, one-hot
    each; its facing, one-hot; whether it fell; row and column of the origin and of the goal, one-hot each (all that
    the picture of the original shows). `info["success"]`: the goal was reached. No params. Task: the path.

    The original finds its path by a randomised A*; here it is the cheapest one for random costs of the cells, uniform
    in 1 .. 8, among walls drawn by the same rules. So no two cells of the path touch unless they follow each other
    (there a few do), and it is a little straighter: 9.93 cells and 3.2 turns in the mean, there 10.10 and 3.4.
    """

    size: int = 7
    """Rows and columns."""
    limit: int = 128
    """Steps until the episode ends."""
    progress: float = 0.0
    """Reward of an inner cell of the path that was not entered before."""

    name: ClassVar[str] = "mystery_path"
    paper: ClassVar[str] = "Pleines et al. 2023 (Memory Gym, ICLR 2023)"
    fixed_length: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 4 <= self.size <= 11:
            raise ValueError(f"mystery_path: size must be in 4 .. 11, got {self.size}.")
        if self.limit < 2 * self.size**2:
            raise ValueError(
                f"mystery_path: limit must be at least 2 size^2 = {2 * self.size**2}, enough for the longest path, "
                f"got {self.limit}."
            )
        if not np.isfinite(self.progress):
            raise ValueError(f"mystery_path: progress must be finite, got {self.progress}.")

    @property
    def horizon(self) -> int:
        return self.limit

    def default_params(self) -> tuple[()]:
        return ()

    def sample_task(self, key: Array, params: tuple[()]) -> MysteryPathTask:
        """Draw the ends, the walls and the costs, then follow the cheapest way."""
        key_ends, key_walls, key_costs = jax.random.split(key, 3)
        origin, goal = self._ends(key_ends)
        walls = self._walls(key_walls, origin, goal)
        costs = jax.random.uniform(key_costs, (self.size, self.size), jnp.float32, 1.0, 8.0)
        steps_left = _cheapest_path(jnp.where(walls, _WALL_COST, costs), origin, goal)
        return MysteryPathTask(steps_left=steps_left, origin=origin, goal=goal)

    def _ends(self, key: Array) -> tuple[Array, Array]:
        """(origin, goal), int32 [2] each, on opposite edges."""
        key_side, key_places = jax.random.split(key)
        side = jax.random.randint(key_side, (), 0, 4, jnp.int32)
        a, b = jax.random.randint(key_places, (2,), 0, self.size, jnp.int32)
        near = (side % 2) * (self.size - 1)
        ends = jnp.array([[a, near], [b, self.size - 1 - near]], jnp.int32)
        origin, goal = jnp.where(side >= 2, ends[:, ::-1], ends)
        return origin, goal

    def _walls(self, key: Array, origin: Array, goal: Array) -> Array:
        """bool [size, size]: a third of the inner cells, and 4 or 8 cells of the border that touch no inner wall and
        neither end. They leave a way: around every wall of the border the inner cells are free."""
        key_inner, key_count, key_border = jax.random.split(key, 3)
        n = self.size
        row, col = np.mgrid[0:n, 0:n]
        # As in the original the last but one row and column have no walls.
        inner = (np.minimum(row, col) > 0) & (np.maximum(row, col) < n - 2)
        walls = inner & jax.random.bernoulli(key_inner, _WALL_SHARE, (n, n))
        padded = jnp.pad(walls, 1)
        near_wall = jnp.stack([padded[i : i + n, j : j + n] for i in range(3) for j in range(3)]).any(axis=0)
        far = [abs(row - end[0]) + abs(col - end[1]) > 1 for end in (origin, goal)]
        border = (np.minimum(row, col) == 0) | (np.maximum(row, col) == n - 1)
        free = (border & ~near_wall & far[0] & far[1]).ravel()
        lot = jnp.where(free, jax.random.uniform(key_border, (n * n,), jnp.float32), 2.0)
        rank = (lot[None] < lot[:, None]).sum(axis=1)
        count = jnp.where(jax.random.bernoulli(key_count), *_BORDER_WALLS)
        return walls | (free & (rank < count)).reshape(n, n)

    def reset_to(self, key: Array, task: MysteryPathTask, params: tuple[()]) -> tuple[MysteryPathState, TimeStep]:
        del key
        row, col = task.origin
        no = jnp.zeros((), bool)
        state = MysteryPathState(
            task=task,
            row=row,
            col=col,
            facing=jnp.int32(walker.NORTH),
            fell=no,
            nearest=task.steps_left[row, col].astype(jnp.int32),
            t=jnp.int32(0),
        )
        return state, opening(self._obs(state), info={"success": no})

    def step(
        self, key: Array, state: MysteryPathState, action: Array, params: tuple[()]
    ) -> tuple[MysteryPathState, TimeStep]:
        del key
        walked = walker.walk(state.row, state.col, state.facing, action, self.size)
        back = (*state.task.origin, state.facing)
        row, col, facing = (jnp.where(state.fell, b, w) for b, w in zip(back, walked, strict=True))
        left = state.task.steps_left[row, col].astype(jnp.int32)
        won, fell = left == 0, left < 0
        # Cells that follow each other are entered in order, so a cell is new if no later one was entered before.
        new = (left > 0) & (left < state.nearest)
        nearest = jnp.where(fell, state.nearest, jnp.minimum(state.nearest, left))
        state = replace(state, row=row, col=col, facing=facing, fell=fell, nearest=nearest, t=state.t + 1)
        over = won | (state.t >= self.limit)
        reward = won + self.progress * new
        return state, transition(self._obs(state), reward, terminated=over, info={"success": won})

    def _obs(self, state: MysteryPathState) -> Array:
        places = jnp.array([state.row, state.col, *state.task.origin, *state.task.goal])
        agent, others = jnp.split(jax.nn.one_hot(places, self.size, dtype=jnp.float32), [2])
        facing = jax.nn.one_hot(state.facing, 4, dtype=jnp.float32)
        return jnp.concatenate([agent.ravel(), facing, state.fell[None].astype(jnp.float32), others.ravel()])

    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (6 * self.size + 5,))

    def action_space(self) -> Discrete:
        return Discrete(4)

    def expert(self, key: Array, state: MysteryPathState, params: tuple[()]) -> Array:
        """Along the path; stays while it waits to be put back."""
        del key
        steps_left = state.task.steps_left.astype(jnp.int32)
        rows = jnp.clip(state.row + jnp.array(walker.DY, jnp.int32), 0, self.size - 1)
        cols = jnp.clip(state.col + jnp.array(walker.DX, jnp.int32), 0, self.size - 1)
        want = jnp.argmax(steps_left[rows, cols] == steps_left[state.row, state.col] - 1).astype(jnp.int32)
        arrived = steps_left[state.row, state.col] == 0
        return jnp.where(state.fell | arrived, walker.STAY, walker.head_for(state.facing, want))

    def optimal_return(self, task: MysteryPathTask, params: tuple[()]) -> Array:
        """The goal and every inner cell: there is always time to walk the whole path."""
        inner = task.steps_left[task.origin[0], task.origin[1]].astype(jnp.float32) - 1
        return 1 + self.progress * inner

    def reference(self) -> dict[str, float]:
        """`random` is measured for the presets. `expert` is exact but for the mean length of the path, which matters
        where progress is paid. The best policy without memory is not known."""
        found = {}
        if (self.size, self.limit) in _RANDOM:
            goal, inner = _RANDOM[self.size, self.limit]
            found["random"] = goal + self.progress * inner
        if not self.progress:
            return found | {"expert": 1.0}
        if self.size in _INNER_CELLS:
            found["expert"] = 1 + self.progress * _INNER_CELLS[self.size]
        return found

    def render(self, state: MysteryPathState, params: tuple[()]) -> Array:
        """uint8 [16 size, 16 size, 3]: origin blue, goal green; dots mark the hidden path, the part of it that was
        found is lit; a red cross where the agent fell."""
        return _draw(self.size, state)

    def ascii(self, state: MysteryPathState, params: tuple[()]) -> str:
        left = np.asarray(state.task.steps_left)
        board = np.where(left < 0, " ", np.where(left >= int(state.nearest), "o", "."))
        board[tuple(np.asarray(state.task.origin))], board[tuple(np.asarray(state.task.goal))] = "S", "G"
        board[int(state.row), int(state.col)] = "X" if bool(state.fell) else "^<v>"[int(state.facing)]
        rows = ["|" + "".join(row) + "|" for row in board]
        return "\n".join([*rows, f"step {min(int(state.t), self.limit)} of {self.limit}"])


def _cheapest_path(costs: Array, origin: Array, goal: Array) -> Array:
    """int8 [n, n]: steps to go on the cheapest path, -1 off it. A cell costs what it says when it is entered.

    All costs are positive, so the cost to go falls along the path: following it down reaches the goal.
    """
    n = costs.shape[0]
    cell = jnp.arange(n * n, dtype=jnp.int32).reshape(n, n)
    start, end = (n * place[0] + place[1] for place in (origin, goal))

    def around(x: Array) -> Array:
        """[4, n, n]: the values of the neighbours in the north, west, south and east of each cell."""
        x = jnp.pad(x, 1, constant_values=_FAR)
        return jnp.stack([x[:-2, 1:-1], x[1:-1, :-2], x[2:, 1:-1], x[1:-1, 2:]])

    def relax(togo: Array, _: None) -> tuple[Array, None]:
        return jnp.where(cell == end, 0.0, around(costs + togo).min(axis=0)), None

    # No way without a cycle has more than n * n - 1 steps.
    togo, _ = jax.lax.scan(relax, jnp.full((n, n), _FAR, jnp.float32), None, length=n * n)
    offsets = jnp.array([n * dy + dx for dy, dx in zip(walker.DY, walker.DX, strict=True)], jnp.int32)
    best = jnp.argmin(around(costs + togo), axis=0).astype(jnp.int32)
    onward = jnp.where(cell == end, cell, cell + offsets[best]).ravel()

    def follow(at: Array, _: None) -> tuple[Array, Array]:
        return onward[at], at

    _, visited = jax.lax.scan(follow, start, None, length=n * n)
    length = (visited != end).sum()
    togo_steps = length - jnp.arange(n * n, dtype=jnp.int32)
    hit = visited[:, None] == jnp.arange(n * n, dtype=jnp.int32)
    steps = jnp.where(hit, jnp.maximum(togo_steps, 0)[:, None], -1).max(axis=0)
    return steps.astype(jnp.int8).reshape(n, n)


_TILE = 16
_ICE, _SEAM, _LIT, _DOT = (36, 44, 66), (26, 32, 50), (222, 214, 190), (84, 98, 132)


def _draw(size: int, state: MysteryPathState) -> Array:
    side = size * _TILE
    y, x = np.mgrid[0:side, 0:side]
    row, col = y // _TILE, x // _TILE
    dy, dx = y % _TILE - (_TILE - 1) / 2, x % _TILE - (_TILE - 1) / 2
    tile = np.maximum(np.abs(dy), np.abs(dx)) < 7.4
    left = state.task.steps_left.astype(jnp.int32)[row, col]

    image = draw.paint(draw.canvas(side, side, _SEAM), jnp.array(tile), _ICE)
    image = draw.paint(image, (left >= 0) & (dy**2 + dx**2 < 5), _DOT)
    image = draw.paint(image, (left >= state.nearest) & tile, _LIT)
    for place, color in ((state.task.origin, draw.BLUE), (state.task.goal, draw.GREEN)):
        image = draw.paint(image, (row == place[0]) & (col == place[1]) & tile, color)
    flag = (np.abs(dx + 3) < 1) & (np.abs(dy) < 6) | (dx > -3) & (dx < 5) & (np.abs(dy + 3) < 2.6)
    image = draw.paint(image, (row == state.task.goal[0]) & (col == state.task.goal[1]) & flag, draw.WHITE)

    centre = _TILE * state.row + _TILE / 2, _TILE * state.col + _TILE / 2
    image = walker.draw_walker(image, *centre, state.facing, 5.4)
    cross = (np.abs(np.abs(dx) - np.abs(dy)) < 1.6) & (np.abs(dx) < 7)
    return draw.paint(image, state.fell & (row == state.row) & (col == state.col) & cross, draw.RED)
