"""Memory matters: where the past decides, a policy without memory stays at its ceiling and every memory passes it.

Sources: Bakker 2001 and Ni et al. 2023 (T-maze), Morad et al. 2023 (RepeatPrevious of POPGym).
Expected: about 10 minutes on two cores with 5 seeds a setting; memories solve the T-maze and pass RepeatPrevious's
ceiling by a wide margin, the multilayer perceptron does neither.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from experiments.common import Arguments, Claim, Findings, curve, last_evaluation, run_experiment, train_seeds
from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.envs import VecEnv, make
from jaxrl_seq.models import make_model
from jaxrl_seq.online import PPO, PPOHyper
from jaxrl_seq.run.stats import bootstrap_ci

MODELS: dict[str, dict[str, int]] = {
    "mlp": {},
    "gru": {},
    "s5": {},
    # A window that just spans the tasks: the longest look back is 21 steps.
    "transformer": {"layers": 1, "window": 32},
}
"""The control, which sees the current observation alone, and the memories; width 64 with these options."""


@dataclass(frozen=True)
class Task:
    """An environment, its memoryless ceiling in closed form, and what counts as passing it."""

    env: str
    metric: str
    num_steps: int
    total_steps: int
    ceiling: float
    tolerance: float
    """Sampling error of an evaluation at the ceiling, allowed to the control."""
    bar: float
    hyper: dict[str, float] = field(default_factory=dict)
    """What PPO is given instead of its defaults."""


TASKS = {
    # Two goals, one cue that is gone at the junction: a guess. With more entropy (`common.TMAZE` has 0.1) who has no
    # memory, and cannot tell whether it is behind, never learns to walk, and is no control.
    "tmaze": Task("tmaze-20", "success", 105, 400_000, 0.5, 0.03, 0.95, {"gamma": 0.9, "entropy_coef": 0.01}),
    # Knowing the current card, any other suit is right with 13/51.
    "repeat_previous": Task(
        "repeat_previous-easy", "return_mean", 102, 800_000, 2 * 13 / 51 - 1, 0.02, 0.5, {"entropy_coef": 0.01}
    ),
}


def measure(arguments: Arguments) -> Findings:
    seeds = arguments.seeds or (5 if arguments.scale == "cpu" else 32)
    claims, curves, steps = [], {}, 0
    for task_name, task in TASKS.items():
        for model, options in MODELS.items():
            env, params = make(task.env)
            agent = ActorCritic.for_env(env, make_model(model, width=64, **options), previous=model != "mlp")
            learner = PPO(VecEnv(env, 64), agent, num_steps=task.num_steps)
            updates = task.total_steps / learner.steps_per_update
            hyper = PPOHyper(anneal_updates=updates, env_params=params, **task.hyper)
            run = train_seeds(
                learner, hyper, seeds=seeds, total_steps=task.total_steps, evaluations=1, eval_episodes=64
            )
            interval = bootstrap_ci(last_evaluation(run, task.metric))
            what = f"{model} on {task.env}, {task.metric} over {seeds} seeds"
            if model == "mlp":
                bar = task.ceiling + task.tolerance
                text = f"{what}: does not pass the memoryless ceiling {task.ceiling:.2f}"
                claims.append(Claim.of(f"{task_name}/{model}", text, interval, bar, "below"))
            else:
                text = f"{what}: passes the memoryless ceiling {task.ceiling:.2f}"
                claims.append(Claim.of(f"{task_name}/{model}", text, interval, task.bar, "above"))
            curves[f"{task_name}/{model}"] = curve(run, "success" if task.metric == "success" else "return_mean")
            steps += run.summary["steps"] * seeds
            print(f"{what}: {interval.mean:.3f} in {run.summary['wall_s']:.0f} s", flush=True)
    return Findings(claims, seeds, steps, curves)


if __name__ == "__main__":
    run_experiment("memory_matters", "Bakker 2001; Ni et al. 2023; Morad et al. 2023", measure)
    from experiments.table import write_table

    write_table()
