"""Checkpoints that are known to be good: `Checkpoints(folder).save(step, state, meta)` and
`.restore(target)`.

A checkpoint is a folder named by its step. orbax writes the arrays in the background and renames the folder
into place when everything is on disk; inside lies our manifest: one row a leaf (path, shape, dtype, CRC32 of
its bytes), the caller's `meta`, and a checksum of itself. A folder without a manifest is an unfinished save
and is never used. `restore` checks structure, shapes, dtypes and every checksum, because orbax (0.12) casts a
wrong dtype silently, returns flipped bits in array data without an error and takes an empty folder named `9`
for step 9. Retention is ours for the same reason: a damaged folder must never push out a good one.

Local or mounted file systems. Arrays may be sharded over this process's devices; several
processes save together what all of them have fetched (`mesh.fetch`), and the first one tidies up.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_seq.run import checkpoint_leaves as leaves
from jaxrl_seq.run.checkpoint_orbax import brief, orbax, quiet_failures
from jaxrl_seq.run.health import check_free_space

_FORMAT = 1
_MANIFEST = Path("manifest") / "metadata"  # where orbax's JSON item keeps its one file


@dataclasses.dataclass(frozen=True)
class Restored:
    """What `restore` returns: the step (int), the state (the target's tree, filled) and the caller's meta."""

    step: int
    state: Any
    meta: dict[str, Any]


class _Damaged(Exception):
    """A checkpoint cannot be used; the text says which leaf or part and why."""


class Checkpoints:
    """The checkpoints of one run, newest last. A context manager: leaving it waits for the save under way.

    folder: created at the first save. keep: how many finished checkpoints stay (at least 1; 2 or more give a
    damaged one something to fall back to). Raises ValueError for keep < 1.
    """

    def __init__(self, folder: str | Path, keep: int = 3):
        if keep < 1:
            raise ValueError(f"keep is {keep}: at least 1 checkpoint must stay (3 is the default)")
        self.folder = Path(folder).absolute()
        self.keep = keep
        self._writer: Any = None
        self._pending: int | None = None

    def save(self, step: int, state: Any, meta: dict[str, Any] | None = None) -> bool:
        """Copies `state` to the host and starts writing it; returns while the disk is still busy.

        state: a tree of jax or numpy arrays (typed keys included); it may be donated or changed afterwards.
        meta: a JSON dictionary. A save already under way is waited for first. A step that exists and is
        intact with the same values is left alone; otherwise it is replaced. Steps later than this one belong
        to a branch that was abandoned and go once this one is on disk. Returns False, with one warning, where
        the disk refuses (full, read-only): a run goes on without. Raises ValueError for a leaf that is no
        array, and TypeError for meta that is no JSON.
        """
        self.wait()
        table, arrays = leaves.describe(state)
        if self._holds(step, table):
            return True
        manifest = leaves.sealed({"format": _FORMAT, "step": int(step), "leaves": table, "meta": meta or {}})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            check_free_space(self.folder, sum(a.nbytes for a in arrays.values()) + 2**20)
            self._start(step, arrays, manifest)
        except Exception as error:  # orbax and tensorstore raise many kinds for one full disk
            self._refused(step, error)
            return False
        self._pending = int(step)
        return True

    def wait(self) -> bool:
        """Blocks until the save under way is on disk, then drops checkpoints beyond `keep`. False if it
        failed.
        """
        if self._pending is None:
            return True
        step, self._pending = self._pending, None
        try:
            self._writer.wait_until_finished()
        except Exception as error:
            self._refused(step, error)
            return False
        self._prune(step)
        return True

    def steps(self) -> list[int]:
        """Steps with a finished checkpoint on disk, ascending; `restore` is what verifies them."""
        return [step for step in self._folders() if (self.folder / str(step) / _MANIFEST).is_file()]

    def restore(self, target: Any, step: int | None = None) -> Restored:
        """The newest good checkpoint (or exactly `step`), verified leaf by leaf.

        target: a tree of jax.ShapeDtypeStruct or arrays, as from `jax.eval_shape`. A leaf with a sharding is
        placed there; without one it goes, uncommitted, to the default device; a numpy leaf stays numpy.
        Damaged checkpoints are skipped with a warning that names step and leaf (never when `step` is given).
        Raises ValueError where there is no checkpoint, none is good, or the saved tree differs from the
        target.
        """
        self.wait()
        problems: list[str] = []
        for number in self._candidates(step):
            try:
                manifest = self._manifest(number)
                leaves.check_target(manifest["leaves"], target, f"checkpoint {number} in {self.folder.name}/")
                arrays = self._read(number, manifest["leaves"])
            except _Damaged as damage:
                problems.append(f"checkpoint {number} is damaged: {damage}.")
                continue
            if problems:
                _warn("\n".join([*problems, f"Using {number}."]))
            return Restored(number, leaves.fill(target, manifest["leaves"], arrays), manifest["meta"])
        hint = "Give another step." if step is not None else "Start the run again with --overwrite."
        raise ValueError("\n".join([*problems, f"No usable checkpoint in {self.folder.name}/. {hint}"]))

    def read_meta(self, step: int | None = None) -> dict[str, Any]:
        """The `meta` of the newest finished checkpoint (or of `step`), without reading arrays. ValueError:
        none.
        """
        problems: list[str] = []
        for number in self._candidates(step):
            try:
                return self._manifest(number)["meta"]
            except _Damaged as damage:
                problems.append(f"checkpoint {number} is damaged: {damage}.")
        raise ValueError("\n".join([*problems, f"No usable checkpoint in {self.folder.name}/."]))

    def close(self) -> None:
        """Waits for the save under way and lets orbax's threads go. May be called twice."""
        self.wait()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # ---- the folder ----

    def _folders(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdecimal() and p.is_dir())

    def _candidates(self, step: int | None) -> list[int]:
        """Every folder named like a step, newest first: an unfinished one is tried too, so that it gets
        named.
        """
        found = self._folders()
        if not found:
            raise ValueError(
                f"no checkpoint in {self.folder.parent.name}/{self.folder.name}/: "
                "give the run folder that `jaxrl-seq train` printed, or train first"
            )
        if step is not None and step not in found:
            raise ValueError(f"no checkpoint of step {step} in {self.folder.name}/: there are {found}")
        return [step] if step is not None else found[::-1]

    def _manifest(self, step: int) -> dict[str, Any]:
        try:
            manifest = json.loads((self.folder / str(step) / _MANIFEST).read_text())
        except FileNotFoundError:
            raise _Damaged("no manifest (the save did not finish)") from None
        except (OSError, ValueError):
            raise _Damaged("manifest (not readable)") from None
        if not isinstance(manifest, dict) or manifest != leaves.sealed(manifest):
            raise _Damaged("manifest (checksum)")
        if manifest["format"] > _FORMAT:
            raise ValueError(f"checkpoint {step} was written by a later jaxrl_seq: update the package")
        return manifest

    def _holds(self, step: int, table: list[leaves.Row]) -> bool:
        """Whether `step` is on disk with exactly these values, and reads back."""
        if step not in self.steps():
            return False
        try:
            manifest = self._manifest(step)
            return manifest["leaves"] == table and bool(self._read(step, table))
        except _Damaged:
            return False

    def _prune(self, newest: int) -> None:
        finished = [step for step in self.steps() if step <= newest]
        oldest = finished[-self.keep :][0] if finished else newest
        for step in self._folders() if jax.process_index() == 0 else ():
            if step < oldest or step > newest:
                shutil.rmtree(self.folder / str(step), ignore_errors=True)

    def _sweep(self) -> None:
        """Removes half-written saves, which a kill or a full disk leaves behind."""
        for leftover in self.folder.glob("*.orbax-checkpoint-tmp*") if jax.process_index() == 0 else ():
            shutil.rmtree(leftover, ignore_errors=True)

    def _refused(self, step: int, error: Exception) -> None:
        self._writer = None  # a fresh one next time: orbax's may be in any state
        self._sweep()
        steps = self.steps()
        left = f"the last checkpoint is {steps[-1]}" if steps else "there is no checkpoint yet"
        _warn(f"checkpoint {step} was not saved: {brief(error)}.\nTraining goes on; {left}.")

    # ---- orbax ----

    def _start(self, step: int, arrays: dict[str, np.ndarray], manifest: dict[str, Any]) -> None:
        ocp = orbax()
        if self._writer is None:
            self._sweep()
            self._writer = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
        items = ocp.args.Composite(state=ocp.args.StandardSave(arrays), manifest=ocp.args.JsonSave(manifest))
        self._writer.save(self.folder / str(step), args=items, force=True)

    def _read(self, step: int, table: list[leaves.Row]) -> dict[str, np.ndarray]:
        """Arrays by path, their checksums verified. Raises _Damaged."""
        empty = {row["path"]: np.empty(row["shape"], leaves.storage_dtype(row)) for row in table}
        wanted = {leaves.storage_name(i): empty[row["path"]] for i, row in enumerate(table) if empty[row["path"]].size}
        ocp = orbax()
        try:
            with quiet_failures(), ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
                items = ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
                saved = reader.restore(self.folder / str(step), args=items)["state"]
        except Exception as error:  # tensorstore's texts run to kilobytes
            where = re.search(r'"(\d{5})/', str(error))
            leaf = table[int(where[1])]["path"] if where else "array files"
            raise _Damaged(f"{leaf} ({brief(error)})") from None
        for i, row in enumerate(table):
            array = saved.get(leaves.storage_name(i), empty[row["path"]])
            if leaves.crc(array) != row["crc32"]:
                raise _Damaged(f"{row['path']} (checksum)")
            empty[row["path"]] = array
        return empty


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=4)
