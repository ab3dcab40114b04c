"""What each model costs: training pass, acting, compilation, memory: `python -m benchmarks.models [--models s5 gru]`.

Registry defaults at one width; a training pass is forward and backward over [T, B, D] with resets, acting is `step`
inside a compiled loop. `act_late` is the acting cost after `T` steps of history over that of a fresh carry: about 1
for a model whose cost does not grow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from benchmarks import lab
from benchmarks.common import publish
from jaxrl_seq.models import MODELS, make_model
from jaxrl_seq.run.timing import compile_timed, race


@dataclass(frozen=True)
class Options:
    """Measure every model."""

    models: tuple[str, ...] = ()
    """Names (default: all)."""
    width: int = 128
    """D, of the model and of its input."""
    layers: int = 2
    """Layers of each model."""
    steps: int = 1024
    """T of a training pass."""
    batch: int = 8
    """B of a training pass."""
    acting: tuple[int, ...] = (1, 64)
    """Numbers of environments to act in."""
    acting_steps: int = 256
    """Steps of an acting loop."""
    rounds: int = 5
    """Measured runs; the median counts."""


def measure(name: str, options: Options) -> dict[str, Any]:
    """One row."""
    model = make_model(name, width=options.width, layers=options.layers)
    params, carry = lab.initial(model, options.batch, options.width)
    x, reset = lab.inputs(options.steps, options.batch, options.width)
    train, compile_s = compile_timed(jax.jit(lab.training_pass(model)), params, carry, x, reset)
    seconds = race({"train": lambda: train(params, carry, x, reset)}, options.rounds)["train"]
    return {
        "model": name,
        "parameters": sum(math.prod(p.shape) for p in jax.tree.leaves(params)),
        "carry_bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(carry)) // options.batch,
        "compile_s": round(compile_s, 1),
        "train_ms": round(1e3 * seconds, 1),
        "tokens_per_second": round(options.steps * options.batch / seconds),
        "saved_mb": round(lab.saved_arrays(model, params, carry, x, reset) / 1e6, 1),
        **acting(model, params, options),
    }


def acting(model: Any, params: Any, options: Options) -> dict[str, Any]:
    """Microseconds a step for each number of environments, and late over early."""
    row: dict[str, Any] = {}
    for batch in options.acting:
        x, reset = lab.inputs(options.acting_steps, batch, options.width)
        reset = jnp.zeros_like(reset)
        carry = model.initialize_carry((batch,))
        act, _ = compile_timed(jax.jit(lab.acting_loop(model)), params, carry, x, reset)
        old = carry
        for _ in range(-(-options.steps // options.acting_steps)):
            old = act(params, old, x, reset)[0]
        contestants = {"early": carry, "late": old}
        seconds = race(
            {age: lambda c=c, act=act, x=x, r=reset: act(params, c, x, r) for age, c in contestants.items()},
            options.rounds,
        )
        row[f"act_us_b{batch}"] = round(1e6 * seconds["early"] / options.acting_steps, 1)
        row["act_late"] = round(seconds["late"] / seconds["early"], 2)
    return row


def main() -> None:
    options = tyro.cli(Options)
    rows = []
    compile_timed(jax.jit(jnp.tanh), jnp.zeros(3))  # or the first model pays for the compiler's own start
    for name in options.models or tuple(MODELS):
        rows.append(measure(name, options))
        print(rows[-1], flush=True)
    publish(
        "models",
        rows,
        f"{options.layers} layers of width {options.width}, T={options.steps}, B={options.batch}, float32; train_ms: "
        "forward and backward, median of warm runs; saved_mb: kept for the backward pass; act_us_bN: one step of N "
        f"environments inside a loop; act_late: that after {options.steps} steps over that of a fresh carry.",
    )


if __name__ == "__main__":
    main()
