"""Single-player pgx environments under our contract: `make("pgx:2048")`, `make("pgx:minatar-breakout,max_steps=500")`.

The legal actions are `TimeStep.action_mask`; an illegal one ends the game, as pgx has it. pgx sets no time limit;
`max_steps` truncates. Games of two or more players are refused.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from jaxrl_seq.envs.adapters.imported import Held, Imported, library, shapes, space_of
from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.envs.core.spaces import Discrete


@dataclasses.dataclass(frozen=True, kw_only=True)
class PgxEnv(Imported):
    """Make it with `make_pgx`."""

    paper: ClassVar[str] = "Koyamada et al. 2023 (arXiv 2303.17503)"

    def raw_reset(self, key: Any) -> tuple[Any, Any, dict[str, Any]]:
        state = self.held.env.init(key)
        return state, state.observation, {"action_mask": state.legal_action_mask}

    def raw_step(self, key: Any, inner: Any, t: Any, action: Any) -> tuple[Any, Any, Any, Any, Any, dict]:
        state = self.held.env.step(inner, action, key)
        fields = {"action_mask": state.legal_action_mask}
        return state, state.observation, state.rewards[0], state.terminated, state.truncated, fields


def make_pgx(name: str, max_steps: int = 1000) -> tuple[PgxEnv, tuple[()]]:
    """(env, params) from a pgx id. Raises ValueError with a suggestion for an unknown one."""
    pgx = library("pgx")
    env = pgx.make(known(name, pgx.available_envs(), "pgx environment"))
    if env.num_players != 1:
        raise ValueError(f"{name} is a game of {env.num_players} players; only games of one come in.")
    made = PgxEnv(
        name=name,
        held=Held(env, "pgx", name),
        max_steps=max_steps,
        observations=space_of(shapes(lambda key: env.init(key).observation)),
        actions=Discrete(int(env.num_actions)),
    )
    return made, ()
