"""Mountain car: rock back and forth in a valley until there is speed enough to climb out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.spaces import Box, Discrete
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition

Array = jax.Array

LEFT_END, RIGHT_END, MAX_SPEED = -1.2, 0.6, 0.07
# Mean returns by (name, limit), 20k episodes each; 95 %: expert +- 0.16, random of the second +- 0.07, its expert
# +- 0.0013. No random episode of the first reached the goal.
_RETURNS = {
    ("mountain_car", 200): {"random": -200.0, "expert": -104.83},
    ("mountain_car_continuous", 999): {"random": -33.08, "expert": 99.209},
}
_SKY, _GRASS, _EARTH = (214, 232, 245), (96, 160, 84), (146, 116, 86)


@struct.dataclass
class MountainCarState:
    x: Array  # float32 [], position; the valley's bottom is at -pi / 6
    speed: Array  # float32 [], per step
    t: Array  # int32 [], steps taken


@struct.dataclass
class MountainCarParams:
    """float32 [] each, speed gained per step."""

    force: Array  # by the motor at full power
    gravity: Array  # on the steepest slope


@dataclass(frozen=True)
class MountainCar(Env[MountainCarState, MountainCarParams]):
    """Drive out of a valley with a motor weaker than the slope: gymnasium's MountainCar-v0.

    Observation float32 [2]: (position, speed). Actions: push left, coast, push right. A step pays -1. The episode
    ends at position 0.5 and is truncated after `limit` steps. The left end is a wall that stops the car.
    `info["success"]`: the goal was reached.
    """

    limit: int = 200
    """Steps until the episode is cut."""

    name: ClassVar[str] = "mountain_car"
    time_limit: ClassVar[Literal["terminal", "truncate"]] = "truncate"
    fixed_length: ClassVar[bool] = False
    paper: ClassVar[str] = "Moore 1990; Gymnasium MountainCar-v0"
    goal: ClassVar[float] = 0.5

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"{self.name}: limit must be at least 1, got {self.limit}.")

    @property
    def horizon(self) -> int:
        return self.limit

    def default_params(self) -> MountainCarParams:
        return MountainCarParams(force=jnp.float32(0.001), gravity=jnp.float32(0.0025))

    def reset(self, key: Array, params: MountainCarParams) -> tuple[MountainCarState, TimeStep]:
        """The car rests, uniform in [-0.6, -0.4]."""
        x = jax.random.uniform(key, (), jnp.float32, -0.6, -0.4)
        state = MountainCarState(x=x, speed=jnp.float32(0), t=jnp.int32(0))
        return state, opening(self._obs(state), info={"success": jnp.zeros((), bool)})

    def step(
        self, key: Array, state: MountainCarState, action: Array, params: MountainCarParams
    ) -> tuple[MountainCarState, TimeStep]:
        del key
        throttle = self._throttle(action)
        speed = state.speed + throttle * params.force - params.gravity * jnp.cos(3 * state.x)
        speed = jnp.clip(speed, -MAX_SPEED, MAX_SPEED)
        x = jnp.clip(state.x + speed, LEFT_END, RIGHT_END)
        speed = jnp.where((x <= LEFT_END) & (speed < 0), 0.0, speed)
        state = MountainCarState(x=x, speed=speed, t=state.t + 1)
        out = (x >= self.goal) & (speed >= 0)
        reward, late = self._reward(throttle, out), state.t >= self.limit
        return state, transition(self._obs(state), reward, terminated=out, truncated=late, info={"success": out})

    def _throttle(self, action: Array) -> Array:
        """float32 []: the share of the motor's force, in [-1, 1]."""
        return action.astype(jnp.float32) - 1

    def _reward(self, throttle: Array, out: Array) -> Array:
        del throttle, out
        return jnp.float32(-1)

    def _obs(self, state: MountainCarState) -> Array:
        return jnp.stack([state.x, state.speed])

    def observation_space(self) -> Box:
        return Box((LEFT_END, -MAX_SPEED), (RIGHT_END, MAX_SPEED), (2,))

    def action_space(self) -> Discrete | Box:
        return Discrete(3)

    def expert(self, key: Array, state: MountainCarState, params: MountainCarParams) -> Array:
        """Push the way the car moves, but turn round a little before it stops: on the left slope while it still
        climbs, in the middle only once it moves to the right (a fitted cubic)."""
        del key, params
        offset = state.x + 0.52
        lean = 100 * state.speed + 0.13 - 2.55 * offset + 2.4 * offset**3
        return jnp.where(lean < 0, 0, 2).astype(jnp.int32)

    def reference(self) -> dict[str, float]:
        """Measured (see above) for the default limit; the observation is the whole state, but the optimum is not
        known."""
        return _RETURNS.get((self.name, self.limit), {})

    def render(self, state: MountainCarState, params: MountainCarParams) -> Array:
        """uint8 [80, 144, 3]: the valley with the flag at the goal, the car to the slope, below the progress."""
        height, width, scale = 80, 144, 80.0
        rows, columns = draw.grid(height, width)
        ground = _row(columns / scale + LEFT_END)
        image = draw.canvas(height, width, _SKY)
        pole = (self.goal - LEFT_END) * scale
        foot = _row(jnp.float32(self.goal))
        image = draw.paint(image, draw.rectangle(height, width, foot - 20, pole - 1, foot + 2, pole + 1), draw.BLACK)
        image = draw.paint(image, draw.rectangle(height, width, foot - 20, pole + 1, foot - 12, pole + 10), draw.RED)
        image = draw.paint(image, rows >= ground, _EARTH)
        image = draw.paint(image, (rows >= ground) & (rows < ground + 3.5), _GRASS)

        # The car stands off the ground along the normal (up, right) of the slope.
        slope = 44 * 0.45 * 3 / scale * jnp.cos(3 * state.x)
        up, right = 1 / jnp.sqrt(1 + slope**2), -slope / jnp.sqrt(1 + slope**2)
        y, x = _row(state.x), (state.x - LEFT_END) * scale

        def at(along: float, above: float) -> tuple[Array, Array]:
            return y - above * up + along * right, x + above * right + along * up

        image = draw.paint(image, draw.segment(height, width, *at(-4.5, 6), *at(4.5, 6), 6), draw.BLUE)
        image = draw.paint(image, draw.segment(height, width, *at(-1.5, 9.5), *at(1.5, 9.5), 4), draw.BLUE)
        for along in (-5.0, 5.0):
            image = draw.paint(image, draw.disc(height, width, *at(along, 3), 2.6), draw.BLACK)
        done = draw.rectangle(height, width, height - 4, 0, height, width * state.t / self.limit)
        return draw.paint(image, done, draw.BLUE)

    def ascii(self, state: MountainCarState, params: MountainCarParams) -> str:
        rows = [[" "] * 46 for _ in range(6)]
        columns = [LEFT_END + (RIGHT_END - LEFT_END) * c / 45 for c in range(46)]
        for column, x in enumerate(columns):
            rows[round(2.5 - 2.5 * math.sin(3 * x))][column] = "F" if abs(x - self.goal) < 0.02 else "."
        x = float(state.x)
        rows[round(2.5 - 2.5 * math.sin(3 * x))][round((x - LEFT_END) / (RIGHT_END - LEFT_END) * 45)] = "A"
        text = "\n".join("".join(row).rstrip() for row in rows)
        return f"{text}\nx {x:+.3f}, speed {float(state.speed):+.4f}, step {int(state.t)} of {self.limit}"


