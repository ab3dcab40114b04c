"""What grid worlds share: a map drawn in text, its cells and moves as tables, shortest ways, and a tile renderer."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.spaces import Box, Discrete

Array = jax.Array
Params = TypeVar("Params")

UP, RIGHT, DOWN, LEFT, STAY = range(5)
MOVES = np.array([(-1, 0), (0, 1), (1, 0), (0, -1), (0, 0)], np.int32)
"""(row, column) change of each action. Slice [:4] where staying is no action."""
ARROWS = "^>v<o"
TILE = 16
"""Pixels along a cell's side."""
FLOOR, WALL = (248, 246, 240), (58, 62, 74)
WALL_CHARACTER = "#"


@dataclass(frozen=True)
class GridMap:
    """A map drawn in text, one line a row: '#' is a wall, anything else a cell, letters name cells.

    The N cells are numbered row by row. All properties are NumPy arrays, made once; as constants of a compiled
    program they are tables.
    """

    text: str

    @functools.cached_property
    def rows(self) -> tuple[str, ...]:
        rows = self.text.strip("\n").split("\n")
        return tuple(row.ljust(max(map(len, rows)), WALL_CHARACTER) for row in rows)

    @property
    def height(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        return len(self.rows[0])

    @functools.cached_property
    def cells(self) -> np.ndarray:
        """int32 [N, 2]: (row, column) of each cell."""
        return np.argwhere(np.array([list(row) for row in self.rows]) != WALL_CHARACTER).astype(np.int32)

    @functools.cached_property
    def letters(self) -> str:
        """The character of each cell."""
        return "".join(self.rows[y][x] for y, x in self.cells)

    def index(self, letter: str) -> int:
        """The number of the cell that bears `letter`."""
        return self.letters.index(letter)

    def mask(self, letter: str) -> np.ndarray:
        """bool [N]: the cells that bear `letter`."""
        return np.array([name == letter for name in self.letters])

    @functools.cached_property
    def moves(self) -> np.ndarray:
        """int32 [N, 5]: the cell that each of MOVES leads to; walls and the rim leave one in place."""
        number = np.full((self.height + 2, self.width + 2), -1, np.int32)
        here = np.arange(len(self.cells), dtype=np.int32)
        number[self.cells[:, 0] + 1, self.cells[:, 1] + 1] = here
        there = self.cells[:, None] + MOVES + 1
        target = number[there[..., 0], there[..., 1]]
        return np.where(target < 0, here[:, None], target)

    @functools.cached_property
    def distances(self) -> np.ndarray:
        """int32 [N, N]: steps of the shortest way from a cell (second axis) to a goal (first); N if there is none."""
        num = len(self.cells)
        steps = np.where(np.eye(num, dtype=bool), 0, num).astype(np.int32)
        for _ in range(num):
            steps = np.minimum(steps, 1 + steps[:, self.moves].min(axis=2))
        return np.minimum(steps, num)

    @functools.cached_property
    def routes(self) -> np.ndarray:
        """int32 [N, N]: a first move of the shortest way from a cell (second axis) to a goal (first), without STAY."""
        return self.distances[:, self.moves[:, :STAY]].argmin(axis=2).astype(np.int32)

    def colors(self, by_letter: dict[str, tuple[int, int, int]]) -> np.ndarray:
        """uint8 [height, width, 3]: the colour of every tile; FLOOR for what `by_letter` does not name."""
        palette = {WALL_CHARACTER: WALL} | by_letter
        return np.array([[palette.get(name, FLOOR) for name in row] for row in self.rows], np.uint8)

    def text_with(self, cell: int, mark: str = "@") -> str:
        """The map as text with `mark` in a cell."""
        rows = [list(row) for row in self.rows]
        y, x = self.cells[cell]
        rows[y][x] = mark
        return "\n".join("".join(row) for row in rows)


def tiles(colors: Array | np.ndarray, size: int = TILE) -> Array:
    """uint8 [height * size, width * size, 3]: one square per entry of `colors` (uint8 [height, width, 3], may be
    traced), with thin lines between them."""
    height, width, _ = colors.shape
    image = jnp.repeat(jnp.repeat(jnp.asarray(colors, jnp.uint8), size, axis=0), size, axis=1)
    y, x = np.arange(height * size)[:, None], np.arange(width * size)
    line = (y % size == size - 1) | (x % size == size - 1)
    return jnp.where(line[..., None], image - image // 12, image)


def token(image: Array, row: Array | int, col: Array | int, color: tuple[int, int, int], size: int = TILE) -> Array:
    """`image` with a disc with a white rim in the middle of a tile: the agent, a key, a ball."""
    height, width, _ = image.shape
    y, x = (row + 0.5) * size - 0.5, (col + 0.5) * size - 0.5
    image = draw.paint(image, draw.disc(height, width, y, x, 0.4 * size), draw.WHITE)
    return draw.paint(image, draw.disc(height, width, y, x, 0.3 * size), color)


def clock_bar(image: Array, share: Array, thickness: int = 4) -> Array:
    """`image` with a strip below it, filled from the left up to `share` (0 .. 1) of the episode."""
    width = image.shape[1]
    strip = draw.canvas(thickness, width, draw.GREY)
    return jnp.concatenate([image, draw.paint(strip, draw.grid(thickness, width)[1] < share * width, draw.BLUE)])


def mean_return(
    chances: np.ndarray, rewards: np.ndarray, ends: np.ndarray, policy: np.ndarray, start: int, horizon: int
) -> float:
    """Exact mean return of an episode, by propagating the distribution over cells.

    chances [N, A, N]: of the next cell. rewards [N, A]: expected. ends bool [N]: cells that end the episode when
    entered. policy [N, A]: chances of the actions.
    """
    step, pay = np.einsum("na,nam->nm", policy, chances), (policy * rewards).sum(axis=1)
    at, total = np.eye(len(ends))[start], 0.0
    for _ in range(horizon):
        total += at @ pay
        at = (at @ step) * ~ends
    return float(total)


@struct.dataclass
class WalkState:
    cell: Array  # int32 [], number of the agent's cell
    t: Array  # int32 [], steps taken


@dataclass(frozen=True)
class MapWorld(Env[WalkState, Params], Generic[Params]):
    """A walk on a `GridMap` with moves up, right, down and left. Subclasses have a field `limit`, draw the map, and
    write reset, step and expert.

    Observation float32 [N]: the agent's cell, one-hot.
    """

    limit: int = 100
    """Steps until the episode is cut."""

    time_limit: ClassVar[Literal["terminal", "truncate"]] = "truncate"
    fixed_length: ClassVar[bool] = False
    palette: ClassVar[dict[str, tuple[int, int, int]]] = {}
    """Letter of the map -> colour of its tiles."""

    def _text(self) -> str:
        """The map."""
        raise NotImplementedError

    @functools.cached_property
    def map(self) -> GridMap:
        return GridMap(self._text())

    def cell(self, letter: str) -> int:
        """The number of the cell that bears a letter of the map."""
        return self.map.index(letter)

    @property
    def horizon(self) -> int:
        return self.limit

    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (len(self.map.cells),))

    def action_space(self) -> Discrete:
        return Discrete(STAY)

    def _obs(self, state: WalkState) -> Array:
        return jax.nn.one_hot(state.cell, len(self.map.cells), dtype=jnp.float32)

    def _moved(self, cell: Array, action: Array) -> Array:
        """int32 []: the cell that an action leads to."""
        return jnp.asarray(self.map.moves)[cell, action]

    def render(self, state: WalkState, params: Any) -> Array:
        """uint8 [16 height + 4, 16 width, 3]: the map, the agent as a blue disc, and the clock below."""
        row, col = jnp.asarray(self.map.cells)[state.cell]
        image = token(tiles(self.map.colors(self.palette)), row, col, draw.BLUE)
        return clock_bar(image, state.t / self.limit)

    def ascii(self, state: WalkState, params: Any) -> str:
        return f"{self.map.text_with(int(state.cell))}\nstep {int(state.t)} of {self.limit}"
