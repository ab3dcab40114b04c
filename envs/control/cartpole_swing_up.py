"""Cart-pole swing-up: the pole hangs at first and has to be swung up and balanced on a short track."""

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
from jaxrl_seq.envs.core.spaces import Box
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition

Array = jax.Array

X_LIMIT, UPRIGHT = 2.4, math.radians(12)
# The expert's gains, found by search: energy, x, x speed; theta, its speed, x, x speed.
_PUMP, _HOLD = (0.15, 1.9, 3.1), (30.0, 5.2, 1.3, 3.7)


@struct.dataclass
class CartPoleSwingUpState:
    x: Array  # float32 [], metres
    x_dot: Array  # float32 [], m/s
    theta: Array  # float32 [], radians from upright, in [-pi, pi]
    theta_dot: Array  # float32 [], rad/s
    t: Array  # int32 [], steps taken


@struct.dataclass
class CartPoleSwingUpParams:
    """float32 [] each."""

    gravity: Array  # m/s^2
    mass_cart: Array  # kg
    mass_pole: Array  # kg, a thin uniform rod
    length: Array  # metres, the whole pole
    friction: Array  # N s/m, of the cart on its track
    force: Array  # N at action 1
    dt: Array  # seconds a step


@dataclass(frozen=True)
class CartPoleSwingUp(Env[CartPoleSwingUpState, CartPoleSwingUpParams]):
    """Swing a hanging pole up and balance it, on a track of +-2.4 m.

    Observation float32 [5]: (x, x speed, cos theta, sin theta, angular speed), theta from upright, x clipped to
    +-4.8. Action float32 [1]: the share of the force of 10 N, held for one Runge-Kutta step of 0.02 s. A step pays
    (1 + cos theta) / 2 * cos(pi / 2 * x / 2.4), in [0, 1], for the state it leads to, and 0 off the track. The
    episode ends off the track and is truncated after `limit` steps. `info["success"]`: the pole is within 12 degrees
    of upright, on the track. Constants of the plant: Deisenroth & Rasmussen 2011; reward: Ha 2017 (estool).
    """

    limit: int = 500
    """Steps until the episode is cut."""

    name: ClassVar[str] = "cartpole_swing_up"
    time_limit: ClassVar[Literal["terminal", "truncate"]] = "truncate"
    fixed_length: ClassVar[bool] = False
    paper: ClassVar[str] = "Deisenroth & Rasmussen 2011 (PILCO); Ha 2017 (estool, CartPoleSwingUp)"

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"{self.name}: limit must be at least 1, got {self.limit}.")

    @property
    def horizon(self) -> int:
        return self.limit

    def default_params(self) -> CartPoleSwingUpParams:
        return CartPoleSwingUpParams(
            gravity=jnp.float32(9.82),
            mass_cart=jnp.float32(0.5),
            mass_pole=jnp.float32(0.5),
            length=jnp.float32(0.6),
            friction=jnp.float32(0.1),
            force=jnp.float32(10.0),
            dt=jnp.float32(0.02),
        )

    def reset(self, key: Array, params: CartPoleSwingUpParams) -> tuple[CartPoleSwingUpState, TimeStep]:
        """Hanging at rest in the middle, every state variable off by a uniform draw in +-0.2."""
        x, x_dot, theta, theta_dot = jax.random.uniform(key, (4,), jnp.float32, -0.2, 0.2)
        theta = wrap(theta + math.pi)
        state = CartPoleSwingUpState(x=x, x_dot=x_dot, theta=theta, theta_dot=theta_dot, t=jnp.int32(0))
        return state, opening(self._obs(state), info={"success": jnp.zeros((), bool)})

    def step(
        self, key: Array, state: CartPoleSwingUpState, action: Array, params: CartPoleSwingUpParams
    ) -> tuple[CartPoleSwingUpState, TimeStep]:
        del key
        force = params.force * jnp.clip(action[0], -1, 1)
        start = jnp.stack([state.x, state.x_dot, state.theta, state.theta_dot])
        x, x_dot, theta, theta_dot = rk4(lambda y: _slope(y, force, params), start, params.dt)
        state = CartPoleSwingUpState(x=x, x_dot=x_dot, theta=wrap(theta), theta_dot=theta_dot, t=state.t + 1)
        off = jnp.abs(x) > X_LIMIT
        reward = (1 + jnp.cos(theta)) / 2 * jnp.cos(math.pi / 2 * x / X_LIMIT)
        info = {"success": (jnp.abs(state.theta) < UPRIGHT) & ~off}
        late = state.t >= self.limit
        return state, transition(self._obs(state), jnp.where(off, 0.0, reward), off, late, info=info)

    def _obs(self, state: CartPoleSwingUpState) -> Array:
        x = jnp.clip(state.x, -2 * X_LIMIT, 2 * X_LIMIT)
        return jnp.stack([x, state.x_dot, jnp.cos(state.theta), jnp.sin(state.theta), state.theta_dot])

    def observation_space(self) -> Box:
        bound = (2 * X_LIMIT, math.inf, 1.0, 1.0, math.inf)
        return Box(tuple(-b for b in bound), bound, (5,))

    def action_space(self) -> Box:
        return Box(-1.0, 1.0, (1,))

    def expert(self, key: Array, state: CartPoleSwingUpState, params: CartPoleSwingUpParams) -> Array:
        """Far from the top accelerate the cart so as to pump energy into the pole; near it, balance by a linear
        feedback. Either asks for an acceleration of the cart, which the equations of motion turn into a force."""
        del key
        cos = jnp.cos(state.theta)
        # Energy about the hinge in units of m l^2 / 6; 0 at rest on top.
        energy = state.theta_dot**2 + 3 * params.gravity / params.length * (cos - 1)
        pump = _PUMP[0] * energy * state.theta_dot * cos - _PUMP[1] * state.x - _PUMP[2] * state.x_dot
        hold = _HOLD[0] * state.theta + _HOLD[1] * state.theta_dot + _HOLD[2] * state.x + _HOLD[3] * state.x_dot
        near = jnp.abs(state.theta) + 1.1 * jnp.abs(state.theta + 0.15 * state.theta_dot) < 0.8
        acceleration = jnp.where(near, hold, pump)
        return jnp.clip(_force(state, acceleration, params) / params.force, -1, 1)[None]

    def reference(self) -> dict[str, float]:
        """Mean returns for the default limit, 20k episodes each; 95 %: random +- 0.28, expert +- 0.04. The observation
        is the whole state, but the optimum is not known."""
        return {"random": 14.29, "expert": 450.36} if self.limit == 500 else {}

    def render(self, state: CartPoleSwingUpState, params: CartPoleSwingUpParams) -> Array:
        """uint8 [80, 160, 3]: the track between its end posts, the cart, the pole 1.3 times to scale; below the
        progress."""
        height, width, track, scale = 80, 160, 42, 30.0
        image = draw.canvas(height, width)
        image = draw.paint(image, draw.rectangle(height, width, track, 0, track + 2, width), draw.GREY)
        for post in (width / 2 - X_LIMIT * scale, width / 2 + X_LIMIT * scale):
            image = draw.paint(image, draw.rectangle(height, width, track - 6, post - 1, track + 8, post + 1), draw.RED)
        x, hinge = width / 2 + scale * state.x, track + 1.0
        image = draw.paint(image, draw.rectangle(height, width, hinge - 5, x - 10, hinge + 5, x + 10), draw.BLACK)
        pole = 1.3 * scale * jnp.minimum(params.length, 0.9)
        tip_y, tip_x = hinge - pole * jnp.cos(state.theta), x + pole * jnp.sin(state.theta)
        upright = jnp.abs(state.theta) < UPRIGHT
        color = jnp.where(upright, jnp.array(draw.GREEN, jnp.uint8), jnp.array(draw.ORANGE, jnp.uint8))
        image = draw.paint(image, draw.segment(height, width, hinge, x, tip_y, tip_x, 5), color)
        image = draw.paint(image, draw.disc(height, width, hinge, x, 2.5), draw.BLUE)
        done = draw.rectangle(height, width, height - 4, 0, height, width * state.t / self.limit)
        return draw.paint(image, done, draw.BLUE)

    def ascii(self, state: CartPoleSwingUpState, params: CartPoleSwingUpParams) -> str:
        rows = [[" "] * 47 for _ in range(5)]
        rows[2] = list("|" + "-" * 45 + "|")
        column = min(43, max(3, round(23 + float(state.x) / X_LIMIT * 20)))
        y, x = 2 - 2 * math.cos(float(state.theta)), column + 3 * math.sin(float(state.theta))
        rows[2][column] = "A"
        rows[round(y)][round(x)] = "O"
        angle = math.degrees(float(state.theta))
        text = "\n".join("".join(row).rstrip() for row in rows)
        return f"{text}\npole {angle:+.0f} deg, step {int(state.t)} of {self.limit}"


