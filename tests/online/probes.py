"""Probe environments: tiny tasks whose values, optima or bookkeeping are known exactly."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs import Box, Discrete, Env, Space, TimeStep, opening, transition

Array = jax.Array


@struct.dataclass
class ProbeState:
    secret: Array  # int32 [], drawn at reset
    t: Array  # int32 [], steps taken


@struct.dataclass
class ProbeParams:
    scale: Array
    """float32 []: every reward is multiplied by it; not a number poisons a run."""
    kind: Array
    """int32 []: which of the `VALUES` probes is played; the others ignore it."""


@dataclass(frozen=True)
class Probe(Env[ProbeState, ProbeParams]):
    """`secrets` equally likely secrets at reset, two actions, no observation; episodes of `length` steps."""

    length: int = 1
    secrets: int = 2

    name: ClassVar[str] = "probe"

    @property
    def horizon(self) -> int:
        return self.length

    def default_params(self) -> ProbeParams:
        return ProbeParams(scale=jnp.float32(1.0), kind=jnp.int32(0))

    def reset(self, key: Array, params: ProbeParams) -> tuple[ProbeState, TimeStep]:
        secret = jax.random.randint(key, (), 0, self.secrets, jnp.int32)
        state = ProbeState(secret=secret, t=jnp.int32(0))
        return state, opening(self.obs(state), **self.extras(state))

    def step(self, key: Array, state: ProbeState, action: Array, params: ProbeParams) -> tuple[ProbeState, TimeStep]:
        del key
        reward = jnp.asarray(self.reward(state, action), jnp.float32) * params.scale
        state = dataclasses.replace(state, t=state.t + 1)
        over = state.t >= self.last(state)
        cut = over & self.truncates(state)
        obs = self.obs(state)
        return state, transition(obs, reward, over & ~cut, cut, **self.extras(state))

    def observation_space(self) -> Space:
        return Box(-10.0, 10.0, self.obs_shape)

    def action_space(self) -> Space:
        return Discrete(2)

    # --- what probes differ in -----------------------------------------------------------------------------------
    obs_shape: ClassVar[tuple[int, ...]] = (1,)

    def obs(self, state: ProbeState) -> Array:
        return jnp.zeros(self.obs_shape, jnp.float32)

    def reward(self, state: ProbeState, action: Array) -> Any:
        """For acting in `state`, before the clock advances."""
        return 1.0

    def last(self, state: ProbeState) -> Any:
        """Steps of this episode."""
        return self.length

    def truncates(self, state: ProbeState) -> Any:
        """Whether this episode's end is a cut."""
        return self.time_limit == "truncate"

    def extras(self, state: ProbeState) -> dict[str, Any]:
        return {}


CONSTANT, SHOWN, DELAYED, MATCHING, ENDING, ENDLESS = range(6)


@dataclass(frozen=True)
class Values(Probe):
    """Six probes in one program, chosen by `params.kind`; their values are known in closed form.

    CONSTANT: one step that pays 1. SHOWN: one step that pays what is shown, -1 or 1. DELAYED: two steps, the second
    pays 1. MATCHING: one step, 1 for the action that is shown, else -1. ENDING: four steps that show the clock and pay
    1 each. ENDLESS: the same without a clock, and cut after four steps, so that nothing ever tells that it stops.
    """

    length: int = 4
    fixed_length: ClassVar[bool] = False
    time_limit: ClassVar[Literal["terminal", "truncate"]] = "truncate"

    def reset(self, key: Array, params: ProbeParams) -> tuple[ProbeState, TimeStep]:
        state, timestep = super().reset(key, params)
        return state, dataclasses.replace(timestep, obs=_shown(state, params.kind))

    def step(self, key: Array, state: ProbeState, action: Array, params: ProbeParams) -> tuple[ProbeState, TimeStep]:
        del key
        matched = jnp.where(action == state.secret, 1.0, -1.0)
        shown = 2.0 * state.secret - 1.0
        reward = jnp.stack([1.0, shown, state.t == 1, matched, 1.0, 1.0])[params.kind]
        state = dataclasses.replace(state, t=state.t + 1)
        over = state.t >= jnp.array([1, 1, 2, 1, self.length, self.length])[params.kind]
        cut = over & (params.kind == ENDLESS)
        return state, transition(_shown(state, params.kind), params.scale * reward, over & ~cut, cut)

    def value(self, kind: int, obs: Any, gamma: float) -> Any:
        """V of observations [..., 1] under the best policy."""
        signal = obs[..., 0]
        return (
            np.ones_like(signal),
            signal,
            np.where(signal == 0, gamma, 1.0),
            np.ones_like(signal),
            (1.0 - gamma ** (self.length - signal)) / (1.0 - gamma),
            np.full_like(signal, 1.0 / (1.0 - gamma)),
        )[kind]


