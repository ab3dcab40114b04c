"""Finite checks, the rules of run folders, locks, signals, and what is written down about a machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_seq.run import env_info
from jaxrl_seq.run.health import Interrupts, RunLock, check_free_space, first_nonfinite, prepare_run_dir


def test_first_nonfinite_names_the_leaf():
    tree = {
        "count": jnp.int32(3),
        "key": jax.random.key(0),
        "params": {"w": jnp.ones((3, 3)), "b": jnp.zeros(3, jnp.bfloat16), "empty": jnp.zeros((0,))},
        "host": [np.float64(1e300), 2.0, None],
    }
    assert first_nonfinite(tree) is None
    assert first_nonfinite({**tree, "params": {"b": jnp.array([0, jnp.nan], jnp.bfloat16)}}) == "params/b"
    assert first_nonfinite({**tree, "host": [0.0, float("-inf")]}) == "host/1"
    assert first_nonfinite({"a": np.array([np.inf]), "b": jnp.nan}) == "a"
    assert first_nonfinite({}) is None


def test_free_space(tmp_path, monkeypatch):
    check_free_space(tmp_path / "not" / "there" / "yet", 1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2_000_000))
    with pytest.raises(OSError, match=r"5\.0 MB needed but 2\.0 MB free"):
        check_free_space(tmp_path, 5_000_000)


def make_run(folder: Path) -> Path:
    (folder / "checkpoints" / "5").mkdir(parents=True)
    (folder / "videos").mkdir()
    for name in ("config.json", "metrics.jsonl", "notes.txt"):
        (folder / name).write_text("{}")
    return folder


def test_a_new_or_empty_folder_is_taken(tmp_path):
    assert prepare_run_dir(tmp_path / "a" / "b").is_dir()
    assert prepare_run_dir(tmp_path / "a" / "b", overwrite=True).is_dir()


def test_an_earlier_run_is_refused_or_cleared_of_what_runs_write(tmp_path):
    folder = make_run(tmp_path / "run")
    with pytest.raises(ValueError, match=r"(?s)jaxrl-seq resume .*--overwrite"):
        prepare_run_dir(folder)
    assert (folder / "metrics.jsonl").exists()
    prepare_run_dir(folder, overwrite=True)
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]


def test_overwrite_follows_no_links(tmp_path):
    folder, outside = make_run(tmp_path / "run"), tmp_path / "precious"
    outside.mkdir()
    (outside / "file").write_text("x")
    shutil.rmtree(folder / "videos")
    (folder / "videos").symlink_to(outside)
    prepare_run_dir(folder, overwrite=True)
    assert (outside / "file").exists() and not (folder / "videos").exists()


def test_a_folder_of_other_things_is_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"no config\.json"):
            prepare_run_dir(tmp_path, overwrite)
    with pytest.raises(ValueError, match="is a file"):
        prepare_run_dir(tmp_path / "thesis.tex", overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "x"


HOLDER = """
import sys, time
from jaxrl_seq.run.health import RunLock
with RunLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(env_info.__file__).parents[2])}


def test_the_lock_holds_against_other_processes_and_dies_with_its_owner(tmp_path):
    folder = make_run(tmp_path / "run")
    command = [sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=f"in use by process {process.pid} on"), RunLock(folder):
        pass
    with pytest.raises(ValueError, match="in use"):
        prepare_run_dir(folder, overwrite=True)
    assert (folder / "metrics.jsonl").exists()
    process.kill()
    process.communicate()
    with RunLock(folder):  # no stale lock to clear by hand
        assert f"process {os.getpid()}" in (folder / "run.lock").read_text()
    assert not (folder / "run.lock").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_become_a_flag_and_handlers_come_back(number, capfd):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupts() as interrupts:
        assert not interrupts.requested and interrupts.signal_name is None
        signal.raise_signal(number)
        assert interrupts.requested and interrupts.signal_name == signal.Signals(number).name
        signal.raise_signal(signal.SIGTERM)  # a scheduler may repeat itself
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert "finishing this chunk" in capfd.readouterr().err


def test_other_threads_install_nothing():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with Interrupts() as interrupts:
            seen.append((signal.getsignal(signal.SIGINT), interrupts.requested))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


def test_environment_info_is_json_without_paths(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/secret/place --xla_gpu_deterministic_ops=true")
    info = env_info.environment_info()
    text = json.dumps(info)
    assert info["packages"]["jax"] == jax.__version__ and info["devices"][0]["count"] >= 1
    assert info["xla_flags"] == "--xla_dump_to=<path> --xla_gpu_deterministic_ops=true"
    assert "/secret" not in text and str(Path.home()) not in text
    assert env_info.describe_devices().startswith(f"{jax.device_count()} x ")


def test_git_state(tmp_path, monkeypatch):
    def git(*args):
        who = ["-c", "user.name=n", "-c", "user.email=e@localhost"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *args], check=True, capture_output=True)

    module = tmp_path / "env_info.py"
    module.write_text("x = 1\n")
    monkeypatch.setattr(env_info, "__file__", str(module))
    git("init")
    assert env_info._git() is None  # no commit yet
    git("commit", "--allow-empty", "-m", "first")
    assert env_info._git() is None  # this file is not part of that checkout
    git("add", ".")
    git("commit", "-m", "second")
    state = env_info._git()
    assert state is not None and len(state["commit"]) == 40 and state["dirty"] is False
    module.write_text("x = 2\n")
    assert env_info._git() == {**state, "dirty": True}
