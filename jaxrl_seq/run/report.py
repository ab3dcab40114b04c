"""`write_report(run_dir)`: one HTML file that tells what a run did, from the files of its folder alone.

Nothing is fetched and nothing runs in it: charts are inline SVG, videos inline GIFs. Every file of the folder
may be missing or half written, so a run in progress has a report too.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_seq.run import report_charts as charts
from jaxrl_seq.run import report_html as web
from jaxrl_seq.run.sinks import Row, count, duration, read_rows
from jaxrl_seq.run.stats import bootstrap_ci
from jaxrl_seq.run.sweep_report import write_sweep_report
from jaxrl_seq.run.sweep_results import is_sweep

_VIDEO_BUDGET = 800_000  # bytes of GIFs inside one report; the newest come first
_DIAGNOSTICS = {
    "policy_loss": ("Policy loss", ""),
    "value_loss": ("Value loss", ""),
    "entropy": ("Entropy", "nats; falls as the policy commits itself"),
    "approx_kl": ("Approximate KL", "per update; about 0.01 is usual"),
    "clip_fraction": ("Clip fraction", "share of ratios outside the clip range"),
    "explained_variance": ("Explained variance", "of returns by the critic; 1 is perfect"),
    "grad_norm": ("Gradient norm", "before clipping"),
    "ratio_error": ("Ratio error", "first-epoch |ratio - 1|: rounding only"),
    "length_mean": ("Episode length", "steps"),
    "lr": ("Learning rate", ""),
    "steps_per_second": ("Steps per second", "environment steps"),
}
_FLOORS = {"explained_variance": -1.0}
_QUIET = {"skipped", "overflow"}  # counts of trouble: worth a chart only if there was any
_NO_CHART = {"kind", "update", "steps", "wall_s", "return_mean", "success", "episodes"}
_MOST_CHARTS = 16
_NUMBERS = {
    *("steps", "wall_s", "compile_s", "steps_per_second"),
    *("eval_return_mean", "eval_success", "normalised_score"),
}
_TIME_PARTS = (
    ("compile_s", "compile", "#f59f00"),
    ("update_s", "rollout + update", charts.BLUE),
    ("eval_s", "evaluation", charts.ORANGE),
    ("other_s", "other", "#adb5bd"),
)


def write_report(run_dir: str | Path) -> Path:
    """Writes `report.html` into the folder of a run or a sweep and returns its path. ValueError where there is none."""
    folder = Path(run_dir)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give the run folder that `jaxrl-seq train` printed")
    if is_sweep(folder):
        return write_sweep_report(folder)
    rows = read_rows(folder / "metrics.jsonl")
    train = [row for row in rows if row.get("kind") == "train"]
    evaluations = [row for row in rows if row.get("kind") == "eval"]
    config, env = _read_json(folder / "config.json"), _read_json(folder / "env.json")
    facts = _facts(config, _read_json(folder / "summary.json"), train, evaluations)
    title = " · ".join(str(facts.get(name) or "?") for name in ("env", "model", "learner"))
    body = [
        _head(facts),
        _learning(train, evaluations, facts),
        web.section("Learning in context", _in_context(_read_json(folder / "in_context.json"))),
        web.section("Rollouts", _videos(folder / "videos")),
        web.section("Diagnostics", _diagnostics(train)),
        web.section("Where the time went", _speed(facts)),
        web.section("Summary", _halves(web.flat({k: v for k, v in facts.items() if k != "state"}))),
        web.section("Configuration", _configuration(config)),
        web.section("Environment", _halves(_readable_env(env))),
        f'<footer class="soft">{web.escape(folder.resolve().name)} · written by jaxrl_seq</footer>',
    ]
    return web.write(folder / "report.html", title, body)


# ---- what is known ----


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _facts(config: Mapping[str, Any], summary: Mapping[str, Any], train: list[Row], evals: list[Row]) -> dict:
    """The summary, or for a run under way what config and rows tell. `state`: a word or two for the badge."""
    facts = _checked(summary)
    reached = max((charts.scalar(row.get("steps")) for row in train[-1:]), default=0.0)
    if summary and not reached > facts.get("steps", 0):
        return facts | {"state": "finished" if facts.get("finished") else "stopped early"}
    names = {name: _name(config.get(name)) for name in ("env", "model", "learner")}
    known = {name: facts[name] for name in ("reference", "device") if name in facts}  # a resumed run has these
    last = {k: v for k, v in (train or evals or [{}])[-1].items() if k in ("steps", "wall_s", "steps_per_second")}
    news = {**names, **known, **_checked(last), **_latest_evaluation(evals)}
    return news | {"state": "in progress" if train or evals else "no rows yet"}


def _latest_evaluation(evals: list[Row]) -> dict[str, Any]:
    returns, success = (charts.curve(evals[-1:], name) for name in ("return_mean", "success"))
    facts: dict[str, Any] = {}
    if returns is not None:
        mean, lo, hi = bootstrap_ci(returns.values[-1])
        facts |= {"eval_return_mean": mean, "eval_return_ci": [lo, hi], "seeds": returns.values.shape[1]}
    if success is not None:
        facts["eval_success"] = bootstrap_ci(success.values[-1]).mean
    return _checked(facts)


def _checked(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts without those of the wrong kind: a file may be old, edited or from a run whose return was NaN."""
    out = {str(k): v for k, v in facts.items()}
    for name in _NUMBERS & out.keys():
        out[name] = charts.scalar(out[name])
    for name in {"time_split", "reference"} & out.keys():
        table = out[name] if isinstance(out[name], dict) else {}
        out[name] = {k: charts.scalar(v) for k, v in table.items() if math.isfinite(charts.scalar(v))}
    ci = out.get("eval_return_ci")
    if ci is not None and not (isinstance(ci, list) and len(ci) == 2 and all(map(charts.is_number, ci))):
        del out["eval_return_ci"]
    return {k: v for k, v in out.items() if not isinstance(v, float) or math.isfinite(v)}


