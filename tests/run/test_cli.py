"""The command line: what it prints, what it refuses, and with which exit code."""

from __future__ import annotations

import json

import pytest

from jaxrl_seq.cli import main
from jaxrl_seq.run.config import load, parse_train
from jaxrl_seq.run.in_context import show

SMALL = "--env tmaze,length=5 --model gru --model.width 8 --num-envs 4 --num-steps 12 --minibatches 2 --epochs 1"
SHORT = SMALL + " --total-steps 200 --evaluations 1 --eval-episodes 1"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "ppo", *SHORT.split(), "--run-dir", str(folder)]) == 0
    return folder


def test_train_leaves_a_whole_folder(run):
    for name in ("config.json", "env.json", "metrics.jsonl", "summary.json", "report.html", "videos/final.gif"):
        assert (run / name).stat().st_size > 0, name
    assert any((run / "checkpoints").iterdir())


def test_config_comes_back(run):
    asked = parse_train("ppo", [*SHORT.split(), "--lr", "0.5", "--anneal-lr"])
    assert asked.hyper.lr == 0.5 and asked.anneal_lr
    loaded = load(run)
    assert loaded.env == "tmaze,length=5" and loaded.model.width == 8 and loaded.run.total_steps == 200
    learner, hyper = loaded.build()
    assert learner.env.num_envs == 4 and learner.env.env.horizon == 6


def test_train_says_what_it_does(tmp_path, capsys):
    main(["train", "ppo", *SHORT.split(), "--run-dir", str(tmp_path / "run")])
    out = capsys.readouterr().out
    for part in ("running on", "compiled in", "steps/s", "final evaluation: return", "report.html"):
        assert part in out, part


