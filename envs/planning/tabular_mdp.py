"""Tabular MDPs drawn at random, with their exact optimum."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.protocol import TaskEnv
from jaxrl_seq.envs.core.spaces import Discrete
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition

Array = jax.Array


@struct.dataclass
class MDP:
    """A task: N states, A actions."""

    cumulative: Array  # float32 [N, A, N], cumulative chances of the next state
    means: Array  # float32 [N, A], mean rewards
    best: Array  # int8 [limit, N], the optimal action with limit - t steps left
    value: Array  # float32 [], the optimal return


@struct.dataclass
class TabularMDPState:
    task: MDP
    state: Array  # int32 []
    action: Array  # int32 [], the last one, -1 before
    t: Array  # int32 [], steps taken


@struct.dataclass
class TabularMDPParams:
    """float32 [] each."""

    reward_mean: Array  # of the prior of mean rewards, N(reward_mean, reward_spread^2)
    reward_spread: Array
    noise: Array  # standard deviation of a reward about its mean


@dataclass(frozen=True)
class TabularMDP(TaskEnv[TabularMDPState, TabularMDPParams]):
    """A random MDP: flat Dirichlet chances of the next state, mean rewards from N(1, 1) (Duan et al. 2016).

    The task is the MDP with its optimal actions, solved when it is drawn. Episodes open in state 0 and last `limit`
    steps, each of which pays its mean plus noise from N(0, 1). Observation int32 []: the state.
    Actions: `actions` of them. What is best depends on the steps left, which a policy has to count.
    """

    states: int = 10
    actions: int = 5
    limit: int = 10
    """Steps of an episode."""

    name: ClassVar[str] = "tabular_mdp"
    paper: ClassVar[str] = "Duan et al. 2016 (arXiv 1611.02779)"

    def __post_init__(self) -> None:
        for field, least in (("states", 1), ("actions", 2), ("limit", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"tabular_mdp: {field} must be at least {least}, got {getattr(self, field)}.")
        if self.actions > 127:
            raise ValueError(f"tabular_mdp: actions must be at most 127, got {self.actions}.")

    @property
    def horizon(self) -> int:
        return self.limit

    def default_params(self) -> TabularMDPParams:
        return TabularMDPParams(jnp.float32(1.0), jnp.float32(1.0), jnp.float32(1.0))

    def sample_task(self, key: Array, params: TabularMDPParams) -> MDP:
        chance_key, reward_key = jax.random.split(key)
        # a flat Dirichlet is normalised exponentials
        raw = jax.random.exponential(chance_key, (self.states, self.actions, self.states), jnp.float32)
        chances = raw / raw.sum(-1, keepdims=True)
        normal = jax.random.normal(reward_key, (self.states, self.actions), jnp.float32)
        return self.solve(chances, params.reward_mean + params.reward_spread * normal)

    def solve(self, chances: Array, means: Array) -> MDP:
        """The task of given chances [N, A, N] and mean rewards [N, A], by backward induction."""

        q, value = value_iteration(chances, means, self.limit)
        return MDP(
            cumulative=jnp.cumsum(chances, -1), means=means, best=jnp.argmax(q, -1).astype(jnp.int8), value=value[0, 0]
        )

    def reset_to(self, key: Array, task: MDP, params: TabularMDPParams) -> tuple[TabularMDPState, TimeStep]:
        del key
        state = TabularMDPState(task=task, state=jnp.int32(0), action=jnp.int32(-1), t=jnp.int32(0))
        return state, opening(self._obs(state))

    def step(
        self, key: Array, state: TabularMDPState, action: Array, params: TabularMDPParams
    ) -> tuple[TabularMDPState, TimeStep]:
        reward_key, key = jax.random.split(key)
        reward = state.task.means[state.state, action] + params.noise * jax.random.normal(reward_key, (), jnp.float32)
        below = state.task.cumulative[state.state, action, :-1] <= jax.random.uniform(key, (), jnp.float32)
        state = replace(
            state,
            state=jnp.sum(below, dtype=jnp.int32),
            action=jnp.asarray(action, jnp.int32),
            t=state.t + 1,
        )
        return state, transition(self._obs(state), reward, terminated=state.t >= self.limit)

    def _obs(self, state: TabularMDPState) -> Array:
        return state.state

    def observation_space(self) -> Discrete:
        return Discrete(self.states)

    def action_space(self) -> Discrete:
        return Discrete(self.actions)

    def expert(self, key: Array, state: TabularMDPState, params: TabularMDPParams) -> Array:
        """The optimal action, looked up."""
        del key
        return state.task.best[jnp.minimum(state.t, self.limit - 1), state.state].astype(jnp.int32)

    def optimal_return(self, task: MDP, params: TabularMDPParams) -> Array:
        return task.value

    def reference(self) -> dict[str, float]:
        """random and reactive are exact: to a policy that remembers nothing all MDPs look alike, and a reward's mean is
        1. expert: the mean value of 2^20 MDPs of the default size; 95 %: +- 0.0044."""
        blind = {"random": float(self.limit), "reactive": float(self.limit)}
        default = (self.states, self.actions, self.limit) == (10, 5, 10)
        return blind | ({"expert": _EXPERT} if default else {})

    def render(self, state: TabularMDPState, params: TabularMDPParams) -> Array:
        """uint8 [16 states + 4, 16 actions + 24, 3]: mean rewards as a table (red low, green high), the best action of
        each state framed, the present state's row marked at its left, the last action at the top of its column."""
        tile, left, top = 16, 20, 8
        height, width = tile * self.states + top + 4, tile * self.actions + left
        y, x = np.mgrid[0:height, 0:width]
        row, col = np.clip((y - top) // tile, 0, self.states - 1), np.clip((x - left) // tile, 0, self.actions - 1)
        inside = (y >= top) & (y < top + tile * self.states) & (x >= left)
        edge = np.minimum((y - top) % tile, (x - left) % tile)
        edge = np.minimum(edge, np.minimum(tile - 1 - (y - top) % tile, tile - 1 - (x - left) % tile))
        share = jnp.clip((state.task.means[row, col] - params.reward_mean) / 4 + 0.5, 0, 1)[..., None]
        colors = (share * jnp.array(draw.GREEN) + (1 - share) * jnp.array(draw.RED)).astype(jnp.uint8)
        image = draw.paint(draw.canvas(height, width), jnp.asarray(inside & (edge > 0)), colors)
        best = state.task.best[jnp.minimum(state.t, self.limit - 1)]
        image = draw.paint(image, jnp.asarray(inside & (edge == 1)) & (best[row] == col), draw.WHITE)
        centre = top + tile * (state.state + 0.5)
        image = draw.paint(image, draw.disc(height, width, centre, left / 2, 6), draw.BLUE)
        mark = draw.disc(height, width, top / 2, left + tile * (state.action + 0.5), 3) & (state.action >= 0)
        image = draw.paint(image, mark, draw.ORANGE)
        done = draw.rectangle(height, width, height - 4, 0, height, width * state.t / self.limit)
        return draw.paint(image, done, draw.BLUE)

    def ascii(self, state: TabularMDPState, params: TabularMDPParams) -> str:
        means, here = np.asarray(state.task.means), int(state.state)
        rows = [f"{'>' if i == here else ' '} " + " ".join(f"{x:+.1f}" for x in row) for i, row in enumerate(means)]
        return "\n".join(rows) + f"\nstep {int(state.t)} of {self.limit}, last action {int(state.action)}"


_EXPERT = 21.830


def value_iteration(
    chances: Array, rewards: Array, horizon: int, top: Array | float | None = None
) -> tuple[Array, Array]:
    """(q [horizon, N, A], value [horizon, N]) of the best policy with horizon - t steps left, by backward induction.

    chances [N, A, N] of the next state, mean rewards [N, A]. With `top`, no value exceeds `top` times the steps left.
    """

    def back(value: Array, left: Array) -> tuple[Array, tuple[Array, Array]]:
        q = rewards + jnp.matmul(chances, value, precision=jax.lax.Precision.HIGHEST)
        q = q if top is None else jnp.minimum(q, top * left)
        return q.max(-1), (q, q.max(-1))

    left = jnp.arange(horizon, 0, -1, dtype=jnp.float32)
    return jax.lax.scan(back, jnp.zeros(rewards.shape[0], rewards.dtype), left, reverse=True)[1]
