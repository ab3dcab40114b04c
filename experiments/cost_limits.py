"""A limit of cost that a policy is asked to keep, against the exact best return at every limit.

Source: Liu et al. 2023 (Constrained Decision Transformer, arXiv:2302.07351). The front of the safe grid is known by
dynamic programming. Control: without relabelled episodes. Expected: about 5 minutes on two cores with 3 seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.common import Arguments, Findings, run_experiment
from experiments.offline_lab import SIZES, Setting, claim, data_of, measure_all
from jaxrl_seq.offline.constrained import LIMITS

GRID: dict[str, Any] = {"env": "safe_grid", "recipe": "random", "steps": 50_000, "batch": 64, "method": "cdt"}
GPT = SIZES["gpt"] | {"context": 40}
SETTINGS = (
    Setting("cdt", sizes=GPT, **GRID),
    Setting("cdt, nothing relabelled", sizes=GPT, options={"augment": 0.0}, **GRID),
)


def measure(arguments: Arguments) -> Findings:
    seeds, found, rows = measure_all("cost_limits", SETTINGS, arguments)
    front = data_of("safe_grid", "random", GRID["steps"])[0].front()
    claims, points = [], []
    for name, part in found.items():
        kept, short = [], []
        for share in LIMITS:
            at = f"at_{round(100 * share)}"
            limit, cost, came = (np.array(part[f"{what}_{at}"]) for what in ("limit", "cost", "return"))
            best = max(value for budget, value in front if budget <= limit[0] + 1e-4)
            kept.append(cost <= limit + 0.1)
            short.append((best - came) / abs(best))
            points.append(
                {"policy": name, "limit": round(limit[0], 2), "cost": f"{cost.mean():.2f}"}
                | {"return": f"{came.mean():.2f}", "best return": best}
            )
        text = f"{name}: limits of {len(LIMITS)} that the mean cost keeps to, within 0.1; {seeds} seeds"
        claims.append(claim(f"{name}/limits", text, np.sum(kept, axis=0), 5))
        text = f"{name}: mean shortfall from the exact front, as a share of its return; {seeds} seeds"
        claims.append(claim(f"{name}/front", text, np.mean(short, axis=0), 0.1, "below"))
    return Findings(claims[:3], seeds, 0, tables={"Settings": rows, "What was asked for, and what came": points})


if __name__ == "__main__":
    run_experiment("cost_limits", "Liu et al. 2023", measure)
    from experiments.table import write_table

    write_table()
