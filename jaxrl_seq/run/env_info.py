"""What a run ran on: versions, devices, git state. No folder of this machine is ever written down."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "jaxrl_seq")


def environment_info() -> dict[str, Any]:
    """A JSON dictionary: python, packages, platform, devices [{kind, platform, count}], cpu_cores, git,
    flags, date.

    `git` is {commit, dirty} where this package lies in a git checkout, else None. Asking for the devices
    starts jax.
    """
    return {
        "date_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "devices": _devices(),
        "cpu_cores": _cores(),
        "git": _git(),
        "xla_flags": re.sub(r"=\S*/\S*", "=<path>", os.environ.get("XLA_FLAGS", "")),
        "jax_enable_x64": bool(jax.config.read("jax_enable_x64")),
    }


def describe_devices() -> str:
    """One line for the console: '1 x cpu (2 cores)', '8 x NVIDIA H200'."""
    parts = [f"{d['count']} x {d['kind']}" for d in _devices()]
    cores = f" ({_cores()} cores)" if jax.default_backend() == "cpu" else ""
    return ", ".join(parts) + cores


def device_memory() -> int | None:
    """Bytes that a device of this process may use; on a CPU its share of what is free. None where nobody tells."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    found = re.search(r"MemAvailable:\s+(\d+) kB", _text("/proc/meminfo"))
    limit, used = (_text(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    free = [1024 * int(found[1])] if found else []
    free += [int(limit) - int(used)] if limit.isdecimal() and used.isdecimal() else []
    return min(free) // jax.local_device_count() if free else None


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _devices() -> list[dict[str, Any]]:
    counts = Counter((d.device_kind, d.platform) for d in jax.devices())
    return [{"kind": kind, "platform": name, "count": count} for (kind, name), count in counts.items()]


def _cores() -> int:
    """Cores this process may use, which in a container is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # a checkout on the path, not installed
        return getattr(sys.modules.get(name), "__version__", None)


def _git() -> dict[str, Any] | None:
    commit = _ask_git("rev-parse", "HEAD")
    # A wheel installed below somebody's own checkout must not borrow that checkout's commit.
    if not commit or not _ask_git("ls-files", Path(__file__).name):
        return None
    return {"commit": commit, "dirty": bool(_ask_git("status", "--porcelain", "--untracked-files=no"))}


def _ask_git(*args: str) -> str | None:
    """The answer of git beside this file; None without git, outside a checkout, or after 10 s."""
    command = ["git", "-C", str(Path(__file__).parent), *args]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
