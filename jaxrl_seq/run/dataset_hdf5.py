"""Data sets of others: Minari's HDF5, read and written, and D4RL's, read. Needs h5py (extra `offline`).

Minari (0.5) keeps a folder `data` with metadata.json and main_data.hdf5, one group for each episode; observations there
are one more than actions. D4RL keeps flat columns, of which `terminals` and `timeouts` say where episodes end.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxrl_seq.envs import Box, Discrete, Space, Tree
from jaxrl_seq.offline.dataset import Dataset, Meta, build
from jaxrl_seq.run.dataset_meta import meta_from_json, meta_to_json, space_from_json, space_to_json

Incomplete = Literal["error", "drop", "truncate"]
"""What becomes of an episode without a flag of end."""
_MAIN, _META, _OURS = "main_data.hdf5", "metadata.json", "jaxrl_seq"
_FORMAT = "0.5.0"
"""Minari refuses files of versions that it does not know."""


def require_h5py() -> Any:
    """The module. ValueError where it is not installed."""
    try:
        return importlib.import_module("h5py")
    except ImportError:
        raise ValueError("HDF5 files need h5py: pip install 'jaxrl_seq[offline]' (or h5py).") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, for reading. ValueError for one that is damaged, or no HDF5."""
    h5py = require_h5py()
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise ValueError(f"{path} is damaged, cut off, or no HDF5 file: {error}") from None


def minari_file(path: Path) -> Path | None:
    """The main file of a Minari data set at `path` (its folder, `data` in it, or the file); None if none is."""
    places = (path, path / _MAIN, path / "data" / _MAIN)
    return next((place for place in places if place.name == _MAIN and place.is_file()), None)


# --- Minari, out ------------------------------------------------------------------------------------------------------
def write_minari(path: str | Path, dataset: Dataset) -> Path:
    """Write the folder of a data set that `minari.MinariDataset(path / "data")` opens; returns `path`.

    Further columns become infos, whose first entry, that of the reset, is zero. Raises ValueError for spaces that
    Minari has not, and where there is a data set already.
    """
    h5py = require_h5py()
    path, meta = Path(path), dataset.meta
    spaces = {name: json.dumps(space_to_json(getattr(meta, name))) for name in ("observation_space", "action_space")}
    folder = path / "data"
    if (folder / _MAIN).exists():
        raise ValueError(f"{path} holds a data set already: give another folder, or remove that one.")
    folder.mkdir(parents=True, exist_ok=True)
    host: Any = jax.device_get(dataset)
    with h5py.File(folder / _MAIN, "w", track_order=True) as file:
        for e, (start, length) in enumerate(zip(host.start.tolist(), host.length.tolist(), strict=True)):
            group = file.create_group(f"episode_{e}")
            group.attrs.update({"id": e, "total_steps": length, "source": int(host.source[e])})
            _put_episode(group, host, e, slice(start, start + length))
    reference = dict(meta.reference)
    (folder / _META).write_text(
        json.dumps(
            spaces
            | {
                "total_episodes": dataset.num_episodes,
                "total_steps": dataset.steps,
                "data_format": "hdf5",
                "dataset_id": _minari_id(meta),
                "minari_version": _FORMAT,
                "algorithm_name": meta.recipe,
                "jpeg_encoding": False,
                "ref_min_score": reference.get("random"),
                "ref_max_score": reference.get("expert"),
                "dataset_size": round((folder / _MAIN).stat().st_size / 1e6, 1),
                _OURS: {"meta": meta_to_json(meta), "columns": sorted(host.extra)},
            }
        )
    )
    return path


def _minari_id(meta: Meta) -> str:
    env = "".join(c if c.isalnum() else "_" for c in meta.env) or "data"
    return f"jaxrl_seq/{env}/{meta.recipe or 'recorded'}-v0"


def _put_episode(group: Any, host: Any, e: int, rows: slice) -> None:
    seen = jax.tree.map(lambda x, last: np.concatenate([x[rows], last[e : e + 1]]), host.obs, host.final_obs)
    _put(group, "observations", seen)
    _put(group, "actions", jax.tree.map(lambda x: x[rows], host.action))
    for name, column in (("rewards", "reward"), ("terminations", "terminated"), ("truncations", "truncated")):
        _put(group, name, getattr(host, column)[rows])
    if host.extra:
        _put(group, "infos", {name: np.concatenate([np.zeros_like(x[:1]), x[rows]]) for name, x in host.extra.items()})


def _put(group: Any, name: str, value: Any) -> None:
    if isinstance(value, dict):
        below = group.create_group(name)
        for key, sub in value.items():
            _put(below, key, sub)
        return
    group.create_dataset(name, data=value, chunks=True, maxshape=(None, *value.shape[1:]))


