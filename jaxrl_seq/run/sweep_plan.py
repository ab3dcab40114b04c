"""What a sweep is made of: flags, a TOML file or Python keywords become lanes in as few compilations as will do.

All three are the words of `jaxrl-seq train` in which a field may have several values, or a range to draw from. The
parser of `train` makes runs of them, so that what it refuses is refused here. Runs that differ in traced numbers only
are lanes of one compilation; what decides a shape (a model, its sizes, an environment's preset) makes another.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import tomllib
import typing
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.run.config import LEARNERS, parse_train
from jaxrl_seq.run.lanes import Settings

_DRAW = re.compile(r"(log|uniform):([^:]+):([^:]+)")
_ONE_EACH = ("seed", "num_seeds", "run_dir", "overwrite", "tensorboard", "wandb", "mesh")
"""Fields of the sweep as a whole."""


def uniform(low: float, high: float) -> str:
    """A value drawn between `low` and `high`, for `sweep`."""
    return f"uniform:{low}:{high}"


def log_uniform(low: float, high: float) -> str:
    """A value whose logarithm is drawn between those of `low` and `high`, for `sweep`."""
    return f"log:{low}:{high}"


@dataclass(frozen=True)
class Part:
    """Lanes of one compilation."""

    words: tuple[str, ...]
    """What `parse_train` makes their settings from, but for those that are swept."""
    settings: Settings
    labels: tuple[dict[str, Any], ...]
    """Of every lane: the fields that differ within the sweep, as they were asked for, and the seed."""

    def cut(self, pieces: int) -> list[Part]:
        """About equally many lanes each; the lanes of a piece are run together."""
        edges = np.linspace(0, self.settings.num, min(pieces, self.settings.num) + 1).round().astype(int)
        return [
            dataclasses.replace(self, settings=self.settings.part(a, b), labels=self.labels[a:b])
            for a, b in itertools.pairwise(edges.tolist())
        ]


# ---- words ----


def words_of(table: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The flags of a table: {"lr": [1e-4, 1e-3], "trial": {"episodes": 4}} -> --lr 0.0001 0.001 --trial.episodes 4.

    {"log": [LOW, HIGH]} and {"uniform": [LOW, HIGH]} are draws; {"name": ...} in "model" is the model itself.
    """
    words: list[str] = []
    for key, value in table.items():
        name = prefix + str(key).replace("_", "-")
        if isinstance(value, Mapping) and len(value) == 1 and set(value) <= {"log", "uniform"}:
            (kind, ends), *_ = value.items()
            words += [f"--{name}", ":".join([kind, *map(str, ends)])]
        elif isinstance(value, Mapping):
            inside = {k: v for k, v in value.items() if not (name == "model" and k == "name")}
            words += ["--model", *map(str, _listed(value["name"]))] if len(inside) < len(value) else []
            words += words_of(inside, f"{name}.")
        else:
            words += [f"--{name}", *map(str, _listed(value))]
    return words


def read_toml(path: str | Path) -> tuple[str, list[str]]:
    """(learner, words) of a sweep file. ValueError where it cannot be read or names no learner."""
    try:
        table = tomllib.loads(Path(path).read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(table.get("learner"), str):
        raise ValueError(f'{path} does not say what to train: begin with learner = "ppo" (or {", ".join(LEARNERS)}).')
    return table.pop("learner"), words_of(table)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) else [value]


# ---- from words to parts ----


@dataclass(frozen=True)
class _Field:
    """A field that flags can set. `home`: the part of the config it is in."""

    name: str
    home: str
    default: Any

    @property
    def traced(self) -> bool:
        return self.home == "hyper" and isinstance(self.default, float)

    def as_words(self, values: Iterable[str]) -> list[str]:
        flag = self.name.replace("_", "-")
        values = list(values)
        if isinstance(self.default, bool) and len(values) == 1:
            if values[0].lower() not in ("true", "false"):
                raise ValueError(f"--{flag} is true or false, not {values[0]!r}.")
            head, _, tail = flag.rpartition(".")
            return [f"--{flag}" if values[0].lower() == "true" else f"--{head + '.' if head else ''}no-{tail}"]
        return [f"--{flag}", *values]


