"""RL^2: PPO through trials of a hidden task learns an algorithm that learns, whatever the memory.

Sources: Duan et al. 2016 (arXiv:1611.02779), Melo 2022 (TrMRL), Lu et al. 2023 (S5 in context).
Expected: about 10 minutes a task and model on two cores with 3 seeds. On the bandit more than Thompson sampling (74.9)
and greedy play (75.8) earn; in the dark room the goal is found in the first episodes and gone to from the fourth on.
The bandit's numbers (lambda, value_coef) were chosen with S5 and seed 0, which is one of the seeds that are judged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import (
    Arguments,
    Claim,
    Findings,
    as_curve,
    last_evaluation,
    remembered,
    run_experiment,
    train_seeds,
    trained,
)
from jaxrl_seq.envs import TrialEnv, VecEnv, make
from jaxrl_seq.incontext.evaluation import evaluate_in_context, mean_curve
from jaxrl_seq.incontext.policies import AgentPolicy, Deprived
from jaxrl_seq.models import make_model
from jaxrl_seq.online import PPOHyper, make_ppo
from jaxrl_seq.run.stats import bootstrap_ci

MODELS: dict[str, dict[str, int]] = {
    "gru": {"width": 64},
    "s5": {"width": 64, "layers": 2},
    "transformer": {"width": 64, "layers": 1},
}
CUE, CUE_STEPS = "tmaze,length=50", 1_000_000
"""The third column of the last table: one cue, nothing to learn in the trial."""
STREAMS = 4096


@dataclass(frozen=True)
class Task:
    """An environment in trials, and what its learners are trained with."""

    env: str
    episodes: int
    num_envs: int
    total_steps: int
    hyper: dict[str, float]
    bar: float
    text: str
    judged: slice = field(default_factory=lambda: slice(None))
    """Which episodes of a trial the bar is for; their mean."""


TASKS = {
    "bandit": Task(
        "bernoulli_bandit",
        1,
        256,
        5_000_000,
        # values are near 40 and their errors large: at the usual weight they drown what the policy learns
        {"lr": 2e-3, "gae_lambda": 0.8, "entropy_coef": 0.005, "value_coef": 0.01},
        76.0,
        "100 pulls of five Bernoulli arms earn more than Thompson sampling and greedy play do",
    ),
    "darkroom": Task(
        "darkroom-small",
        8,
        64,
        3_000_000,
        {"lr": 3e-3, "gamma": 0.97, "gae_lambda": 0.9, "entropy_coef": 0.01},
        8.5,
        "mean return from the fourth episode on",
        slice(3, None),
    ),
}


def sized(model: str, horizon: int) -> Any:
    """Memories of nearly equal numbers of parameters; attention reaches `horizon` steps back."""
    return make_model(model, **MODELS[model] | ({"window": horizon} if model == "transformer" else {}))


def size(weights: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(weights))


def learn(task: Task, model: str, seeds: int, total_steps: int) -> dict[str, Any]:
    """Returns per episode [S][K] of the trained agents, and without reward; plain data."""
    env, params = make(task.env)
    trial = TrialEnv(env, episodes=task.episodes)
    learner = make_ppo(
        VecEnv(trial, task.num_envs),
        sized(model, trial.horizon),
        num_steps=trial.horizon,
        minibatches=8,
    )
    hyper = PPOHyper(anneal_updates=total_steps / learner.steps_per_update, env_params=params, **task.hyper)
    run = train_seeds(learner, hyper, seeds=seeds, total_steps=total_steps, evaluations=0)

    @jax.jit
    def play(weights: Any, share: Any) -> Any:
        task_key, key = jax.random.split(jax.random.key(7))
        tasks = jax.vmap(trial.sample_task, in_axes=(0, None))(jax.random.split(task_key, STREAMS), params)
        policy = Deprived(AgentPolicy(learner.agent, weights), share, 0.0)
        return evaluate_in_context(policy, trial, tasks, key, params)

    curves: dict[str, Any] = {"agent": [], "zero reward": []}
    for index in range(seeds):
        weights = trained(run, index)
        for name, share in (("agent", 1.0), ("zero reward", 0.0)):
            scores = jax.device_get(play(weights, jnp.float32(share)))
            curves[name].append(mean_curve(scores.returns, scores.finished).tolist())
    numbers = {"wall_s": run.summary["wall_s"], "steps": run.summary["steps"] * seeds}
    return {"curves": curves, "parameters": size(trained(run, 0)), **numbers}


def hold(model: str, seeds: int, total_steps: int) -> dict[str, Any]:
    """Success [S] at the end of a long corridor; plain data."""
    env, params = make(CUE)
    learner = make_ppo(VecEnv(env, 64), sized(model, env.horizon), num_steps=env.horizon)
    hyper = PPOHyper(anneal_updates=total_steps / learner.steps_per_update, env_params=params)
    run = train_seeds(learner, hyper, seeds=seeds, total_steps=total_steps, evaluations=1, eval_episodes=16)
    numbers = {"wall_s": run.summary["wall_s"], "steps": run.summary["steps"] * seeds}
    return {"success": last_evaluation(run, "success").tolist(), **numbers}


def measure(arguments: Arguments) -> Findings:
    gpu = arguments.scale == "gpu"
    seeds = arguments.seeds or (16 if gpu else 3)
    claims, curves, steps, rows = [], {}, 0, []
    memories: dict[str, dict[str, Any]] = {model: {"model": model} for model in MODELS}
    for name, task in TASKS.items():
        env, _ = make(task.env)
        reference = env.reference()
        for model in MODELS:
            total = task.total_steps * (4 if gpu else 1)

            def one(task: Task = task, model: str = model, total: int = total) -> Any:
                return learn(task, model, seeds, total)

            found = remembered("rl2", f"{name} {model} {MODELS[model]} {seeds} {total} {task}", one)
            values = np.array(found["curves"]["agent"])
            judged = values[:, task.judged].mean(1)
            blind = np.array(found["curves"]["zero reward"])[:, task.judged].mean(1)
            interval, control = bootstrap_ci(judged), bootstrap_ci(blind)
            text = f"{model}, {task.env}, {seeds} seeds: {task.text} (oracle {reference['expert']:.2f})"
            claims.append(Claim.of(f"{name}/{model}", text, interval, task.bar, "above"))
            curves[f"{name}/{model}"] = as_curve(values)
            rows.append(
                {
                    "task": task.env,
                    "model": model,
                    "return": str(interval),
                    "without rewards": f"{control.mean:.2f}",
                    "random": round(reference["random"], 2),
                    "oracle": round(reference["expert"], 2),
                    "minutes": round(found["wall_s"] / 60, 1),
                }
            )
            memories[model] |= {"parameters": found["parameters"], task.env: str(interval)}
            steps += found["steps"]
            print(name, rows[-1], values.mean(0).round(2), flush=True)
    for model in MODELS:
        total = CUE_STEPS * (4 if gpu else 1)

        def held(model: str = model, total: int = total) -> Any:
            return hold(model, seeds, total)

        found = remembered("rl2", f"{CUE} {model} {MODELS[model]} {seeds} {total}", held)
        memories[model] |= {f"{CUE}: success": str(bootstrap_ci(found["success"]))}
        steps += found["steps"]
        print(memories[model], flush=True)
    tables = {
        "Return that the bar is for, over seeds": rows,
        "Which memory learns in context best, at equal steps and nearly equal parameters": list(memories.values()),
    }
    return Findings(claims, seeds, steps, curves, tables)


if __name__ == "__main__":
    run_experiment("rl2", "Duan et al. 2016; Melo 2022; Lu et al. 2023", measure)
    from experiments.table import write_table

    write_table()
