"""Rows arrive whole, or the run goes on without them."""

from __future__ import annotations

import io
import json
import sys
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_seq.run import sinks
from jaxrl_seq.run.sinks import (
    ConsoleSink,
    JsonlSink,
    Sinks,
    TensorBoardSink,
    WandbSink,
    read_rows,
    truncate_after,
)


def row(update, **metrics):
    return {"kind": "train", "update": update, "steps": 100 * update, "wall_s": 0.5 * update, **metrics}


def test_rows_are_on_disk_at_once_and_nan_is_null(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    sink = JsonlSink(path)
    sink.write(row(1, a=float("nan"), b=[1.0, float("inf")], c=np.float32(0.5), d=jnp.array([1.0, jnp.nan]), e=True))
    text = path.read_text()  # before close
    assert "NaN" not in text and "Infinity" not in text
    assert read_rows(path) == [row(1, a=None, b=[1.0, None], c=0.5, d=[1.0, None], e=True)]
    sink.close()


def test_truncation_after_a_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row(u)) + "\n" for u in (1, 2, 3, 4)) + '{"kind": "tra')
    assert [r["update"] for r in read_rows(path)] == [1, 2, 3, 4]
    sink = JsonlSink(path, keep_rows=2)
    sink.write(row(3, again=1.0))
    sink.close()
    assert [r["update"] for r in read_rows(path)] == [1, 2, 3]
    assert read_rows(path)[-1]["again"] == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]
    truncate_after(tmp_path / "missing.jsonl", 3)
    assert read_rows(tmp_path / "missing.jsonl") == []


def test_a_half_line_is_cut_off_and_junk_is_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(json.dumps(row(1)).encode() + b"\n\xff\x00junk\n[1]\n" + json.dumps(row(2)).encode()[:20])
    assert read_rows(path) == [row(1)]
    sink = JsonlSink(path)
    sink.write(row(2))
    sink.close()
    assert read_rows(path) == [row(1), row(2)]


class Full:
    """A file on a full disk: writes half of what it is given, then refuses."""

    def __init__(self, file):
        self.file, self.full = file, True

    def write(self, data):
        if not self.full:
            return self.file.write(data)
        self.file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_full_disk_holds_rows_until_there_is_room(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    record = JsonlSink(path)
    with Sinks([record]) as all_sinks:
        all_sinks.write(row(1))
        full = Full(record._file)
        monkeypatch.setattr(record, "_file", full)
        with pytest.warns(RuntimeWarning, match="JsonlSink failed .*No space left.*rows are held") as caught:
            all_sinks.write(row(2))
            all_sinks.write(row(3))
        assert len(caught) == 1 and read_rows(path) == [row(1)]
        full.full = False
        all_sinks.write(row(4))
    assert read_rows(path) == [row(1), row(2), row(3), row(4)]


class Raising:
    def __init__(self):
        self.calls = 0

    def write(self, row):
        self.calls += 1
        raise RuntimeError("no network")

    def close(self):
        raise RuntimeError("not either")


class Listing:
    def __init__(self):
        self.rows, self.closed = [], False

    def write(self, row):
        self.rows.append(row)

    def close(self):
        self.closed = True


def test_a_raising_sink_is_switched_off_with_one_warning():
    bad, good = Raising(), Listing()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Sinks([bad, good]) as all_sinks:
            for update in range(3):
                all_sinks.write(row(update))
    assert len(caught) == 1
    assert "Raising failed (RuntimeError: no network): it is switched off" in str(caught[0].message)
    assert bad.calls == 1 and len(good.rows) == 3 and good.closed


def test_plain_console_lines(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(sinks.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    console = ConsoleSink(10_000, stream)
    for update in range(1, 101):
        clock[0] += 0.05
        console.write(row(update, return_mean=[0.25, None, 0.75], success=0.5, steps_per_second=84_123.0))
    console.write({**row(100, return_mean=0.9), "kind": "eval"})
    console.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[0].split() == [
        "1k",
        "/",
        "10k",
        "steps",
        "10",
        "%",
        "ETA",
        "45",
        "s",
        "return",
        "0.5",
        "success",
        "50",
        "%",
        "84.1k",
        "steps/s",
    ]
    assert lines[9].split()[:8] == ["10k", "/", "10k", "steps", "100", "%", "ETA", "0"]
    assert lines[10].strip() == "evaluation at 10k steps: return 0.9"


def test_slow_runs_get_a_line_now_and_then(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(sinks.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    console = ConsoleSink(10**9, stream)
    for update in range(1, 10_001):
        clock[0] += 3.6  # ten hours
        console.write(row(update, return_mean=None))
    lines = stream.getvalue().splitlines()
    assert 50 < len(lines) < 400
    assert "return --" in lines[0]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_live_line_in_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    stream = Terminal()
    console = ConsoleSink(1000, stream)
    console.write(row(5, return_mean=0.5))
    console.write({**row(5, return_mean=[0.5, 0.7]), "kind": "eval"})
    console.write(row(10, return_mean=0.5))
    console.close()
    console.close()
    text = stream.getvalue()
    assert "evaluation at 500 steps: return 0.6" in text
    assert "1k / 1k steps" in text and "100%" in text


def test_tensorboard_writes_event_files(tmp_path):
    pytest.importorskip("tensorboardX")
    sink = TensorBoardSink(tmp_path)
    sink.write(row(1, return_mean=[0.5, 1.5], broken=float("nan")))
    sink.close()
    (events,) = tmp_path.iterdir()
    data = events.read_bytes()
    assert b"train/return_mean" in data and b"broken" not in data


class FakeWandb:
    def __init__(self):
        self.calls = []

    def init(self, **kwargs):
        self.calls.append(kwargs)

    def log(self, values, step):
        self.calls.append((values, step))

    def finish(self):
        self.calls.append("finish")


def test_wandb_gets_lane_means():
    module = FakeWandb()
    sink = WandbSink(module=module, project="p")
    sink.write({**row(2, return_mean=[1.0, 3.0]), "kind": "eval"})
    sink.close()
    assert module.calls == [{"project": "p"}, ({"eval/wall_s": 1.0, "eval/return_mean": 2.0}, 200), "finish"]


@pytest.mark.parametrize(("name", "make"), [("tensorboardX", lambda: TensorBoardSink("x")), ("wandb", WandbSink)])
def test_missing_extras_say_how_to_install_them(monkeypatch, name, make):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'jaxrl_seq\["):
        make()


def test_numbers_for_people():
    assert [sinks.count(x) for x in (0.5, 950, 8192, 1.25e6, 3.1e9)] == [
        "0.5",
        "950",
        "8.19k",
        "1.25M",
        "3.1G",
    ]
    assert [sinks.duration(x) for x in (-1, 42.4, 200, 7530)] == ["0 s", "42 s", "3 min 20 s", "2 h 05 min"]
    assert sinks.lane_mean([None, float("nan")]) is None and sinks.lane_mean(np.float32(2)) == 2.0
