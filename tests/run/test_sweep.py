"""Sweeps: a lane is its single run, what differs in numbers shares a compilation, and nothing is lost on the way."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jaxrl_seq.cli import main
from jaxrl_seq.envs import VecEnv, make
from jaxrl_seq.models import make_model
from jaxrl_seq.online import PPOHyper, make_ppo
from jaxrl_seq.run import sweep as sweeping
from jaxrl_seq.run.config import parse_train
from jaxrl_seq.run.lanes import Settings, lane
from jaxrl_seq.run.loop import train
from jaxrl_seq.run.sinks import read_rows
from jaxrl_seq.run.sweep import sweep
from jaxrl_seq.run.sweep_plan import log_uniform, plan, read_toml, uniform, words_of
from tests.readme_code import ROOT

SMALL = {
    "env": "tmaze,length=5",
    "model": {"name": "mlp", "width": 8},
    **{"num_envs": 4, "num_steps": 12, "minibatches": 2, "epochs": 1},
    **{"total_steps": 480, "evaluations": 2, "eval_episodes": 1},
}


def lanes_of(parts):
    """Every lane as (words of its compilation, seed, swept values)."""
    return [
        (part.words, seed, {name: column[i] for name, column in part.settings.values})
        for part in parts
        for i, seed in enumerate(part.settings.seeds)
    ]


# ---- what a sweep is made of ----


def test_numbers_share_a_compilation_and_static_choices_do_not():
    words = words_of(SMALL | {"model": {"name": ["mlp", "gru"], "width": 8}, "lr": [1e-3, 1e-2], "num_seeds": 3})
    parts = plan("ppo", words)
    assert [part.settings.num for part in parts] == [6, 6]
    assert [part.settings.swept for part in parts] == [("lr",), ("lr",)]
    assert [part.labels[0]["model"] for part in parts] == ["mlp", "gru"]
    for part in parts:
        assert part.labels[4] == {"model": part.labels[0]["model"], "lr": 1e-2, "seed": 1}


def test_presets_that_are_numbers_share_a_compilation():
    """Noise is traced, a corridor's length is a shape."""
    noisy = plan("ppo", words_of({"env": [f"noisy_position_only_cartpole-{p}" for p in ("easy", "medium", "hard")]}))
    assert len(noisy) == 1
    assert dict(noisy[0].settings.values) == {"env_params.noise": pytest.approx((0.1, 0.2, 0.3))}
    assert len(plan("ppo", words_of({"env": ["tmaze-10", "tmaze-20"]}))) == 2


@given(
    lrs=st.lists(st.floats(1e-5, 1.0), min_size=1, max_size=4),
    gammas=st.lists(st.floats(0.0, 1.0), max_size=3),
    seeds=st.integers(1, 3),
    pieces=st.integers(1, 5),
)
@settings(max_examples=8, deadline=None, derandomize=True)
def test_every_combination_is_one_lane(lrs, gammas, seeds, pieces):
    """Also after a part was cut into groups, or filled up for a mesh."""
    fields = SMALL | {"lr": lrs, "num_seeds": seeds} | ({"gamma": gammas} if gammas else {})
    (part,) = plan("ppo", words_of(fields))
    config = parse_train("ppo", list(part.words))
    got = [{"lr": config.hyper.lr, "gamma": config.hyper.gamma} | values for _, _, values in lanes_of([part])]
    want = [(lr, g, s) for lr in lrs for g in gammas or [0.99] for s in range(seeds)]
    assert sorted((v["lr"], v["gamma"], s) for v, s in zip(got, part.settings.seeds, strict=True)) == sorted(want)
    assert lanes_of(part.cut(pieces)) == lanes_of([part])
    filled = part.settings.padded(part.settings.num + pieces)
    assert filled.part(0, part.settings.num) == part.settings and filled.num == part.settings.num + pieces


def test_draws_lie_in_their_ranges_and_do_not_depend_on_each_other():
    fields = SMALL | {"lr": log_uniform(1e-4, 1e-2), "gamma": uniform(0.9, 0.99)}
    (part,) = plan("ppo", words_of(fields), samples=40)
    lr, gamma = (np.array(dict(part.settings.values)[name]) for name in ("lr", "gamma"))
    assert len(set(lr)) == 40 and lr.min() >= 1e-4 and lr.max() <= 1e-2 and gamma.min() >= 0.9 and gamma.max() <= 0.99
    assert 10 <= (lr < 1e-3).sum() <= 30  # a half of the logarithms; a tenth, were they drawn uniformly
    (alone,) = plan("ppo", words_of(SMALL | {"lr": log_uniform(1e-4, 1e-2)}), samples=40)
    assert dict(alone.settings.values)["lr"] == tuple(lr)
    (other,) = plan("ppo", words_of(fields), samples=40, sample_seed=1)
    assert dict(other.settings.values)["lr"] != tuple(lr)


