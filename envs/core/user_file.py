"""Environments from a file that is no installed package: `path/to/my_env.py:MyEnv`."""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.envs.core.protocol import Env

_MODULES: dict[str, tuple[int, ModuleType]] = {}


def load_class(path: str, name: str) -> Any:
    """The environment class `name` of a Python file; the only one of the file if `name` is empty.

    A file is run once and again when it has changed, so equal environments stay equal. Raises ValueError for a file
    or class that is not there.
    """
    module = _module(path)
    found = {
        word: thing
        for word, thing in vars(module).items()
        if isinstance(thing, type) and issubclass(thing, Env) and thing.__module__ == module.__name__
    }
    if not name and len(found) == 1:
        return next(iter(found.values()))
    return found[known(name, found, f"environment class of {path}")]


def _module(path: str) -> ModuleType:
    where = os.path.abspath(path)
    if not os.path.isfile(where):
        raise ValueError(f"There is no file {path!r} in {os.getcwd()}.")
    written = os.stat(where).st_mtime_ns
    if where in _MODULES and _MODULES[where][0] == written:
        return _MODULES[where][1]
    # the plain name, as `import my_env` gives it, unless that is taken by another module
    name = os.path.splitext(os.path.basename(where))[0]
    taken = sys.modules.get(name)
    if taken is not None and getattr(taken, "__file__", None) != where:
        name = f"jaxrl_seq_user_{name}"
    elif taken is not None and where not in _MODULES:
        return taken
    spec = importlib.util.spec_from_file_location(name, where)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    spec.loader.exec_module(module)
    _MODULES[where] = written, module
    return module
