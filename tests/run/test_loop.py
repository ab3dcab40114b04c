"""The host loop: resume is bit for bit, chunks do not matter, interrupts save, faults are named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_seq.envs import VecEnv, make
from jaxrl_seq.models import make_model
from jaxrl_seq.online import PPOHyper, make_ppo
from jaxrl_seq.run.lanes import lane
from jaxrl_seq.run.loop import train
from jaxrl_seq.run.sinks import read_rows
from tests.readme_code import ROOT

STEPS = 32 * 4 * 12  # twelve updates


@pytest.fixture(scope="module")
def learner():
    env, _ = make("tmaze,length=6")
    return make_ppo(VecEnv(env, 4), make_model("gru", width=8), num_steps=32, epochs=1, minibatches=2)


def go(learner, folder=None, steps=STEPS, **options):
    defaults: dict[str, Any] = dict(
        total_steps=steps, evaluations=2, eval_episodes=1, progress=False, checkpoint_seconds=0.0
    )
    return train(learner, PPOHyper(), run_dir=folder, **(defaults | options))


def assert_same(a, b):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=jax.tree_util.keystr(path))


def stable(rows):
    """Rows without the numbers of the clock."""
    return [{k: v for k, v in row.items() if k not in ("wall_s", "steps_per_second")} for row in rows]


class StopAfter:
    """A sink that sends SIGINT to this process when it has seen the row of `update`."""

    def __init__(self, update):
        self.update = update

    def write(self, row):
        if row["kind"] == "train" and row["update"] == self.update:
            os.kill(os.getpid(), signal.SIGINT)

    def close(self):
        pass


@pytest.mark.parametrize("num_seeds", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_interrupted_and_resumed_equals_uninterrupted(learner, tmp_path, num_seeds, capfd):
    whole = go(learner, tmp_path / "whole", num_seeds=num_seeds)
    half = go(learner, tmp_path / "parts", num_seeds=num_seeds, sinks=(StopAfter(5),), chunk_seconds=1e-9)
    assert half.summary["stopped_by"] == "SIGINT" and not half.summary["finished"]
    assert 5 <= half.summary["steps"] // learner.steps_per_update < 12
    resumed = go(learner, tmp_path / "parts", num_seeds=num_seeds, resume=True)
    assert resumed.summary["finished"]
    assert_same(whole.state, resumed.state)
    assert stable(whole.rows) == stable(resumed.rows)
    assert stable(read_rows(tmp_path / "parts" / "metrics.jsonl")) == stable(whole.rows)
    for name in ("steps", "eval_return_mean", "eval_return_ci", "eval_success"):
        assert resumed.summary[name] == whole.summary[name]


@pytest.mark.slow
def test_resume_after_kill_minus_nine(tmp_path):
    """A killed process leaves rows beyond its checkpoint; resume cuts them off and ends where the other run does."""
    words = "train ppo --env tmaze,length=6 --model gru --model.width 8 --num-envs 4 --num-steps 32 --minibatches 2 "
    words += "--total-steps 60000 --evaluations 2 --chunk-seconds 0.05 --checkpoint-seconds 0.2 --max-rows 5000"
    command = [sys.executable, "-m", "jaxrl_seq.cli", *words.split(), "--run-dir"]
    killed = subprocess.Popen([*command, str(tmp_path / "killed")], cwd=ROOT, stdout=subprocess.DEVNULL)
    checkpoints = tmp_path / "killed" / "checkpoints"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and killed.poll() is None:
        if checkpoints.is_dir() and any(p.name.isdecimal() for p in checkpoints.iterdir()):
            break
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    resume = [sys.executable, "-m", "jaxrl_seq.cli", "resume", str(tmp_path / "killed")]
    subprocess.run(resume, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*command, str(tmp_path / "whole")], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    ends = [read_rows(tmp_path / name / "metrics.jsonl") for name in ("killed", "whole")]
    assert stable(ends[0]) == stable(ends[1])


def test_chunk_length_does_not_matter(learner):
    one, many = go(learner, chunk_seconds=1e-9), go(learner, chunk_seconds=60.0)
    assert_same(one.state, many.state)
    assert stable(one.rows) == stable(many.rows)


def test_rows_cover_every_update_once(learner):
    run = go(learner, steps=32 * 4 * 11, max_rows=3)
    trained = [row for row in run.rows if row["kind"] == "train"]
    assert [row["update"] for row in trained] == [4, 8, 11]
    every = go(learner, steps=32 * 4 * 11)
    episodes = [row["episodes"] for row in every.rows if row["kind"] == "train"]
    assert [row["episodes"] for row in trained] == [sum(episodes[:4]), sum(episodes[4:8]), sum(episodes[8:])]


@pytest.mark.slow
def test_lane_of_many_equals_the_single_run(learner):
    """Lane 1 of seeds 3, 4 is the run of seed 4, to the rounding of a differently fused program."""
    both, single = go(learner, seed=3, num_seeds=2, steps=STEPS // 4), go(learner, seed=4, steps=STEPS // 4)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(lane(both.state, 1).params),
        jax.tree.leaves(single.state.params),
        strict=True,
    ):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5, err_msg=jax.tree_util.keystr(path))


def test_folder_rules(learner, tmp_path):
    go(learner, tmp_path / "run", steps=1)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match="--overwrite"):
        go(learner, tmp_path / "run", steps=1)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    with pytest.raises(ValueError, match="no run"):
        go(learner, tmp_path / "missing", resume=True)
    go(learner, tmp_path / "run", steps=1, overwrite=True)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="no config.json"):
        go(learner, tmp_path / "foreign", overwrite=True)
    assert (tmp_path / "foreign" / "thesis.tex").read_text() == "precious"


def test_resume_with_another_network_is_refused(learner, tmp_path):
    go(learner, tmp_path / "run", steps=1)
    env, _ = make("tmaze,length=6")
    other = make_ppo(VecEnv(env, 4), make_model("gru", width=16), num_steps=32, epochs=1, minibatches=2)
    with pytest.raises(ValueError, match="kernel|leaf|shape"):
        go(other, tmp_path / "run", resume=True)


def test_summary_has_the_promised_fields(learner, tmp_path):
    run = go(learner, tmp_path / "run", steps=1)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    promised = "env model learner seeds steps wall_s compile_s steps_per_second eval_return_mean eval_return_ci"
    assert set(promised.split()) | {"normalised_score", "finished"} <= set(summary)
    assert summary["finished"] is True and len(summary["eval_return_ci"]) == 2
    assert summary["steps"] == run.rows[-1]["steps"] == learner.steps_per_update


@dataclass(frozen=True)
class Poisoned:
    """A learner whose gradients are never finite after three updates, and whose state stays good."""

    steps_per_update: int = 10

    def init(self, key, hyper):
        return {"params": jnp.zeros(2), "n": jnp.int32(0)}

    def update(self, state, hyper):
        bad = state["n"] >= 3
        metrics = {"loss": jnp.where(bad, jnp.nan, 1.0), "skipped": bad.astype(jnp.float32)}
        return {"params": state["params"], "n": state["n"] + 1}, metrics

    def default_hyper(self):
        return {"lr": 0.1}


def test_a_run_that_cannot_recover_stops_in_words(tmp_path):
    with pytest.warns(RuntimeWarning, match="not finite"), pytest.raises(FloatingPointError, match="last good"):
        train(Poisoned(), run_dir=tmp_path / "run", total_steps=1000, progress=False, patience_bad_rows=5)
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["loss"] is None and rows[0]["loss"] == 1.0
    assert not json.loads((tmp_path / "run" / "summary.json").read_text())["finished"]


@pytest.mark.parametrize("field", ["total_steps", "num_seeds", "max_rows"])
def test_impossible_options(learner, field):
    with pytest.raises(ValueError, match=field):
        train(learner, **{field: 0})  # pyright: ignore[reportArgumentType]
