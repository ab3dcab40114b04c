"""Which implementation is fastest where: `python -m benchmarks.impls` writes this backend's rows of ops/measured.py.

Forward and backward of each op at each size, all implementations in turns inside one process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from benchmarks import lab
from benchmarks.common import publish
from jaxrl_seq import ops
from jaxrl_seq.ops.choice import ROWS
from jaxrl_seq.run.timing import compile_timed, race


@dataclass(frozen=True)
class Options:
    """Measure the implementations of each op."""

    steps: tuple[int, ...] = (16, 128, 1024)
    """T."""
    numbers: tuple[int, ...] = (2**9, 2**13, 2**16)
    """Numbers in the state of all environments together."""
    budget: int = 2**27
    """Sizes with more numbers than this over all steps are left out."""
    rounds: int = 7
    """Measured runs; the median counts."""


def linear_recurrence(steps: int, numbers: int) -> tuple[Callable[[str], Any], tuple[Any, ...]]:
    """Gradients of a varying real recurrence with resets; B = 8."""
    batch = 8
    keys = jax.random.split(jax.random.key(0), 3)
    shape = (steps, batch, numbers // batch)
    a, b = jax.random.uniform(keys[0], shape), jax.random.normal(keys[1], shape)
    reset, h = lab.resets(keys[2], steps, batch), jnp.zeros(shape[1:])

    def program(impl: Any) -> Any:
        def loss(a, b, h, reset):
            return jnp.square(ops.linear_recurrence(a, b, h, reset, impl=impl)).mean()

        return jax.grad(loss, argnums=(0, 1, 2))

    return program, (a, b, h, reset)


TABLE = Path(ops.__file__).parent / "measured.py"
HEAD = (
    '"""Fastest implementations as measured, by size and backend; written by `python -m benchmarks.impls`."""\n\n'
    "from typing import Any"
)
OPS = {"linear_recurrence": (linear_recurrence, ("scan", "associative", "chunked"))}


def main() -> None:
    options = tyro.cli(Options)
    rows = []
    for op, (make, impls) in OPS.items():
        for steps in options.steps:
            for numbers in options.numbers:
                if steps * numbers > options.budget:
                    continue
                program, arguments = make(steps, numbers)
                calls = {}
                for impl in impls:
                    compiled, _ = compile_timed(jax.jit(program(impl)), *arguments)
                    calls[impl] = lambda compiled=compiled, arguments=arguments: compiled(*arguments)
                seconds = race(calls, options.rounds)
                rows.append(
                    {"op": op, "backend": jax.default_backend(), "steps": steps, "numbers": numbers}
                    | {"impl": min(seconds, key=lambda name: seconds[name])}
                    | {"ms": {name: round(1e3 * value, 3) for name, value in seconds.items()}}
                )
                print(rows[-1], flush=True)
    others = [row for row in ROWS if row["backend"] != jax.default_backend()]
    kept = [{k: v for k, v in row.items() if k != "ms"} for row in rows]
    lines = "".join(f"    {row!r},\n" for row in others + kept).replace("'", '"')
    TABLE.write_text(f"{HEAD}\n\nROWS: tuple[dict[str, Any], ...] = (\n{lines})\n")
    flat = [{k: v for k, v in row.items() if k != "ms"} | {f"{k}_ms": v for k, v in row["ms"].items()} for row in rows]
    publish("impls", flat, "forward and backward, median of warm runs taken in turns.")


if __name__ == "__main__":
    main()
