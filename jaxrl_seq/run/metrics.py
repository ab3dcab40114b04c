"""From device sums to the numbers in a row, on the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxrl_seq.run.stats import Interval, bootstrap_ci

TOTALS = ("episodes", "skipped", "overflow", "frozen")


def row_metrics(sums: dict[str, np.ndarray], updates: int) -> dict[str, Any]:
    """Means of a row that covers `updates` updates, from sums [] or [S].

    `x_sum` becomes `x_mean` (success_sum: `success`) over the episodes that ended, NaN where none did.
    """
    episodes = np.asarray(sums.get("episodes", 0.0), np.float64)
    row: dict[str, Any] = {}
    for name, value in sums.items():
        value = np.asarray(value, np.float64)
        if name.endswith("_sum"):
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = np.where(episodes > 0, value / np.maximum(episodes, 1), np.nan)
            row["success" if name == "success_sum" else name.removesuffix("_sum") + "_mean"] = mean
        elif name in TOTALS:
            row[name] = value
        else:
            row[name] = value / updates
    return {name: value.tolist() for name, value in row.items()}


def evaluation_interval(episodes: Any) -> Interval:
    """The mean return with its 95 % bootstrap interval: over seeds, or over episodes where there is one seed.

    Over episodes it says how sure we are of this policy, not of the method. NaN if no episode finished.
    """
    finished = np.asarray(episodes.finished)
    if not finished.any():
        return Interval(float("nan"), float("nan"), float("nan"))
    if finished.ndim == 2:
        return bootstrap_ci(np.asarray(episodes.returns)[finished])
    return bootstrap_ci(np.asarray(evaluation_metrics(episodes)["return_mean"]))


def evaluation_metrics(episodes: Any) -> dict[str, Any]:
    """Means per lane of an `Episodes` of numpy arrays [B, E] or [S, B, E]."""
    finished = np.asarray(episodes.finished)
    count = np.maximum(finished.sum((-2, -1)), 1)
    row = {
        "return_mean": (mean := episodes.returns.sum((-2, -1)) / count).tolist(),
        "return_sem": _standard_error(episodes, mean, count).tolist(),
        "length_mean": (episodes.lengths.sum((-2, -1)) / count).tolist(),
        "unfinished": (1.0 - finished.mean((-2, -1))).tolist(),
    }
    if episodes.success is not None:
        row["success"] = (episodes.success.sum((-2, -1)) / count).tolist()
    if episodes.costs is not None:
        row["cost_mean"] = (episodes.costs.sum((-2, -1)) / count).tolist()
    for name, inner in (("first_episode", episodes.first_inner), ("last_episode", episodes.last_inner)):
        if inner is not None:  # of trials
            row[name] = (inner.sum((-2, -1)) / count).tolist()
    return row | {name: np.asarray(x).tolist() for name, x in episodes.numbers.items()}


def _standard_error(episodes: Any, mean: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Of the mean return over the finished episodes of a lane; NaN for fewer than two."""
    finished = np.asarray(episodes.finished)
    squares = (np.where(finished, episodes.returns - mean[..., None, None], 0.0) ** 2).sum((-2, -1))
    return np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1) / count), np.nan)
