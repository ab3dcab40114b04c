"""The laws of a sequence model, each a function of a `Probe` that returns the largest error it saw.

Each law raises `ModelLawError` at the first place where it does not hold.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.ops import carry_axes, is_clock, set_clocks
from jaxrl_seq.testing.model_probe import (
    CHUNKS,
    GRADIENT_STEPS,
    STEPS,
    WITH_SCATTERS,
    ModelLawError,
    Probe,
    compare,
    describe,
    fill_floats,
    float_leaves,
    take_carry,
    visible_steps,
)

Tree = Any
Y_AXES = ("t", "env", "unit")
GRADIENT_VIEWS = ("parallel", "stepped")
LONG_STEPS, LONG_CHUNK, LONG_CLOCK = 4096, 128, 2**30
CACHE_NAMES = ("keys", "values")  # carry leaves that may be stored below float32


def tolerance(probe: Probe, gradient: bool = False) -> float:
    """Allowed relative error of two ways to compute the same numbers."""
    if probe.dtype == jnp.float64:
        return 1e-8 if gradient else 1e-9
    return 1e-4 if gradient else 1e-5


def carry_type(probe: Probe) -> float:
    """Both views return the carry in exactly the structure, shapes and types of `initialize_carry`."""
    law, carry = "carry_type", probe.fresh
    made = jax.eval_shape(lambda: probe.model.initialize_carry((probe.batch,)))
    for path, leaf in jax.tree_util.tree_leaves_with_path(made):
        name = jax.tree_util.keystr(path)
        if leaf.weak_type:
            raise ModelLawError(law, f"initialize_carry made leaf {name} {_type(leaf)}; give it a dtype")
        if is_clock(path) and (leaf.shape != () or leaf.dtype != jnp.int32):
            raise ModelLawError(law, f"clock leaf {name} must be a rank-0 int32, is {_type(leaf)}")
        if not is_clock(path) and leaf.shape[:1] != (probe.batch,):
            raise ModelLawError(law, f"leaf {name} must lead with B={probe.batch}, is {_type(leaf)}")
    x, reset = probe.x, probe.reset
    calls = {
        "__call__": jax.eval_shape(probe.model.apply, probe.params, carry, x, reset),
        "step": jax.eval_shape(
            lambda p, c, x, r: probe.model.apply(p, c, x, r, method="step"),
            probe.params,
            carry,
            x[0],
            reset[0],
        ),
    }
    for name, (new, y) in calls.items():
        _same_types(law, name, new, carry)
        lead = x.shape[:2] if name == "__call__" else x.shape[1:2]
        if y.shape[:-1] != lead:
            raise ModelLawError(law, f"{name} returned y{y.shape} for x of leading shape {lead}")
        if y.dtype != probe.dtype:
            raise ModelLawError(
                law,
                f"{name} returned y in {y.dtype} from {np.dtype(probe.dtype).name} parameters, carry and x: "
                f"let types follow the arguments (jnp.promote_types), or leave float64 out of dtypes",
            )
    return 0.0


def views(probe: Probe) -> float:
    """The parallel view equals `step` scanned over time, in y and carry, for several lengths."""
    carries, y = probe.step_all(probe.carry, probe.x, probe.reset)
    worst = 0.0
    for length in sorted({*CHUNKS, STEPS}):
        x, reset = probe.x[:length], probe.reset[:length]
        carry, got = probe.parallel(probe.carry, x, reset)
        what = f"y of the parallel view (T={length}) and of step"
        worst = max(worst, compare("views", what, got, y[:length], tolerance(probe), Y_AXES))
        want = jax.tree.map(lambda leaf, i=length - 1: leaf[i], carries)
        what = f"carries after the parallel view (T={length}) and after step"
        worst = max(worst, compare("views", what, carry, want, tolerance(probe), ("env",)))
    return worst


def chunking(probe: Probe) -> float:
    """Consecutive calls of the parallel view equal one call over the whole."""
    last, y = probe.parallel(probe.carry, probe.x, probe.reset)
    carry, parts, start = probe.carry, [], 0
    for length in CHUNKS:
        part = slice(start, start + length)
        carry, chunk = probe.parallel(carry, probe.x[part], probe.reset[part])
        parts.append(chunk)
        start += length
    got = np.concatenate(parts)
    what = f"y of one call and of calls of lengths {CHUNKS}"
    first = compare("chunking", what, got, y, tolerance(probe), Y_AXES)
    return max(first, compare("chunking", f"carries ({what})", carry, last, tolerance(probe), ("env",)))


def gradients(probe: Probe) -> float:
    """Both views have the same gradients with respect to parameters, carry and x."""
    x, reset, cotangents = _gradient_inputs(probe)
    got = probe.gradient("parallel", probe.carry, x, reset, cotangents)
    want = probe.gradient("stepped", probe.carry, x, reset, cotangents)
    worst = 0.0
    names = ("parameters", "carry", "x")
    for name, a, b in zip(names, got, want, strict=True):
        axes = {"parameters": (), "carry": ("env",), "x": Y_AXES}[name]
        a, b = (jax.tree.map(lambda leaf: leaf[-1], tree) for tree in (a, b))
        what = f"gradients of the parallel view and of step with respect to {name}"
        worst = max(worst, compare("gradients", what, a, b, tolerance(probe, gradient=True), axes))
    return worst


def causality(probe: Probe) -> float:
    """y[t] has exactly zero gradient with respect to later inputs."""
    x, reset, cotangents = _gradient_inputs(probe)
    steps = np.arange(GRADIENT_STEPS)
    later = np.broadcast_to((steps[None, :] > steps[:, None])[..., None], (*steps.shape * 2, probe.batch))
    for view in GRADIENT_VIEWS:
        grad = probe.gradient(view, probe.carry, x, reset, cotangents)[2][:GRADIENT_STEPS]
        _exactly_zero("causality", f"{view} view: y[t] depends on a later input", grad, later)
    return 0.0


def forgetting(probe: Probe) -> float:
    """After a reset nothing before it matters: zero gradient to earlier x and the carry, and equal values."""
    x, reset, cotangents = _gradient_inputs(probe)
    steps = np.arange(GRADIENT_STEPS)
    before = ~visible_steps(reset) & (steps[None, :] <= steps[:, None])[..., None]
    ended = np.cumsum(reset, axis=0) > 0
    for view in GRADIENT_VIEWS:
        _, d_carry, d_x = probe.gradient(view, probe.carry, x, reset, cotangents)
        _exactly_zero(
            "forgetting", f"{view} view: y[t] depends on an input before the reset", d_x[: len(steps)], before
        )
        for leaf in d_carry:
            leaf = leaf[: len(steps)].reshape(len(steps), 1, probe.batch, -1)
            _exactly_zero("forgetting", f"{view} view: y[t] depends on the carry despite a reset", leaf, ended[:, None])
    return _same_after_reset(probe, probe.carry, probe.fresh, "forgetting", "another past")


def large_carry(probe: Probe) -> float:
    """A carry of 1e4 in every number leaves no trace after a reset."""
    return _same_after_reset(probe, fill_floats(probe.carry, 1e4), probe.fresh, "large_carry", "a carry of 1e4")


def nan_carry(probe: Probe) -> float:
    """A carry full of nan dies at a reset: y, later chunks and gradients are those of the initial carry."""
    law, poisoned = "nan_carry", fill_floats(probe.carry, np.nan)
    fresh = _with_clocks_of(probe.carry, probe.fresh)
    reset, none = np.zeros_like(probe.reset), np.zeros_like(probe.reset)
    reset[0] = True
    worst = 0.0
    for name, view in probe.views().items():
        bad, good = view(poisoned, probe.x, reset), view(fresh, probe.x, reset)
        again = view(bad[0], probe.x, none), view(good[0], probe.x, none)
        for what, (a, b) in {"y": (bad, good), "y of the next chunk": again}.items():
            what = f"{name} view: {what} after a nan carry and a reset at t=0, and after the initial carry,"
            worst = max(worst, compare(law, what, a[1], b[1], _loose(probe), Y_AXES))
    x, _, cotangents = _gradient_inputs(probe)
    for view in GRADIENT_VIEWS:
        for tree in probe.gradient(view, poisoned, x, reset[:GRADIENT_STEPS], cotangents):
            finite = jax.tree.map(np.isfinite, tree)
            what = f"{view} view: gradients after a nan carry and a reset at t=0 (1 means finite)"
            compare(law, what, finite, jax.tree.map(np.ones_like, finite), 0.0, ())
    return worst


def batch(probe: Probe) -> float:
    """Environments do not see each other: any order, any one alone, and no gradient between them."""
    order = np.random.default_rng(0).permutation(probe.batch)
    worst = 0.0
    for name, view in probe.views().items():
        carry, y = view(probe.carry, probe.x, probe.reset)
        for label, index in {"in another order": order, "alone": np.array([1])}.items():
            got = view(take_carry(probe.carry, index), probe.x[:, index], probe.reset[:, index])
            want = (take_carry(carry, index), y[:, index])
            what = f"{name} view: %s of environments {label} and together"
            worst = max(worst, compare("batch", what % "y", got[1], want[1], _loose(probe), Y_AXES))
            worst = max(worst, compare("batch", what % "carries", got[0], want[0], _loose(probe), ("env",)))
    x, reset, cotangents = _gradient_inputs(probe)
    others = np.broadcast_to(np.arange(probe.batch) != 0, (1, GRADIENT_STEPS, probe.batch))
    for view in GRADIENT_VIEWS:
        grad = probe.gradient(view, probe.carry, x, reset, cotangents)[2][-2:-1]
        _exactly_zero("batch", f"{view} view: y of env 0 depends on another environment", grad, others)
    return worst


def seeds(probe: Probe) -> float:
    """A vmap over three parameter sets, with unbatched clocks, equals a loop, and acts without any scatter."""
    many = [probe.perturbed(number) for number in (1, 2, 3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *many)
    axes = carry_axes(probe.carry)
    carries = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf if is_clock(path) else np.stack([leaf] * 3), probe.carry
    )
    mapped = jax.vmap(probe.scan_steps, in_axes=(0, axes, None, None), out_axes=(axes, 0))
    try:
        acting = jax.jit(mapped, compiler_options=WITH_SCATTERS)
        compiled = acting.lower(stacked, carries, probe.x, probe.reset).compile()
    except ValueError as error:
        message = "vmap over seeds with clocks shared (in_axes and out_axes None) failed; a clock must be computed "
        raise ModelLawError("seeds", f"{message}from the old clock and static numbers only ({error})") from error
    scatters = re.findall(r"\bscatter\(", compiled.as_text() or "")
    if scatters:
        raise ModelLawError(
            "seeds",
            f"the compiled acting loop of vmapped seeds has {len(scatters)} scatter(s): write caches with "
            f"dynamic_update_slice at an index computed from a rank-0 clock",
        )
    y = compiled(stacked, carries, probe.x, probe.reset)[1]
    want = [probe.step_all(probe.carry, probe.x, probe.reset, params)[1] for params in many]
    return compare("seeds", "y of vmapped and of single seeds", y, np.stack(want), _loose(probe), ("seed", *Y_AXES))


def long_run(probe: Probe) -> float:
    """4096 steps from clocks at 2**30: both views agree, and the clock's origin does not show."""
    reset = probe.flips(5, 1 / 200, (LONG_STEPS, probe.batch))
    reset[0] = True
    x = probe.normal(6, (LONG_STEPS, *probe.x.shape[1:]))

    def stepped(carry, x, reset):
        def body(carry, inputs):
            return probe.model.apply(probe.params, carry, *inputs, method="step")

        return jax.lax.scan(body, carry, (x, reset))[1]

    def parallel(carry, x, reset):
        def body(carry, inputs):
            return probe.model.apply(probe.params, carry, *inputs)

        chunks = [leaf.reshape(-1, LONG_CHUNK, *leaf.shape[1:]) for leaf in (x, reset)]
        y = jax.lax.scan(body, carry, tuple(chunks))[1]
        return y.reshape(LONG_STEPS, *y.shape[2:])

    late = set_clocks(probe.fresh, LONG_CLOCK)
    y = (act := jax.jit(stepped))(late, x, reset)
    chunked = jax.jit(parallel)(late, x, reset)
    what = f"y of step and of the parallel view, clocks from {LONG_CLOCK},"
    worst = compare("long_run", what, y, chunked, tolerance(probe), Y_AXES)
    if not any(is_clock(path) for path, _ in jax.tree_util.tree_leaves_with_path(probe.fresh)):
        return worst
    what = f"y with clocks from {LONG_CLOCK} and from 0"
    return max(worst, compare("long_run", what, y, act(probe.fresh, x, reset), tolerance(probe), Y_AXES))


