"""The Python blocks of envs/README.md run, and its table is the registry."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxrl_seq.envs import list_envs, make
from jaxrl_seq.envs.core import registry

README = (Path(__file__).parents[2] / "envs" / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_blocks_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    assert len(BLOCKS) == 2
    first: dict[str, Any] = {"__name__": "readme_first"}
    exec(compile(BLOCKS[0], "envs/README.md", "exec"), first)
    assert first["rewards"].shape == (100, 8) and np.isfinite(first["rewards"]).all()
    second: dict[str, Any] = {"__name__": "readme_second"}
    exec(compile(BLOCKS[1], "envs/README.md", "exec"), second)
    assert second["env"].horizon == 51 and float(second["params"].prize) == 2.0
    assert second["state"].inputs.obs.shape == (4, 3)


def test_the_table_is_the_registry():
    rows = {
        cells[0].strip("`"): cells
        for cells in (
            [c.strip() for c in line.strip("|").split("|")] for line in README.splitlines() if line[:3] == "| `"
        )
    }
    assert set(rows) == set(list_envs()) | {"gymnax:ID"}
    for name, presets in list_envs().items():
        _, said, observation, actions, steps, by_random, reactive, expert, _ = rows[name]
        env, _ = make(name)
        assert set(re.findall(r"`(\w+)`", said)) == set(presets)
        assert int(observation.split(":")[0]) == env.observation_space().flat_dim
        assert int(actions.split()[0]) == env.action_space().flat_dim
        assert str(env.horizon) in steps or name == "tmaze"
        assert ("truncates" in steps) == (env.time_limit == "truncate")
        reference = env.reference()
        for text, figure in ((by_random, "random"), (reactive, "reactive"), (expert, "expert")):
            assert bool(text) == (figure in reference), f"{name}: {figure}"
            if text:
                assert float(text.split(",")[0]) == pytest.approx(reference[figure], rel=0.02), f"{name}: {figure}"
