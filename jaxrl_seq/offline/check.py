"""Is a data set what it says? Every rule, and for what breaks one the first offender: shard, episode, step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.envs import Box, Discrete, Env, MultiDiscrete, Space, Tree
from jaxrl_seq.envs.checking.report import Result
from jaxrl_seq.envs.core.wrappers import Picture
from jaxrl_seq.offline.dataset import Dataset, make_stats, named_leaves, require_env


class DatasetCheckError(ValueError):
    """Something is wrong with a data set: where, what was expected, what is there, and the fix."""


@dataclass(frozen=True)
class DatasetReport:
    """What `check_dataset` found."""

    dataset: str
    results: tuple[Result, ...]
    facts: dict[str, Any]
    """Steps, episodes, bytes, the range of returns."""

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the rules that are broken."""
        return tuple(result.check for result in self.results if result.status == "failed")

    def __str__(self) -> str:
        held = sum(result.status == "ok" for result in self.results)
        tally = f"{len(self.failed)} of {len(self.results)} rules broken" if self.failed else f"{held} rules hold"
        facts = "  " + ", ".join(f"{name} {value}" for name, value in self.facts.items())
        return "\n".join([f"{self.dataset}: {tally}", *map(str, self.results), facts])


Finding = tuple[str, str]  # (status, message)
Rule = Callable[["_Case"], Iterator[Finding]]


@dataclass(frozen=True)
class _Case:
    """A data set on the host."""

    data: Any  # Dataset of NumPy arrays
    env: Env | None
    where: str

    def at(self, row: int, step: bool = True) -> str:
        """Words for a row of the data set."""
        starts = np.maximum.accumulate(self.data.start) if len(self.data.start) else np.zeros(1, int)
        episode = max(int(np.searchsorted(starts, row, side="right")) - 1, 0)
        return f"{self.where}episode {episode}" + (f", step {row - int(starts[episode])}" if step else "")

    def episode(self, number: int) -> str:
        return f"{self.where}episode {number}"


def check_dataset(
    dataset: Dataset, env: Env | None = None, *, where: str = "", raise_on_failure: bool = True
) -> DatasetReport:
    """Hold a data set to every rule; with `env`, also to that environment.

    where: name of the shard, for messages. Raises DatasetCheckError (a ValueError) with all failures, unless
    `raise_on_failure` is False. Reads everything once, on the host. Later rules need the earlier ones: what a broken
    one makes meaningless is skipped.
    """
    case = _Case(jax.device_get(dataset), env, f"shard {where}, " if where else "")
    results: list[Result] = []
    broken = False
    for rules, needed in ((_STRUCTURE, True), (_CONTENT, False)):
        for name, rule in rules.items():
            if broken:
                results.append(Result(name, "skipped", "needs the rules above"))
                continue
            found = list(rule(case))
            results += [Result(name, status, message) for status, message in found] or [Result(name, "ok")]
            broken = needed and any(status == "failed" for status, _ in found)
    report = DatasetReport(_title(dataset), tuple(results), {} if broken else _facts(case.data, dataset.nbytes))
    if report.failed and raise_on_failure:
        raise DatasetCheckError(str(report))
    return report


def _title(dataset: Dataset) -> str:
    return "-".join(filter(None, (dataset.meta.env or "data", dataset.meta.recipe)))


def _facts(data: Any, nbytes: int) -> dict[str, Any]:
    returns = data.rtg[data.start]
    return {
        "steps": f"{data.steps:,}",
        "episodes": f"{data.num_episodes:,}",
        "lengths": f"{data.length.min()} to {data.length.max()}",
        "returns": f"{returns.min():.4g} to {returns.max():.4g} (mean {returns.mean():.4g})",
        "memory": f"{nbytes / 1e6:.1f} MB",
    }


# --- structure: where episodes begin and end --------------------------------------------------------------------------
def _shapes(case: _Case) -> Iterator[Finding]:
    data, steps, episodes = case.data, len(case.data.reward), len(case.data.start)
    per_step = ("obs", "action", "terminated", "truncated", "t", "to_end", "episode", "rtg", "extra")
    per_episode = ("final_obs", "length", "source")
    kinds = {"reward": "float32", "rtg": "float32", "terminated": "bool", "truncated": "bool"}
    kinds |= dict.fromkeys(("t", "to_end", "episode", "start", "length", "source"), "int32")
    for names, rows, what in ((per_step, steps, "step"), (per_episode, episodes, "episode")):
        for name, leaf in named_leaves({name: getattr(data, name) for name in names}):
            if leaf.shape[:1] != (rows,):
                yield (
                    "failed",
                    f"{case.where}{name} has {leaf.shape[:1]} rows; expected {rows}, one per {what}: `build` it.",
                )
    for name, kind in kinds.items():
        found = getattr(data, name).dtype
        if found != kind:
            yield "failed", f"{case.where}{name} is {found}; expected {kind}: cast it, or `build` the data set."