def _name(choice: Any) -> str | None:
    """The name of an env, model or learner in a config: the string itself, or a table's `id`, `name` or
    `kind`.
    """
    if isinstance(choice, dict):
        return next((str(choice[key]) for key in ("id", "name", "kind", "type") if key in choice), None)
    return str(choice) if choice is not None else None


# ---- sections ----


def _head(facts: Mapping[str, Any]) -> str:
    dots = "<i>·</i>".join(web.escape(facts.get(name) or "?") for name in ("env", "model", "learner"))
    state = facts["state"]
    badge = f'<span class="badge{"" if state == "finished" else " open"}">{web.escape(state)}</span>'
    return f'<h1>{dots}{badge}</h1>\n<p class="verdict">{web.escape(_verdict(facts))}</p>\n{_cards(facts)}'


def _verdict(facts: Mapping[str, Any]) -> str:
    mean = facts.get("eval_return_mean")
    if mean is None:
        return "No evaluation yet."
    seeds = _seed_count(facts.get("seeds"))
    words = ["Final" if facts["state"] == "finished" else "Latest", f"evaluation: return {mean:.3g}"]
    ci = facts.get("eval_return_ci")
    if seeds == 1:
        words.append("(one seed, so no interval)")
    elif ci:
        words.append(f"(95 % interval {ci[0]:.3g} to {ci[1]:.3g} over {seeds} seeds)")
    if facts.get("eval_success") is not None:
        words.append(f"with {100 * facts['eval_success']:.0f} % success")
    if facts.get("normalised_score") is not None:
        words.append(f"and a normalised score of {facts['normalised_score']:.2f}")
    return " ".join(words) + "."


def _seed_count(seeds: Any) -> Any:
    return len(seeds) if isinstance(seeds, list) else seeds


def _cards(facts: Mapping[str, Any]) -> str:
    def number(name: str, form: str = "{:.4g}") -> str | None:
        value = facts.get(name)
        return form.format(value) if isinstance(value, int | float) else None

    ci = facts.get("eval_return_ci") or [None, None]
    seeds = _seed_count(facts.get("seeds"))
    lanes = "" if seeds is None else "one seed" if seeds == 1 else f"{seeds} seeds"
    interval = f"{ci[0]:.3g} to {ci[1]:.3g}" if ci[0] is not None and ci[0] != ci[1] else ""
    success, steps, rate, wall = (facts.get(k) for k in ("eval_success", "steps", "steps_per_second", "wall_s"))
    items = [
        ("evaluation return", number("eval_return_mean", "{:.3g}"), interval),
        ("success", None if success is None else f"{100 * success:.0f} %", "of episodes"),
        ("normalised score", number("normalised_score", "{:.2f}"), "0 random, 1 expert"),
        ("environment steps", None if steps is None else count(steps), lanes),
        (
            "steps per second",
            None if rate is None else count(rate),
            str(facts.get("device", "")),
        ),
        ("wall time", None if wall is None else duration(wall), ""),
    ]
    return web.cards([(what, value, remark) for what, value, remark in items if value is not None])


def _learning(train: Sequence[Row], evaluations: Sequence[Row], facts: Mapping[str, Any]) -> str:
    references = facts.get("reference", {})
    pairs = {name: (charts.curve(train, name), charts.curve(evaluations, name)) for name in ("return_mean", "success")}
    shown = {name: pair for name, pair in pairs.items() if pair != (None, None)}
    size = (5.7, 3.5) if len(shown) > 1 else (11.4, 3.9)
    figures = []
    if "return_mean" in shown:
        figures.append(web.figure("Return per episode", charts.learning_chart(*shown["return_mean"], references, size)))
    if "success" in shown:
        chart = charts.learning_chart(*shown["success"], {}, size, percent=True)
        figures.append(web.figure("Success", chart))
    return web.section("Learning", f'<div class="pair">{"".join(figures)}</div>' if figures else "")


