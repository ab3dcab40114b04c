"""Data sets by name or from a file: made on the device by a recipe, or read; and kept in one .npz with checksums."""

from __future__ import annotations

import json
import time
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_seq.envs import Env, make
from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.offline import RECIPES, Dataset, Meta, Teacher, check_dataset, concatenate, make_dataset, require_env
from jaxrl_seq.offline.check import DatasetReport
from jaxrl_seq.offline.dataset import build, given, named_leaves
from jaxrl_seq.run import dataset_hdf5 as hdf5
from jaxrl_seq.run.checkpoint_leaves import crc, sealed
from jaxrl_seq.run.dataset_meta import meta_from_json, meta_to_json

VERSION = 1
_HEADER = "header"
_FILES = (".npz", ".hdf5", ".h5")


@dataclass(frozen=True)
class Data:
    """Where a learner's data comes from."""

    dataset: str = "point_mass-medium-replay"
    """ENV-RECIPE, which is made on the device; or a file of `jaxrl-seq collect dataset`, a folder of such files, a
    Minari data set or a D4RL file."""
    dataset_steps: int = 100_000
    """Steps to make."""
    dataset_seed: int = 0
    """Of what is made."""
    dataset_env: str = ""
    """Environment id, for files that do not say which."""

    def open(self, teacher: Teacher | None = None) -> tuple[Dataset, Env, Any]:
        """(data set, its environment, the environment's parameters). ValueError where they do not fit."""
        dataset = get_dataset(
            self.dataset,
            steps=self.dataset_steps,
            seed=self.dataset_seed,
            env=self.dataset_env,
            teacher=teacher,
        )
        if not dataset.meta.env:
            raise ValueError(f"{self.dataset} does not say what it is of: give --dataset-env, to act in.")
        env, params = make(dataset.meta.env)
        require_env(dataset, env)
        return dataset, env, params


def get_dataset(
    name: str, *, steps: int = 100_000, seed: int = 0, env: str = "", teacher: Teacher | None = None
) -> Dataset:
    """The data set of that name, or at that path: the one way in for every learner.

    name: ENV-RECIPE or ENV/RECIPE, with the environment's options behind, as in tmaze-expert,length=20; it is made by
    `make_dataset`. Or a path, see `load_dataset`; `env` is for files that do not say of which environment they are.
    Raises ValueError for anything else.
    """
    if is_path(name):
        return load_dataset(name, env=env)
    spec, recipe = split_name(name)
    return make_named(spec, recipe, steps, seed, teacher)


def is_path(name: str) -> bool:
    """Whether a data set's name is that of a file or folder."""
    return Path(name).exists() or Path(name).suffix in _FILES


def split_name(name: str) -> tuple[str, str]:
    """(environment id, recipe) of a name; where a preset could be a part of the recipe, a slash decides."""
    head, comma, options = name.partition(",")
    for recipe in sorted(RECIPES, key=len, reverse=True):
        for sign in "/-":
            if head.endswith(sign + recipe):
                return head[: -len(sign + recipe)] + comma + options, recipe
    raise ValueError(
        f"{name!r} is neither a file nor a data set's name, ENV-RECIPE such as point_mass-expert. Recipes: "
        f"{', '.join(RECIPES)}."
    )


def make_named(spec: str, recipe: str, steps: int, seed: int, teacher: Teacher | None = None) -> Dataset:
    """`make_dataset` for the environment of an id."""
    env, params = make(spec)
    meta = Meta(env.observation_space(), env.action_space(), spec, seed=seed)
    return make_dataset(recipe, env, params, jax.random.key(seed), steps, teacher=teacher, meta=meta)


def load_dataset(path: str | Path, *, env: str = "", incomplete: hdf5.Incomplete | None = None) -> Dataset:
    """A data set from a file or folder, held to every rule of `check_dataset`.

    A .npz of `save_dataset`; a folder of them (shards, in the order of their names); a Minari data set (its folder, or
    main_data.hdf5 in it); a D4RL file (.hdf5). incomplete: what becomes of episodes that just stop: "error", "drop" or
    "truncate"; None: D4RL's last one is dropped, others are errors. Raises ValueError, with the place, for files that
    are missing, damaged or foreign, and for data that breaks a rule.
    """
    parts = load_shards(path, env=env, incomplete=incomplete)
    for where, part in parts:
        check_dataset(part, where=where if len(parts) > 1 else "")
    return parts[0][1] if len(parts) == 1 else concatenate([part for _, part in parts])


def load_shards(
    path: str | Path, *, env: str = "", incomplete: hdf5.Incomplete | None = None
) -> list[tuple[str, Dataset]]:
    """[(file name, data set)]: as `load_dataset`, but apart, and not held to the rules."""
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder.")
    minari = hdf5.minari_file(path)
    if minari is not None:
        parts = [(minari.name, hdf5.read_minari(minari, incomplete or "error"))]
    elif path.is_dir():
        files = sorted(path.glob("*.npz"))
        if not files:
            raise ValueError(f"{path} holds no data set: neither .npz files nor main_data.hdf5 (Minari).")
        parts = [(file.name, _load_npz(file)) for file in files]
    elif path.suffix == ".npz":
        parts = [(path.name, _load_npz(path))]
    else:
        parts = [(path.name, hdf5.read_d4rl(path, incomplete or "drop"))]
    return [(name, _of_env(part, env)) for name, part in parts]


