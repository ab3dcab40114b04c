"""Battleship: find hidden ships by shots of which only the last one's outcome is seen."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.spaces import Box, Discrete
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition

Array = jax.Array


@struct.dataclass
class BattleshipState:
    ships: Array  # int8 [size^2], number of the ship in each cell, from 1; 0 is water
    shot: Array  # bool [size^2], cells shot at
    last: Array  # int32 [], the cell shot at last; -1 at the start
    hit: Array  # bool [], the last shot was the first one at a ship's cell
    hits: Array  # int32 [], ships' cells hit
    t: Array  # int32 [], steps taken


@dataclass(frozen=True)
class Battleship(Env[BattleshipState, tuple[()]]):
    """Sink a fleet on a board of B x B cells that is never shown (POPGym, Morad et al. 2023).

    Observation float32 [1]: whether the last shot hit; it does not say where that shot went. Actions: the B^2 cells,
    row by row. The first shot at a ship's cell is a hit and pays 1 / H, H being the cells of all ships; any other
    shot, at water or at a cell shot at before, pays -1 / (B^2 - H). So hits alone earn 1, and shooting at every cell
    once earns 0 before the last hit spares the rest. The episode terminates when all is hit and is truncated after
    B^2 steps. The ships are placed one after another, each uniformly among the places that are free (they may touch).
    `info["success"]`: all is hit. No params.

    A blind sweep, row by row, needs no more memory than the previous action. It earns 0.167, 0.174 and 0.179 on the
    boards of 8, 10 and 12 (means of 200k, 95 %: +- 0.0007).
    """

    size: int = 8
    """B, rows and columns."""
    ships: tuple[int, ...] = (2, 3, 3, 4)
    """Lengths of the ships, in the order in which they are placed."""

    name: ClassVar[str] = "battleship"
    time_limit: ClassVar[Literal["terminal", "truncate"]] = "truncate"
    fixed_length: ClassVar[bool] = False
    paper: ClassVar[str] = "Morad et al. 2023 (arXiv 2303.01859)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "ships", tuple(self.ships))
        if not 2 <= self.size <= 64:
            raise ValueError(f"battleship: size must be in 2 .. 64, got {self.size}.")
        if not 1 <= len(self.ships) <= 100 or not all(1 <= length <= self.size for length in self.ships):
            raise ValueError(
                f"battleship: ships must be 1 to 100 lengths in 1 .. size = {self.size} each, got {self.ships}."
            )
        # Enough for that: a row has size // length places apart, and a cell that is taken spoils one of them at most.
        taken = 0
        for length in self.ships:
            if taken >= self.size * (self.size // length):
                raise ValueError(
                    f"battleship: ships must leave room for each other however they lie, got {self.ships} "
                    f"with size = {self.size}."
                )
            taken += length
        if taken >= self.size**2:
            raise ValueError(f"battleship: ships must leave some water, got {self.ships} with size = {self.size}.")

    @property
    def cells(self) -> int:
        return self.size**2

    @property
    def targets(self) -> int:
        """Cells of all ships."""
        return sum(self.ships)

    @property
    def horizon(self) -> int:
        return self.cells

    def default_params(self) -> tuple[()]:
        return ()

    def reset(self, key: Array, params: tuple[()]) -> tuple[BattleshipState, TimeStep]:
        board = jnp.zeros(self.cells, jnp.int8)
        for number, (length, ship_key) in enumerate(
            zip(self.ships, jax.random.split(key, len(self.ships)), strict=True), start=1
        ):
            places = jnp.asarray(_places(self.size, length))
            free = (board[places] == 0).all(axis=1).cumsum(dtype=jnp.int32)
            drawn = jax.random.randint(ship_key, (), 0, free[-1], jnp.int32)
            board = board.at[places[jnp.argmax(free > drawn)]].set(jnp.int8(number))
        no = jnp.zeros((), bool)
        state = BattleshipState(
            ships=board,
            shot=jnp.zeros(self.cells, bool),
            last=jnp.int32(-1),
            hit=no,
            hits=jnp.int32(0),
            t=jnp.int32(0),
        )
        return state, opening(self._obs(state), info={"success": no})

    def step(
        self, key: Array, state: BattleshipState, action: Array, params: tuple[()]
    ) -> tuple[BattleshipState, TimeStep]:
        del key
        hit = (state.ships[action] > 0) & ~state.shot[action]
        reward = jnp.where(hit, 1.0 / self.targets, -1.0 / (self.cells - self.targets))
        state = replace(
            state,
            shot=state.shot.at[action].set(True),
            last=action.astype(jnp.int32),
            hit=hit,
            hits=state.hits + hit,
            t=state.t + 1,
        )
        sunk = state.hits >= self.targets
        late = state.t >= self.horizon
        return state, transition(self._obs(state), reward, terminated=sunk, truncated=late, info={"success": sunk})

    def _obs(self, state: BattleshipState) -> Array:
        return state.hit[None].astype(jnp.float32)

    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (1,))

    def action_space(self) -> Discrete:
        return Discrete(self.cells)

    def expert(self, key: Array, state: BattleshipState, params: tuple[()]) -> Array:
        """The first ship's cell not yet hit. It sees the ships: an upper bound that no player reaches."""
        del key
        return jnp.argmax((state.ships > 0) & ~state.shot).astype(jnp.int32)

    def reference(self) -> dict[str, float]:
        """Both exact. The best policy without memory is not known (for the blind sweep see the class)."""
        return {"random": self._random_return(), "expert": 1.0}

    def _random_return(self) -> float:
        """Expected return of uniform shots: only the number of hits matters, so its distribution is propagated."""
        prize, fine = 1 / self.targets, 1 / (self.cells - self.targets)
        chance = (self.targets - np.arange(self.targets)) / self.cells  # of a hit, by the number of hits so far
        hits = np.zeros(self.targets + 1)
        hits[0], total = 1.0, 0.0
        for _ in range(self.horizon):
            hitting, missing = hits[:-1] * chance, hits[:-1] * (1 - chance)
            total += prize * hitting.sum() - fine * missing.sum()
            hits = np.append(missing, hits[-1]) + np.append(0.0, hitting)
        return float(total)

    def render(self, state: BattleshipState, params: tuple[()]) -> Array:
        """uint8 [14 size + 9, 14 size + 4, 3]: grey ships, red hits, white misses; orange frames the last shot. The
        bar below is the progress."""
        return _draw(self.size, state)

    def ascii(self, state: BattleshipState, params: tuple[()]) -> str:
        ships, shot = np.asarray(state.ships) > 0, np.asarray(state.shot)
        board = np.where(shot, np.where(ships, "X", "o"), np.where(ships, "#", ".")).reshape(self.size, -1)
        counts = f"step {int(state.t)} of {self.horizon}, {int(state.hits)} of {self.targets} hit"
        return "\n".join([*(" ".join(row) for row in board), counts])


