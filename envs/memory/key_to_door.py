"""Key to door: a key taken in the first room opens the door of the last one, with a distraction in between."""

from __future__ import annotations

import functools
import math
from collections import deque
from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.spaces import Box, Discrete
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition

Array = jax.Array

HEIGHT, WIDTH, REACH = 7, 11, 2
CELLS = HEIGHT * WIDTH  # a cell is row * WIDTH + column; CELLS itself stands for "outside of the board"
KEY_STEPS, DOOR_STEPS, RESPAWN = 15, 10, 20
NEVER = np.iinfo(np.int32).max
_KEY_ROOM, _APPLE_ROOM, _DOOR_ROOM = range(3)
_DOOR = 1 * WIDTH + 5
_STEPS = ((0, 1), (-1, 0), (0, -1), (1, 0))  # east, north, west, south

# Mean number of apples of the scripted collector by (delay, apples), 65536 episodes each; 95 %: +- 0.013, 0.05, 0.1.
_COLLECTED = {(60, 10): 23.147, (250, 10): 94.29, (500, 10): 187.98}


@struct.dataclass
class KeyToDoorState:
    cell: Array  # int32 [], where the agent is in the present room
    key_cell: Array  # int32 [], where the key lies or lay
    has_key: Array  # bool []
    opened: Array  # bool [], the door was opened
    ready: Array  # int32 [22], when the apple of each spot is there (again); NEVER where none grows
    t: Array  # int32 [], steps taken


