"""Learning claims of the README, over several seeds (minutes: make test-slow)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jaxrl_seq.run.config import parse_train
from jaxrl_seq.run.loop import train


def final_evaluation(flags: str, seeds: int):
    """The last evaluation row of `jaxrl-seq train ppo FLAGS`, a list per metric."""
    config = parse_train("ppo", flags.split())
    learner, hyper = config.build()
    options: dict[str, Any] = vars(config.run) | {"num_seeds": seeds, "evaluations": 1, "eval_episodes": 8}
    run = train(learner, hyper, progress=False, **options)
    return [row for row in run.rows if row["kind"] == "eval"][-1]


@pytest.mark.slow
def test_default_recipe_solves_the_tmaze_with_every_seed():
    """make train: corridor length 50, where the best memoryless policy is right half of the time."""
    row = final_evaluation("--env tmaze --model s5", seeds=5)
    assert np.min(row["success"]) >= 0.98, row["success"]


@pytest.mark.slow
def test_gymnax_memory_chain_is_learnt():
    row = final_evaluation("--env gymnax:MemoryChain-bsuite --model gru", seeds=5)
    assert np.min(row["return_mean"]) >= 0.9, row["return_mean"]
