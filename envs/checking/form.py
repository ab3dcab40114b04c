"""Checks that only trace: types, flags, spaces, purity of the program, hashing."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_seq.envs.checking.probe import Probe, first_difference, primitives
from jaxrl_seq.envs.checking.report import EnvCheckError
from jaxrl_seq.envs.core.checking import check_structure
from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.spaces import Space

HOST_CALLS = ("callback", "infeed", "outfeed", "debug_print", "host_local")
LARGE_CONSTANT = 2**20


def structure(probe: Probe) -> None:
    """Step returns the pytree that reset does, leaf for leaf, in strong dtypes."""
    try:
        check_structure(probe.env, probe.params)
    except ValueError as error:
        raise EnvCheckError(str(error)) from None
    except jax.errors.JAXTypeError as error:
        raise EnvCheckError(
            f"reset or step cannot be traced ({type(error).__name__}: {str(error).splitlines()[0]}). Expected arrays "
            "all through: branch with jnp.where, and make what decides a shape a field of the class."
        ) from error
    jax.block_until_ready((probe.opened, probe.stepped))  # made now: later checks read them while they trace
    made, stepped = probe.shapes
    for what, tree in (("reset", made), ("step", stepped), ("default_params", probe.params)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if getattr(leaf, "weak_type", not hasattr(leaf, "dtype")):
                raise EnvCheckError(
                    f"{what} makes leaf {jax.tree_util.keystr(path)} weakly typed, from a Python number; a strong "
                    f"dtype is expected, or every caller compiles twice. Write jnp.int32(...) or jnp.float32(...)."
                )


def flags(probe: Probe) -> None:
    """Flags are bool [], the reward is float32 (a scalar, or [K]); reset opens, with zero reward and no end."""
    for what, (_, timestep) in zip(("reset", "step"), probe.shapes, strict=True):
        for field in ("terminated", "truncated", "first"):
            leaf = getattr(timestep, field)
            if (leaf.shape, leaf.dtype) != ((), jnp.bool_):
                raise EnvCheckError(
                    f"{what}: {field} is {leaf.dtype}{list(leaf.shape)}, expected bool[]. "
                    "Build the TimeStep with `opening` or `transition`."
                )
        if timestep.reward.dtype != jnp.float32 or len(timestep.reward.shape) > 1:
            reward = timestep.reward
            raise EnvCheckError(
                f"{what}: reward is {reward.dtype}{list(reward.shape)}, expected float32[]. Cast it with .astype."
            )
        if timestep.cost is not None and (timestep.cost.dtype != jnp.float32 or len(timestep.cost.shape) != 1):
            raise EnvCheckError(
                f"{what}: cost is {timestep.cost.dtype}{list(timestep.cost.shape)}, expected float32[C]."
            )
    timestep = probe.opened[1]
    for field, want in (("first", True), ("terminated", False), ("truncated", False), ("reward", 0)):
        got = getattr(timestep, field)
        if not bool(jnp.all(got == want)):
            raise EnvCheckError(f"reset: {field} is {got}, expected {want}. Build the TimeStep with `opening`.")
    if probe.env.time_limit not in ("terminal", "truncate"):
        raise EnvCheckError(f'time_limit is {probe.env.time_limit!r}, expected "terminal" or "truncate".')


def spaces(probe: Probe) -> None:
    """Spaces are static, hashable descriptions, and what they sample lies in them."""
    for what in ("observation_space", "action_space"):
        space = getattr(probe.env, what)()
        if not isinstance(space, Space):
            raise EnvCheckError(f"{what}() is a {type(space).__name__}, expected a Space: Box, Discrete, ... .")
        try:
            same = hash(space) == hash(getattr(probe.env, what)()) and space == getattr(probe.env, what)()
        except TypeError:
            same = False
        if not same:
            raise EnvCheckError(f"{what}() makes another space at each call or one without a hash; return equal ones.")
        drawn = space.sample(probe.some_key(10))
        if not bool(space.contains(drawn)):
            raise EnvCheckError(f"{what}().sample gives {drawn}, which is outside of {space}. Check its bounds.")


def x64(probe: Probe) -> None:
    """Types are the same when JAX runs in 64-bit mode."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    with jax.enable_x64(True):
        params = jax.eval_shape(probe.env.default_params)
        made = jax.eval_shape(probe.env.reset, key, probe.params)
        action = jax.eval_shape(lambda: probe.action)
        stepped = jax.eval_shape(probe.env.step, key, made[0], action, probe.params)
    trees = {"default_params": (jax.eval_shape(probe.env.default_params), params)}
    trees |= {"reset": (probe.shapes[0], made), "step": (probe.shapes[1], stepped)}
    for what, (want, got) in trees.items():
        pairs = zip(jax.tree_util.tree_leaves_with_path(want), jax.tree.leaves(got), strict=True)
        for (path, a), b in pairs:
            if a.dtype != b.dtype:
                raise EnvCheckError(
                    f"{what}: leaf {jax.tree_util.keystr(path)} is {a.dtype}, but {b.dtype} in 64-bit mode; expected "
                    f"the same in both. Give the dtype where it is made (jnp.arange(n, dtype=...), .astype)."
                )


