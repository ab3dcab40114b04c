"""Point maze: push a ball through a maze of walls to a goal."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.spaces import Box
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition

Array = jax.Array

LAYOUTS = {
    "open": ("#######", "#.....#", "#.....#", "#.....#", "#######"),
    "umaze": ("#####", "#...#", "###.#", "#...#", "#####"),
    "medium": (
        "########",
        "#..##..#",
        "#..#...#",
        "##...###",
        "#..#...#",
        "#.#..#.#",
        "#...#..#",
        "########",
    ),
    "large": (
        "############",
        "#....#.....#",
        "#.##.#.#.#.#",
        "#......#...#",
        "#.####.###.#",
        "#..#.#.....#",
        "##.#.#.#.###",
        "#..#...#...#",
        "############",
    ),
}
"""gymnasium-robotics' maps, the top row first; '#' is a wall; cells of 1 m."""
_STEPS = {"open": 300, "umaze": 300, "medium": 600, "large": 800}
# Mean returns, 20k episodes each; 95 %: random +- 0.11, 0.19, 0.18, 0.17 (sparse), 0.14, 0.23, 0.44, 0.46 (dense),
# expert +- 0.04, 0.05, 0.07, 0.13 (both).
_RETURNS = {
    ("open", False): {"random": 11.42, "expert": 294.73},
    ("umaze", False): {"random": 23.12, "expert": 294.60},
    ("medium", False): {"random": 12.66, "expert": 589.31},
    ("large", False): {"random": 9.71, "expert": 782.64},
    ("open", True): {"random": 53.67, "expert": 295.59},
    ("umaze", True): {"random": 74.63, "expert": 295.57},
    ("medium", True): {"random": 63.18, "expert": 590.69},
    ("large", True): {"random": 48.11, "expert": 784.10},
}
RADIUS, MAX_SPEED, TOLERANCE = 0.1, 5.0, 0.45  # metres, m/s in each direction, metres
DT, SUBSTEPS = 0.1, 5
_GIRTH = RADIUS - 1e-4  # a wall that is merely touched, as after a stop at it, does not hold the ball up
# The expert's gains: 1/s towards the aim and towards the speed wanted.
_PULL, _GRIP = 6.0, 14.0


@struct.dataclass
class PointMazeState:
    position: Array  # float32 [2], metres right and up of the lower left corner of the map
    velocity: Array  # float32 [2], m/s
    goal: Array  # float32 [2], as the position
    t: Array  # int32 [], steps taken


@struct.dataclass
class PointMazeParams:
    """float32 [] each."""

    force: Array  # N at action 1
    mass: Array  # kg
    damping: Array  # N s/m
    jitter: Array  # metres, half-width of the uniform shift of start and goal from the middles of their cells


