"""Point robot: walk to a goal somewhere on a half circle, which only the reward gives away."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.protocol import TaskEnv
from jaxrl_seq.envs.core.spaces import Box
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition

Array = jax.Array

STRIDE, ARENA = 0.1, 1.5  # metres a step along each axis; half-width of the square
# Mean returns of uniform actions, by quadrature; 2^18 episodes gave 0.651 +- 0.013 and -109.00 +- 0.12 (95 %).
_RANDOM = {(True, 100): 0.6493, (False, 100): -108.991}


@struct.dataclass
class PointRobotState:
    task: Array  # float32 [2], the goal, metres
    position: Array  # float32 [2], metres
    t: Array  # int32 [], steps taken


@struct.dataclass
class PointRobotParams:
    """float32 [] each, metres."""

    distance: Array  # of the goals from the start
    radius: Array  # within which a goal is reached


@dataclass(frozen=True)
class PointRobot(TaskEnv[PointRobotState, PointRobotParams]):
    """Walk from the origin to a hidden goal on a half circle (Dorfman et al. 2021).

    The task is the goal, at a uniform angle in [0, pi]. Observation float32 [2]: the position. Action float32 [2]: the
    step, at most 0.1 m along each axis. After the move, `sparse` pays 1 within `radius` of the goal and nothing
    elsewhere; otherwise a step costs the distance to the goal. Every episode lasts `limit` steps. `info["success"]`:
    the goal is reached at this step.
    """

    limit: int = 100
    """Steps of an episode."""
    sparse: bool = True

    name: ClassVar[str] = "point_robot"
    paper: ClassVar[str] = "Dorfman et al. 2021 (arXiv 2008.02598)"

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"point_robot: limit must be at least 1, got {self.limit}.")

    @property
    def horizon(self) -> int:
        return self.limit

    def default_params(self) -> PointRobotParams:
        return PointRobotParams(distance=jnp.float32(1.0), radius=jnp.float32(0.2))

    def sample_task(self, key: Array, params: PointRobotParams) -> Array:
        """float32 [2]: the goal."""
        angle = jax.random.uniform(key, (), jnp.float32, 0.0, math.pi)
        return params.distance * jnp.stack([jnp.cos(angle), jnp.sin(angle)])

    def reset_to(self, key: Array, task: Array, params: PointRobotParams) -> tuple[PointRobotState, TimeStep]:
        del key
        state = PointRobotState(task=task, position=jnp.zeros(2, jnp.float32), t=jnp.int32(0))
        return state, opening(state.position, info={"success": jnp.zeros((), bool)})

    def step(
        self, key: Array, state: PointRobotState, action: Array, params: PointRobotParams
    ) -> tuple[PointRobotState, TimeStep]:
        del key
        position = jnp.clip(state.position + jnp.clip(action, -STRIDE, STRIDE), -ARENA, ARENA)
        away = jnp.linalg.norm(state.task - position)
        there = away <= params.radius
        state = replace(state, position=position, t=state.t + 1)
        reward = there if self.sparse else -away
        return state, transition(position, reward, terminated=state.t >= self.limit, info={"success": there})

    def observation_space(self) -> Box:
        return Box(-ARENA, ARENA, (2,))

    def action_space(self) -> Box:
        return Box(-STRIDE, STRIDE, (2,))

    def expert(self, key: Array, state: PointRobotState, params: PointRobotParams) -> Array:
        """As far as possible along both axes: after t steps no point nearer to the goal can be reached."""
        del key
        return jnp.clip(state.task - state.position, -STRIDE, STRIDE)

    def optimal_return(self, task: Array, params: PointRobotParams) -> Array:
        return self._best(task, params.radius, jnp)

    def _best(self, goal: Any, radius: Any, np_: Any) -> Any:
        """Of goals [..., 2]: the expert is at clip(goal, -t stride, t stride) after t steps."""
        reach = STRIDE * np_.arange(1, self.limit + 1)[:, None]
        goal = goal[..., None, :]
        away = np_.linalg.norm(goal - np_.clip(np_.clip(goal, -reach, reach), -ARENA, ARENA), axis=-1)
        # the tolerance is rounding's: many strides add up to exactly the radius
        return (away <= radius + 1e-5).sum(-1).astype(np_.float32) if self.sparse else -away.sum(-1)

    def reference(self) -> dict[str, float]:
        """expert is exact, by the closed form over the half circle; random is that of the default size, see above. No
        figure of the best policy without memory is known."""
        angle = (np.arange(20_000) + 0.5) * math.pi / 20_000
        best = self._best(np.stack([np.cos(angle), np.sin(angle)], -1), 0.2, np).mean()
        random = _RANDOM.get((self.sparse, self.limit))
        return ({} if random is None else {"random": random}) | {"expert": float(best)}

    def render(self, state: PointRobotState, params: PointRobotParams) -> Array:
        """uint8 [96, 96, 3]: the half circle of goals, the goal (green), the robot (blue)."""
        size, scale = 96, 30.0
        y, x = draw.grid(size, size)
        middle, ground = size / 2, 0.78 * size
        ring = jnp.abs(jnp.hypot(x - middle, y - ground) - scale * params.distance) < 1.0
        image = draw.paint(draw.canvas(size, size), ring & (y <= ground), draw.GREY)

        def at(point: Array) -> tuple[Array, Array]:
            return ground - scale * point[1], middle + scale * point[0]

        y0, x0 = at(state.task)
        near = jnp.linalg.norm(state.task - state.position) <= params.radius
        image = draw.paint(image, (y - y0) ** 2 + (x - x0) ** 2 <= (scale * params.radius) ** 2, (178, 221, 194))
        image = draw.paint(
            image, draw.disc(size, size, y0, x0, 2.5) | (near & (jnp.hypot(y - y0, x - x0) < 6)), draw.GREEN
        )
        image = draw.paint(image, draw.disc(size, size, *at(state.position), 3.5), draw.BLUE)
        return draw.paint(image, draw.rectangle(size, size, size - 4, 0, size, size * state.t / self.limit), draw.BLUE)

    def ascii(self, state: PointRobotState, params: PointRobotParams) -> str:
        (x, y), (gx, gy) = np.asarray(state.position), np.asarray(state.task)
        rows = [["."] * 25 for _ in range(13)]
        for mark, across, up in (("G", gx, gy), ("@", x, y)):
            rows[12 - round((min(max(up, 0), ARENA)) / ARENA * 12)][round((across + ARENA) / (2 * ARENA) * 24)] = mark
        return "\n".join("".join(row) for row in rows) + f"\nat {x:+.2f}, {y:+.2f}, goal {gx:+.2f}, {gy:+.2f}"
