"""Elastic pasts: where two roads cross, forgetting which one was taken lets a policy leave it.

Source: Wu et al. 2023 (arXiv:2307.02484). On cross roads the data drives straight on: from A to the bad end, from B to
the good one. What the past tells at the crossing is misleading there, so a policy that reads it is lost, and one that
cuts its past where the promise is highest turns. Controls: the same policy that keeps its whole past; Decision
Transformers with and without a past, which are asked for a return that the data of their road never had; BC, to which
both ways out of the crossing are alike; and IQL. Expected: about 15 minutes on two cores with 3 seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.common import Arguments, Findings, run_experiment
from experiments.offline_lab import SIZES, Setting, claim, measure_all

ROADS: dict[str, Any] = {"env": "cross_roads", "recipe": "crossing", "steps": 10_000, "updates": 1500, "batch": 64}
GPT = SIZES["gpt"] | {"context": 36}
SETTINGS = (
    Setting("edt", method="edt", sizes=GPT, options={"window": 12, "stride": 1}, **ROADS),
    Setting("edt, the whole past", method="edt", sizes=GPT, options={"window": 12, "stride": 12}, **ROADS),
    Setting("dt", method="dt", sizes=GPT, options={"window": 12}, **ROADS),
    Setting("dt without a past", method="dt", sizes=GPT, options={"window": 1}, **ROADS),
    Setting("bc", method="bc", **ROADS),
    Setting("iql", method="iql", hyper={"lr": 3e-3, "polyak": 0.05}, **ROADS),
)


def measure(arguments: Arguments) -> Findings:
    seeds, found, rows = measure_all("stitching", SETTINGS, arguments)
    returns = {name: np.array(part["return_mean"]) for name, part in found.items()}
    whole = returns["edt, the whole past"]
    claims = [
        claim("edt", f"EDT: return (the good end pays 1, the bad one -1); {seeds} seeds", returns["edt"], 0.9),
        claim("whole", f"EDT that keeps its past: return (control); {seeds} seeds", whole, -0.5, "below"),
        claim("edt-dt", f"EDT less a DT that reads 12 steps; {seeds} seeds", returns["edt"] - returns["dt"], 1.0),
    ]
    return Findings(claims, seeds, 0, tables={"Mean return from A, over seeds": rows})


if __name__ == "__main__":
    run_experiment("stitching", "Wu et al. 2023", measure)
    from experiments.table import write_table

    write_table()