def _of_env(dataset: Dataset, spec: str) -> Dataset:
    """With the environment that the user named, where the file does not say. ValueError if they do not fit."""
    if not spec or dataset.meta.env:
        return dataset
    env, _ = make(spec)
    require_env(dataset, env)
    spaces = {"observation_space": env.observation_space(), "action_space": env.action_space()}
    return replace(dataset, meta=replace(dataset.meta, env=spec, **spaces))


# --- the native file --------------------------------------------------------------------------------------------------
def save_dataset(path: str | Path, dataset: Dataset) -> Path:
    """Write a .npz: columns, what they are of, and a checksum for each. The file appears at once, whole.

    What is derived (clock columns, returns, statistics) is left out. Raises ValueError for another suffix.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"{path}: a data set is kept in a .npz file (or a folder, for Minari: `write_minari`).")
    arrays = {name: np.asarray(leaf) for name, leaf in named_leaves(given(dataset))}
    table = {name: {"shape": x.shape, "dtype": str(x.dtype), "crc32": crc(x)} for name, x in arrays.items()}
    header = sealed({"version": VERSION, "meta": meta_to_json(dataset.meta), "arrays": table})
    fresh = path.with_suffix(".new.npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(fresh, **{_HEADER: np.array(json.dumps(header))}, **arrays)  # pyright: ignore[reportArgumentType]
    fresh.replace(path)
    return path


def _load_npz(path: Path) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop(_HEADER)))
        version, sealed_by, table = header["version"], header["crc32"], header["arrays"]
    except (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is no data set of this library, or damaged: {error}") from None
    if version != VERSION:
        raise ValueError(f"{path} is of version {version}; this library reads version {VERSION}.")
    if sealed(header)["crc32"] != sealed_by:
        raise ValueError(f"{path}: the header was changed since it was written: collect the data anew.")
    if table.keys() != arrays.keys():
        raise ValueError(f"{path} has arrays {sorted(arrays)}; its header names {sorted(table)}.")
    for name, row in table.items():
        found = {"shape": list(arrays[name].shape), "dtype": str(arrays[name].dtype), "crc32": crc(arrays[name])}
        if found != row:
            raise ValueError(f"{path}: {name} is {found}, but {row} was written: the file is damaged.")
    meta = meta_from_json(header["meta"])
    columns = {name: arrays[name] for name in ("reward", "terminated", "truncated", "length", "source")}
    columns["extra"] = {name.removeprefix("extra."): x for name, x in arrays.items() if name.startswith("extra.")}
    for name, space in (
        ("obs", meta.observation_space),
        ("final_obs", meta.observation_space),
        ("action", meta.action_space),
    ):
        like = jax.eval_shape(space.sample, jax.eval_shape(lambda: jax.random.key(0)))
        names = [leaf for leaf, _ in named_leaves({name: like})]
        columns[name] = jax.tree.unflatten(jax.tree.structure(like), [arrays[leaf] for leaf in names])
    try:
        return build(**columns, meta=meta)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


# --- the commands -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class CollectDataset:
    """Make a data set on the device and keep it in a file."""

    env: str = "point_mass"
    """Environment id, as for train."""
    recipe: str = "medium-replay"
    """random, expert, eps-mix, medium, medium-replay, medium-expert, histories, stitch, crossing or budgets."""
    steps: int = 100_000
    """At least so many, in whole episodes."""
    seed: int = 0
    """Another seed, other data."""
    out: str = ""
    """A file NAME.npz, or a folder, for the format of Minari; by default ENV-RECIPE.npz."""
    teacher: Teacher = field(default_factory=Teacher)

    def run(self) -> str:
        """Make and write; returns a line that says what there is."""
        known(self.recipe, RECIPES, "recipe")
        plain = "".join(c if c.isalnum() or c in "_-" else "_" for c in self.env)
        out = Path(self.out or f"{plain}-{self.recipe}.npz")
        if out.suffix not in ("", ".npz"):
            raise ValueError(f"--out {out}: give a file NAME.npz, or a folder (no suffix) for the format of Minari.")
        if not out.suffix:
            hdf5.require_h5py()
        start = time.monotonic()
        dataset = jax.block_until_ready(make_named(self.env, self.recipe, self.steps, self.seed, self.teacher))
        seconds = time.monotonic() - start
        path = save_dataset(out, dataset) if out.suffix else hdf5.write_minari(out, dataset)
        stats = dataset.stats
        return (
            f"{path}: {dataset.steps:,} steps, {dataset.num_episodes:,} episodes with returns {stats.return_low:.4g} "
            f"to {stats.return_high:.4g} (mean {stats.return_mean:.4g}), {dataset.nbytes / 1e6:.1f} MB, made in "
            f"{seconds:.1f} s, compilation included"
        )


def check_path(path: str | Path, env: str = "") -> list[DatasetReport]:
    """A report for each file of a data set, and for the environment where that is known."""
    reports = []
    for where, part in load_shards(path, env=env):
        world = make(part.meta.env)[0] if part.meta.env else None
        reports.append(check_dataset(part, world, where=where, raise_on_failure=False))
    return reports
