"""AGaLiTe acts more cheaply than GTrXL and learns no worse (Pramanik et al. 2023, arXiv:2310.15719).

Claims: at equal width and a window of 128 or more, a step of acting costs at least 40 % less and the memory of an
environment at least 50 % less; the return on a memory task is not worse. Here: two layers of width 128, 64
environments; T-maze of 20 steps at width 64, with the hyper-parameters of all T-mazes here (`TMAZE`: with PPO's own,
one seed of three of AGaLiTe never learnt to walk). GTrXL is this library's own, with cached keys and values: the
published comparison is with one that caches layer inputs and projects them anew at every step. Expected: half an hour
on two cores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from benchmarks import lab
from experiments.common import Arguments, Claim, Findings, learn_tmaze, run_experiment, time_ratio
from jaxrl_seq.models import SequenceModel, make_model
from jaxrl_seq.run.stats import Interval, bootstrap_ci

WIDTH, LAYERS, BATCH, STEPS = 128, 2, 64, 128
WINDOWS = (128, 256, 512)
TOTAL_STEPS = 400_000


def acting(model: SequenceModel) -> tuple[Callable[[], Any], int]:
    """A compiled loop of STEPS acting steps as a call, and the bytes an environment's memory takes."""
    params, carry = lab.initial(model, BATCH, WIDTH)
    x, reset = lab.inputs(STEPS, BATCH, WIDTH)
    compiled = jax.jit(lab.acting_loop(model)).lower(params, carry, x, reset).compile()
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(carry)) // BATCH
    return lambda: compiled(params, carry, x, reset), size


def costs() -> tuple[list[Claim], list[dict[str, Any]]]:
    cheap, small = acting(make_model("agalite", width=WIDTH, layers=LAYERS))
    claims, rows = [], []
    for window in WINDOWS:
        dear, large = acting(make_model("gtrxl", width=WIDTH, layers=LAYERS, window=window))
        ratio = time_ratio(dear, cheap)
        saved = Interval(*(1 - 1 / number for number in ratio))
        memory = 1 - small / large
        rows.append(
            {"window": window, "time saved a step": round(saved.mean, 3), "memory saved": round(memory, 3)}
            | {"AGaLiTe bytes": small, "GTrXL bytes": large}
        )
        what = f"AGaLiTe against GTrXL with window {window}, width {WIDTH}"
        claims.append(Claim.of(f"time/{window}", f"{what}: share of acting time saved", saved, 0.4, "above"))
        exact = Interval(memory, memory, memory)
        claims.append(Claim.of(f"memory/{window}", f"{what}: share of memory saved", exact, 0.5, "above"))
        print(rows[-1], flush=True)
    return claims, rows


def measure(arguments: Arguments) -> Findings:
    seeds = arguments.seeds or (5 if arguments.scale == "cpu" else 16)
    claims, rows = costs()
    runs = {}
    for name, options in {"agalite": {}, "gtrxl": {"window": 32}}.items():
        memory = make_model(name, width=64, **options)
        runs[name] = learn_tmaze(memory, 20, num_steps=63, total_steps=TOTAL_STEPS, seeds=seeds)
        print(name, runs[name]["success"], f"{runs[name]['wall_s']:.0f} s", flush=True)
    difference = bootstrap_ci(runs["agalite"]["success"] - runs["gtrxl"]["success"])
    claims.append(
        Claim.of("return", f"success on tmaze-20, AGaLiTe less GTrXL, {seeds} seeds", difference, -0.05, "above")
    )
    curves = {name: run["curve"] for name, run in runs.items()}
    steps = sum(run["steps"] for run in runs.values()) * seeds
    return Findings(claims, seeds, steps, curves, {"Acting: AGaLiTe against GTrXL": rows})


if __name__ == "__main__":
    run_experiment("agalite_cost", "Pramanik et al. 2023", measure)
    from experiments.table import write_table

    write_table()
