"""`impl="auto"`: the implementation that was fastest when it was measured, at the nearest size on the same backend.

The table, `measured.json`, is written by `python -m benchmarks.impls` and travels with the package. Rows are
`{"op", "backend", "steps", "numbers", "impl", "ms"}`: T steps of `numbers` numbers each (B times the state of one
environment). Under a vmap over seeds an op sees one seed's sizes.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import jax

MEASURED = Path(__file__).parent / "measured.json"


def fastest(op: str, steps: int, numbers: int, default: str) -> str:
    """The impl of the measured row nearest in log2(steps), log2(numbers); `default` on a backend never measured."""
    rows = [row for row in _measured() if row["op"] == op and row["backend"] == jax.default_backend()]
    if not rows:
        return default

    def distance(row: dict[str, Any]) -> float:
        return math.hypot(math.log2(row["steps"] / max(steps, 1)), math.log2(row["numbers"] / max(numbers, 1)))

    return min(rows, key=distance)["impl"]


@cache
def _measured() -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(MEASURED.read_text())) if MEASURED.exists() else ()
