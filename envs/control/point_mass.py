"""Point mass: bring a sliding puck to the origin at the least quadratic cost; linear, so that the optimum is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
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

START_POSITION, START_VELOCITY = 1.0, 0.5  # half-widths of the uniform start, metres and m/s


@struct.dataclass
class PointMassState:
    position: Array  # float32 [2], metres
    velocity: Array  # float32 [2], m/s
    t: Array  # int32 [], steps taken


@struct.dataclass
class PointMassParams:
    """float32 [] each."""

    mass: Array  # kg
    drag: Array  # N s/m
    force: Array  # N at action 1
    gust: Array  # m/s, half-width of the uniform shove per step
    position_cost: Array  # per m^2
    velocity_cost: Array  # per (m/s)^2
    action_cost: Array  # per action^2
    dt: Array  # seconds a step


@dataclass(frozen=True)
class PointMass2D(Env[PointMassState, PointMassParams]):
    """A puck with drag and random shoves in the plane: a linear-quadratic regulator.

    Observation float32 [4]: position and velocity. Action float32 [2]: shares of the force of 3 N along x and y.
    A step moves the puck by dt * velocity, then changes the velocity by dt * (force * action - drag * velocity) / mass
    + gust, uniform in +-0.02 m/s and fresh in each direction. It pays -(|position|^2 + 0.1 |velocity|^2 + 2 |action|^2)
    with the new position and velocity. Every episode is truncated after `limit` steps. At the default params the
    optimal action never meets its bounds.
    """

    limit: int = 50
    """Steps until the episode is cut."""

    name: ClassVar[str] = "point_mass"
    time_limit: ClassVar[Literal["terminal", "truncate"]] = "truncate"
    paper: ClassVar[str] = "Kalman 1960 (linear-quadratic regulator)"

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"{self.name}: limit must be at least 1, got {self.limit}.")

    @property
    def horizon(self) -> int:
        return self.limit

    def default_params(self) -> PointMassParams:
        return PointMassParams(
            mass=jnp.float32(1.0),
            drag=jnp.float32(0.2),
            force=jnp.float32(3.0),
            gust=jnp.float32(0.02),
            position_cost=jnp.float32(1.0),
            velocity_cost=jnp.float32(0.1),
            action_cost=jnp.float32(2.0),
            dt=jnp.float32(0.1),
        )

    def reset(self, key: Array, params: PointMassParams) -> tuple[PointMassState, TimeStep]:
        """Position uniform in +-1 m, velocity in +-0.5 m/s."""
        start = jax.random.uniform(key, (4,), jnp.float32, -1.0, 1.0)
        state = PointMassState(position=START_POSITION * start[:2], velocity=START_VELOCITY * start[2:], t=jnp.int32(0))
        return state, opening(self._obs(state))

    def step(
        self, key: Array, state: PointMassState, action: Array, params: PointMassParams
    ) -> tuple[PointMassState, TimeStep]:
        action = jnp.clip(action, -1, 1)
        keep, push = _linear(params)
        shove = params.gust * jax.random.uniform(key, (2,), jnp.float32, -1.0, 1.0)
        position = state.position + params.dt * state.velocity
        velocity = keep * state.velocity + push * action + shove
        state = PointMassState(position=position, velocity=velocity, t=state.t + 1)
        cost = params.position_cost * position**2 + params.velocity_cost * velocity**2 + params.action_cost * action**2
        return state, transition(self._obs(state), -jnp.sum(cost), truncated=state.t >= self.limit)

    def _obs(self, state: PointMassState) -> Array:
        return jnp.concatenate([state.position, state.velocity])

    def observation_space(self) -> Box:
        return Box(-math.inf, math.inf, (4,))

    def action_space(self) -> Box:
        return Box(-1.0, 1.0, (2,))

    def expert(self, key: Array, state: PointMassState, params: PointMassParams) -> Array:
        """The optimum for the steps that are left (which the observation does not show), from the Riccati recursion:
        exact for any params, as long as no action meets its bounds."""
        del key
        gains = self._gains(params)[jnp.minimum(state.t, self.limit - 1)]
        return jnp.clip(-gains[0] * state.position - gains[1] * state.velocity, -1, 1)

    def _gains(self, params: PointMassParams) -> Array:
        """float32 [T, 2]: the optimal action at each time is -gains @ (position, velocity), in each direction."""
        keep, push = _linear(params)
        dt = params.dt

        def back(value: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], Array]:
            # The cost to go is a p^2 + 2 b p v + c v^2; first that of the state stepped into.
            a, b, c = value
            a, c = a + params.position_cost, c + params.velocity_cost
            stiff = params.action_cost + push**2 * c
            from_p, from_v = push * b / stiff, push * (dt * b + keep * c) / stiff
            left = keep - push * from_v  # what remains of a unit of velocity
            new_a = a - push * b * from_p
            new_b = dt * a + b * left
            new_c = dt**2 * a + 2 * dt * keep * b + keep**2 * c - stiff * from_v**2
            return (new_a, new_b, new_c), jnp.stack([from_p, from_v])

        zero = jnp.float32(0)
        return jax.lax.scan(back, (zero, zero, zero), None, self.limit, reverse=True)[1]

    def reference(self) -> dict[str, float]:
        """Exact: second moments under uniform actions, and the Riccati recursion in float64."""
        return {"random": self._random_return(), "expert": self._best_return()}

    def _random_return(self) -> float:
        step, push, state_cost, action_cost, moment, shove = _matrices(self.default_params())
        total = 0.0
        for _ in range(self.limit):
            moment = step @ moment @ step.T + np.outer(push, push) / 3 + shove
            total += np.sum(state_cost * moment) + action_cost / 3
        return -2 * float(total)

    def _best_return(self) -> float:
        step, push, state_cost, action_cost, moment, shove = _matrices(self.default_params())
        value, noise = np.zeros((2, 2)), 0.0
        for _ in range(self.limit):
            value = value + state_cost
            noise += np.sum(value * shove)
            gain = (push @ value @ step) / (action_cost + push @ value @ push)
            value = step.T @ value @ (step - np.outer(push, gain))
        return -2 * float(np.sum(value * moment) + noise)

    def render(self, state: PointMassState, params: PointMassParams) -> Array:
        """uint8 [96, 96, 3]: the plane of +-1.5 m about the origin, the puck with its velocity (0.5 s ahead), below the
        progress."""
        size, centre, scale = 96, 46.0, 29.0
        image = draw.canvas(size, size)
        for radius, color in ((44.0, (236, 240, 246)), (29.5, (222, 230, 241)), (15.0, (206, 219, 237))):
            image = draw.paint(image, draw.disc(size, size, centre, 48.0, radius), color)
        for half_y, half_x in ((0.7, 5.0), (5.0, 0.7)):
            cross = draw.rectangle(size, size, centre - half_y, 48 - half_x, centre + half_y, 48 + half_x)
            image = draw.paint(image, cross, draw.GREEN)
        x, y = jnp.clip(state.position, -1.55, 1.55) * scale
        y, x = centre - y, 48 + x
        ahead_x, ahead_y = 0.5 * state.velocity * scale
        arrow = draw.segment(size, size, y, x, y - ahead_y, x + ahead_x, 2)
        image = draw.paint(image, arrow, draw.ORANGE)
        image = draw.paint(image, draw.disc(size, size, y, x, 4), draw.BLACK)
        image = draw.paint(image, draw.disc(size, size, y, x, 3), draw.BLUE)
        done = draw.rectangle(size, size, size - 4, 0, size, size * state.t / self.limit)
        return draw.paint(image, done, draw.BLUE)

    def ascii(self, state: PointMassState, params: PointMassParams) -> str:
        rows = [[" "] * 21 for _ in range(11)]
        rows[5][10] = "+"
        x, y = state.position.tolist()
        rows[min(10, max(0, round(5 - 4 * y)))][min(20, max(0, round(10 + 8 * x)))] = "O"
        text = "\n".join("".join(row).rstrip() for row in rows)
        vx, vy = state.velocity.tolist()
        return f"{text}\nat ({x:+.2f}, {y:+.2f}) m, velocity ({vx:+.2f}, {vy:+.2f}) m/s, step {int(state.t)}"


def _linear(params: PointMassParams) -> tuple[Array, Array]:
    """Of velocity' = keep * velocity + push * action: (keep, push)."""
    return 1 - params.dt * params.drag / params.mass, params.dt * params.force / params.mass


def _matrices(params: PointMassParams) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, np.ndarray, np.ndarray]:
    """One direction, float64: transition [2, 2], push [2], cost of the state [2, 2] and of the action, second moments
    of the start and of a shove [2, 2]."""
    p = {name: float(value) for name, value in vars(params).items()}
    keep, push = 1 - p["dt"] * p["drag"] / p["mass"], p["dt"] * p["force"] / p["mass"]
    return (
        np.array([[1.0, p["dt"]], [0.0, keep]]),
        np.array([0.0, push]),
        np.diag([p["position_cost"], p["velocity_cost"]]),
        p["action_cost"],
        np.diag([START_POSITION**2, START_VELOCITY**2]) / 3,
        np.diag([0.0, p["gust"] ** 2 / 3]),
    )
