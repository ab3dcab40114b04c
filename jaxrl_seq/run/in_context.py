"""Learning in context, judged: return per episode of a trained agent beside anchors and controls, with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.envs import TrialEnv
from jaxrl_seq.incontext.evaluation import (
    Scores,
    anchors,
    controls,
    evaluate_in_context,
    mean_curve,
    summary,
    switched,
)
from jaxrl_seq.incontext.policies import AgentPolicy, Deprived
from jaxrl_seq.run.catalogue import table
from jaxrl_seq.run.lanes import lane
from jaxrl_seq.run.sinks import jsonable
from jaxrl_seq.run.stats import bootstrap_band

FILE = "in_context.json"
_FEWEST, _MOST = 64, 256  # streams of an evaluation
_RESAMPLES = 1000


def judge(
    policy: Callable[[Any, bool], Any],
    lanes: Sequence[Any],
    trial: TrialEnv,
    env_params: Any = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Trials of the agent, greedy and as it was trained, of anchors and of controls; plain data, see `show`.

    policy: (parameters, greedy) -> `ContextPolicy`; lanes: the parameters of each seed. All play the same tasks, every
    one of them where they are finitely many (256 at most). Intervals (95 %) are over seeds, or over tasks where there
    is one seed.
    """
    env_params = trial.default_params() if env_params is None else env_params
    task_key, key = jax.random.split(jax.random.key(seed))
    tasks, distinct = _tasks(trial, env_params, task_key)

    @jax.jit
    def play(player: Any, key: Any) -> Scores:
        return evaluate_in_context(player, trial, tasks, key, env_params)

    @jax.jit
    def play_switched(player: Any, key: Any) -> Scores:
        other, pairs = switched(trial, tasks)
        return evaluate_in_context(player, other, pairs, key, env_params)

    levels = {name: play(level, key) for name, level in anchors(trial, env_params).items()}
    scores: dict[str, list[Scores]] = {name: [jax.device_get(level)] for name, level in levels.items()}
    for params in lanes:
        sampled = policy(params, False)
        players = {"agent": Deprived(sampled, 1.0, 0.0, False), **controls(sampled), "greedy": policy(params, True)}
        played = {name: play(player, key) for name, player in players.items()}
        if trial.max_episodes > 1 and distinct > 1:
            played["wrong task"] = play_switched(sampled, key)
        for name, score in played.items():
            scores.setdefault(name, []).append(jax.device_get(score))
    ends = {name: float(np.nanmean(_curves(scores[name], distinct))) for name in levels}
    learners = ("thompson", "ucb", "sweeper")
    deprived = ("zero reward", "shuffled reward", "memory emptied", "wrong task")
    order = ("agent", "greedy", "oracle", *learners, "random", *deprived)
    return {
        "env": trial.env.name,
        "episodes": trial.max_episodes,
        "steps": trial.horizon,
        "tasks": distinct,
        "held_out": trial.tasks_from is not None and trial.tasks_from.part == "test",
        "streams": jax.tree.leaves(tasks)[0].shape[0],
        "seeds": len(lanes),
        "last": -(-trial.max_episodes // 10),
        "rows": {name: _row(scores[name], distinct, ends) for name in order if name in scores},
    }


def judge_learner(
    learner: Any,
    hyper: Any,
    state: Any,
    seeds: int,
    episodes: int = 0,
    seed: int = 0,
    temperature: float = 1.0,
    warm_episodes: int = 0,
) -> dict[str, Any]:
    """`judge` of a learner's state, with a leading lane axis if there are several `seeds`. 0 episodes: as in training.
    `temperature` and `warm_episodes` are `AgentPolicy`'s.

    Raises ValueError for a learner that does not learn in trials, and for a temperature that it cannot act with.
    """
    trial = require_trials(learner)
    if temperature <= 0 or warm_episodes < 0:
        raise ValueError(f"temperature {temperature}, warm_episodes {warm_episodes}: above 0, and not negative.")
    if warm_episodes and temperature == 1.0:
        raise ValueError(f"warm_episodes {warm_episodes}: all are at temperature 1; give a temperature as well.")
    if episodes:
        trial = replace(trial, episodes=episodes, steps=0)
    policy = learner.recipe.policy if hasattr(learner, "recipe") else partial(AgentPolicy, learner.agent)

    def player(params: Any, greedy: bool) -> Any:
        """The learner's policy, at the temperature that was asked for."""
        plain = policy(params, greedy)
        if temperature == 1.0:
            return plain
        if not isinstance(plain, AgentPolicy):
            raise ValueError(f"temperature is for networks with a carry; this agent is a {type(plain).__name__}.")
        return plain.replace(temperature=temperature, warm_episodes=warm_episodes)  # pyright: ignore

    lanes = [lane(state, i).params for i in range(seeds)] if seeds > 1 else [state.params]
    result = judge(player, lanes, trial, getattr(hyper, "env_params", None), seed=seed)
    warm = f" after {warm_episodes} episodes at 1" if warm_episodes else ""
    return result | ({} if temperature == 1.0 else {"acting": f"sampled at temperature {temperature:g}{warm}"})


def trials(learner: Any) -> TrialEnv | None:
    """The trials that a learner is evaluated on; None if it does not learn in trials."""
    if hasattr(learner, "eval_trial"):
        return learner.eval_trial
    env = getattr(learner, "eval_env", None) or getattr(getattr(learner, "env", None), "env", None)
    return env if isinstance(env, TrialEnv) else None


def require_trials(learner: Any) -> TrialEnv:
    """The same; ValueError if it does not."""
    trial = trials(learner)
    if trial is None:
        raise ValueError(
            "This run has no trials, so its memory never outlived an episode: train with --trial.episodes N first."
        )
    return trial


def write(folder: Path, result: dict[str, Any]) -> Path:
    """Into in_context.json of a run folder, in one move."""
    path = folder / FILE
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(jsonable(result)) + "\n")
    fresh.replace(path)
    return path


