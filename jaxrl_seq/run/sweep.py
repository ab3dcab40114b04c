"""A sweep: its parts one after the other, each a run of many lanes in its own folder, and results over all of them.

SWEEP/config.json    what was asked for, and the parts
      parts/00 ...   run folders (run/README.md)
      results.csv    one row a lane
      summary.json   the best setting
      report.html
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from jax.sharding import Mesh

from jaxrl_seq.run import distributed, health
from jaxrl_seq.run.checkpoint import Checkpoints
from jaxrl_seq.run.config import fresh_folder, parse_train
from jaxrl_seq.run.env_info import device_memory
from jaxrl_seq.run.lanes import Settings
from jaxrl_seq.run.loop import VERSION, DoesNotFit, train, write_json
from jaxrl_seq.run.mesh import make_mesh
from jaxrl_seq.run.sinks import ConsoleSink, Row
from jaxrl_seq.run.stats import Interval
from jaxrl_seq.run.sweep_plan import Part, plan, read_toml, words_of
from jaxrl_seq.run.sweep_results import publish_sweep, rivals_in_words


@dataclass(frozen=True)
class SweepOptions:
    """Train with every combination of the values given: `jaxrl-seq sweep LEARNER|FILE.toml --field value value ...`,
    where --field is any of `jaxrl-seq train LEARNER --help`. Traced numbers may also be drawn: log:LOW:HIGH, or
    uniform:LOW:HIGH."""

    samples: int = 1
    """Draws of what is drawn, all drawn fields together."""
    sample_seed: int = 0
    """Other draws."""
    memory_gb: float | None = None
    """Memory of a device, by default what it tells: lanes beyond it go into further groups, one after the other."""
    dry_run: bool = False
    """Compile, run two updates, print lanes, memory and time, and stop."""


@dataclass(frozen=True)
class Sweep:
    """A finished or interrupted sweep."""

    folder: Path
    rows: list[dict[str, Any]]
    """Those of results.csv."""
    finished: bool
    stopped_by: str | None

    @property
    def verdict(self) -> str:
        """The best setting, in a line."""
        best = _summary(self.folder).get("best")
        if best is None:
            return "No lane has a return yet."
        setting = ", ".join(f"{name} {value}" for name, value in best["setting"].items()) or "the only one"
        score = Interval(best["return_mean"], *best["return_ci"])
        return f"best setting: {setting}: return {score:.3f}{rivals_in_words(best['rivals'])}"


def sweep(
    learner: str,
    *,
    run_dir: str | Path,
    overwrite: bool = False,
    samples: int = 1,
    sample_seed: int = 0,
    mesh: str | None = None,
    memory_gb: float | None = None,
    progress: bool = True,
    **fields: Any,
) -> Sweep:
    """Train `learner` ("ppo", ...) with every combination of `fields`, the flags of `jaxrl-seq train`, where a list is
    several values, and `uniform(low, high)` or `log_uniform(low, high)` are `samples` draws.

    Options of the model, or of trials, are tables: model={"name": ["gru", "s5"], "width": 32}. ValueError for what
    cannot be run, before anything is compiled or written.
    """
    words = words_of(fields)
    parts = plan(learner, words, samples, sample_seed)
    asked = {"words": words, "samples": samples, "sample_seed": sample_seed}
    folder = begin(learner, asked, parts, Path(run_dir), overwrite)
    return go(folder, mesh=mesh, memory_gb=memory_gb, progress=progress)


def start_sweep(words: list[str]) -> Sweep | None:
    """The sweep that flags, or a file and flags, ask for; None where it was only rehearsed."""
    if not words or words[0].startswith("-"):
        words = ["ppo", "--help"]
    learner, filed = read_toml(words[0]) if words[0].endswith(".toml") else (words[0], [])
    asked = [*filed, *words[1:]]
    prog = f"jaxrl-seq sweep {learner}"
    options, fields = tyro.cli(SweepOptions, args=asked, return_unknown_args=True, prog=prog)
    parts = plan(learner, fields, options.samples, options.sample_seed)
    placement = parse_train(learner, list(parts[0].words)).placement
    if options.dry_run:
        from jaxrl_seq.run.sweep_probe import rehearse

        print(rehearse(learner, parts, placement.mesh, _memory(options.memory_gb)))
        return None
    folder = Path(placement.run_dir) if placement.run_dir else fresh_folder(["sweep", learner])
    record = {"words": fields, "samples": options.samples, "sample_seed": options.sample_seed}
    begin(learner, record, parts, folder, placement.overwrite)
    print(f"sweep folder {folder}")
    return go(folder, mesh=placement.mesh, memory_gb=options.memory_gb)


def begin(learner: str, asked: dict[str, Any], parts: list[Part], folder: Path, overwrite: bool) -> Path:
    """The folder of a new sweep."""
    mesh_for(parse_train(learner, list(parts[0].words)).placement.mesh, parts[0].settings.num)  # refused here
    distributed.first_decides(lambda: str(health.prepare_run_dir(folder, overwrite)))
    record = {"version": VERSION, "command": f"sweep {learner}", "learner": learner} | asked
    distributed.check_agreement(sweep=[record, parts])
    _write(folder, record, parts)
    distributed.gather([0.0])  # the file is there before anyone reads it
    return folder


def go(folder: Path, *, mesh: str | None = None, memory_gb: float | None = None, progress: bool = True) -> Sweep:
    """Run the parts of a sweep that are not finished, from where they are: to begin with, and to resume."""
    learner, record, parts = read(folder)
    memory = _memory(memory_gb)
    stopped_by = None
    rows: list[dict[str, Any]] = []
    with health.RunLock(folder) if distributed.is_first() else contextlib.nullcontext():
        console = _Console(learner, parts) if progress and distributed.is_first() else None
        number = 0
        while number < len(parts) and stopped_by is None:
            try:
                stopped_by = _run(learner, parts[number], part_folder(folder, number), mesh, memory, console)
            except DoesNotFit as error:
                smaller = _smaller(parts[number], error, mesh)
                parts[number : number + 1] = smaller
                _write(folder, record, parts)
                if progress:
                    print(f"part {number} does not fit: now in {len(smaller)} groups ({error})", flush=True)
                continue
            if distributed.is_first():
                rows = publish_sweep(folder)
            number += 1
    finished = stopped_by is None
    return Sweep(folder, rows, finished, stopped_by)


def read(folder: Path) -> tuple[str, dict[str, Any], list[Part]]:
    """(learner, what was asked for, parts) of a sweep's folder."""
    record = json.loads((folder / "config.json").read_text())
    parts = [
        Part(
            words=tuple(part["words"]),
            settings=Settings(tuple(part["seeds"]), tuple((n, tuple(column)) for n, column in part["values"].items())),
            labels=tuple(part["labels"]),
        )
        for part in record.pop("parts")
    ]
    return record["learner"], record, parts


