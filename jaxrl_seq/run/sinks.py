"""Where metric rows go: a JSONL file (the record), the console, TensorBoard, Weights & Biases, or several at
once.

A row is a dictionary: kind ("train" or "eval"), update (int), steps (int, environment steps of one lane so
far), wall_s (float) and metrics. A metric is a number, or a list of S numbers where S seed lanes run.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

Row = dict[str, Any]


class Sink(Protocol):
    """Takes metric rows in order. May raise: `Sinks` keeps a failing sink from stopping a run."""

    def write(self, row: Row) -> None: ...

    def close(self) -> None: ...


# ---- the record ----


class JsonlSink:
    """Appends rows to a JSONL file, each on disk before `write` returns. NaN and infinities become null.

    path: made if missing, with its folder. keep_rows: None appends to whatever is there (a half-written last
    line is cut off); an int first drops rows of later updates (`truncate_after`), as a resume from that
    update needs. `write` raises OSError where the disk refuses; the rows are held and written with the next
    one that succeeds.
    """

    def __init__(self, path: str | Path, keep_rows: int | None = None):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        truncate_after(self.path, keep_rows)
        self._file = self.path.open("ab", buffering=0)
        self._size = self._file.seek(0, os.SEEK_END)
        self._held = b""

    def write(self, row: Row) -> None:
        self._held += json.dumps(jsonable(row), allow_nan=False).encode() + b"\n"
        try:
            written = self._file.write(self._held)
            if written != len(self._held):
                raise OSError(f"only {written} of {len(self._held)} bytes written")
        except OSError:
            self._file.truncate(self._size)  # no half line may stay in the middle of the file
            raise
        self._size, self._held = self._size + len(self._held), b""

    def close(self) -> None:
        self._file.close()


def truncate_after(path: str | Path, update: int | None) -> None:
    """Drops rows whose update is later than `update` (None: none), and a half-written last line.

    The file is replaced in one move, so a kill leaves the old one or the new one. A missing file is fine.
    """
    path = Path(path)
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith(b"\n") and _belongs(line, update)]
    if len(kept) == len(lines):
        return
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(b"".join(kept))
    os.replace(fresh, path)


def _belongs(line: bytes, update: int | None) -> bool:
    if update is None:
        return True
    try:
        return json.loads(line)["update"] <= update
    except (ValueError, KeyError, TypeError):
        return False


def read_rows(path: str | Path) -> list[Row]:
    """All rows of a JSONL file, also of a run in progress: lines that are no JSON object are passed over."""
    path = Path(path)
    if not path.is_file():
        return []
    rows: list[Row] = []
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # a half-written last line, or a hole after a power cut
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def jsonable(value: Any) -> Any:
    """Numpy and jax numbers and arrays as plain JSON values; NaN and infinities as None."""
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if hasattr(value, "dtype"):
        return jsonable(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def lane_mean(value: Any) -> float | None:
    """A metric as one number: the mean over seed lanes, those without a finite number left out. None: none
    has.
    """
    values = np.asarray(value if isinstance(value, list | tuple) else [value], dtype=object).ravel()
    numbers = [float(v) for v in values if isinstance(v, int | float | np.number) and math.isfinite(v)]
    return sum(numbers) / len(numbers) if numbers else None


# ---- the console ----


class ConsoleSink:
    """Progress for people: a live line in a terminal, plain lines elsewhere (log files, pipes).

    total_steps: environment steps of one lane in the whole run. stream: where to (standard output). every_s:
    at first a plain line comes every so many seconds, later less often (a twentieth of the time so far); each
    tenth of the run and each evaluation always gets one. Lanes are shown by their mean.
    """

    def __init__(self, total_steps: int, stream: TextIO | None = None, every_s: float = 2.0):
        self._total = max(int(total_steps), 1)
        self._stream = stream if stream is not None else sys.stdout
        self._every_s = every_s
        self._start = self._last = time.monotonic()
        self._tenth = 0
        self._origin: tuple[float, float] | None = None
        self._live: Any = None
        if self._stream.isatty():
            self._live, self._task = _live_progress(self._stream, self._total)

    def write(self, row: Row) -> None:
        steps = int(row.get("steps", 0))
        if row.get("kind") == "eval":
            self._say(f"  evaluation at {count(steps)} steps: {_figures(row)}")
            return
        figures = f"ETA {self._eta(row)}  {_figures(row)}"
        if self._live is not None:
            self._live.update(self._task, completed=steps, steps=count(steps), figures=figures)
        elif self._is_due(steps):
            share = min(100 * steps / self._total, 100.0)
            self._say(f"{count(steps):>7} / {count(self._total)} steps  {share:3.0f} %  {figures}")

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _say(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=self._stream, flush=True)

    def _is_due(self, steps: int) -> bool:
        now = time.monotonic()
        tenth = 10 * steps // self._total
        due = tenth > self._tenth or now - self._last >= max(self._every_s, (now - self._start) / 20)
        if due:
            self._last, self._tenth = now, tenth
        return due

    def _eta(self, row: Row) -> str:
        """From the rate since the first row seen, so that compilation and resumed steps do not count."""
        steps, wall = float(row.get("steps", 0)), float(row.get("wall_s") or 0.0)
        if self._origin is None:
            self._origin = (steps, wall)
        steps_0, wall_0 = self._origin
        if steps <= steps_0 or wall <= wall_0:
            return "--"
        return duration((self._total - steps) * (wall - wall_0) / (steps - steps_0))


def _live_progress(stream: TextIO, total: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[steps]} / {task.fields[total_text]} steps"),
        TextColumn("{task.fields[figures]}", markup=False),
    )
    live = Progress(*columns, console=Console(file=stream), refresh_per_second=4)
    live.start()
    task = live.add_task("", total=total, steps="0", total_text=count(total), figures="compiling ...")
    return live, task


def _figures(row: Row) -> str:
    """'return 0.913  success 91 %  84.1k steps/s', as far as the row has them."""
    parts = []
    value = lane_mean(row.get("return_mean"))
    parts.append(f"return {value:.4g}" if value is not None else "return --")
    success = lane_mean(row.get("success"))
    if success is not None:
        parts.append(f"success {100 * success:.0f} %")
    rate = lane_mean(row.get("steps_per_second"))
    if rate is not None:
        parts.append(f"{count(rate)} steps/s")
    return "  ".join(parts)


def count(value: float) -> str:
    """A large number for people: 950, 8.19k, 1.25M, 3.1G."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds for people: '42 s', '3 min 20 s', '2 h 05 min'."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


