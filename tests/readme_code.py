"""Runs the python blocks of a README in order, in one namespace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def python_blocks(path: str | Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / path).read_text(), flags=re.M | re.S)


def run_blocks(path: str | Path) -> dict[str, Any]:
    """The namespace after the last block."""
    namespace: dict[str, Any] = {"__name__": "readme"}
    for i, block in enumerate(python_blocks(path)):
        exec(compile(block, f"{path}[{i}]", "exec"), namespace)
    return namespace