@dataclass(frozen=True)
class KeyToDoor(Env[KeyToDoorState, tuple[()]]):
    """Take the key, spend `delay` steps in another room, then open the door (Hung et al. 2019; Mesnard et al. 2021).

    Three rooms in turn. Key room, 15 steps: two parts of 5 x 2 cells joined by a passage; the key is in the upper
    part, the agent starts in the lower one. Apple room, `delay` steps, 5 x 9 cells: `apples` of 22 spots bear an
    apple, which pays `apple_reward` and is back 21 steps after it was taken. Door room, 10 steps, 3 x 3 cells: the
    door, two cells north of the agent, is a wall without the key; entering it pays `door_reward` once. Positions of
    key, agent and apples are drawn for each episode.

    Observation float32 [100]: what lies in the 5 x 5 cells around the agent, row by row, a cell being the flags (wall,
    key, apple, door). Whether one has the key is not shown. Actions: east, north, west, south; a wall leaves the agent
    in place. The episode always lasts 25 + `delay` steps. `info["success"]`: the door was opened. No params.

    With `apples=0, door_reward=1` it is the task on which Chen et al. 2021 (arXiv 2106.01345) train from random walks:
    the room in between is empty, and the only reward depends on what was done `delay` steps before.
    """

    delay: int = 60
    """Steps in the room between key and door."""
    apples: int = 10
    """Spots with an apple, at most 22."""
    apple_reward: float = 1.0
    """Reward of an apple."""
    door_reward: float = 5.0
    """Reward of opening the door."""

    name: ClassVar[str] = "key_to_door"
    paper: ClassVar[str] = "Hung et al. 2019 (arXiv 1810.06721); Ni et al. 2023 (arXiv 2307.03864)"

    def __post_init__(self) -> None:
        if self.delay < 0:
            raise ValueError(f"key_to_door: delay must be at least 0, got {self.delay}.")
        if not 0 <= self.apples <= len(_spots()):
            raise ValueError(f"key_to_door: apples must be in 0 .. {len(_spots())}, got {self.apples}.")
        for field in ("apple_reward", "door_reward"):
            if not math.isfinite(getattr(self, field)):
                raise ValueError(f"key_to_door: {field} must be finite, got {getattr(self, field)}.")

    @property
    def horizon(self) -> int:
        return KEY_STEPS + self.delay + DOOR_STEPS

    def default_params(self) -> tuple[()]:
        return ()

    def reset(self, key: Array, params: tuple[()]) -> tuple[KeyToDoorState, TimeStep]:
        key_key, key_agent, key_apples = jax.random.split(key, 3)
        draws = [jax.random.randint(k, (), 0, 10, jnp.int32) for k in (key_key, key_agent)]
        lot = jax.random.uniform(key_apples, (len(_spots()),), jnp.float32)
        before = (lot < lot[:, None]) | ((lot == lot[:, None]) & np.tri(len(_spots()), k=-1, dtype=bool))
        grows = before.sum(axis=1) < self.apples  # of the lowest lots; a sort would cost more
        state = KeyToDoorState(
            cell=jnp.array(_part(4), jnp.int32)[draws[1]],
            key_cell=jnp.array(_part(1), jnp.int32)[draws[0]],
            has_key=jnp.zeros((), bool),
            opened=jnp.zeros((), bool),
            ready=jnp.where(grows, 0, NEVER).astype(jnp.int32),
            t=jnp.int32(0),
        )
        return state, opening(self._obs(state), info={"success": state.opened})

    def step(
        self, key: Array, state: KeyToDoorState, action: Array, params: tuple[()]
    ) -> tuple[KeyToDoorState, TimeStep]:
        del key
        room = self._room(state.t)
        layout = room + ((room == _DOOR_ROOM) & state.has_key)
        cell = jnp.array(_moves())[layout, action, state.cell].astype(jnp.int32)

        spot = jnp.array(_spot_of())[cell].astype(jnp.int32)
        eats = (room == _APPLE_ROOM) & (jnp.arange(len(_spots()), dtype=jnp.int32) == spot) & (state.ready <= state.t)
        opens = (room == _DOOR_ROOM) & (cell == _DOOR) & ~state.opened
        t = state.t + 1
        later = self._room(t)
        state = replace(
            state,
            cell=jnp.where(later == room, cell, jnp.array(_entries(), jnp.int32)[later]),
            has_key=state.has_key | ((room == _KEY_ROOM) & (cell == state.key_cell)),
            opened=state.opened | opens,
            ready=jnp.where(eats, t + RESPAWN + 1, state.ready),
            t=t,
        )
        reward = self.apple_reward * eats.any() + self.door_reward * opens
        return state, transition(self._obs(state), reward, terminated=t >= self.horizon, info={"success": state.opened})

    def _room(self, t: Array) -> Array:
        return (t >= KEY_STEPS).astype(jnp.int32) + (t >= KEY_STEPS + self.delay)

    def _obs(self, state: KeyToDoorState) -> Array:
        room, seen = self._room(state.t), jnp.array(_seen(), jnp.int32)[state.cell]
        wall = jnp.array(_walls())[room, seen]
        key = (seen == state.key_cell) & (room == _KEY_ROOM) & ~state.has_key
        apple = self._apples(state)[seen] & (room == _APPLE_ROOM)
        door = (seen == _DOOR) & (room == _DOOR_ROOM)
        return jnp.stack([wall, key, apple, door], axis=-1).reshape(-1).astype(jnp.float32)

    def _apples(self, state: KeyToDoorState) -> Array:
        """bool [CELLS + 1]: an apple is there."""
        spot = jnp.array(_spot_of(), jnp.int32)
        return (spot < len(_spots())) & (state.ready <= state.t)[jnp.minimum(spot, len(_spots()) - 1)]

    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (4 * (2 * REACH + 1) ** 2,))

    def action_space(self) -> Discrete:
        return Discrete(4)

    def expert(self, key: Array, state: KeyToDoorState, params: tuple[()]) -> Array:
        """The shortest way to the key and to the door (optimal); among the apples to the first of the two that can
        be had soonest one after the other (not optimal)."""
        del key
        room = self._room(state.t)
        spots = np.array(_spots())
        toward, distance = _ways()
        between = np.where(np.eye(len(spots), dtype=bool), 2, distance[_APPLE_ROOM][spots][:, spots])
        # Moves until an apple is had; one that is not back yet cannot be taken before that.
        wait = jnp.clip(state.ready - state.t, -1, 1000) + 1
        first = jnp.maximum(jnp.array(distance[_APPLE_ROOM][:, spots], jnp.int32)[state.cell], wait)
        both = jnp.maximum(first[:, None] + jnp.array(between, jnp.int32), wait)
        both = jnp.where(jnp.eye(len(spots), dtype=bool), 2000, both)
        aim = jnp.array(spots, jnp.int32)[jnp.argmin((2 * both + first[:, None]).min(axis=1))]
        aim = jnp.where(room == _KEY_ROOM, state.key_cell, jnp.where(room == _APPLE_ROOM, aim, _DOOR))
        return jnp.array(toward)[room, state.cell, aim].astype(jnp.int32)

    def reference(self) -> dict[str, float]:
        """`random` is exact: see `_random_outcome`. `expert` is exact without apples; with them it is measured for the
        presets (see above). The best policy without memory is not known."""
        fruit, opened = _random_outcome(self.delay)
        found = {"random": self.apple_reward * fruit * self.apples + self.door_reward * opened}
        collected = _COLLECTED.get((self.delay, self.apples)) if self.apples else 0.0
        return found if collected is None else found | {"expert": self.apple_reward * collected + self.door_reward}

    def render(self, state: KeyToDoorState, params: tuple[()]) -> Array:
        """uint8 [120, 176, 3]: the present room, what is out of sight shaded; the agent carries the key on it. The bar
        below shows the time, a colour a room."""
        return _draw(self, state, self._room(state.t), self._apples(state))

    def ascii(self, state: KeyToDoorState, params: tuple[()]) -> str:
        room, t = int(self._room(state.t)), min(int(state.t), self.horizon)
        board = np.where(_walls()[room], "#", np.where(_floor()[room], ".", " "))
        if room == _KEY_ROOM and not bool(state.has_key):
            board[int(state.key_cell)] = "k"
        if room == _APPLE_ROOM:
            board[np.asarray(self._apples(state))] = "a"
        if room == _DOOR_ROOM:
            board[_DOOR] = "d"
        board[int(state.cell)] = "A"
        rows = ["".join(board[WIDTH * i : WIDTH * (i + 1)]) for i in range(HEIGHT)]
        return "\n".join(rows) + f"\nstep {t} of {self.horizon}{', with the key' if bool(state.has_key) else ''}"


