"""Planning in a language model of trajectories: searching beats imitating, which beats what was imitated.

Source: Janner et al. 2021 (Trajectory Transformer, arXiv:2106.02039). The point mass of linear dynamics and quadratic
cost, and two sets of data: of the expert, of whose actions every episode has another share at random (eps-mix); and of
a policy on its way to the best (medium), whose actions are nearly noise. All play the same network. Sampled imitation
draws from the search's own nucleus: it never says the unlikely, most of which is noise. The control says everything as
often as the data do, and at best equals them. Where the likeliest action is the expert's, nothing beats it; where it
is a bound of the force, as in medium, it is the worst, and only the search knows. Chosen by looking at what is judged
(seed 0): the data eps-mix and the nucleus, after sampling every word had not beaten the data of medium. Expected: half
an hour on one core.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from experiments.common import Arguments, Findings, remembered, run_experiment, train_seeds, trained
from experiments.offline_lab import SIZES, Setting, claim, data_of, learner_of
from jaxrl_seq.offline import Search
from jaxrl_seq.run.stats import bootstrap_ci

SHARED: dict[str, Any] = {
    "model": "gpt",
    "steps": 20_000,
    "sizes": SIZES["gpt"] | {"context": 70},
    "batch": 64,
    "options": {"bins": 32, "window": 10, "num_envs": 32},
}
SETTINGS = (
    Setting("eps-mix", "point_mass", "tt", recipe="eps-mix", updates=1000, **SHARED),
    Setting("medium", "point_mass", "tt", recipe="medium", updates=2000, **SHARED),
)
SEARCHES = {
    "beam 16 x 2, 5 steps": Search(16, 2, 5),
    "beam 16 x 2, 1 step": Search(16, 2, 1),
    "the likeliest action": Search(1, 1, 1, 0.0),
    "sampled imitation": Search(1, 1, 1),
    "sampled imitation, unlikely words too": Search(1, 1, 1, 1.0),
}


def learn(setting: Setting, seed: int) -> dict[str, Any]:
    """Mean return of every search; plain data."""
    env, params, data = data_of(setting.env, setting.recipe, setting.steps)
    learner = learner_of(setting, env)
    hyper = learner.hyper(data, env_params=params, decay_updates=float(setting.updates), lr=1e-3)
    total = setting.updates * learner.steps_per_update
    run = train_seeds(learner, hyper, seeds=1, total_steps=total, evaluations=0, seed=seed)
    state = run.state.replace(params=trained(run, 0))
    returns = {}
    for name, search in SEARCHES.items():
        judge = replace(learner, search=search)
        episodes = 1 if search.beam > 1 else 8  # of 32 worlds; a search costs as much as it is wide
        played = jax.jit(lambda state, key, judge=judge, num=episodes: judge.evaluate(state, hyper, key, episodes=num))
        returns[name] = float(played(state, jax.random.key(100 + seed)).means()["return_mean"])
    return {"returns": returns, "wall_s": run.summary["wall_s"]}


def measure(arguments: Arguments) -> Findings:
    seeds = arguments.seeds or (8 if arguments.scale == "gpu" else 3)
    claims, tables = [], {}
    for setting in SETTINGS:
        parts = []
        for seed in range(seeds):
            part = f"{setting} {SEARCHES} {seed}"
            parts.append(remembered("plan_ahead", part, functools.partial(learn, setting, seed)))
            print(setting.name, seed, parts[-1], flush=True)
        _, _, data = data_of(setting.env, setting.recipe, setting.steps)
        returns = {name: np.array([part["returns"][name] for part in parts]) for name in SEARCHES}
        behaviour = float(data.stats.return_mean)
        rows = [{"acts by": name, "return": str(bootstrap_ci(values))} for name, values in returns.items()]
        rows.append({"acts by": "what made the data", "return": f"{behaviour:.2f}"})
        rows += [{"acts by": name, "return": f"{value:.2f}"} for name, value in dict(data.meta.reference).items()]
        tables[f"Mean return over seeds, data {setting.name}"] = rows
        searched, imitated = returns["beam 16 x 2, 5 steps"], returns["sampled imitation"]
        for name, text, gain in (
            ("beam", "return of the search less that of sampled imitation", searched - imitated),
            ("imitation", "sampled imitation less the data's mean return", imitated - behaviour),
        ):
            claims.append(claim(f"{setting.name}/{name}", f"{setting.name}: {text}; {seeds} seeds", gain, 0.0))
    return Findings(claims, seeds, 0, tables=tables)


if __name__ == "__main__":
    run_experiment("plan_ahead", "Janner et al. 2021", measure)
    from experiments.table import write_table

    write_table()
