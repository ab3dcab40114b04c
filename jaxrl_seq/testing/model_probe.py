"""One model at one precision, with the data and the compiled functions that its laws are checked on.

Shapes: T time, B environments (one row for each density of resets), D input width, F output features.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any

STEPS = 19
GRADIENT_STEPS = 9
CHUNKS = (7, 1, 11)  # add up to STEPS; every length here is also checked from the start
# Compiling is nearly all of a check's time, and on jax 0.10 half of it is an MLIR pipeline for every fusion.
_EMITTERS = "xla_cpu_use_fusion_emitters" if jax.__version_info__ < (0, 11) else None
QUICK: dict[str, Any] = {"xla_backend_optimization_level": 0} | ({_EMITTERS: False} if _EMITTERS else {})
WITH_SCATTERS = QUICK | ({_EMITTERS: True} if _EMITTERS else {})
"""The same for who looks for scatters in what was compiled: without that pipeline they are expanded into loops."""
# share of reset steps, one environment each; a last environment resets at 0 only
DENSITIES = (0.0, 0.1, 0.3, 0.5, 1.0)


class ModelLawError(ValueError):
    """A sequence model broke a law; the message says which, where and by how much."""

    def __init__(self, law: str, message: str):
        super().__init__(f"law {law!r} is broken: {message}")
        self.law = law


def initial_parameters(model: Any, features_in: int, seed: int) -> Tree:
    """Freshly initialised parameters, as numpy arrays."""
    carry = model.initialize_carry((1,))
    x = jnp.zeros((1, 1, features_in), jnp.float32)
    make = jax.jit(model.init, compiler_options=QUICK)
    return jax.device_get(make(jax.random.key(seed), carry, x, jnp.ones((1, 1), bool)))


class Probe:
    """A model, parameters and a warm carry in `dtype`, random inputs, and the two views compiled.

    Everything between compiled calls is numpy, so that nothing else is compiled.
    """

    def __init__(self, model: Any, initial: Tree, features_in: int, seed: int, dtype: Any):
        self.model, self.initial, self.seed, self.dtype = model, initial, seed, np.dtype(dtype)
        self.batch = len(DENSITIES) + 1
        self.params = self.perturbed(0)
        self.reset = self.flips(3, (*DENSITIES, 0.0), (STEPS, self.batch))
        self.reset[0, -1] = True
        self.x = self.normal(1, (STEPS, self.batch, features_in))
        self.fresh = self.cast(jax.device_get(model.initialize_carry((self.batch,))))
        self._parallel = jax.jit(model.apply, compiler_options=QUICK)
        self._stepped = jax.jit(self.scan_steps, compiler_options=QUICK)
        self._gradients = {
            "parallel": self._gradient_function(model.apply),
            "stepped": self._gradient_function(self._scan_to_last),
        }

    @cached_property
    def carry(self) -> Tree:
        """A carry that has seen random steps and resets."""
        return self.step_to_last(self.fresh, self.normal(2, self.x.shape), np.flip(self.reset, 1))[0]

    def perturbed(self, number: int) -> Tree:
        """Parameters moved a little (each `number` elsewhere) so that zero-initialised ones take part."""
        rng = np.random.default_rng((self.seed, number))
        moved = jax.tree.map(lambda p: (p + 0.1 * rng.normal(size=p.shape)).astype(p.dtype), self.initial)
        return self.cast(moved)

    def cast(self, tree: Tree) -> Tree:
        """Floating leaves in this probe's type; those below float32 (caches) stay as they are."""

        def cast(leaf):
            wide = jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype.itemsize >= 4
            return leaf.astype(self.dtype) if wide else leaf

        return jax.tree.map(cast, tree)

    def normal(self, number: int, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal numbers, the same for the same `number`."""
        return np.random.default_rng((self.seed, number)).normal(size=shape).astype(self.dtype)

    def flips(self, number: int, share: Any, shape: tuple[int, ...]) -> np.ndarray:
        """Random flags, True with probability `share`."""
        return np.random.default_rng((self.seed, number)).random(shape) < np.asarray(share)

    def parallel(self, carry: Tree, x: np.ndarray, reset: np.ndarray) -> tuple[Tree, np.ndarray]:
        """The parallel view: carry after it, y[T, B, F]."""
        return jax.device_get(self._parallel(self.params, carry, x, reset))

    def step_all(self, carry: Tree, x: np.ndarray, reset: np.ndarray, params: Tree = None) -> tuple:
        """`step` over time: carries after each step [T, ...], y[T, B, F]."""
        return jax.device_get(self._stepped(self.params if params is None else params, carry, x, reset))

    def step_to_last(self, carry: Tree, x: np.ndarray, reset: np.ndarray) -> tuple[Tree, np.ndarray]:
        """`step` over time: last carry, y[T, B, F]."""
        carries, y = self.step_all(carry, x, reset)
        return jax.tree.map(lambda leaf: leaf[-1], carries), y

    def views(self) -> dict[str, Callable]:
        """Both views as (carry, x, reset) -> (carry, y)."""
        return {"parallel": self.parallel, "stepped": self.step_to_last}

    def gradient(self, view: str, carry: Tree, x: np.ndarray, reset: np.ndarray, cotangents: tuple) -> tuple:
        """Gradients (params, float carry leaves, x), stacked over K cotangents (y[K, T, B, F], carry leaves)."""
        return jax.device_get(self._gradients[view](self.params, carry, x, reset, *cotangents))

    def scan_steps(self, params: Tree, carry: Tree, x: Any, reset: Any) -> tuple[Tree, Any]:
        """`step` over time, to be compiled: carries after each step, y."""

        def body(carry, inputs):
            carry, y = self.model.apply(params, carry, *inputs, method="step")
            return carry, (carry, y)

        return jax.lax.scan(body, carry, (x, reset))[1]

    def _scan_to_last(self, params, carry, x, reset):
        carries, y = self.scan_steps(params, carry, x, reset)
        return jax.tree.map(lambda leaf: leaf[-1], carries), y

    def _gradient_function(self, view):
        def loss(params, floats, x, reset, carry, ct_y, ct_floats):
            carry, y = view(params, with_floats(carry, floats), x, reset)
            paid = [jnp.sum(c * leaf) for c, leaf in zip(ct_floats, float_leaves(carry), strict=True)]
            return jnp.sum(ct_y * y) + sum(paid)

        def run(params, carry, x, reset, ct_y, ct_floats):
            def one(ct_y, ct_floats):
                grad = jax.grad(loss, argnums=(0, 1, 2))
                return grad(params, float_leaves(carry), x, reset, carry, ct_y, ct_floats)

            return jax.vmap(one)(ct_y, ct_floats)

        return jax.jit(run, compiler_options=QUICK)


def float_leaves(tree: Tree) -> list[Any]:
    """The floating leaves of a tree, in order."""
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def with_floats(tree: Tree, floats: list[Any]) -> Tree:
    """`tree` with its floating leaves replaced."""
    leaves, treedef = jax.tree.flatten(tree)
    new = iter(floats)
    return jax.tree.unflatten(treedef, [next(new) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in leaves])


def fill_floats(tree: Tree, value: float) -> Tree:
    """`tree` with every floating number set to `value`."""
    return with_floats(tree, [np.full_like(leaf, value) for leaf in float_leaves(tree)])


def take_carry(tree: Tree, index: np.ndarray) -> Tree:
    """`jaxrl_seq.ops.take_envs` for numpy leaves, without compiling a gather for each."""
    return jax.tree.map(lambda leaf: leaf if np.ndim(leaf) == 0 else leaf[index], tree)


def visible_steps(reset: np.ndarray) -> np.ndarray:
    """reset[T, B] -> bool[T, T, B]: whether y[t] may depend on x[s] (same episode, s <= t)."""
    s = np.arange(reset.shape[0])
    last = np.maximum.accumulate(np.where(reset, s[:, None], -1), axis=0)
    return (s[None, :, None] <= s[:, None, None]) & (s[None, :, None] >= last[:, None, :])


def compare(law: str, what: str, got: Tree, want: Tree, tolerance: float, axes: tuple[str, ...]) -> float:
    """Largest |got - want| / (1 + |want|) over all leaves; ModelLawError above `tolerance`, naming the place."""
    worst = 0.0
    pairs = zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True)
    for (path, a), b in pairs:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        error = np.abs(a - b) / (1 + np.abs(b))
        error = np.where(np.isnan(error) & ~(np.isnan(a) & np.isnan(b)), np.inf, np.nan_to_num(error))
        if not error.size:
            continue
        place = np.unravel_index(np.argmax(error), error.shape)
        worst = max(worst, float(error[place]))
        if not error[place] <= tolerance:
            where = describe(path, place, axes)
            raise ModelLawError(
                law,
                f"{what} differ{where}: expected {b[place]:.9g}, got {a[place]:.9g} "
                f"(relative error {error[place]:.3g}, allowed {tolerance:.3g})",
            )
    return worst


def describe(path: tuple, place: tuple, axes: tuple[str, ...]) -> str:
    """' in leaf [0].age at t=3, env=1' for messages."""
    leaf = f" in leaf {jax.tree_util.keystr(path)}" if path else ""
    names = list(axes) + [f"axis{i}" for i in range(len(axes), len(place))]
    spots = ", ".join(f"{name}={int(i)}" for name, i in zip(names, place, strict=False))
    return f"{leaf} at {spots}" if spots else leaf
