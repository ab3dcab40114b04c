"""Minesweeper: open the safe cells of a board of which only the number under the last cell is seen."""

from __future__ import annotations

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
class MinesweeperState:
    mines: Array  # bool [size^2]
    counts: Array  # int8 [size^2], mines in the 3 x 3 cells around each cell, itself included
    opened: Array  # bool [size^2], safe cells that were opened
    last: Array  # int32 [], the cell chosen last; -1 at the start
    t: Array  # int32 [], steps taken


@dataclass(frozen=True)
class Minesweeper(Env[MinesweeperState, tuple[()]]):
    """Open every safe cell of a B x B board that is never shown, and no mine (POPGym, Morad et al. 2023).

    Observation float32 [min(mines, 9) + 1]: how many mines the 3 x 3 cells around the last opened cell hold, one-hot
    (zeros at the reset); it does not say which cell that was. Actions: the B^2 cells, row by row. Of S = B^2 - mines
    safe cells a new one pays 1 / S, so that finding all earns 1; one opened before pays -0.5 / (S - 2); a mine pays
    -0.5 - 1 / S and terminates the episode. It also terminates when all safe cells are open, and is truncated after
    S steps, so that opening a cell twice forfeits success. The mines are drawn uniformly; the first cell may be one.
    `info["success"]`: all safe cells are open. No params.
    """

    size: int = 4
    """B, rows and columns."""
    mines: int = 2
    """Mines on the board."""

    name: ClassVar[str] = "minesweeper"
    time_limit: ClassVar[Literal["terminal", "truncate"]] = "truncate"
    fixed_length: ClassVar[bool] = False
    paper: ClassVar[str] = "Morad et al. 2023 (arXiv 2303.01859)"

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ValueError(f"minesweeper: size must be at least 2, got {self.size}.")
        if not 1 <= self.mines <= self.cells - 3:
            raise ValueError(
                f"minesweeper: mines must be in 1 .. size^2 - 3 = {self.cells - 3}, which leaves three safe cells, "
                f"got {self.mines}."
            )

    @property
    def cells(self) -> int:
        return self.size**2

    @property
    def safe(self) -> int:
        """S, the cells without a mine."""
        return self.cells - self.mines

    @property
    def horizon(self) -> int:
        return self.safe

    def default_params(self) -> tuple[()]:
        return ()

    def reset(self, key: Array, params: tuple[()]) -> tuple[MinesweeperState, TimeStep]:
        n = self.size
        # Random numbers that carry the mines in their last bit are sorted, as `cards.shuffled` does: faster on CPU.
        mine = jnp.asarray(np.arange(self.cells) < self.mines, jnp.uint32)
        numbers = jax.random.bits(key, mine.shape, jnp.uint32)
        mines = jnp.sort((numbers & ~jnp.uint32(1)) | mine) % 2 == 1
        padded = jnp.pad(mines.reshape(n, n).astype(jnp.int8), 1)
        near = [padded[i : i + n, j : j + n] for i in range(3) for j in range(3)]
        state = MinesweeperState(
            mines=mines,
            counts=jnp.stack(near).sum(axis=0, dtype=jnp.int8).ravel(),
            opened=jnp.zeros(self.cells, bool),
            last=jnp.int32(-1),
            t=jnp.int32(0),
        )
        return state, opening(self._obs(state), info={"success": jnp.zeros((), bool)})

    def step(
        self, key: Array, state: MinesweeperState, action: Array, params: tuple[()]
    ) -> tuple[MinesweeperState, TimeStep]:
        del key
        blown, again = state.mines[action], state.opened[action]
        prize = jnp.where(again, -0.5 / (self.safe - 2), 1 / self.safe)
        reward = jnp.where(blown, -0.5 - 1 / self.safe, prize)
        opened = state.opened.at[action].set(~blown)
        state = replace(state, opened=opened, last=action.astype(jnp.int32), t=state.t + 1)
        success = (state.opened | state.mines).all()
        late = state.t >= self.horizon
        return state, transition(
            self._obs(state), reward, terminated=blown | success, truncated=late, info={"success": success}
        )

    @property
    def _classes(self) -> int:
        return min(self.mines, 9) + 1

    def _obs(self, state: MinesweeperState) -> Array:
        count = jax.nn.one_hot(state.counts[jnp.maximum(state.last, 0)], self._classes, dtype=jnp.float32)
        return count * (state.last >= 0)

    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (self._classes,))

    def action_space(self) -> Discrete:
        return Discrete(self.cells)

    def expert(self, key: Array, state: MinesweeperState, params: tuple[()]) -> Array:
        """The first safe cell not yet open. It sees the mines: an upper bound that no player reaches."""
        del key
        return jnp.argmax(~state.mines & ~state.opened).astype(jnp.int32)

    def reference(self) -> dict[str, float]:
        """Both exact. The best policy without memory is not known."""
        return {"random": self._random_return(), "expert": 1.0}

    def _random_return(self) -> float:
        """Expected return of uniform actions: only the number of open cells matters, so its distribution is
        propagated. All cells are open at the last step at the earliest, so only mines end an episode before."""
        safe, mine = self.safe, self.mines / self.cells
        new = (safe - np.arange(safe)) / self.cells  # the chance of a new cell, by the number of open ones
        again = np.arange(safe) / self.cells
        gain = new / safe - again * 0.5 / (safe - 2) - mine * (0.5 + 1 / safe)
        opened = np.zeros(safe)
        opened[0], total = 1.0, 0.0
        for _ in range(self.horizon):
            total += (opened * gain).sum()
            opened = opened * again + np.append(0.0, (opened * new)[:-1])
        return float(total)

    def render(self, state: MinesweeperState, params: tuple[()]) -> Array:
        """uint8 [16 size + 9, 16 size + 4, 3]: raised cells are closed (a faint dot on those with a mine), flat ones
        open with their number; orange frames the last one. The bar below is the progress."""
        return _draw(self.size, self.horizon, state)

    def ascii(self, state: MinesweeperState, params: tuple[()]) -> str:
        mines, opened = np.asarray(state.mines), np.asarray(state.opened)
        board = np.where(opened, np.asarray(state.counts).astype(str), np.where(mines, "*", "."))
        last = int(state.last)
        if last >= 0 and mines[last]:
            board[last] = "X"
        rows = [" ".join(row) for row in board.reshape(self.size, -1)]
        return "\n".join([*rows, f"step {int(state.t)} of {self.horizon}, {int(opened.sum())} of {self.safe} open"])


