"""Devices as a mesh ("seed", "data"): lanes over seed, the environments of a lane over data.

Programs are written for one device. Over `seed` they are cut by `shard_map`, as lanes have nothing to say to each
other; over `data` the compiler cuts them (sharding constraints), so that gradients, normalised advantages, shuffles and
random numbers are those of the whole batch however many devices share it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.ops.segments import carry_axes, is_clock
from jaxrl_seq.types import PyTree

AXES: tuple[str, ...] = ("seed", "data")


def make_mesh(spec: str | None = None) -> Mesh:
    """The mesh of "seed=4,data=2" (an axis left out has size 1); None: every device over seed.

    ValueError for anything else, and for more devices than there are.
    """
    devices = jax.devices()
    sizes = {"seed": len(devices), "data": 1} if spec is None else _sizes(spec)
    wanted = sizes["seed"] * sizes["data"]
    if wanted > len(devices):
        raise ValueError(f"mesh {spec} needs {wanted} devices, but there are {len(devices)} ({jax.default_backend()}).")
    if jax.process_count() > 1 and wanted < len(devices):
        raise ValueError(
            f"mesh {spec} has {wanted} devices, but the {jax.process_count()} processes have {len(devices)}: with "
            "several processes every device takes part."
        )
    grid = np.array(devices[:wanted]).reshape(sizes["seed"], sizes["data"])
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 2)


def _sizes(spec: str) -> dict[str, int]:
    sizes = dict.fromkeys(AXES, 1)
    for part in spec.split(","):
        name, _, size = part.partition("=")
        known(name.strip(), AXES, "mesh axis")
        if not size.strip().isdecimal() or int(size) < 1:
            raise ValueError(f"mesh {spec!r}: write sizes of at least 1, such as seed=4,data=2.")
        sizes[name.strip()] = int(size)
    return sizes


def check_data(mesh: Mesh, learner: Any) -> None:
    """ValueError where the environments of a learner, or of its minibatches, do not divide over `data`."""
    data = mesh.shape["data"]
    if data == 1:
        return
    envs = _num_envs(learner)
    if envs is None:
        raise ValueError(
            f"mesh data={data} shares out environments, and {type(learner).__name__} has none: put the devices on seed."
        )
    part = envs // getattr(learner, "minibatches", 1)
    if envs % data or part % data:
        raise ValueError(
            f"mesh data={data} does not divide the {envs} environments, or the {part} of a minibatch: use multiples of "
            f"{data} for both (--num-envs, --minibatches), or another --mesh."
        )


def padded(num: int, mesh: Mesh | None) -> int:
    """Lanes that are run for `num` wanted ones, so that every device has equally many."""
    each = 1 if mesh is None else mesh.shape["seed"]
    return -(-num // each) * each


# ---- programs ----


class Cut:
    """How the programs of `many` lanes are cut over a mesh; without one they are jitted as they are.

    Values are named: "state", "hyper", "keys", "number" (the same everywhere), and what comes back to every process
    whole: "lanes" [S, ...] and "rows" [ROWS, S].
    """

    def __init__(self, mesh: Mesh | None, many: Any, state: PyTree, hyper: Any):
        self.mesh = mesh
        if mesh is None:
            return
        everywhere = NamedSharding(mesh, P())
        swept = many.hyper_axes(hyper)
        by_lane = jax.tree.map(lambda x, axis: P() if axis is None else P("seed"), hyper, swept)
        self._specs: dict[str, Any] = {
            "state": _lane_specs(state),
            "hyper": by_lane,
            "keys": P("seed"),
            "number": P(),
            "lanes": P("seed"),
            "rows": P(None, "seed"),
        }
        self._places: dict[str, Any] = {
            "state": state_places(mesh, state, many),
            "hyper": jax.tree.map(lambda spec: NamedSharding(mesh, spec), by_lane),
            "keys": NamedSharding(mesh, P("seed")),
            **dict.fromkeys(("number", "lanes", "rows"), everywhere),
        }

    def jit(self, function: Any, takes: str, gives: str, **options: Any) -> Any:
        """`function` jitted, each device with its own lanes; `takes` and `gives` name arguments and results."""
        if self.mesh is None:
            return jax.jit(function, **options)
        ins, outs = takes.split(), gives.split()

        def chosen(table: dict[str, Any], names: list[str]) -> Any:
            return tuple(table[name] for name in names)

        specs, places = chosen(self._specs, outs), chosen(self._places, outs)
        alone = len(outs) == 1
        # check_vma off: that the clock is the same in all lanes is known to us, not to the type system
        own = jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=chosen(self._specs, ins),
            out_specs=specs[0] if alone else specs,
            axis_names={"seed"},
            check_vma=False,
        )
        where = places[0] if alone else places
        return jax.jit(own, in_shardings=chosen(self._places, ins), out_shardings=where, **options)

    def put(self, tree: PyTree, name: str) -> PyTree:
        """A value on its devices."""
        return tree if self.mesh is None else _put(tree, self._places[name])


def state_places(mesh: Mesh, state: PyTree, many: Any) -> PyTree:
    """Where the leaves of a state [S, ...] live: lanes over seed; what has a row for every environment, over data."""
    envs = _num_envs(many.learner) if mesh.shape["data"] > 1 else None

    def place(path: Any, leaf: Any, spec: P) -> NamedSharding:
        acting = any(getattr(key, "name", None) == "acting" for key in path)
        shared = envs is not None and acting and spec == P("seed") and leaf.shape[1:2] == (envs,)
        return NamedSharding(mesh, P("seed", "data") if shared else spec)

    return jax.tree_util.tree_map_with_path(place, state, _lane_specs(state))


def _lane_specs(state: PyTree) -> PyTree:
    """P("seed") for what leads with lanes, P() for clocks."""
    return jax.tree_util.tree_map_with_path(lambda path, _: P() if is_clock(path) else P("seed"), state)


def _num_envs(learner: Any) -> int | None:
    return getattr(getattr(learner, "env", None), "num_envs", None)


# ---- between host and devices ----


def fetch(state: PyTree, num: int) -> PyTree:
    """The first `num` lanes of a state on the host, in every process; all processes must call it.

    One leaf after the other, so that no device needs room for more than the largest.
    """

    def one(x: Any, axis: int | None) -> Any:
        def cut(x: Any) -> Any:
            words = jax.random.key_data(x) if _is_key(x) else x
            return words if axis is None else words[:num]

        host = np.asarray(jax.jit(cut, out_shardings=NamedSharding(x.sharding.mesh, P()))(x))
        return jax.random.wrap_key_data(jnp.asarray(host), impl=jax.random.key_impl(x)) if _is_key(x) else host

    return jax.tree.map(one, state, carry_axes(state))


def host_target(shapes: PyTree, num: int) -> PyTree:
    """What `fetch` gives of a state with these shapes, for `Checkpoints.restore`: numpy, but for keys."""

    def one(x: Any, axis: int | None) -> Any:
        shape = x.shape if axis is None else (num, *x.shape[1:])
        return jax.ShapeDtypeStruct(shape, x.dtype) if _is_key(x) else np.empty(shape, x.dtype)

    return jax.tree.map(one, shapes, carry_axes(shapes))


def place_state(mesh: Mesh, state: PyTree, many: Any) -> PyTree:
    """Fetched lanes on the devices of a mesh, the last one repeated where they do not fill it (`Settings.padded`)."""

    def repeat(x: Any, axis: int | None) -> Any:
        return x if axis is None else x[np.minimum(np.arange(many.num), x.shape[0] - 1)]

    whole = jax.tree.map(repeat, state, carry_axes(state))
    return _put(whole, state_places(mesh, whole, many))


def _put(tree: PyTree, places: PyTree) -> PyTree:
    """Values that are the same in every process, onto the devices of `places` (one sharding, or a tree of them)."""

    def one(x: Any, place: NamedSharding) -> Any:
        if _is_key(x):
            return jax.random.wrap_key_data(one(jax.random.key_data(x), place), impl=jax.random.key_impl(x))
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, place, lambda index: host[index])

    if isinstance(places, NamedSharding):
        return jax.tree.map(lambda x: one(x, places), tree)
    return jax.tree.map(one, tree, places)


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
