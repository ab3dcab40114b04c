"""What a sweep comes down to, from files written by hand: the numbers are known."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re

import numpy as np
import pytest

from jaxrl_seq.cli import main
from jaxrl_seq.run.sweep_results import best_setting, publish_sweep, read_lanes, settings_of

LRS, GAMMAS, SEEDS = (1e-4, 1e-3, 1e-2), (0.9, 0.99), (0, 1, 2)


def level(lr, gamma, seed):
    """The return that a lane ends with: best at lr 1e-3 and gamma 0.99, where seeds spread by 0.1."""
    return 10 * gamma - abs(math.log10(lr) + 3) + 0.1 * (seed - 1)


def write_sweep(folder, parts=("gru", "s5"), rows=6):
    """One part a model; in the second one lane froze and nothing is finished."""
    points = [{"lr": lr, "gamma": g, "seed": s} for lr, g, s in itertools.product(LRS, GAMMAS, SEEDS)]
    record = {"version": 1, "command": "sweep ppo", "learner": "ppo", "parts": []}
    for number, model in enumerate(parts):
        labels = [{"model": model} | point for point in points]
        record["parts"].append({"words": [], "seeds": [], "values": {}, "labels": labels})
        home = folder / "parts" / f"{number:02d}"
        home.mkdir(parents=True)
        lines = []
        for i in range(rows):
            common = {"update": i, "steps": 100 * i, "wall_s": 1.0 * i}
            values = [level(**point) - number - (rows - 1 - i) for point in points]
            frozen = [1.0 if number and not j else 0.0 for j in range(len(points))]
            lines.append({"kind": "train", **common, "return_mean": values, "skipped": frozen, "frozen": frozen})
            evaluated = {"return_mean": values[:-1] + [None], "return_sem": [0.5] * len(points)}
            lines.append({"kind": "eval", **common, **evaluated} if i % 2 else {"kind": "eval", **common})
        (home / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if number == 0:
            (home / "summary.json").write_text(json.dumps({"finished": True, "compile_s": 2.5}))
    (folder / "config.json").write_text(json.dumps(record))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_sweep(folder)
    publish_sweep(folder)
    return folder


def test_rows_tell_settings_ends_and_health(folder):
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert len(rows) == 36
    for row, (model, lr, gamma, seed) in zip(rows, itertools.product(("gru", "s5"), LRS, GAMMAS, SEEDS), strict=True):
        assert (row["model"], float(row["lr"]), float(row["gamma"]), int(row["seed"])) == (model, lr, gamma, seed)
        if row["lane"] == "17":  # no episode ended in its evaluations
            assert row["final_return"] == ""
            continue
        value = level(lr, gamma, seed) - (model == "s5")
        assert float(row["final_return"]) == pytest.approx(value)
        assert float(row["final_high"]) - float(row["final_low"]) == pytest.approx(2 * 1.96 * 0.5)
        assert float(row["best_return"]) == pytest.approx(value) and row["best_steps"] == "500"
    frozen = [row for row in rows if row["health"] != "good"]
    assert [(row["part"], row["lane"], row["health"], row["frozen_updates"]) for row in frozen] == [
        ("1", "0", "frozen", "6.0")
    ]
    assert {row["finished"] for row in rows[:18]} == {"True"} and {row["finished"] for row in rows[18:]} == {"False"}


def test_the_best_setting_is_the_one_with_the_best_mean(folder):
    best = best_setting(read_lanes(folder))
    assert best is not None
    setting, interval, rivals = best
    assert rivals == 0
    assert setting == {"model": "gru", "lr": 1e-3, "gamma": 0.99}
    assert interval.mean == pytest.approx(9.9) and 9.8 <= interval.lo < interval.hi <= 10.0
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["best"]["setting"] == setting and summary["healthy_lanes"] == 35 and not summary["finished"]


def test_settings_that_cannot_be_told_apart_from_the_best_are_counted(tmp_path):
    write_sweep(tmp_path, parts=("gru",), rows=2)
    path = tmp_path / "parts" / "00" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if "return_mean" in row:
            row["return_mean"] = [7.0] * len(row["return_mean"])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lanes = read_lanes(tmp_path)
    best = best_setting(lanes)
    alike = len(settings_of([lane for lane in lanes if np.isfinite(lane.score())])) - 1
    assert best is not None and best.rivals == alike > 1
    publish_sweep(tmp_path)
    assert f"{alike} other settings have means in that interval" in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "summary.json").read_text())["best"]["rivals"] == alike


def test_the_report_shows_all_of_it(folder, capsys):
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    for part in ("Best setting: model gru, lr 0.001, gamma 0.99", "18 of 36 lanes finished", "Return by lr and gamma"):
        assert part in page, part
    assert page.count("<figure") == 1 + 3 + 3 and page.count("<tr>") == 1 + 12
    assert not re.findall(r"https?://", page) and len(page) < 800_000


def test_a_sweep_that_has_not_begun_has_a_report(tmp_path):
    write_sweep(tmp_path, rows=0)
    rows = publish_sweep(tmp_path)
    assert len(rows) == 36 and all(row["final_return"] is None for row in rows)
    assert "No lane has a return yet" in (tmp_path / "report.html").read_text()


def test_a_lost_seed_does_not_vanish_from_a_mean(tmp_path):
    """A setting with a lane that never had a return cannot be the best."""
    write_sweep(tmp_path, parts=("gru",), rows=2)
    path = tmp_path / "parts" / "00" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    at = [
        i
        for i, label in enumerate(json.loads((tmp_path / "config.json").read_text())["parts"][0]["labels"])
        if label == {"model": "gru", "lr": 1e-3, "gamma": 0.99, "seed": 1}
    ]
    for row in rows:
        if "return_mean" in row:
            row["return_mean"][at[0]] = None
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    best = best_setting(read_lanes(tmp_path))
    assert best is not None and best[0]["gamma"] != 0.99 and np.isfinite(best[1].mean)