def _episodes(case: _Case) -> Iterator[Finding]:
    start, length, steps = case.data.start, case.data.length, case.data.steps
    if not len(start):
        yield "failed", f"{case.where}there are no episodes: record some."
        return
    empty = np.flatnonzero(length < 1)
    if len(empty):
        yield "failed", f"{case.episode(empty[0])} has {length[empty[0]]} steps; expected at least 1: leave it out."
        return
    begin = np.cumsum(length) - length
    odd = np.flatnonzero(start != begin)
    if len(odd):
        e = odd[0]
        yield "failed", f"{case.episode(e)} starts at row {start[e]}; expected {begin[e]}, after the one before it."
    elif length.sum() != steps:
        yield (
            "failed",
            f"{case.where}the episodes have {length.sum()} steps altogether; expected {steps}, all there are.",
        )


def _ends(case: _Case) -> Iterator[Finding]:
    data = case.data
    last = data.start + data.length - 1
    flagged = data.terminated | data.truncated
    missing = last[~flagged[last]]
    if len(missing):
        yield (
            "failed",
            (
                f"{case.at(missing[0])} is the last one but carries no flag of end; expected terminated or "
                "truncated: set truncated where the recording stopped, or drop the episode."
            ),
        )
    inside = flagged.copy()
    inside[last] = False
    early = np.flatnonzero(inside)
    if len(early):
        yield (
            "failed",
            (
                f"{case.at(early[0])} carries a flag of end; expected none before the last step: split the "
                "episode there."
            ),
        )
    both = np.flatnonzero(data.terminated & data.truncated)
    if len(both):
        yield (
            "failed",
            (
                f"{case.at(both[0])} is terminated and truncated; expected one of them: keep terminated, as "
                "nothing is left to bootstrap."
            ),
        )


def _clock(case: _Case) -> Iterator[Finding]:
    data = case.data
    number = np.repeat(np.arange(data.num_episodes), data.length)
    t = np.arange(data.steps) - data.start[number]
    for name, want in (("t", t), ("to_end", data.length[number] - 1 - t), ("episode", number)):
        odd = np.flatnonzero(getattr(data, name) != want)
        if len(odd):
            found = getattr(data, name)[odd[0]]
            yield "failed", f"{case.at(odd[0])}: {name} is {found}; expected {want[odd[0]]}: `build` the data set anew."


# --- content ----------------------------------------------------------------------------------------------------------
def _finite(case: _Case) -> Iterator[Finding]:
    data = case.data
    columns = {"obs": data.obs, "action": data.action, "reward": data.reward, "extra": data.extra}
    for per_episode, named in ((False, named_leaves(columns)), (True, named_leaves({"final_obs": data.final_obs}))):
        for name, leaf in named:
            odd = np.argwhere(~np.isfinite(leaf)) if np.issubdtype(leaf.dtype, np.floating) else []
            if len(odd):
                place = case.episode(odd[0][0]) if per_episode else case.at(odd[0][0])
                entry = f"{name}{odd[0][1:].tolist() or ''}"
                yield (
                    "failed",
                    (
                        f"{place}: {entry} is {leaf[tuple(odd[0])]}; expected a finite number: drop the episode "
                        "(`take_episodes`) or mend what recorded it."
                    ),
                )


def _spaces(case: _Case) -> Iterator[Finding]:
    data, meta = case.data, case.data.meta
    for name, space, leaf, per_episode in (
        ("obs", meta.observation_space, data.obs, False),
        ("final_obs", meta.observation_space, data.final_obs, True),
        ("action", meta.action_space, data.action, False),
    ):
        for entry, message in _outside(space, leaf, name):
            place = case.where if entry is None else (case.episode(entry) if per_episode else case.at(entry)) + ": "
            yield "failed", f"{place}{message}"