def bfloat16(probe: Probe) -> float:
    """With bfloat16 operands: views within 3e-2 of each other, recurrent states still float32."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(probe.fresh):
        name = getattr(path[-1], "name", getattr(path[-1], "key", None)) if path else None
        low = jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype != jnp.float32
        if low and name not in CACHE_NAMES:
            leaf_name = jax.tree_util.keystr(path)
            raise ModelLawError("bfloat16", f"state {leaf_name} is {leaf.dtype}; only caches may leave float32")
    _, y = probe.parallel(probe.carry, probe.x, probe.reset)
    _, want = probe.step_to_last(probe.carry, probe.x, probe.reset)
    return compare("bfloat16", "y of the parallel view and of step", y, want, 3e-2, Y_AXES)


def _loose(probe: Probe) -> float:
    """For runs of the same code on other shapes: only the order of sums may change."""
    return 1e-9 if probe.dtype == jnp.float64 else 1e-5


def _gradient_inputs(probe: Probe) -> tuple[np.ndarray, np.ndarray, tuple]:
    """x, reset and T + 2 cotangents: y at each single step, y of env 0, and everything with the carry."""
    x, reset = probe.x[:GRADIENT_STEPS], probe.reset[:GRADIENT_STEPS]
    y = jax.eval_shape(probe.model.apply, probe.params, probe.carry, x, reset)[1]
    count = GRADIENT_STEPS + 2
    ct_y = probe.normal(4, (count, *y.shape))
    ct_y[:GRADIENT_STEPS] *= np.eye(GRADIENT_STEPS)[:, :, None, None]
    ct_y[-2, :, 1:] = 0
    ct_floats = []
    for number, leaf in enumerate(float_leaves(probe.carry)):
        ct = np.zeros((count, *leaf.shape), leaf.dtype)
        ct[-1] = probe.normal(20 + number, leaf.shape)
        ct_floats.append(ct)
    return x, reset, (ct_y, ct_floats)


def _same_after_reset(probe: Probe, carry: Tree, other: Tree, law: str, label: str) -> float:
    """y from the reset on is the same for two carries and two sets of earlier inputs."""
    other = _with_clocks_of(carry, other)
    start = 3
    reset, changed = probe.reset.copy(), probe.x.copy()
    reset[start], changed[:start] = True, probe.normal(7, changed[:start].shape)
    worst = 0.0
    for name, view in probe.views().items():
        got, want = view(carry, probe.x, reset)[1], view(other, changed, reset)[1]
        what = f"{name} view: y from the reset at t={start} on (t counts from there), with and without {label},"
        worst = max(worst, compare(law, what, got[start:], want[start:], _loose(probe), Y_AXES))
    return worst


def _with_clocks_of(carry: Tree, other: Tree) -> Tree:
    """Clocks are the whole batch's and go on through resets, so they are no memory (`long_run` moves their origin)."""
    return jax.tree_util.tree_map_with_path(lambda path, old, new: old if is_clock(path) else new, carry, other)


