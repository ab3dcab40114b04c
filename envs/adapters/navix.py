"""NAVIX environments under our contract: `make("navix:Navix-DoorKey-5x5-v0,max_steps=50")`.

Over its step without auto-reset. Options go to `navix.make` (an `observation_fn` can be given from Python only).
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp

from jaxrl_seq.envs.adapters.imported import Held, Imported, library, options_key, shapes
from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.envs.core.spaces import Box, Discrete


@dataclasses.dataclass(frozen=True, kw_only=True)
class NavixEnv(Imported):
    """Make it with `make_navix`."""

    paper: ClassVar[str] = "Pignatelli et al. 2024 (arXiv 2407.19396)"

    def raw_reset(self, key: Any) -> tuple[Any, Any, dict[str, Any]]:
        timestep = self.held.env.reset(key)
        return timestep.state, timestep.observation, {"info": {"success": jnp.zeros((), bool)}}

    def raw_step(self, key: Any, inner: Any, t: Any, action: Any) -> tuple[Any, Any, Any, Any, Any, dict]:
        theirs = library("navix.environments.environment").Timestep
        before = theirs(t=t, state=inner, action=action, reward=0.0, step_type=0, observation=None)
        after = self.held.env._step(before, action)
        over = after.is_termination()
        info = {"success": over & (after.reward > 0)}
        return after.state, after.observation, after.reward, over, after.is_truncation(), {"info": info}


def make_navix(name: str, **options: Any) -> tuple[NavixEnv, tuple[()]]:
    """(env, params) from a NAVIX id. Raises ValueError with a suggestion for an unknown one."""
    navix = library("navix")
    env = navix.make(known(name, navix.registry(), "NAVIX environment"), **options)
    obs = shapes(lambda key: env.reset(key).observation)
    made = NavixEnv(
        name=name,
        held=Held(env, "navix", name, *options_key(options)),
        max_steps=int(env.max_steps),
        observations=Box(0, 255, obs.shape, obs.dtype),
        actions=Discrete(len(env.action_set)),
    )
    return made, ()
