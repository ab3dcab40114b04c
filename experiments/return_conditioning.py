"""What asking for a return gives and what it cannot: shortest ways out of random walks, and luck taken for skill.

Sources: Chen et al. 2021 (arXiv:2106.01345), Paster et al. 2022 (arXiv:2205.15967), Kostrikov et al. 2022
(arXiv:2110.06169). The right answers are known: breadth-first search on the graph, Bayes' rule on the gamble.
Expected: about 20 minutes on two cores with 3 seeds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from experiments.common import Arguments, Claim, Findings, last_evaluation, remembered, run_experiment, train_seeds
from jaxrl_seq.envs import make
from jaxrl_seq.models import make_model
from jaxrl_seq.offline import make_critic, make_dataset, make_method, top_fraction
from jaxrl_seq.run.stats import bootstrap_ci

DATA = {"graph_walk": 50_000, "gamble": 20_000}
"""Steps of random play."""
GPT = {"width": 64, "layers": 2, "heads": 4}
MLP = {"width": 64, "layers": 2}


@dataclass(frozen=True)
class Setting:
    """One learner in one world, and what is claimed of its mean return."""

    env: str
    method: str
    text: str
    bar: float | None = None
    above: bool = True
    width: float | None = None
    """For a claim of being within that distance of the bar."""
    top: float = 1.0
    updates: int = 3000
    options: dict[str, Any] = field(default_factory=dict)
    hyper: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        share = f" {self.top:.0%}" if self.top < 1 else ""
        asked = f" asked for {self.hyper['target']:g}" if "target" in self.hyper else ""
        return f"{self.env}/{self.method}{share}{asked}"


WALKS = {"lr": 1e-3}
LUCK = {"window": 1, "greedy": False}
SETTINGS = (
    Setting("graph_walk", "dt", "walks at most 0.3 steps longer than the shortest", -2.56, hyper=WALKS,
            options={"window": 10}),
    Setting("graph_walk", "bc", "imitation of random walks wanders", -6.0, above=False, hyper=WALKS,
            options={"greedy": False}),
    Setting("graph_walk", "bc", "imitation of the shortest tenth (no bar)", top=0.1, hyper=WALKS),
    Setting("graph_walk", "rvs", "the same question without a memory (no bar)", hyper=WALKS),
    Setting("gamble", "dt", "asked for 1, luck is taken for skill: -1/6", -1 / 6, width=0.3, options=LUCK,
            hyper={"target": 1.0}),
    Setting("gamble", "dt", "asked for 5, more so: -5", -5.0, width=0.6, options=LUCK, hyper={"target": 5.0}),
    Setting("gamble", "iql", "values know what luck is worth: 1", 0.99, hyper={"lr": 3e-3, "polyak": 0.05},
            updates=1000),
)  # fmt: skip


def measure_one(setting: Setting, seeds: int, scale: float) -> dict[str, Any]:
    """Mean returns [S] at the headline's target, and the numbers of the last evaluation; plain data."""
    env, params = make(setting.env)
    data = make_dataset("random", env, params, jax.random.key(0), int(DATA[setting.env] * scale))
    data = top_fraction(data, setting.top)
    options: dict[str, Any] = {"batch": 128, "num_envs": 128} | setting.options
    if setting.method == "iql":
        learner: Any = make_critic("iql", env, make_model("mlp", **MLP), **options)
    elif setting.method == "dt":
        model = make_model("gpt", context=3 * int(options["window"]), **GPT)
        learner = make_method("dt", env, model, **options)
    else:
        learner = make_method(setting.method, env, make_model("mlp", **MLP), **options)
    updates = int(setting.updates * scale)
    hyper = learner.hyper(data, env_params=params, decay_updates=float(updates), **setting.hyper)
    total = updates * learner.steps_per_update
    run = train_seeds(learner, hyper, seeds=seeds, total_steps=total, evaluations=1, eval_episodes=16)
    curve = {name: last_evaluation(run, name).mean().item() for name in run.rows[-1] if "at_" in name}
    return {"returns": last_evaluation(run, "return_mean").tolist(), "curve": curve, "wall_s": run.summary["wall_s"]}


def measure(arguments: Arguments, scale: float = 1.0) -> Findings:
    gpu = arguments.scale == "gpu"
    seeds = arguments.seeds or (16 if gpu else 3)
    claims, rows, steps = [], [], 0
    for setting in SETTINGS:

        def one(setting: Setting = setting) -> Any:
            return measure_one(setting, seeds, scale)

        found = remembered("return_conditioning", f"{setting} {seeds} {scale}", one)
        returns = np.array(found["returns"])
        interval = bootstrap_ci(returns)
        steps += int(DATA[setting.env] * scale)
        rows.append(
            {
                "world and method": setting.name,
                "return": f"{interval.mean:.2f} [{interval.lo:.2f}, {interval.hi:.2f}]",
                "worst to best target": " ".join(
                    f"{value:.2f}" for name, value in found["curve"].items() if name.startswith("return_at")
                ),
            }
        )
        print(rows[-1], flush=True)
        if setting.width is not None and setting.bar is not None:
            error = bootstrap_ci(np.abs(returns - setting.bar))
            claims.append(Claim.of(setting.name, f"{setting.text} (distance)", error, setting.width, "below"))
        elif setting.bar is not None:
            side = "above" if setting.above else "below"
            claims.append(Claim.of(setting.name, setting.text, interval, setting.bar, side))
    return Findings(claims, seeds, steps, tables={"Mean return over seeds": rows})


if __name__ == "__main__":
    run_experiment("return_conditioning", "Chen et al. 2021; Paster et al. 2022", measure)
    from experiments.table import write_table

    write_table()
