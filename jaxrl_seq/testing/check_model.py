"""`check_model`: prove that a sequence model's two views are one function and that resets mean what they say.

    from jaxrl_seq.testing import check_model

    class Average(SequenceModel):                      # running mean of the episode, a model of your own
        features: int

        def __call__(self, carry, x, reset):
            return jax.lax.scan(lambda c, i: self.step(c, *i), carry, (x, reset))

        def step(self, carry, x, reset):
            total, count = where_reset(reset, self.initialize_carry(reset.shape), carry)
            total, count = total + x, count + 1
            return (total, count), total / count[:, None]

        @nn.nowrap
        def initialize_carry(self, batch):
            return jnp.zeros((*batch, self.features)), jnp.zeros(batch)

    print(check_model(Average(4)))

Pass a small model: width 16, windows below 19 steps so that they wrap. A check takes some ten seconds, nearly all of
it compilation. Laws run in float64 first, where a wrong formula cannot hide behind a tolerance, then in float32.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_seq.testing import model_laws
from jaxrl_seq.testing.model_probe import ModelLawError, Probe, initial_parameters

__all__ = ["LAWS", "ModelLawError", "ModelReport", "check_model"]

EVERYWHERE = {
    "carry_type": model_laws.carry_type,
    "views": model_laws.views,
    "chunking": model_laws.chunking,
    "gradients": model_laws.gradients,
    "causality": model_laws.causality,
    "forgetting": model_laws.forgetting,
    "nan_carry": model_laws.nan_carry,
    "large_carry": model_laws.large_carry,
    "batch": model_laws.batch,
}
FLOAT32_ONLY = {"seeds": model_laws.seeds, "long_run": model_laws.long_run}
BFLOAT16_ONLY = {"bfloat16": model_laws.bfloat16}
LAWS = (*EVERYWHERE, *FLOAT32_ONLY, *BFLOAT16_ONLY)
"""Names of the laws; the docstring of each function in `model_laws` says what it demands."""
DTYPES = ("float64", "float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class ModelReport:
    """What `check_model` found: all laws held."""

    model: str
    """What was checked."""
    errors: Mapping[str, Mapping[str, float]]
    """Law -> type -> largest relative error seen (0 for exact laws)."""
    skipped: tuple[str, ...] = ()
    """What was not checked, and why."""

    def __str__(self) -> str:
        lines = [f"{self.model}: all {len(self.errors)} laws hold"]
        for law, by_type in self.errors.items():
            lines.append(f"  {law:<12}" + "".join(f"  {dtype} {error:.1e}" for dtype, error in by_type.items()))
        return "\n".join(lines + [f"  not checked: {reason}" for reason in self.skipped])


def check_model(
    model_or_config: Any,
    *,
    features_in: int | None = None,
    seed: int = 0,
    laws: Iterable[str] | None = None,
    dtypes: Iterable[str] = DTYPES,
) -> ModelReport:
    """Check every law of `LAWS` on a flax module with the protocol of `SequenceModel`, or on a model config.

    features_in: width D of the inputs; by default 5 for a config (stacks project), else the module's `features`.
    seed: of parameters, inputs and resets. laws: names to check, all by default.
    dtypes: of "float64", "float32" and "bfloat16"; the last needs a config with a `dtype` option.
    Returns a `ModelReport`. Raises `ModelLawError` (a ValueError) with the law, the place (t, env, leaf), the
    expected and the found number; ValueError for an unknown law or type.
    """
    chosen = _choose("law", laws, LAWS)
    kinds = _choose("dtype", dtypes, DTYPES)
    is_config = hasattr(model_or_config, "build")
    model = model_or_config.build() if is_config else model_or_config
    _require_protocol(model)
    if features_in is None:
        features_in = 5 if is_config else getattr(model, "features", None)
    if features_in is None:
        raise ValueError(f"check_model: {type(model).__name__} has no field `features`; pass features_in=...")

    initial = initial_parameters(model, features_in, seed)
    errors: dict[str, dict[str, float]] = {}
    skipped = []
    for kind in kinds:
        tested = model
        if kind == "bfloat16" and not hasattr(model_or_config, "dtype"):
            skipped.append("bfloat16 (no config with a dtype option)")
            continue
        if kind == "bfloat16":
            tested = _in_bfloat16(model_or_config)
        for law, error in _run(tested, initial, features_in, seed, kind, chosen).items():
            errors.setdefault(law, {})[kind] = error
    return ModelReport(_label(model_or_config), errors, tuple(skipped))


def _run(model: Any, initial: Any, features_in: int, seed: int, kind: str, chosen: tuple[str, ...]) -> dict[str, float]:
    checks = {
        "float64": EVERYWHERE,
        "float32": EVERYWHERE | FLOAT32_ONLY,
        "bfloat16": {"carry_type": model_laws.carry_type} | BFLOAT16_ONLY,
    }[kind]
    dtype = jnp.float64 if kind == "float64" else jnp.float32
    errors = {}
    with jax.enable_x64(kind == "float64"), jax.default_matmul_precision("highest"):
        probe = Probe(model, initial, features_in, seed, dtype)
        for law, check in checks.items():
            if law in chosen:
                errors[law] = _located(check, probe, kind)
    return errors


def _require_protocol(model: Any) -> None:
    missing = [name for name in ("initialize_carry", "step") if not hasattr(type(model), name)]
    if missing:
        raise ValueError(
            f"check_model: {type(model).__name__} is no sequence model: it lacks {', '.join(missing)}; "
            f"see jaxrl_seq.models.SequenceModel"
        )


def _located(check: Any, probe: Probe, kind: str) -> float:
    try:
        return check(probe)
    except ModelLawError as error:
        error.add_note(f"while checking {type(probe.model).__name__} in {kind}")
        raise


def _in_bfloat16(model_or_config: Any) -> Any:
    if hasattr(model_or_config, "build"):
        return dataclasses.replace(model_or_config, dtype="bfloat16").build()
    return model_or_config.clone(dtype=jnp.bfloat16)


def _choose(what: str, names: Iterable[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    if names is None:
        return known
    names = tuple(names)
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"check_model: unknown {what} {name!r}{hint} Known: {', '.join(known)}")
    return tuple(name for name in known if name in names)


def _label(model_or_config: Any) -> str:
    if hasattr(model_or_config, "build"):
        return repr(model_or_config)
    return type(model_or_config).__name__
