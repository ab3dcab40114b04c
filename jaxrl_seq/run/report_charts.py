"""Charts of a report as inline SVG: matplotlib without pyplot, so nothing global is left behind."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl_seq.run.sinks import Row, count, lane_mean
from jaxrl_seq.run.stats import bootstrap_band

BLUE, ORANGE, GREY, INK = "#2563eb", "#d9480f", "#868e96", "#343a40"
_POINTS = 300  # a longer curve is averaged into this many bins, which at 600 pixels nobody can tell
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxrl_seq",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": "#ced4da",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#eef0f3",
    "grid.linewidth": 1.0,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


@dataclasses.dataclass(frozen=True)
class Curve:
    """One metric over a run: steps [X] (environment steps of a lane), values [X, S], NaN for 'none'."""

    steps: np.ndarray
    values: np.ndarray


def curve(rows: Sequence[Row], name: str) -> Curve | None:
    """The metric `name` of rows that have it, or None where not one finite number is found."""
    found = [(row["steps"], row[name]) for row in rows if name in row and is_number(row.get("steps"))]
    lanes = [value if isinstance(value, list) else [value] for _, value in found]
    width = max((len(lane) for lane in lanes), default=0)
    values = np.full((len(lanes), width), np.nan)
    for i, lane in enumerate(lanes):
        values[i, : len(lane)] = [float(v) if is_number(v) else np.nan for v in lane]
    if not np.isfinite(values).any():
        return None
    return Curve(np.array([steps for steps, _ in found], float), values)


def scalar(value: Any) -> float:
    """A number, or the mean of a list of lanes; NaN where there is none."""
    mean = lane_mean(value)
    return float("nan") if mean is None else mean


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number."""
    return isinstance(value, int | float) and bool(np.isfinite(value))


def learning_chart(
    train: Curve | None,
    evaluation: Curve | None,
    references: Mapping[str, float],
    size: tuple[float, float],
    percent: bool = False,
) -> str:
    """An SVG: training mean with a band over seeds, evaluations as points, reference levels."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        scale = 100.0 if percent else 1.0
        if train is not None:
            _draw_training(axes, train, scale)
        if evaluation is not None:
            _draw_evaluation(axes, evaluation, scale)
        _draw_references(axes, references)
        dress(axes, "environment steps per seed", "%" if percent else "")
        if percent:
            axes.set_ylim(-3, 103)
        if train is not None or evaluation is not None:
            figure.legend(loc="outside upper left", frameon=False, ncols=3, handlelength=1.4, fontsize=9.5)
        return _svg(figure)


def small_chart(data: Curve, size: tuple[float, float] = (2.9, 1.75), floor: float | None = None) -> str:
    """One diagnostic: mean and band, as SVG. The axis is logarithmic where positive values span three decades.

    floor: where the axis ends at the bottom, for a metric whose first values would flatten the rest.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**_STYLE, "font.size": 8.5}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        positive = data.values[np.isfinite(data.values)]
        if positive.min() > 0 and positive.max() > 1000 * positive.min():
            axes.set_yscale("log")
        _draw_training(axes, data, 1.0, small=True)
        if floor is not None and positive.min() < floor < positive.max():
            axes.set_ylim(bottom=floor)
        dress(axes, "", "")
        return _svg(figure)


def context_chart(rows: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], size: tuple[float, float]) -> str:
    """An SVG: return per episode of a trial, a line for each row; (mean, lo, hi) [K] each, NaN for 'none'.

    The first row is the agent and has its interval drawn; rows called oracle and random are levels.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    colors = iter((BLUE, ORANGE, "#2b8a3e", "#ae3ec9", "#0c8599", "#f59f00", "#c2255c"))
    with rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        for number, (name, (mean, lo, hi)) in enumerate(rows.items()):
            episodes = np.arange(1, len(mean) + 1)
            if name in ("oracle", "random"):
                axes.plot(episodes, mean, color=GREY, lw=1.2, ls="--" if name == "oracle" else ":", label=name)
                continue
            color = next(colors, GREY)
            dot = "o" if len(mean) <= 20 else None
            axes.plot(episodes, mean, color=color, lw=1.8 if number == 0 else 1.1, marker=dot, ms=4, label=name)
            if number == 0:
                axes.fill_between(episodes, lo, hi, color=color, alpha=0.16, lw=0)
        dress(axes, "episode of the trial", "")
        axes.set_xlim(left=0.5)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        figure.legend(loc="outside upper left", frameon=False, ncols=7, handlelength=1.6, fontsize=9.5)
        return _svg(figure)


def chart(size: tuple[float, float], draw: Callable[[Any, Any], None], font: float = 10) -> str:
    """An SVG in the style of all others, of what `draw(figure, axes)` puts into it."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**_STYLE, "font.size": font}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure, figure.add_subplot())
        return _svg(figure)


