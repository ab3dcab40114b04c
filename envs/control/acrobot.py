"""Acrobot: swing a two-link gymnast up by a motor at the waist."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.envs.control.mechanics import rk4, wrap
from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.spaces import Box, Discrete
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition

Array = jax.Array

MAX_SPEEDS = (4 * math.pi, 9 * math.pi)


@struct.dataclass
class AcrobotState:
    angles: Array  # float32 [2], of the first link from hanging, of the second from the first, in [-pi, pi]
    speeds: Array  # float32 [2], rad/s
    t: Array  # int32 [], steps taken


@struct.dataclass
class AcrobotParams:
    gravity: Array  # float32 [], m/s^2
    masses: Array  # float32 [2], kg
    length: Array  # float32 [], metres from the hinge to the waist
    centres: Array  # float32 [2], metres from a link's upper end to its centre of mass
    moment: Array  # float32 [], kg m^2, of each link about its centre of mass
    torque: Array  # float32 [], N m
    dt: Array  # float32 [], seconds a step


@dataclass(frozen=True)
class Acrobot(Env[AcrobotState, AcrobotParams]):
    """Raise the tip of a double pendulum one link above its hinge: gymnasium's Acrobot-v1.

    Observation float32 [6]: (cos, sin) of the first angle, (cos, sin) of the second, both speeds. Actions: torque -1,
    0 or 1 N m at the waist, held for one Runge-Kutta step of 0.2 s. A step pays -1, the last one 0. The episode ends
    when -cos(a) - cos(a + b) > 1 for the angles a and b, and is truncated after `limit` steps. The equations are
    those of the book (Sutton & Barto). `info["success"]`: the tip was raised.
    """

    limit: int = 500
    """Steps until the episode is cut."""

    name: ClassVar[str] = "acrobot"
    time_limit: ClassVar[Literal["terminal", "truncate"]] = "truncate"
    fixed_length: ClassVar[bool] = False
    paper: ClassVar[str] = "Sutton 1996; Gymnasium Acrobot-v1"

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"{self.name}: limit must be at least 1, got {self.limit}.")

    @property
    def horizon(self) -> int:
        return self.limit

    def default_params(self) -> AcrobotParams:
        return AcrobotParams(
            gravity=jnp.float32(9.8),
            masses=jnp.ones(2, jnp.float32),
            length=jnp.float32(1),
            centres=jnp.full(2, 0.5, jnp.float32),
            moment=jnp.float32(1),
            torque=jnp.float32(1),
            dt=jnp.float32(0.2),
        )

    def reset(self, key: Array, params: AcrobotParams) -> tuple[AcrobotState, TimeStep]:
        """Every state variable starts uniform in +-0.1."""
        start = jax.random.uniform(key, (4,), jnp.float32, -0.1, 0.1)
        state = AcrobotState(angles=start[:2], speeds=start[2:], t=jnp.int32(0))
        return state, opening(self._obs(state), info={"success": jnp.zeros((), bool)})

    def step(
        self, key: Array, state: AcrobotState, action: Array, params: AcrobotParams
    ) -> tuple[AcrobotState, TimeStep]:
        del key
        torque = (action.astype(jnp.float32) - 1) * params.torque
        moved = rk4(lambda y: _slope(y, torque, params), jnp.concatenate([state.angles, state.speeds]), params.dt)
        bound = jnp.array(MAX_SPEEDS, jnp.float32)
        angles, speeds = wrap(moved[:2]), jnp.clip(moved[2:], -bound, bound)
        state = AcrobotState(angles=angles, speeds=speeds, t=state.t + 1)
        up = -jnp.cos(angles[0]) - jnp.cos(angles[0] + angles[1]) > 1
        reward, late = jnp.where(up, 0.0, -1.0), state.t >= self.limit
        return state, transition(self._obs(state), reward, terminated=up, truncated=late, info={"success": up})

    def _obs(self, state: AcrobotState) -> Array:
        cos, sin = jnp.cos(state.angles), jnp.sin(state.angles)
        return jnp.stack([cos[0], sin[0], cos[1], sin[1], state.speeds[0], state.speeds[1]])

    def observation_space(self) -> Box:
        bound = (1.0, 1.0, 1.0, 1.0, *MAX_SPEEDS)
        return Box(tuple(-b for b in bound), bound, (6,))

    def action_space(self) -> Discrete:
        return Discrete(3)

    def expert(self, key: Array, state: AcrobotState, params: AcrobotParams) -> Array:
        """Push the waist the way it turns, which adds energy, leaning against the swing of the first link and the
        fold of the second (found by search; 0.06 % of its
        episodes never get there)."""
        del key, params
        (a, b), (a_dot, b_dot) = state.angles, state.speeds
        lean = b_dot - a_dot - jnp.sin(b) - jnp.sin(a + b)
        return jnp.where(lean < 0, 0, 2).astype(jnp.int32)

    def reference(self) -> dict[str, float]:
        """Mean returns for the default limit, 20k episodes each; 95 %: random +- 0.15, expert +- 0.28. The observation
        is the whole state, but the optimum is not known."""
        return {"random": -498.92, "expert": -80.86} if self.limit == 500 else {}

    def render(self, state: AcrobotState, params: AcrobotParams) -> Array:
        """uint8 [88, 88, 3]: the two links from their hinge, the line to reach, below the progress."""
        size, centre, reach = 88, 42.0, 18.0
        image = draw.canvas(size, size)
        across = jnp.arange(size) // 3 % 2 == 0
        line = draw.rectangle(size, size, centre - reach - 1, 0, centre - reach, size) & across
        image = draw.paint(image, line, draw.GREEN)
        first, both = state.angles[0], state.angles[0] + state.angles[1]
        y1, x1 = centre + reach * jnp.cos(first), 44 + reach * jnp.sin(first)
        y2, x2 = y1 + reach * jnp.cos(both), x1 + reach * jnp.sin(both)
        image = draw.paint(image, draw.segment(size, size, centre, 44.0, y1, x1, 6), draw.BLUE)
        image = draw.paint(image, draw.segment(size, size, y1, x1, y2, x2, 6), draw.ORANGE)
        for y, x, radius in ((jnp.float32(centre), jnp.float32(44.0), 2.5), (y1, x1, 1.8)):
            image = draw.paint(image, draw.disc(size, size, y, x, radius), draw.BLACK)
        image = draw.paint(image, draw.disc(size, size, y2, x2, 2.5), draw.RED)
        done = draw.rectangle(size, size, size - 4, 0, size, size * state.t / self.limit)
        return draw.paint(image, done, draw.BLUE)

    def ascii(self, state: AcrobotState, params: AcrobotParams) -> str:
        rows = [[" "] * 17 for _ in range(9)]
        first, both = float(state.angles[0]), float(state.angles[0] + state.angles[1])
        rows[2] = ["-"] * 17
        rows[4][8] = "+"
        y, x = 4 + 2 * math.cos(first), 8 + 4 * math.sin(first)
        rows[round(y)][round(x)] = "o"
        rows[round(y + 2 * math.cos(both))][round(x + 4 * math.sin(both))] = "O"
        text = "\n".join("".join(row).rstrip() for row in rows)
        degrees = ", ".join(f"{math.degrees(float(a)):+.0f}" for a in state.angles)
        return f"{text}\nangles {degrees} deg, step {int(state.t)} of {self.limit}"


def _slope(y: Array, torque: Array, params: AcrobotParams) -> Array:
    """Time derivative of (angles, speeds), float32 [4]."""
    a, b, a_dot, b_dot = y
    m1, m2 = params.masses
    c1, c2 = params.centres
    cos_b, sin_b = jnp.cos(b), jnp.sin(b)
    coupling = m2 * params.length * c2
    inertia_2 = m2 * c2**2 + params.moment
    inertia_12 = inertia_2 + coupling * cos_b
    inertia_1 = m1 * c1**2 + params.moment + m2 * params.length**2 + inertia_2 + 2 * coupling * cos_b
    weight_2 = m2 * c2 * params.gravity * jnp.sin(a + b)
    weight_1 = (m1 * c1 + m2 * params.length) * params.gravity * jnp.sin(a) + weight_2
    load_1 = weight_1 - coupling * sin_b * (b_dot**2 + 2 * a_dot * b_dot)
    load_2 = weight_2 + coupling * sin_b * a_dot**2
    share = inertia_12 / inertia_1
    b_acc = (torque + share * load_1 - load_2) / (inertia_2 - share * inertia_12)
    a_acc = -(inertia_12 * b_acc + load_1) / inertia_1
    return jnp.stack([a_dot, b_dot, a_acc, b_acc])
