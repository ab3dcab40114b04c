"""What keeps a run whole: finite checks, disk space, the rules of a run folder, its lock, polite signals."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import threading
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np

EXIT_RESUMABLE = 85  # the exit code of a run that was asked to stop and can be resumed (for job schedulers)
LOCK_FILE = "run.lock"
RUN_FILES = ("config.json", "env.json", "metrics.jsonl", "summary.json", "report.html", "results.csv", LOCK_FILE)
RUN_FOLDERS = ("checkpoints", "videos", "tensorboard", "profile", "parts")


def first_nonfinite(tree: Any) -> str | None:
    """The path of the first leaf with a NaN or an infinity, such as 'params/encoder/kernel', or None.

    tree: arrays or numbers. Integers, booleans and PRNG keys are finite by nature. One small program per tree
    shape runs on the device and one flag a leaf comes back.
    """
    leaves = [(path, leaf) for path, leaf in jax.tree.leaves_with_path(tree) if _is_inexact(leaf)]
    on_device = [leaf for _, leaf in leaves if isinstance(leaf, jax.Array)]
    flags = iter(jax.device_get(_all_finite(on_device)) if on_device else ())
    for path, leaf in leaves:
        finite = next(flags) if isinstance(leaf, jax.Array) else np.isfinite(leaf).all()
        if not finite:
            return jax.tree_util.keystr(path, simple=True, separator="/")
    return None


@jax.jit
def _all_finite(leaves: list[jax.Array]) -> list[jax.Array]:
    return [jnp.isfinite(leaf).all() for leaf in leaves]


def _is_inexact(leaf: Any) -> bool:
    return isinstance(leaf, float) or jnp.issubdtype(getattr(leaf, "dtype", np.int32), jnp.inexact)


def check_free_space(path: str | Path, needed_bytes: int) -> None:
    """Raises OSError (ENOSPC), with both numbers, where fewer than `needed_bytes` are free under `path`."""
    folder = Path(path).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        numbers = f"{needed_bytes / 1e6:.1f} MB needed but {free / 1e6:.1f} MB free"
        raise OSError(errno.ENOSPC, f"{numbers}: make room or keep fewer checkpoints")


# ---- the run folder ----


def prepare_run_dir(path: str | Path, overwrite: bool = False) -> Path:
    """Makes the folder of a new run and returns it.

    An empty or missing folder is taken. An earlier run is refused, or with `overwrite` cleared of what runs
    write (RUN_FILES and RUN_FOLDERS; anything else in it stays). A folder that holds other things is always
    refused. Raises ValueError with the way out.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give another folder for the run")
    contents = {p.name for p in folder.iterdir()} - {LOCK_FILE} if folder.is_dir() else set()
    if contents:
        _refuse_or_clear(folder, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _refuse_or_clear(folder: Path, overwrite: bool) -> None:
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds files but no config.json, so it is no run of jaxrl_seq: give another folder")
    if not overwrite:
        raise ValueError(
            f"{folder} holds a run already: continue it with `jaxrl-seq resume {folder}`, "
            "replace it with --overwrite, or give another folder"
        )
    with RunLock(folder):  # a run that is alive must not lose its folder
        for name in (*RUN_FOLDERS, *RUN_FILES):
            _remove(folder / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class RunLock:
    """Holds a run folder for this process while the block lasts. ValueError where another process holds it.

    The lock is the operating system's (flock), so it goes with the process however that ends. The file names
    the holder for people. Where the platform has no flock, nothing is locked.
    """

    def __init__(self, folder: str | Path):
        self._path = Path(folder) / LOCK_FILE
        self._file: IO[str] | None = None

    def __enter__(self) -> RunLock:
        try:
            import fcntl
        except ImportError:
            return self
        file = self._path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return self  # a file system without locks
            raise ValueError(f"{self._path.parent} is in use by {holder}: wait for it or stop it") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        self._file = file
        return self

    def __exit__(self, *exc_info: object) -> None:
        file, self._file = self._file, None
        if file is not None:
            self._path.unlink(missing_ok=True)
            file.close()


# ---- signals ----


class Interrupts:
    """SIGINT and SIGTERM become a flag while the block lasts; a second Ctrl-C raises KeyboardInterrupt.

        with Interrupts() as interrupts:
            while not interrupts.requested: ...one chunk...

    `requested`: whether a signal came. `signal_name`: its name ('SIGTERM') or None. The handlers found at the
    start are put back at the end. Outside the main thread nothing is installed, as Python allows no handlers
    there.
    """

    def __init__(self) -> None:
        self.requested = False
        self.signal_name: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._previous.clear()

    def _handle(self, number: int, frame: Any) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.requested:
            self.requested, self.signal_name = True, signal.Signals(number).name
            text = f"\n{self.signal_name}: finishing this chunk, then saving. Ctrl-C again stops at once.\n"
            os.write(2, text.encode())  # print is not safe inside a handler
