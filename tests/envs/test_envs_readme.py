"""What envs/README.md shows runs: its Python, and its walk to a trained agent. The gallery is up to date."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxrl_seq.cli import main
from jaxrl_seq.envs import list_envs
from jaxrl_seq.run.gallery import gallery_text

ENVS = Path(__file__).parents[2] / "envs"
README = (ENVS / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_blocks_run():
    assert len(BLOCKS) == 4
    results: list[dict[str, Any]] = []
    for number, block in enumerate(BLOCKS):
        results.append({"__name__": f"readme_{number}"})
        exec(compile(block, "envs/README.md", "exec"), results[-1])
    rollout, check, gym, gymnax = results
    assert rollout["rewards"].shape == (100, 8) and np.isfinite(rollout["rewards"]).all()
    assert not check["report"].failed and len(check["report"].results) == 4
    assert len(gym["lasts"]) == 8 and gym["lasts"][0].shape == (4,)
    assert gymnax["returns"].shape == (100, 8) and np.isfinite(gymnax["returns"]).all()


@pytest.mark.slow
def test_the_walk_of_a_newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    walk = [shlex.split(line, comments=True)[1:] for line in README.splitlines() if line.startswith("    jaxrl-seq ")]
    assert [words[0] for words in walk] == ["new-env", "check", "render", "train", "render"]
    walk[1] += ["--episodes", "256"]
    walk[2] += ["--fps", "1000"]
    walk[3] += ["--run-dir", "RUN"]
    for words in walk:
        # the same commands with a shorter training, as this test runs at every change
        words = ["4000" if word == "100000" else word for word in words]
        assert main(words) == 0, words
    out = capsys.readouterr().out
    assert "checks hold" in out and "step 9 of 9" in out
    assert (tmp_path / "TwoBells-RUN.gif").is_file() or list(tmp_path.glob("*RUN.gif"))


def test_the_gallery_is_the_registry():
    assert (ENVS / "gallery" / "README.md").read_text() == gallery_text(), "run python -m jaxrl_seq.run.gallery"
    for name in list_envs():
        assert (ENVS / "gallery" / f"{name}.gif").stat().st_size > 0
    assert set(re.findall(r"`(\w+)/`", README)) >= {"memory", "bandits", "gridworlds", "planning", "control"}
