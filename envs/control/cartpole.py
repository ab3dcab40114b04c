"""Cart-pole: balance a pole on a cart, with and without the velocities in view."""

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

X_LIMIT, THETA_LIMIT = 2.4, math.radians(12)
# Mean steps that uniform actions survive: 22.263 +- 0.023 (95 %, 1M episodes; the longest had 153 steps).
_RANDOM_STEPS = 22.263


@struct.dataclass
class CartPoleState:
    x: Array  # float32 [], metres
    x_dot: Array  # float32 [], m/s
    theta: Array  # float32 [], radians from upright
    theta_dot: Array  # float32 [], rad/s
    t: Array  # int32 [], steps taken


@struct.dataclass
class CartPoleParams:
    """float32 [] each. What follows from them (the total mass, ...) is computed where needed, never stored."""

    gravity: Array  # m/s^2
    mass_cart: Array  # kg
    mass_pole: Array  # kg
    half_length: Array  # metres from the hinge to the pole's centre
    force: Array  # newtons, to the left or to the right
    dt: Array  # seconds a step


@struct.dataclass
class NoisyCartPoleParams(CartPoleParams):
    noise: Array  # standard deviation added to each observed number


@dataclass(frozen=True)
class CartPole(Env[CartPoleState, CartPoleParams]):
    """Keep the pole upright by pushing the cart left (0) or right (1): gymnasium's CartPole-v1 (Barto et al. 1983).

    Observation float32 [4]: (x, x_dot, theta, theta_dot). Every step pays 1. The episode terminates when |x| > 2.4 m
    or |theta| > 12 degrees and is truncated after `limit` steps. Positions are shown clipped to twice those limits,
    which matters only for parameters far from the default.
    """

    limit: int = 500
    """Steps until the episode is cut."""

    name: ClassVar[str] = "cartpole"
    time_limit: ClassVar[Literal["terminal", "truncate"]] = "truncate"
    fixed_length: ClassVar[bool] = False
    paper: ClassVar[str] = "Barto, Sutton & Anderson 1983; Gymnasium CartPole-v1"

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"{self.name}: limit must be at least 1, got {self.limit}.")

    @property
    def horizon(self) -> int:
        return self.limit

    @property
    def step_reward(self) -> float:
        return 1.0

    def default_params(self) -> CartPoleParams:
        return CartPoleParams(
            gravity=jnp.float32(9.8),
            mass_cart=jnp.float32(1.0),
            mass_pole=jnp.float32(0.1),
            half_length=jnp.float32(0.5),
            force=jnp.float32(10.0),
            dt=jnp.float32(0.02),
        )

    def reset(self, key: Array, params: CartPoleParams) -> tuple[CartPoleState, TimeStep]:
        """Every state variable starts uniform in +-0.05."""
        start_key, obs_key = jax.random.split(key)
        x, x_dot, theta, theta_dot = jax.random.uniform(start_key, (4,), jnp.float32, -0.05, 0.05)
        state = CartPoleState(x=x, x_dot=x_dot, theta=theta, theta_dot=theta_dot, t=jnp.int32(0))
        return state, opening(self._obs(obs_key, state, params))

    def step(
        self, key: Array, state: CartPoleState, action: Array, params: CartPoleParams
    ) -> tuple[CartPoleState, TimeStep]:
        state = _move(state, action, params)
        fallen = (jnp.abs(state.x) > X_LIMIT) | (jnp.abs(state.theta) > THETA_LIMIT)
        late = state.t >= self.limit
        return state, transition(self._obs(key, state, params), self.step_reward, terminated=fallen, truncated=late)

    def _obs(self, key: Array, state: CartPoleState, params: CartPoleParams) -> Array:
        del key, params
        return self._clip(jnp.stack([state.x, state.x_dot, state.theta, state.theta_dot]))

    def _clip(self, obs: Array) -> Array:
        low, high = self.observation_space().bounds
        return jnp.clip(obs, low, high)

    def observation_space(self) -> Box:
        bound = (2 * X_LIMIT, math.inf, 2 * THETA_LIMIT, math.inf)
        return Box(tuple(-b for b in bound), bound, (4,))

    def action_space(self) -> Discrete:
        return Discrete(2)

    def expert(self, key: Array, state: CartPoleState, params: CartPoleParams) -> Array:
        """Push to the side to which a weighted sum of the state leans."""
        del key
        lean = state.theta + 0.25 * state.theta_dot + 0.02 * state.x + 0.06 * state.x_dot
        return (lean > 0).astype(jnp.int32)

    def reference(self) -> dict[str, float]:
        """`expert` is the maximum, which it reached in each of 100k episodes of 600 steps; the observation is the whole
        state, so `reactive` is the same. `random` is measured (see above), and left out where the limit cuts it."""
        best = self.limit * self.step_reward
        return self._random_return() | {"reactive": best, "expert": best}

    def _random_return(self) -> dict[str, float]:
        return {"random": _RANDOM_STEPS * self.step_reward} if self.limit >= 150 else {}

    def render(self, state: CartPoleState, params: CartPoleParams) -> Array:
        """uint8 [80, 160, 3]: the track from -2.4 to 2.4 m between its end posts, cart and pole to scale."""
        height, width, track, scale = 80, 160, 62, 30.0
        image = draw.canvas(height, width)
        image = draw.paint(image, draw.rectangle(height, width, track, 0, track + 2, width), draw.GREY)
        for post in (width / 2 - X_LIMIT * scale, width / 2 + X_LIMIT * scale):
            image = draw.paint(image, draw.rectangle(height, width, track - 6, post - 1, track + 8, post + 1), draw.RED)
        x, hinge = width / 2 + scale * state.x, track - 10.0
        image = draw.paint(image, draw.rectangle(height, width, hinge, x - 10, track, x + 10), draw.BLACK)
        pole = 2 * params.half_length * 1.4 * scale  # a little longer than to scale, so that its tilt shows
        tip_y, tip_x = hinge - pole * jnp.cos(state.theta), x + pole * jnp.sin(state.theta)
        image = draw.paint(image, draw.segment(height, width, hinge, x, tip_y, tip_x, 5), draw.ORANGE)
        image = draw.paint(image, draw.disc(height, width, hinge, x, 2.5), draw.BLUE)
        done = draw.rectangle(height, width, height - 4, 0, height, width * state.t / self.limit)
        return draw.paint(image, done, draw.BLUE)

    def ascii(self, state: CartPoleState, params: CartPoleParams) -> str:
        columns = 41
        track = ["-"] * columns
        track[min(columns - 1, max(0, round((float(state.x) / X_LIMIT + 1) / 2 * (columns - 1))))] = "A"
        pole = "\\" if float(state.theta) < -0.02 else "/" if float(state.theta) > 0.02 else "|"
        angle = math.degrees(float(state.theta))
        return f"{''.join(track)}\npole {pole} {angle:+.1f} deg, step {int(state.t)} of {self.limit}"


