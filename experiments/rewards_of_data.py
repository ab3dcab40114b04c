"""What the rewards of the data are like decides who learns best from it: noise, delay, and the quality of play.

Sources: Farebrother et al. 2024 (Stop Regressing, arXiv:2403.03950): values as classes stand noise that squared errors
do not; Bhargava et al. 2024 (When should we prefer Decision Transformers, arXiv:2305.14550): rewards that are sparse
and play that is poor. Expected: about 15 minutes on two cores with 3 seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.common import Arguments, Findings, run_experiment
from experiments.offline_lab import SIZES, Setting, claim, measure_all

HEADS, NOISE = ("mse", "two-hot", "hl-gauss"), (0.0, 1.0, 3.0)
WALK: dict[str, Any] = {"env": "graph_walk", "steps": 20_000, "updates": 1500}
Q_LEARNING = {"lr": 1e-3, "polyak": 0.01}
QUALITY, DELAY = {"clean": "eps-mix", "noisy": "random"}, {"dense": False, "sparse": True}
METHODS: dict[str, dict[str, Any]] = {
    "dt": {"sizes": SIZES["gpt"] | {"context": 15}, "options": {"window": 5}},
    "bc": {},
    "cql": {"hyper": Q_LEARNING},
}
NOISY = tuple(
    Setting(
        f"{head}, noise {noise:g}", method="cql", noise=noise, options={"value_head": head}, hyper=Q_LEARNING, **WALK
    )
    for noise in NOISE
    for head in HEADS
)
QUADRANTS = tuple(
    Setting(f"{delay} {quality}: {method}", method=method, recipe=QUALITY[quality], delayed=DELAY[delay], **WALK, **how)
    for delay in DELAY
    for quality in QUALITY
    for method, how in METHODS.items()
)


def measure(arguments: Arguments) -> Findings:
    seeds, found, rows = measure_all("rewards_of_data", (*NOISY, *QUADRANTS), arguments)
    returns = {name: np.array(part["return_mean"]) for name, part in found.items()}
    drop = {head: returns[f"{head}, noise 0"] - returns[f"{head}, noise 3"] for head in HEADS}
    claims = [
        claim(f"noise/{head}", f"{text}; {seeds} seeds", drop["mse"] - drop[head], 0.0)
        for head, text in (
            ("hl-gauss", "return lost to noise of deviation 3: squared error's less HL-Gauss'"),
            ("two-hot", "the same for two-hot classes"),
        )
    ]
    for delay in DELAY:
        for quality in QUALITY:
            dt, cql = (returns[f"{delay} {quality}: {method}"] for method in ("dt", "cql"))
            text = f"{delay} rewards, {quality} play: return of DT less that of CQL; {seeds} seeds"
            if delay == "sparse":
                claims.append(claim(f"{delay}-{quality}/dt-cql", text, dt - cql, 0.0))
    return Findings(claims, seeds, 0, tables={"Mean return over seeds": rows})


if __name__ == "__main__":
    run_experiment("rewards_of_data", "Farebrother et al. 2024; Bhargava et al. 2024", measure)
    from experiments.table import write_table

    write_table()
