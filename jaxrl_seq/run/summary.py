"""summary.json: the few numbers that a run comes down to."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxrl_seq.run.env_info import describe_devices
from jaxrl_seq.run.sinks import Row
from jaxrl_seq.run.stats import bootstrap_ci


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
    """The summary of a run. `episodes`: the last evaluation (numpy, [B, E] or [S, B, E]) or None.

    The interval of the evaluation is a bootstrap over seeds, or over episodes where there is one seed only (then it
    says how sure we are of this policy, not of the method).
    """
    what = learner.describe() if hasattr(learner, "describe") else {"learner": type(learner).__name__}
    options = record["options"]
    steps = rows[-1]["steps"] if rows else 0
    update_s = max(clock["update_s"], 1e-9)
    summary: dict[str, Any] = what | {key: record[key] for key in ("env", "model", "learner") if _is_text(record.get(key))}
    summary |= {
        "seeds": options["num_seeds"],
        "steps": steps,
        "wall_s": clock["wall_s"],
        "compile_s": clock["compile_s"],
        "steps_per_second": steps * options["num_seeds"] / update_s,
        "finished": finished,
        "stopped_by": stopped_by,
        "device": describe_devices(),
    }
    summary |= _final_evaluation(learner, hyper, episodes)
    other = max(clock["wall_s"] - clock["update_s"] - clock["eval_s"], 0.0)
    summary["time_split"] = {name: clock[name] for name in ("compile_s", "update_s", "eval_s")} | {"other_s": other}
    return summary


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _final_evaluation(learner: Any, hyper: Any, episodes: Any) -> dict[str, Any]:
    reference = learner.reference(hyper) if hasattr(learner, "reference") else None
    blank = dict(eval_return_mean=None, eval_return_ci=None, eval_success=None, eval_unfinished=None)
    result: dict[str, Any] = blank | {"normalised_score": None, "reference": reference}
    if episodes is None or not np.asarray(episodes.finished).any():
        return result
    finished = np.asarray(episodes.finished)
    by_seed = finished.ndim == 3
    counts = np.maximum(finished.sum((-2, -1)), 1)
    values = np.asarray(episodes.returns).sum((-2, -1)) / counts if by_seed else np.asarray(episodes.returns)[finished]
    mean, low, high = bootstrap_ci(np.ravel(values))
    result |= {
        "eval_return_mean": mean,
        "eval_return_ci": [low, high],
        "eval_unfinished": float(1.0 - finished.mean()),
        "eval_success": None,
    }
    if episodes.success is not None:
        result["eval_success"] = float(np.mean(np.asarray(episodes.success).sum((-2, -1)) / counts))
    if reference and {"random", "expert"} <= reference.keys():
        result["normalised_score"] = (mean - reference["random"]) / (reference["expert"] - reference["random"])
    return result

