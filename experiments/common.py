"""What every experiment shares: the claim, the arguments, the result file, the training of many seeds at once."""

from __future__ import annotations

import dataclasses
import datetime
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from numpy.typing import ArrayLike

from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.envs import VecEnv, make
from jaxrl_seq.models import SequenceModel, config_to_dict, model_config
from jaxrl_seq.online import PPO, PPOHyper
from jaxrl_seq.run.catalogue import table
from jaxrl_seq.run.env_info import describe_devices, environment_info
from jaxrl_seq.run.lanes import lane
from jaxrl_seq.run.loop import Run, train
from jaxrl_seq.run.sinks import jsonable
from jaxrl_seq.run.stats import Interval, bootstrap_band, bootstrap_ci
from jaxrl_seq.run.timing import race

RESULTS = Path(__file__).parent / "results"
UNFINISHED = Path(__file__).parent.parent / "runs" / "experiments"
TMAZE = {"gamma": 0.9, "entropy_coef": 0.1}
"""PPO's horizon and entropy for T-mazes. Who has once fallen behind stays behind, and is told nothing more, so that
most of a batch says nothing: at the library's 0.99 and 0.05 many agents never learn to walk, and nothing is said about
their memory. A short horizon costs nothing here: each step behind is paid for at once, and the turn comes last."""
_recalled_s: list[float] = []
"""Seconds of training that an earlier call spent on parts that this one remembers."""


@dataclass(frozen=True)
class Arguments:
    """Run one experiment and write its result file."""

    scale: Literal["cpu", "gpu"] = "cpu"
    """cpu: minutes on two cores; gpu: more seeds and steps."""
    seeds: int | None = None
    """Seeds per setting (default: the experiment's own number for the scale)."""


@dataclass(frozen=True)
class Claim:
    """A measured statement: it holds if the whole interval lies on the right side of the threshold."""

    id: str
    text: str
    value: float
    ci: tuple[float, float]
    threshold: float
    direction: Literal["above", "below"]

    @property
    def holds(self) -> bool:
        return self.ci[0] >= self.threshold if self.direction == "above" else self.ci[1] <= self.threshold

    @classmethod
    def of(
        cls, id: str, text: str, interval: Interval, threshold: float, direction: Literal["above", "below"]
    ) -> Claim:
        return cls(id, text, interval.mean, (interval.lo, interval.hi), threshold, direction)


