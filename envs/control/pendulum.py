"""Pendulum: swing a rod up with a motor too weak to lift it, with and without the velocity in view."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.envs.control.mechanics import wrap
from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.spaces import Box
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition

Array = jax.Array

MAX_SPEED, MAX_TORQUE = 8.0, 2.0
_WORST_COST = math.pi**2 + 0.1 * MAX_SPEED**2 + 0.001 * MAX_TORQUE**2
# Mean summed cost of an episode by `limit`, 200k episodes each; 95 %: random +- 1.3, 1.0, 0.7, expert +- 0.4.
_COSTS = {
    200: {"random": 1229.2, "expert": 150.26},
    150: {"random": 923.7, "expert": 150.26},
    100: {"random": 616.9, "expert": 150.26},
}


@struct.dataclass
class PendulumState:
    theta: Array  # float32 [], radians from upright, in [-pi, pi]
    speed: Array  # float32 [], rad/s
    t: Array  # int32 [], steps taken


@struct.dataclass
class PendulumParams:
    """float32 [] each."""

    gravity: Array  # m/s^2
    mass: Array  # kg
    length: Array  # metres
    dt: Array  # seconds a step


@struct.dataclass
class NoisyPendulumParams(PendulumParams):
    noise: Array  # standard deviation added to each observed number


@dataclass(frozen=True)
class Pendulum(Env[PendulumState, PendulumParams]):
    """Swing the rod up and hold it there with a torque of at most 2 N m: gymnasium's Pendulum-v1.

    Observation float32 [3]: (cos theta, sin theta, speed). Action float32 [1]: the torque. A step pays
    -(theta^2 + 0.1 speed^2 + 0.001 torque^2) for the state it starts from. Every episode is truncated after `limit`
    steps and never ends otherwise.
    """

    limit: int = 200
    """Steps until the episode is cut."""

    name: ClassVar[str] = "pendulum"
    time_limit: ClassVar[Literal["terminal", "truncate"]] = "truncate"
    paper: ClassVar[str] = "Gymnasium Pendulum-v1"

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"{self.name}: limit must be at least 1, got {self.limit}.")

    @property
    def horizon(self) -> int:
        return self.limit

    def default_params(self) -> PendulumParams:
        return PendulumParams(
            gravity=jnp.float32(10.0), mass=jnp.float32(1.0), length=jnp.float32(1.0), dt=jnp.float32(0.05)
        )

    def reset(self, key: Array, params: PendulumParams) -> tuple[PendulumState, TimeStep]:
        """The angle is uniform on the circle, the speed in +-1."""
        start_key, obs_key = jax.random.split(key)
        theta, speed = jax.random.uniform(start_key, (2,), jnp.float32, -1.0, 1.0)
        state = PendulumState(theta=theta * math.pi, speed=speed, t=jnp.int32(0))
        return state, opening(self._obs(obs_key, state, params))

    def step(
        self, key: Array, state: PendulumState, action: Array, params: PendulumParams
    ) -> tuple[PendulumState, TimeStep]:
        torque = jnp.clip(action[0], -MAX_TORQUE, MAX_TORQUE)
        cost = state.theta**2 + 0.1 * state.speed**2 + 0.001 * torque**2
        lift, push = _accelerations(params)
        speed = state.speed + params.dt * (lift * jnp.sin(state.theta) + push * torque)
        speed = jnp.clip(speed, -MAX_SPEED, MAX_SPEED)
        theta = wrap(state.theta + params.dt * speed)
        state = PendulumState(theta=theta, speed=speed, t=state.t + 1)
        late = state.t >= self.limit
        return state, transition(self._obs(key, state, params), self._reward(-cost), truncated=late)

    def _reward(self, reward: Array) -> Array:
        return reward

    def _obs(self, key: Array, state: PendulumState, params: PendulumParams) -> Array:
        del key, params
        return jnp.stack([jnp.cos(state.theta), jnp.sin(state.theta), state.speed])

    def observation_space(self) -> Box:
        bound = (1.0, 1.0, MAX_SPEED)
        return Box(tuple(-b for b in bound), bound, (3,))

    def action_space(self) -> Box:
        return Box(-MAX_TORQUE, MAX_TORQUE, (1,))

    def expert(self, key: Array, state: PendulumState, params: PendulumParams) -> Array:
        """Pump energy until the rod can reach the top; near it, cancel gravity and damp."""
        del key
        lift, push = _accelerations(params)
        energy = state.speed**2 / 2 + lift * (jnp.cos(state.theta) - 1)  # 0 at rest on top
        pump = jnp.where(energy < 0, MAX_TORQUE, -MAX_TORQUE) * jnp.where(state.speed >= 0, 1.0, -1.0)
        hold = -(lift * jnp.sin(state.theta) + 10.0 * state.theta + 5.0 * state.speed) / push
        torque = jnp.where(jnp.abs(state.theta) < 0.5, hold, pump)
        return jnp.clip(torque, -MAX_TORQUE, MAX_TORQUE)[None]

    def reference(self) -> dict[str, float]:
        """Measured (see above) for the limits of the presets; no figure of the best memoryless policy is known."""
        return {policy: self._return(cost) for policy, cost in _COSTS.get(self.limit, {}).items()}

    def _return(self, cost: float) -> float:
        """The episode return that a summed cost amounts to."""
        return -cost

    def render(self, state: PendulumState, params: PendulumParams) -> Array:
        """uint8 [80, 80, 3]: the rod from its hinge; upright is up."""
        size, centre, reach = 80, 38.0, 30.0
        image = draw.canvas(size, size)
        image = draw.paint(image, draw.disc(size, size, centre, centre + 2, reach + 4), (240, 240, 243))
        tip_y, tip_x = centre - reach * jnp.cos(state.theta), centre + 2 + reach * jnp.sin(state.theta)
        image = draw.paint(image, draw.segment(size, size, centre, centre + 2, tip_y, tip_x, 7), draw.ORANGE)
        image = draw.paint(image, draw.disc(size, size, centre, centre + 2, 2.5), draw.BLACK)
        done = draw.rectangle(size, size, size - 4, 0, size, size * state.t / self.limit)
        return draw.paint(image, done, draw.BLUE)

    def ascii(self, state: PendulumState, params: PendulumParams) -> str:
        rows = [[" "] * 9 for _ in range(5)]
        y, x = 2 - 2 * math.cos(float(state.theta)), 4 + 4 * math.sin(float(state.theta))
        rows[round((2 + y) / 2)][round((4 + x) / 2)] = "*"
        rows[2][4], rows[round(y)][round(x)] = "+", "O"
        angle = math.degrees(float(state.theta))
        return "\n".join("".join(r) for r in rows) + f"\n{angle:+.0f} deg, {float(state.speed):+.1f} rad/s"


@dataclass(frozen=True)
class PositionOnlyPendulum(Pendulum):
    """Pendulum that shows only the angle, float32 [2]: (cos theta, sin theta) (POPGym).

    Rewards are mapped from [worst, 0] to [-1, 1] and divided by `limit`, so that a perfect return would be 1.
    """

    name: ClassVar[str] = "position_only_pendulum"
    paper: ClassVar[str] = "Morad et al. 2023 (arXiv 2303.01859)"

    def _reward(self, reward: Array) -> Array:
        return (1 + 2 * reward / _WORST_COST) / self.limit

    def _return(self, cost: float) -> float:
        return 1 - 2 * cost / _WORST_COST / self.limit

    def _obs(self, key: Array, state: PendulumState, params: PendulumParams) -> Array:
        del key, params
        return jnp.stack([jnp.cos(state.theta), jnp.sin(state.theta)])

    def observation_space(self) -> Box:
        return Box(-1.0, 1.0, (2,))


@dataclass(frozen=True)
class NoisyPositionOnlyPendulum(PositionOnlyPendulum):
    """PositionOnlyPendulum with independent Gaussian noise on both numbers, then clipped to +-1 (POPGym)."""

    name: ClassVar[str] = "noisy_position_only_pendulum"

    def default_params(self) -> NoisyPendulumParams:
        return NoisyPendulumParams(**vars(super().default_params()), noise=jnp.float32(0.1))

    def _obs(self, key: Array, state: PendulumState, params: PendulumParams) -> Array:
        assert isinstance(params, NoisyPendulumParams)  # what default_params makes; for the type checker
        position = jnp.stack([jnp.cos(state.theta), jnp.sin(state.theta)])
        return jnp.clip(position + params.noise * jax.random.normal(key, (2,), jnp.float32), -1.0, 1.0)


def _accelerations(params: PendulumParams) -> tuple[Array, Array]:
    """(gravity's largest angular acceleration, that of a unit torque) of a thin rod hinged at its end."""
    return 3 * params.gravity / (2 * params.length), 3 / (params.mass * params.length**2)
