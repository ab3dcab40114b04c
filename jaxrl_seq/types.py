"""The axis legend of every docstring, and the contract of a learner.

    T time (steps of a rollout)   B environments (batch)   S seeds or other lanes of a sweep   D width   H heads
    N state size   A actions   W attention window   K episodes in a trial   E episodes   G targets

Arrays are time-major at public boundaries: [T, B, ...].
"""

from typing import Any, Protocol, TypeAlias, TypeVar

import jax

Array: TypeAlias = jax.Array
PyTree: TypeAlias = Any
Metrics: TypeAlias = dict[str, jax.Array]
"""Float32 scalars of one update. They are *added* over updates: names ending in `_sum` and the counts `episodes`,
`skipped` and `overflow` are totals, everything else is divided by the number of updates on the host."""

State = TypeVar("State")


class Learner(Protocol[State]):
    """Two pure functions around a state; frozen and hashable, so that it can be closed over by `jit`.

    `hyper` is a pytree of traced scalars (learning rate, discount, environment parameters): sweeping over them is one
    compilation and one `vmap`. Everything that decides a shape is a static field of the learner.
    """

    @property
    def steps_per_update(self) -> int:
        """Environment steps (all B environments) or samples that one update consumes."""
        ...

    def init(self, key: Array, hyper: Any) -> State:
        """The state before the first update. The key is consumed."""
        ...

    def update(self, state: State, hyper: Any) -> tuple[State, Metrics]:
        """One rollout with its epochs (online), or a fixed number of gradient steps (offline)."""
        ...