# --- Minari, in -------------------------------------------------------------------------------------------------------
def read_minari(path: Path, incomplete: Incomplete = "error") -> Dataset:
    """The data set of a main_data.hdf5 with its metadata.json. No environment is needed.

    Raises ValueError, with the episode, for what is missing, damaged, of a foreign space, or does not fit together.
    """
    header = _metadata(path)
    spaces = {name: space_from_json(json.loads(header[name]), name) for name in ("observation_space", "action_space")}
    ours = header.get(_OURS) or {}
    columns = ours.get("columns", [])
    parts: list[dict[str, Any]] = []
    with _opened(path) as file:
        count = header.get("total_episodes", len(file))
        for e in range(count):
            if f"episode_{e}" not in file:
                raise ValueError(f"{path} has no episode_{e}; expected {count} episodes, as {_META} says.")
            part = _episode(file[f"episode_{e}"], f"{path}: episode {e}", spaces, columns, incomplete)
            parts += [part] if part else []
    if not parts:
        raise ValueError(f"{path} holds no complete episode.")
    whole = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    return build(**whole, meta=_meta_of(header, spaces, ours, path))


def _metadata(path: Path) -> dict[str, Any]:
    place = path.with_name(_META)
    try:
        header = json.loads(place.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{place}, which says what {path.name} is of, is missing or damaged: {error}") from None
    if header.get("data_format", "hdf5") != "hdf5":
        raise ValueError(f"{place}: data of the format {header['data_format']!r}; only hdf5 is read. Convert it.")
    for name in ("observation_space", "action_space"):
        if name not in header:
            raise ValueError(f"{place} has no {name}, as files before Minari 0.4 have not: convert it with Minari.")
    return header


def _meta_of(header: dict[str, Any], spaces: dict[str, Any], ours: dict[str, Any], path: Path) -> Meta:
    if ours.get("meta"):
        return meta_from_json(ours["meta"])
    scores = (("random", header.get("ref_min_score")), ("expert", header.get("ref_max_score")))
    reference = tuple((name, float(score)) for name, score in scores if score is not None)
    notes = (("minari", str(header.get("dataset_id", path))),)
    return Meta(**spaces, recipe=str(header.get("algorithm_name") or ""), reference=reference, notes=notes)


def _episode(
    group: Any, where: str, spaces: dict[str, Any], columns: list[str], incomplete: Incomplete
) -> dict[str, Any] | None:
    """The columns of an episode as `build` takes them; None if it is dropped."""
    names = ("observations", "actions", "rewards", "terminations", "truncations")
    missing = [name for name in names if name not in group]
    if missing:
        raise ValueError(f"{where} has no {', '.join(missing)}; it has {', '.join(group)}.")
    seen = _column(group["observations"], spaces["observation_space"], f"{where}, observations")
    action = _column(group["actions"], spaces["action_space"], f"{where}, actions")
    reward = np.asarray(group["rewards"][()], np.float32).reshape(-1)
    terminated, truncated = (np.asarray(group[name][()], bool).reshape(-1) for name in names[3:])
    steps = len(reward)
    for name, leaf, rows in [
        *(("observations", x, steps + 1) for x in jax.tree.leaves(seen)),
        *(("actions", x, steps) for x in jax.tree.leaves(action)),
        ("terminations", terminated, steps),
        ("truncations", truncated, steps),
    ]:
        if len(leaf) != rows:
            raise ValueError(f"{where} has {len(leaf)} {name}; expected {rows}, for {steps} rewards.")
    if not steps:
        raise ValueError(f"{where} has no steps: remove it.")
    flags = _ended(terminated, truncated, where, incomplete)
    if flags is None:
        return None
    infos = {name: np.asarray(group["infos"][name][()]) for name in columns}
    return {
        "obs": jax.tree.map(lambda x: x[:-1], seen),
        "final_obs": jax.tree.map(lambda x: x[-1:], seen),
        "action": action,
        "reward": reward,
        "terminated": flags[0],
        "truncated": flags[1],
        "length": np.array([steps]),
        "source": np.array([group.attrs.get("source", 0)], np.int32),
        "extra": {name: x[-steps:] for name, x in infos.items()},
    }


def _ended(
    terminated: np.ndarray, truncated: np.ndarray, where: str, incomplete: Incomplete
) -> tuple[np.ndarray, np.ndarray] | None:
    """The flags with an end at the last step; termination wins where both are set. None if the episode is dropped."""
    truncated = truncated & ~terminated
    if terminated[-1] or truncated[-1]:
        return terminated, truncated
    if incomplete == "error":
        raise ValueError(
            f"{where}, step {len(terminated) - 1} is the last one but neither terminated nor truncated: load it with "
            'incomplete="truncate" where the recording merely stopped, or "drop".'
        )
    truncated[-1] = True
    return (terminated, truncated) if incomplete == "truncate" else None


def _column(node: Any, space: Space, where: str) -> Any:
    """Members of `space` [T, ...], in the space's dtype. Pictures that Minari packed as JPEG are unpacked."""
    if isinstance(space, Tree):
        missing = [name for name in space.spaces if not hasattr(node, "keys") or name not in node]
        if missing:
            raise ValueError(f"{where} has no {', '.join(missing)}, which its space names.")
        return {name: _column(node[name], sub, f"{where}.{name}") for name, sub in space.spaces.items()}
    if hasattr(node, "keys"):
        raise ValueError(f"{where} is a group of {', '.join(node)}; expected one array of {space}.")
    values, shape = node[()], getattr(space, "shape", ())
    if isinstance(space, Box) and len(shape) == 3 and values.ndim <= 2 and space.dtype == np.uint8:
        from PIL import Image

        values = np.stack([np.asarray(Image.open(io.BytesIO(bytes(packed)))) for packed in values])
    if values.shape[1:] != shape:
        raise ValueError(f"{where} has shape {values.shape}; expected (T, {', '.join(map(str, shape))}) of {space}.")
    return values.astype(space.dtype)  # pyright: ignore[reportAttributeAccessIssue]


# --- D4RL -------------------------------------------------------------------------------------------------------------
def read_d4rl(path: Path, incomplete: Incomplete = "drop") -> Dataset:
    """The data set of a flat HDF5 file as D4RL (Fu et al. 2020) and DSRL have them; `costs` become the column `cost`.

    Episodes end where `terminals` or `timeouts` say so. incomplete: what becomes of a last piece without either. Where
    a file lacks `next_observations`, what a timed-out step led to is unknown: its episode ends a step earlier, as in
    D4RL's own reader. Spaces are boxes of float32 without bounds (actions: of +-1 where all lie within), or integers.
    Raises ValueError for files that are damaged, or of another kind.
    """
    with _opened(path) as file:
        wanted = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations", "costs")
        found = {name: file[name] for name in wanted if name in file}
        missing = [name for name in wanted[:4] if name not in found]
        if missing or any(hasattr(node, "keys") for node in found.values()):
            raise ValueError(
                f"{path} is no D4RL file: it has {', '.join(list(file)[:8]) or 'nothing'}, but no flat "
                f"{', '.join(missing) or 'columns'}. A Minari file is called {_MAIN}, beside its {_META}."
            )
        columns = {name: np.asarray(node[()]) for name, node in found.items()}
    steps = len(columns["rewards"])
    for name, column in columns.items():
        if len(column) != steps:
            raise ValueError(f"{path}: {len(column)} {name}, but {steps} rewards: the file is cut off or foreign.")
    return _flat(path, columns, incomplete)


def _flat(path: Path, columns: dict[str, np.ndarray], incomplete: Incomplete) -> Dataset:
    terminated = columns["terminals"].reshape(-1).astype(bool)
    truncated = columns.get("timeouts", np.zeros_like(terminated)).reshape(-1).astype(bool) & ~terminated
    keep = np.ones(len(terminated), bool)
    ends = np.flatnonzero(terminated | truncated)
    begin = int(ends[-1]) + 1 if len(ends) else 0
    if begin < len(keep):
        where = f"{path}: episode {len(ends)}"
        flags = _ended(terminated[begin:], truncated[begin:], where, incomplete)
        if flags is None:
            warnings.warn(f"{where} has no end: its {len(keep) - begin} steps are left out.", stacklevel=4)
            keep[begin:] = False
        else:
            truncated[begin:] = flags[1]
    obs, following = columns["observations"], columns.get("next_observations")
    if following is None:
        following, keep, truncated = _without_cut_steps(obs, keep, terminated, truncated)
    if not keep.any():
        raise ValueError(f"{path} holds no complete episode: none of its {len(keep)} steps is an end.")
    last = (terminated | truncated) & keep
    action = columns["actions"]
    return build(
        obs=_as32(obs[keep]),
        action=_as32(action[keep]),
        reward=columns["rewards"].reshape(-1)[keep],
        terminated=terminated[keep],
        truncated=truncated[keep],
        final_obs=_as32(following[last]),
        extra={"cost": columns["costs"].reshape(-1, 1)[keep].astype(np.float32)} if "costs" in columns else {},
        meta=Meta(_space_of(obs, False), _space_of(action, True), notes=(("d4rl", path.name),)),
    )


def _without_cut_steps(
    obs: np.ndarray, keep: np.ndarray, terminated: np.ndarray, truncated: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(what each step led to, which steps stay, where episodes are cut): the last step of a cut episode goes, and is
    what the one before it led to. Nothing lies beyond a termination; its own observation stands in."""
    following = np.concatenate([obs[1:], obs[-1:]])
    following[terminated] = obs[terminated]
    cut = truncated & keep
    opens = np.concatenate([[True], (terminated | truncated)[:-1]])
    earlier = np.zeros_like(cut)
    earlier[:-1] = cut[1:] & ~opens[1:]
    return following, keep & ~cut, (truncated & ~cut) | earlier


def _as32(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if x.dtype.kind == "f" else x.astype(np.int32) if x.dtype.kind in "iu" else x


def _space_of(x: np.ndarray, action: bool) -> Space:
    """The space that members [N, ...] are taken to be of."""
    if x.dtype.kind in "iu" and x.ndim == 1:
        return Discrete(int(x.max()) + 1)
    bound = 1.0 if action and np.abs(x).max() <= 1 else np.inf
    return Box(-bound, bound, x.shape[1:], np.float32)
