"""Episodes with the agent of a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.run.checkpoint import Checkpoints
from jaxrl_seq.run.config import TrainPPO
from jaxrl_seq.run.lanes import Lanes
from jaxrl_seq.run.metrics import evaluation_metrics
from jaxrl_seq.run.programs import evaluation_keys
from jaxrl_seq.run.stats import bootstrap_ci


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
    finished = np.asarray(episodes.finished)
    row = {name: float(np.mean(value)) for name, value in evaluation_metrics(episodes).items()}
    counts = np.maximum(finished.sum((-2, -1)), 1)
    by_seed = np.asarray(episodes.returns).sum((-2, -1)) / counts
    values = by_seed if finished.ndim == 3 else np.asarray(episodes.returns)[finished]
    interval = bootstrap_ci(values) if values.size else (jnp.nan,) * 3
    return {
        "return_mean": row["return_mean"],
        "return_ci": [float(interval[1]), float(interval[2])],
        "success": row.get("success"),
        "length_mean": row["length_mean"],
        "unfinished": row["unfinished"],
        "episodes": int(finished.sum()),
    }