FILE = """
learner = "ppo"
env = "tmaze,length=5"
num_envs = 4
num_steps = 12
minibatches = 2
epochs = 1
total_steps = 480
evaluations = 2
eval_episodes = 1
lr = [1e-3, 1e-2]
gamma = { uniform = [0.9, 0.99] }
anneal_lr = false
[model]
name = ["mlp", "gru"]
width = 8
"""


def test_flags_files_and_python_are_the_same(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(FILE)
    learner, filed = read_toml(path)
    fields = SMALL | {"model": {"name": ["mlp", "gru"], "width": 8}, "lr": [1e-3, 1e-2]}
    fields |= {"gamma": uniform(0.9, 0.99), "anneal_lr": False}
    flags = "--env=tmaze,length=5 --model mlp gru --model.width 8 --num-envs 4 --num_steps 12 --minibatches 2 --epochs "
    flags += (
        "1 --total-steps 480 --evaluations 2 --eval-episodes 1 --lr 1e-3 1e-2 --gamma uniform:0.9:0.99 --no-anneal-lr"
    )
    plans = [plan(learner, words, samples=3) for words in (filed, words_of(fields), flags.split())]
    assert learner == "ppo"
    for parts in plans:
        assert [part.settings for part in parts] == [part.settings for part in plans[0]]
        assert [part.labels for part in parts] == [part.labels for part in plans[0]]
        for part, first in zip(parts, plans[0], strict=True):
            assert parse_train("ppo", list(part.words)) == parse_train("ppo", list(first.words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--lrr 1e-3 1e-2", "Unknown field of sweep ppo 'lrr'. Did you mean 'lr'"),
        ("--lr 1e-3 fast", "--lr fast: a number"),
        ("--lr log:0:1", "LOW must be below HIGH, and above 0"),
        ("--lr log:1:0.1", "LOW must be below HIGH"),
        ("--model.width uniform:8:16", "model.width is static"),
        ("--seed 1 2", "Use --num-seeds"),
        ("--mesh seed=1 seed=2", "one value for the whole sweep"),
        ("--anneal-updates 3 4", "set by the run itself"),
        ("--samples 3", "there is none"),
        ("--samples 0 --lr log:1e-4:1e-3", "at least 1, got 0"),
        ("1e-3 --lr 1e-4", "is no flag"),
        ("--num-envs 5 6 --minibatches 4", "not divisible by minibatches"),
        ("--model gru grue", "Did you mean 'gru'"),
        ("--mesh seed=64 --dry-run", "needs 64 devices, but there "),
        ("--mesh lanes=2 --dry-run", "Unknown mesh axis 'lanes'"),
        ("--mesh seed=two --dry-run", "write sizes of at least 1"),
    ],
)
def test_what_cannot_be_is_refused_in_words(words, message, capsys, tmp_path):
    """Before anything is compiled or written."""
    assert main(["sweep", "ppo", *words.split(), "--run-dir", str(tmp_path / "no")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_files_are_refused_in_words(tmp_path, capsys):
    for text, message in (("lr = [1", "sweep.toml"), ("lr = 1.0", 'begin with learner = "ppo"')):
        (tmp_path / "sweep.toml").write_text(text)
        assert main(["sweep", str(tmp_path / "sweep.toml")]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "sweep.toml").write_text('learner = "ppo"\ntrail.episodes = 4\n')
    assert main(["sweep", str(tmp_path / "sweep.toml")]) == 2
    assert "Did you mean 'trial.episodes'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_steps": (1, 2)}, "num_steps cannot differ between lanes of one compilation"),
        ({"lrs": (1, 2)}, "PPOHyper has no number 'lrs' to sweep. Traced are lr, gamma"),
        ({"lr": (1.0, 2.0, 3.0)}, "lr has 3 values for 2 lanes"),
    ],
)
def test_lanes_that_differ_in_what_is_static_are_refused(learner, values, message):
    with pytest.raises(ValueError, match=message):
        go(learner, settings=Settings((0, 1), tuple(values.items())))


# ---- the laws ----


@pytest.fixture(scope="module")
def learner():
    """That of SMALL: tests share its compilations."""
    env, _ = make("tmaze,length=5")
    return make_ppo(VecEnv(env, 4), make_model("mlp", width=8), num_steps=12, epochs=1, minibatches=2)


