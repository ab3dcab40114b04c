"""Environments by id: `name[-preset][,option=value ...]`, or `library:id[,option=value ...]` through an adapter.

    make("tmaze")                              the default
    make("repeat_previous-hard")               a preset
    make("tmaze,length=100,penalty=0.0")       options: static sizes or params, whichever has that name
    make("tmaze", length=100)                  the same from Python
    make("gymnax:MemoryChain-bsuite,memory_length=16")
    make("pixels:tmaze,length=10")              seen as pictures
    make("my_env.py:MyEnv,size=7")              a class in a file of yours, registered or not

Ids come from this library, from `register`, and from the entry-point group `jaxrl_seq.envs` of installed packages
(entry name = id, value = an Env class or a factory). Nothing is imported before it is asked for.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.envs.core.entry import Entry
from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.user_file import load_class

_FAMILIES = ("memory", "bandits", "gridworlds", "planning", "control")
"""Folders of this library's environments; the `ENTRIES` of each name its own, without importing them."""
_ENTRIES: dict[str, Entry] = {
    name: entry
    for family in _FAMILIES
    for name, entry in importlib.import_module(f"jaxrl_seq.envs.{family}").ENTRIES.items()
}
_ADAPTERS = {"pixels": "jaxrl_seq.envs.core.wrappers:make_pixels"} | {
    library: f"jaxrl_seq.envs.adapters.{library}:make_{library}"
    for library in ("brax", "craftax", "gymnax", "jumanji", "navix", "pgx", "xland")
}


def register(name: str, factory: Callable[..., Env], presets: dict[str, dict[str, Any]] | None = None) -> None:
    """Make `make(name)` build `factory(**options)`. ValueError if the name is taken by another
    factory, or is not a plain word."""
    if not name.replace("_", "").isalnum():
        raise ValueError(f"Environment id {name!r}: use letters, digits and underscores only.")
    old = _entries().get(name)
    if old is not None and _place(old.factory) != _place(factory):
        raise ValueError(f"Environment id {name!r} is taken; registered ids: {', '.join(sorted(_entries()))}.")
    _ENTRIES[name] = Entry(factory, presets or {})


def list_envs() -> dict[str, tuple[str, ...]]:
    """Every registered id with the names of its presets."""
    return {name: tuple(entry.presets) for name, entry in sorted(_entries().items())}


def make(spec: str, **options: Any) -> tuple[Env, Any]:
    """Build (env, params) from an id; `options` override those written in it. `pointmass` and `PointMass` are
    `point_mass`.

    An option names a static field of the environment or a leaf of its params. Raises ValueError with a suggestion
    for an unknown id, preset or option.
    """
    head, *pairs = spec.split(",")
    options = dict(map(parse_option, pairs)) | options
    file, is_file, cls = head.rpartition(".py:")
    if is_file:
        return _build(cls, load_class(f"{file}.py", cls), options)
    if ":" in head:
        library, _, name = head.partition(":")
        factory = Entry(_ADAPTERS[known(library, _ADAPTERS, "environment library")]).load()
        return factory(name, **options)
    name, _, preset = head.partition("-")
    plain = {word.replace("_", ""): word for word in _entries()}
    name = plain.get(name.replace("_", "").lower(), name)
    entry = _entries()[known(name, _entries(), "environment")]
    if preset:
        options = entry.presets[known(preset, entry.presets, f"preset of {name}")] | options
    return _build(name, entry.load(), options)


def _place(factory: Any) -> Any:
    """Where a factory is defined: a module that is run again may register its own anew."""
    return getattr(factory, "__module__", None), getattr(factory, "__qualname__", factory)


def _build(name: str, factory: Callable[..., Any], options: dict[str, Any]) -> tuple[Env, Any]:
    """Split the options into static fields and params, check them, and build."""
    fields = _fields(factory)
    static = set(fields) or set(options)
    for option in options.keys() & fields.keys():
        _check_static(f"{name}: {option}", options[option], fields[option].default)
    env = factory(**{k: v for k, v in options.items() if k in static})
    params = env.default_params()
    leaves = set(_fields(params))
    traced = {k: v for k, v in options.items() if k not in static}
    for option in traced:
        known(option, static | leaves, f"option of {name}")
    cast = {k: as_leaf(f"{name}: {k}", v, getattr(params, k)) for k, v in traced.items()}
    return env, dataclasses.replace(params, **cast) if cast else params


def _fields(thing: Any) -> dict[str, dataclasses.Field]:
    """The fields of a dataclass or of an instance of one, by name; none of anything else."""
    return {f.name: f for f in dataclasses.fields(thing)} if dataclasses.is_dataclass(thing) else {}


def _check_static(what: str, value: Any, default: Any) -> None:
    """ValueError if a static field would get a value of another kind than its default is of."""
    kinds = {bool: bool, int: int, float: (int, float), str: str}
    kind = kinds.get(type(default), object)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool and kind is not object):
        raise ValueError(f"{what} = {value!r} must be of type {type(default).__name__}, as its default {default!r} is.")


def _entries() -> dict[str, Entry]:
    """Our own and registered ids, plus those that installed packages announce."""
    found = {point.name: Entry(point.value) for point in importlib.metadata.entry_points(group="jaxrl_seq.envs")}
    return found | _ENTRIES


def parse_option(pair: str) -> tuple[str, Any]:
    name, equals, text = pair.partition("=")
    if not equals or not name:
        raise ValueError(f"Environment option {pair!r}: write it as name=value.")
    if text.lower() in ("true", "false"):
        return name, text.lower() == "true"
    try:
        return name, ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return name, text


def as_leaf(what: str, value: Any, like: Any) -> jax.Array:
    """`value` as an array of `like`'s dtype (of its first leaf). ValueError where that would lose something."""
    dtype = jnp.result_type(jax.tree.leaves(like)[0])
    try:
        given = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{what} = {value!r} is not a number.") from None
    if jnp.issubdtype(dtype, jnp.bool_) and not np.isin(given, (0, 1)).all():
        raise ValueError(f"{what} = {value!r} must be true or false.")
    if jnp.issubdtype(dtype, jnp.integer) and (given != np.round(given)).any():
        raise ValueError(f"{what} = {value!r} must be a whole number.")
    return jnp.asarray(value, dtype)
