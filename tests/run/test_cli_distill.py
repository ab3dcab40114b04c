"""The command line of in-context learning: collect, train each distilled learner, evaluate, render, resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jaxrl_seq.cli import main
from jaxrl_seq.run.config import load, parse_train
from jaxrl_seq.run.loop import Run, train

ROOM = "--env darkroom,size=3,limit=4 --trial.episodes 6 --trial.held-out 0.3"
SHORT = "--window 8 --batch 4 --model.width 8 --total-steps 320 --evaluations 1 --eval-episodes 1"
SOURCE = "--source-episodes 12 --every 2 --streams 3"
BANDIT = "--env bernoulli_bandit,arms=5,pulls=8 --window 8 --batch 4 --model.width 8 --total-steps 320 --evaluations 1"


def run(line: str) -> int:
    return main(line.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ad")
    assert run(f"train ad {ROOM} {SHORT} {SOURCE} --run-dir {path}/ad") == 0
    return path / "ad"


def test_a_distilled_run_is_a_run(folder: Path):
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["learner"], summary["model"], summary["finished"]) == ("ad", "gru", True)
    assert summary["eval_return_mean"] is not None and summary["reference"]["expert"] > 2
    assert (folder / "report.html").is_file() and (folder / "videos" / "final.gif").is_file()
    judged = json.loads((folder / "in_context.json").read_text())
    assert judged["held_out"] and {"agent", "oracle", "random", "zero reward", "wrong task"} <= set(judged["rows"])


@pytest.mark.slow
def test_a_distilled_run_is_judged_shown_and_resumed(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run(f"eval {folder} --in-context 8") == 0
    assert "oracle" in capsys.readouterr().out
    assert json.loads((folder / "in_context.json").read_text())["episodes"] == 8
    assert run(f"render {folder.parent}/none --policy {folder}") == 2
    assert run(f"render darkroom,size=3,limit=4 --policy {folder} --ascii --episodes 1") == 0
    assert "episode 2" in capsys.readouterr().out
    config = load(folder)
    assert (config.LEARNER, config.origin.every, config.trial.held_out) == ("ad", 2, 0.3)
    before = (folder / "metrics.jsonl").read_bytes()
    assert run(f"resume {folder}") == 0
    assert (folder / "metrics.jsonl").read_bytes() == before


def trained(line: str) -> Run:
    """The run that `jaxrl-seq train LINE` makes, without folder and report."""
    learner, *flags = line.split()
    config = parse_train(learner, flags)
    options = vars(config.run) | {"evaluations": 0}
    return train(*config.build(), progress=False, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        f"ad-eps {ROOM} {SHORT} --source noisy-expert,max_performance=0.5 --source-episodes 6 --order single",
        f"dpt {ROOM} {SHORT} --streams 3 --source-episodes 4 --commit episode",
        f"dpt {BANDIT} --trial.episodes 1 --fresh --source dpt-behaviour --trial.held-out 0",
        f"headless-ad {BANDIT} --arms 2 3 --streams 8",
    ],
    ids=["ad-eps", "dpt", "dpt-fresh", "headless-ad"],
)
def test_each_learner_trains(line: str):
    run = trained(line)
    assert run.summary["finished"] and run.summary["learner"] == line.split()[0]
    assert 0.3 < run.rows[-1]["loss"] < 2


def test_histories_from_a_file_give_the_same_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "h.npz"
    trial = ROOM.replace("--trial.episodes 6", "")
    assert run(f"collect histories {trial} {SOURCE} --out {file}") == 0
    assert "18 streams of 24 steps" in capsys.readouterr().out  # 6 of 9 tasks
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    again = trained(f"ad {ROOM} {SHORT} --histories {file}")
    assert [row["loss"] for row in again.rows] == losses
    capsys.readouterr()
    assert run(f"train ad {ROOM} {SHORT} --trial.seed 1 --histories {file}") == 2
    assert "tested on what it learnt from" in capsys.readouterr().err
    assert run(f"train ad {ROOM.replace('limit=4', 'limit=5')} {SHORT} --histories {file}") == 2
    assert "was made in darkroom,size=3,limit=4" in capsys.readouterr().err
    assert run(f"train dpt {ROOM} {SHORT} --histories {file}") == 2
    assert "no optimal actions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("collect", "Say what to collect"),
        ("collect histories --out h.txt", ".npz"),
        ("collect histories --env tmaze", "has no tasks"),
        ("train ad --env tmaze", "has no tasks"),
        ("train ad --env darkroom --trial.held-out 0.001", "leaves none to test"),
        ("train ad --env bernoulli_bandit --trial.held-out 0", "keeps a table of states"),
        (f"train ad {ROOM} {SHORT} {SOURCE} --source q-lerning", "Did you mean 'q-learning'"),
        (f"train dpt {BANDIT} --trial.episodes 1 --trial.held-out 0 --fresh --source ucb,bonsu=1", "of ucb 'bonsu'"),
        (f"train ad {ROOM} {SHORT} {SOURCE} --window 25", "do not fit into histories of 24"),
        (f"train ad {ROOM} {SHORT} {SOURCE} --every 0", "must be at least 1"),
        (f"train ad {ROOM} --trial.episodes 0 {SHORT}", "--trial.episodes"),
        ("train headless-ad --arms 3 40", "40 actions need an action_width"),
        (f"train ad {ROOM} {SHORT} {SOURCE} --model transformer --model.window 2 --model.heads 2", "sees"),
    ],
)
def test_bad_input_is_refused_in_words(
    line: str, words: str, capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert run(line) == 2
    assert words in capsys.readouterr().err