# --- the rooms, as tables made once ------------------------------------------------------------------------------
@functools.cache
def _floor() -> np.ndarray:
    """bool [3, CELLS + 1]: the cells of each room, without the door."""
    board = np.zeros((3, HEIGHT, WIDTH), bool)
    board[_KEY_ROOM, 1:6, 3:8] = True
    board[_KEY_ROOM, 3, [3, 7]] = False
    board[_APPLE_ROOM, 1:6, 1:10] = True
    board[_DOOR_ROOM, 2:5, 4:7] = True
    return np.pad(board.reshape(3, -1), ((0, 0), (0, 1)))


@functools.cache
def _walls() -> np.ndarray:
    """bool [3, CELLS + 1]: whatever touches the floor, also at a corner, and is neither floor nor door."""
    floor = _floor()[:, :-1].reshape(3, HEIGHT, WIDTH)
    near = np.zeros_like(floor)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            near |= np.roll(floor, (dy, dx), axis=(1, 2))  # the outermost cells are no floor, so nothing wraps around
    walls = (near & ~floor).reshape(3, -1)
    walls[_DOOR_ROOM, _DOOR] = False
    return np.pad(walls, ((0, 0), (0, 1)))


def _part(row: int) -> list[int]:
    """The ten cells of two rows of the key room."""
    return [r * WIDTH + c for r in (row, row + 1) for c in range(3, 8)]


def _entries() -> tuple[int, int, int]:
    """Where each room is entered; the first entry is never used."""
    return 4 * WIDTH + 5, 5 * WIDTH + 5, 3 * WIDTH + 5


@functools.cache
def _spots() -> tuple[int, ...]:
    """The 22 cells of the apple room where an apple can be: every second one, but not where the agent enters."""
    cells = (r * WIDTH + c for r in range(1, 6) for c in range(1, 10) if (r + c) % 2 == 0)
    return tuple(cell for cell in cells if cell != _entries()[_APPLE_ROOM])


@functools.cache
def _spot_of() -> np.ndarray:
    """int8 [CELLS + 1]: the spot in a cell, 22 where there is none."""
    table = np.full(CELLS + 1, len(_spots()), np.int8)
    table[list(_spots())] = np.arange(len(_spots()))
    return table