def plan(learner: str, words: Sequence[str], samples: int = 1, sample_seed: int = 0) -> list[Part]:
    """The parts of a sweep over all combinations of the values in `words`, `samples` draws of what is drawn, and seeds.

    ValueError for anything that cannot be run, before anything is compiled.
    """
    chosen = _split(words)
    fields = _fields(learner, chosen)
    given = {known(name, fields, f"field of sweep {learner}"): values for name, values in chosen.items()}
    varied = {name: values for name, values in given.items() if _varies(fields[name], values)}
    fixed = [w for name, values in given.items() if name not in varied for w in fields[name].as_words(values)]
    for name in varied:
        if name in _ONE_EACH:
            hint = " Use --num-seeds for several seeds." if "seed" in name else ""
            raise ValueError(f"--{name.replace('_', '-')} has one value for the whole sweep, not several.{hint}")
    points = _points({n: v for n, v in varied.items() if fields[n].traced}, samples, sample_seed)
    static = {name: values for name, values in varied.items() if not fields[name].traced}
    for name, values in static.items():
        if drawn := [v for v in values if _DRAW.fullmatch(v)]:
            numbers = ", ".join(n for n, f in fields.items() if f.traced)
            raise ValueError(
                f"--{name} {drawn[0]}: {name} is static, and every value of it is a compilation of its own, so list "
                f"values instead of drawing them. Drawn can be {numbers}."
            )
    combinations = [dict(zip(static, combo, strict=True)) for combo in itertools.product(*static.values())]
    groups: list[list[_Static]] = []
    for label in combinations:
        own = [w for name, value in label.items() for w in fields[name].as_words([value])]
        one = _Static(learner, (*fixed, *own), {n: _number(v) for n, v in label.items()}, points)
        alike = next((group for group in groups if group[0].shares_compilation(one)), None)
        groups.append([one]) if alike is None else alike.append(one)
    return [_part(group, points) for group in groups]


def _split(words: Sequence[str]) -> dict[str, list[str]]:
    """Field -> values of `--field value value ...`, `--field=value` and flags without a value; the last one wins."""
    out: dict[str, list[str]] = {}
    name = None
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word[2:].partition("=")
            name = flag.replace("-", "_")
            out[name] = [value] if equals else []
        elif name is None:
            raise ValueError(f"{word!r} is no flag: write --field value [value ...].")
        else:
            out[name].append(word)
    for name in [name for name, values in out.items() if not values]:  # --flag, --no-flag
        head, _, tail = name.rpartition(".")
        positive = (f"{head}." if head else "") + tail.removeprefix("no_")
        out[positive] = ["false" if tail.startswith("no_") else "true"]
        if positive != name:
            del out[name]
    return out


def _fields(learner: str, chosen: Mapping[str, list[str]]) -> dict[str, _Field]:
    """Everything that flags can set, the options of all chosen models included."""
    fields: dict[str, _Field] = {}
    for model in chosen.get("model", ["default"]):
        config = parse_train(learner, [] if model == "default" else ["--model", model])
        hints = typing.get_type_hints(type(config), include_extras=True)
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if not dataclasses.is_dataclass(value):
                name = field.name.removesuffix("_name")
                fields[name] = _Field(name, "", value)
                continue
            bare = tyro.conf.OmitArgPrefixes in getattr(hints[field.name], "__metadata__", ())
            for inner in dataclasses.fields(value):
                if field.name == "hyper" and not isinstance(getattr(value, inner.name), float):
                    continue  # data, which no flag sets
                name = inner.name if bare else f"{field.name}.{inner.name}"
                fields[name] = _Field(name, field.name, getattr(value, inner.name))
    return fields


def _varies(field: _Field, values: list[str]) -> bool:
    if isinstance(field.default, tuple):
        return False
    return len(values) > 1 or bool(values and _DRAW.fullmatch(values[0]))


