"""What a policy is conditioned on: one object owns the label of training and the rule of acting.

A signal is a frozen dataclass. In training its label is a column of the data set; in acting it begins as what is asked
for and moves on with every reward. Where the two agree along recorded episodes, the signal is `consistent`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import jax.numpy as jnp

from jaxrl_seq.envs.core.vector import Outcome
from jaxrl_seq.offline.dataset import Dataset, returns_to_go
from jaxrl_seq.types import Array


class Signal(Protocol):
    """See above. Every array is float32 [..., width]."""

    name: ClassVar[str]
    """Of the column, and in `Tokens`."""
    width: ClassVar[int]
    consistent: ClassVar[bool]

    def column(self, dataset: Dataset) -> Array:
        """[N, width]: the label of every step. ValueError for data that has none."""
        ...

    def start(self, asked: Array) -> Array:
        """[B, width]: what is shown before the first action, of the numbers asked for [B]."""
        ...

    def update(self, shown: Array, outcome: Outcome) -> Array:
        """[B, width]: what is shown next."""
        ...


@dataclass(frozen=True)
class ReturnToGo:
    """The undiscounted reward that is left to earn (Chen et al. 2021, arXiv:2106.01345).

    delayed: the return of the whole episode at every step, for rewards that come in one piece at the end.
    """

    delayed: bool = False

    name: ClassVar[str] = "rtg"
    width: ClassVar[int] = 1
    consistent: ClassVar[bool] = True

    def column(self, dataset: Dataset) -> Array:
        values = dataset.returns[dataset.episode] if self.delayed else dataset.rtg
        return values[:, None]

    def start(self, asked: Array) -> Array:
        return asked[:, None]

    def update(self, shown: Array, outcome: Outcome) -> Array:
        return shown if self.delayed else shown - outcome.reward[:, None]


@dataclass(frozen=True)
class CostToGo:
    """The cost that is left to spend (Liu et al. 2023, arXiv:2302.07351); negative once it is overspent."""

    name: ClassVar[str] = "ctg"
    width: ClassVar[int] = 1
    consistent: ClassVar[bool] = True

    def column(self, dataset: Dataset) -> Array:
        if "cost" not in dataset.extra:
            raise ValueError(
                f"This data ({dataset.meta.env or 'from elsewhere'}) has no column `cost`, so there is no cost-to-go: "
                "use an environment with costs, such as safe_grid."
            )
        return returns_to_go(step_cost(dataset), dataset.to_end)[:, None]

    def start(self, asked: Array) -> Array:
        return asked[:, None]

    def update(self, shown: Array, outcome: Outcome) -> Array:
        if outcome.cost is None:
            raise ValueError("The environment has no costs, so that there is nothing to count against a limit.")
        return shown - total_cost(outcome.cost)[:, None]


def step_cost(dataset: Dataset) -> Array:
    """float32 [N]: all costs of a step added up."""
    return total_cost(dataset.extra["cost"])


def total_cost(cost: Array) -> Array:
    """float32 [B] of costs [B] or [B, C]."""
    return jnp.sum(cost.reshape(cost.shape[0], -1), axis=-1).astype(jnp.float32)
