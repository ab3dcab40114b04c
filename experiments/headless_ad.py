"""Headless-AD: what learnt from bandits of 3 to 8 arms plays bandits of 12 and 16, where a head has no output for them.

Source: Sinii et al. 2024 (arXiv:2312.13327). Histories are Thompson sampling's; regret is normalised so that Thompson
sampling has 0 and uniform play 1. Expected: about 5 minutes a seed on two cores.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from experiments.common import Arguments, Claim, Findings, remembered, run_experiment, train_seeds
from jaxrl_seq.envs import TrialEnv, make
from jaxrl_seq.incontext import Distill, DistillHyper, Headless, evaluate_in_context, make_algorithm, mix
from jaxrl_seq.incontext.headless import HeadlessPolicy
from jaxrl_seq.models import make_model
from jaxrl_seq.run.histories import Source, collect
from jaxrl_seq.run.stats import bootstrap_ci

PULLS, STREAMS, UPDATES, BATCH = 60, 2048, 3000, 64
LEARNT, TESTED = (3, 4, 5, 6, 7, 8), (4, 8, 12, 16)


def bandit(arms: int) -> tuple[TrialEnv, Any]:
    env, params = make("bernoulli_bandit", arms=arms, pulls=PULLS)
    return TrialEnv(env, episodes=1), params


def regret(policy: Any, arms: int, seed: int) -> float:
    """Mean regret of a whole trial."""
    trial, params = bandit(arms)

    @jax.jit
    def run(policy: Any, key: Any) -> Any:
        task_key, key = jax.random.split(key)
        tasks = jax.vmap(trial.sample_task, in_axes=(0, None))(jax.random.split(task_key, STREAMS), params)
        lost = evaluate_in_context(policy, trial, tasks, key, params).regret
        return None if lost is None else lost[-1].mean()

    return float(run(policy, jax.random.key(seed)))


def learn(seed: int, updates: int) -> dict[str, Any]:
    """Regret for each number of arms: of the agent, of Thompson sampling, of uniform play; plain data."""
    source = Source("thompson", source_episodes=1, every=1, streams=2000, source_seed=seed)
    history = mix({arms: collect(source, *bandit(arms)) for arms in LEARNT})
    trial, params = bandit(max(TESTED))
    recipe = Headless(trial, make_model("gru", width=64), PULLS)
    learner = Distill(recipe, trial, BATCH)
    hyper = DistillHyper(lr=2e-3, decay_updates=float(updates), history=history, env_params=params)
    steps = updates * learner.steps_per_update
    run = train_seeds(learner, hyper, seeds=1, total_steps=steps, evaluations=0, seed=seed)
    rows = {}
    for arms in TESTED:
        judged, params = bandit(arms)
        agent = HeadlessPolicy(recipe, run.state.params, num_actions=arms)
        players = {"agent": agent} | {name: make_algorithm(name, judged, params) for name in ("thompson", "uniform")}
        rows[str(arms)] = {name: regret(policy, arms, 1000 + seed) for name, policy in players.items()}
    return {"regret": rows, "wall_s": run.summary["wall_s"], "steps": run.summary["steps"]}


def measure(arguments: Arguments) -> Findings:
    gpu = arguments.scale == "gpu"
    seeds, updates = arguments.seeds or (8 if gpu else 3), UPDATES * (8 if gpu else 1)
    parts = []
    for seed in range(seeds):

        def one(seed: int = seed) -> Any:
            return learn(seed, updates)

        parts.append(remembered("headless_ad", f"{seed} {updates} {LEARNT} {PULLS}", one))
        print(seed, f"{parts[-1]['wall_s']:.0f} s", parts[-1]["regret"], flush=True)
    claims, rows = [], []
    for arms in TESTED:
        lost = [part["regret"][str(arms)] for part in parts]
        normalised = [(x["agent"] - x["thompson"]) / (x["uniform"] - x["thompson"]) for x in lost]
        interval = bootstrap_ci(normalised)
        means = {name: round(float(np.mean([x[name] for x in lost])), 2) for name in lost[0]}
        rows.append({"arms": arms, "learnt from": arms in LEARNT} | means | {"normalised": round(interval.mean, 3)})
        if arms not in LEARNT:
            text = f"{arms} arms, learnt from {min(LEARNT)} to {max(LEARNT)}: regret of {PULLS} pulls, normalised"
            claims.append(Claim.of(f"arms-{arms}", f"{text}; {seeds} seeds", interval, 0.5, "below"))
    steps = sum(part["steps"] for part in parts)
    return Findings(claims, seeds, steps, {}, {"Regret of a trial, means over seeds": rows})


if __name__ == "__main__":
    run_experiment("headless_ad", "Sinii et al. 2024", measure)
    from experiments.table import write_table

    write_table()
