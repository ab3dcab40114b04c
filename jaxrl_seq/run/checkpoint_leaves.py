"""The leaves of a checkpointed state: a table of paths, shapes, dtypes and checksums, and the way back."""

from __future__ import annotations

import json
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# {path, shape, dtype, crc32}; a PRNG key also has key_impl, and its shape is that of its words.
Row = dict[str, Any]


def describe(state: Any) -> tuple[list[Row], dict[str, np.ndarray]]:
    """The manifest's table of leaves and private host copies of their values, by storage name."""
    leaves = [(_path(path), leaf) for path, leaf in jax.tree.leaves_with_path(state)]
    for path, leaf in leaves:
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            raise ValueError(f"state leaf {path} is a {type(leaf).__name__}, not an array: put it in meta")
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            raise ValueError(f"state leaf {path} lives on other processes' devices: save from one process")
    raw = jax.device_get([jax.random.key_data(leaf) if _is_key(leaf) else leaf for _, leaf in leaves])
    table: list[Row] = []
    arrays: dict[str, np.ndarray] = {}
    for i, ((path, leaf), value) in enumerate(zip(leaves, raw, strict=True)):
        host = np.array(value)  # a copy: on the CPU device_get only views a buffer that may be donated next
        row: Row = {
            "path": path,
            "shape": list(host.shape),
            "dtype": str(leaf.dtype),
            "crc32": crc(host),
        }
        if _is_key(leaf):
            row["key_impl"] = str(jax.random.key_impl(leaf))
        table.append(row)
        if host.size:  # orbax refuses arrays without elements; the manifest alone describes them
            arrays[storage_name(i)] = host
    if not arrays or len({row["path"] for row in table}) < len(table):
        raise ValueError("the state holds no array, or two leaves with the same path: nothing to save safely")
    return table, arrays


def check_target(table: list[Row], target: Any, what: str) -> None:
    """Raises ValueError with one line a differing leaf: path, what was saved, what is expected."""
    saved = {row["path"]: f"{row['dtype']}{_public_shape(row)}" for row in table}
    expected = {_path(p): f"{x.dtype}{list(x.shape)}" for p, x in jax.tree.leaves_with_path(target)}
    paths = [path for path in {**saved, **expected} if saved.get(path) != expected.get(path)]
    if not paths:
        return
    lines = [f"  {p}: saved {saved.get(p, 'nothing')}, expected {expected.get(p, 'nothing')}" for p in paths[:20]]
    more = [f"  and {len(paths) - 20} more"] if len(paths) > 20 else []
    fix = "Use the env, model and sizes of the run's config.json."
    raise ValueError("\n".join([f"{what} holds another state ({len(paths)} leaves differ):", *lines, *more, fix]))


def fill(target: Any, table: list[Row], arrays: dict[str, np.ndarray]) -> Any:
    rows = {row["path"]: row for row in table}

    def place(path: Any, want: Any) -> Any:
        row, array = rows[_path(path)], arrays[_path(path)]
        if isinstance(want, np.ndarray):
            return array
        value = jax.random.wrap_key_data(jnp.asarray(array), impl=row["key_impl"]) if "key_impl" in row else array
        sharding = want.sharding if getattr(want, "committed", True) else None
        placed = jax.device_put(value, sharding, may_alias=False)
        if placed.dtype != want.dtype:  # 64-bit leaves while jax_enable_x64 is off
            raise ValueError(f"{row['path']} is {row['dtype']}: switch on jax_enable_x64 to restore it")
        return placed

    return jax.tree.map_with_path(place, target)


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def storage_name(index: int) -> str:
    return f"{index:05d}"  # storage names; paths may hold any character


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def storage_dtype(row: Row) -> np.dtype:
    return np.dtype("uint32" if "key_impl" in row else row["dtype"])


def _public_shape(row: Row) -> list[int]:
    return row["shape"][:-1] if "key_impl" in row else row["shape"]  # the last axis is the key's words


def crc(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest as JSON will give it back, with the checksum of everything else in it."""
    body = json.loads(json.dumps({k: v for k, v in manifest.items() if k != "crc32"}))
    return {**body, "crc32": zlib.crc32(json.dumps(body, sort_keys=True).encode())}