def _in_context(result: Mapping[str, Any]) -> str:
    """Return per episode of a trial, with anchors and controls; see `run.in_context`."""
    found = result.get("rows")
    curves = {}
    for name, row in found.items() if isinstance(found, dict) else ():
        found_lines = [row.get(part) if isinstance(row, dict) else None for part in ("mean", "lo", "hi")]
        lines = [line for line in found_lines if isinstance(line, list) and line]
        if [len(line) for line in lines] == 3 * [len(lines[0]) if lines else 0]:
            curves[str(name)] = tuple(np.array([v if charts.is_number(v) else np.nan for v in x]) for x in lines)
    if not curves:
        return ""
    kind = "held-out tasks" if result.get("held_out") is True else "tasks"
    unit = "tasks" if result.get("seeds") == 1 else "seeds"
    acting = f", {web.show(result['acting'])}" if "acting" in result else ""
    words = (
        f"{web.show(result.get('tasks'))} {kind}, trials of {web.show(result.get('episodes'))} episodes{acting}; the "
        f"band is a 95 % interval over {unit}. zero and shuffled reward: the agent is shown no reward, or another "
        "trial's. memory emptied: it starts every episode without one. wrong task: the task changes half-way, unsaid."
    )
    return web.figure("Return per episode in context", charts.context_chart(curves, (11.4, 3.9)), words)


def _diagnostics(train: Sequence[Row]) -> str:
    """Small charts of the known metrics in their order, then of whatever else the learner logged."""
    others = sorted({name for row in train for name in row} - set(_DIAGNOSTICS) - _NO_CHART)
    known = _DIAGNOSTICS | {name: (name.replace("_", " "), "") for name in others}
    figures = []
    for name, (title, caption) in known.items():
        data = charts.curve(train, name)
        if data is None or (name in _QUIET and not data.values.any()):
            continue
        if len(figures) < _MOST_CHARTS:
            figures.append(web.figure(title, charts.small_chart(data, floor=_FLOORS.get(name)), caption))
    return f'<div class="small">{"".join(figures)}</div>' if figures else ""


def _videos(folder: Path) -> str:
    """The newest GIFs that fit the budget, oldest first; those left out are named."""
    films: list[str] = []
    left_out: list[str] = []
    room = _VIDEO_BUDGET
    found = sorted(folder.glob("*.gif"), key=lambda p: (p.stat().st_mtime, p.name), reverse=True)
    for path in found:
        data = path.read_bytes()
        if not data.startswith(b"GIF8"):  # empty or cut by a full disk
            continue
        if len(data) > room:
            left_out.append(path.name)
            continue
        room -= len(data)
        source = f"data:image/gif;base64,{base64.b64encode(data).decode()}"
        name = web.escape(path.stem)
        films.append(f'<figure><img src="{source}" alt="{name}"><figcaption>{name}</figcaption></figure>')
    note = f'<p class="soft">In videos/ only: {web.escape(", ".join(left_out))}</p>' if left_out else ""
    return (f'<div class="films">{"".join(films[::-1])}</div>' if films else "") + note


def _speed(facts: Mapping[str, Any]) -> str:
    split = facts.get("time_split", {})
    parts = [(name, split[key], colour) for key, name, colour in _TIME_PARTS if split.get(key, 0.0) > 0]
    return web.stacked_bar(parts)


def _halves(rows: dict[str, Any]) -> str:
    """One long table as two side by side."""
    names = list(rows)
    cut = (len(names) + 1) // 2
    sides = [{name: rows[name] for name in part} for part in (names[:cut], names[cut:])]
    tables = "".join(f"<div>{web.table(side)}</div>" for side in sides if side)
    return f'<div class="half">{tables}</div>' if tables else ""


def _configuration(config: Mapping[str, Any]) -> str:
    """Plain entries first, then one table a nested group."""
    plain = {k: v for k, v in config.items() if not isinstance(v, dict)}
    groups = {str(k): web.flat(v) for k, v in config.items() if isinstance(v, dict) and v}
    tables = [web.table(plain, "run"), *(web.table(rows, name) for name, rows in groups.items())]
    filled = "".join(f"<div>{t}</div>" for t in tables if t)
    return f'<div class="flow">{filled}</div>' if filled else ""


def _readable_env(env: Mapping[str, Any]) -> dict[str, Any]:
    rows = dict(env)
    devices = rows.get("devices")
    if isinstance(devices, list) and all(isinstance(d, dict) for d in devices):
        rows["devices"] = ", ".join(f"{d.get('count', '?')} x {d.get('kind', '?')}" for d in devices)
    return web.flat(rows)
