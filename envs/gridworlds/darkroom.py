"""Dark rooms: a hidden goal, or a key and a door, that only the reward gives away."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.protocol import TaskEnv
from jaxrl_seq.envs.core.spaces import Box, Discrete, MultiDiscrete, Space
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition
from jaxrl_seq.envs.gridworlds.grid import ARROWS, FLOOR, MOVES, STAY, clock_bar, tiles, token

Array = jax.Array
ACTIONS = len(MOVES)


@struct.dataclass
class DarkRoomState:
    task: Array  # int32 [], the goal's cell, or the number of a permutation of actions
    cell: Array  # int32 []
    found: Array  # bool [], the goal was stood on
    t: Array  # int32 [], steps taken


@dataclass(frozen=True)
class _Room(TaskEnv[Any, tuple[()]]):
    """An empty square of size x size cells, numbered row by row; walls leave one in place."""

    size: int = 9
    limit: int = 20
    """Steps of an episode."""
    coordinates: bool = False
    """Show row and column as numbers in 0 .. 1."""

    def __post_init__(self) -> None:
        for field, least in (("size", 2), ("limit", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"{self.name}: {field} must be at least {least}, got {getattr(self, field)}.")

    @property
    def cells(self) -> int:
        return self.size**2

    @property
    def horizon(self) -> int:
        return self.limit

    def default_params(self) -> tuple[()]:
        return ()

    def observation_space(self) -> Space:
        return Box(0.0, 1.0, (2,)) if self.coordinates else MultiDiscrete((self.size, self.size))

    def action_space(self) -> Discrete:
        return Discrete(ACTIONS)

    def _obs(self, state: Any) -> Array:
        place = jnp.stack([state.cell // self.size, state.cell % self.size])
        return place.astype(jnp.float32) / (self.size - 1) if self.coordinates else place

    def moved(self, cell: Array, action: Array) -> Array:
        step = jnp.asarray(MOVES)[action]
        row, col = (jnp.clip(x + d, 0, self.size - 1) for x, d in zip(divmod(cell, self.size), step, strict=True))
        return (row * self.size + col).astype(jnp.int32)

    def toward(self, cell: Array, goal: Array) -> Array:
        """int32 []: a move of a shortest way: along the column first."""
        down, right = goal // self.size - cell // self.size, goal % self.size - cell % self.size
        vertical, horizontal = jnp.where(down < 0, 0, 2), jnp.where(right < 0, 3, 1)
        return jnp.where(down != 0, vertical, jnp.where(right != 0, horizontal, STAY)).astype(jnp.int32)

    def all_toward(self, cell: Array, goal: Array) -> Array:
        """bool [A]: the moves of all shortest ways; on the goal, those that stay there."""
        after = jax.vmap(self.moved, in_axes=(None, 0))(cell, jnp.arange(ACTIONS))
        return self._steps(after, goal) == jnp.maximum(self._steps(cell, goal) - 1, 0)

    def _steps(self, start: Any, goal: Any) -> Any:
        """Steps of the shortest way between cells, NumPy or JAX."""
        return abs(start // self.size - goal // self.size) + abs(start % self.size - goal % self.size)

    def _uniform_walk(self) -> np.ndarray:
        """float64 [cells, cells]: the transition matrix of uniform actions."""
        row, col = np.divmod(np.arange(self.cells), self.size)
        matrix = np.zeros((self.cells, self.cells))
        for down, right in MOVES:
            to = np.clip(row + down, 0, self.size - 1) * self.size + np.clip(col + right, 0, self.size - 1)
            np.add.at(matrix, (np.arange(self.cells), to), 1 / ACTIONS)
        return matrix

    def _hit_chances(self, goals: np.ndarray) -> np.ndarray:
        """float64 [G, limit + 1, cells]: that a uniform walk from a cell has stepped on the goal within t steps."""
        walk, at = self._uniform_walk(), np.eye(self.cells)[goals]
        hit = np.zeros((len(goals), self.limit + 1, self.cells))
        for t in range(self.limit):
            hit[:, t + 1] = (at + (1 - at) * hit[:, t]) @ walk.T
        return hit

    def _picture(self, state: Any, marks: tuple[tuple[Array, tuple[int, int, int]], ...]) -> Array:
        colors = jnp.broadcast_to(jnp.array(FLOOR, jnp.uint8), (self.cells, 3))
        for cell, color in marks:
            colors = jnp.where((jnp.arange(self.cells) == cell)[:, None], jnp.array(color, jnp.uint8), colors)
        image = tiles(colors.reshape(self.size, self.size, 3))
        image = token(image, state.cell // self.size, state.cell % self.size, draw.BLUE)
        return clock_bar(image, state.t / self.limit)

    def _text(self, state: Any, marks: dict[int, str]) -> str:
        letters = ["."] * self.cells
        for cell, letter in (marks | {int(state.cell): "@"}).items():
            letters[cell] = letter
        rows = ["".join(letters[i : i + self.size]) for i in range(0, self.cells, self.size)]
        return "\n".join(rows) + f"\nstep {int(state.t)} of {self.limit}"


@dataclass(frozen=True)
class DarkRoom(_Room):
    """Find a hidden goal in an empty room; standing on it pays 1 a step (Laskin et al. 2022).

    The task is the goal's cell, uniform over all. Observation int32 [2]: row and column of the own cell (or float32
    [2] in 0 .. 1); the goal is never seen. Actions: up, right, down, left, stay. Every episode lasts `limit`
    steps. With `once` only the first step on the goal pays. With `permuted` the goal is known, the corner opposite to
    the start, and the task is which of the 120 permutations of the actions is in force. `info["success"]`: the goal
    has been stood on.
    """

    corner: bool = False
    """Start in cell 0 instead of the centre."""
    once: bool = False
    permuted: bool = False

    name: ClassVar[str] = "darkroom"
    paper: ClassVar[str] = "Laskin et al. 2022 (arXiv 2210.14215); Lee et al. 2023 (arXiv 2306.14892)"

    @property
    def start(self) -> int:
        return 0 if self.corner else (self.size // 2) * (self.size + 1)

    def sample_task(self, key: Array, params: tuple[()]) -> Array:
        return jax.random.randint(key, (), 0, len(_ORDERS) if self.permuted else self.cells, jnp.int32)

    def tasks(self, params: tuple[()]) -> Array:
        return jnp.arange(len(_ORDERS) if self.permuted else self.cells, dtype=jnp.int32)

    def goal(self, task: Any) -> Any:
        """The goal's cell in a task."""
        return self.cells - 1 - 0 * task if self.permuted else task

    def reset_to(self, key: Array, task: Array, params: tuple[()]) -> tuple[DarkRoomState, TimeStep]:
        del key
        no = jnp.zeros((), bool)
        state = DarkRoomState(task=task, cell=jnp.int32(self.start), found=no, t=jnp.int32(0))
        return state, opening(self._obs(state), info={"success": no})

    def step(
        self, key: Array, state: DarkRoomState, action: Array, params: tuple[()]
    ) -> tuple[DarkRoomState, TimeStep]:
        del key
        move = jnp.asarray(_ORDERS)[state.task, action] if self.permuted else action
        cell = self.moved(state.cell, move)
        on_goal = cell == self.goal(state.task)
        reward = on_goal & ~state.found if self.once else on_goal
        state = replace(state, cell=cell, found=state.found | on_goal, t=state.t + 1)
        over = state.t >= self.limit
        return state, transition(self._obs(state), reward, terminated=over, info={"success": state.found})

    def expert(self, key: Array, state: DarkRoomState, params: tuple[()]) -> Array:
        """A shortest way to the goal, then standing on it."""
        del key
        move = self.toward(state.cell, self.goal(state.task))
        return jnp.asarray(_INVERSES)[state.task, move] if self.permuted else move

    def optimal_actions(self, state: DarkRoomState, params: tuple[()]) -> Array:
        """bool [A]: the moves of all shortest ways to the goal; all moves once nothing more is to be had."""
        moves = self.all_toward(state.cell, self.goal(state.task))
        moves = moves[jnp.asarray(_ORDERS)[state.task]] if self.permuted else moves
        return moves | (state.found if self.once else False)

    def optimal_return(self, task: Array, params: tuple[()]) -> Array:
        return self._best(jnp.asarray(task), jnp)

    def _best(self, task: Any, np_: Any) -> Any:
        steps = np_.maximum(self._steps(self.start, self.goal(task)), 1)  # standing still on the goal takes a step too
        paid = np_.maximum(self.limit + 1 - steps, 0)
        return np_.minimum(paid, 1 if self.once else self.limit).astype(np_.float32)

    def reference(self) -> dict[str, float]:
        """All exact. Without memory the goal may be anywhere at every step, so no way of walking earns more than
        1 / cells a step; that of the best one under `once` is to step on as many new cells. Left out if permuted."""
        tasks = np.arange(len(_ORDERS) if self.permuted else self.cells)
        expert = {"expert": float(self._best(tasks, np).mean())}
        if self.permuted:
            at, random, walk = np.eye(self.cells)[self.start], 0.0, self._uniform_walk()
            for _ in range(self.limit):
                at = at @ walk
                random += at[-1]
            return {"random": float(random)} | expert
        if self.once:
            random = self._hit_chances(tasks)[:, -1, self.start].mean()
            # a walk that steps on a new cell every time exists at least while some are left
            blind = {"reactive": self.limit / self.cells} if self.limit < self.cells else {}
            return {"random": float(random)} | blind | expert
        return {"random": self.limit / self.cells, "reactive": self.limit / self.cells} | expert

    def render(self, state: DarkRoomState, params: tuple[()]) -> Array:
        """uint8 [16 size + 4, 16 size, 3]: the room, the goal (green, pale until found), the agent, the clock."""
        goal = jnp.where(state.found, jnp.array(draw.GREEN), jnp.array((178, 221, 194)))
        return self._picture(state, ((self.goal(state.task), goal),))  # pyright: ignore[reportArgumentType]

    def ascii(self, state: DarkRoomState, params: tuple[()]) -> str:
        order = "".join(ARROWS[i] for i in _ORDERS[int(state.task)]) if self.permuted else ""
        return self._text(state, {int(self.goal(state.task)): "G"}) + (f", actions do {order}" if order else "")


