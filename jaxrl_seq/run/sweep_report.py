"""report.html of a sweep: curves per setting, heat maps, sensitivity and the best setting, from the files alone."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_seq.run import report_charts as charts
from jaxrl_seq.run import report_html as web
from jaxrl_seq.run.sinks import count, duration
from jaxrl_seq.run.stats import bootstrap_band
from jaxrl_seq.run.sweep_results import Lane, best_setting, interval, read_lanes, result, rivals_in_words, settings_of

_COLOURS = (charts.BLUE, charts.ORANGE, "#2b8a3e", "#ae3ec9", "#0c8599", "#f59f00", "#c2255c", "#5c940d")
_MOST_LEVELS = 16
"""Values that a field may have to be an axis of a heat map; drawn ones have more."""


def write_sweep_report(folder: Path) -> Path:
    """Writes report.html into a sweep's folder and returns its path; also of a sweep under way."""
    lanes = read_lanes(folder)
    groups = list(settings_of(lanes).items())
    scores = [interval(group) for _, group in groups]
    order = sorted(range(len(groups)), key=lambda i: -np.nan_to_num(scores[i].mean, nan=-np.inf))
    fields = [name for name in lanes[0].label if name != "seed"] if lanes else []
    settings = [dict(setting) for setting, _ in groups]
    means = np.array([score.mean for score in scores])
    body = [
        _head(folder, lanes),
        web.section("Learning", _curves([groups[i] for i in order])),
        web.section("Two settings at a time", _heat_maps(fields, settings, means)),
        web.section("Sensitivity", _sensitivity(fields, settings, groups)),
        web.section("Settings", web.listing([_row(settings[i], groups[i][1], scores[i]) for i in order])),
        f'<footer class="soft">{web.escape(folder.resolve().name)} · written by jaxrl_seq</footer>',
    ]
    return web.write(folder / "report.html", f"sweep {folder.resolve().name}", body)


def named(setting: dict[str, Any]) -> str:
    return ", ".join(f"{name} {web.show(value)}" for name, value in setting.items()) or "all lanes"


def _head(folder: Path, lanes: list[Lane]) -> str:
    rows, best = [result(lane) for lane in lanes], best_setting(lanes)
    done = sum(row["finished"] for row in rows)
    state = "finished" if done == len(rows) else f"{done} of {len(rows)} lanes finished"
    badge = f'<span class="badge{"" if done == len(rows) else " open"}">{state}</span>'
    words = "No lane has a return yet."
    if best is not None:
        setting, (mean, low, high), rivals = best
        words = f"Best setting: {named(setting)}, with a return of {mean:.3g} (95 % interval {low:.3g} to {high:.3g})"
        words += f"{rivals_in_words(rivals)}."
    good = sum(row["health"] == "good" for row in rows)
    parts = {row["part"]: row["wall_s"] for row in rows}
    items = [
        ("lanes", str(len(lanes)), f"{len(settings_of(lanes))} settings"),
        ("compilations", str(len(parts)), ""),
        ("lanes in good health", str(good), "" if good == len(lanes) else "others are named in results.csv"),
        ("environment steps", count(sum(row["steps"] for row in rows)), "of all lanes"),
        ("wall time", duration(sum(parts.values())), "without compilation"),
    ]
    command = json.loads((folder / "config.json").read_text()).get("command", "sweep")
    return f'<h1>{web.escape(command)}{badge}</h1>\n<p class="verdict">{web.escape(words)}</p>\n{web.cards(items)}'


def _row(setting: dict[str, Any], lanes: list[Lane], score: Any) -> dict[str, Any]:
    health = [result(lane)["health"] for lane in lanes]
    return setting | {
        "seeds": len(lanes),
        "return": None if np.isnan(score.mean) else score.mean,
        "95 % interval": None if np.isnan(score.mean) else f"{score.lo:.4g} to {score.hi:.4g}",
        "health": "good" if set(health) == {"good"} else ", ".join(h for h in health if h != "good"),
    }


# ---- curves ----


def _curves(groups: Sequence[tuple[Any, list[Lane]]]) -> str:
    """Training returns: the best settings in colour with bands over seeds, the others in grey."""
    found = [(dict(setting), curve) for setting, lanes in groups if (curve := _curve(lanes)) is not None]
    if not found:
        return ""

    def draw(figure: Any, axes: Any) -> None:
        for number, (setting, curve) in enumerate(found):
            band = bootstrap_band(curve.values.T, resamples=500)
            if number >= len(_COLOURS):
                axes.plot(curve.steps, band.mean, color="#ced4da", lw=0.7, zorder=1)
                continue
            colour = _COLOURS[number]
            if curve.values.shape[1] > 1:
                axes.fill_between(curve.steps, band.lo, band.hi, color=colour, alpha=0.13, lw=0)
            axes.plot(curve.steps, band.mean, color=colour, lw=1.6, label=named(setting), zorder=3)
        charts.dress(axes, "environment steps per lane", "")
        figure.legend(loc="outside right upper", frameon=False, handlelength=1.4, fontsize=9)

    seeds = max(len(lanes) for _, lanes in groups)
    more = f"; {len(found) - len(_COLOURS)} further settings in grey" if len(found) > len(_COLOURS) else ""
    caption = f"mean over {seeds} seeds with its 95 % interval{more}" if seeds > 1 else f"one seed{more}"
    return web.figure("Return per episode in training", charts.chart((11.4, 4.2), draw), caption)


