"""orbax, imported late and kept quiet: log lines, stray tracebacks and kilobyte errors."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any


def orbax() -> Any:
    """The orbax package, imported when first needed (0.8 s), silent from then on."""
    import orbax.checkpoint as ocp

    logger = logging.getLogger("absl")
    if not any(isinstance(f, _OrbaxChatter) for f in logger.filters):
        logger.addFilter(_OrbaxChatter())
    return ocp


class _OrbaxChatter(logging.Filter):
    """Drops what orbax logs through absl: a failure reaches the caller as an exception, once, anyway."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname


@contextlib.contextmanager
def quiet_failures() -> Iterator[None]:
    """After a failed read tensorstore's threads print tracebacks about a closed event loop: not shown."""
    hook = sys.unraisablehook

    def show_others(problem: Any) -> None:
        if "Event loop is closed" not in str(problem.exc_value):
            hook(problem)

    sys.unraisablehook = show_others
    try:
        yield
    except Exception:
        time.sleep(0.1)  # the stragglers
        raise
    finally:
        sys.unraisablehook = hook


def brief(error: BaseException) -> str:
    """The end of an error's first line, at most 120 characters, without tensorstore's JSON."""
    text = str(error).strip() or type(error).__name__
    text = text.splitlines()[0].split(" [tensorstore_spec")[0].split(" [os_error")[0]
    cause = text.rsplit(": ", 2)[-2:] if len(text) > 120 else [text]
    return ": ".join(cause)[:120].rstrip(". ")
