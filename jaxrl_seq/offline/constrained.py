"""Constrained Decision Transformer (Liu et al. 2023, arXiv:2302.07351): a return to earn and a cost not to exceed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from jaxrl_seq.offline.dataset import Dataset
from jaxrl_seq.offline.learner import OfflineHyper, SequenceLearner
from jaxrl_seq.offline.objectives import Columns
from jaxrl_seq.offline.parts import concatenate, take_episodes
from jaxrl_seq.online.evaluate import Episodes
from jaxrl_seq.types import Array

LIMITS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Cost limits of every evaluation, as shares of the costliest episode of the data."""


@struct.dataclass
class ConstrainedHyper(OfflineHyper):
    """The numbers that are traced, and the data."""

    cost_limit: float | None = None
    """The cost that the headline allows for; None for the mean of the data's episodes."""


@dataclass(frozen=True)
class CostTerm:
    """Whether the step costs anything, told at the action's token: a loss of the authors' code, not of their paper."""

    weight: float = 0.02
    given: tuple[str, ...] = ()

    name: ClassVar[str] = "costs"
    reads: ClassVar[str] = "action"
    unit: ClassVar[str] = ""

    @property
    def width(self) -> int:
        return 1

    def loss(self, out: Array, columns: Columns) -> Array:
        costly = jnp.sum(columns["cost"].reshape(*out.shape[:-1], -1), axis=-1) > 0
        return optax.sigmoid_binary_cross_entropy(out[..., 0], costly.astype(jnp.float32))


@dataclass(frozen=True, kw_only=True)
class ConstrainedLearner(SequenceLearner):
    """A `SequenceLearner` that asks for a return and a cost; `augment` is its share of episodes that are relabelled."""

    augment: float = 0.3
    """Episodes that are added, as a share of the data's: they are asked for a return that no episode of so little cost
    had, so that the policy learns to keep the cost where it cannot have both. 0 for none."""
    augment_seed: int = 0
    limits: tuple[float, ...] = ()
    """Cost limits of every evaluation; by default `LIMITS` of the data's costliest episode."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augment < 0:
            raise ValueError(f"{self.name}: augment must not be negative, got {self.augment}.")
        if any(limit < 0 for limit in self.limits):
            raise ValueError(f"{self.name}: limits must not be negative, got {self.limits}.")

    def default_hyper(self) -> ConstrainedHyper:
        return ConstrainedHyper()

    def hyper(self, dataset: Dataset, **options: Any) -> Any:
        hyper = super().hyper(dataset, **options)
        if hyper.cost_limit is None:
            costs = np.asarray(hyper.data.extra["ctg"])[np.asarray(dataset.start), 0]
            hyper = hyper.replace(cost_limit=float(costs.mean()))
        return hyper

    def prepared(self, dataset: Dataset) -> Dataset:
        data = super().prepared(dataset)
        count = round(self.augment * data.num_episodes)
        return with_pareto(data, count, self.augment_seed) if count else data

    def asked(self, hyper: Any) -> dict[str, Array]:
        """The return is always the headline's; limits are a curve."""
        data = self._data(hyper)
        costs = data.extra["ctg"][data.start, 0]
        headline = jnp.asarray(jnp.mean(costs) if hyper.cost_limit is None else hyper.cost_limit, jnp.float32)
        curve = jnp.asarray(self.limits) if self.limits else jnp.max(costs) * jnp.asarray(LIMITS)
        limits = jnp.concatenate([headline[None], curve.astype(jnp.float32)])
        return {"rtg": jnp.full(limits.shape, self.targets(hyper)[0]), "ctg": limits}

    def curve(self, played: Episodes, asked: dict[str, Array]) -> dict[str, Array]:
        """`limit_at_40`, `cost_at_40` and `return_at_40` for four tenths of the costliest episode or, where `limits`
        are given, for the limit 40, and so on; `violations`: the share of the limits whose mean cost is above them."""
        means = jax.vmap(lambda group: group.means())(played)
        names = [f"at_{x:g}" for x in self.limits or (100 * share for share in LIMITS)]
        columns = {"limit": asked["ctg"], "cost": means["cost_mean"], "return": means["return_mean"]}
        numbers = {f"{what}_{name}": x[i] for what, x in columns.items() for i, name in enumerate(names)}
        return numbers | {"violations": jnp.mean(means["cost_mean"] > asked["ctg"] + 1e-4)}


def with_pareto(data: Dataset, count: int, seed: int = 0, degree: int = 4) -> Dataset:
    """With `count` further episodes whose return-to-go and cost-to-go are shifted to what no episode reached.

    A polynomial is laid over the best returns of the data by their cost. Points are drawn above it, up to the best
    return there is, and each goes to the best episode of at most that cost. data: with columns rtg and ctg [N, 1].
    """
    rng = np.random.default_rng(seed)
    start = np.asarray(data.start)
    cost, reached = np.asarray(data.extra["ctg"])[start, 0], np.asarray(data.extra["rtg"])[start, 0]
    order = np.lexsort((-reached, cost))
    best = np.maximum.accumulate(reached[order])
    front = order[reached[order] >= best]
    points = len(np.unique(cost[front]))
    line = np.polynomial.Polynomial.fit(cost[front], reached[front], min(degree, points - 1)) if points > 1 else None
    limits = rng.uniform(cost.min(), cost.max(), count)
    fitted = np.full(count, reached.max()) if line is None else line(limits)
    wanted = fitted + rng.uniform(0, 1, count) * np.maximum(reached.max() - fitted, 0.0)
    within = np.where(cost[None] <= limits[:, None], reached[None], -np.inf)
    chosen = np.argmax(within, axis=1)
    copies = take_episodes(data, chosen)
    shift = {"rtg": wanted - reached[chosen], "ctg": limits - cost[chosen]}
    for name, by in shift.items():
        moved = copies.extra[name] + jnp.asarray(by, jnp.float32)[copies.episode][:, None]
        copies = copies.with_column(name, moved)
    return concatenate([data, copies])
