"""What the checker of environments says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


class EnvCheckError(ValueError):
    """Something an environment must do and does not: which field, what was expected, what came, and the fix."""


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of one check."""

    check: str
    status: str
    """"ok", "failed", "warning" or "skipped"."""
    message: str = ""

    def __str__(self) -> str:
        sign = {"ok": "ok", "failed": "FAILED", "warning": "warning", "skipped": "skipped"}[self.status]
        return f"  {self.check:<12} {sign:<8} {self.message}".rstrip()


@dataclasses.dataclass(frozen=True)
class EnvReport:
    """What `check_env` found."""

    env: str
    results: tuple[Result, ...]
    cost: Mapping[str, Any]
    """Bytes of state and observation, operations of step and reset, compile seconds, the reset policy of "auto"."""

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(result.check for result in self.results if result.status == "failed")

    def __str__(self) -> str:
        head = (
            f"{self.env}: {len(self.failed)} of {len(self.results)} checks failed"
            if self.failed
            else (f"{self.env}: {sum(r.status == 'ok' for r in self.results)} checks hold")
        )
        cost = "  " + ", ".join(f"{name} {value}" for name, value in self.cost.items())
        return "\n".join([head, *map(str, self.results), *([cost] if self.cost else [])])
