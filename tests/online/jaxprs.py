"""Walks over programs: every primitive at any depth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax


def primitives(jaxpr: Any) -> Iterator[str]:
    """Names of all primitives of a (closed) jaxpr, through branches, loops and custom rules."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(value):
                yield from primitives(value)


def _is_jaxpr(x: Any) -> bool:
    return hasattr(x, "eqns") or hasattr(x, "jaxpr")


def talks_to_the_host(jaxpr: Any) -> set[str]:
    """The primitives that leave the device: callbacks, prints, feeds."""
    return {p for p in primitives(jaxpr) if any(w in p for w in ("callback", "infeed", "outfeed", "debug", "io_"))}
