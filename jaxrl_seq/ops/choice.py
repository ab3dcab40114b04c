"""`impl="auto"`: the implementation that was fastest when it was measured, at the nearest size on the same backend."""

from __future__ import annotations

import math
from typing import Any

import jax

from jaxrl_seq.ops.measured import ROWS


def fastest(op: str, steps: int, numbers: int, default: str, rows: tuple[dict[str, Any], ...] = ROWS) -> str:
    """The impl of the measured row nearest in log2(steps), log2(numbers); `default` on a backend never measured.

    steps: T. numbers: of the state of all environments together; under a vmap over seeds an op sees one seed's.
    """
    rows = tuple(row for row in rows if row["op"] == op and row["backend"] == jax.default_backend())
    if not rows:
        return default

    def distance(row: dict[str, Any]) -> float:
        return math.hypot(math.log2(row["steps"] / max(steps, 1)), math.log2(row["numbers"] / max(numbers, 1)))

    return min(rows, key=distance)["impl"]
