"""RL^2: PPO through trials of a hidden task learns an algorithm that learns, whatever the memory.

Sources: Duan et al. 2016 (arXiv:1611.02779), Melo 2022 (TrMRL), Lu et al. 2023 (S5 in context).
Expected: about 10 minutes a task and model on two cores with 3 seeds. On the bandit more than Thompson sampling (74.9)
and greedy play (75.8) earn; in the dark room the goal is found in the first episodes and gone to from the fourth on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import Arguments, Claim, Findings, remembered, run_experiment, train_seeds
from jaxrl_seq.envs import TrialEnv, VecEnv, make
from jaxrl_seq.incontext.evaluation import evaluate_in_context, mean_curve
from jaxrl_seq.incontext.policies import AgentPolicy, Deprived
from jaxrl_seq.models import make_model
from jaxrl_seq.online import PPOHyper, make_ppo
from jaxrl_seq.run.lanes import lane
from jaxrl_seq.run.stats import bootstrap_band, bootstrap_ci

MODELS = ("gru", "s5", "transformer")
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
        8_000_000,
        {"lr": 2e-3, "gae_lambda": 0.3, "entropy_coef": 0.005},
        76.0,
        "100 pulls of five Bernoulli arms earn more than Thompson sampling and greedy play do",
    ),
    "darkroom": Task(
        "darkroom-small",
        8,
        64,
        4_000_000,
        {"lr": 3e-3, "gamma": 0.97, "gae_lambda": 0.9, "entropy_coef": 0.01},
        8.5,
        "mean return from the fourth episode on",
        slice(3, None),
    ),
}


def model_options(name: str, horizon: int) -> dict[str, Any]:
    return {"width": 64} | ({"layers": 1, "window": horizon} if name == "transformer" else {})


def learn(task: Task, model: str, seeds: int, total_steps: int) -> dict[str, Any]:
    """Returns per episode [S][K] of the trained agents, and without reward; plain data."""
    env, params = make(task.env)
    trial = TrialEnv(env, episodes=task.episodes)
    learner = make_ppo(
        VecEnv(trial, task.num_envs),
        make_model(model, **model_options(model, trial.horizon)),
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
        weights = (lane(run.state, index) if seeds > 1 else run.state).params
        for name, share in (("agent", 1.0), ("zero reward", 0.0)):
            scores = jax.device_get(play(weights, jnp.float32(share)))
            curves[name].append(mean_curve(scores.returns, scores.finished).tolist())
    return {"curves": curves, "wall_s": run.summary["wall_s"], "steps": run.summary["steps"] * seeds}


def measure(arguments: Arguments) -> Findings:
    gpu = arguments.scale == "gpu"
    seeds = arguments.seeds or (16 if gpu else 3)
    claims, curves, steps, rows = [], {}, 0, []
    for name, task in TASKS.items():
        env, _ = make(task.env)
        reference = env.reference()
        for model in MODELS:
            total = task.total_steps * (4 if gpu else 1)

            def one(task: Task = task, model: str = model, total: int = total) -> Any:
                return learn(task, model, seeds, total)

            found = remembered("rl2", f"{name} {model} {seeds} {total} {task}", one)
            values = np.array(found["curves"]["agent"])
            judged = values[:, task.judged].mean(1)
            blind = np.array(found["curves"]["zero reward"])[:, task.judged].mean(1)
            interval, control = bootstrap_ci(judged), bootstrap_ci(blind)
            text = f"{model}, {task.env}, {seeds} seeds: {task.text} (oracle {reference['expert']:.2f})"
            claims.append(Claim.of(f"{name}/{model}", text, interval, task.bar, "above"))
            band = bootstrap_band(values)
            curves[f"{name}/{model}"] = {
                "episode": list(range(1, values.shape[1] + 1)),
                "mean": band.mean.tolist(),
                "lo": band.lo.tolist(),
                "hi": band.hi.tolist(),
            }
            rows.append(
                {
                    "task": task.env,
                    "model": model,
                    "return": f"{interval.mean:.2f} [{interval.lo:.2f}, {interval.hi:.2f}]",
                    "without rewards": f"{control.mean:.2f}",
                    "random": round(reference["random"], 2),
                    "oracle": round(reference["expert"], 2),
                    "minutes": round(found["wall_s"] / 60, 1),
                }
            )
            steps += found["steps"]
            print(name, rows[-1], band.mean.round(2), flush=True)
    return Findings(claims, seeds, steps, curves, {"Return that the bar is for, over seeds": rows})


if __name__ == "__main__":
    run_experiment("rl2", "Duan et al. 2016; Melo 2022; Lu et al. 2023", measure)
    from experiments.table import write_table

    write_table()
