"""Several processes, on one or many hosts, as one run: every process runs the same command, the first one writes.

What they decide by their own clocks or files (how long a chunk is, when to save, whether to stop) they agree upon: a
process that runs another program than its peers would wait for them for ever.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np

T = TypeVar("T")
_TEXT = 2048
"""Bytes of a message between processes."""
_LOST = ("Gloo", "UNAVAILABLE", "DEADLINE_EXCEEDED", "heartbeat", "coordination", "Connection reset", "NCCL")
EXIT_LOST = 85
"""As after SIGTERM: what schedulers start again."""


def join(words: list[str]) -> list[str]:
    """Take `--hosts auto`, or `--hosts ADDRESS:PORT,PROCESSES,INDEX`, out of a command line and connect the processes.

    auto: from what SLURM, a TPU pod, or GKE has put into the environment. Must come before jax is used. ValueError for
    another form.
    """
    if "--hosts" not in words:
        return words
    at = words.index("--hosts")
    spec = words[at + 1] if at + 1 < len(words) else ""
    if spec == "auto":
        jax.distributed.initialize(heartbeat_timeout_seconds=60)
    else:
        address, *numbers = spec.split(",")
        if ":" not in address or len(numbers) != 2 or not all(n.isdecimal() for n in numbers):
            raise ValueError(f"--hosts {spec!r}: auto, or ADDRESS:PORT,PROCESSES,INDEX such as 10.0.0.2:8476,4,0.")
        number, index = map(int, numbers)
        if not index < number:
            raise ValueError(f"--hosts {spec}: of {number} processes the last one is {number - 1}, not {index}.")
        jax.distributed.initialize(address, number, index, heartbeat_timeout_seconds=60)
    return words[:at] + words[at + 2 :]


def several() -> bool:
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def gather(values: list[float]) -> np.ndarray:
    """The values of every process, [processes, N]. All must call it."""
    mine = np.asarray(values, np.float32)
    if not several():
        return mine[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(mine))


def first_decides(action: Callable[[], T]) -> T | None:
    """`action` in the first process; a JSON value of it in all of them, and its ValueError too. All must call it."""
    if not several():
        return action()
    from jax.experimental import multihost_utils

    answer: dict[str, Any] = {}
    if is_first():
        try:
            answer = {"value": action()}
        except ValueError as error:
            answer = {"error": str(error)[: _TEXT // 2]}
    sent = np.zeros(_TEXT, np.uint8)
    text = json.dumps(answer).encode()
    sent[: len(text)] = np.frombuffer(text, np.uint8)
    got = json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(sent))).rstrip(b"\0"))
    if "error" in got:
        raise ValueError(got["error"])
    return got["value"]


def check_agreement(**facts: Any) -> None:
    """ValueError in every process, which names those that differ from the first, unless all have the same `facts`."""
    if not several():
        return
    digests = {name: hashlib.sha256(json.dumps(v, sort_keys=True, default=str).encode()) for name, v in facts.items()}
    # 24 bits of a digest are a whole float32
    table = gather([int.from_bytes(digest.digest()[:3], "big") for digest in digests.values()])
    for column, name in enumerate(facts):
        others = [str(i) for i, value in enumerate(table[:, column]) if value != table[0, column]]
        if others:
            raise ValueError(
                f"Process {', '.join(others)} has another {name} than process 0: start all of them with one command, "
                f"from the same files and packages. Here ({jax.process_index()}): {str(facts[name])[:300]}"
            )


@contextlib.contextmanager
def guarded(resume: str) -> Iterator[None]:
    """A process whose peers are gone ends at once, in words and with `EXIT_LOST`, instead of waiting for them."""
    try:
        yield
    except Exception as error:
        if not (several() and any(word in str(error) for word in _LOST)):
            raise
        reason = str(error).strip().splitlines()[0][:160]
        print(
            f"process {jax.process_index()}: another process of this run is gone ({reason}).\n"
            f"The last checkpoint is good: start all processes again with `{resume}`.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_LOST)  # a polite exit would wait for the others