def hashing(probe: Probe) -> None:
    """The environment is frozen; equal ones are equal, hash alike, and share a compilation."""
    env = probe.env
    twin = dataclasses.replace(env) if dataclasses.is_dataclass(env) else None
    if twin is None or twin != env or hash(twin) != hash(env):
        raise EnvCheckError(
            f"two {type(env).__name__} of equal fields are not equal or hash differently, so each would compile "
            "again. Declare @dataclass(frozen=True) and keep arrays out of the fields."
        )

    # what step returns goes through the program that was compiled for what reset returns
    sizes = []
    for state in (probe.opened[0], probe.stepped[0]):
        jax.block_until_ready(probe.step(probe.some_key(13), state, probe.action, probe.params))
        sizes.append(probe.step._cache_size())
    if sizes[0] != sizes[1]:
        raise EnvCheckError(
            "step compiles anew for the state that step returns; expected one program for both. "
            "Make both states of the same types and keep Python numbers out of them."
        )


def host_calls(probe: Probe) -> str:
    """Nothing calls the host; warns of loops of data-dependent length and of large constants."""
    warnings = []
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = probe.shapes[0][0]
    programs = {
        "reset": jax.make_jaxpr(probe.env.reset)(key, probe.params),
        "step": jax.make_jaxpr(probe.env.step)(key, state, jax.eval_shape(lambda: probe.action), probe.params),
    }
    for what, program in programs.items():
        for equation in primitives(program.jaxpr):
            name = equation.primitive.name
            if any(word in name for word in HOST_CALLS):
                raise EnvCheckError(
                    f"{what} calls the host ({name}); expected a pure device program. Take out jax.debug.print, "
                    "pure_callback and io_callback."
                )
            if name == "while":
                warnings.append(f"{what} has a data-dependent loop: under vmap all environments wait for the slowest")
        size = sum(getattr(const, "nbytes", 0) for const in program.consts)
        if size > LARGE_CONSTANT:
            warnings.append(f"{what} holds {size / 2**20:.1f} MiB of constants: pass them as params")
    return "; ".join(dict.fromkeys(warnings))


def key_reuse(probe: Probe) -> None:
    """No key is consumed twice (JAX's own checker)."""
    with jax.debug_key_reuse(True):
        for what, run in (
            ("reset", lambda key: probe.env.reset(key, probe.params)),
            ("step", lambda key: probe.env.step(key, probe.opened[0], probe.action, probe.params)),
        ):
            try:
                jax.block_until_ready(jax.jit(run)(probe.some_key(14)))
            except jax.errors.KeyReuseError as error:
                first = str(error).strip().splitlines()[0]
                raise EnvCheckError(
                    f"{what} consumes a key twice, expected once ({first}). Split it: a, b = jax.random.split(key)."
                ) from None


def purity(probe: Probe) -> None:
    """Reset and step depend on their arguments only: run time and again, and traced anew, they give the same."""
    copy = dataclasses.replace(probe.env)
    key, state = probe.some_key(15), probe.opened[0]

    def reset(env: Env, key: jax.Array) -> Any:
        return env.reset(key, probe.params)

    def step(env: Env, key: jax.Array) -> Any:
        return env.step(key, state, probe.action, probe.params)

    for what, call in (("reset", reset), ("step", step)):
        compiled = jax.jit(partial(call, probe.env))
        first = compiled(key)
        others = [compiled(key), jax.jit(partial(call, copy))(key)]
        # in plain Python, many times: a draw from few values agrees with another by chance
        plain = [call(copy, key) for _ in range(12)]
        differences = [first_difference(first, other) for other in others]
        differences += [first_difference(plain[0], other) for other in plain[1:]]
        for difference in filter(None, differences):
            raise EnvCheckError(
                f"{what} with the same arguments gives different results: {difference}. Expected a pure function: "
                "draw from the key only, and keep no Python state."
            )
