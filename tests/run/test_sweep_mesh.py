"""Sweeps over eight (fake) devices: the same numbers however lanes and environments are shared out."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.readme_code import ROOT


@pytest.mark.parametrize(
    "what",
    ["supervised", "refused", *(pytest.param(what, marks=pytest.mark.slow) for what in ("online", "online-clock"))],
)
def test_on_eight_devices(what, tmp_path):
    """Tolerances are those of float32 sums in another order: 1e-6 where programs differ in their number of lanes only,
    1e-4 after eight updates of PPO whose batches are summed in two halves."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.run.sweep_on_devices", what, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