# ---- other people's viewers ----


class TensorBoardSink:
    """Event files for TensorBoard through tensorboardX; lanes by their mean. folder: where the events go.

    Raises ImportError with the command that installs the extra.
    """

    def __init__(self, folder: str | Path):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ImportError("TensorBoard needs tensorboardX: pip install 'jaxrl_seq[tensorboard]'") from None
        self._writer = SummaryWriter(str(folder))

    def write(self, row: Row) -> None:
        for name, value in _scalars(row).items():
            self._writer.add_scalar(name, value, int(row.get("steps", 0)))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandbSink:
    """A Weights & Biases run; lanes by their mean. Keyword arguments go to `wandb.init` (project, name,
    config, ...).

    module: another module with the same init and log, such as trackio. Raises ImportError with the command
    that installs the extra.
    """

    def __init__(self, module: Any = None, **init: Any):
        if module is None:
            try:
                import wandb as module  # pyright: ignore[reportMissingImports]
            except ImportError:
                raise ImportError("this sink needs wandb: pip install 'jaxrl_seq[wandb]'") from None
        self._module = module
        module.init(**init)

    def write(self, row: Row) -> None:
        self._module.log(_scalars(row), step=int(row.get("steps", 0)))

    def close(self) -> None:
        self._module.finish()


def _scalars(row: Row) -> dict[str, float]:
    """{'train/return_mean': 0.9, ...}: finite numbers only."""
    skip = ("kind", "update", "steps")
    means = {f"{row.get('kind', 'train')}/{k}": lane_mean(v) for k, v in row.items() if k not in skip}
    return {name: value for name, value in means.items() if value is not None}


# ---- all together ----


class Sinks:
    """Writes each row to every sink. A sink that raises is warned about once and left out from then on.

    The JSONL record is different: it stays in, holds what the disk refused and writes it when there is room
    again.
    """

    def __init__(self, sinks: Iterable[Sink]):
        self._sinks = list(sinks)
        self._warned: set[int] = set()

    def write(self, row: Row) -> None:
        for sink in list(self._sinks):
            self._try(sink, lambda sink=sink: sink.write(row))

    def close(self) -> None:
        for sink in list(self._sinks):
            self._try(sink, sink.close)
        self._sinks.clear()

    def _try(self, sink: Sink, action: Any) -> None:
        try:
            action()
        except Exception as error:  # a logger, whatever it raises, must not cost anybody a run
            record = isinstance(sink, JsonlSink)
            if not record:
                self._sinks.remove(sink)
            if id(sink) not in self._warned:
                fate = "rows are held until it works again" if record else "it is switched off"
                cause = f"{type(sink).__name__} failed ({type(error).__name__}: {error})"
                warnings.warn(f"{cause}: {fate}, training goes on", RuntimeWarning, stacklevel=3)
            self._warned.add(id(sink))

    def __enter__(self) -> Sinks:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
