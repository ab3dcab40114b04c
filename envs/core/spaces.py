"""Static, hashable descriptions of observations and actions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


class Space:
    """A set of arrays (or of trees of arrays) of one fixed shape and dtype."""

    def sample(self, key: Array) -> Any:
        """A member drawn uniformly (a Gaussian along unbounded directions). The key is consumed."""
        raise NotImplementedError

    def contains(self, x: Any) -> Array | bool:
        """bool []: structure, shape and dtype (decided while tracing) and bounds (jittable) all hold."""
        raise NotImplementedError

    @property
    def flat_dim(self) -> int:
        """Width of the vector that encodes a member: one-hot for discrete, flattened for boxes."""
        raise NotImplementedError


def _is_array(x: Any, shape: tuple[int, ...], dtype: Any) -> bool:
    return hasattr(x, "dtype") and jnp.shape(x) == shape and x.dtype == jnp.dtype(dtype)


@dataclass(frozen=True)
class Discrete(Space):
    """Integers 0 .. n-1, int32 []."""

    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"Discrete(n={self.n}): n must be at least 1.")

    shape = ()
    dtype = np.dtype(np.int32)

    def sample(self, key: Array) -> Array:
        return jax.random.randint(key, (), 0, self.n, jnp.int32)

    def contains(self, x: Any) -> Array | bool:
        return _is_array(x, (), self.dtype) and (x >= 0) & (x < self.n)

    @property
    def flat_dim(self) -> int:
        return self.n


@dataclass(frozen=True)
class MultiDiscrete(Space):
    """Vectors whose i-th entry is an integer 0 .. ns[i]-1, int32 [len(ns)]."""

    ns: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ns", tuple(int(n) for n in self.ns))
        if not self.ns or min(self.ns) < 1:
            raise ValueError(f"MultiDiscrete(ns={self.ns}): at least one entry, each at least 1.")

    dtype = np.dtype(np.int32)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.ns),)

    def sample(self, key: Array) -> Array:
        return jax.random.randint(key, self.shape, 0, jnp.array(self.ns, jnp.int32), jnp.int32)

    def contains(self, x: Any) -> Array | bool:
        return _is_array(x, self.shape, self.dtype) and jnp.all((x >= 0) & (x < jnp.array(self.ns, jnp.int32)))

    @property
    def flat_dim(self) -> int:
        return sum(self.ns)


@dataclass(frozen=True)
class Box(Space):
    """Arrays with low <= x <= high, the same bounds for every entry or one per entry (tuples, row-major)."""

    low: float | tuple[float, ...]
    high: float | tuple[float, ...]
    shape: tuple[int, ...] = ()
    dtype: Any = np.float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        for side in ("low", "high"):
            bound = np.asarray(getattr(self, side), np.float64).ravel()
            if bound.size not in (1, math.prod(self.shape)):
                raise ValueError(
                    f"Box: {side} has {bound.size} entries for shape {self.shape}; give 1 or {math.prod(self.shape)}."
                )
            object.__setattr__(self, side, float(bound[0]) if bound.size == 1 else tuple(bound.tolist()))
        if np.any(self.bounds[0] > self.bounds[1]):
            raise ValueError(f"Box: low {self.low} exceeds high {self.high}.")

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """(low, high) as arrays of the space's shape and dtype."""

        def full(bound: Any) -> np.ndarray:
            value = np.asarray(bound, np.float64)
            value = np.broadcast_to(value, self.shape) if value.size == 1 else value.reshape(self.shape)
            return value.astype(self.dtype)

        return full(self.low), full(self.high)

    def sample(self, key: Array) -> Array:
        low, high = self.bounds
        if np.issubdtype(self.dtype, np.integer):
            top = np.minimum(high.astype(np.int64) + 1, np.iinfo(np.int32).max).astype(np.int32)
            return jax.random.randint(key, self.shape, low.astype(np.int32), top).astype(self.dtype)
        # A bound of float32's own size means "unbounded" in many environments; uniform there would be useless.
        bounded = (np.abs(low) < 1e9) & (np.abs(high) < 1e9)
        low_, width = np.where(bounded, low, 0), np.where(bounded, high, 1) - np.where(bounded, low, 0)
        inside = low_ + width * jax.random.uniform(key, self.shape, self.dtype)
        gauss = jnp.clip(jax.random.normal(jax.random.fold_in(key, 1), self.shape, self.dtype), low, high)
        return jnp.where(bounded, inside, gauss).astype(self.dtype)

    def contains(self, x: Any) -> Array | bool:
        low, high = self.bounds
        return _is_array(x, self.shape, self.dtype) and jnp.all((x >= low) & (x <= high))

    @property
    def flat_dim(self) -> int:
        return math.prod(self.shape)


class Tree(Space):
    """A dictionary of named spaces; members are dicts with the same keys."""

    def __init__(self, spaces: Mapping[str, Space]):
        self._items = tuple(sorted(spaces.items()))
        if not self._items:
            raise ValueError("Tree: at least one named space is needed.")

    @property
    def spaces(self) -> dict[str, Space]:
        return dict(self._items)

    def __hash__(self) -> int:
        return hash(self._items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tree) and self._items == other._items

    def __repr__(self) -> str:
        return f"Tree({dict(self._items)})"

    def sample(self, key: Array) -> dict[str, Any]:
        keys = jax.random.split(key, len(self._items))
        return {name: space.sample(k) for (name, space), k in zip(self._items, keys, strict=True)}

    def contains(self, x: Any) -> Array | bool:
        if not isinstance(x, dict) or set(x) != set(self.spaces):
            return False
        inside: Array | bool = True
        for name, space in self._items:
            inside = inside & space.contains(x[name])
        return inside

    @property
    def flat_dim(self) -> int:
        return sum(space.flat_dim for _, space in self._items)