@dataclass(frozen=True)
class PointMaze(Env[PointMazeState, PointMazeParams]):
    """Roll a ball to a goal and stay there, in a maze of 1 m cells: the task of gymnasium-robotics' PointMaze.

    Observation float32 [6]: position, velocity, goal, in metres right and up of the middle of the map. Action float32
    [2]: shares of the force of 100 N along x and y on 4.19 kg, for 0.1 s; velocities are clipped to +-5 m/s. A step
    pays 1 within 0.45 m of the goal, or with `dense` exp(-distance). Every episode is truncated after 300 (open,
    umaze), 600 (medium) or 800 (large) steps; reaching the goal does not end it. `info["success"]`: within 0.45 m.
    Closed form instead of MuJoCo: five substeps; against walls the ball is a square of half-width 0.1 m that moves
    along x, then along y, and stops at a wall without bouncing.
    """

    layout: str = "umaze"
    """The map: a key of `LAYOUTS`."""
    dense: bool = False
    """Pay exp(-distance) instead of 1 near the goal."""

    name: ClassVar[str] = "point_maze"
    time_limit: ClassVar[Literal["terminal", "truncate"]] = "truncate"
    paper: ClassVar[str] = "Fu et al. 2020 (D4RL, arXiv 2004.07219); gymnasium-robotics PointMaze"

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"{self.name}: layout must be one of {', '.join(LAYOUTS)}, got {self.layout!r}.")

    @property
    def horizon(self) -> int:
        return _STEPS[self.layout]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the map, cells."""
        return len(LAYOUTS[self.layout][0]), len(LAYOUTS[self.layout])

    def default_params(self) -> PointMazeParams:
        return PointMazeParams(
            force=jnp.float32(100.0), mass=jnp.float32(4.19), damping=jnp.float32(1.0), jitter=jnp.float32(0.25)
        )

    def reset(self, key: Array, params: PointMazeParams) -> tuple[PointMazeState, TimeStep]:
        """Goal and start in two different free cells, each shifted at random; the ball rests."""
        goal_key, start_key, jitter_key = jax.random.split(key, 3)
        cells = jnp.array(_atlas(self.layout).middles)
        goal = jax.random.randint(goal_key, (), 0, len(cells), jnp.int32)
        start = (goal + jax.random.randint(start_key, (), 1, len(cells), jnp.int32)) % len(cells)
        shift = params.jitter * jax.random.uniform(jitter_key, (2, 2), jnp.float32, -1.0, 1.0)
        state = PointMazeState(
            position=cells[start] + shift[0],
            velocity=jnp.zeros(2, jnp.float32),
            goal=cells[goal] + shift[1],
            t=jnp.int32(0),
        )
        return state, opening(self._obs(state), info={"success": _distance(state) <= TOLERANCE})

    def step(
        self, key: Array, state: PointMazeState, action: Array, params: PointMazeParams
    ) -> tuple[PointMazeState, TimeStep]:
        del key
        force = params.force * jnp.clip(action, -1, 1)
        walls = jnp.array(_atlas(self.layout).walls)
        position, velocity = state.position, state.velocity
        for _ in range(SUBSTEPS):
            velocity = velocity + DT / SUBSTEPS * (force - params.damping * velocity) / params.mass
            velocity = jnp.clip(velocity, -MAX_SPEED, MAX_SPEED)
            for axis in (0, 1):
                position, velocity = self._slide(walls, position, velocity, axis)
        state = replace(state, position=position, velocity=velocity, t=state.t + 1)
        distance = _distance(state)
        near = distance <= TOLERANCE
        reward = jnp.exp(-distance) if self.dense else near.astype(jnp.float32)
        late = state.t >= self.horizon
        return state, transition(self._obs(state), reward, truncated=late, info={"success": near})

    def _slide(self, walls: Array, position: Array, velocity: Array, axis: int) -> tuple[Array, Array]:
        """A substep's way along one axis, up to the wall of the next cell if the ball's side would touch one there."""
        here, speed = position[axis], velocity[axis]
        ahead = here + DT / SUBSTEPS * speed
        onward = speed > 0
        cell = jnp.floor(here).astype(jnp.int32)
        beside = jnp.clip(cell + jnp.where(onward, 1, -1), 0, self.size[axis] - 1)
        # The one or two cells of the next column (row) that the ball's side spans.
        low = jnp.floor(position[1 - axis] - _GIRTH).astype(jnp.int32)
        high = jnp.floor(position[1 - axis] + _GIRTH).astype(jnp.int32)
        low, high = (jnp.clip(c, 0, self.size[1 - axis] - 1) for c in (low, high))
        blocked = walls[low, beside] | walls[high, beside] if axis == 0 else walls[beside, low] | walls[beside, high]
        face = jnp.where(onward, cell + 1 - RADIUS, cell + RADIUS)
        hit = blocked & jnp.where(onward, ahead > face, ahead < face)
        return position.at[axis].set(jnp.where(hit, face, ahead)), velocity.at[axis].set(jnp.where(hit, 0.0, speed))

    def _obs(self, state: PointMazeState) -> Array:
        middle = jnp.array(self.size, jnp.float32) / 2
        return jnp.concatenate([state.position - middle, state.velocity, state.goal - middle])

    def observation_space(self) -> Box:
        half = tuple(n / 2 for n in self.size)
        bound = (*half, MAX_SPEED, MAX_SPEED, *half)
        return Box(tuple(-b for b in bound), bound, (6,))

    def action_space(self) -> Box:
        return Box(-1.0, 1.0, (2,))

    def expert(self, key: Array, state: PointMazeState, params: PointMazeParams) -> Array:
        """A spring-and-damper pull to the end of the straight run that the shortest way of cells begins with, in the
        goal's cell to the goal."""
        del key
        middles, nearest = (jnp.array(x) for x in (_atlas(self.layout).middles, _atlas(self.layout).index))

        def cell(position: Array) -> Array:
            x, y = jnp.floor(position).astype(jnp.int32)
            return nearest[jnp.clip(y, 0, self.size[1] - 1), jnp.clip(x, 0, self.size[0] - 1)]

        here, there = cell(state.position), cell(state.goal)
        waypoint = middles[jnp.array(_atlas(self.layout).waypoints)[there, here]]
        aim = jnp.where(here == there, state.goal, waypoint)
        wanted = jnp.clip(_PULL * (aim - state.position), -MAX_SPEED, MAX_SPEED)
        return jnp.clip(_GRIP * (wanted - state.velocity) * params.mass / params.force, -1, 1)

    def reference(self) -> dict[str, float]:
        """Measured (see above); the best memoryless policy, like the optimum, is not known."""
        return _RETURNS[self.layout, self.dense]

    def render(self, state: PointMazeState, params: PointMazeParams) -> Array:
        """uint8 [16 rows + 4, 16 columns, 3]: the map, the goal as a ring around its tolerance, the ball; below the
        progress."""
        scale, (columns, rows) = 16, self.size
        height, width = scale * rows + 4, scale * columns
        floor = np.repeat(np.repeat(_atlas(self.layout).walls[::-1], scale, 0), scale, 1)
        walls = jnp.array(np.pad(floor, ((0, 4), (0, 0))))
        image = draw.paint(draw.canvas(height, width, (244, 244, 246)), walls, (92, 98, 112))
        # A lighter upper rim lifts the walls off the floor.
        image = draw.paint(image, walls & ~jnp.roll(walls, 2, axis=0), (140, 147, 162))

        def at(point: Array) -> tuple[Array, Array]:
            return scale * (rows - point[1]), scale * point[0]

        ring = draw.disc(height, width, *at(state.goal), TOLERANCE * scale)
        inside = draw.disc(height, width, *at(state.goal), TOLERANCE * scale - 1.5)
        lit, pale = (jnp.array(c, jnp.uint8) for c in ((140, 210, 165), (216, 240, 224)))
        near = _distance(state) <= TOLERANCE
        image = draw.paint(image, ring & ~inside, draw.GREEN)
        image = draw.paint(image, inside, jnp.where(near, lit, pale))
        image = draw.paint(image, draw.disc(height, width, *at(state.goal), 1.2), draw.GREEN)
        y, x = at(state.position)
        trail = draw.segment(height, width, y, x, y + 1.5 * state.velocity[1], x - 1.5 * state.velocity[0], 1.6)
        image = draw.paint(image, trail, draw.ORANGE)
        image = draw.paint(image, draw.disc(height, width, y, x, 2.9), draw.BLUE)
        done = draw.rectangle(height, width, height - 4, 0, height, width * state.t / self.horizon)
        return draw.paint(image, done, draw.ORANGE)

    def ascii(self, state: PointMazeState, params: PointMazeParams) -> str:
        rows = [list(row) for row in LAYOUTS[self.layout]]
        for mark, (x, y) in (("G", state.goal.tolist()), ("O", state.position.tolist())):
            rows[len(rows) - 1 - int(y)][int(x)] = mark
        text = "\n".join("".join(row) for row in rows)
        x, y = self._obs(state)[:2].tolist()
        return f"{text}\nat ({x:+.2f}, {y:+.2f}) m, {float(_distance(state)):.2f} m off, step {int(state.t)}"


