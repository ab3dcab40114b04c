"""Members of spaces made by NumPy, so that tests compile nothing for their inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxrl_seq.envs import Box, Discrete, MultiDiscrete, Space, Tree
from jaxrl_seq.envs.core.vector import Inputs


def members(space: Space, *batch: int, seed: int = 0) -> Any:
    """Random members [*batch, ...] of `space`."""
    rng = np.random.default_rng(seed)
    if isinstance(space, Tree):
        return {name: members(sub, *batch, seed=seed + i) for i, (name, sub) in enumerate(space.spaces.items())}
    if isinstance(space, Discrete):
        return rng.integers(0, space.n, batch).astype(np.int32)
    if isinstance(space, MultiDiscrete):
        return rng.integers(0, space.ns, (*batch, len(space.ns))).astype(np.int32)
    assert isinstance(space, Box)
    low, high = (bound.astype(np.float64) for bound in space.bounds)
    return rng.uniform(low, high, (*batch, *space.shape)).astype(space.dtype)


def random_inputs(observation: Space, action: Space, *batch: int, first: float = 0.25) -> Any:
    """What an agent may see, [*batch, ...], with a share `first` of openings."""
    rng = np.random.default_rng(3)
    return Inputs(
        obs=members(observation, *batch),
        prev_action=members(action, *batch, seed=1),
        prev_reward=rng.normal(size=batch).astype(np.float32),  # pyright: ignore[reportArgumentType]
        first=rng.random(batch) < first,  # pyright: ignore[reportArgumentType]
    )