@dataclass(frozen=True)
class MountainCarContinuous(MountainCar):
    """MountainCar with a throttle: gymnasium's MountainCarContinuous-v0.

    Action float32 [1]: the throttle in [-1, 1], clipped. A step pays -0.1 throttle^2, and 100 at the goal, position
    0.45.
    """

    limit: int = 999

    name: ClassVar[str] = "mountain_car_continuous"
    paper: ClassVar[str] = "Moore 1990; Gymnasium MountainCarContinuous-v0"
    goal: ClassVar[float] = 0.45

    def default_params(self) -> MountainCarParams:
        return MountainCarParams(force=jnp.float32(0.0015), gravity=jnp.float32(0.0025))

    def _throttle(self, action: Array) -> Array:
        return jnp.clip(action[0], -1, 1)

    def _reward(self, throttle: Array, out: Array) -> Array:
        return 100.0 * out - 0.1 * throttle**2

    def action_space(self) -> Box:
        return Box(-1.0, 1.0, (1,))

    def expert(self, key: Array, state: MountainCarState, params: MountainCarParams) -> Array:
        """Push the way the car moves, the harder the faster: effort costs its square, but gains in proportion to
        the speed."""
        del key, params
        throttle = 0.05 * jnp.where(state.speed < 0, -1.0, 1.0) + 3.6 * state.speed
        return jnp.clip(throttle, -1, 1)[None]


def _row(x: Array) -> Array:
    """Pixel row of the ground at position x."""
    return 64 - 44 * (0.55 + 0.45 * jnp.sin(3 * x))
