"""Checks that a transformed or compiled program computes what the plain one does."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.envs.checking.probe import Probe, first_difference
from jaxrl_seq.envs.checking.report import EnvCheckError

ROUNDING = 1e-4
"""Differences that another order of float32 operations explains over a dozen steps."""
LONG = 200
"""Steps over which a parameter must show."""


def jit(probe: Probe) -> None:
    """Compiled and plain Python agree."""
    with jax.disable_jit():
        try:
            state, opened = probe.env.reset(probe.some_key(0), probe.params)
            plain = (state, opened), probe.env.step(probe.some_key(2), state, probe.action, probe.params)
        except Exception as error:
            raise EnvCheckError(
                f"outside of jit it fails ({type(error).__name__}: {error}); expected it to run."
            ) from error
    _agree("compiled and plain Python", (probe.opened, probe.stepped), plain, "Branch with jnp.where, not with `if`.")


def scan(probe: Probe) -> None:
    """A scan over steps is the loop over steps."""
    keys = jax.random.split(probe.some_key(20), probe.steps)

    def body(state: Any, key: Any) -> Any:
        return probe.env.step(key, state, probe.action, probe.params)

    state, looped = probe.opened[0], []
    for key in keys:
        state, timestep = probe.step(key, state, probe.action, probe.params)
        looped.append(timestep)
    scanned = jax.jit(lambda state: jax.lax.scan(body, state, keys))(probe.opened[0])
    _agree(
        "scan and loop", scanned, (state, jax.tree.map(lambda *x: jnp.stack(x), *looped)), "Keep all state in `state`."
    )


def vmap(probe: Probe) -> None:
    """A batch of environments is each of them alone."""
    keys = jax.random.split(probe.some_key(21), probe.lanes)
    actions = jax.vmap(probe.env.action_space().sample)(keys)
    states, opened = jax.jit(jax.vmap(probe.env.reset, in_axes=(0, None)))(keys, probe.params)
    stepped = jax.jit(jax.vmap(probe.env.step, in_axes=(0, 0, 0, None)))(keys, states, actions, probe.params)
    for i, key in enumerate(keys):
        alone = probe.reset(key, probe.params)
        action = jax.tree.map(lambda x, i=i: x[i], actions)
        alone = alone, probe.step(key, alone[0], action, probe.params)
        row = jax.tree.map(lambda x, i=i: x[i], ((states, opened), stepped))
        _agree(
            f"row {i} of a batch and the environment alone",
            row,
            alone,
            "Do not reduce over batches or branch on values.",
        )


def parameters(probe: Probe) -> None:
    """Every leaf of params can carry one value per environment, and matters."""
    leaves, structure = jax.tree.flatten(probe.params)
    if not leaves:
        return
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(probe.params)]
    # row 0 is the default, row i + 1 has leaf i changed
    rows = [
        [_changed(leaf) if i == row - 1 else leaf for i, leaf in enumerate(leaves)] for row in range(len(leaves) + 1)
    ]
    swept = structure.unflatten([jnp.stack(column) for column in zip(*rows, strict=True)])
    key, steps = probe.some_key(22), min(LONG, probe.env.horizon)
    # random play and the expert's, because a prize may wait at the end of the right way only
    played = jnp.stack([jnp.zeros(steps, bool), jnp.ones(steps, bool)])
    trajectories = jax.vmap(probe.trajectory, in_axes=(None, None, 0))
    try:
        together = jax.jit(jax.vmap(trajectories, in_axes=(None, 0, None)))(key, swept, played)
    except Exception as error:
        raise EnvCheckError(
            f"params of one value per environment fail ({type(error).__name__}: {str(error).splitlines()[0]}). "
            "Expected every leaf to be traced: what decides a shape or a Python branch belongs into a field."
        ) from error
    alone = jax.jit(trajectories)
    for row, values in enumerate(rows):
        one = alone(key, structure.unflatten(values), played)
        pair = (jax.tree.map(lambda x, row=row: x[row, :, : probe.steps], together), _head(one, probe.steps))
        _agree(f"params row {row} of a batch and alone", *pair, "Use jnp only.")
    for row, name in enumerate(names, start=1):
        default, changed = (jax.tree.map(lambda x, i=i: x[i], together) for i in (0, row))
        if first_difference(default, changed) is None:
            raise EnvCheckError(
                f"params{name} changes nothing: {steps} steps of random play and of the expert's are the same with "
                "another value. Expected every leaf to matter: use it or take it out."
            )


def _head(tree: Any, steps: int) -> Any:
    return jax.tree.map(lambda x: x[:, :steps], tree)


def sharding(probe: Probe) -> str:
    """Environments split over devices compute what they compute on one."""
    devices = jax.devices()
    if len(devices) < 2:
        return "one device only; XLA_FLAGS=--xla_force_host_platform_device_count=8 gives more"
    mesh = jax.sharding.Mesh(np.array(devices), ("env",))
    keys = jax.random.split(probe.some_key(23), 2 * len(devices))
    run = jax.jit(jax.vmap(lambda key: probe.trajectory(key, probe.params)))
    split = jax.device_put(keys, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("env")))
    _agree(f"{len(devices)} devices and one", run(split), run(keys), "Do not communicate between environments.")
    return ""


def _changed(leaf: Any) -> Any:
    leaf = jnp.asarray(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.bool_):
        return ~leaf
    if jnp.issubdtype(leaf.dtype, jnp.integer):
        return leaf + 1
    return jnp.where(leaf == 0, 0.25, 0.5 * leaf).astype(leaf.dtype)


def _agree(what: str, found: Any, expected: Any, fix: str) -> None:
    difference = first_difference(found, expected, ROUNDING)
    if difference:
        raise EnvCheckError(f"{what} differ: {difference}. {fix}")