def _points(varied: Mapping[str, list[str]], samples: int, seed: int) -> list[dict[str, float]]:
    """The values of the traced fields: the grid of those that are listed, times the draws of the others."""
    if samples < 1:
        raise ValueError(f"--samples must be at least 1, got {samples}.")
    drawn = {name: values[0] for name, values in varied.items() if _DRAW.fullmatch(values[0])}
    if samples > 1 and not drawn:
        raise ValueError("--samples draws fields given as log:LOW:HIGH or uniform:LOW:HIGH, and there is none.")
    listed = {name: [_float(name, v) for v in values] for name, values in varied.items() if name not in drawn}
    draws = {name: _drawn(name, text, samples, seed) for name, text in drawn.items()}
    grid = [dict(zip(listed, combo, strict=True)) for combo in itertools.product(*listed.values())]
    return [point | {n: draws[n][i] for n in draws} for i in range(samples if draws else 1) for point in grid]


def _float(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--{name.replace('_', '-')} {text}: a number, or a draw such as log:1e-4:1e-2.") from None


def _drawn(name: str, text: str, samples: int, seed: int) -> list[float]:
    """Every field has its own stream, so that another one more does not change it."""
    match = _DRAW.fullmatch(text)
    assert match is not None
    low, high = _float(name, match[2]), _float(name, match[3])
    log = match[1] == "log"
    if not low < high or (log and low <= 0):
        raise ValueError(f"--{name} {text}: LOW must be below HIGH{', and above 0' if log else ''}.")
    u = np.random.default_rng([seed, zlib.crc32(name.encode())]).random(samples)
    values = np.exp(math.log(low) + u * math.log(high / low)) if log else low + u * (high - low)
    return [float(f"{v:.6g}") for v in values]


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


class _Static:
    """One choice of everything static, built."""

    def __init__(self, learner: str, words: tuple[str, ...], label: dict[str, Any], points: list[dict[str, float]]):
        self.words, self.label = words, label
        self.config: Any = parse_train(learner, list(words))
        self.built, self.hyper = self.config.build()
        for name in points[0]:
            if getattr(self.hyper, name) != getattr(self.config.hyper, name):
                raise ValueError(
                    f"{name} is set by the run itself: switch that off to sweep it (such as --no-anneal-lr)."
                )

    def numbers(self) -> dict[str, np.ndarray]:
        """Leaves of the hyper-parameters."""
        leaves = jax.tree_util.tree_leaves_with_path(self.hyper)
        return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(x) for path, x in leaves}

    def shares_compilation(self, other: _Static) -> bool:
        """Whether they differ in nothing but numbers (data is not shared either: it would be copied to lanes)."""
        runs = [dataclasses.replace(c.run, seed=0, num_seeds=1) for c in (self.config, other.config)]
        ours, theirs = self.numbers(), other.numbers()
        return (
            runs[0] == runs[1]
            and self.built == other.built
            and jax.tree.structure(self.hyper) == jax.tree.structure(other.hyper)
            and all(ours[n].shape == x.shape and ours[n].dtype == x.dtype for n, x in theirs.items())
            and all(x.size == 1 or np.array_equal(ours[n], x) for n, x in theirs.items())
        )


def _part(group: list[_Static], points: list[dict[str, float]]) -> Part:
    """The lanes of a group: its choices, times the points, times the seeds."""
    numbers = [one.numbers() for one in group]
    differing = [
        n for n, x in numbers[0].items() if n not in points[0] and any(y[n] != x for y in numbers[1:] if x.size == 1)
    ]
    first = group[0].config.run.seed
    seeds, values, labels = [], [], []
    for (one, own), point in itertools.product(zip(group, numbers, strict=True), points):
        for seed in range(first, first + one.config.run.num_seeds):
            seeds.append(seed)
            values.append([own[n].item() for n in differing] + list(point.values()))
            labels.append(one.label | point | {"seed": seed})
    columns = zip(*values, strict=True)
    swept = tuple((n, tuple(column)) for n, column in zip([*differing, *points[0]], columns, strict=True))
    return Part(group[0].words, Settings(tuple(seeds), swept), tuple(labels))
