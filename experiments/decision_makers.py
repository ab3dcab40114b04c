"""Transformers as decision makers: what imitates a learning algorithm approaches it as histories are added.

Source: Lin et al. 2024 (arXiv:2310.08566). The same network and the same number of gradient steps, on more and more
histories of LinUCB, Thompson sampling and UCB-VI; judged by the cross-entropy of the algorithm's next action on tasks
that are not among them. Only its fall is claimed: its floor is the entropy of the algorithm's own choices. Expected:
10 minutes on two cores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from experiments.common import Arguments, Claim, Findings, remembered, run_experiment, train_seeds, trained
from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.envs import TrialEnv, make
from jaxrl_seq.incontext import Distill, DistillHyper, Imitation
from jaxrl_seq.models import make_model
from jaxrl_seq.run.histories import Source, collect
from jaxrl_seq.run.stats import bootstrap_ci

STREAMS = (16, 128, 1024)
"""Histories to learn from."""
UPDATES, BATCH, JUDGED = 500, 64, 1024


@dataclass(frozen=True)
class Teacher:
    env: str
    source: str
    episodes: int


TEACHERS = {
    "LinUCB": Teacher("linear_bandit,pulls=100", "lin-ucb", 1),
    "Thompson sampling": Teacher("bernoulli_bandit", "thompson", 1),
    "UCB-VI": Teacher("tabular_mdp,states=5,actions=3,limit=10", "ucb-vi", 12),
}


def learn(teacher: Teacher, streams: int, seed: int, updates: int) -> dict[str, Any]:
    """Cross-entropy (nats) and agreement on fresh histories of the teacher; plain data."""
    env, params = make(teacher.env)
    trial = TrialEnv(env, episodes=teacher.episodes)
    agent = ActorCritic.for_env(trial, make_model("gru", width=64))
    recipe = Imitation(trial, agent, trial.horizon)
    learner = Distill(recipe, trial, BATCH)

    def histories(number: int, key: int) -> Any:
        return collect(Source(teacher.source, teacher.episodes, 1, number, key), trial, params)

    hyper = DistillHyper(lr=2e-3, decay_updates=float(updates), history=histories(streams, seed), env_params=params)
    steps = updates * learner.steps_per_update
    run = train_seeds(learner, hyper, seeds=1, total_steps=steps, evaluations=0, seed=seed)

    @jax.jit
    def judge(weights: Any, history: Any) -> Any:
        return recipe.loss(weights, recipe.sequences(jax.random.key(0), history, JUDGED))

    error, found = judge(trained(run, 0), histories(JUDGED, 1000 + seed))
    return {
        "error": float(error),
        "agreement": float(found["agreement"]),
        "wall_s": run.summary["wall_s"],
        "steps": run.summary["steps"],
    }


def measure(arguments: Arguments) -> Findings:
    gpu = arguments.scale == "gpu"
    seeds, updates = arguments.seeds or (8 if gpu else 3), UPDATES * (4 if gpu else 1)
    claims, rows, steps = [], [], 0
    for name, teacher in TEACHERS.items():
        errors = []
        for streams in STREAMS:
            parts = []
            for seed in range(seeds):

                def one(teacher: Teacher = teacher, streams: int = streams, seed: int = seed) -> Any:
                    return learn(teacher, streams, seed, updates)

                parts.append(remembered("decision_makers", f"{teacher} {streams} {seed} {updates}", one))
            steps += sum(part["steps"] for part in parts)
            errors.append([part["error"] for part in parts])
            interval = bootstrap_ci(errors[-1])
            agreement = np.mean([part["agreement"] for part in parts])
            rows.append(
                {"algorithm": name, "histories": streams, "cross-entropy, nats": f"{interval:.3f}"}
                | {"its action foreseen": f"{agreement:.1%}"}
            )
            print(rows[-1], flush=True)
        for fewer, more, before, after in zip(STREAMS, STREAMS[1:], errors, errors[1:], strict=False):
            text = f"{name}: cross-entropy of its next action with {more} histories over that with {fewer}"
            ratio = bootstrap_ci(np.array(after) / np.array(before))
            claims.append(Claim.of(f"{name}/{more}", f"{text}; {seeds} seeds", ratio, 1.0, "below"))
    return Findings(claims, seeds, steps, {}, {"Imitation of learning algorithms, on tasks never seen": rows})


if __name__ == "__main__":
    run_experiment("decision_makers", "Lin et al. 2024", measure)
    from experiments.table import write_table

    write_table()
