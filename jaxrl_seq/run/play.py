"""Episodes with the agent of a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_seq.run.checkpoint import Checkpoints
from jaxrl_seq.run.config import TrainPPO
from jaxrl_seq.run.lanes import Lanes
from jaxrl_seq.run.metrics import evaluation_interval, evaluation_metrics
from jaxrl_seq.run.programs import evaluation_keys


def play_run(config: TrainPPO[Any], folder: Path, episodes: int, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Evaluate the last good checkpoint: {"greedy": ..., "sampled": ...}, each with means over all lanes.

    The interval is a bootstrap over seeds, or over episodes where the run has one seed.
    """
    learner, hyper = config.build()
    lanes = Lanes(learner, config.run.num_seeds)
    keys = jax.random.split(jax.random.key(seed), lanes.num)
    single = lanes.num == 1
    target = jax.eval_shape(learner.init, keys[0], hyper) if single else jax.eval_shape(lanes.init, keys, hyper)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state = checkpoints.restore(target).state
    many: Any = learner if single else lanes
    keys = evaluation_keys(keys[0] if single else keys, 0)
    results = {}
    for name, greedy in (("greedy", True), ("sampled", False)):

        def play(state: Any, keys: Any, greedy: bool = greedy) -> Any:
            return many.evaluate(state, hyper, keys, episodes=episodes, greedy=greedy)

        results[name] = _figures(jax.device_get(jax.jit(play)(state, keys)))
    return results


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
