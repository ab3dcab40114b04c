"""The one host loop of every learner: compile, run chunks, log, evaluate, save, stop, resume."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxrl_seq.run import distributed, health
from jaxrl_seq.run.checkpoint import Checkpoints
from jaxrl_seq.run.env_info import describe_devices, environment_info
from jaxrl_seq.run.lanes import Settings
from jaxrl_seq.run.mesh import make_mesh
from jaxrl_seq.run.metrics import evaluation_metrics, row_metrics
from jaxrl_seq.run.programs import ROWS, Programs, compile_programs
from jaxrl_seq.run.sinks import ConsoleSink, JsonlSink, Row, Sink, Sinks, jsonable, read_rows
from jaxrl_seq.run.summary import describe, summarise

VERSION = 1
"""Of the run folder's format."""
_MOST_SHOWN = 64


@dataclass(frozen=True)
class RunOptions:
    """How long and how a run goes, whatever the learner."""

    total_steps: int = 800_000
    """Environment steps of one seed, rounded up to whole updates."""
    seed: int = 0
    """Seed of the first lane; lane i uses seed + i."""
    num_seeds: int = 1
    """Seeds trained side by side in one program."""
    evaluations: int = 10
    """Evaluations, evenly spread, the last one at the end."""
    eval_episodes: int = 4
    """Episodes per environment and evaluation."""
    max_rows: int = 500
    """Rows of metrics.jsonl at most: several updates share a row in a long run."""
    chunk_seconds: float = 1.0
    """Device time between two looks from the host (progress, interrupts, checkpoints)."""
    checkpoint_seconds: float = 120.0
    """Time between two checkpoints; one is always written at the end and on an interrupt."""
    patience_bad_rows: int = 10
    """Stop after this many metric rows in a row in which every lane had to skip non-finite gradient steps."""

    def __post_init__(self) -> None:
        for name in ("total_steps", "num_seeds", "max_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.evaluations < 0 or self.eval_episodes < 0:
            raise ValueError("evaluations and eval_episodes must not be negative.")


@dataclass
class Clock:
    """Where the wall time of a run went, in seconds; earlier parts of a resumed run included."""

    compile_s: float = 0.0
    update_s: float = 0.0
    eval_s: float = 0.0
    wall_s: float = 0.0
    """From the end of compilation."""


@dataclass
class Run:
    """A finished or interrupted run."""

    learner: Any
    hyper: Any
    state: Any
    """The learner's state, with a leading lane axis if several seeds ran (see `lanes.lane`)."""
    summary: dict[str, Any]
    rows: list[Row] = field(repr=False)
    folder: Path | None = None


def train(
    learner: Any,
    hyper: Any = None,
    *,
    run_dir: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    config: dict[str, Any] | None = None,
    progress: bool = True,
    sinks: tuple[Sink, ...] = (),
    settings: Settings | None = None,
    mesh: Mesh | None = None,
    memory: int | None = None,
    **options: Any,
) -> Run:
    """Train `learner` and return the run; `options` are the fields of `RunOptions`.

    `settings` say what lanes start from, for a sweep over numbers of `hyper` (by default `num_seeds` seeds); `mesh`,
    which devices they and their environments are shared out over (`run.mesh`); `memory`, the bytes that a device has.

    With `run_dir` everything is kept there (design of the folder: run/README.md) and `resume=True` goes on from its
    last good checkpoint, bit for bit. Raises ValueError before anything is compiled or written: an existing folder
    without `overwrite` or `resume`, a missing one with `resume`, impossible options. Raises `DoesNotFit` before the
    first step.
    """
    wanted = RunOptions(**options)
    settings = settings or Settings(tuple(range(wanted.seed, wanted.seed + wanted.num_seeds)))
    wanted = dataclasses.replace(wanted, num_seeds=settings.num)
    hyper = learner.default_hyper() if hyper is None else hyper
    # Traced numbers of one dtype, so that a Python float and an array compile alike.
    hyper = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32 if isinstance(x, float) else None), hyper)
    folder = None if run_dir is None else Path(run_dir)
    if folder is None and (resume or overwrite):
        raise ValueError("resume and overwrite need a run_dir.")
    if folder is not None and resume and not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no run (no config.json): nothing to resume.")
    if folder is not None and not resume:
        distributed.first_decides(lambda: str(health.prepare_run_dir(Path(folder), overwrite)))
    if distributed.several():
        mesh, progress = mesh or make_mesh(), progress and distributed.is_first()
    setup = _Setup(learner, hyper, wanted, settings, folder, mesh, memory, config or {}, progress, sinks)
    session = _Session(setup)
    if folder is None:
        return session.go(resume=False)
    lock = health.RunLock(folder) if distributed.is_first() else contextlib.nullcontext()
    with lock, Checkpoints(folder / "checkpoints") as session.checkpoints:
        return session.go(resume)