def _exactly_zero(law: str, what: str, grad: np.ndarray, mask: np.ndarray) -> None:
    """grad[K, S, B, ...] must be exactly zero (not nan) wherever mask[K, S, B] is set."""
    bad = (grad != 0) & mask.reshape(mask.shape + (1,) * (grad.ndim - mask.ndim))
    if bad.any():
        place = np.unravel_index(np.argmax(bad), bad.shape)
        where = describe((), place, ("t", "input_t", "env", "unit"))
        raise ModelLawError(law, f"{what}{where}: expected gradient exactly 0, got {grad[place]:.6g}")


def _same_types(law: str, view: str, got: Tree, want: Tree) -> None:
    if jax.tree.structure(got) != jax.tree.structure(want):
        raise ModelLawError(
            law,
            f"{view} returned a carry of structure {jax.tree.structure(got)}, "
            f"initialize_carry makes {jax.tree.structure(want)}",
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True)
    for (path, a), b in pairs:
        if _type(a) != _type(b):
            name = jax.tree_util.keystr(path)
            raise ModelLawError(law, f"{view} turned carry leaf {name} from {_type(b)} into {_type(a)}")


def _type(leaf: Any) -> str:
    weak = " (weak type)" if getattr(leaf, "weak_type", False) else ""
    return f"{leaf.dtype}{list(leaf.shape)}{weak}"
