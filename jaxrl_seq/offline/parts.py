"""Parts of data sets, and data sets of parts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.offline.dataset import PER_EPISODE, PER_STEP, Dataset, Meta, build, given


def take_episodes(dataset: Dataset, episodes: Any) -> Dataset:
    """Only the episodes of these numbers (int [E']), in this order; statistics are those of the part.

    Not jittable: sizes depend on the values. Raises ValueError for none, or for numbers out of range.
    """
    chosen = np.asarray(episodes, np.int64).reshape(-1)
    count = dataset.num_episodes
    if not len(chosen) or chosen.min() < 0 or chosen.max() >= count:
        raise ValueError(f"Take at least one of the episodes 0 .. {count - 1}; got {chosen[:8].tolist()}.")
    start, length = np.asarray(dataset.start)[chosen], np.asarray(dataset.length)[chosen]
    index = jnp.asarray(np.repeat(start - (np.cumsum(length) - length), length) + np.arange(length.sum()))
    part = {name: jax.tree.map(lambda x: x[index], getattr(dataset, name)) for name in PER_STEP}
    part |= {name: jax.tree.map(lambda x: x[jnp.asarray(chosen)], getattr(dataset, name)) for name in PER_EPISODE}
    return build(**part, meta=dataset.meta)


def top_fraction(dataset: Dataset, fraction: float) -> Dataset:
    """The episodes of highest return that make up `fraction` (0 to 1) of the steps, at least one of them: what BC on
    the best x % learns from (Chen et al. 2021). Episodes stay in their order."""
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}: a share of the steps, above 0 and at most 1.")
    best = np.argsort(-np.asarray(dataset.returns), kind="stable")
    before = np.cumsum(np.asarray(dataset.length)[best]) - np.asarray(dataset.length)[best]
    return take_episodes(dataset, np.sort(best[before < fraction * dataset.steps]))


def concatenate(parts: list[Dataset], meta: Meta | None = None, *, number: bool = False) -> Dataset:
    """All episodes of `parts`, one part after the other; number: `source` becomes the number of the part.

    Raises ValueError where the parts' spaces or columns differ.
    """
    first = parts[0]
    for i, other in enumerate(parts[1:], 1):
        for what in ("observation_space", "action_space"):
            ours, theirs = getattr(first.meta, what), getattr(other.meta, what)
            if ours != theirs:
                raise ValueError(f"Part {i} has the {what} {theirs}, part 0 {ours}: join data of one environment.")
        if other.extra.keys() != first.extra.keys():
            raise ValueError(f"Part {i} has the further columns {sorted(other.extra)}, part 0 {sorted(first.extra)}.")
    columns = jax.tree.map(lambda *x: jnp.concatenate(x), *map(given, parts))
    if number:
        columns["source"] = np.repeat(np.arange(len(parts)), [part.num_episodes for part in parts])
    return build(**columns, meta=meta or first.meta)