def _slope(y: Array, force: Array, params: CartPoleSwingUpParams) -> Array:
    """Time derivative of (x, x speed, theta, angular speed), float32 [4], from the Lagrangian of cart and rod."""
    _, x_dot, theta, theta_dot = y
    m, l = params.mass_pole, params.length
    cos, sin = jnp.cos(theta), jnp.sin(theta)
    net = force - params.friction * x_dot + 0.5 * m * l * theta_dot**2 * sin - 0.75 * m * params.gravity * sin * cos
    x_acc = net / (params.mass_cart + m - 0.75 * m * cos**2)
    theta_acc = 1.5 / l * (params.gravity * sin - x_acc * cos)
    return jnp.stack([x_dot, x_acc, theta_dot, theta_acc])


def _force(state: CartPoleSwingUpState, x_acc: Array, params: CartPoleSwingUpParams) -> Array:
    """The force that gives the cart the acceleration `x_acc`."""
    m, l = params.mass_pole, params.length
    cos, sin = jnp.cos(state.theta), jnp.sin(state.theta)
    pole = 0.75 * m * params.gravity * sin * cos - 0.5 * m * l * state.theta_dot**2 * sin
    return x_acc * (params.mass_cart + m - 0.75 * m * cos**2) + params.friction * state.x_dot + pole
