"""A report is one sound, self-contained file whatever the run folder holds."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxrl_seq.run import report_charts, report_html
from jaxrl_seq.run.report import write_report
from jaxrl_seq.run.video import write_gif

VOID = {"meta", "img", "br", "link", "hr"}
METRICS = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "explained_variance")
SMALL = ("Policy loss", "Value loss", "Entropy", "Approximate KL", "Clip fraction", "Explained variance")


class Document(HTMLParser):
    """Checks that tags close in order; collects attributes, text and elements."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.seen if name == tag]

    def figures(self):
        return [attributes.get("aria-label") for attributes in self.all("figure")]


def parse(path) -> Document:
    document = Document(path.read_text(encoding="utf-8"))
    assert not document.all("script") and not document.all("link")
    for _, attributes in document.seen:
        for name in ("src", "href", "xlink:href", "style"):
            value = attributes.get(name) or ""
            assert "//" not in value or value.startswith("data:"), value
    for style in re.findall(r"<style.*?</style>", path.read_text(), flags=re.S):
        assert "url(" not in style and "@import" not in style
    return document


def make_run(folder, seeds=1, updates=60, summary=True):
    """A run folder of made-up numbers, the first rows without a finished episode."""
    rng = np.random.default_rng(0)

    def lanes(value):
        noisy = (value + 0.01 * rng.normal(size=seeds)).tolist()
        return noisy if seeds > 1 else noisy[0]

    folder.mkdir(exist_ok=True)
    rows = []
    for update in range(1, updates + 1):
        row = {"kind": "train", "update": update, "steps": 512 * update, "wall_s": 0.1 * update}
        row |= {"return_mean": lanes(update / updates) if update > 2 else None, "success": lanes(0.5)}
        row |= {name: lanes(0.1) for name in METRICS} | {"grad_norm": lanes(1.0), "ratio_error": lanes(1.0)}
        rows.append(row | {"lr": 3e-4, "steps_per_second": 5000.0, "extra_loss": 0.5})
        if update % 20 == 0:
            rows.append({**row, "kind": "eval", "return_mean": lanes(0.8), "success": lanes(0.5), "unfinished": 0.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "env": "tmaze-20",
        "model": "gru",
        "learner": "ppo",
        "ppo": {"clip": 0.2, "nested": {"deep": 7}},
    }
    (folder / "config.json").write_text(json.dumps(config))
    devices = [{"kind": "NVIDIA H200", "platform": "gpu", "count": 2}]
    (folder / "env.json").write_text(json.dumps({"packages": {"jax": "9.8.7"}, "devices": devices}))
    write_gif(folder / "videos" / "update-20.gif", np.zeros((3, 8, 8, 3), np.uint8))
    if summary:
        (folder / "summary.json").write_text(json.dumps(make_summary(seeds, updates)))
    return folder


def make_summary(seeds, updates):
    return {
        **{"env": "tmaze-20", "model": "gru", "learner": "ppo", "seeds": seeds, "steps": 512 * updates},
        **{"wall_s": 75.0, "compile_s": 5.0, "steps_per_second": 5000.0, "device": "2 x NVIDIA H200"},
        **{"eval_return_mean": 0.8123, "eval_return_ci": [0.75, 0.85], "normalised_score": 0.9},
        **{
            "eval_success": 0.5,
            "finished": True,
            "reference": {"random": -0.5, "reactive": 0.0, "expert": 0.95},
        },
        "time_split": {"compile_s": 5.0, "update_s": 60.0, "eval_s": 8.0, "other_s": 2.0},
    }


@pytest.mark.parametrize("seeds", [1, 8])
def test_a_finished_run_has_everything(tmp_path, seeds):
    path = write_report(make_run(tmp_path / "run", seeds))
    document = parse(path)
    assert path.name == "report.html" and path.stat().st_size < 1_500_000
    titles = document.figures()
    assert {"Return per episode", "Success", *SMALL, "Gradient norm", "Ratio error", "extra loss"} <= set(titles)
    assert len(document.all("svg")) == len([t for t in titles if t])
    assert [image["alt"] for image in document.all("img")] == ["update-20"]
    assert str(document.all("img")[0]["src"]).startswith("data:image/gif;base64,R0lGOD")
    for words in ("finished", "return 0.812", "50 % success", "normalised score of 0.90", "1 min 15 s"):
        assert words in document.text, words
    for words in (
        "rollout + update: 60.0 s (80 %)",
        "compile: 5.0 s",
        "2 x NVIDIA H200",
        "9.8.7",
        "nested.deep",
    ):
        assert words in document.text, words
    for level in ("random", "reactive", "expert"):
        assert level in document.text
    interval = "0.75 to 0.85 over 8 seeds" if seeds == 8 else "one seed, so no interval"
    assert interval in document.text
    assert [p.name for p in path.parent.iterdir() if p.name.endswith(".new")] == []


def test_a_run_in_progress(tmp_path):
    folder = make_run(tmp_path / "run", seeds=3, summary=False)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "upd')
    (folder / "summary.json").write_text('{"env": "tm')
    document = parse(write_report(folder))
    assert "in progress" in document.text and "Latest evaluation: return 0.8" in document.text
    assert "tmaze-20" in document.text and "over 3 seeds" in document.text


def test_a_resumed_run_is_not_judged_by_its_old_summary(tmp_path):
    folder = make_run(tmp_path / "run", seeds=2)
    summary = {**make_summary(2, 10), "finished": False}
    (folder / "summary.json").write_text(json.dumps(summary))
    document = parse(write_report(folder))
    assert "in progress" in document.text and "0.812" not in document.text
    assert "expert" in document.text  # reference levels stay known
    (folder / "summary.json").write_text(json.dumps({**summary, "steps": 10**9}))
    assert "stopped early" in parse(write_report(folder)).text


@pytest.mark.parametrize("missing", ["config.json", "env.json", "metrics.jsonl", "summary.json", "videos", "all"])
def test_missing_files(tmp_path, missing):
    folder = make_run(tmp_path / "run", updates=5)
    for path in list(folder.iterdir()):
        if missing not in (path.name, "all"):
            continue
        if path.is_dir():
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
        else:
            path.unlink()
    document = parse(write_report(folder))
    assert len(document.all("h1")) == 1
    if missing == "all":
        assert "no rows yet" in document.text and "No evaluation yet" in document.text
    with pytest.raises(ValueError, match="is no folder"):
        write_report(folder / "nowhere")


def test_files_of_the_wrong_kind_do_not_stop_it(tmp_path):
    folder = make_run(tmp_path / "run", updates=5)
    odd = {"eval_return_mean": None, "eval_return_ci": [None, None], "steps": "many", "time_split": 3}
    odd |= {
        "reference": {"random": "x", "expert": 1.0},
        "wall_s": [1.0, 3.0],
        "finished": True,
        "seeds": [0, 1],
    }
    (folder / "summary.json").write_text(json.dumps(odd))
    (folder / "config.json").write_text("[1, 2]")
    (folder / "env.json").write_bytes(b"\xff\xfe")
    rows = ['{"kind": "train"}', '{"kind": "train", "steps": null, "return_mean": 1.0}', "7", '{"kind": 3}']
    rows += ['{"kind": "train", "steps": 5, "return_mean": [1.0, null], "success": "high", "x": {"a": 1}}']
    (folder / "metrics.jsonl").write_text("\n".join(rows))
    (folder / "videos" / "broken.gif").write_bytes(b"")
    document = parse(write_report(folder))
    assert "Return per episode" in document.figures()
    assert [image["alt"] for image in document.all("img")] == ["update-20"]


def test_odd_strings_are_shown_as_text(tmp_path):
    folder = make_run(tmp_path / "run", updates=5)
    nasty = "<script>alert(\"1\")</script> & '$x_1$' \u2028 é"
    config = {"env": nasty, nasty: {nasty: nasty}}
    (folder / "config.json").write_text(json.dumps(config))
    summary = {
        **make_summary(1, 5),
        "env": nasty,
        "model": "</title><b>",
        "reference": {nasty: 0.5, "$\\frac$": 0.1},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "videos" / "update-20.gif").rename(folder / "videos" / "a\"b<i>'.gif")
    document = parse(write_report(folder))
    assert nasty in document.text
    assert document.all("img")[0]["alt"] == "a\"b<i>'"
    assert not document.all("b") or all("<" not in str(b) for b in document.all("b"))


def test_big_runs_stay_small(tmp_path):
    folder = make_run(tmp_path / "run", seeds=8, updates=1500)
    frames = np.random.default_rng(0).integers(0, 255, (40, 90, 90, 3), np.uint8)  # noise hardly compresses
    for i in range(5):
        write_gif(folder / "videos" / f"noise-{i}.gif", frames, scale=1)
    path = write_report(folder)
    assert path.stat().st_size < 1_500_000
    assert "In videos/ only:" in parse(path).text


def test_curves_keep_nan_and_average_bins():
    rows = [{"steps": i, "a": [float(i), None]} for i in range(1000)] + [{"steps": 7}]
    data = report_charts.curve(rows, "a")
    assert data is not None and data.values.shape == (1000, 2)
    binned = report_charts.binned(data)
    assert len(binned.steps) == 300 and np.isnan(binned.values[:, 1]).all()
    assert binned.values[:, 0].mean() == pytest.approx(499.5, abs=1)
    assert binned.values[0, 0] == pytest.approx(1.0) and binned.steps[-1] == 999
    assert report_charts.curve(rows, "b") is None
    assert report_charts.curve([{"steps": 1, "c": None}], "c") is None


def test_charts_leave_no_matplotlib_state():
    import matplotlib

    before = dict(matplotlib.rcParams)
    data = report_charts.Curve(np.array([1.0, 2.0]), np.array([[1e-6, 1e-6], [1.0, 2.0]]))
    svg = report_charts.small_chart(data)
    assert svg.startswith("<svg") and svg.endswith("</svg>") and "http" not in svg
    assert dict(matplotlib.rcParams) == before
    assert svg == report_charts.small_chart(data)


def test_values_for_people():
    shown = [report_html.show(x) for x in (None, True, 7, 1234567, 0.123456, 84123.4, [1, 2.5], {"a": 1}, [], "x")]
    assert shown == [
        "–",
        "yes",
        "7",
        "1\u2009234\u2009567",
        "0.1235",
        "84\u2009123",
        "1, 2.5",
        "a 1",
        "–",
        "x",
    ]
    assert report_html.flat({"a": {"b": {"c": 1}}, "d": {}}) == {"a.b.c": 1, "d": {}}
    assert report_html.stacked_bar([]) == "" and report_html.table({}) == "" and report_html.section("x") == ""
