"""How near the device's limit each model trains and acts: `python -m benchmarks.roofline` (made for an accelerator).

The peaks are measured here: the rate of a large matrix product and of a large copy. Work and traffic of a program are
XLA's own estimates (`cost_analysis`) of what was compiled, so a share of one means that the device does nothing else.
Loops are counted once by that analysis, so acting is measured as one step, and models whose training runs a loop over
time are marked: their shares of the peak are lower bounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from benchmarks import lab
from benchmarks.common import publish
from jaxrl_seq.models import MODELS, make_model
from jaxrl_seq.run.timing import race


@dataclass(frozen=True)
class Options:
    """Measure achieved FLOP/s and bytes/s."""

    models: tuple[str, ...] = ()
    """Names (default: all)."""
    width: int = 256
    """D."""
    layers: int = 2
    """Layers of each model."""
    steps: int = 128
    """T of a training pass."""
    batches: tuple[int, ...] = (256, 1024, 4096)
    """B."""
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    """Precision of the operands."""
    peak_size: int = 8192
    """Side of the matrices for the peak."""
    rounds: int = 5
    """Measured runs; the median counts."""


def peaks(size: int) -> dict[str, float]:
    """Measured FLOP/s of a matrix product in each precision, and bytes/s of a copy."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        x = jnp.ones((size, size), dtype)
        product = jax.jit(lambda x: x @ x).lower(x).compile()
        found[dtype] = 2 * size**3 / race({"run": lambda product=product, x=x: product(x)})["run"]
    x = jnp.ones(2**28 if jax.default_backend() != "cpu" else 2**25, jnp.float32)
    copy = jax.jit(lambda x: x + 1).lower(x).compile()
    found["bytes"] = 2 * x.nbytes / race({"run": lambda: copy(x)})["run"]
    return found


def measure(name: str, batch: int, dtype: str, options: Options, peak: dict[str, float]) -> dict[str, Any]:
    model = make_model(name, width=options.width, layers=options.layers, dtype=dtype)
    params, carry = lab.initial(model, batch, options.width)
    x, reset = lab.inputs(options.steps, batch, options.width)

    def step(params: Any, carry: Any, x: Any, reset: Any) -> Any:
        return model.apply(params, carry, x, reset, method="step")

    row: dict[str, Any] = {"model": name, "B": batch, "dtype": dtype}
    programs: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "train": (lab.training_pass(model), (params, carry, x, reset)),
        "act": (step, (params, carry, x[0], reset[0])),
    }
    for kind, (program, arguments) in programs.items():
        compiled = jax.jit(program).lower(*arguments).compile()
        seconds = race({"run": lambda c=compiled, a=arguments: c(*a)}, options.rounds)["run"]
        cost: Any = compiled.cost_analysis() or {}
        flops, moved = cost.get("flops", 0.0) / seconds, cost.get("bytes accessed", 0.0) / seconds
        row |= {f"{kind}_ms": round(1e3 * seconds, 3), f"{kind}_tflops": round(flops / 1e12, 2)}
        row |= {
            f"{kind}_of_peak": round(flops / peak[dtype], 3),
            f"{kind}_of_bandwidth": round(moved / peak["bytes"], 3),
        }
        if kind == "train":
            row["loops"] = (compiled.as_text() or "").count(" while(")
    row["tokens_per_second"] = round(1e3 * options.steps * batch / row["train_ms"])
    return row


def main() -> None:
    options = tyro.cli(Options)
    peak = peaks(options.peak_size)
    print({name: f"{value:.3g}" for name, value in peak.items()}, flush=True)
    rows = []
    start = time.monotonic()
    for name in options.models or tuple(MODELS):
        for batch in options.batches:
            for dtype in options.dtypes:
                rows.append(measure(name, batch, dtype, options, peak))
                print(rows[-1], f"{time.monotonic() - start:.0f} s", flush=True)
    publish(
        "roofline",
        rows,
        f"{options.layers} layers, D={options.width}, T={options.steps}; peaks measured here: "
        + ", ".join(f"{name} {value:.3g}/s" for name, value in peak.items())
        + "; shares by XLA's estimates of the compiled program, loops (counted once) beside them.",
    )


if __name__ == "__main__":
    main()
