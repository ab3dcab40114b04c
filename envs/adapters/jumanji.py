"""Jumanji environments under our contract: `make("jumanji:Snake-v1")`.

Observations are dicts of their fields; the action mask of a discrete action is `TimeStep.action_mask`. A last step of
discount 0 terminates, another truncates; most of theirs give their time limit the discount 0. Options go to
`jumanji.make`; `max_steps` None is its `time_limit`, or 1000.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from jaxrl_seq.envs.adapters.imported import Held, Imported, library, options_key, parts, shapes, space_of
from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.envs.core.spaces import Box, Discrete, MultiDiscrete, Space


@dataclasses.dataclass(frozen=True, kw_only=True)
class JumanjiEnv(Imported):
    """Make it with `make_jumanji`."""

    paper: ClassVar[str] = "Bonnet et al. 2024 (arXiv 2306.09884)"

    def raw_reset(self, key: Any) -> tuple[Any, Any, dict[str, Any]]:
        state, timestep = self.held.env.reset(key)
        return state, *_split(timestep.observation, self.actions)

    def raw_step(self, key: Any, inner: Any, t: Any, action: Any) -> tuple[Any, Any, Any, Any, Any, dict]:
        state, timestep = self.held.env.step(inner, action)
        obs, fields = _split(timestep.observation, self.actions)
        over = timestep.discount == 0
        return state, obs, timestep.reward, timestep.last() & over, timestep.last() & ~over, fields


def make_jumanji(name: str, max_steps: int | None = None, **options: Any) -> tuple[JumanjiEnv, tuple[()]]:
    """(env, params) from a Jumanji id. Raises ValueError with a suggestion for an unknown one, and for an action space
    or a reward that has no counterpart here."""
    jumanji = library("jumanji")
    env = jumanji.make(known(name, jumanji.registered_environments(), "Jumanji environment"), **options)
    first = shapes(lambda key: env.reset(key)[1])
    if first.reward.shape != ():
        raise ValueError(f"{name}: a reward of shape {first.reward.shape}; only single-agent environments come in.")
    actions = _actions(name, env.action_spec)
    made = JumanjiEnv(
        name=name,
        held=Held(env, "jumanji", name, *options_key(options)),
        max_steps=int(getattr(env, "time_limit", None) or 1000) if max_steps is None else max_steps,
        observations=space_of(_split(first.observation, actions)[0]),
        actions=actions,
    )
    return made, ()


def _split(obs: Any, actions: Space) -> tuple[Any, dict[str, Any]]:
    """(observation, {"action_mask": ...}) where the mask is one over a discrete action; it stays in the other cases."""
    named = parts(obs)
    if named is None or "action_mask" not in named or not isinstance(actions, Discrete):
        return obs, {}
    if named["action_mask"].shape != (actions.n,):
        return obs, {}
    return {k: v for k, v in named.items() if k != "action_mask"}, {"action_mask": named["action_mask"]}


def _actions(name: str, spec: Any) -> Space:
    if hasattr(spec, "num_values"):
        counts = np.asarray(spec.num_values)
        if counts.ndim == 0:
            return Discrete(int(counts))
        if counts.ndim == 1:
            return MultiDiscrete(tuple(counts.tolist()))
    elif hasattr(spec, "minimum"):
        low, high = (np.broadcast_to(b, spec.shape).ravel().tolist() for b in (spec.minimum, spec.maximum))
        return Box(tuple(low), tuple(high), spec.shape, spec.dtype)
    raise ValueError(f"{name}: the action spec {spec} has no counterpart here.")