_ORDERS = np.array(list(permutations(range(ACTIONS))), np.int32)  # [120, 5]: what each action does
_INVERSES = np.argsort(_ORDERS, axis=1).astype(np.int32)


@struct.dataclass
class KeyDoorTask:
    key_cell: Array  # int32 []
    door_cell: Array  # int32 []


@struct.dataclass
class DarkKeyToDoorState:
    task: KeyDoorTask
    cell: Array  # int32 []
    has_key: Array  # bool []
    opened: Array  # bool []
    t: Array  # int32 [], steps taken


@dataclass(frozen=True)
class DarkKeyToDoor(_Room):
    """Find a hidden key, then a hidden door; each pays 1, once (Laskin et al. 2022).

    The task is the pair of cells, size^4 of them. Episodes open in a random cell. Observation as in `darkroom`: the own
    cell only, so that the reward alone tells what was found. Actions: up, right, down, left, stay. The door opens to
    whoever brought the key from an earlier step. Every episode lasts `limit` steps. `info["success"]`: the door is
    open.
    """

    limit: int = 50

    name: ClassVar[str] = "dark_key_to_door"
    paper: ClassVar[str] = "Laskin et al. 2022 (arXiv 2210.14215)"

    def sample_task(self, key: Array, params: tuple[()]) -> KeyDoorTask:
        cells = jax.random.randint(key, (2,), 0, self.cells, jnp.int32)
        return KeyDoorTask(key_cell=cells[0], door_cell=cells[1])

    def tasks(self, params: tuple[()]) -> KeyDoorTask:
        pairs = jnp.arange(self.cells**2, dtype=jnp.int32)
        return KeyDoorTask(key_cell=pairs // self.cells, door_cell=pairs % self.cells)

    def reset_to(self, key: Array, task: KeyDoorTask, params: tuple[()]) -> tuple[DarkKeyToDoorState, TimeStep]:
        no = jnp.zeros((), bool)
        cell = jax.random.randint(key, (), 0, self.cells, jnp.int32)
        state = DarkKeyToDoorState(task=task, cell=cell, has_key=no, opened=no, t=jnp.int32(0))
        return state, opening(self._obs(state), info={"success": no})

    def step(
        self, key: Array, state: DarkKeyToDoorState, action: Array, params: tuple[()]
    ) -> tuple[DarkKeyToDoorState, TimeStep]:
        del key
        cell = self.moved(state.cell, action)
        takes = (cell == state.task.key_cell) & ~state.has_key
        opens = (cell == state.task.door_cell) & state.has_key & ~state.opened
        state = replace(state, cell=cell, has_key=state.has_key | takes, opened=state.opened | opens, t=state.t + 1)
        reward = takes.astype(jnp.float32) + opens
        over = state.t >= self.limit
        return state, transition(self._obs(state), reward, terminated=over, info={"success": state.opened})

    def expert(self, key: Array, state: DarkKeyToDoorState, params: tuple[()]) -> Array:
        """A shortest way to the key, then to the door."""
        del key
        goal = jnp.where(state.has_key, state.task.door_cell, state.task.key_cell)
        return self.toward(state.cell, goal)

    def optimal_actions(self, state: DarkKeyToDoorState, params: tuple[()]) -> Array:
        """bool [A]: the moves of all shortest ways to the key, then to the door; all moves once it is open."""
        goal = jnp.where(state.has_key, state.task.door_cell, state.task.key_cell)
        return self.all_toward(state.cell, goal) | state.opened

    def optimal_return(self, task: KeyDoorTask, params: tuple[()]) -> Array:
        """float32 []: over the random start."""
        return self._best(jnp.asarray(task.key_cell), jnp.asarray(task.door_cell), jnp)

    def _best(self, key_cell: Any, door_cell: Any, np_: Any) -> Any:
        start = np_.arange(self.cells)
        to_key = np_.maximum(self._steps(start, key_cell[..., None]), 1)
        to_door = to_key + np_.maximum(self._steps(key_cell, door_cell), 1)[..., None]
        return ((to_key <= self.limit) * 1.0 + (to_door <= self.limit)).mean(-1).astype(np_.float32)

    def reference(self) -> dict[str, float]:
        """Exact: first passage of a uniform walk, from any start to any key and on to any door. No figure of the best
        policy without memory is known. Left out for rooms of more than 400 cells, where that takes minutes."""
        if self.cells > 400:
            return {}
        pairs = np.arange(self.cells)
        hit = self._hit_chances(pairs)  # [goal, t, from]
        took = np.diff(hit.mean(axis=2), axis=1)  # [key, t]: that the key is first stood on in step t + 1
        door = hit.mean(axis=0)[::-1][1:]  # [t, key]: that a random door is met in the limit - 1 - t steps left
        key, door_cell = np.meshgrid(pairs, pairs, indexing="ij")
        expert = self._best(key.ravel(), door_cell.ravel(), np).mean()
        return {"random": float(took.sum(1).mean() + (took.T * door).sum(0).mean()), "expert": float(expert)}

    def render(self, state: DarkKeyToDoorState, params: tuple[()]) -> Array:
        """uint8 [16 size + 4, 16 size, 3]: the key orange until taken, the door red, green once open; agent, clock."""
        floor = jnp.array(FLOOR)
        key = jnp.where(state.has_key, floor, jnp.array(draw.ORANGE))
        door = jnp.where(state.opened, jnp.array(draw.GREEN), jnp.array(draw.RED))
        marks = ((state.task.door_cell, door), (jnp.where(state.has_key, -1, state.task.key_cell), key))
        return self._picture(state, marks)  # pyright: ignore[reportArgumentType]

    def ascii(self, state: DarkKeyToDoorState, params: tuple[()]) -> str:
        marks = {int(state.task.door_cell): "o" if bool(state.opened) else "D"}
        marks |= {} if bool(state.has_key) else {int(state.task.key_cell): "K"}
        return self._text(state, marks)
