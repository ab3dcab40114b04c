"""Several real processes as one run: the numbers of one process; a killed one ends all of them, and resume is exact."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxrl_seq.cli import main
from jaxrl_seq.run.distributed import EXIT_LOST
from jaxrl_seq.run.sinks import read_rows
from tests.readme_code import ROOT

WORDS = (
    "sweep ppo --env tmaze,length=5 --model mlp --model.width 8 --num-envs 4 --num-steps 12 --minibatches 2 --epochs 1 "
)
WORDS += "--lr 1e-3 3e-3 1e-2 --evaluations 1 --eval-episodes 1 --chunk-seconds 0.05 --checkpoint-seconds 0.5"


def start(number, words, others=None):
    """The processes of one run; `others`: what the last one is told instead."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "jaxrl_seq.cli", *(others if others and i == number - 1 else words).split()]
            + ["--hosts", f"localhost:{port},{number},{i}"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(number)
    ]


def ends(processes, timeout=600):
    """(exit code, output, errors) of each."""
    texts = [process.communicate(timeout=timeout) for process in processes]
    return [(process.returncode, *text) for process, text in zip(processes, texts, strict=True)]


def returns(folder):
    rows = read_rows(folder / "parts" / "00" / "metrics.jsonl")
    return [(row["kind"], row["update"], row.get("policy_loss"), row["return_mean"]) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 4])
def test_one_of_several_processes_is_killed(number, tmp_path):
    """The others end in words with the code for `start again`; started again, all end bit for bit as uninterrupted."""
    words = f"{WORDS} --total-steps 14400"
    whole = ends(start(number, f"{words} --run-dir {tmp_path}/whole"))
    assert [code for code, *_ in whole] == [0] * number, whole
    assert "best setting" in whole[0][1] and not any("best setting" in out for _, out, _ in whole[1:])

    processes = start(number, f"{words} --run-dir {tmp_path}/killed")
    checkpoints = tmp_path / "killed" / "parts" / "00" / "checkpoints"
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and all(process.poll() is None for process in processes):
        if checkpoints.is_dir() and any(p.name.isdecimal() for p in checkpoints.iterdir()):
            break
        time.sleep(0.05)
    processes[-1].send_signal(signal.SIGKILL)
    codes = ends(processes)
    for code, _, errors in codes[:-1]:
        assert code == EXIT_LOST and "another process of this run is gone" in errors, (code, errors[-2000:])
    assert not (checkpoints.parent / "summary.json").exists()

    resumed = ends(start(number, f"resume {tmp_path}/killed"))
    assert [code for code, *_ in resumed] == [0] * number, resumed
    assert returns(tmp_path / "killed") == returns(tmp_path / "whole")


@pytest.mark.slow
def test_processes_agree_with_one_and_go_on_as_one(tmp_path):
    words = f"{WORDS} --total-steps 480"
    assert [code for code, *_ in ends(start(2, f"{words} --run-dir {tmp_path}/two"))] == [0, 0]
    assert main([*words.split(), "--run-dir", str(tmp_path / "one")]) == 0
    for ours, theirs in zip(returns(tmp_path / "two"), returns(tmp_path / "one"), strict=True):
        assert ours[:2] == theirs[:2]
        np.testing.assert_allclose(np.array(ours[3], float), np.array(theirs[3], float), atol=1e-5)


@pytest.mark.slow
def test_hosts_that_disagree_say_so(tmp_path):
    """Before anything is compiled or written."""
    words = f"{WORDS} --total-steps 480 --run-dir {tmp_path}/no"
    done = ends(start(2, words, words.replace("--lr 1e-3", "--lr 2e-3")))
    for code, _, errors in done:
        assert code == 2 and "Process 1 has another sweep than process 0" in errors, errors
    assert not (tmp_path / "no" / "config.json").exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [("one", "auto, or ADDRESS:PORT"), ("a:1,2", "auto, or ADDRESS"), ("a:1,2,2", "the last one is 1, not 2")],
)
def test_hosts_are_refused_in_words(spec, message, capsys):
    assert main(["sweep", "ppo", "--hosts", spec]) == 2
    assert message in capsys.readouterr().err