def _distance(state: PointMazeState) -> Array:
    return jnp.sqrt(jnp.sum((state.position - state.goal) ** 2))


@dataclass(frozen=True)
class _Atlas:
    """A layout in tables; rows count from the bottom, cells are numbered over the free ones."""

    walls: np.ndarray  # bool [rows, columns]
    middles: np.ndarray  # float32 [cells, 2], (x, y) of the free cells
    index: np.ndarray  # int32 [rows, columns], the number of a free cell; 0 for walls
    waypoints: np.ndarray  # int32 [goal cell, cell], the cell where the shortest way first turns, or the goal's


@functools.cache
def _atlas(layout: str) -> _Atlas:
    walls = np.array([[c == "#" for c in row] for row in LAYOUTS[layout][::-1]])
    free = [(int(x), int(y)) for y, x in np.argwhere(~walls)]
    number = {cell: i for i, cell in enumerate(free)}
    index = np.zeros(walls.shape, np.int32)
    for (x, y), i in number.items():
        index[y, x] = i
    waypoints = np.zeros((len(free), len(free)), np.int32)
    for goal in free:
        toward = _toward(goal, number)
        for cell in free:
            end, way = cell, toward[cell]
            while toward[end] == way != (0, 0):
                end = end[0] + way[0], end[1] + way[1]
            waypoints[number[goal], number[cell]] = number[end]
    return _Atlas(walls, np.array(free, np.float32) + 0.5, index, waypoints)


def _toward(goal: tuple[int, int], free: dict[tuple[int, int], int]) -> dict[tuple[int, int], tuple[int, int]]:
    """The first move of a shortest way of cells to `goal` from each free cell; (0, 0) from the goal itself."""
    moves, front = {goal: (0, 0)}, [goal]
    for x, y in front:  # grows while it is walked through: breadth first
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            cell = x + dx, y + dy
            if cell in free and cell not in moves:
                moves[cell] = -dx, -dy
                front.append(cell)
    return moves
