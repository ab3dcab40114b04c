"""Normalisation that cannot be forgotten: its numbers travel with the parameters."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_seq.envs import Space
from jaxrl_seq.offline.dataset import Stats, normalise
from jaxrl_seq.types import PyTree

_COLLECTION, _NAME = "stats", "of_data"


class Standardise(nn.Module):
    """Observations [..., ] of `space`, normalised: the first layer of whatever learns from a `Dataset`.

    Mean and deviation are variables of the collection "stats", which no optimiser touches. They start as NaN: a network
    that was not given its numbers (`with_stats`) says nothing at all, and one that was acts by those it learnt with.
    """

    space: Space

    @nn.compact
    def __call__(self, obs: PyTree) -> PyTree:
        like = jax.eval_shape(self.space.sample, jax.eval_shape(lambda: jax.random.key(0)))
        unknown = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, jnp.float32), like)
        numbers: Any = self.variable(_COLLECTION, _NAME, lambda: {"mean": unknown, "std": unknown})
        return normalise(obs, **numbers.value)


def with_stats(variables: Any, stats: Stats) -> Any:
    """The variables of a network with the numbers of its data in every `Standardise`.

    Raises ValueError for a network that has none.
    """
    if _COLLECTION not in variables:
        raise ValueError(
            f"This network has no layer `Standardise` (its variables are {', '.join(variables)}): let its encoder open "
            "with one, or it will see other units than its data's statistics say."
        )

    def filled(node: Any) -> Any:
        numbers = {"mean": stats.obs_mean, "std": stats.obs_std}
        if not hasattr(node, "items"):
            return node  # of another layer
        return {name: numbers if name == _NAME else filled(below) for name, below in node.items()}

    return {**variables, _COLLECTION: filled(variables[_COLLECTION])}
