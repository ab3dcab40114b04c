"""What the experiments on learning from data share: one setting is one learner on one data set, over seeds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import Arguments, Claim, last_evaluation, remembered, train_seeds, trained
from jaxrl_seq.envs import make
from jaxrl_seq.models import make_model
from jaxrl_seq.offline import (
    METHODS,
    Dataset,
    build,
    make_critic,
    make_dataset,
    make_method,
    make_trajectory,
    top_fraction,
)
from jaxrl_seq.offline.dataset import given
from jaxrl_seq.offline.signals import ReturnToGo
from jaxrl_seq.run.stats import bootstrap_ci

SIZES: dict[str, dict[str, Any]] = {
    "gpt": {"width": 32, "layers": 2, "heads": 2},
    "mlp": {"width": 64, "layers": 2},
}


@dataclass(frozen=True)
class Setting:
    """One learner on one data set."""

    name: str
    env: str
    method: str
    recipe: str = "random"
    steps: int = 50_000
    """Of the data."""
    model: str = ""
    """By default the method's own (a value method's: mlp)."""
    sizes: dict[str, Any] = field(default_factory=dict)
    """Of the model, where not those of `SIZES`."""
    top: float = 1.0
    updates: int = 3000
    batch: int = 128
    delayed: bool = False
    """Whether the data pays each episode's return at its end, in one piece."""
    noise: float = 0.0
    """Standard deviation of what is added to each of the data's rewards."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the learner."""
    hyper: dict[str, float] = field(default_factory=dict)
    metric: str = "return_mean"
    """Of the last evaluation, which is judged."""


@lru_cache(maxsize=4)
def data_of(env: str, recipe: str, steps: int) -> tuple[Any, Any, Dataset]:
    """(environment, its parameters, the data of seed 0)."""
    made, params = make(env)
    return made, params, make_dataset(recipe, made, params, jax.random.key(0), steps)


def learner_of(setting: Setting, env: Any) -> Any:
    name = setting.model or (METHODS[setting.method].model if setting.method in METHODS else "mlp")
    model = make_model(name, **(setting.sizes or SIZES.get(name, {})))
    options: dict[str, Any] = {"batch": setting.batch, "num_envs": 16} | setting.options
    if setting.method == "tt":
        return make_trajectory(env, model, **options)
    if setting.method not in METHODS:
        return make_critic(setting.method, env, model, **options)
    learner = make_method(setting.method, env, model, **options)
    if setting.delayed and learner.signals:  # the world pays as it goes: what is asked for stays the same
        learner = replace(learner, signals=(ReturnToGo(delayed=True),))
    return learner


def repaid(data: Dataset, setting: Setting) -> Dataset:
    """The data with its rewards delayed or noisy."""
    reward = data.reward
    if setting.delayed:
        reward = jnp.where(data.to_end == 0, data.returns[data.episode], 0.0)
    if setting.noise:
        reward = reward + setting.noise * jax.random.normal(jax.random.key(1), reward.shape)
    columns: Any = given(data) | {"reward": reward}
    return build(**columns, meta=data.meta)


def measure_setting(setting: Setting, seeds: int) -> dict[str, Any]:
    """All numbers [S] of the last evaluation, parameters and seconds; plain data."""
    env, params, data = data_of(setting.env, setting.recipe, setting.steps)
    learner = learner_of(setting, env)
    numbers: dict[str, Any] = {"decay_updates": float(setting.updates), "lr": 1e-3} | setting.hyper
    data = top_fraction(repaid(data, setting) if setting.delayed or setting.noise else data, setting.top)
    hyper = learner.hyper(data, env_params=params, **numbers)
    total = setting.updates * learner.steps_per_update
    run = train_seeds(learner, hyper, seeds=seeds, total_steps=total, evaluations=1, eval_episodes=8)
    row = [row for row in run.rows if row["kind"] == "eval"][-1]
    scores = {
        name: last_evaluation(run, name).tolist() for name, x in row.items() if name in _kept(row) and x is not None
    }
    parameters = sum(x.size for x in jax.tree.leaves(trained(run, 0)))
    return scores | {"parameters": parameters, "wall_s": run.summary["wall_s"]}


def _kept(row: dict[str, Any]) -> set[str]:
    return {name for name in row if "_at_" in name or name in ("return_mean", "success", "cost_mean", "length_mean")}


def measure_all(
    experiment: str, settings: tuple[Setting, ...], arguments: Arguments
) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    """(seeds, name of a setting -> what `measure_setting` found, rows of a table). What is finished is remembered."""
    seeds = arguments.seeds or (16 if arguments.scale == "gpu" else 3)
    found, rows = {}, []
    for setting in settings:

        def one(setting: Setting = setting) -> Any:
            return measure_setting(setting, seeds)

        part = remembered(experiment, f"{setting} {seeds}", one)
        found[setting.name] = part
        interval = bootstrap_ci(part[setting.metric])
        row = {"setting": setting.name, "world": setting.env, "data": f"{setting.recipe}, {setting.steps:,} steps"}
        row |= {"judged by": setting.metric, "mean": str(interval)}
        row |= {"parameters": part["parameters"], "seconds": round(part["wall_s"])}
        rows.append(row)
        print(row, {name: np.mean(x).round(2).item() for name, x in part.items() if "_at_" in name}, flush=True)
    return seeds, found, rows


def claim(id: str, text: str, values: Any, bar: float, side: Any = "above") -> Claim:
    """Of values [S], one a seed."""
    return Claim.of(id, text, bootstrap_ci(np.asarray(values, np.float64)), bar, side)
