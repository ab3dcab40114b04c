"""What came out of a sweep, from the files of its folder alone: a row a lane, and what settings come down to."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrl_seq.run.sinks import Row, jsonable, read_rows
from jaxrl_seq.run.stats import Interval, bootstrap_ci

_SEM = 1.96
"""Standard errors to either side of a mean: a 95 % interval over the episodes of an evaluation."""


@dataclass(frozen=True)
class Lane:
    """One lane: its settings, the rows of its part and its place in them."""

    label: dict[str, Any]
    part: int
    index: int
    rows: list[Row]
    summary: dict[str, Any]

    def curve(self, name: str, kind: str = "eval") -> tuple[list[int], list[float]]:
        """(steps, values) of a metric; NaN where a row has none."""
        found = [(row["steps"], row[name][self.index]) for row in self.rows if row["kind"] == kind and name in row]
        return [steps for steps, _ in found], [math.nan if v is None else float(v) for _, v in found]

    def total(self, name: str) -> float:
        return float(np.nansum(self.curve(name, "train")[1]))

    def score(self) -> float:
        """The final evaluation, or where there is none the last return of training; NaN before either."""
        for kind in ("eval", "train"):
            values = [v for v in self.curve("return_mean", kind)[1] if not math.isnan(v)]
            if values:
                return values[-1]
        return math.nan


def is_sweep(folder: Path) -> bool:
    """Whether the folder is that of a sweep, by its config.json."""
    try:
        record = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and str(record.get("command", "")).startswith("sweep ") and "parts" in record


def read_lanes(folder: str | Path) -> list[Lane]:
    """All lanes, those of parts that have not begun without rows. ValueError for a folder that is no sweep."""
    folder = Path(folder)
    if not is_sweep(folder):
        raise ValueError(f"{folder} is no sweep: give the folder that `jaxrl-seq sweep` printed.")
    record = json.loads((folder / "config.json").read_text())
    lanes = []
    for number, part in enumerate(record["parts"]):
        home = folder / "parts" / f"{number:02d}"
        # a sweep of one lane has numbers where others have lists
        rows = [{k: v if isinstance(v, list) else [v] for k, v in row.items()} | _plain(row) for row in _rows(home)]
        summary = json.loads((home / "summary.json").read_text()) if (home / "summary.json").is_file() else {}
        lanes += [Lane(label, number, i, rows, summary) for i, label in enumerate(part["labels"])]
    return lanes


def _rows(home: Path) -> list[Row]:
    return read_rows(home / "metrics.jsonl")


def _plain(row: Row) -> Row:
    return {name: row[name] for name in ("kind", "update", "steps", "wall_s")}


def result(lane: Lane) -> dict[str, Any]:
    """A row of results.csv: settings, final and best evaluation, steps, time and health; None where there is no number.

    The intervals are over the episodes of the evaluation. `wall_s` is that of all lanes of the part together.
    """
    steps, means = lane.curve("return_mean")
    _, errors = lane.curve("return_sem")
    best = int(np.nanargmax(means)) if np.isfinite(means).any() else None
    row = dict(lane.label) | {"part": lane.part, "lane": lane.index}
    for name, at in (("final", len(means) - 1 if means else None), ("best", best)):
        mean, error = (math.nan, math.nan) if at is None else (means[at], errors[at])
        row |= {f"{name}_return": mean, f"{name}_low": mean - _SEM * error, f"{name}_high": mean + _SEM * error}
    row["best_steps"] = None if best is None else steps[best]
    success = lane.curve("success")[1]
    row["final_success"] = success[-1] if success else math.nan
    last = lane.rows[-1] if lane.rows else {"steps": 0, "wall_s": 0.0}
    row |= {"steps": last["steps"], "wall_s": last["wall_s"], "compile_s": lane.summary.get("compile_s")}
    skipped, frozen = lane.total("skipped"), lane.total("frozen")
    health = "frozen" if frozen else "skipped steps" if skipped else "good"
    finished = bool(lane.summary.get("finished"))
    return jsonable(row | {"finished": finished, "health": health, "skipped": skipped, "frozen_updates": frozen})


def settings_of(lanes: list[Lane]) -> dict[tuple[tuple[str, Any], ...], list[Lane]]:
    """Lanes by what they share but for the seed."""
    groups: dict[tuple[tuple[str, Any], ...], list[Lane]] = {}
    for lane in lanes:
        setting = tuple((name, value) for name, value in lane.label.items() if name != "seed")
        groups.setdefault(setting, []).append(lane)
    return groups


def interval(lanes: list[Lane]) -> Interval:
    """Mean score over lanes with its 95 % interval over seeds; NaN if any has none: a lost seed must not vanish."""
    return bootstrap_ci([lane.score() for lane in lanes])


class Best(NamedTuple):
    """The setting with the best mean score, and how many others have a mean inside its interval."""

    setting: dict[str, Any]
    score: Interval
    rivals: int


def best_setting(lanes: list[Lane]) -> Best | None:
    """Of settings that tie the first; None before any has a score."""
    scored = [(dict(setting), interval(group)) for setting, group in settings_of(lanes).items()]
    scored = [pair for pair in scored if math.isfinite(pair[1].mean)]
    if not scored:
        return None
    setting, score = max(scored, key=lambda pair: pair[1].mean)
    return Best(setting, score, sum(other.mean >= score.lo for _, other in scored) - 1)


def rivals_in_words(count: int) -> str:
    """A clause for behind the best setting's return; empty where it stands alone."""
    return f"; {count} other setting{'s have means' if count > 1 else ' has a mean'} in that interval" if count else ""


def publish_sweep(folder: Path) -> list[dict[str, Any]]:
    """Write results.csv, summary.json and report.html; returns the rows of the first."""
    from jaxrl_seq.run.loop import write_json
    from jaxrl_seq.run.sweep_report import write_sweep_report

    lanes = read_lanes(folder)
    rows = [result(lane) for lane in lanes]
    write_csv(folder / "results.csv", rows)
    best = best_setting(lanes)
    chosen = None
    if best is not None:
        (mean, *ends), rivals = best.score, best.rivals
        chosen = {"setting": best.setting, "return_mean": mean, "return_ci": ends, "rivals": rivals}
    done = [bool(lane.summary.get("finished")) for lane in lanes]
    totals = {"lanes": len(lanes), "finished": all(done), "healthy_lanes": sum(row["health"] == "good" for row in rows)}
    write_json(folder / "summary.json", totals | {"best": chosen})
    write_sweep_report(folder)
    return rows


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """In one move. Columns are those of all rows, in the order in which they come up."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    fresh = path.with_suffix(".new")
    with fresh.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    fresh.replace(path)