def show(result: dict[str, Any]) -> str:
    """The result as text: what was played, return per episode, and the numbers of the curves."""
    kind = "held-out tasks" if result["held_out"] else "tasks"
    last = "last episode" if result["last"] == 1 else f"last {result['last']} episodes"
    unit = "seeds" if result["seeds"] > 1 else "tasks"
    numbers: list[dict[str, Any]] = []
    for name, row in result["rows"].items():
        cells = {_NAMES[key].format(last=last): _interval(*value) for key, value in row["numbers"].items()}
        numbers.append({"": name} | cells)
    curves: list[dict[str, Any]] = [
        {"episode": name} | {str(k): f"{row['mean'][k - 1]:.2f}" for k in shown_episodes(result["episodes"])}
        for name, row in result["rows"].items()
    ]
    acting = f", {result['acting']}" if "acting" in result else ""
    return (
        f"{result['episodes']} episodes ({result['steps']} steps) on {result['tasks']} {kind}, "
        f"{result['streams']} trials of each seed{acting}; 95 % intervals over {unit}\n\n"
        f"return per episode\n{table(curves)}\n\n{table(numbers)}"
    )


def shown_episodes(episodes: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... and the last."""
    scale = 10 ** np.arange(len(str(episodes)))
    marks = sorted({int(m * s) for m in (1, 2, 5) for s in scale if m * s < episodes} | {episodes})
    return marks


_NAMES = {
    "zero_shot": "zero-shot",
    "last_k": "{last}",
    "improvement": "improvement",
    "drawdown": "drawdown",
    "auc": "all episodes",
    "normalised": "normalised",
    "regret": "regret",
}


def _interval(mean: float, lo: float, hi: float) -> str:
    return f"{mean:.2f} [{lo:.2f}, {hi:.2f}]"


# --- from scores to numbers -------------------------------------------------------------------------------------------
def _tasks(trial: TrialEnv, params: Any, key: Any) -> tuple[Any, int]:
    """(a task for every stream, how many different ones). The key is consumed.

    Rounds through all tasks, so that neighbours differ and all count alike.
    """
    if not trial.has("tasks"):
        return jax.vmap(trial.sample_task, in_axes=(0, None))(jax.random.split(key, _MOST), params), _MOST
    family = trial.tasks(params)
    number = jax.tree.leaves(family)[0].shape[0]
    members = jax.random.permutation(key, number)[:_MOST]
    picks = jnp.tile(members, math.ceil(_FEWEST / len(members)))
    return jax.tree.map(lambda x: x[picks], family), len(members)


def _curves(lanes: Sequence[Scores], distinct: int) -> np.ndarray:
    """float64 [U, K]: the curve of every seed, or of every task where there is one seed."""
    if len(lanes) > 1:
        return np.stack([mean_curve(scores.returns, scores.finished) for scores in lanes])
    of_task = [slice(i, None, distinct) for i in range(distinct)]
    return np.stack([mean_curve(lanes[0].returns[i], lanes[0].finished[i]) for i in of_task])


def _row(lanes: Sequence[Scores], distinct: int, levels: dict[str, float]) -> dict[str, Any]:
    """Mean curve and numbers, each with the ends of its interval."""
    curves = _curves(lanes, distinct)
    band = bootstrap_band(curves, resamples=_RESAMPLES)
    numbers_of = partial(summary, random=levels.get("random"), oracle=levels.get("oracle"))
    point = numbers_of(band.mean)
    picks = np.random.default_rng(0).integers(0, len(curves), (_RESAMPLES, len(curves)))
    # a mean over resampled units first: drawdown is of the mean curve, not the mean of drawdowns
    drawn = [numbers_of(mean_curve(curves[i], ~np.isnan(curves[i]))) for i in picks]
    numbers = {
        name: [point[name], *np.quantile([numbers[name] for numbers in drawn], (0.025, 0.975))]
        for name in _NAMES
        if name in point
    }
    if lanes[0].regret is not None:
        lost = [scores.regret[-1] for scores in lanes if scores.regret is not None]
        units = np.stack(lost).mean(1) if len(lanes) > 1 else lost[0].reshape(-1, distinct).mean(0)
        total = bootstrap_band(units[:, None], resamples=_RESAMPLES)
        numbers["regret"] = [float(total.mean[0]), float(total.lo[0]), float(total.hi[0])]
    return {"mean": band.mean.tolist(), "lo": band.lo.tolist(), "hi": band.hi.tolist(), "numbers": numbers}
