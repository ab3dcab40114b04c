"""S5 trains faster than a recurrent network, the more so the longer the sequence (Lu et al. 2023, arXiv:2303.03982).

Claim of the paper: over five times faster than an LSTM baseline on an accelerator. Here: forward and backward over
[T, B, D] of one layer, S5 (state 256) against GRU and LSTM of the same width, T = 128, 512, 2048, ten races each in
one process. On two CPU cores there is nothing to win by running time in parallel, only fewer products: the bar is
"not slower". Expected: a minute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from benchmarks import lab
from experiments.common import Arguments, Claim, Findings, run_experiment, time_ratio
from jaxrl_seq.models import make_model

WIDTH = 128
LENGTHS = (128, 512, 2048)
TOKENS = 2**13  # T * B stays the same


def training_pass(name: str, steps: int, batch: int, **options: Any) -> Callable[[], Any]:
    """Compiled gradients of one layer's parameters and inputs, as a call."""
    model = make_model(name, width=WIDTH, layers=1, **options)
    params, carry = lab.initial(model, batch, WIDTH)
    x, reset = lab.inputs(steps, batch, WIDTH)
    compiled = jax.jit(lab.training_pass(model)).lower(params, carry, x, reset).compile()
    return lambda: compiled(params, carry, x, reset)


def measure(arguments: Arguments) -> Findings:
    tokens, bar = (TOKENS, 1.0) if arguments.scale == "cpu" else (2**18, 5.0)
    claims = []
    for steps in LENGTHS:
        batch = tokens // steps
        s5 = training_pass("s5", steps, batch, state=2 * WIDTH)
        for other in ("gru", "lstm"):
            ratio = time_ratio(training_pass(other, steps, batch), s5)
            text = f"training time of {other} over that of S5, T={steps}, B={batch}, D={WIDTH}"
            claims.append(Claim.of(f"{other}/{steps}", text, ratio, bar, "above"))
            print(f"{text}: {ratio.mean:.2f}", flush=True)
    return Findings(claims, seeds=1, env_steps=0)


if __name__ == "__main__":
    run_experiment("s5_speed", "Lu et al. 2023", measure)
    from experiments.table import write_table

    write_table()
