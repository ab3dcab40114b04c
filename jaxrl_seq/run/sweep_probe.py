"""What a sweep would cost: compiled and tried for two updates, without a folder."""

from __future__ import annotations

import math
import time
from typing import Any

import jax

from jaxrl_seq.run.catalogue import table
from jaxrl_seq.run.config import parse_train
from jaxrl_seq.run.env_info import describe_devices
from jaxrl_seq.run.programs import compile_programs
from jaxrl_seq.run.sinks import duration
from jaxrl_seq.run.sweep import mesh_for
from jaxrl_seq.run.sweep_plan import Part


def rehearse(learner: str, parts: list[Part], mesh: str | None, memory: int | None) -> str:
    """A table of the parts: lanes, devices, memory of a device, compilation and estimated time. `memory` in bytes."""
    rows, total = [], 0.0
    # a mesh that cannot be is refused before the first compilation
    meshes = [mesh_for(mesh, part.settings.num) for part in parts]
    for number, (part, cut) in enumerate(zip(parts, meshes, strict=True)):
        row = _probe(learner, part, cut, memory)
        total += row.pop("seconds")
        rows.append({"part": f"{number:02d}", "settings": _shared(part)} | row)
    lanes = sum(part.settings.num for part in parts)
    room = "" if memory is None else f" of {memory / 1e9:.2f} GB"
    head = f"{lanes} lanes in {len(parts)} compilations on {describe_devices()}{room}"
    return f"{head}\n\n{table(rows)}\n\nabout {duration(total)} in all"


def _probe(learner: str, part: Part, cut: Any, memory: int | None) -> dict[str, Any]:
    config = parse_train(learner, list(part.words))
    built, hyper = config.build()
    options = config.run
    updates = math.ceil(options.total_steps / built.steps_per_update)
    episodes = options.eval_episodes if options.evaluations else 0
    log_every = math.ceil(updates / options.max_rows)
    programs = compile_programs(built, hyper, part.settings, log_every, episodes, cut)
    groups = 1 if memory is None else max(1, math.ceil(programs.memory / memory))
    state = programs.fresh()
    state, _ = jax.block_until_ready(programs.update(state, 1))  # the first one also loads code and touches memory
    start = time.perf_counter()
    state, _ = jax.block_until_ready(programs.update(state, 2))
    each = (time.perf_counter() - start) / 2
    start = time.perf_counter()
    if programs.evaluates:
        programs.play(state, 0)
    evaluation = time.perf_counter() - start
    seconds = programs.seconds + updates * each + options.evaluations * evaluation
    return {
        "lanes": part.settings.num,
        "devices": 1 if cut is None else "x".join(str(n) for n in cut.devices.shape),
        "groups": groups,
        "memory": f"{programs.memory / 1e6:.1f} MB",
        "compile": f"{programs.seconds:.1f} s",
        "updates": updates,
        "per update": f"{1e3 * each:.1f} ms",
        "time": duration(seconds),
        "seconds": seconds,
    }


def _shared(part: Part) -> str:
    """The settings that all lanes of a part have in common."""
    first = part.labels[0]
    same = {n: v for n, v in first.items() if n != "seed" and all(label.get(n) == v for label in part.labels)}
    return ", ".join(f"{n} {v}" for n, v in same.items())
