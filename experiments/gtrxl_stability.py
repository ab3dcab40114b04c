"""GTrXL's gates make a transformer trainable by reinforcement learning (Parisotto et al. 2019, arXiv:1910.06764).

Claim: identity-map reordering and GRU gates train stably over seeds and learning rates where the post-norm
Transformer-XL fails or diverges. Here: PPO on the T-maze of 20 steps, three learning rates, three seeds each, both
networks alike but for the block; a run fails when it ends below 0.9 success. Expected: about 10 minutes on two cores.
At three layers the claim does not show: both solve the maze at the two lower rates, and both fail alike at the highest.
The paper's networks have twelve.
"""

from __future__ import annotations

import numpy as np

from experiments.common import TMAZE, Arguments, Claim, Findings, curve, last_evaluation, run_experiment, train_seeds
from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.envs import VecEnv, make
from jaxrl_seq.models import make_model
from jaxrl_seq.online import PPO, PPOHyper
from jaxrl_seq.run.stats import bootstrap_ci

MODELS = ("gtrxl", "transformer_xl")
LEARNING_RATES = (3e-4, 1e-3, 3e-3)
SIZE = {"width": 32, "layers": 3, "heads": 2, "window": 24}
SOLVED = 0.9
TOTAL_STEPS = 300_000


def measure(arguments: Arguments) -> Findings:
    seeds = arguments.seeds or (3 if arguments.scale == "cpu" else 16)
    env, params = make("tmaze-20")
    curves, rows, steps = {}, [], 0
    failed: dict[str, list[np.ndarray]] = {model: [] for model in MODELS}
    for model in MODELS:
        for rate in LEARNING_RATES:
            learner = PPO(VecEnv(env, 64), ActorCritic.for_env(env, make_model(model, **SIZE)), num_steps=63)
            hyper = PPOHyper(lr=rate, anneal_updates=TOTAL_STEPS / learner.steps_per_update, env_params=params, **TMAZE)
            run = train_seeds(learner, hyper, seeds=seeds, total_steps=TOTAL_STEPS, evaluations=1, eval_episodes=16)
            success = last_evaluation(run, "success")
            failed[model].append(~(success >= SOLVED))  # a diverged run (nan) has failed too
            rows.append({"model": model, "learning rate": rate, "success of each seed": _text(success)})
            curves[f"{model}/{rate:g}"] = curve(run, "success")
            steps += run.summary["steps"] * seeds
            print(rows[-1], f"{run.summary['wall_s']:.0f} s", flush=True)
    shares = {model: np.concatenate(parts).astype(float) for model, parts in failed.items()}
    runs = len(LEARNING_RATES) * seeds
    fewer = bootstrap_ci(shares["transformer_xl"] - shares["gtrxl"])
    claims = [
        Claim.of(
            "gtrxl", f"GTrXL on tmaze-20: share of {runs} runs that fail", bootstrap_ci(shares["gtrxl"]), 0.2, "below"
        ),
        Claim.of(
            "fewer",
            f"share of failed runs, post-norm Transformer-XL less GTrXL ({runs} runs each over rates and seeds)",
            fewer,
            0.05,
            "above",
        ),
    ]
    return Findings(claims, seeds, steps, curves, {"GTrXL and Transformer-XL on tmaze-20: final success": rows})


def _text(values: np.ndarray) -> str:
    return " ".join(f"{value:.2f}" for value in values)


if __name__ == "__main__":
    run_experiment("gtrxl_stability", "Parisotto et al. 2019", measure)
    from experiments.table import write_table

    write_table()
