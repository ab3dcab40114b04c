"""From the columns of steps to tokens, through any sequence model, to predictions: training and acting alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_seq.agents.actor_critic import example_inputs
from jaxrl_seq.agents.distributions import to_unit
from jaxrl_seq.agents.encoders import ObservationEncoder
from jaxrl_seq.envs import Env, Space
from jaxrl_seq.envs.core.vector import Inputs
from jaxrl_seq.models import SequenceModel
from jaxrl_seq.offline.dataset import Dataset
from jaxrl_seq.offline.objectives import Columns, Term
from jaxrl_seq.offline.sampler import Window
from jaxrl_seq.offline.signals import Signal
from jaxrl_seq.offline.standardise import Standardise, with_stats
from jaxrl_seq.offline.tokens import Tokens
from jaxrl_seq.ops import set_clocks
from jaxrl_seq.types import Array, PyTree

_STATS = "stats"
Outs = dict[str, Array]
"""Name of a term -> outputs of its head, float32 [..., P]."""


class TokenNet(nn.Module):
    """Tokens of S a step, a sequence model over them, and a head for each term.

    `net(carry, columns[T, B], reset[T, B]) -> (carry, outs[T, B])` for training; for acting `before(carry,
    columns[B], reset[B]) -> (carry, outs[B])` reads the tokens up to the one with *, and `after(carry, columns[B]) ->
    carry` the others, once the action was taken. `reset` makes the model forget before the first token of a step.
    Numbers are shown in units of the data, which travel as variables of the collection "stats" (see `fresh_variables`).
    """

    observation_space: Space
    action_space: Space
    model: SequenceModel
    tokens: Tokens
    signals: tuple[tuple[str, int], ...] = ()
    """(name, width) of each."""
    terms: tuple[Term, ...] = ()
    positions: int = 0
    """Steps of an episode that have a learned embedding, which is added to each of their tokens; 0 for none."""

    def setup(self) -> None:
        width = self.model.features
        self.standard = Standardise(self.observation_space)
        self.obs = ObservationEncoder(self.observation_space)
        self.units = {name: Unit(size) for name, size in numeric(self.signals).items() if name in self.numbers}
        self.embeds = [nn.Dense(width) for _ in self.tokens.groups]
        if self.positions:
            self.time = nn.Embed(self.positions, width, embedding_init=nn.initializers.normal(0.02))
        self.heads = [nn.Dense(term.width, kernel_init=nn.initializers.normal(0.02)) for term in self.terms]
        self.mixes = {term.name: nn.Dense(width) for term in self.terms if term.given}

    def __call__(self, carry: PyTree, columns: Columns, reset: Array) -> tuple[PyTree, Outs]:
        carry, hidden = self.hidden(carry, columns, reset)
        return carry, self._outs([hidden[:, i] for i in range(self.tokens.per_step)], columns)

    def hidden(self, carry: PyTree, columns: Columns, reset: Array) -> tuple[PyTree, Array]:
        """What the model makes of every token, [T, S, B, D]."""
        steps, batch = reset.shape
        per_step = self.tokens.per_step
        x = jnp.stack([self._token(i, columns) for i in range(per_step)], axis=1)
        opens = jnp.zeros((steps, per_step, batch), bool).at[:, 0].set(reset)
        carry, y = self.model(carry, x.reshape(steps * per_step, batch, -1), opens.reshape(-1, batch))
        return carry, y.reshape(steps, per_step, batch, -1)

    def before(self, carry: PyTree, columns: Columns, reset: Array) -> tuple[PyTree, Outs]:
        seen = []
        for i in range(self.tokens.reads + 1):
            opens = reset if i == 0 else jnp.zeros_like(reset)
            carry, y = self.model.step(carry, self._token(i, columns), opens)
            seen.append(y)
        return carry, self._outs(seen, columns)

    def after(self, carry: PyTree, columns: Columns) -> PyTree:
        for i in range(self.tokens.reads + 1, self.tokens.per_step):
            x = self._token(i, columns)
            carry, _ = self.model.step(carry, x, jnp.zeros(x.shape[:-1], bool))
        return carry

    def _token(self, number: int, columns: Columns) -> Array:
        """[..., D]."""
        parts = [self._encoded(name, columns[name]) for name in self.tokens.groups[number]]
        x = self.embeds[number](jnp.concatenate(parts, axis=-1))
        return x + self.time(columns["t"]) if self.positions else x

    def _encoded(self, name: str, column: PyTree) -> Array:
        """[..., width of its own]."""
        if name == "obs":
            return self.obs(self.standard(column))
        if name in ("action", "prev_action"):
            return to_unit(self.action_space, column)
        return self.units[name](column if name in dict(self.signals) else column[..., None])

    def _outs(self, seen: list[Array], columns: Columns) -> Outs:
        """Of the terms whose token is among the first ones, `seen`, [..., D] each."""
        outs: Outs = {}
        for term, head in zip(self.terms, self.heads, strict=True):
            at = self._reads(term)
            if at < len(seen):
                outs[term.name] = self._out(term, head, seen[at], columns)
        return outs

    def _out(self, term: Term, head: nn.Module, x: Array, columns: Columns) -> Array:
        """[..., P] of the hidden state [..., D]."""
        if term.given:
            given = [self._encoded(name, columns[name]) for name in term.given]
            x = nn.gelu(self.mixes[term.name](jnp.concatenate([x, *given], axis=-1)))
        y = head(x).astype(jnp.float32)
        if not term.unit:
            return y
        numbers = self.units[term.unit].numbers.value
        return numbers["mean"] + numbers["std"] * y

    def _reads(self, term: Term) -> int:
        if not term.reads:
            return self.tokens.reads
        return next(i for i, token in enumerate(self.tokens.groups) if term.reads in token)

    @nn.nowrap
    def _shown(self) -> set[str]:
        """All columns that tokens and heads read."""
        return {*self.tokens.columns, *(name for term in self.terms for name in (*term.given, term.unit))}

    @property
    def numbers(self) -> tuple[str, ...]:
        """The columns that are shown in units of the data."""
        return tuple(name for name in numeric(self.signals) if name in self._shown())

    # --- with given variables -----------------------------------------------------------------------------------------
    @nn.nowrap
    def parallel(self, variables: Any, columns: Columns, reset: Array, clock: Array | None = None) -> Outs:
        """Predictions of windows [T, B], from empty memories on, whose clocks stand at `clock` steps (int32 [])."""
        carry = self.model.initialize_carry((reset.shape[1],))
        if clock is not None:
            carry = set_clocks(carry, clock * self.tokens.per_step)
        return cast(Any, self.apply(variables, carry, columns, reset))[1]

    @nn.nowrap
    def act(self, variables: Any, carry: PyTree, columns: Columns, reset: Array) -> tuple[PyTree, Outs]:
        """`before` with these variables."""
        return cast(Any, self.apply(variables, carry, columns, reset, method="before"))

    @nn.nowrap
    def observe(self, variables: Any, carry: PyTree, columns: Columns) -> PyTree:
        """`after` with these variables."""
        return self.apply(variables, carry, columns, method="after")


class Unit(nn.Module):
    """Numbers [..., width] in units of the data: mean 0, deviation 1. NaN until it has those."""

    width: int

    def setup(self) -> None:
        unknown = jnp.full(self.width, jnp.nan, jnp.float32)
        self.numbers: Any = self.variable(_STATS, "numbers", lambda: {"mean": unknown, "std": unknown})

    def __call__(self, x: Array) -> Array:
        return (x.astype(jnp.float32) - self.numbers.value["mean"]) / self.numbers.value["std"]


def numeric(signals: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Width of each column that `Unit` shows."""
    return {"reward": 1, "prev_reward": 1} | dict(signals)


