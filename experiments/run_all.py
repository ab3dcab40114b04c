"""Every experiment, one after the other, then the table: `python -m experiments.run_all [--scale gpu] [--seeds N]`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SHARED = {"__init__", "common", "offline_lab", "table", "run_all"}


def main() -> None:
    folder = Path(__file__).parent
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem not in _SHARED)
    for name in names:
        print(f"== {name}", flush=True)
        # A process each, so that one experiment's memory and caches cannot touch the next one's numbers.
        subprocess.run([sys.executable, "-m", f"experiments.{name}", *sys.argv[1:]], check=True, cwd=folder.parent)


if __name__ == "__main__":
    main()
