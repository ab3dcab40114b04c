"""The experiments' own machinery: when a claim holds, what a result file has, and that the table is the files'."""

from __future__ import annotations

import json

import pytest

from experiments import common, table
from experiments.common import Claim, Findings, run_experiment
from jaxrl_seq.run.stats import Interval


@pytest.mark.parametrize(
    ("interval", "direction", "holds"),
    [
        ((0.9, 0.8, 1.0), "above", True),
        ((0.9, 0.6, 1.0), "above", False),
        ((0.5, 0.4, 0.6), "below", True),
        ((0.5, 0.4, 0.8), "below", False),
        ((float("nan"),) * 3, "above", False),
    ],
)
def test_a_claim_holds_only_with_its_whole_interval(interval, direction, holds):
    assert Claim.of("x", "text", Interval(*interval), 0.7, direction).holds is holds


def test_result_file_has_the_promised_fields(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    claim = Claim.of("a", "it works", Interval(1.0, 0.9, 1.1), 0.5, "above")
    path = run_experiment("probe", "nobody 2026", lambda arguments: Findings([claim], 3, 10), argv=[])
    result = json.loads(path.read_text())
    assert set(
        ["name", "source", "device", "versions", "commit", "seeds", "env_steps", "wall_s", "claims", "curves"]
    ) <= set(result)
    assert result["claims"][0] == {
        **{"id": "a", "text": "it works", "value": 1.0, "ci": [0.9, 1.1], "threshold": 0.5},
        **{"direction": "above", "holds": True},
    }
    assert "| it works | nobody 2026 | 1.000 [0.900, 1.100] | ≥ 0.5 | holds |" in table.rows(result)[0]


def test_what_is_remembered_is_not_measured_again_and_its_time_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(common, "UNFINISHED", tmp_path / "unfinished")
    monkeypatch.setattr(common, "_recalled_s", [])
    claim = Claim.of("a", "it works", Interval(1.0, 0.9, 1.1), 0.5, "above")
    calls = []

    def measure_part():
        calls.append(1)
        return {"value": 7, "wall_s": 600.0}

    def stopped(arguments):
        common.remembered("probe", "first", measure_part)
        raise KeyboardInterrupt

    def whole(arguments):
        assert common.remembered("probe", "first", measure_part)["value"] == 7
        return Findings([claim], 3, 10)

    with pytest.raises(KeyboardInterrupt):
        run_experiment("probe", "nobody 2026", stopped, argv=[])
    path = run_experiment("probe", "nobody 2026", whole, argv=[])
    assert len(calls) == 1 and 600 <= json.loads(path.read_text())["wall_s"] < 660
    assert not list((tmp_path / "unfinished").iterdir())


def test_readme_table_is_the_result_files():
    assert table.table() in table.README.read_text(), "run: python -m experiments.table"
