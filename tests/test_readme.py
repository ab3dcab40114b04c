"""The README is true: its code runs, its two ways give the same numbers, its links and commands exist."""

from __future__ import annotations

import re

import numpy as np
import pytest

from jaxrl_seq.cli import main
from jaxrl_seq.run.config import parse_train
from jaxrl_seq.run.sweep_plan import plan, read_toml
from tests.readme_code import ROOT, run_blocks


@pytest.fixture(scope="module")
def readme(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("readme"))
        yield run_blocks("README.md")


def test_training_example_learns_and_reports(readme):
    run = readme["run"]
    assert run.summary["eval_success"] >= 0.9
    assert run.summary["finished"]
    assert (run.folder / "report.html").stat().st_size > 10_000


def test_users_own_scan_gives_the_numbers_of_train(readme):
    """The first five updates of the user's own scan are the first five rows of the run."""
    rows = [row for row in readme["run"].rows if row["kind"] == "train"][:5]
    for name in ("policy_loss", "value_loss", "entropy", "grad_norm"):
        ours = [row[name] for row in rows]
        np.testing.assert_allclose(np.asarray(readme["metrics"][name]), ours, rtol=2e-3, atol=2e-5, err_msg=name)


def test_links_exist():
    for readme in ROOT.glob("**/README.md"):
        if any(part.startswith(".") for part in readme.relative_to(ROOT).parts):
            continue
        for link in re.findall(r"\]\(([^)#]+)\)", readme.read_text()):
            assert (readme.parent / link).exists(), f"{readme.relative_to(ROOT)} links to {link}"


def test_commands_parse(tmp_path, monkeypatch):
    """Every `jaxrl-seq train ppo ...` line of the README is accepted by the command line."""
    monkeypatch.chdir(tmp_path)
    assert main(["new-env", "two_bells"]) == 0
    lines = re.findall(r"jaxrl-seq train ppo (.*)", (ROOT / "README.md").read_text())
    assert len(lines) >= 3
    for line in lines:
        config = parse_train("ppo", line.split("#")[0].split())
        config.build()


def test_sweep_commands_parse(monkeypatch):
    """Every `jaxrl-seq sweep ...` line of the README and of the launch page makes a plan."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text() + (ROOT / "experiments/launch/README.md").read_text()
    lines = re.findall(r"^    jaxrl-seq sweep (.*)", text, flags=re.M)
    assert len(lines) >= 5
    for line in lines:
        words = line.split("#")[0].split()
        learner, filed = read_toml(words[0]) if words[0].endswith(".toml") else (words[0], [])
        rest = [word for word in words[1:] if word not in ("--dry-run", "--samples", "32")]
        assert plan(learner, [*filed, *rest], samples=32 if "--samples" in words else 1)