def _memory(gigabytes: float | None) -> int | None:
    """Bytes; of several processes the least that any of them has."""
    there = device_memory() if gigabytes is None else round(gigabytes * 1e9)
    least = distributed.gather([np.inf if there is None else there]).min()
    return int(least) if np.isfinite(least) else None


def part_folder(folder: Path, number: int) -> Path:
    return folder / "parts" / f"{number:02d}"


def mesh_for(spec: str | None, lanes: int) -> Mesh | None:
    """The mesh asked for; by default all devices, but no more than there are lanes. None for one device."""
    if spec is not None:
        return make_mesh(spec)
    devices = jax.device_count()
    if devices == 1:
        return None
    return make_mesh(f"seed={devices if jax.process_count() > 1 else min(devices, lanes)}")


def _write(folder: Path, record: dict[str, Any], parts: list[Part]) -> None:
    table = [
        {"words": p.words, "seeds": p.settings.seeds, "values": dict(p.settings.values), "labels": p.labels}
        for p in parts
    ]
    write_json(folder / "config.json", record | {"parts": table})


def _run(
    learner: str, part: Part, folder: Path, mesh: str | None, memory: int | None, console: _Console | None
) -> str | None:
    """Run a part to its end, or to what stopped it."""
    standing = distributed.first_decides(lambda: _standing(folder))
    if standing == "over":
        return None
    config = parse_train(learner, list(part.words))
    built, hyper = config.build()
    try:
        run = train(
            built,
            hyper,
            run_dir=folder,
            resume=standing == "under way",
            config=config.record() | {"command": f"sweep {learner}"},
            settings=part.settings,
            mesh=mesh_for(mesh, part.settings.num),
            memory=memory,
            progress=False,
            sinks=() if console is None else (console.of(part),),
            **vars(config.run),
        )
    except FloatingPointError as error:  # every lane of this part is lost; the others are not
        warnings.warn(f"part {folder.name}: {error}", RuntimeWarning, stacklevel=2)
        return None
    return run.summary["stopped_by"]


def _standing(folder: Path) -> str:
    """Of a part: "over", "under way" or "new"."""
    summary = _summary(folder)
    if summary.get("finished") or summary.get("stopped_by") == "not finite":
        return "over"
    if Checkpoints(folder / "checkpoints").steps():
        return "under way"
    if folder.exists():  # killed before its first checkpoint
        shutil.rmtree(folder)
    return "new"


def _smaller(part: Part, error: DoesNotFit, mesh: str | None) -> list[Part]:
    """The part in groups that fit, as far as memory grows with the lanes; ValueError where one lane is too much."""
    cut = mesh_for(mesh, part.settings.num)
    each = 1 if cut is None else cut.shape["seed"]
    fitting = math.floor(part.settings.num * error.share / each) * each
    if fitting < 1 or part.settings.num <= each:
        raise ValueError(f"Not even {min(each, part.settings.num)} lanes fit. {error}") from None
    return part.cut(math.ceil(part.settings.num / fitting))


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / "summary.json"
    return json.loads(path.read_text()) if path.is_file() else {}


class _Console:
    """Progress over all lanes of all parts."""

    def __init__(self, learner: str, parts: list[Part]):
        each = [parse_train(learner, list(part.words)).run.total_steps for part in parts]
        self._lines = ConsoleSink(sum(n * part.settings.num for n, part in zip(each, parts, strict=True)))
        self._done, self._now, self._wall, self._lanes = 0, 0, 0.0, 1
        lanes = sum(part.settings.num for part in parts)
        print(f"{lanes} lanes in {len(parts)} compilation{'s' if len(parts) > 1 else ''}", flush=True)

    def of(self, part: Part) -> _Console:
        """The sink of the next part."""
        self._done, self._now, self._lanes = self._done + self._now, 0, part.settings.num
        self._before = self._wall
        return self

    def write(self, row: Row) -> None:
        self._now, self._wall = row["steps"] * self._lanes, self._before + row["wall_s"]
        self._lines.write(row | {"steps": self._done + self._now, "wall_s": self._wall})

    def close(self) -> None:
        pass