# --- columns ----------------------------------------------------------------------------------------------------------
def columns_of(window: Window) -> Columns:
    """All that terms and tokens may read, [W, B, ...] each; signals are further columns of the data (`prepare`)."""
    names = ("obs", "action", "reward", "prev_action", "prev_reward", "t", "next_obs")
    return {name: getattr(window, name) for name in names} | window.extra


def acting_columns(inputs: Inputs, t: Array, shown: dict[str, Array]) -> Columns:
    """The same of what is seen while acting, [B, ...]: what is not known yet is zero."""
    return {
        "obs": inputs.obs,
        "action": jax.tree.map(jnp.zeros_like, inputs.prev_action),
        "reward": jnp.zeros_like(inputs.prev_reward),
        "prev_action": inputs.prev_action,
        "prev_reward": inputs.prev_reward,
        "t": t,
    } | shown


def prepare(dataset: Dataset, signals: tuple[Signal, ...]) -> Dataset:
    """The data set with the labels of all signals as columns [N, width]."""
    for signal in signals:
        dataset = dataset.with_column(signal.name, signal.column(dataset))
    return dataset


# --- variables --------------------------------------------------------------------------------------------------------
def fresh_variables(net: TokenNet, env: Env, key: Array, dataset: Dataset) -> dict[str, PyTree]:
    """{"params": ..., "stats": ...}: new parameters, and the numbers of this data. The key is consumed."""
    inputs = example_inputs(env, (1, 1))
    shown = {name: jnp.zeros((1, 1, width), jnp.float32) for name, width in net.signals}
    columns = acting_columns(inputs, jnp.zeros((1, 1), jnp.int32), shown)
    variables = net.init(key, net.model.initialize_carry((1,)), columns, inputs.first)
    return with_units(variables, dataset, net.numbers)


def with_units(variables: Any, dataset: Dataset, names: Iterable[str]) -> dict[str, PyTree]:
    """The numbers of the data in every layer that shows columns: of observations, and of the columns `names`."""
    variables = with_stats(variables, dataset.stats) if _STATS in variables else {**variables, _STATS: {}}
    stats = dict(variables[_STATS])
    for name in names:
        column = dataset.reward if name in ("reward", "prev_reward") else dataset.extra[name]
        column = column.reshape(column.shape[0], -1).astype(jnp.float32)
        varies = jnp.max(column, axis=0) > jnp.min(column, axis=0)
        std = jnp.where(varies, jnp.maximum(jnp.std(column, axis=0), 1e-6), 1.0)
        stats[f"units_{name}"] = {"numbers": {"mean": jnp.mean(column, axis=0), "std": std}}
    return {**variables, _STATS: stats}
