"""Episodes with the agent of a run folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_seq.online import Recording
from jaxrl_seq.run.checkpoint import Checkpoints
from jaxrl_seq.run.config import Config
from jaxrl_seq.run.in_context import judge_learner, require_trials
from jaxrl_seq.run.lanes import Lanes, lane
from jaxrl_seq.run.metrics import evaluation_interval, evaluation_metrics
from jaxrl_seq.run.programs import evaluation_keys


def play_run(config: Config, folder: Path, episodes: int, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Evaluate the last good checkpoint: {"greedy": ..., "sampled": ...}, each with means over all lanes.

    The interval is a bootstrap over seeds, or over episodes where the run has one seed.
    """
    _, hyper = config.build()
    many, keys, state = _restore(config, folder, seed)
    keys = evaluation_keys(keys, 0)
    results = {}
    for name, greedy in (("greedy", True), ("sampled", False)):

        def play(state: Any, keys: Any, greedy: bool = greedy) -> Any:
            return many.evaluate(state, hyper, keys, episodes=episodes, greedy=greedy)

        results[name] = _figures(jax.device_get(jax.jit(play)(state, keys)))
    return results


def judge_run(
    config: Config, folder: Path, episodes: int, seed: int = 0, temperature: float = 1.0, warm_episodes: int = 0
) -> dict[str, Any]:
    """Trials of `episodes` episodes of the last good checkpoint; see `in_context.judge_learner`. ValueError without
    trials."""
    learner, hyper = config.build()
    require_trials(learner)
    _, _, state = _restore(config, folder, seed)
    return judge_learner(learner, hyper, state, config.run.num_seeds, episodes, seed, temperature, warm_episodes)


def record_run(
    config: Config, folder: Path, env_spec: str | None, episodes: int, seed: int = 0, max_steps: int = 200
) -> tuple[Any, Any, Recording]:
    """(environment, its params, greedy episodes of the last good checkpoint's first lane in it).

    env_spec: another environment for the agent, of the same observations and actions; None: the one it learnt in.
    """
    _, _, state = _restore(config, folder, seed)
    state = lane(state, 0) if config.run.num_seeds > 1 else state
    learner, hyper = config.build()
    key = jax.random.key(seed)
    if env_spec and env_spec != config.env:
        shown = dataclasses.replace(config, env=env_spec).build()  # pyright: ignore[reportArgumentType]
        spaces = [(e.observation_space(), e.action_space()) for e in (shown[0].world, learner.world)]
        if spaces[0] != spaces[1]:
            raise ValueError(f"{folder} learnt with spaces {spaces[1]}, but {env_spec} has {spaces[0]}.")
        learner, hyper = shown

    def play(state: Any, key: Any) -> Recording:
        return learner.record(state, hyper, key, num_envs=episodes, max_steps=max_steps)

    return learner.world, hyper.env_params, jax.device_get(jax.jit(play)(state, key))


def _restore(config: Config, folder: Path, seed: int) -> tuple[Any, Any, Any]:
    """(the learner, or its lanes; a key of `seed` for each; the state of the last good checkpoint)."""
    learner, hyper = config.build()
    lanes = Lanes(learner, config.run.num_seeds)
    keys = jax.random.split(jax.random.key(seed), lanes.num)
    single = lanes.num == 1
    target = jax.eval_shape(learner.init, keys[0], hyper) if single else jax.eval_shape(lanes.init, keys, hyper)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state = checkpoints.restore(target).state
    return (learner, keys[0], state) if single else (lanes, keys, state)


def _figures(episodes: Any) -> dict[str, Any]:
    means = {name: float(np.mean(value)) for name, value in evaluation_metrics(episodes).items()}
    interval = evaluation_interval(episodes)
    return (
        {"success": None}
        | means
        | {
            "return_ci": [interval.lo, interval.hi],
            "episodes": int(np.asarray(episodes.finished).sum()),
        }
    )