def go(learner, folder=None, lr=None, **options):
    """Four lanes of it, or with `lr` the single run of the last."""
    defaults = dict(total_steps=480, evaluations=2, eval_episodes=1, progress=False, checkpoint_seconds=0.0)
    hyper = PPOHyper(env_params=make("tmaze,length=5")[1])
    hyper = hyper if lr is None else hyper.replace(lr=lr, gamma=GRID["gamma"][-1])
    return train(learner, hyper, run_dir=folder, **(defaults | options))


GRID = {"lr": (1e-3, 1e-2), "gamma": (0.9, 0.99)}


def assert_close(a, b, tolerance):
    """Leaf for leaf; keys and counts exactly (tolerance 0: everything)."""
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=tolerance, atol=tolerance, err_msg=name)


def test_a_lane_of_ppo_is_its_single_run(learner):
    """To 1e-4 after ten updates: XLA fuses the batched program differently, so sums round differently."""
    many = go(learner, settings=Settings.grid(seeds=(3,), **GRID))
    alone = go(learner, lr=1e-2, seed=3, evaluations=0)
    assert_close(lane(many.state, 3), alone.state, 1e-4)
    for ours, theirs in zip([row for row in many.rows if row["kind"] == "train"], alone.rows, strict=True):
        assert ours["return_mean"][3] == pytest.approx(theirs["return_mean"], abs=1e-5)
    first, last = (np.asarray(lane(many.state, i).params["params"]["policy_head"]["kernel"]) for i in (0, 1))
    assert np.abs(first - last).max() > 1e-4  # the same seed, another gamma


@pytest.mark.slow
def test_a_lane_of_a_supervised_learner_is_its_single_run():
    """Algorithm Distillation: its histories are shared by all lanes, its numbers are not."""
    words = (
        "--env darkroom,size=3,limit=4 --trial.episodes 3 --model mlp --model.width 8 --window 8 --batch 4 --source-"
    )
    words += "episodes 3 --total-steps 320 --evaluations 0"
    config = parse_train("ad-eps", words.split())
    built, hyper = config.build()
    options = dict(vars(config.run), progress=False)
    many = train(built, hyper, settings=Settings.grid((5,), lr=(1e-3, 1e-2), weight_decay=(0.0, 0.1)), **options)
    alone = train(built, hyper.replace(lr=1e-2, weight_decay=0.1), **(options | {"seed": 5}))
    assert_close(lane(many.state, 3), alone.state, 1e-4)
    assert many.rows[-1]["loss"][3] == pytest.approx(alone.rows[-1]["loss"], rel=1e-4)


def test_a_lane_that_is_not_finite_freezes_alone(learner, recwarn):
    """The others are bit for bit what they are beside a good one; the frozen one keeps its last good parameters."""
    good = go(learner, settings=Settings.grid((0,), **GRID))
    bad = go(learner, settings=Settings.grid((0,), **(GRID | {"lr": (1e-3, float("inf"))})))
    for i in (0, 1):
        assert_close(lane(bad.state, i), lane(good.state, i), 0)
    frozen = lane(bad.state, 2)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(frozen.params))
    assert int(frozen.update) == 0 and int(lane(bad.state, 0).update) == 10
    assert [row["frozen"] for row in bad.rows if row["kind"] == "train"] == [[0.0, 0.0, 1.0, 1.0]] * 10
    assert bad.rows[-1]["return_mean"][2] is not None
    assert any("Lanes 2, 3 would no longer be finite" in str(w.message) for w in recwarn)
    with pytest.raises(FloatingPointError, match="last good"):  # nobody is left
        go(learner, settings=Settings.grid((0, 1), lr=(float("inf"),), gamma=(0.9, 0.99)), patience_bad_rows=5)


