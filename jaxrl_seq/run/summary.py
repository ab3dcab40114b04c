"""summary.json: the few numbers that a run comes down to."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxrl_seq.run.env_info import describe_devices
from jaxrl_seq.run.metrics import evaluation_interval, evaluation_metrics
from jaxrl_seq.run.sinks import Row


def summarise(
    learner: Any,
    hyper: Any,
    record: dict[str, Any],
    rows: list[Row],
    episodes: Any,
    clock: dict[str, float],
    *,
    finished: bool,
    stopped_by: str | None,
) -> dict[str, Any]:
    """The summary of a run. `episodes`: the last evaluation (numpy, [B, E] or [S, B, E]) or None."""
    named = {key: record[key] for key in ("env", "model", "learner") if isinstance(record.get(key), str)}
    options = record["options"]
    steps = rows[-1]["steps"] if rows else 0
    update_s = max(clock["update_s"], 1e-9)
    summary: dict[str, Any] = (
        describe(learner)
        | named
        | {
            "seeds": options["num_seeds"],
            "steps": steps,
            "wall_s": clock["wall_s"],
            "compile_s": clock["compile_s"],
            "steps_per_second": steps * options["num_seeds"] / update_s,
            "finished": finished,
            "stopped_by": stopped_by,
            "device": describe_devices(),
        }
    )
    summary |= _final_evaluation(learner, hyper, episodes)
    other = max(clock["wall_s"] - clock["update_s"] - clock["eval_s"], 0.0)
    summary["time_split"] = {name: clock[name] for name in ("compile_s", "update_s", "eval_s")} | {"other_s": other}
    return summary


def describe(learner: Any) -> dict[str, str]:
    """Names of learner, environment and model, as far as the learner tells them."""
    return learner.describe() if hasattr(learner, "describe") else {"learner": type(learner).__name__}


def _final_evaluation(learner: Any, hyper: Any, episodes: Any) -> dict[str, Any]:
    reference = learner.reference(hyper) if hasattr(learner, "reference") else None
    result: dict[str, Any] = dict.fromkeys(
        ("eval_return_mean", "eval_return_ci", "eval_success", "eval_unfinished", "normalised_score")
    )
    result["reference"] = reference
    if episodes is None or not np.asarray(episodes.finished).any():
        return result
    interval, means = evaluation_interval(episodes), evaluation_metrics(episodes)
    result["eval_return_mean"], result["eval_return_ci"] = interval.mean, [interval.lo, interval.hi]
    result["eval_unfinished"] = float(np.mean(means["unfinished"]))
    if "success" in means:
        result["eval_success"] = float(np.mean(means["success"]))
    for name in ("first_episode", "last_episode"):  # of trials
        if name in means:
            result[name] = float(np.mean(means[name]))
    if episodes.numbers:  # such as a curve of targets
        result["numbers"] = {name: float(np.mean(x)) for name, x in episodes.numbers.items()}
    if reference and {"random", "expert"} <= reference.keys():
        score = (interval.mean - reference["random"]) / (reference["expert"] - reference["random"])
        result["normalised_score"] = score
    return result
