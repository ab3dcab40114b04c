"""Fastest implementations as measured, by size and backend; written by `python -m benchmarks.impls`."""

from typing import Any

ROWS: tuple[dict[str, Any], ...] = (
    {"op": "linear_recurrence", "backend": "cpu", "steps": 16, "numbers": 512, "impl": "scan"},
    {"op": "linear_recurrence", "backend": "cpu", "steps": 16, "numbers": 8192, "impl": "scan"},
    {"op": "linear_recurrence", "backend": "cpu", "steps": 16, "numbers": 65536, "impl": "scan"},
    {"op": "linear_recurrence", "backend": "cpu", "steps": 128, "numbers": 512, "impl": "scan"},
    {"op": "linear_recurrence", "backend": "cpu", "steps": 128, "numbers": 8192, "impl": "scan"},
    {"op": "linear_recurrence", "backend": "cpu", "steps": 128, "numbers": 65536, "impl": "scan"},
    {"op": "linear_recurrence", "backend": "cpu", "steps": 1024, "numbers": 512, "impl": "scan"},
    {"op": "linear_recurrence", "backend": "cpu", "steps": 1024, "numbers": 8192, "impl": "scan"},
    {"op": "linear_recurrence", "backend": "cpu", "steps": 1024, "numbers": 65536, "impl": "scan"},
)