@dataclass
class Findings:
    """What an experiment brings back."""

    claims: list[Claim]
    seeds: int
    env_steps: int
    """Over all settings and seeds."""
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Title -> rows, where the numbers of many settings are the finding; shown below the claims."""


def run_experiment(
    name: str, source: str, measure: Callable[[Arguments], Findings], argv: list[str] | None = None
) -> Path:
    """Parse the arguments, measure, print the claims, write results/NAME[-gpu].json; returns its path."""
    arguments = tyro.cli(Arguments, args=argv, prog=f"python -m experiments.{name}")
    start = time.monotonic()
    findings = measure(arguments)
    info = environment_info()
    result = {
        "name": name,
        "source": source,
        "device": describe_devices(),
        "versions": info["packages"] | {"python": info["python"]},
        "commit": (info["git"] or {}).get("commit"),
        "scale": arguments.scale,
        "seeds": findings.seeds,
        "env_steps": findings.env_steps,
        "wall_s": round(time.monotonic() - start + sum(_recalled_s), 1),
        "date_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "claims": [dataclasses.asdict(claim) | {"holds": claim.holds} for claim in findings.claims],
        "curves": findings.curves,
        "tables": findings.tables,
    }
    for title, rows in findings.tables.items():
        print(f"\n{title}\n{table(rows)}\n")
    for claim in findings.claims:
        sign = ">=" if claim.direction == "above" else "<="
        print(
            f"{'holds' if claim.holds else 'FAILS':6} {claim.id}: "
            f"{claim.value:.3f} [{claim.ci[0]:.3f}, {claim.ci[1]:.3f}] (bar: {sign} {claim.threshold:g})  {claim.text}"
        )
    path = RESULTS / (name + ("-gpu" if arguments.scale == "gpu" else "") + ".json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(jsonable(result), indent=1) + "\n")
    (UNFINISHED / f"{name}.json").unlink(missing_ok=True)
    return path


def remembered(experiment: str, part: str, measure: Callable[[], Any]) -> Any:
    """`measure()`, or what it brought (as JSON) when the experiment was last begun and not finished: long ones go on.

    `part` names the measurement with all that it depends on.
    """
    path = UNFINISHED / f"{experiment}.json"
    parts = json.loads(path.read_text()) if path.is_file() else {}
    if part in parts and isinstance(parts[part], dict):
        _recalled_s.append(parts[part].get("wall_s", 0.0))
    if part not in parts:
        parts[part] = jsonable(measure())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(parts))
    return parts[part]


def with_horizons(models: Iterable[str], steps: int) -> list[tuple[str, str, dict[str, int]]]:
    """(label, name, options) of every model as it is, then of those with gates that can be told the delay, told it."""
    models = list(models)
    told = [name for name in models if "horizon" in config_to_dict(model_config(name))]
    return [(name, name, {}) for name in models] + [(f"{name}, horizon", name, {"horizon": steps}) for name in told]


def train_seeds(learner: Any, hyper: Any, *, seeds: int, total_steps: int, **options: Any) -> Run:
    """All seeds of one setting side by side, without a run folder; rows and summary come back in the run."""
    run = train(learner, hyper, total_steps=total_steps, num_seeds=seeds, progress=False, **options)
    if not run.summary["finished"]:
        raise KeyboardInterrupt  # half a training is no measurement
    return run


def learn_tmaze(
    model: SequenceModel, length: int, *, num_steps: int, total_steps: int, seeds: int, **numbers: float
) -> dict[str, Any]:
    """PPO on the T-maze with `TMAZE` and these hyper-parameters: success of every seed [S], its curve and what the
    training took; plain data."""
    env, params = make(f"tmaze,length={length}")
    learner = PPO(VecEnv(env, 64), ActorCritic.for_env(env, model), num_steps=num_steps)
    updates = total_steps / learner.steps_per_update
    hyper = PPOHyper(anneal_updates=updates, env_params=params, **TMAZE, **numbers)
    run = train_seeds(learner, hyper, seeds=seeds, total_steps=total_steps, evaluations=1, eval_episodes=16)
    took = {key: run.summary[key] for key in ("steps", "steps_per_second", "wall_s")}
    return {"success": last_evaluation(run, "success"), "curve": curve(run, "success")} | took


def trained(run: Run, index: int) -> Any:
    """The parameters that seed `index` of the run ended with."""
    return (lane(run.state, index) if run.summary["seeds"] > 1 else run.state).params


def time_ratio(slow: Callable[[], Any], fast: Callable[[], Any], repeats: int = 10) -> Interval:
    """Seconds of `slow` over those of `fast`, compiled calls run in turns: mean and interval over `repeats` races."""
    ratios = []
    for _ in range(repeats):
        seconds = race({"slow": slow, "fast": fast}, rounds=3)
        ratios.append(seconds["slow"] / seconds["fast"])
    return bootstrap_ci(ratios)


def last_evaluation(run: Run, metric: str) -> np.ndarray:
    """The final evaluation of every seed, [S]."""
    row = [row for row in run.rows if row["kind"] == "eval"][-1]
    return np.atleast_1d(np.asarray(row[metric], np.float64))


def curve(run: Run, metric: str) -> dict[str, list[float]]:
    """A metric over training with its bootstrap band over seeds, thinned to at most 60 points."""
    rows = [row for row in run.rows if row["kind"] == "train"]
    rows = rows[:: max(len(rows) // 60, 1)]
    values = np.array([np.atleast_1d(np.array(row[metric], np.float64)) for row in rows])
    return _banded("steps", [row["steps"] for row in rows], values.T)


def as_curve(values: ArrayLike) -> dict[str, list[float]]:
    """Values [S, K] of the episodes of a trial, with their bootstrap band over the S seeds."""
    values = np.asarray(values, np.float64)
    return _banded("episode", list(range(1, values.shape[1] + 1)), values)


def _banded(axis: str, x: list[float], values: np.ndarray) -> dict[str, list[float]]:
    band = bootstrap_band(values)
    return {axis: x} | {k: np.round(getattr(band, k), 4).tolist() for k in ("mean", "lo", "hi")}