# ---- folders ----


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Eight lanes in two compilations."""
    folder = tmp_path_factory.mktemp("sweep") / "whole"
    return sweep("ppo", run_dir=folder, progress=False, **FIELDS)


FIELDS = SMALL | {"epochs": [1, 2], **GRID, "checkpoint_seconds": 0.0}


def stable(folder):
    """Rows of both parts without the numbers of the clock."""
    clock = ("wall_s", "steps_per_second")
    rows = [row for n in range(2) for row in read_rows(folder / "parts" / f"{n:02d}" / "metrics.jsonl")]
    return [{k: v for k, v in row.items() if k not in clock} for row in rows]


def test_results_have_a_row_a_lane(finished):
    with (finished.folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["epochs"], float(row["lr"]), float(row["gamma"]), row["seed"]) for row in rows] == [
        (epochs, lr, gamma, "0") for epochs in ("1", "2") for lr in GRID["lr"] for gamma in GRID["gamma"]
    ]
    for row in rows:
        assert row["finished"] == "True" and row["health"] == "good" and row["steps"] == "480"
        low, mean, high = (float(row[f"final_{part}"]) for part in ("low", "return", "high"))
        assert low <= mean <= high and float(row["best_return"]) >= mean and float(row["wall_s"]) > 0
    evaluated = [row for row in read_rows(finished.folder / "parts" / "01" / "metrics.jsonl") if row["kind"] == "eval"]
    assert [float(row["final_return"]) for row in rows[4:]] == evaluated[-1]["return_mean"]
    best = json.loads((finished.folder / "summary.json").read_text())["best"]
    assert best["return_mean"] == max(float(row["final_return"]) for row in rows)


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_as_uninterrupted(finished, tmp_path, monkeypatch):
    """Here without a signal, in the middle of the second part; `kill -9` of the process itself is a slow test."""

    class Killed(BaseException):
        pass

    class Console:
        def __init__(self, learner, parts):
            self.rows = 0

        def of(self, part):
            return self

        def write(self, row):
            self.rows += 1
            if self.rows == 17:
                raise Killed

        def close(self):
            pass

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(sweeping, "_Console", Console)
        sweep("ppo", run_dir=tmp_path / "killed", **(FIELDS | {"chunk_seconds": 1e-9}))
    assert (tmp_path / "killed" / "parts" / "01").is_dir()
    assert main(["resume", str(tmp_path / "killed")]) == 0
    assert stable(tmp_path / "killed") == stable(finished.folder)
    assert main(["resume", str(tmp_path / "killed")]) == 0  # and again changes nothing
    assert stable(tmp_path / "killed") == stable(finished.folder)


def test_folders_are_kept(finished, capsys):
    with pytest.raises(ValueError, match="--overwrite"):
        sweep("ppo", run_dir=finished.folder, progress=False, **FIELDS)
    assert main(["eval", str(finished.folder / "parts" / "00")]) == 2
    assert "made by `jaxrl-seq train`" in capsys.readouterr().err


@pytest.mark.slow
def test_lanes_that_do_not_fit_are_run_in_groups(finished, tmp_path):
    """Each lane is what it was among all of them, to rounding."""
    fields = FIELDS | {"epochs": 1, "evaluations": 0}
    need = train_memory(fields)
    groups = sweep("ppo", run_dir=tmp_path / "groups", progress=False, memory_gb=0.7 * need / 1e9, **fields)
    assert sorted(p.name for p in (groups.folder / "parts").iterdir()) == ["00", "01"]
    assert [row["part"] for row in groups.rows] == [0, 0, 1, 1]
    assert [row["lr"] for row in groups.rows] == [1e-3, 1e-3, 1e-2, 1e-2]
    whole = [row["return_mean"] for row in stable(finished.folder) if row["kind"] == "train"][:10]
    parts = [row["return_mean"] for row in stable(groups.folder)]
    assert [a + b for a, b in zip(parts[:10], parts[10:], strict=True)] == [
        pytest.approx(row, abs=1e-5) for row in whole
    ]
    with pytest.raises(ValueError, match="Not even 1 lanes fit.*GB"):
        sweep("ppo", run_dir=tmp_path / "none", progress=False, memory_gb=1e-7, **fields)


def train_memory(fields):
    """Bytes that the updates of all lanes need."""
    from jaxrl_seq.run.programs import compile_programs

    (part,) = plan("ppo", words_of(fields))
    built, hyper = parse_train("ppo", list(part.words)).build()
    return compile_programs(built, hyper, part.settings, 1, 0).memory


@pytest.mark.slow
def test_kill_minus_nine(tmp_path):
    words = (
        "sweep ppo --env tmaze,length=6 --model gru mlp --model.width 8 --num-envs 4 --num-steps 32 --minibatches 2 "
    )
    words += "--lr 1e-3 1e-2 --total-steps 40000 --evaluations 2 --chunk-seconds 0.05 --checkpoint-seconds 0.2"
    command = [sys.executable, "-m", "jaxrl_seq.cli", *words.split(), "--run-dir"]
    killed = subprocess.Popen([*command, str(tmp_path / "killed")], cwd=ROOT, stdout=subprocess.DEVNULL)
    checkpoints = tmp_path / "killed" / "parts" / "01" / "checkpoints"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and killed.poll() is None:
        if checkpoints.is_dir() and any(p.name.isdecimal() for p in checkpoints.iterdir()):
            break
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (checkpoints.parent / "summary.json").exists()  # it was killed in the middle
    resume = [sys.executable, "-m", "jaxrl_seq.cli", "resume", str(tmp_path / "killed")]
    subprocess.run(resume, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*command, str(tmp_path / "whole")], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert stable(tmp_path / "killed") == stable(tmp_path / "whole")
