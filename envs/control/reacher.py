"""Reacher: bring the tip of a two-link arm to a target by torques at both joints."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.envs.control.mechanics import rk4, wrap
from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.spaces import Box
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition

Array = jax.Array

MAX_SPEED, TOLERANCE = 10.0, 0.05
_FIELD = 0.95  # targets lie within this share of the arm's reach
# The expert's numbers, found by search: weight of each joint's way in the choice of a posture, rad/s^2 of braking,
# 1/s towards the angle and towards the speed.
_WEIGHTS, _BRAKES, _GAINS = (1.0, 0.33), (2.8, 8.4), (6.5, 15.0)


@struct.dataclass
class ReacherState:
    angles: Array  # float32 [2], of the first link from the x axis, of the second from the first, in [-pi, pi]
    speeds: Array  # float32 [2], rad/s
    target: Array  # float32 [2], metres
    t: Array  # int32 [], steps taken


@struct.dataclass
class ReacherParams:
    lengths: Array  # float32 [2], metres
    masses: Array  # float32 [2], kg, thin uniform rods
    damping: Array  # float32 [], N m s, in each joint
    torque: Array  # float32 [], N m at action 1
    effort: Array  # float32 [], cost of action 1 per step, in metres
    dt: Array  # float32 [], seconds a step


@dataclass(frozen=True)
class Reacher(Env[ReacherState, ReacherParams]):
    """Reach a random target with a planar arm on a table (no gravity).

    The task of MuJoCo's Reacher by closed-form equations of motion, not its simulation: two uniform rods of 0.5 m and
    0.5 kg, damped joints without stops, one Runge-Kutta step of 0.05 s, speeds cut at +-10 rad/s. Observation float32
    [10]: cos and sin of both angles, both speeds, the target, the target minus the tip (metres). Action float32 [2]:
    shares of the torque of 1 N m at shoulder and elbow. A step pays -(distance of tip and target) - 0.01 |action|^2.
    Every episode is truncated after `limit` steps. `info["success"]`: the tip is within 0.05 m.
    """

    limit: int = 50
    """Steps until the episode is cut."""

    name: ClassVar[str] = "reacher"
    time_limit: ClassVar[Literal["terminal", "truncate"]] = "truncate"
    paper: ClassVar[str] = "after Gymnasium Reacher; own closed-form arm"

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"{self.name}: limit must be at least 1, got {self.limit}.")

    @property
    def horizon(self) -> int:
        return self.limit

    def default_params(self) -> ReacherParams:
        return ReacherParams(
            lengths=jnp.full(2, 0.5, jnp.float32),
            masses=jnp.full(2, 0.5, jnp.float32),
            damping=jnp.float32(0.05),
            torque=jnp.float32(1.0),
            effort=jnp.float32(0.01),
            dt=jnp.float32(0.05),
        )

    def reset(self, key: Array, params: ReacherParams) -> tuple[ReacherState, TimeStep]:
        """The arm rests at uniform angles; the target is uniform over the ring (for equal links the disc) that the
        tip can reach, but for its outer 5 %."""
        first, second, ring, bearing = jax.random.uniform(key, (4,), jnp.float32, -1.0, 1.0)
        inner = jnp.abs(params.lengths[0] - params.lengths[1])
        outer = jnp.maximum(_FIELD * jnp.sum(params.lengths), inner)
        radius = jnp.sqrt(inner**2 + (ring + 1) / 2 * (outer**2 - inner**2))
        bearing = bearing * math.pi
        state = ReacherState(
            angles=jnp.stack([first, second]) * math.pi,
            speeds=jnp.zeros(2, jnp.float32),
            target=radius * jnp.stack([jnp.cos(bearing), jnp.sin(bearing)]),
            t=jnp.int32(0),
        )
        success = _distance(state, params) < TOLERANCE
        return state, opening(self._obs(state, params), info={"success": success})

    def step(
        self, key: Array, state: ReacherState, action: Array, params: ReacherParams
    ) -> tuple[ReacherState, TimeStep]:
        del key
        action = jnp.clip(action, -1, 1)
        torque = params.torque * action
        moved = rk4(lambda y: _slope(y, torque, params), jnp.concatenate([state.angles, state.speeds]), params.dt)
        angles, speeds = wrap(moved[:2]), jnp.clip(moved[2:], -MAX_SPEED, MAX_SPEED)
        state = replace(state, angles=angles, speeds=speeds, t=state.t + 1)
        distance = _distance(state, params)
        reward = -distance - params.effort * jnp.sum(action**2)
        info = {"success": distance < TOLERANCE}
        return state, transition(self._obs(state, params), reward, truncated=state.t >= self.limit, info=info)

    def _obs(self, state: ReacherState, params: ReacherParams) -> Array:
        cos, sin = jnp.cos(state.angles), jnp.sin(state.angles)
        gap = state.target - _tip(state.angles, params)
        return jnp.concatenate([cos, sin, state.speeds, state.target, gap])

    def observation_space(self) -> Box:
        bound = (1.0,) * 4 + (MAX_SPEED,) * 2 + (math.inf,) * 4
        return Box(tuple(-b for b in bound), bound, (10,))

    def action_space(self) -> Box:
        return Box(-1.0, 1.0, (2,))

    def expert(self, key: Array, state: ReacherState, params: ReacherParams) -> Array:
        """Computed torque to the nearer of the two postures that reach the target: each joint heads for the speed
        from which it can still brake in time."""
        del key
        l1, l2 = params.lengths
        reach_sq = jnp.sum(state.target**2)
        bend = jnp.arccos(jnp.clip((reach_sq - l1**2 - l2**2) / (2 * l1 * l2), -1, 1))
        elbows = jnp.stack([bend, -bend])
        bearing = jnp.arctan2(state.target[1], state.target[0])
        shoulders = bearing - jnp.arctan2(l2 * jnp.sin(elbows), l1 + l2 * jnp.cos(elbows))
        errors = wrap(jnp.stack([shoulders, elbows], axis=1) - state.angles)  # [posture, joint]
        far = jnp.max(jnp.abs(errors) * jnp.array(_WEIGHTS, jnp.float32), axis=1)
        error = jnp.where(far[0] <= far[1], errors[0], errors[1])
        brake = jnp.array(_BRAKES, jnp.float32)
        wanted = jnp.sign(error) * jnp.minimum(jnp.sqrt(2 * brake * jnp.abs(error)), _GAINS[0] * jnp.abs(error))
        acceleration = _GAINS[1] * (wanted - state.speeds)
        inertia, load = _mechanics(state.angles, state.speeds, params)
        torque = jnp.sum(inertia * acceleration, axis=1) + load
        return jnp.clip(torque / params.torque, -1, 1)

    def reference(self) -> dict[str, float]:
        """Mean returns for the default limit, 20k episodes each; 95 %: random +- 0.23, expert +- 0.16. The observation
        is the whole state, but the optimum is not known."""
        return {"random": -43.33, "expert": -9.98} if self.limit == 50 else {}

    def render(self, state: ReacherState, params: ReacherParams) -> Array:
        """uint8 [96, 96, 3]: the table and the target, the arm over it, below the progress."""
        size, centre = 96, 46.0
        scale = 42.0 / jnp.maximum(jnp.sum(params.lengths), 1e-3)
        image = draw.canvas(size, size)
        image = draw.paint(image, draw.disc(size, size, centre, 48.0, 44), (240, 240, 243))
        y, x = centre - scale * state.target[1], 48 + scale * state.target[0]
        for radius, color in ((6.0, draw.RED), (4.0, draw.WHITE), (2.0, draw.RED)):
            image = draw.paint(image, draw.disc(size, size, y, x, radius), color)
        first, both = state.angles[0], state.angles[0] + state.angles[1]
        y1, x1 = centre - scale * params.lengths[0] * jnp.sin(first), 48 + scale * params.lengths[0] * jnp.cos(first)
        y2, x2 = y1 - scale * params.lengths[1] * jnp.sin(both), x1 + scale * params.lengths[1] * jnp.cos(both)
        image = draw.paint(image, draw.segment(size, size, centre, 48.0, y1, x1, 5), draw.BLUE)
        image = draw.paint(image, draw.segment(size, size, y1, x1, y2, x2, 4), draw.ORANGE)
        for y, x, radius in ((jnp.float32(centre), jnp.float32(48), 3.5), (y1, x1, 2.0), (y2, x2, 2.5)):
            image = draw.paint(image, draw.disc(size, size, y, x, radius), draw.BLACK)
        done = draw.rectangle(size, size, size - 4, 0, size, size * state.t / self.limit)
        return draw.paint(image, done, draw.BLUE)

    def ascii(self, state: ReacherState, params: ReacherParams) -> str:
        rows = [[" "] * 21 for _ in range(11)]
        scale = 5 / float(jnp.sum(params.lengths))
        elbow = params.lengths[0] * jnp.stack([jnp.cos(state.angles[0]), jnp.sin(state.angles[0])])
        for mark, (x, y) in (
            ("+", (0.0, 0.0)),
            ("o", elbow.tolist()),
            ("X", state.target.tolist()),
            ("@", _tip(state.angles, params).tolist()),
        ):
            rows[min(10, max(0, round(5 - scale * y)))][min(20, max(0, round(10 + 2 * scale * x)))] = mark
        text = "\n".join("".join(row).rstrip() for row in rows)
        return f"{text}\n{float(_distance(state, params)):.3f} m away, step {int(state.t)} of {self.limit}"


def _tip(angles: Array, params: ReacherParams) -> Array:
    """float32 [2]: where the arm ends, metres."""
    along = jnp.cumsum(angles)
    return jnp.stack([jnp.sum(params.lengths * jnp.cos(along)), jnp.sum(params.lengths * jnp.sin(along))])


def _distance(state: ReacherState, params: ReacherParams) -> Array:
    return jnp.sqrt(jnp.sum((state.target - _tip(state.angles, params)) ** 2))


def _mechanics(angles: Array, speeds: Array, params: ReacherParams) -> tuple[Array, Array]:
    """Of the equations of motion inertia @ acceleration + load = torque: inertia [2, 2] and load [2]."""
    l1, l2 = params.lengths
    m1, m2 = params.masses
    coupling = m2 * l1 * l2 / 2
    i22 = m2 * l2**2 / 3
    i12 = i22 + coupling * jnp.cos(angles[1])
    i11 = (m1 / 3 + m2) * l1**2 + i22 + 2 * coupling * jnp.cos(angles[1])
    swirl = coupling * jnp.sin(angles[1])
    load = jnp.stack([-swirl * speeds[1] * (2 * speeds[0] + speeds[1]), swirl * speeds[0] ** 2])
    return jnp.stack([jnp.stack([i11, i12]), jnp.stack([i12, i22])]), load + params.damping * speeds


def _slope(y: Array, torque: Array, params: ReacherParams) -> Array:
    """Time derivative of (angles, speeds), float32 [4]."""
    inertia, load = _mechanics(y[:2], y[2:], params)
    (a, b), (_, d) = inertia
    f, g = torque - load
    return jnp.concatenate([y[2:], jnp.stack([d * f - b * g, a * g - b * f]) / (a * d - b * b)])