@functools.cache
def _moves() -> np.ndarray:
    """int8 [4, 4, CELLS]: the next cell by layout (the three rooms, then the third with an open door), action, cell."""
    open_ = np.concatenate([_floor(), _floor()[-1:]])
    open_[-1, _DOOR] = True
    table = np.tile(np.arange(CELLS, dtype=np.int8), (4, 4, 1))
    for layout, action, cell in np.ndindex(table.shape):
        to = cell + _STEPS[action][0] * WIDTH + _STEPS[action][1]
        if open_[layout, cell] and open_[layout, np.clip(to, 0, CELLS)]:
            table[layout, action, cell] = to
    return table


@functools.cache
def _seen() -> np.ndarray:
    """int8 [CELLS, 25]: the cells around each cell, row by row."""
    index = np.pad(np.arange(CELLS).reshape(HEIGHT, WIDTH), REACH, constant_values=CELLS)
    windows = np.lib.stride_tricks.sliding_window_view(index, (2 * REACH + 1, 2 * REACH + 1))
    return windows.reshape(CELLS, -1).astype(np.int8)


@functools.cache
def _ways() -> tuple[np.ndarray, np.ndarray]:
    """(int8 [3, CELLS, CELLS] the action that leads from a cell towards another on a shortest way, int32 of the same
    shape: the length of that way); rooms with the door open. Anything where there is no way."""
    toward = np.ones((3, CELLS, CELLS), np.int8)
    distance = np.full((3, CELLS, CELLS), 99, np.int32)
    for room, moves in enumerate(_moves()[[0, 1, 3]]):
        for goal in range(CELLS):
            distance[room, goal, goal] = 0
            queue = deque([goal])
            while queue:
                cell = queue.popleft()
                for action, before in zip(*np.nonzero(moves == cell), strict=True):
                    if distance[room, before, goal] == 99:
                        distance[room, before, goal] = distance[room, cell, goal] + 1
                        toward[room, before, goal] = action
                        queue.append(before)
    return toward, distance


@functools.cache
def _random_outcome(delay: int) -> tuple[float, float]:
    """Of uniform actions, (expected number of apples taken per apple grown, chance to open the door); both exact."""
    walk = np.stack([sum(np.eye(CELLS)[moves[a]] for a in range(4)) / 4 for moves in _moves()])

    def reach(layout: int, start: np.ndarray, goal: int, steps: int) -> float:
        """Chance to step on `goal` within `steps` steps; `start` is a distribution over cells."""
        missed = np.delete(np.eye(CELLS), goal, 0)
        chance = np.delete(start, goal)
        for _ in range(steps):
            chance = chance @ (missed @ walk[layout] @ missed.T)
        return 1 - chance.sum()

    starts = np.isin(np.arange(CELLS), _part(4)) / 10
    has_key = np.mean([reach(_KEY_ROOM, starts, goal, KEY_STEPS) for goal in _part(1)])
    entries = np.eye(CELLS)[list(_entries())]
    opened = has_key * reach(3, entries[_DOOR_ROOM], _DOOR, DOOR_STEPS)

    # An apple is a clock beside the walk: row w of `chance` is "back in w steps", row 0 "there".
    fruit = np.zeros(len(_spots()))
    chance = np.zeros((len(_spots()), RESPAWN + 2, CELLS))
    chance[:, 0] = entries[_APPLE_ROOM]
    each = np.arange(len(_spots())), list(_spots())
    for _ in range(delay):
        moved = chance @ walk[_APPLE_ROOM]
        taken = moved[each[0], 0, each[1]]
        fruit += taken
        moved[each[0], 0, each[1]] = 0.0
        chance = np.concatenate([moved[:, :1] + moved[:, 1:2], moved[:, 2:], np.zeros_like(moved[:, :1])], axis=1)
        chance[each[0], -1, each[1]] += taken
    return float(fruit.mean()), float(opened)


# --- the picture -------------------------------------------------------------------------------------------------
_TILE = 16
_GROUND, _BRICK, _VOID = (236, 230, 216), (92, 84, 96), (28, 27, 34)
_GOLD, _WOOD = (232, 176, 28), (136, 84, 44)