def _draw_training(axes: Any, data: Curve, scale: float, small: bool = False) -> None:
    data = binned(data)
    values = data.values * scale
    seeds = values.shape[1]
    band = bootstrap_band(values.T, resamples=500)
    if seeds > 1:
        axes.fill_between(data.steps, band.lo, band.hi, color=BLUE, alpha=0.16, lw=0, label="95 % interval")
    if seeds > 1 and not small:
        axes.plot(data.steps, values, color=BLUE, alpha=0.13, lw=0.8)
    label = f"training, mean of {seeds} seeds" if seeds > 1 else "training"
    dot = "o" if len(data.steps) == 1 else None
    width = 1.1 if small or len(data.steps) > 100 else 1.6
    axes.plot(data.steps, band.mean, color=BLUE, lw=width, marker=dot, solid_joinstyle="round", label=label)


def _draw_evaluation(axes: Any, data: Curve, scale: float) -> None:
    values = data.values * scale
    band = bootstrap_band(values.T)
    if values.shape[1] > 1:
        axes.vlines(data.steps, band.lo, band.hi, color=ORANGE, lw=1.6, zorder=4)
    size = 6.0 if len(data.steps) <= 20 else 4.0
    dots = {"color": ORANGE, "lw": 0.8, "ms": size, "mec": "white", "mew": 0.9, "zorder": 5}
    axes.plot(data.steps, band.mean, "o-", label="evaluation", **dots)


def _draw_references(axes: Any, references: Mapping[str, float]) -> None:
    """Dashed levels, named at the right edge; labels of levels that nearly meet are moved apart."""
    if not references:
        return
    for level in references.values():
        axes.axhline(level, color=GREY, lw=1.0, ls=(0, (4, 3)), zorder=1)
    low, high = axes.get_ylim()
    last = -np.inf
    for name, level in sorted(references.items(), key=lambda item: item[1]):
        place = max(level, last + 0.05 * (high - low))
        last = place
        axes.annotate(
            name,
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            color=GREY,
            fontsize=9,
            va="center",
        )


def dress(axes: Any, xlabel: str, unit: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.set_xlim(left=0)
    axes.set_xlabel(xlabel)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: count(x) if x else "0"))
    if unit:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g} {unit}"))
        return
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(5))
    else:
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: tick(y)))


def tick(value: float) -> str:
    """Short enough for a narrow margin: 84k, 0.25, 3e-4."""
    if abs(value) >= 10_000:
        return ("-" if value < 0 else "") + count(abs(value))
    if 0 < abs(value) < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"


def binned(data: Curve) -> Curve:
    """At most _POINTS points: means over equal bins of rows, NaN passed over."""
    rows, seeds = data.values.shape
    if rows <= _POINTS:
        return data
    edges = np.linspace(0, rows, _POINTS + 1).round().astype(int)
    present = np.isfinite(data.values)
    total = np.add.reduceat(np.where(present, data.values, 0.0), edges[:-1], axis=0)
    number = np.add.reduceat(present, edges[:-1], axis=0, dtype=int)
    means = np.divide(total, number, out=np.full((_POINTS, seeds), np.nan), where=number > 0)
    return Curve(data.steps[edges[1:] - 1], means)


def _svg(figure: Any) -> str:
    """The figure as an <svg> element: no prolog, no metadata, no name spaces, only ids that something refers
    to.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.S)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r'\sid="([^"]*)"', lambda m: m[0] if m[1] in used else "", text)
    return re.sub(r"\n\s*", "\n", text).strip()
