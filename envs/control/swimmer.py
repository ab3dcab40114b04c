"""Swimmer: a chain of rods that has to wriggle forward through a viscous liquid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.control.mechanics import rk4, wrap
from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.spaces import Box
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition

Array = jax.Array

# Mean returns by (links, limit), 20k episodes each; 95 %: random +- 0.009, 0.005, expert +- 0.0011, 0.0008.
_RETURNS = {
    (3, 200): {"random": -0.061, "expert": 11.915},
    (6, 200): {"random": -0.164, "expert": 19.799},
}


@struct.dataclass
class SwimmerState:
    angles: Array  # float32 [N], of the links from the x axis, tail first, in [-pi, pi]
    speeds: Array  # float32 [N], rad/s
    position: Array  # float32 [2], of the centre of mass, metres
    velocity: Array  # float32 [2], of the centre of mass, m/s
    t: Array  # int32 [], steps taken


@struct.dataclass
class SwimmerParams:
    """float32 [] each."""

    length: Array  # metres, of each link
    mass: Array  # kg, of each link
    viscosity: Array  # N s/m^2: force on a metre of link that moves sideways at 1 m/s
    torque: Array  # N m at action 1
    effort: Array  # cost of action 1 in a joint per step, in metres
    dt: Array  # seconds a step


@dataclass(frozen=True)
class Swimmer(Env[SwimmerState, SwimmerParams]):
    """Swim along +x with a chain of `links` rods (Coulom 2002), in the plane, by torques at the links - 1 joints.

    Each rod feels friction against its sideways motion only, proportional to the speed, which also resists its turning.
    Closed form, one Runge-Kutta step of 0.05 s; joints have no stops. Observation float32 [3 N + 2]: cos and sin of
    the N links' angles, tail first, their speeds, the velocity of the centre of mass. Action float32 [N - 1]: shares
    of the torque of 5 N m. A step pays the metres that the centre of mass went along x, minus 0.0005 |action|^2.
    Every episode is truncated after `limit` steps.
    """

    links: int = 3
    """N, the number of rods."""
    limit: int = 200
    """Steps until the episode is cut."""

    name: ClassVar[str] = "swimmer"
    time_limit: ClassVar[Literal["terminal", "truncate"]] = "truncate"
    paper: ClassVar[str] = "Coulom 2002 (thesis, Reinforcement Learning Using Neural Networks)"

    def __post_init__(self) -> None:
        if self.links < 2:
            raise ValueError(f"{self.name}: links must be at least 2, got {self.links}.")
        if self.limit < 1:
            raise ValueError(f"{self.name}: limit must be at least 1, got {self.limit}.")

    @property
    def horizon(self) -> int:
        return self.limit

    def default_params(self) -> SwimmerParams:
        return SwimmerParams(
            length=jnp.float32(1.0),
            mass=jnp.float32(1.0),
            viscosity=jnp.float32(10.0),
            torque=jnp.float32(5.0),
            effort=jnp.float32(0.0005),
            dt=jnp.float32(0.05),
        )

    def reset(self, key: Array, params: SwimmerParams) -> tuple[SwimmerState, TimeStep]:
        """At rest, stretched along x, every angle off by a uniform draw in +-0.1."""
        state = SwimmerState(
            angles=jax.random.uniform(key, (self.links,), jnp.float32, -0.1, 0.1),
            speeds=jnp.zeros(self.links, jnp.float32),
            position=jnp.zeros(2, jnp.float32),
            velocity=jnp.zeros(2, jnp.float32),
            t=jnp.int32(0),
        )
        return state, opening(self._obs(state))

    def step(
        self, key: Array, state: SwimmerState, action: Array, params: SwimmerParams
    ) -> tuple[SwimmerState, TimeStep]:
        del key
        n = self.links
        action = jnp.clip(action, -1, 1)
        torque = params.torque * action
        # From rest at the origin, so that a long way swum costs no precision.
        start = jnp.concatenate([state.angles, jnp.zeros(2, jnp.float32), state.speeds, state.velocity])
        moved = rk4(lambda y: _slope(y, torque, params), start, params.dt)
        way = moved[n : n + 2]
        state = SwimmerState(
            angles=wrap(moved[:n]),
            speeds=moved[n + 2 : 2 * n + 2],
            position=state.position + way,
            velocity=moved[2 * n + 2 :],
            t=state.t + 1,
        )
        reward = way[0] - params.effort * jnp.sum(action**2)
        return state, transition(self._obs(state), reward, truncated=state.t >= self.limit)

    def _obs(self, state: SwimmerState) -> Array:
        return jnp.concatenate([jnp.cos(state.angles), jnp.sin(state.angles), state.speeds, state.velocity])

    def observation_space(self) -> Box:
        bound = (1.0,) * (2 * self.links) + (math.inf,) * (self.links + 2)
        return Box(tuple(-b for b in bound), bound, (3 * self.links + 2,))

    def action_space(self) -> Box:
        return Box(-1.0, 1.0, (self.links - 1,))

    def expert(self, key: Array, state: SwimmerState, params: SwimmerParams) -> Array:
        """A wave of joint angles that travels from head to tail; the mean angle bends it back on course."""
        del key
        gait = gait_of(self.links)
        joint = np.arange(self.links - 1, dtype=np.float32)
        phase = gait.rate * state.t * params.dt + gait.lag * joint
        bend, turning = wrap(jnp.diff(state.angles)), jnp.diff(state.speeds)
        # The links' mean angle: the tail's, and the bends up to each link.
        course = state.angles[0] + jnp.sum(bend * (self.links - 1 - joint)) / self.links
        wanted = gait.swing * jnp.sin(phase) - gait.steer * wrap(course)
        return jnp.clip(gait.stiffness * (wanted - bend) - gait.damping * turning, -1, 1)

    def reference(self) -> dict[str, float]:
        """Measured (see above) for the sizes of the presets; the best memoryless policy is not known."""
        return _RETURNS.get((self.links, self.limit), {})

    def render(self, state: SwimmerState, params: SwimmerParams) -> Array:
        """uint8 [80, 160, 3]: the swimmer, followed along x, over lines one link's length apart; below the progress."""
        height, width, n = 80, 160, self.links
        scale = min(20.0, 110.0 / n) / params.length  # pixels a metre
        rows, columns = draw.grid(height, width)
        image = draw.canvas(height, width, (216, 234, 245))
        metres = (columns - width / 2) / scale + state.position[0]
        lines = jnp.mod(metres / params.length, 1.0) * params.length * scale < 1.2
        mile = jnp.mod(jnp.floor(metres / params.length), 5.0) == 0
        image = draw.paint(image, jnp.broadcast_to(lines, (height, width)), (190, 214, 232))
        image = draw.paint(image, jnp.broadcast_to(lines & mile, (height, width)), (120, 160, 196))
        course = (jnp.abs(rows - height / 2) < 0.6) & (jnp.mod(jnp.floor(columns / 4), 2) == 0)
        image = draw.paint(image, course, (150, 185, 212))
        joints = _joints(state.angles) * params.length * scale
        y = height / 2 - jnp.clip(state.position[1] * scale, -30.0, 30.0) - joints[:, 1]
        x = width / 2 + joints[:, 0]
        for i in range(n):
            color = draw.RED if i == n - 1 else (draw.ORANGE, (241, 160, 84))[i % 2]
            image = draw.paint(image, draw.segment(height, width, y[i], x[i], y[i + 1], x[i + 1], 5), color)
        for i in range(1, n):
            image = draw.paint(image, draw.disc(height, width, y[i], x[i], 1.6), draw.BLACK)
        done = draw.rectangle(height, width, height - 4, 0, height, width * state.t / self.limit)
        return draw.paint(image, done, draw.BLUE)

    def ascii(self, state: SwimmerState, params: SwimmerParams) -> str:
        rows = [[" "] * 41 for _ in range(11)]
        joints = np.asarray(_joints(state.angles))
        for i, (x, y) in enumerate(joints):
            row, column = round(5 - 10 * float(y) / self.links), round(20 + 20 * float(x) / self.links)
            rows[min(10, max(0, row))][min(40, max(0, column))] = ">" if i == self.links else "o"
        text = "\n".join("".join(row).rstrip() for row in rows)
        x, y = state.position.tolist()
        return f"{text}\nat ({x:+.2f}, {y:+.2f}) m, step {int(state.t)} of {self.limit}"