def test_eval_prints_greedy_and_sampled(run, capsys):
    assert main(["eval", str(run), "--episodes", "2"]) == 0
    out = capsys.readouterr().out
    assert "greedy" in out and "sampled" in out and "8 episodes" in out
    assert main(["eval", str(run), "--episodes", "2", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["greedy"]["episodes"] == 8 and results["greedy"]["unfinished"] == 0.0


def test_render_shows_a_scripted_policy_and_a_run(run, tmp_path, capsys):
    assert main(["render", "tmaze,length=5", "--ascii", "--fps", "4"]) == 0
    out = capsys.readouterr().out
    assert "step 6 of 6  reward 1  return 1" in out and out.count("step ") == 7
    gif, page = tmp_path / "run.gif", tmp_path / "run.html"
    assert main(["render", "tmaze,length=5", "--policy", str(run), "--out", str(gif)]) == 0
    assert gif.read_bytes()[:4] == b"GIF8"
    # an agent may be watched in a longer corridor than it learnt in
    assert main(["render", "tmaze,length=9", "--policy", str(run), "--out", str(page), "--episodes", "2"]) == 0
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 2 and "http" not in text


TRIALS = (
    "--env darkroom,size=3,limit=4 --trial.episodes 3 --trial.held-out 0.3 --trial.seed 2 --model gru --model.width 8 "
    "--num-envs 4 --minibatches 2 --epochs 1 --total-steps 96 --evaluations 1 --eval-episodes 2 --num-seeds 2"
)


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trials") / "run"
    assert main(["train", "ppo", *TRIALS.split(), "--run-dir", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_trials_learn_and_are_judged_on_different_tasks(trials):
    """A rollout is a trial; both sides of the split come back from config.json; rows tell first from last episode."""
    learner, _ = load(trials).build()
    train, test = learner.env.env, learner.eval_env
    assert (learner.num_steps, train.horizon, train.episodes) == (12, 12, 3)
    assert len(train.tasks_from.members) == 6 and len(test.tasks_from.members) == 3
    assert not set(train.tasks_from.members) & set(test.tasks_from.members)
    rows = [json.loads(line) for line in (trials / "metrics.jsonl").read_text().splitlines()]
    row, summary = rows[-1], json.loads((trials / "summary.json").read_text())
    assert row["kind"] == "eval" and row["length_mean"] == [12.0, 12.0]
    for name in ("first_episode", "last_episode"):
        assert 0 <= summary[name] <= 4 and summary[name] == pytest.approx(sum(row[name]) / 2)
    assert summary["first_episode"] + summary["last_episode"] <= summary["eval_return_mean"] + 1e-6


@pytest.mark.slow
def test_in_context_evaluation_has_anchors_and_controls(trials, capsys):
    """`train` leaves one of as many episodes as it learnt with; `eval` makes it longer, for people and machines."""
    before = json.loads((trials / "in_context.json").read_text())
    assert (before["episodes"], before["tasks"], before["seeds"], before["held_out"]) == (3, 3, 2, True)
    words = ["eval", str(trials), "--in-context", "12", "--temperature", "0.5", "--warm-episodes", "3"]
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((trials / "in_context.json").read_text())
    text = show(result)
    for part in ("12 episodes (48 steps) on 3 held-out tasks", "over seeds", "last 2 episodes", "wrong task", "oracle"):
        assert part in text, part
    assert "temperature 0.5 after 3 episodes at 1" in text
    report = (trials / "report.html").read_text()
    assert "Return per episode in context" in report and "temperature 0.5" in report
    for options, message in (["--temperature", "0"], "above 0"), (["--warm-episodes", "3"], "give a temperature"):
        assert main(["eval", str(trials), "--in-context", "12", *options]) == 2
        assert message in capsys.readouterr().err
    rows = result["rows"]
    assert len(rows) == 9 and all(len(row["mean"]) == 12 for row in rows.values())
    assert rows["oracle"]["mean"][0] >= rows["sweeper"]["mean"][1] >= rows["sweeper"]["mean"][0]
    assert rows["oracle"]["numbers"]["normalised"][0] == pytest.approx(1)
    assert rows["oracle"]["mean"][0] > rows["random"]["mean"][0]


@pytest.mark.slow
def test_runs_of_trials_evaluate_render_and_resume(trials, tmp_path, capsys):
    assert main(["eval", str(trials), "--episodes", "1"]) == 0
    assert "length 12.0" in capsys.readouterr().out
    gif = tmp_path / "trial.gif"
    assert main(["render", "darkroom,size=3,limit=4", "--policy", str(trials), "--out", str(gif)]) == 0
    assert gif.read_bytes()[:4] == b"GIF8"
    before = (trials / "metrics.jsonl").read_bytes()
    assert main(["resume", str(trials)]) == 0
    assert (trials / "metrics.jsonl").read_bytes() == before


def test_in_context_needs_trials(run, capsys):
    assert main(["eval", str(run), "--in-context", "5"]) == 2
    assert "train with --trial.episodes" in capsys.readouterr().err
    assert main(["eval", str(run), "--in-context", "0"]) == 2
    assert "at least 1 episode" in capsys.readouterr().err
    assert main(["eval", str(run), "--temperature", "0.5"]) == 2
    assert "add --in-context" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("tmaze --policy best", "choose expert, random"),
        ("gymnax:CartPole-v1 --policy expert", "no expert"),
        ("tmaze,length=5 --out film.avi", ".gif or .html"),
        ("tmaze --episodes 0", "at least 1"),
    ],
)
def test_render_refuses_in_words(words, message, capsys):
    assert main(["render", *words.split()]) == 2
    assert message in capsys.readouterr().err


def test_render_refuses_an_agent_of_other_spaces(run, capsys):
    assert main(["render", "cartpole", "--policy", str(run)]) == 2
    assert "learnt with spaces" in capsys.readouterr().err


@pytest.mark.slow
def test_a_new_environment_passes_and_trains_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new-env", "two_bells"]) == 0
    assert "check env two_bells.py:TwoBells" in capsys.readouterr().out
    assert main(["check", "env", "two_bells.py:TwoBells,delay=3", "--episodes", "256"]) == 0
    assert "checks hold" in capsys.readouterr().out
    mine = SHORT.replace("tmaze,length=5", "two_bells.py:TwoBells,delay=5")
    assert main(["train", "ppo", *mine.split(), "--run-dir", "mine"]) == 0
    assert main(["new-env", "two_bells"]) == 2
    assert main(["new-env", "Two-Bells"]) == 2
    assert main(["new-env", "tmaze"]) == 2
    err = capsys.readouterr().err
    assert "taken" in err or "exists already" in err


def test_check_says_what_is_wrong(tmp_path, capsys):
    file = tmp_path / "wrong.py"
    file.write_text(
        "from jaxrl_seq.envs.memory.tmaze import TMaze\n\n\n"
        "class Wrong(TMaze):\n    def reference(self):\n        return {'random': 5.0}\n"
    )
    assert main(["check", "env", f"{file}:Wrong,length=5", "--checks", "reference", "--episodes", "64"]) == 1
    assert "reference" in capsys.readouterr().out
    assert main(["check", "env", f"{file}:Wrongg"]) == 2
    assert "Did you mean 'Wrong'" in capsys.readouterr().err
    assert main(["check", "env", str(tmp_path / "none.py") + ":X"]) == 2
    assert "There is no file" in capsys.readouterr().err


def test_resume_of_a_finished_run_changes_nothing(run, capsys):
    before = (run / "metrics.jsonl").read_bytes()
    assert main(["resume", str(run)]) == 0
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_lists(capsys):
    assert main(["list", "models", "--json"]) == 0
    models = {row["model"]: row for row in json.loads(capsys.readouterr().out)}
    assert {"gru", "s5", "transformer", "mlp"} <= set(models)
    assert models["mlp"]["carry_bytes"] == 0 < models["gru"]["carry_bytes"]
    assert main(["list", "envs"]) == 0
    assert "tmaze" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("trian", "Did you mean 'train'"),
        ("train", "Say what to train"),
        ("train pop", "Did you mean 'ppo'"),
        ("train ppo --env tmazes", "Did you mean 'tmaze'"),
        ("train ppo --env tmaze,lenght=4", "Did you mean 'length'"),
        ("train ppo --env repeat_previous-hrad", "Did you mean 'hard'"),
        ("train ppo --env gymnax:CartPol-v1", "CartPole-v1"),
        ("train ppo --model gro", "gru"),
        ("train ppo --num-envs 6 --minibatches 4", "num_envs 4 or 8"),
        ("train ppo --env darkroom --trial.episodes 2 --num-steps 30", "cuts trials of 40 steps"),
        ("train ppo --env darkroom --trial.held-out 0.2", "need --trial.episodes"),
        ("train ppo --env darkroom --trial.episodes 2 --trial.held-out 1.5", "at least 0 and below 1"),
        ("train ppo --env bernoulli_bandit --trial.episodes 2 --trial.held-out 0.5", "say how many to draw"),
        ("train ppo --env minesweeper --trial.episodes 2", "no tasks"),
        ("train ppo --env darkroom --trial.episodes 20 --model transformer", "sees 255 steps back at most"),
        ("eval nowhere", "holds no run"),
        ("resume nowhere", "holds no run"),
        ("resume", "Usage: jaxrl-seq resume RUN"),
        ("report nowhere", "holds no run"),
    ],
)
def test_refusals_are_one_line_and_code_two(words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert says in error and error.startswith("error: ") and "Traceback" not in error
    assert not list(tmp_path.iterdir()), "nothing may be written by a refused command"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--num-env 4", "--num-envs"),
        ("--model gru --model.widht 4", "--model.width"),
        ("--lr fast", "lr"),
        ("--total-steps 0", "total_steps must be at least 1"),
        ("--model transformer --model.width 66 --model.heads 4", "nearest: 64"),
    ],
)
def test_wrong_flags_are_explained(flags, says, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "ppo", *flags.split()])
    assert stop.value.code == 2
    assert says in capsys.readouterr().err


def test_existing_folder_is_refused(run, capsys):
    before = (run / "metrics.jsonl").read_bytes()
    assert main(["train", "ppo", *SHORT.split(), "--run-dir", str(run)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (run / "metrics.jsonl").read_bytes() == before


def test_help_names_every_field(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "ppo", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for flag in ("--env", "--model", "--model.width", "--lr", "--total-steps", "--num-seeds", "--run-dir"):
        assert flag in text
    assert "--env-params" not in text


def test_damaged_config_names_the_field(run, tmp_path):
    record = json.loads((run / "config.json").read_text())
    record["settings"]["run"]["total_stepz"] = 3
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="Did you mean 'total_steps'"):
        load(tmp_path)
