"""What asking for a return gives and what it cannot: shortest ways out of random walks, and luck taken for skill.

Sources: Chen et al. 2021 (arXiv:2106.01345), Paster et al. 2022 (arXiv:2205.15967), Kostrikov et al. 2022
(arXiv:2110.06169). The right answers are known: breadth-first search on the graph, Bayes' rule on the gamble.
Expected: about 40 minutes on two cores with 3 seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.common import Arguments, Findings, run_experiment
from experiments.offline_lab import SIZES, Setting, claim, measure_all

WALKS: dict[str, Any] = {"env": "graph_walk"}
LUCK: dict[str, Any] = {"env": "gamble", "steps": 20_000}
DOOR: dict[str, Any] = {
    "env": "key_to_door,apples=0,door_reward=1,delay=10",
    "steps": 350_000,
    "metric": "success",
    "model": "gru",
    "sizes": {"width": 64},
    "batch": 128,
    "hyper": {"lr": 3e-3},
}
"""10 000 random episodes, one in fifty of which gets through the door."""
SAMPLED = {"mode": "recurrent", "greedy": False}
SWING: dict[str, Any] = {"env": "pendulum", "recipe": "eps-mix"}
BRIEF = {"window": 1, "greedy": False, "num_envs": 128}


def gpt(context: int) -> dict[str, Any]:
    return SIZES["gpt"] | {"context": context}


SETTINGS = (
    Setting("walk/dt", method="dt", sizes=gpt(15), options={"window": 5}, **WALKS),
    Setting("walk/bc", method="bc", options={"greedy": False}, **WALKS),
    Setting("walk/10% bc", method="bc", top=0.1, **WALKS),
    Setting("walk/rvs", method="rvs", **WALKS),
    Setting("luck/dt asked for 1", method="dt", sizes=gpt(3), options=BRIEF, hyper={"target": 1.0}, **LUCK),
    Setting("luck/dt asked for 5", method="dt", sizes=gpt(3), options=BRIEF, hyper={"target": 5.0}, **LUCK),
    Setting("luck/iql", method="iql", hyper={"lr": 3e-3, "polyak": 0.05}, updates=1000, **LUCK),
    Setting("door/dt", method="dt", options=SAMPLED, **DOOR),
    Setting("door/3% bc", method="bc", top=0.03, options=SAMPLED | {"tokens": "obs + prev_action*"}, **DOOR),
    Setting("door/bc", method="bc", options=SAMPLED | {"tokens": "obs + prev_action*"}, **DOOR),
    Setting("swing/dt", method="dt", sizes=gpt(30), options={"window": 10}, **SWING),
)


def measure(arguments: Arguments) -> Findings:
    seeds, found, rows = measure_all("return_conditioning", SETTINGS, arguments)

    def returns(name: str) -> np.ndarray:
        return np.array(found[name]["return_mean"])

    shares = [0, 25, 50, 75, 100]
    asked = np.array([found["swing/dt"][f"target_at_{share}"] for share in shares])
    came = np.array([found["swing/dt"][f"return_at_{share}"] for share in shares])
    order = [_spearman(asked[:, seed], came[:, seed]) for seed in range(seeds)]
    door = {name: np.array(found[f"door/{name}"]["success"]) for name in ("dt", "3% bc", "bc")}
    claims = [
        claim("walk/dt", "DT from random walks: return; the shortest ways have -2.26", returns("walk/dt"), -2.56),
        claim("walk/bc", "imitation of random walks wanders", returns("walk/bc"), -6.0, "below"),
        claim("luck/1", "DT asked for 1: distance to -1/6", abs(returns("luck/dt asked for 1") + 1 / 6), 0.3, "below"),
        claim("luck/5", "DT asked for 5: distance to -5", abs(returns("luck/dt asked for 5") + 5), 0.6, "below"),
        claim("luck/iql", "values know what luck is worth: 1", returns("luck/iql"), 0.99),
        claim(
            "door/dt-bc", "key to door from random play: success of DT less that of BC", door["dt"] - door["bc"], 0.3
        ),
        claim("door/dt-filtered", "the same less that of BC on the best 3 %", door["dt"] - door["3% bc"], -0.1),
        claim("swing/order", "pendulum: rank correlation of returns asked for and achieved", order, 0.9),
    ]
    return Findings(claims, seeds, 0, tables={"Mean of the last evaluation, over seeds": rows})


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(np.argsort(np.argsort(x)), np.argsort(np.argsort(y)))[0, 1])


if __name__ == "__main__":
    run_experiment("return_conditioning", "Chen et al. 2021; Paster et al. 2022", measure)
    from experiments.table import write_table

    write_table()