@dataclass(frozen=True)
class Gait:
    """A swimming stroke: joint j follows swing * sin(rate * time + lag * j), steered and held by a spring."""

    swing: float  # rad
    rate: float  # rad/s
    lag: float  # rad from joint to joint
    steer: float  # bend per radian off course
    stiffness: float  # action per radian
    damping: float  # action per rad/s


def gait_of(links: int) -> Gait:
    """The best stroke found for 3 and 6 links; for others the nearer of the two."""
    if links <= 4:
        return Gait(swing=0.93, rate=6.9, lag=0.92, steer=0.3, stiffness=4.5, damping=0.44)
    return Gait(swing=0.74, rate=7.4, lag=1.52, steer=0.02, stiffness=4.6, damping=0.38)


def _arms(links: int) -> np.ndarray:
    """float32 [N, N]: entry (i, j) is how far link j's direction shifts the middle of link i from the centre of mass,
    in lengths of a link."""
    chain = np.tril(np.ones((links, links)), -1) + np.eye(links) / 2
    return (chain - chain.mean(axis=0)).astype(np.float32)


def _joints(angles: Array) -> Array:
    """float32 [N + 1, 2]: tail, joints and head about the centre of mass, in lengths of a link."""
    along = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    middles = jnp.sum(_arms(angles.shape[0])[:, :, None] * along, axis=1)
    return jnp.concatenate([middles - along / 2, (middles + along / 2)[-1:]])


