"""An environment in which each wrong turn of an adapter shows: every observation names its episode and its clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.envs import Box, Discrete, Env, MultiDiscrete, Space, TimeStep, Tree, opening, transition
from jaxrl_seq.envs.core import rendering as draw

Array = jax.Array


@struct.dataclass
class ProbeState:
    tag: Array  # float32 [], drawn at the reset
    noise: Array  # float32 [], drawn at every step
    t: Array  # int32 []
    last: Array  # float32 [], the action as a number


@struct.dataclass
class ProbeParams:
    scale: Array  # float32 [], of the reward


@dataclass(frozen=True)
class Probe(Env[ProbeState, ProbeParams]):
    """Ends when the action is 1 (a termination) or after `length` steps (a truncation); the reward is scale * t."""

    length: int = 4
    acts: Literal["discrete", "multi", "box", "tree"] = "discrete"
    flat: bool = False
    """Observe float32 [4] instead of a Tree of every kind of space."""
    masked: bool = True

    name: ClassVar[str] = "probe"
    time_limit: ClassVar[Literal["terminal", "truncate"]] = "truncate"
    fixed_length: ClassVar[bool] = False

    @property
    def horizon(self) -> int:
        return self.length

    def default_params(self) -> ProbeParams:
        return ProbeParams(scale=jnp.float32(1.0))

    def reset(self, key: Array, params: ProbeParams) -> tuple[ProbeState, TimeStep]:
        zero = jnp.float32(0)
        state = ProbeState(tag=jax.random.uniform(key, (), jnp.float32), noise=zero, t=jnp.int32(0), last=zero)
        return state, opening(self._obs(state), **self._fields(state))

    def step(self, key: Array, state: ProbeState, action: Any, params: ProbeParams) -> tuple[ProbeState, TimeStep]:
        number = self._number(action)
        noise = jax.random.uniform(key, (), jnp.float32)
        state = replace(state, noise=noise, t=state.t + 1, last=number)
        reward = params.scale * state.t
        done = number == 1
        return state, transition(self._obs(state), reward, done, state.t >= self.length, **self._fields(state))

    def _number(self, action: Any) -> Array:
        if isinstance(action, dict):
            return action["which"].astype(jnp.float32)
        return action.astype(jnp.float32).reshape(-1)[0]

    def _fields(self, state: ProbeState) -> dict[str, Any]:
        info = {"success": state.t == 2, "energy": state.noise / 3, "count": state.t}
        if not self.masked:
            return {"info": info}
        return {"info": info, "action_mask": jnp.array([True, False, True]) ^ (state.t == 1), "cost": state.noise[None]}

    def _obs(self, state: ProbeState) -> Any:
        vector = jnp.stack([state.tag, state.noise, state.t.astype(jnp.float32), state.last])
        if self.flat:
            return vector
        clock = jnp.minimum(state.t, self.length)
        return {
            "vector": vector,
            "clock": clock,
            "pair": jnp.stack([clock, (state.tag * 3).astype(jnp.int32)]),
            "pixels": jnp.full((2, 2, 3), state.tag * 255, jnp.float32).astype(jnp.uint8),
        }

    def observation_space(self) -> Space:
        vector = Box((0, 0, 0, -2), (1, 1, self.length, 2), (4,))
        if self.flat:
            return vector
        pixels = Box(0, 255, (2, 2, 3), jnp.uint8)
        clock, pair = Discrete(self.length + 1), MultiDiscrete((self.length + 1, 3))
        return Tree({"vector": vector, "clock": clock, "pair": pair, "pixels": pixels})

    def action_space(self) -> Space:
        return {
            "discrete": Discrete(3),
            "multi": MultiDiscrete((3, 5)),
            "box": Box(-2.0, 2.0, (1,)),
            "tree": Tree({"which": Discrete(3), "how": Box(-1.0, 1.0, (2,))}),
        }[self.acts]

    def render(self, state: ProbeState, params: ProbeParams) -> Array:
        return draw.paint(draw.canvas(8, 8), draw.rectangle(8, 8, 0, 0, 8, state.t + 1.0), draw.BLUE)

    def ascii(self, state: ProbeState, params: ProbeParams) -> str:
        return f"step {int(state.t)} of {float(state.tag):.6f}"
