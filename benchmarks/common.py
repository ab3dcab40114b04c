"""What the benchmarks share: a table for people, a JSON file for machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jaxrl_seq.run.catalogue import table
from jaxrl_seq.run.env_info import describe_devices, environment_info
from jaxrl_seq.run.sinks import jsonable

RESULTS = Path(__file__).parent / "results"


def publish(name: str, rows: list[dict[str, Any]], note: str) -> Path:
    """Print `rows` and write them, with the machine they were measured on, to results/NAME-PLATFORM.json."""
    info = environment_info()
    platform = info["devices"][0]["platform"]
    path = RESULTS / f"{name}-{platform}.json"
    path.parent.mkdir(exist_ok=True)
    record = {"name": name, "note": note, "device": describe_devices(), "environment": info, "rows": rows}
    path.write_text(json.dumps(jsonable(record), indent=1) + "\n")
    print(f"\n{table(rows)}\n\n{note}\n{describe_devices()}; written to {path.parent.name}/{path.name}")
    return path