class DoesNotFit(ValueError):
    """The updates need more memory than a device has; `share` is which part of it would fit."""

    def __init__(self, needed: int, there: int, lanes: int):
        self.share = there / needed
        super().__init__(
            f"{lanes} lanes need {needed / 1e9:.2f} GB of a device that has {there / 1e9:.2f} GB: run fewer of them at "
            "a time, or fewer environments, shorter rollouts or more minibatches."
        )


@dataclass(frozen=True)
class _Setup:
    """What `train` was asked for."""

    learner: Any
    hyper: Any
    options: RunOptions
    settings: Settings
    folder: Path | None
    mesh: Mesh | None
    memory: int | None
    config: dict[str, Any]
    progress: bool
    sinks: tuple[Sink, ...]


class _Session:
    """One call of `train`: the host-side state that the steps below share."""

    def __init__(self, setup: _Setup):
        self.setup, self.learner, self.hyper = setup, setup.learner, setup.hyper
        self.options, self.folder, self.progress = setup.options, setup.folder, setup.progress
        learner, options = self.learner, self.options
        self.checkpoints: Checkpoints | None = None
        self.total_updates = math.ceil(options.total_steps / learner.steps_per_update)
        self.log_every = math.ceil(self.total_updates / options.max_rows)
        self.clock = Clock()
        self.update = 0
        self.rows: list[Row] = []
        self.episodes: Any = None
        self.bad_rows = 0
        self.frozen: set[int] = set()
        self.state: Any = None
        self.stopped_early: str | None = None

    # --- the whole ----------------------------------------------------------------------------------------------------
    def go(self, resume: bool) -> Run:
        self._announce()
        info = environment_info()
        distributed.check_agreement(configuration=self._record(), versions=[info["python"], info["packages"]])
        # An evaluation that cannot be afforded is not compiled either.
        wanted = self.options.eval_episodes if self.options.evaluations else 0
        asked = self.setup
        self.programs: Programs = compile_programs(
            self.learner, self.hyper, asked.settings, self.log_every, wanted, asked.mesh
        )
        if asked.memory is not None and self.programs.memory > asked.memory:
            raise DoesNotFit(self.programs.memory, asked.memory, asked.settings.num)
        self.clock.compile_s += self.programs.seconds
        self._say(f"compiled in {self.programs.seconds:.1f} s")
        self._start(resume)
        sinks = self._open_sinks(resume)
        with sinks, health.Interrupts() as interrupts:
            for _ in self._chunks(sinks):
                asked = distributed.gather([float(interrupts.requested)])
                if asked.any():
                    self.stopped_early = interrupts.signal_name or "SIGTERM"  # of another process
                if self.stopped_early:
                    break
        return self._finish()

    def _start(self, resume: bool) -> None:
        """A fresh state, or the last good checkpoint."""
        programs = self.programs
        if resume:
            assert self.checkpoints is not None and self.folder is not None
            restored = self.checkpoints.restore(programs.saved_target())
            distributed.check_agreement(checkpoint=restored.step)
            self.state, self.update = programs.from_saved(restored.state), restored.step
            compile_s = self.clock.compile_s
            self.clock = Clock(**restored.meta["clock"])
            self.clock.compile_s += compile_s
            self.rows = [row for row in read_rows(self.folder / "metrics.jsonl") if row["update"] <= self.update]
            self._say(f"resumed at {self.update * self.learner.steps_per_update:,} steps")
            return
        self.state = programs.fresh()
        if self.folder is not None:
            write_json(self.folder / "config.json", {"version": VERSION} | self._record())
            write_json(self.folder / "env.json", environment_info())

    # --- the loop -----------------------------------------------------------------------------------------------------
    def _chunks(self, sinks: Sinks) -> Iterator[None]:
        """Run to the end, handing control back after every chunk."""
        chunk_rows, saved_at, began = 1, time.monotonic(), time.monotonic() - self.clock.wall_s
        while self.update < self.total_updates:
            boundary = self._next_boundary()
            updates = min(chunk_rows * self.log_every, boundary - self.update)
            start = time.monotonic()
            self.state, sums = self.programs.update(self.state, updates)
            seconds = time.monotonic() - start
            self.clock.update_s += seconds
            self.clock.wall_s = time.monotonic() - began
            self._log_rows(sinks, sums, updates, seconds)
            chunk_rows = self._next_chunk_rows(updates, seconds)
            if self.update == boundary:
                self._evaluate(sinks)
                self.clock.wall_s = time.monotonic() - began
            due = time.monotonic() - saved_at > self.options.checkpoint_seconds
            chunk_rows, due = map(int, distributed.gather([chunk_rows, due])[0])
            if due:
                self._save()
                saved_at = time.monotonic()
            yield

    def _next_boundary(self) -> int:
        """The next update after which to evaluate: evenly spread, on whole rows, the end being the last."""
        parts = max(self.options.evaluations, 1)
        rows = math.ceil(self.total_updates / self.log_every)
        marks = (min(math.ceil(rows * k / parts) * self.log_every, self.total_updates) for k in range(1, parts + 1))
        return next(mark for mark in marks if mark > self.update)

    def _next_chunk_rows(self, updates: int, seconds: float) -> int:
        per_row = seconds * self.log_every / updates
        return int(np.clip(self.options.chunk_seconds / max(per_row, 1e-6), 1, ROWS))

    def _log_rows(self, sinks: Sinks, sums: dict[str, np.ndarray], updates: int, seconds: float) -> None:
        per_update = self.learner.steps_per_update
        speed = updates * per_update * self.options.num_seeds / seconds
        for row in range(math.ceil(updates / self.log_every)):
            count = min(self.log_every, updates - row * self.log_every)
            self.update += count
            numbers = row_metrics({name: value[row] for name, value in sums.items()}, count)
            self._write(sinks, "train", numbers | {"steps_per_second": speed})
            bad = np.min(np.atleast_1d(numbers.get("skipped", 0.0)) + np.atleast_1d(numbers.get("frozen", 0.0))) > 0
            self.bad_rows = self.bad_rows + 1 if bad else 0
        self._watch(sums)

    def _watch(self, sums: dict[str, np.ndarray]) -> None:
        """Say what went wrong, and stop a run that cannot recover."""
        frozen = np.atleast_1d(np.asarray(sums.get("frozen", np.zeros(1))).sum(0)) > 0
        if fresh := set(np.flatnonzero(frozen).tolist()) - self.frozen:
            self.frozen |= fresh
            names = ", ".join(str(i) for i in sorted(fresh))
            warnings.warn(
                f"Lanes {names} would no longer be finite: they stay as they were before update {self.update}, and the "
                "others go on.",
                RuntimeWarning,
                stacklevel=2,
            )
        skipped = np.asarray(sums.get("skipped", 0.0)).sum()
        if skipped:
            warnings.warn(
                f"{skipped:.0f} gradient steps before update {self.update} were not finite and were skipped. "
                "Lower lr or max_grad_norm, or check the environment's rewards.",
                RuntimeWarning,
                stacklevel=2,
            )
        if self.bad_rows >= self.options.patience_bad_rows:
            self.stopped_early = "not finite"

    def _evaluate(self, sinks: Sinks) -> None:
        if not self.programs.evaluates:
            return
        start = time.monotonic()
        self.episodes = self.programs.play(self.state, self.update)
        self.clock.eval_s += time.monotonic() - start
        self._write(sinks, "eval", evaluation_metrics(self.episodes))

    def _save(self) -> None:
        if self.checkpoints is not None:
            meta = {"clock": dataclasses.asdict(self.clock), "total_updates": self.total_updates}
            self.checkpoints.save(self.update, self.programs.to_save(self.state), meta)

    # --- the end ------------------------------------------------------------------------------------------------------
    def _finish(self) -> Run:
        finished = self.update >= self.total_updates
        if self.stopped_early != "not finite":
            self._save()
        if finished and self.episodes is None and self.programs.evaluates:
            self.episodes = self.programs.play(self.state, self.update)  # a finished run that was resumed
        summary = summarise(
            self.learner,
            self.hyper,
            self._record(),
            self.rows,
            self.episodes,
            dataclasses.asdict(self.clock),
            finished=finished,
            stopped_by=self.stopped_early,
        )
        run = Run(self.learner, self.hyper, self.state, summary, self.rows, self.folder)
        if self.folder is not None:
            write_json(self.folder / "summary.json", summary)
        if self.stopped_early == "not finite":
            where = health.first_nonfinite(self.state) or "gradients only"
            raise FloatingPointError(
                f"Stopped at update {self.update}: every gradient step was non-finite in {self.bad_rows} rows "
                f"of metrics in a row (first non-finite leaf: {where}). The last good checkpoint is kept."
            )
        return run

    # --- small things -------------------------------------------------------------------------------------------------
    def _record(self) -> dict[str, Any]:
        """What config.json says: how the run was asked for, and the options as they were resolved."""
        options = dataclasses.asdict(self.options) | {"total_updates": self.total_updates}
        asked = self.setup.config or describe(self.learner) | {"hyper": _plain(self.hyper)}
        swept = self.setup.settings.values
        lanes = {"lanes": {"seed": self.setup.settings.seeds, **dict(swept)}} if swept else {}
        return asked | {"options": options} | lanes

    def _open_sinks(self, resume: bool) -> Sinks:
        sinks: list[Sink] = list(self.setup.sinks)
        if not distributed.is_first():
            return Sinks([])
        if self.folder is not None:
            sinks.insert(0, JsonlSink(self.folder / "metrics.jsonl", self.update if resume else None))
        if self.progress:
            sinks.append(ConsoleSink(self.total_updates * self.learner.steps_per_update))
        return Sinks(sinks)

    def _write(self, sinks: Sinks, kind: str, numbers: dict[str, Any]) -> None:
        steps = self.update * self.learner.steps_per_update
        row = {"kind": kind, "update": self.update, "steps": steps, "wall_s": round(self.clock.wall_s, 3)}
        self.rows.append(jsonable(row | numbers))
        sinks.write(self.rows[-1])

    def _announce(self) -> None:
        seeds = f", {self.options.num_seeds} seeds" if self.options.num_seeds > 1 else ""
        steps = self.total_updates * self.learner.steps_per_update
        self._say(f"running on {describe_devices()}: {steps:,} steps in {self.total_updates:,} updates{seeds}")

    def _say(self, text: str) -> None:
        if self.progress:
            print(text, flush=True)


def _plain(tree: Any) -> Any:
    """A pytree of numbers as JSON; data, such as histories to learn from, by shape only."""

    def show(x: Any) -> Any:
        return jsonable(np.asarray(x)) if x.size <= _MOST_SHOWN else f"{x.dtype}{list(x.shape)}"

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): show(x) for path, x in leaves}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """In one move, so that a kill leaves the old file or the new one. The first process of a run writes."""
    if not distributed.is_first():
        return
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(jsonable(content), indent=2) + "\n")
    fresh.replace(path)
