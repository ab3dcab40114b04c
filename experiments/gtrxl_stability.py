"""GTrXL's gates make a transformer trainable by reinforcement learning (Parisotto et al. 2019, arXiv:1910.06764).

Claim: identity-map reordering and GRU gates train stably over seeds and learning rates where the post-norm
Transformer-XL fails or diverges. Here: PPO on the T-maze of 20 steps, three learning rates, three seeds each, both
networks alike but for the block, of three layers and of the paper's twelve; a run fails when it ends below 0.9 success.
Expected: an hour and a half on one core. At three layers the two hardly differ; at twelve Transformer-XL learns at the
lowest rate only, GTrXL at the next one too. At the highest neither does, so that the share of GTrXL's failures misses
its bar.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from experiments.common import TMAZE, Arguments, Claim, Findings, learn_tmaze, remembered, run_experiment
from jaxrl_seq.models import make_model
from jaxrl_seq.run.stats import bootstrap_ci

MODELS = ("gtrxl", "transformer_xl")
DEPTHS = (3, 12)
LEARNING_RATES = (3e-4, 1e-3, 3e-3)
SIZE = {"width": 32, "heads": 2, "window": 24}
SOLVED = 0.9
TOTAL_STEPS = 300_000


def learn(model: str, layers: int, rate: float, seeds: int) -> dict[str, Any]:
    """What `learn_tmaze` brings."""
    memory = make_model(model, layers=layers, **SIZE)
    return learn_tmaze(memory, 20, num_steps=63, total_steps=TOTAL_STEPS, seeds=seeds, lr=rate)


def measure(arguments: Arguments) -> Findings:
    seeds = arguments.seeds or (3 if arguments.scale == "cpu" else 16)
    claims, curves, rows, steps = [], {}, [], 0
    for layers in DEPTHS:
        failed: dict[str, np.ndarray] = {}
        for model in MODELS:
            success = np.zeros((0, seeds))
            for rate in LEARNING_RATES:
                part = f"{model}, {layers} layers, {rate:g}, {seeds} seeds, {SIZE}, {TMAZE}"
                found = remembered("gtrxl_stability", part, functools.partial(learn, model, layers, rate, seeds))
                success = np.vstack([success, np.array(found["success"], float)])
                rows.append({"layers": layers, "model": model, "learning rate": rate})
                rows[-1]["success of each seed"] = " ".join(f"{value:.2f}" for value in success[-1])
                curves[f"{model}/{layers}/{rate:g}"] = found["curve"]
                steps += found["steps"] * seeds
                print(rows[-1], f"{found['wall_s']:.0f} s", flush=True)
            failed[model] = ~(success >= SOLVED).ravel()  # a diverged run (nan) has failed too
        claims += _claims(layers, *(failed[model].astype(float) for model in MODELS))
    return Findings(claims, seeds, steps, curves, {"GTrXL and Transformer-XL on tmaze-20: final success": rows})


def _claims(layers: int, gated: np.ndarray, plain: np.ndarray) -> list[Claim]:
    """Failed or not, [runs] of 0 and 1 for both networks, same rates and seeds -> what is claimed at this depth."""
    runs = f"of {gated.size} runs over rates and seeds, {layers} layers"
    share = f"GTrXL on tmaze-20: share of failures {runs}"
    fewer = f"share of failures {runs}, post-norm Transformer-XL less GTrXL"
    return [
        Claim.of(f"gtrxl/{layers}", share, bootstrap_ci(gated), 0.2, "below"),
        Claim.of(f"fewer/{layers}", fewer, bootstrap_ci(plain - gated), 0.05, "above"),
    ]


if __name__ == "__main__":
    run_experiment("gtrxl_stability", "Parisotto et al. 2019", measure)
    from experiments.table import write_table

    write_table()
