"""Craftax environments under our contract: `make("craftax:Craftax-Classic-Symbolic-v1")`.

Over the variants without auto-reset. Death and victory terminate; `max_steps` (their `max_timesteps`) truncates.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from jaxrl_seq.envs.adapters.imported import Held, Imported, library, shapes, space_of
from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.envs.core.spaces import Discrete

_IDS = ("Craftax-Symbolic-v1", "Craftax-Pixels-v1", "Craftax-Classic-Symbolic-v1", "Craftax-Classic-Pixels-v1")
_ENDLESS = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class CraftaxEnv(Imported):
    """Make it with `make_craftax`."""

    paper: ClassVar[str] = "Matthews et al. 2024 (arXiv 2402.16801)"

    def raw_reset(self, key: Any) -> tuple[Any, Any, dict[str, Any]]:
        obs, state = self.held.env.reset_env(key, self._params())
        return state, obs, {}

    def raw_step(self, key: Any, inner: Any, t: Any, action: Any) -> tuple[Any, Any, Any, Any, Any, dict]:
        # With a time limit that is never reached, what is over is over for another reason.
        obs, state, reward, terminated, _ = self.held.env.step_env(key, inner, action, self._params())
        return state, obs, reward, terminated, False, {}

    def _params(self) -> Any:
        return self.held.env.default_params.replace(max_timesteps=_ENDLESS)


def make_craftax(name: str, max_steps: int | None = None) -> tuple[CraftaxEnv, tuple[()]]:
    """(env, params) from a Craftax id; `max_steps` None: its own. Raises ValueError with a suggestion for an unknown
    one."""
    make = library("craftax.craftax_env").make_craftax_env_from_name
    env = make(known(name, _IDS, "Craftax environment"), auto_reset=False)
    params = env.default_params
    made = CraftaxEnv(
        name=name,
        held=Held(env, "craftax", name),
        max_steps=int(params.max_timesteps) if max_steps is None else max_steps,
        observations=space_of(shapes(lambda key: env.reset_env(key, params)[0])),
        actions=Discrete(int(env.action_space(params).n)),
    )
    return made, ()