_TILE = 16
_CLOSED, _LIGHT, _SHADE, _OPEN, _SEAM = (
    (176, 190, 206),
    (216, 226, 238),
    (126, 142, 162),
    (244, 242, 236),
    (98, 112, 132),
)
_FAINT = (140, 154, 174)
# Inks of the numbers 0 .. 9; there is no mine around a 0, and it is left blank.
_INKS = (
    (244, 242, 236), (46, 104, 192), (39, 155, 88), (205, 56, 48), (64, 44, 140),
    (140, 36, 30), (20, 140, 150), (20, 20, 24), (110, 110, 118), (110, 110, 118),
)  # fmt: skip
# Digits of 5 x 3 pixels, row by row from the top left.
_DIGITS = (
    "111101101101111", "010110010010111", "111001111100111", "111001111001111", "101101111001001",
    "111100111001111", "111100111101111", "111001001010010", "111101111101111", "111101111001111",
)  # fmt: skip


def _draw(size: int, horizon: int, state: MinesweeperState) -> Array:
    height, width = size * _TILE + 9, size * _TILE + 4
    y, x = np.mgrid[0:height, 0:width] - 2
    row, col = np.clip(y // _TILE, 0, size - 1), np.clip(x // _TILE, 0, size - 1)
    dy, dx = y - _TILE * row, x - _TILE * col
    inside = (dy >= 0) & (dy < _TILE - 1) & (dx >= 0) & (dx < _TILE - 1)  # a seam to the next cell
    cell = jnp.asarray(size * row + col, jnp.int32)
    mine, opened, last = state.mines[cell], state.opened[cell], cell == state.last
    blown = mine & last

    image = draw.paint(draw.canvas(height, width, _SEAM), jnp.asarray(inside), _CLOSED)
    image = draw.paint(image, jnp.asarray(inside & (np.minimum(dy, dx) < 2)), _LIGHT)
    image = draw.paint(image, jnp.asarray(inside & (np.maximum(dy, dx) >= _TILE - 3)), _SHADE)
    image = draw.paint(image, inside & opened, _OPEN)
    image = draw.paint(image, inside & blown, draw.RED)

    ry, rx = dy - 7.0, dx - 7.0
    ball = np.hypot(ry, rx) < 3.6
    spikes = (np.abs(ry) < 1) & (np.abs(rx) < 6) | (np.abs(rx) < 1) & (np.abs(ry) < 6)
    spikes |= (np.abs(np.abs(ry) - np.abs(rx)) < 1) & (np.hypot(ry, rx) < 5.5)
    image = draw.paint(image, mine & ~blown & jnp.asarray(inside & ball), _FAINT)
    image = draw.paint(image, blown & jnp.asarray(inside & (ball | spikes)), draw.BLACK)

    digits = np.array([[bit == "1" for bit in digit] for digit in _DIGITS]).reshape(10, 5, 3)
    glyph_y, glyph_x = (dy - 2) // 2, (dx - 4) // 2
    on_glyph = (dy >= 2) & (glyph_y < 5) & (dx >= 4) & (glyph_x < 3)
    count = state.counts[cell]
    ink = jnp.asarray(digits)[count, np.clip(glyph_y, 0, 4), np.clip(glyph_x, 0, 2)] & on_glyph & (count > 0)
    image = draw.paint(image, ink & opened, jnp.asarray(_INKS, jnp.uint8)[count])

    frame = inside & (np.minimum(np.minimum(dy, dx), _TILE - 2 - np.maximum(dy, dx)) < 2)
    image = draw.paint(image, last & frame, draw.ORANGE)
    image = draw.paint(image, draw.rectangle(height, width, height - 5, 0, height, width), draw.WHITE)
    return draw.paint(
        image, draw.rectangle(height, width, height - 4, 0, height, width * state.t / horizon), draw.ORANGE
    )
