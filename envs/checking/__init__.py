"""`check_env`: prove that a pure-JAX environment is what its contract says, before a learner has to find out.

    from jaxrl_seq.envs import check_env

    print(check_env(MyEnv()))            # or: jaxrl-seq check env my_env.py:MyEnv

Each check is a function whose docstring says what it demands; each failure names the field, what was expected, what
came, and the fix. All checks run, so that one call shows all that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from jaxrl_seq.envs.checking import behaviour, form, presentation, resets, transforms
from jaxrl_seq.envs.checking.probe import LONGEST, Probe
from jaxrl_seq.envs.checking.report import EnvCheckError, EnvReport, Result
from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.envs.core.protocol import Env

__all__ = ["CHECKS", "EnvCheckError", "EnvReport", "Result", "check_env"]

CHECKS: dict[str, Callable[[Probe], Any]] = {
    check.__name__: check
    for check in (
        form.structure,
        form.flags,
        form.spaces,
        form.hashing,
        form.x64,
        form.host_calls,
        form.key_reuse,
        form.purity,
        transforms.jit,
        transforms.scan,
        transforms.vmap,
        transforms.parameters,
        transforms.sharding,
        behaviour.observations,
        behaviour.actions,
        behaviour.indices,
        behaviour.ends,
        behaviour.after_end,
        behaviour.reference,
        resets.resets,
        resets.tasks,
        presentation.pictures,
        presentation.storage,
    )
}
"""Name -> check, in order. The first must hold for the others to run."""
_WARNS = ("host_calls",)
_PLAYS_TO_THE_END = ("observations", "ends", "after_end", "reference")


def check_env(
    env: Env,
    params: Any = None,
    *,
    checks: Iterable[str] | None = None,
    episodes: int = 1024,
    seed: int = 0,
    raise_on_failure: bool = True,
) -> EnvReport:
    """Run `CHECKS`, or those named, on an environment.

    params: default_params() if None. episodes: how many are played by each policy for the checks of whole episodes.
    Returns an `EnvReport`; print it. Raises EnvCheckError (a ValueError) with every failure, unless
    `raise_on_failure` is False; ValueError for an unknown check.
    """
    if not isinstance(env, Env):
        raise ValueError(f"check_env: {type(env).__name__} is no Env; subclass jaxrl_seq.envs.Env.")
    chosen = [known(name, CHECKS, "check") for name in checks] if checks is not None else list(CHECKS)
    try:
        probe = Probe(env, env.default_params() if params is None else params, seed, episodes)
    except TypeError as error:
        raise EnvCheckError(
            f"{env.name}: {error}. Declare @dataclass(frozen=True) and keep arrays out of it."
        ) from error
    results = [_run("structure", probe)]
    if results[0].status == "failed":
        results += [Result(name, "skipped", "until the structure holds") for name in chosen if name != "structure"]
    else:
        results += [_run(name, probe) for name in chosen if name != "structure"]
    report = EnvReport(env.name, tuple(results), {} if "structure" in _failed(results) else presentation.cost(probe))
    if report.failed and raise_on_failure:
        raise EnvCheckError(str(report))
    return report


def _failed(results: Iterable[Result]) -> list[str]:
    return [result.check for result in results if result.status == "failed"]


def _run(name: str, probe: Probe) -> Result:
    if name in _PLAYS_TO_THE_END and probe.env.horizon > LONGEST:
        return Result(name, "skipped", f"episodes of {probe.env.horizon} steps are too long to be played")
    try:
        said = CHECKS[name](probe)
    except EnvCheckError as error:
        return Result(name, "failed", str(error))
    except Exception as error:
        # An environment may fail in any way; the user wants the other checks all the same.
        return Result(name, "failed", f"raised {type(error).__name__}: {error}")
    if not said:
        return Result(name, "ok")
    return Result(name, "warning" if name in _WARNS else "skipped", said)