def _curve(lanes: list[Lane]) -> charts.Curve | None:
    """The lanes of one setting, as far as all of them have come."""
    lines = [lane.curve("return_mean", "train") for lane in lanes]
    length = min(len(steps) for steps, _ in lines)
    values = np.array([line[:length] for _, line in lines], float).T
    if not length or not np.isfinite(values).any():
        return None
    return charts.binned(charts.Curve(np.array(lines[0][0][:length], float), values))


# ---- what matters ----


def _levels(field: str, settings: list[dict[str, Any]]) -> list[Any]:
    """The values of a field: numbers in order, names as they came."""
    values = list(dict.fromkeys(setting[field] for setting in settings))
    return sorted(values) if all(isinstance(v, int | float) for v in values) else values


def _heat_maps(fields: list[str], settings: list[dict[str, Any]], means: np.ndarray) -> str:
    """A map for every pair of fields with few values: the mean score over all else."""
    few = [field for field in fields if 1 < len(_levels(field, settings)) <= _MOST_LEVELS]
    pairs = list(itertools.combinations(few, 2))[:6]
    return f'<div class="pair">{"".join(_heat_map(*pair, settings, means) for pair in pairs)}</div>' if pairs else ""


def _heat_map(across: str, down: str, settings: list[dict[str, Any]], means: np.ndarray) -> str:
    columns, rows = _levels(across, settings), _levels(down, settings)
    table = np.full((len(rows), len(columns)), np.nan)
    for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
        cell = [m for m, s in zip(means, settings, strict=True) if s[across] == column and s[down] == row]
        table[i, j] = np.mean(cell) if cell else np.nan

    def draw(figure: Any, axes: Any) -> None:
        picture = axes.imshow(table, cmap="viridis", aspect="auto", origin="lower")
        middle = np.nanmean([np.nanmin(table), np.nanmax(table)]) if np.isfinite(table).any() else 0.0
        for (i, j), value in np.ndenumerate(table):
            if np.isfinite(value):
                colour = "white" if value < middle else charts.INK
                axes.text(j, i, f"{value:.3g}", ha="center", va="center", fontsize=9, color=colour)
        axes.set_xticks(range(len(columns)), [web.show(v) for v in columns])
        axes.set_yticks(range(len(rows)), [web.show(v) for v in rows])
        axes.set(xlabel=across, ylabel=down)
        axes.grid(False)
        figure.colorbar(picture, ax=axes, fraction=0.05).outline.set_visible(False)

    return web.figure(f"Return by {across} and {down}", charts.chart((5.7, 3.6), draw), "mean over all other settings")


def _sensitivity(fields: list[str], settings: list[dict[str, Any]], groups: Sequence[tuple[Any, list[Lane]]]) -> str:
    """A chart for every field: the score against its values, all lanes that have one together."""
    figures = []
    for field in fields:
        levels = _levels(field, settings)
        if len(levels) < 2:
            continue
        lanes = {
            v: [lane for s, (_, g) in zip(settings, groups, strict=True) if s[field] == v for lane in g] for v in levels
        }
        figures.append(web.figure(field, _effect(lanes), "every lane, and means with their 95 % intervals"))
    return f'<div class="small">{"".join(figures)}</div>' if figures else ""


def _effect(lanes: dict[Any, list[Lane]]) -> str:
    numeric = all(isinstance(v, int | float) for v in lanes)
    places = np.array(list(lanes) if numeric else range(len(lanes)), float)
    scores = {place: [lane.score() for lane in group] for place, group in zip(places, lanes.values(), strict=True)}

    def draw(figure: Any, axes: Any) -> None:
        for place, values in scores.items():
            axes.plot([place] * len(values), values, "o", color=charts.BLUE, alpha=0.3, ms=3, mew=0)
        if len(places) <= _MOST_LEVELS:
            means = [interval(group) for group in lanes.values()]
            axes.vlines(places, [m.lo for m in means], [m.hi for m in means], color=charts.ORANGE, lw=1.6)
            style = "o-" if numeric else "o"
            axes.plot(places, [m.mean for m in means], style, color=charts.ORANGE, lw=1.0, ms=4)
        if numeric and places.min() > 0 and places.max() > 8 * places.min():
            axes.set_xscale("log")
        if len(places) <= 6:
            axes.set_xticks(places, [web.show(v) for v in lanes])
            axes.minorticks_off()
        axes.margins(x=0.1)

    return charts.chart((2.9, 2.1), draw, font=8.5)