@dataclass(frozen=True)
class PositionOnlyCartPole(CartPole):
    """Cart-pole that shows only positions, float32 [2]: (x, theta); every step pays 1 / limit (POPGym)."""

    limit: int = 200

    name: ClassVar[str] = "position_only_cartpole"
    paper: ClassVar[str] = "Morad et al. 2023 (arXiv 2303.01859)"

    @property
    def step_reward(self) -> float:
        return 1.0 / self.limit

    def _obs(self, key: Array, state: CartPoleState, params: CartPoleParams) -> Array:
        del key, params
        return self._clip(jnp.stack([state.x, state.theta]))

    def observation_space(self) -> Box:
        bound = (2 * X_LIMIT, 2 * THETA_LIMIT)
        return Box(tuple(-b for b in bound), bound, (2,))

    def reference(self) -> dict[str, float]:
        """As for CartPole; the best policy without memory is not known, so `reactive` is left out."""
        return self._random_return() | {"expert": 1.0}


@dataclass(frozen=True)
class VelocityOnlyCartPole(CartPole):
    """Cart-pole that shows only velocities, float32 [2]: (x_dot, theta_dot); every step pays 1 / limit (POPGym).

    The reset shows the velocities too, where POPGym's own shows the positions.
    """

    limit: int = 200

    name: ClassVar[str] = "velocity_only_cartpole"
    paper: ClassVar[str] = "Morad et al. 2023 (arXiv 2303.01859)"

    @property
    def step_reward(self) -> float:
        return 1.0 / self.limit

    def _obs(self, key: Array, state: CartPoleState, params: CartPoleParams) -> Array:
        del key, params
        return jnp.stack([state.x_dot, state.theta_dot])

    def observation_space(self) -> Box:
        return Box(-math.inf, math.inf, (2,))

    def reference(self) -> dict[str, float]:
        """As for CartPole; the best policy without memory is not known, so `reactive` is left out."""
        return self._random_return() | {"expert": 1.0}


@dataclass(frozen=True)
class NoisyPositionOnlyCartPole(PositionOnlyCartPole):
    """PositionOnlyCartPole with independent Gaussian noise on both positions, then clipped to the box (POPGym)."""

    name: ClassVar[str] = "noisy_position_only_cartpole"

    def default_params(self) -> NoisyCartPoleParams:
        clean = super().default_params()
        return NoisyCartPoleParams(**vars(clean), noise=jnp.float32(0.1))

    def _obs(self, key: Array, state: CartPoleState, params: CartPoleParams) -> Array:
        assert isinstance(params, NoisyCartPoleParams)  # what default_params makes; for the type checker
        position = jnp.stack([state.x, state.theta])
        return self._clip(position + params.noise * jax.random.normal(key, (2,), jnp.float32))


def _move(state: CartPoleState, action: Array, params: CartPoleParams) -> CartPoleState:
    """One explicit Euler step of the cart and the pole (Florian 2007, without friction)."""
    total_mass = params.mass_cart + params.mass_pole
    pole_moment = params.mass_pole * params.half_length
    push = jnp.where(action == 1, params.force, -params.force)
    cos, sin = jnp.cos(state.theta), jnp.sin(state.theta)
    thrust = (push + pole_moment * state.theta_dot**2 * sin) / total_mass
    theta_acc = (params.gravity * sin - cos * thrust) / (
        params.half_length * (4.0 / 3.0 - params.mass_pole * cos**2 / total_mass)
    )
    x_acc = thrust - pole_moment * theta_acc * cos / total_mass
    return CartPoleState(
        x=state.x + params.dt * state.x_dot,
        x_dot=state.x_dot + params.dt * x_acc,
        theta=state.theta + params.dt * state.theta_dot,
        theta_dot=state.theta_dot + params.dt * theta_acc,
        t=state.t + 1,
    )