def _shown(state: ProbeState, kind: Array) -> Array:
    secret, clock = 2.0 * state.secret - 1.0, state.t.astype(jnp.float32)
    return jnp.stack([0.0, secret, clock, secret, clock, 0.0])[kind][None]


@dataclass(frozen=True)
class Recall(Probe):
    """What was shown two steps ago is the action that pays 1, once: return 1 with memory, 0.5 without.

    A policy that sees its own last action can keep the cue in its actions, so a control must not.
    """

    length: int = 3
    obs_shape: ClassVar[tuple[int, ...]] = (2,)

    def obs(self, state: ProbeState) -> Array:
        cue = jnp.where(state.t == 0, 2.0 * state.secret - 1.0, 0.0)
        return jnp.stack([cue, state.t == self.length - 1]).astype(jnp.float32)

    def reward(self, state: ProbeState, action: Array) -> Any:
        return (state.t == self.length - 1) & (action == state.secret)


@dataclass(frozen=True)
class Ledger(Probe):
    """Everything can be read back from what the agent gets; episodes of 2 to 6 steps.

    Observation (secret, steps taken); the reward of a step is secret + t / 10 + action / 100, with the t it acted at;
    an episode lasts secret + 2 steps, and is cut if the secret is odd, else it terminates. Pictures are [2, 2, 3]
    with the colour (secret, t, 0).
    """

    length: int = 6
    secrets: int = 5
    obs_shape: ClassVar[tuple[int, ...]] = (2,)
    fixed_length: ClassVar[bool] = False
    time_limit: ClassVar[Literal["terminal", "truncate"]] = "truncate"

    def obs(self, state: ProbeState) -> Array:
        return jnp.stack([state.secret, state.t]).astype(jnp.float32)

    def reward(self, state: ProbeState, action: Array) -> Any:
        return state.secret + state.t / 10.0 + action / 100.0

    def last(self, state: ProbeState) -> Any:
        return state.secret + 2

    def truncates(self, state: ProbeState) -> Any:
        return state.secret % 2 == 1

    def extras(self, state: ProbeState) -> dict[str, Any]:
        return {"info": {"success": state.secret == 0}}

    def render(self, state: ProbeState, params: ProbeParams) -> Array:
        colour = jnp.stack([state.secret, state.t, jnp.int32(0)]).astype(jnp.uint8)
        return jnp.broadcast_to(colour, (2, 2, 3))


@dataclass(frozen=True)
class LedgerTerminal(Ledger):
    """The same, but every end is a termination."""

    time_limit: ClassVar[Literal["terminal", "truncate"]] = "terminal"

    def truncates(self, state: ProbeState) -> Any:
        return False


@dataclass(frozen=True)
class Masked(Probe):
    """Five actions, of which the secret and its successor are legal; an illegal one pays -1."""

    length: int = 4
    secrets: int = 5

    def action_space(self) -> Discrete:
        return Discrete(5)

    def _legal(self, state: ProbeState) -> Array:
        actions = jnp.arange(5)
        return (actions == state.secret) | (actions == (state.secret + state.t + 1) % 5)

    def reward(self, state: ProbeState, action: Array) -> Any:
        return jnp.where(self._legal(state)[action], 0.0, -1.0)

    def extras(self, state: ProbeState) -> dict[str, Any]:
        return {"action_mask": self._legal(state)}


@dataclass(frozen=True)
class Torque(Probe):
    """A box of two actions, [-1, 3] and [0, 4]; the reward is the largest distance from the centre, (1, 2)."""

    length: int = 4

    def action_space(self) -> Box:
        return Box((-1.0, 0.0), (3.0, 4.0), (2,))

    def reward(self, state: ProbeState, action: Array) -> Any:
        return jnp.max(jnp.abs(action - jnp.array([1.0, 2.0])))
