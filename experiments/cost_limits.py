"""A limit of cost that a policy is asked to keep, against the exact best return at every limit.

Source: Liu et al. 2023 (Constrained Decision Transformer, arXiv:2302.07351). The front of the safe grid is known by
dynamic programming. Control: without relabelled episodes. Expected: about 5 minutes on two cores with 3 seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.common import Arguments, Findings, run_experiment
from experiments.offline_lab import SIZES, Setting, claim, data_of, measure_all

GRID: dict[str, Any] = {"env": "safe_grid", "recipe": "budgets", "steps": 50_000, "updates": 2000, "batch": 64}
LIMITS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
"""All that the map has: five hazards lie on the straight way."""
OPTIONS: dict[str, Any] = {"window": 5, "limits": LIMITS}
GPT = SIZES["gpt"] | {"context": 20}
SETTINGS = (
    Setting("cdt", method="cdt", sizes=GPT, options=OPTIONS, **GRID),
    Setting("cdt, nothing relabelled", method="cdt", sizes=GPT, options=OPTIONS | {"augment": 0.0}, **GRID),
)


def measure(arguments: Arguments) -> Findings:
    seeds, found, rows = measure_all("cost_limits", SETTINGS, arguments)
    front = data_of(GRID["env"], GRID["recipe"], GRID["steps"])[0].front()
    kept, short, points = {}, {}, []
    for name, part in found.items():
        kept[name], short[name] = [], []
        for number in LIMITS:
            at = f"at_{number:g}"
            limit, cost, came = (np.array(part[f"{what}_{at}"]) for what in ("limit", "cost", "return"))
            best = max(value for budget, value in front if budget <= limit[0] + 1e-4)
            kept[name].append(cost <= limit + 0.1)
            short[name].append((best - came) / abs(best))
            points.append(
                {"policy": name, "limit": round(limit[0], 2), "cost": f"{cost.mean():.2f}"}
                | {"return": f"{came.mean():.2f}", "best return": best}
            )
    full, plain = (np.sum(kept[setting.name], axis=0) for setting in SETTINGS)
    text = f"limits of {len(LIMITS)} that the mean cost keeps to, within 0.1; {seeds} seeds"
    short_text = f"mean shortfall from the exact front, as a share of its return; {seeds} seeds"
    claims = [
        claim("limits", text, full, 5),
        claim("front", short_text, np.mean(short["cdt"], axis=0), 0.1, "below"),
        claim("control", f"without relabelled episodes: {text}", plain, 4, "below"),
    ]
    return Findings(
        claims,
        seeds,
        0,
        tables={"Settings": rows, "What was asked for, and what came": points},
    )


if __name__ == "__main__":
    run_experiment("cost_limits", "Liu et al. 2023", measure)
    from experiments.table import write_table

    write_table()