def _slope(y: Array, torque: Array, params: SwimmerParams) -> Array:
    """Time derivative of (angles [N], position [2], speeds [N], velocity [2]).

    With respect to the centre of mass the equations of motion fall apart: the friction moves the centre of mass, and
    inertia(angles) @ acceleration = what friction, torques and the centrifugal terms do to the angles.
    """
    n = (y.shape[0] - 4) // 2
    angles, speeds, velocity = y[:n], y[n + 2 : 2 * n + 2], y[2 * n + 2 :]
    arms = _arms(n)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    m, k, l = params.mass, params.viscosity, params.length

    # Sums instead of matrix products, which accelerators may round to fewer bits.
    speed_x = velocity[0] - l * jnp.sum(arms * (speeds * sin), axis=1)
    speed_y = velocity[1] + l * jnp.sum(arms * (speeds * cos), axis=1)
    friction = -k * l * (speed_y * cos - speed_x * sin)  # along each link's normal (-sin, cos)
    force_x, force_y = -friction * sin, friction * cos
    pull = l * (cos * jnp.sum(arms.T * force_y, axis=1) - sin * jnp.sum(arms.T * force_x, axis=1))
    drag = k * l**3 / 12 * speeds
    joint = jnp.concatenate([jnp.zeros(1, jnp.float32), torque, jnp.zeros(1, jnp.float32)])

    coupling = (m * l**2) * (arms.T @ arms)
    cos_gap = cos[:, None] * cos + sin[:, None] * sin
    sin_gap = sin[:, None] * cos - cos[:, None] * sin
    inertia = coupling * cos_gap + m * l**2 / 12 * jnp.eye(n, dtype=jnp.float32)
    whirl = jnp.sum(coupling * sin_gap * speeds**2, axis=1)
    acceleration = _solve(inertia, pull - drag - whirl + joint[:-1] - joint[1:])
    push = jnp.stack([jnp.sum(force_x), jnp.sum(force_y)])
    return jnp.concatenate([speeds, velocity, acceleration, push / (n * m)])


def _solve(matrix: Array, right: Array) -> Array:
    """x of matrix @ x = right for a small positive definite matrix: elimination, unrolled, which needs no pivots."""
    n = right.shape[0]
    rows = jnp.concatenate([matrix, right[:, None]], axis=1)
    for i in range(n):
        pivot = rows[i] / rows[i, i]
        rows = (rows - rows[:, i : i + 1] * pivot).at[i].set(pivot)
    return rows[:, n]
