"""Small data sets whose every number says where it stands, and slow twins of what is derived from them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxrl_seq.envs import Box, Discrete
from jaxrl_seq.offline import Dataset, Meta, build

META = Meta(Box(-1e6, 1e6, (2,)), Discrete(5), reference=(("random", 0.0), ("expert", 10.0)))


def columns(lengths, seed: int = 0, truncated_every: int = 2) -> dict:
    """Arguments of `build`: obs is (episode, t), final_obs (episode, length); every n-th episode is truncated."""
    rng = np.random.default_rng(seed)
    lengths = np.asarray(lengths)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    t = np.concatenate([np.arange(n) for n in lengths])
    last = t == lengths[episode] - 1
    cut = episode % truncated_every == 1
    return {
        "obs": np.stack([episode, t], axis=1).astype(np.float32),
        "action": rng.integers(0, 5, len(t)).astype(np.int32),
        "reward": rng.normal(size=len(t)).astype(np.float32),
        "terminated": last & ~cut,
        "truncated": last & cut,
        "final_obs": np.stack([np.arange(len(lengths)), lengths], axis=1).astype(np.float32),
        "source": np.arange(len(lengths), dtype=np.int32),
        "extra": {"cost": rng.random((len(t), 1)).astype(np.float32)},
    }


def dataset(lengths, seed: int = 0, meta: Meta = META) -> Dataset:
    return build(**columns(lengths, seed), meta=meta)


def slow_returns_to_go(reward, lengths, gamma: float) -> np.ndarray:
    """By two loops, in float64."""
    out, start = np.zeros(len(reward)), 0
    for n in lengths:
        total = 0.0
        for i in reversed(range(start, start + n)):
            total = float(reward[i]) + gamma * total
            out[i] = total
        start += n
    return out


def row_of(data: Dataset, episode: int, t: int) -> int:
    return int(jnp.asarray(data.start)[episode]) + t