def _places(size: int, length: int) -> np.ndarray:
    """int32 [P, length]: the cells of every place of a ship, lying and upright (a single cell counts once)."""
    cell = np.arange(size * size, dtype=np.int32).reshape(size, size)
    runs = np.lib.stride_tricks.sliding_window_view(cell, length, axis=1).reshape(-1, length)
    upright = np.lib.stride_tricks.sliding_window_view(cell, length, axis=0).reshape(-1, length)
    return runs if length == 1 else np.concatenate([runs, upright])


_TILE = 14
_SEA, _RIPPLE, _SEAM = (58, 122, 178), (70, 136, 192), (40, 98, 150)
_HULL, _RIM = (150, 156, 166), (92, 98, 110)


def _draw(size: int, state: BattleshipState) -> Array:
    height, width = size * _TILE + 9, size * _TILE + 4
    y, x = np.mgrid[0:height, 0:width] - 2
    row, col = np.clip(y // _TILE, 0, size - 1), np.clip(x // _TILE, 0, size - 1)
    dy, dx = y - _TILE * row - (_TILE - 1) / 2, x - _TILE * col - (_TILE - 1) / 2
    inside = (np.abs(dy) < _TILE / 2) & (np.abs(dx) < _TILE / 2)
    cell = jnp.asarray(size * row + col, jnp.int32)

    def far(radius: float) -> np.ndarray:
        return dy**2 + dx**2 <= radius**2

    ripple = (np.abs(dy - 1.4 * np.sin(0.9 * dx)) < 0.7) & (np.abs(dx) < 4)
    image = draw.paint(draw.canvas(height, width, _SEAM), jnp.asarray(inside), _SEA)
    image = draw.paint(image, jnp.asarray(inside & ripple), _RIPPLE)
    image = draw.paint(image, jnp.asarray(inside & ((np.abs(dy) > 6) | (np.abs(dx) > 6))), _SEAM)

    # A hull is a disc in each cell, and a bar from it to each neighbour of the same ship.
    ships = state.ships.reshape(size, size)
    around = jnp.pad(ships, 1)
    sides = [
        (
            (around[1 + v : 1 + v + size, 1 + h : 1 + h + size] == ships)[row, col] & (v * dy + h * dx > 0),
            h * dy + v * dx,
        )
        for v, h in ((-1, 0), (1, 0), (0, -1), (0, 1))
    ]
    ship, shot = state.ships[cell] > 0, state.shot[cell]
    for radius, color in ((5.6, _RIM), (4.4, _HULL)):
        bars = [linked & jnp.asarray(np.abs(aside) <= radius) for linked, aside in sides]
        hull = functools.reduce(operator.or_, bars, jnp.asarray(far(radius)))
        image = draw.paint(image, hull & ship & inside, color)

    image = draw.paint(image, shot & ship & far(3.9), draw.RED)
    image = draw.paint(image, shot & ship & far(1.6), (255, 214, 120))
    image = draw.paint(image, shot & ~ship & jnp.asarray(far(3.2)), draw.WHITE)
    image = draw.paint(image, shot & ~ship & jnp.asarray(far(1.6)), _SEA)
    frame = inside & (np.maximum(np.abs(dy), np.abs(dx)) > _TILE / 2 - 2)
    image = draw.paint(image, (cell == state.last) & frame, draw.ORANGE)
    done = draw.rectangle(height, width, height - 4, 0, height, width * state.t / size**2)
    image = draw.paint(image, draw.rectangle(height, width, height - 5, 0, height, width), draw.WHITE)
    return draw.paint(image, done, draw.ORANGE)
