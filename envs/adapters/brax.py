"""brax environments under our contract: `make("brax:ant,backend=positional,max_steps=500")`.

Its own episode and auto-reset wrappers are left out: episodes are cut after `max_steps`, and every reset is a real one
(brax's wrapper goes back to the first state). Actions are in [-1, 1]. The other options go to its constructor.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from jaxrl_seq.envs.adapters.imported import Held, Imported, library, options_key, shapes, space_of
from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.envs.core.spaces import Box


@dataclasses.dataclass(frozen=True, kw_only=True)
class BraxEnv(Imported):
    """Make it with `make_brax`."""

    paper: ClassVar[str] = "Freeman et al. 2021 (arXiv 2106.13281)"

    def raw_reset(self, key: Any) -> tuple[Any, Any, dict[str, Any]]:
        state = self.held.env.reset(key)
        return state, state.obs, {}

    def raw_step(self, key: Any, inner: Any, t: Any, action: Any) -> tuple[Any, Any, Any, Any, Any, dict]:
        state = self.held.env.step(inner, action)
        return state, state.obs, state.reward, state.done > 0.5, False, {}


def make_brax(name: str, max_steps: int = 1000, **options: Any) -> tuple[BraxEnv, tuple[()]]:
    """(env, params) from a brax id. Raises ValueError with a suggestion for an unknown one."""
    envs = library("brax.envs")
    env = envs.get_environment(known(name, envs._envs, "brax environment"), **options)
    made = BraxEnv(
        name=name,
        held=Held(env, "brax", name, *options_key(options)),
        max_steps=max_steps,
        observations=space_of(shapes(lambda key: env.reset(key).obs)),
        actions=Box(-1.0, 1.0, (env.action_size,)),
    )
    return made, ()
