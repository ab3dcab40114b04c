"""What tests of sequence policies share: a small recorded world, and how a stored episode is played back."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.envs import Box, Discrete
from jaxrl_seq.envs.core.vector import Inputs, Outcome
from jaxrl_seq.offline import Dataset, Meta, build

LENGTHS = (5, 2, 7, 1, 4)
HORIZON = max(LENGTHS)


@dataclasses.dataclass(frozen=True)
class World:
    """As much of an environment as a learner asks for."""

    continuous: bool = False
    name: str = "world"
    horizon: int = HORIZON
    fixed_length: bool = False

    def observation_space(self) -> Box:
        return Box(-10.0, 10.0, (2,))

    def action_space(self) -> Any:
        return Box(-2.0, 2.0, (2,)) if self.continuous else Discrete(3)

    def default_params(self) -> tuple[()]:
        return ()


def recorded(world: World, seed: int = 0, lengths: tuple[int, ...] = LENGTHS) -> Dataset:
    """Random numbers in episodes of these lengths, with costs."""
    rng = np.random.default_rng(seed)
    n, ends = sum(lengths), np.cumsum(lengths) - 1
    last = np.isin(np.arange(n), ends)
    action = rng.uniform(-2, 2, (n, 2)).astype(np.float32) if world.continuous else rng.integers(0, 3, n, np.int32)
    return build(
        obs=rng.normal(1.0, 2.0, (n, 2)).astype(np.float32),
        action=action,
        reward=rng.normal(size=n).astype(np.float32),
        terminated=last,
        truncated=np.zeros(n, bool),
        final_obs=rng.normal(size=(len(lengths), 2)).astype(np.float32),
        extra={"cost": rng.random((n, 1)).astype(np.float32)},
        meta=Meta(world.observation_space(), world.action_space(), "", reference=(("random", -1.0), ("expert", 3.0))),
    )


def columns(data: Dataset, episodes: tuple[int, ...], steps: int) -> dict[str, Any]:
    """[T, B, ...] of whole episodes side by side; after its end an episode's last step again."""
    rows = np.asarray(data.start)[list(episodes)] + np.minimum(
        np.arange(steps)[:, None], np.asarray(data.length)[list(episodes)] - 1
    )
    names = ("obs", "action", "reward")
    return {name: getattr(data, name)[rows] for name in names} | {"cost": data.extra["cost"][rows]}


def replay(policy: Any, shown: dict[str, Any], before: int = 0) -> dict[str, Any]:
    """What `policy` predicts at every step of stored episodes that it is led through, {term: [T, B, P]}, having been
    led through the same ones `before` times."""
    steps, batch = shown["reward"].shape
    first = jnp.tile((jnp.arange(steps) == 0)[:, None], (before + 1, batch))
    shown = {name: jnp.concatenate([x] * (before + 1)) for name, x in shown.items()}

    def previous(x: Any) -> Any:
        late = jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]])
        return jnp.where(first.reshape(first.shape + (1,) * (x.ndim - 2)), jnp.zeros_like(x), late)

    inputs = Inputs(shown["obs"], previous(shown["action"]), previous(shown["reward"]), first)

    def step(memory: Any, now: Any) -> Any:
        inputs, action, reward, cost = now
        memory, outs = policy.look(memory, inputs)
        blank = jnp.zeros_like(reward)
        outcome = Outcome(reward, blank > 0, blank > 0, inputs, blank, blank, {}, cost, jnp.int32(0))
        return policy.observe(memory, action, outcome), outs

    start = policy.init(jax.tree.map(lambda x: x[0], inputs))
    outs = jax.lax.scan(step, start, (inputs, shown["action"], shown["reward"], shown["cost"]))[1]
    return jax.tree.map(lambda x: x[-steps:], outs)
