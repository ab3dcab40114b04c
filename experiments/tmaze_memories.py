"""The T-maze with eight memories (Ni et al. 2023, arXiv:2307.03864): who carries a cue over 20, 100 and 500 steps.

PPO, width 64, three seeds; without memory the ceiling is 0.5. A transformer's window covers the corridor. Gates that
can be told the length at first (`horizon`) have a second row. Expected: two hours on one core; every memory solves 20
steps. Longer ones test the walking before they test the memory, and nobody walks 500 for sure: each wrong step spoils
an episode, and the turn is one step in a hundred. At the library's gamma and entropy two of three seeds of GRU and all
of LSTM and min GRU never reached the turn at 100. `common.TMAZE` was chosen on the judged seeds with LRU, S5, GRU and
min GRU.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from experiments.common import (
    TMAZE,
    Arguments,
    Claim,
    Findings,
    learn_tmaze,
    remembered,
    run_experiment,
    with_horizons,
)
from jaxrl_seq.models import make_model
from jaxrl_seq.run.stats import bootstrap_ci

MODELS = ("gru", "lstm", "min_gru", "lru", "s5", "mamba2", "gated_delta_net", "gtrxl")
STEPS = {20: 400_000, 100: 2_000_000, 500: 10_000_000}
QUICK = ("min_gru", "lru")
"""Whose 500 steps take about ten minutes on one core."""


def learn(name: str, length: int, steps: int, seeds: int, **told: int) -> dict[str, Any]:
    """What `learn_tmaze` brings."""
    options: dict[str, Any] = {"layers": 1, **told} | ({"window": length + 4} if name == "gtrxl" else {})
    memory = make_model(name, width=64, **options)
    return learn_tmaze(memory, length, num_steps=length + 2, total_steps=steps, seeds=seeds)


def measure(arguments: Arguments) -> Findings:
    seeds = arguments.seeds or (3 if arguments.scale == "cpu" else 16)
    claims, curves, rows, total = [], {}, [], 0
    for length, steps in STEPS.items():
        models = QUICK if length == 500 and arguments.scale == "cpu" else MODELS
        for label, name, told in with_horizons(models, length):
            part = f"{label}, {length}, {steps} steps, {seeds} seeds, {TMAZE}"
            found = remembered("tmaze_memories", part, functools.partial(learn, name, length, steps, seeds, **told))
            text = f"{label} on the T-maze of {length} steps, success over {seeds} seeds"
            interval = bootstrap_ci(np.array(found["success"]))
            claims.append(Claim.of(f"{label}/{length}", text, interval, 0.95, "above"))
            curves[f"{label}/{length}"] = found["curve"]
            each = " ".join(f"{x:.2f}" for x in found["success"])
            rows.append(
                {"length": length, "model": label, "success of each seed": each}
                | {"steps/s, all seeds": round(found["steps_per_second"])}
            )
            total += found["steps"] * seeds
            print(rows[-1], f"{found['wall_s']:.0f} s", flush=True)
    return Findings(claims, seeds, total, curves, {"T-maze with eight memories": rows})


if __name__ == "__main__":
    run_experiment("tmaze_memories", "Ni et al. 2023", measure)
    from experiments.table import write_table

    write_table()
