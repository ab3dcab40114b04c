"""Which models the quick tests compile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from jaxrl_seq.models import MODELS

MAIN = ("mlp", "gru", "s5", "mamba2", "transformer", "gtrxl")
"""One model of each kind of carry; the others are compiled in the slow tests only."""


def every_model(names: Iterable[str] = tuple(MODELS)) -> list[Any]:
    """Parameters of a test: those of `MAIN`, and the others as slow ones."""
    return [name if name in MAIN else pytest.param(name, marks=pytest.mark.slow) for name in names]
