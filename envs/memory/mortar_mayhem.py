"""Mortar mayhem: remember a list of commands, then walk them one by one before the tiles explode."""

from __future__ import annotations

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
from jaxrl_seq.envs.memory import walker

Array = jax.Array

COMMANDS = 5  # right, down, left, up, stay
_DY, _DX = (0, 1, 0, -1, 0), (1, 0, -1, 0, 0)
_WAY = (walker.EAST, walker.SOUTH, walker.WEST, walker.NORTH, walker.NORTH)


@struct.dataclass
class MortarMayhemState:
    commands: Array  # int8 [commands], each in 0 .. 4
    targets: Array  # int8 [commands], the cell row * size + column that each command leads to
    row: Array  # int32 []
    col: Array  # int32 []
    facing: Array  # int32 [], north, west, south, east
    t: Array  # int32 [], steps taken


@dataclass(frozen=True)
class MortarMayhem(Env[MortarMayhemState, tuple[()]]):
    """Watch a list of commands, then carry them out in order (Pleines et al. 2023, MortarMayhemGrid).

    Each of the `commands` (right, down, left, up, stay: a step on the board, never off it) is shown for `show` steps,
    then nothing for `blank`; the agent cannot move until the last of these steps. The agent starts anywhere, facing
    north. Actions: stay, turn left, turn right, walk forward. It has `delay` + 1 moves to reach the cell that the first
    command names; after the last of these moves all other cells explode, for `blast` steps; then come `delay` more
    until the next explosion, where the agent must be at the next cell, and so on. Being on a cell that explodes ends
    the episode; each command carried out pays 1 / `commands`, and the last one ends it, after 118 steps at most by
    default. `info["success"]`: that was reached. No params.

    Observation float32 [2 size + 10]: row and column of the agent, one-hot each; its facing, one-hot; whether tiles
    explode; the command shown, one-hot (zeros if none). With `given` nothing is shown or waited for and the last part
    is: the steps until the next explosion, one-hot [delay + blast]; the commands that were not yet checked, the next
    one first, one-hot each and padded with zeros [5 commands]. Then no memory is needed. (The original gives all
    commands at all times and no clock, so that there the place in the list must be remembered.)
    """

    size: int = 5
    """Rows and columns."""
    commands: int = 10
    """Commands in an episode."""
    show: int = 3
    """Steps that a command is shown."""
    blank: int = 1
    """Steps without a command after each."""
    delay: int = 6
    """Steps between the end of an explosion and the next one."""
    blast: int = 2
    """Steps that an explosion lasts."""
    given: bool = False
    """The control without memory: the commands are in every observation."""

    name: ClassVar[str] = "mortar_mayhem"
    paper: ClassVar[str] = "Pleines et al. 2023 (Memory Gym, ICLR 2023)"
    fixed_length: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 2 <= self.size <= 11:
            raise ValueError(f"mortar_mayhem: size must be in 2 .. 11, got {self.size}.")
        # Two turns and a step must fit before an explosion.
        for field, least in (("commands", 1), ("show", 1), ("blank", 0), ("delay", 2), ("blast", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"mortar_mayhem: {field} must be at least {least}, got {getattr(self, field)}.")

    @property
    def frozen(self) -> int:
        """Steps at the start in which the agent cannot move."""
        return 0 if self.given else (self.show + self.blank) * self.commands - 1

    @property
    def period(self) -> int:
        """Steps from one explosion to the next."""
        return self.delay + self.blast

    @property
    def first_check(self) -> int:
        """Steps taken when the first explosion starts."""
        return self.frozen + self.delay + 1

    @property
    def horizon(self) -> int:
        return self.first_check + self.period * (self.commands - 1)

    def default_params(self) -> tuple[()]:
        return ()

    def reset(self, key: Array, params: tuple[()]) -> tuple[MortarMayhemState, TimeStep]:
        key_start, key_commands = jax.random.split(key)
        start = jax.random.randint(key_start, (), 0, self.size**2, jnp.int32)
        legal, count = (jnp.array(x, jnp.int32) for x in _legal_commands(self.size))
        shift = jnp.array(_DY, jnp.int32) * self.size + jnp.array(_DX, jnp.int32)

        def draw_one(cell: Array, lot: Array) -> tuple[Array, tuple[Array, Array]]:
            which = jnp.minimum((lot * count[cell]).astype(jnp.int32), count[cell] - 1)
            command = legal[cell, which]
            cell = cell + shift[command]
            return cell, (command.astype(jnp.int8), cell.astype(jnp.int8))

        lots = jax.random.uniform(key_commands, (self.commands,), jnp.float32)
        _, (commands, targets) = jax.lax.scan(draw_one, start, lots)
        state = MortarMayhemState(
            commands=commands,
            targets=targets,
            row=start // self.size,
            col=start % self.size,
            facing=jnp.int32(walker.NORTH),
            t=jnp.int32(0),
        )
        return state, opening(self._obs(state), info={"success": jnp.zeros((), bool)})

    def step(
        self, key: Array, state: MortarMayhemState, action: Array, params: tuple[()]
    ) -> tuple[MortarMayhemState, TimeStep]:
        del key
        action = jnp.where(state.t < self.frozen, walker.STAY, action)
        row, col, facing = walker.walk(state.row, state.col, state.facing, action, self.size)
        state = replace(state, row=row, col=col, facing=facing, t=state.t + 1)
        since, which = self._explosion(state.t)
        safe = row * self.size + col == state.targets[which]
        dead = (since < self.blast) & ~safe
        done = (since == 0) & safe
        success = done & (state.t >= self.horizon)
        over = dead | (state.t >= self.horizon)
        return state, transition(
            self._obs(state), jnp.where(done, 1 / self.commands, 0.0), terminated=over, info={"success": success}
        )

    def _explosion(self, t: Array) -> tuple[Array, Array]:
        """Of the latest explosion at time t, (int32 [] steps since its start, int32 [] its command); (period, 0) before
        the first one."""
        since = t - self.first_check
        which = jnp.clip(since // self.period, 0, self.commands - 1)
        return jnp.where(since < 0, self.period, since % self.period), which

    def _checked(self, t: Array) -> Array:
        """int32 []: commands whose explosion has started by time t."""
        return jnp.clip((t - self.first_check) // self.period + 1, 0, self.commands)

    def _shown(self, state: MortarMayhemState) -> tuple[Array, Array]:
        """(bool [] a command is on show, int32 [] the command)."""
        cycle = self.show + self.blank
        on_show = (state.t < cycle * self.commands) & (state.t % cycle < self.show) & (not self.given)
        return on_show, state.commands[jnp.clip(state.t // cycle, 0, self.commands - 1)].astype(jnp.int32)

    def _obs(self, state: MortarMayhemState) -> Array:
        place = jax.nn.one_hot(jnp.stack([state.row, state.col]), self.size, dtype=jnp.float32).ravel()
        facing = jax.nn.one_hot(state.facing, 4, dtype=jnp.float32)
        explodes = (self._explosion(state.t)[0] < self.blast).astype(jnp.float32)
        if not self.given:
            on_show, command = self._shown(state)
            shown = jax.nn.one_hot(command, COMMANDS, dtype=jnp.float32) * on_show
            return jnp.concatenate([place, facing, explodes[None], shown])
        until = (self.first_check - 1 - state.t) % self.period
        ahead = self._checked(state.t) + jnp.arange(self.commands, dtype=jnp.int32)
        queue = state.commands[jnp.minimum(ahead, self.commands - 1)].astype(jnp.int32)
        queue = jax.nn.one_hot(queue, COMMANDS, dtype=jnp.float32) * (ahead < self.commands)[:, None]
        clock = jax.nn.one_hot(until, self.period, dtype=jnp.float32)
        return jnp.concatenate([place, facing, explodes[None], clock, queue.ravel()])

    def observation_space(self) -> Box:
        tail = self.period + COMMANDS * self.commands if self.given else COMMANDS
        return Box(0.0, 1.0, (2 * self.size + 5 + tail,))

    def action_space(self) -> Discrete:
        return Discrete(4)

    def expert(self, key: Array, state: MortarMayhemState, params: tuple[()]) -> Array:
        """Straight to the next cell as soon as the tiles allow, then stays."""
        del key
        # The cell to be on after this step: an explosion holds the agent until it is over.
        after = state.t + 1 - self.first_check - self.blast
        which = jnp.clip(after // self.period + 1, 0, self.commands - 1)
        target = state.targets[which].astype(jnp.int32)
        arrived = state.row * self.size + state.col == target
        want = jnp.array(_WAY, jnp.int32)[state.commands[which]]
        return jnp.where(arrived, walker.STAY, walker.head_for(state.facing, want)).astype(jnp.int32)

    def reference(self) -> dict[str, float]:
        """All exact. With the commands given, one can turn and walk at fixed times before an explosion; the best policy
        without memory is not known otherwise."""
        exact = {"random": self._random_return(), "expert": 1.0}
        return exact | {"reactive": 1.0} if self.given else exact

    def _random_return(self) -> float:
        """Expected return of uniform actions, by propagating the distribution over cell and facing."""
        cells = self.size**2
        walk, (legal, count) = _random_walk(self.size), _legal_commands(self.size)
        same = np.kron(np.eye(cells), np.ones((4, 4)))  # [state, state]: both in the same cell
        chance = np.zeros((cells, 4))
        chance[:, walker.NORTH] = 1 / cells
        free = np.linalg.matrix_power(walk, self.delay + 1).reshape(cells, 4, cells, 4)
        held = np.linalg.matrix_power(walk * same, self.blast - 1)
        total = 0.0
        for _ in range(self.commands):
            alive = np.zeros((cells, 4))
            for cell in range(cells):
                for command in legal[cell, : count[cell]]:
                    target = cell + _DY[command] * self.size + _DX[command]
                    alive[target] += chance[cell] @ free[cell, :, target] / count[cell]
            total += alive.sum() / self.commands
            chance = (alive.ravel() @ held).reshape(cells, 4)
        return float(total)

    def render(self, state: MortarMayhemState, params: tuple[()]) -> Array:
        """uint8 [24 size + 30, 24 size, 3]: the board, a ring on the next cell, exploding tiles red; the command shown
        is large in the middle; below, the list, what was carried out green."""
        return _draw(self, state)

    def ascii(self, state: MortarMayhemState, params: tuple[()]) -> str:
        on_show, command = self._shown(state)
        checked, t = int(self._checked(state.t)), min(int(state.t), self.horizon)
        explodes = int(self._explosion(state.t)[0]) < self.blast
        board = np.full((self.size, self.size), "*" if explodes else ".")
        board.flat[int(state.targets[max(checked - 1, 0) if explodes else min(checked, self.commands - 1)])] = "o"
        board[int(state.row), int(state.col)] = "^<v>"[int(state.facing)]
        names = [">v<^o"[int(c)] for c in np.asarray(state.commands)]
        todo = "".join(names[:checked]) + "|" + "".join(names[checked:])
        shown = f", shows {'>v<^o'[int(command)]}" if bool(on_show) else ""
        return "\n".join([*("".join(row) for row in board), todo, f"step {t} of {self.horizon}{shown}"])


def _legal_commands(size: int) -> tuple[np.ndarray, np.ndarray]:
    """(int8 [size^2, 5] the commands that stay on the board, in front; int8 [size^2] how many they are), by cell."""
    row, col = np.divmod(np.arange(size**2)[:, None], size)
    to_row, to_col = row + np.array(_DY), col + np.array(_DX)
    legal = (np.minimum(to_row, to_col) >= 0) & (np.maximum(to_row, to_col) < size)
    return np.argsort(~legal, axis=1, kind="stable").astype(np.int8), legal.sum(axis=1).astype(np.int8)


def _random_walk(size: int) -> np.ndarray:
    """float64 [4 size^2, 4 size^2]: transitions of the states cell * 4 + facing under uniform actions."""
    chance = np.zeros((size, size, 4, size, size, 4))
    for row, col, facing in np.ndindex(size, size, 4):
        for turn in (0, 1, -1):
            chance[row, col, facing, row, col, (facing + turn) % 4] += 0.25
        to = (np.clip(at + step[facing], 0, size - 1) for at, step in ((row, walker.DY), (col, walker.DX)))
        chance[row, col, facing, *to, facing] += 0.25
    return chance.reshape(4 * size**2, 4 * size**2)


# --- the picture -------------------------------------------------------------------------------------------------
_TILE, _STRIP = 24, 30
_FLOOR, _SEAM, _FIRE, _GLOW, _PANEL = (36, 66, 118), (22, 40, 74), (166, 36, 34), (228, 92, 40), (18, 20, 30)


def _draw(env: MortarMayhem, state: MortarMayhemState) -> Array:
    side = env.size * _TILE
    height = side + _STRIP
    y, x = np.mgrid[0:height, 0:side]
    cell = np.minimum(y // _TILE, env.size - 1) * env.size + x // _TILE
    dy, dx = y % _TILE - (_TILE - 1) / 2, x % _TILE - (_TILE - 1) / 2
    board = y < side
    tile = board & (np.maximum(np.abs(dy), np.abs(dx)) < 11)
    since, which = env._explosion(state.t)
    explodes, checked = since < env.blast, env._checked(state.t)
    due = jnp.where(explodes, which, jnp.minimum(checked, env.commands - 1))
    target = state.targets[due].astype(jnp.int32)

    image = draw.canvas(height, side, _PANEL)
    image = draw.paint(image, board, _SEAM)
    image = draw.paint(image, tile, _FLOOR)
    burning = explodes & (cell != target)
    image = draw.paint(image, burning & tile, _FIRE)
    image = draw.paint(image, burning & tile & (dy**2 + dx**2 < 36 + 14 * np.cos(5 * np.arctan2(dy, dx))), _GLOW)
    acts = state.t >= env.frozen
    ring = (cell == target) & tile & (np.abs(np.hypot(dy, dx) - 9.2) < 1.2)
    image = draw.paint(image, acts & ring, (96, 220, 130))
    centre = _TILE * state.row + _TILE / 2, _TILE * state.col + _TILE / 2
    image = walker.draw_walker(image, *centre, state.facing, 7.5)

    on_show, command = env._shown(state)
    middle, reach = (side - 1) / 2, 0.3 * side
    bubble = ((y - middle) ** 2 + (x - middle) ** 2 <= (1.3 * reach) ** 2) & on_show
    image = jnp.where(bubble[..., None], (image * 0.35).astype(jnp.uint8), image)
    image = draw.paint(image, bubble & _glyph((y - middle) / reach, (x - middle) / reach, command), draw.WHITE)

    pitch = side / env.commands
    slot = np.minimum((x / pitch).astype(int), env.commands - 1)
    half = min(pitch, 20.0) / 2 - 0.5
    local = (y - side - 12) / half, (x - (slot + 0.5) * pitch + 0.5) / half
    sign = _glyph(*local, state.commands[slot].astype(jnp.int32)) & ~board
    watched = jnp.int32(env.commands) if env.given else state.t // (env.show + env.blank)
    colors = jnp.array([(70, 74, 92), (225, 225, 232), draw.GREEN], jnp.uint8)
    known = (slot <= watched).astype(jnp.int32)
    image = draw.paint(image, sign, colors[jnp.where(slot < checked, 2, known)])
    bar = y >= height - 4
    image = draw.paint(image, bar & (x * env.horizon < state.t * side), draw.ORANGE)
    return image


def _glyph(y: np.ndarray, x: np.ndarray, command: Array) -> Array:
    """An arrow within the unit square around (0, 0), or a ring with a bar for "stay"."""
    dy, dx = jnp.array(_DY, jnp.float32)[command], jnp.array(_DX, jnp.float32)[command]
    along, across = x * dx + y * dy, jnp.abs(x * dy - y * dx)
    shaft = (across <= 0.2) & (along >= -0.85) & (along <= 0.2)
    head = (along >= 0) & (across <= 0.85 - along)
    radius = np.hypot(y, x)
    stay = (np.abs(radius - 0.65) < 0.15) | (radius < 0.65) & (np.abs(y) < 0.15)
    return jnp.where(command == 4, stay, shaft | head)