def _draw(env: KeyToDoor, state: KeyToDoorState, room: Array, apples: Array) -> Array:
    height, width = HEIGHT * _TILE + 8, WIDTH * _TILE
    cell = np.full((height, width), CELLS)
    cell[: HEIGHT * _TILE] = np.arange(CELLS).reshape(HEIGHT, WIDTH).repeat(_TILE, 0).repeat(_TILE, 1)
    y, x = np.mgrid[0:height, 0:width] % _TILE - (_TILE - 1) / 2
    wall, floor = jnp.array(_walls())[room][cell], jnp.array(_floor())[room][cell]

    image = draw.canvas(height, width, _VOID)
    image = draw.paint(image, floor, _GROUND)
    image = draw.paint(image, floor & ((np.abs(x) > 7) | (np.abs(y) > 7)), (224, 216, 200))
    image = draw.paint(image, wall, _BRICK)
    joint = (np.abs(y + 7.5) < 1) | (np.abs(y) < 1) | (np.abs(np.where(y < 0, x, x + 7.5)) < 1)
    image = draw.paint(image, wall & joint, (72, 65, 76))

    fruit = ((x - 2) ** 2 + (y - 1.5) ** 2 <= 17) | ((x + 2) ** 2 + (y - 1.5) ** 2 <= 17)
    stem, leaf = (np.abs(x) <= 0.6) & (y < -1) & (y > -6), (x - 2.5) ** 2 / 8 + (y + 4.5) ** 2 / 3 <= 1
    here = apples[cell] & (room == _APPLE_ROOM)
    for mask, color in ((fruit, draw.RED), (stem, _WOOD), (leaf, draw.GREEN)):
        image = draw.paint(image, here & mask, color)

    door = (room == _DOOR_ROOM) & (cell == _DOOR)
    image = draw.paint(image, door, jnp.where(state.opened, jnp.array(_GROUND), jnp.array(_WOOD)).astype(jnp.uint8))
    image = draw.paint(image, door & ((np.abs(x) > 6) | (y < -6)), (92, 54, 26))
    image = draw.paint(image, door & ~state.opened & ((x - 3.5) ** 2 + (y - 1) ** 2 <= 3), _GOLD)

    lying = (cell == state.key_cell) & (room == _KEY_ROOM) & ~state.has_key
    image = draw.paint(image, lying & _key_shape(x, y), (120, 84, 10))
    image = draw.paint(image, lying & _key_shape(x + 0.8, y + 0.8), _GOLD)

    seen = jnp.zeros(CELLS + 1, bool).at[jnp.array(_seen(), jnp.int32)[state.cell]].set(True)[cell]
    image = jnp.where((seen | (cell == CELLS))[..., None], image, (image * 0.62).astype(jnp.uint8))

    mine = cell == state.cell
    image = draw.paint(image, mine & (x**2 + y**2 <= 44), draw.BLUE)
    carried = state.has_key & ~state.opened
    image = draw.paint(image, mine & carried & _key_shape(1.25 * x, 1.25 * y), _GOLD)
    image = draw.paint(image, mine & ~carried & ((np.abs(x) - 2.5) ** 2 + (y + 1) ** 2 <= 2.3), draw.WHITE)

    at = np.arange(width)[None] * env.horizon / width  # the step that each column of the bar stands for
    bar = np.broadcast_to(np.arange(height)[:, None] >= height - 6, (height, width))
    colors = np.array([_GOLD, draw.RED, _WOOD], np.uint8)
    part = (at >= KEY_STEPS).astype(int) + (at >= KEY_STEPS + env.delay)
    full = jnp.where((at < state.t)[..., None], colors[part], (colors[part] * 0.3).astype(np.uint8))
    return jnp.where(bar[..., None], full, image)


def _key_shape(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A lying key: bow on the left, bits on the right."""
    bow = ((x + 3.5) ** 2 + y**2 <= 10.5) & ((x + 3.5) ** 2 + y**2 >= 2.2)
    shaft = (np.abs(y) <= 1) & (x >= -1) & (x <= 6.5)
    bits = (y > 0) & (y <= 3.6) & ((np.abs(x - 5.5) <= 1.1) | (np.abs(x - 2.2) <= 0.9))
    return bow | shaft | bits
