"""T-maze: a cue seen once decides which way to turn at the end of a corridor."""

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

Array = jax.Array

EAST, NORTH, WEST, SOUTH = range(4)
_DX = (1, 0, -1, 0)
_DY = (0, 1, 0, -1)
_LINE = 100  # cells of a corridor that is drawn cell by cell


@struct.dataclass
class TMazeState:
    x: Array  # int32 [], 0 .. junction
    y: Array  # int32 [], -1, 0 or 1; not 0 only at the junction
    goal: Array  # int32 [], -1 or 1
    seen: Array  # bool [], the cue's cell was visited before this step
    t: Array  # int32 [], steps taken


@struct.dataclass
class TMazeParams:
    penalty: Array
    """float32 []: reward per step of lagging behind the shortest way, as a share of 1/length."""


@dataclass(frozen=True)
class TMaze(Env[TMazeState, TMazeParams]):
    """Walk `length` cells east, then turn to the side that a cue named (Bakker 2001; Ni et al. 2023).

    Passive: the start cell shows the cue. Active: the cue is one cell west of the start and must be fetched first.
    It is shown on the first visit of its cell only. Observation float32 [2]: (junction flag, the cue in {-1, 1} where
    it is shown, else the row y). Actions: east, north, west, south; a wall leaves the agent in place. The episode
    lasts `length + 1` steps (active `length + 3`), just enough for the shortest way; the last step pays 1 at the goal,
    and every earlier one -penalty / length while the agent is behind that way. `info["success"]`: the goal was
    reached.
    """

    length: int = 50
    """Cells from the start to the junction."""
    active: bool = False
    """The cue is one cell behind the start, so one has to go back for it."""

    name: ClassVar[str] = "tmaze"
    paper: ClassVar[str] = "Bakker 2001; Ni et al. 2023 (arXiv 2307.03864)"

    def __post_init__(self) -> None:
        if self.length < 2:
            raise ValueError(f"tmaze: length must be at least 2, got {self.length}.")

    @property
    def start(self) -> int:
        """The cell where the agent starts; the cue is in cell 0."""
        return 1 if self.active else 0

    @property
    def junction(self) -> int:
        return self.start + self.length

    @property
    def horizon(self) -> int:
        return 2 * self.start + self.length + 1

    def default_params(self) -> TMazeParams:
        return TMazeParams(penalty=jnp.float32(1.0))

    def reset(self, key: Array, params: TMazeParams) -> tuple[TMazeState, TimeStep]:
        goal = jnp.where(jax.random.bernoulli(key), 1, -1).astype(jnp.int32)
        zero = jnp.int32(0)
        state = TMazeState(x=jnp.int32(self.start), y=zero, goal=goal, seen=jnp.zeros((), bool), t=zero)
        return state, opening(self._obs(state), info={"success": jnp.zeros((), bool)})

    def step(self, key: Array, state: TMazeState, action: Array, params: TMazeParams) -> tuple[TMazeState, TimeStep]:
        del key
        dx, dy = jnp.array(_DX, jnp.int32)[action], jnp.array(_DY, jnp.int32)[action]
        in_arm = state.y != 0
        x = jnp.where(in_arm, state.x, jnp.clip(state.x + dx, 0, self.junction))
        y = jnp.where(state.x == self.junction, jnp.clip(state.y + dy, -1, 1), 0)
        state = replace(state, x=x, y=y, seen=state.seen | (state.x == 0), t=state.t + 1)

        over = state.t >= self.horizon
        success = over & (y == state.goal)
        # Whoever fetches the cue first is at x = t - start, and that costs nothing.
        behind = x < state.t - self.start
        reward = jnp.where(over, success.astype(jnp.float32), -(behind * params.penalty) / self.length)
        return state, transition(self._obs(state), reward, terminated=over, info={"success": success})

    def _obs(self, state: TMazeState) -> Array:
        cue_shown = (state.x == 0) & ~state.seen
        return jnp.array([state.x == self.junction, jnp.where(cue_shown, state.goal, state.y)], jnp.float32)

    def observation_space(self) -> Box:
        return Box(-1.0, 1.0, (2,))

    def action_space(self) -> Discrete:
        return Discrete(4)

    def expert(self, key: Array, state: TMazeState, params: TMazeParams) -> Array:
        """The shortest way by the cue to the goal; stays in the goal's arm once there."""
        del key
        turn = jnp.where(state.goal > 0, NORTH, SOUTH)
        fetch_cue = (state.t == 0) & self.active
        return jnp.where(fetch_cue, WEST, jnp.where(state.x == self.junction, turn, EAST)).astype(jnp.int32)

    def render(self, state: TMazeState, params: TMazeParams) -> Array:
        """uint8 [40, 160, 3]: the corridor as a bar, the cue at its left end, the two arms at its right end. A corridor
        that is drawn shortened has another bar below: the last two digits of the position."""
        height, width, left, right, row = 40, 160, 10, 146, 12
        image = draw.canvas(height, width, draw.BLACK)
        image = draw.paint(image, draw.rectangle(height, width, 14, left - 4, 26, right + 8), draw.WHITE)
        image = draw.paint(image, draw.rectangle(height, width, 2, right - 4, 38, right + 8), draw.WHITE)
        middle = height / 2
        goal = draw.disc(height, width, middle - row * state.goal, right + 2, 5)
        image = draw.paint(image, goal, draw.GREEN)
        cue = draw.disc(height, width, middle - 4 * state.goal, left, 2.5)
        image = draw.paint(image, cue, draw.ORANGE)
        if self.junction > _LINE:
            last_digits = draw.rectangle(height, width, 32, left, 35, left + state.x % 100)
            image = draw.paint(image, last_digits, draw.GREY)
        x = left + (right - left) * state.x / self.junction
        return draw.paint(image, draw.disc(height, width, middle - row * state.y, x + 2, 4), draw.BLUE)

    def ascii(self, state: TMazeState, params: TMazeParams) -> str:
        """A cell is a character; a corridor that is longer than a line is shortened, and the position written out."""
        last = min(self.junction, _LINE)
        rows = {1: [" "] * (last + 1), 0: ["."] * (last + 1), -1: [" "] * (last + 1)}
        rows[1][-1] = rows[-1][-1] = "."
        rows[int(state.goal)][-1] = "G"
        rows[0][0] = "^" if int(state.goal) > 0 else "v"
        rows[int(state.y)][int(state.x) * last // self.junction] = "A"
        text = "\n".join("".join(rows[y]) for y in (1, 0, -1))
        return text if last == self.junction else f"{text}\ncell {int(state.x)} of {self.junction}"

    def reference(self) -> dict[str, float]:
        """All exact: a policy without memory guesses the side."""
        return {"random": self._random_return(), "reactive": 0.5, "expert": 1.0}

    def _random_return(self) -> float:
        """Expected return of uniform actions at the default penalty, by propagating the state distribution.

        To keep up one has to go straight from the start, so all that depends on the length happens in the first few
        steps: beyond `short` the chance of keeping up, 4 ** -length, is below 1e-38.
        """
        short = replace(self, length=min(self.length, 64))
        in_time, wins = short._chances_of_random()
        return wins - (self.horizon - 1 - in_time) / self.length

    def _chances_of_random(self) -> tuple[float, float]:
        """(expected number of steps before the last that are not behind, chance to end in the goal's arm)."""
        corridor, arms = np.zeros(self.junction + 1), np.zeros(2)
        corridor[self.start] = 1.0
        in_time = 0.0
        for t in range(1, self.horizon + 1):
            junction = corridor[-1]
            moved = 0.5 * corridor
            moved[1:] += 0.25 * corridor[:-1]
            moved[:-1] += 0.25 * corridor[1:]
            moved[0] += 0.25 * corridor[0]
            # At the junction: east is a wall, west leaves, north and south enter an arm; one way leads back from it.
            moved[-1] += -0.25 * junction + 0.25 * arms.sum()
            arms = 0.75 * arms + 0.25 * junction
            corridor = moved
            lag = max(0, t - self.start)
            if t < self.horizon:
                in_time += corridor[lag:].sum() + (arms.sum() if self.junction >= lag else 0.0)
        return float(in_time), float(arms.sum() / 2)