def _outside(space: Space, x: Any, name: str) -> Iterator[tuple[int | None, str]]:
    """(row, message) of the first entry outside of `space`; no row where the whole column is of another kind."""
    if isinstance(space, Picture):
        return
    if isinstance(space, Tree):
        if not isinstance(x, dict) or x.keys() != space.spaces.keys():
            yield None, f"{name} is {type(x).__name__}; expected a dictionary of {', '.join(space.spaces)}."
            return
        for key, sub in space.spaces.items():
            yield from _outside(sub, x[key], f"{name}.{key}")
        return
    assert isinstance(space, Box | Discrete | MultiDiscrete)
    if x.shape[1:] != space.shape or x.dtype.kind != space.dtype.kind:
        yield (
            None,
            (
                f"{name} is {x.dtype}{list(x.shape[1:])} a row; expected {space.dtype}{list(space.shape)} of {space}: "
                "give the space it is of."
            ),
        )
        return
    low, high = space.bounds if isinstance(space, Box) else (0, np.array(getattr(space, "ns", space.flat_dim)) - 1)
    odd = np.argwhere((x < low) | (x > high))  # NaN is the business of `finite`
    if len(odd):
        place = tuple(odd[0])
        sides = [np.broadcast_to(side, space.shape)[place[1:]] for side in (low, high)]
        yield (
            int(place[0]),
            (
                f"{name}{[int(i) for i in place[1:]] or ''} is {x[place]}; expected {sides[0]} to "
                f"{sides[1]}: rescale it, or declare the space that it is of."
            ),
        )


def _returns(case: _Case) -> Iterator[Finding]:
    data = case.data
    inside = data.to_end > 0
    want = data.reward + np.where(inside, np.append(data.rtg[1:], 0), 0)
    known = np.isfinite(want)  # NaN is the business of `finite`
    slack = 1e-4 * max(1.0, np.abs(want[known]).max(initial=0))
    odd = np.flatnonzero(known & ~(np.abs(data.rtg - want) <= slack))
    if len(odd):
        i = odd[0]
        yield (
            "failed",
            (
                f"{case.at(i)}: rtg is {data.rtg[i]:g}; expected {want[i]:g}, the reward and what follows: `build` "
                "the data set after changing rewards."
            ),
        )


def _stats(case: _Case) -> Iterator[Finding]:
    data = case.data
    fresh = make_stats(
        data.meta.observation_space, data.obs, data.action, jnp.asarray(data.rtg[data.start]), data.length
    )
    pairs = zip(named_leaves(vars(data.stats)), jax.tree.leaves(jax.device_get(vars(fresh))), strict=True)
    for (name, kept), now in pairs:
        if not np.allclose(kept, now, rtol=1e-3, atol=1e-4, equal_nan=True):
            yield (
                "failed",
                (
                    f"{case.where}stats.{name} is {np.asarray(kept)}; expected {np.asarray(now)}, that of the data: "
                    "`build` the data set, so that policies do not see other units."
                ),
            )
            return


def _worth(case: _Case) -> Iterator[Finding]:
    """What is allowed, and yet a reason to look again."""
    data = case.data
    short = np.flatnonzero(data.length == 1)
    if len(short) and (case.env is None or case.env.horizon > 1) and data.length.max() > 1:
        yield (
            "warning",
            f"{case.episode(short[0])} and {len(short) - 1} more last one step: nothing precedes or follows it.",
        )
    returns = data.rtg[data.start]
    if len(returns) > 1 and np.ptp(returns) == 0:
        yield "warning", f"{case.where}every episode returns {returns[0]:g}: returns are no signal to condition on."
    for name, leaf in named_leaves({"action": data.action}):
        if len(leaf) > 1 and (leaf == leaf[0]).all():
            yield "warning", f"{case.where}{name} is {leaf[0]} in every step: nothing to learn from."


def _env(case: _Case) -> Iterator[Finding]:
    if case.env is None:
        return
    try:
        require_env(case.data, case.env)
    except ValueError as error:
        yield "failed", f"{case.where}{error}"
    long = np.flatnonzero(case.data.length > case.env.horizon)
    if len(long):
        yield (
            "failed",
            (
                f"{case.episode(long[0])} has {case.data.length[long[0]]} steps; expected at most "
                f"{case.env.horizon}, the horizon of {case.env.name}: is it of another preset?"
            ),
        )


_STRUCTURE: dict[str, Rule] = {"shapes": _shapes, "episodes": _episodes, "ends": _ends, "clock": _clock}
_CONTENT: dict[str, Rule] = {
    "finite": _finite,
    "spaces": _spaces,
    "returns": _returns,
    "stats": _stats,
    "worth": _worth,
    "env": _env,
}
RULES = (*_STRUCTURE, *_CONTENT)
"""Names of all rules, in the order they are checked."""
