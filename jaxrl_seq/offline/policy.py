"""Sequence policies in action. Three modes of inference, declared by the learner and never mixed:

window      the last W steps are read anew at every step, as in training: what Decision Transformers publish
cache       attention keeps the keys and values of all it has read, and trains on whole episodes
recurrent   a state, likewise

A cache is not a faster window: its deeper layers remember what their inputs saw before the window (a reach of
layers x W), which training on windows never shows. So the last two train on windows that open their episodes.

A policy is a pytree with three functions; B rows each, with a target of their own:

    policy.init(inputs)                         -> memory                  of B rows; only shapes count
    policy.act(key, memory, inputs)             -> (memory, action [B])    an episode opens where inputs.first
    policy.observe(memory, action, outcome)     -> memory
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, get_args

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.envs.core.batching import where_rows
from jaxrl_seq.envs.core.vector import Inputs, Outcome
from jaxrl_seq.models import SequenceModel
from jaxrl_seq.offline.network import Outs, TokenNet, acting_columns
from jaxrl_seq.offline.objectives import ActionTerm, Columns
from jaxrl_seq.offline.signals import Signal
from jaxrl_seq.ops import WindowCache
from jaxrl_seq.types import Array, PyTree

Mode = Literal["window", "cache", "recurrent"]
MODES: tuple[str, ...] = get_args(Mode)


class Policy(Protocol):
    """See above."""

    def init(self, inputs: Inputs) -> PyTree: ...

    def act(self, key: Array, memory: PyTree, inputs: Inputs) -> tuple[PyTree, Any]: ...

    def observe(self, memory: PyTree, action: Any, outcome: Outcome) -> PyTree: ...


@struct.dataclass
class Memory:
    """Of B episodes in progress."""

    context: PyTree
    """The model's carry, or the columns of the last W steps [W, B, ...]."""
    shown: dict[str, Array]
    """What each signal shows, [B, width]."""
    t: Array
    """int32 [B]: steps taken in the episode."""
    columns: Columns
    """Of the present step."""


@struct.dataclass
class Sequencer:
    """What the modes share: signals, clocks, and the choice of an action. Not to be used itself."""

    net: TokenNet = struct.field(pytree_node=False)
    signals: tuple[Signal, ...] = struct.field(pytree_node=False)
    variables: PyTree
    asked: dict[str, Array]
    """Name of a signal -> what is asked for, float32 [B]."""
    greedy: bool = struct.field(pytree_node=False, default=True)

    def context(self, num: int, columns: Columns) -> PyTree:
        """Empty."""
        raise NotImplementedError

    def predict(self, context: PyTree, columns: Columns, t: Array, first: Array) -> tuple[PyTree, Outs]:
        """With this step's tokens up to the one with *."""
        raise NotImplementedError

    def follow(self, context: PyTree, columns: Columns, t: Array) -> PyTree:
        """With its other tokens."""
        raise NotImplementedError

    def init(self, inputs: Inputs) -> Memory:
        """For B episodes; of `inputs` only shapes count."""
        num = inputs.first.shape[0]
        t = jnp.zeros(num, jnp.int32)
        shown = self._asked()
        columns = jax.tree.map(jnp.zeros_like, acting_columns(inputs, t, shown))
        return Memory(self.context(num, columns), shown, t, columns)

    def act(self, key: Array, memory: Memory, inputs: Inputs) -> tuple[Memory, Any]:
        """The key is consumed."""
        memory, outs = self.look(memory, inputs)
        return memory, self.action.choose(outs["action"], inputs.action_mask, None if self.greedy else key)

    def look(self, memory: Memory, inputs: Inputs) -> tuple[Memory, Outs]:
        """What is predicted before an action is chosen."""
        first = inputs.first
        shown = where_rows(first, self._asked(), memory.shown)
        t = jnp.where(first, 0, memory.t)
        columns = acting_columns(inputs, t, shown)
        context, outs = self.predict(memory.context, columns, t, first)
        return Memory(context, shown, t, columns), outs

    def observe(self, memory: Memory, action: Any, outcome: Outcome) -> Memory:
        columns = memory.columns | {"action": action, "reward": outcome.reward}
        shown = {s.name: s.update(memory.shown[s.name], outcome) for s in self.signals}
        return Memory(self.follow(memory.context, columns, memory.t), shown, memory.t + 1, columns)

    @property
    def action(self) -> ActionTerm:
        return next(term for term in self.net.terms if isinstance(term, ActionTerm))

    def _asked(self) -> dict[str, Array]:
        return {signal.name: signal.start(self.asked[signal.name]) for signal in self.signals}


@struct.dataclass
class Stepping(Sequencer):
    """The modes cache and recurrent: the model's step view."""

    def context(self, num: int, columns: Columns) -> PyTree:
        return self.net.model.initialize_carry((num,))

    def predict(self, context: PyTree, columns: Columns, t: Array, first: Array) -> tuple[PyTree, Outs]:
        return self.net.act(self.variables, context, columns, first)

    def follow(self, context: PyTree, columns: Columns, t: Array) -> PyTree:
        return self.net.observe(self.variables, context, columns)


@struct.dataclass
class Rereading(Sequencer):
    """The mode window: the columns of the last `window` steps, the oldest first, through the parallel view.

    Until an episode has that many steps, what is behind the present one is stale: the model is causal.
    """

    window: int = struct.field(pytree_node=False, default=1)

    def context(self, num: int, columns: Columns) -> Columns:
        return jax.tree.map(lambda x: jnp.zeros((self.window, *x.shape), x.dtype), columns)

    def predict(self, context: Columns, columns: Columns, t: Array, first: Array) -> tuple[Columns, Outs]:
        full = t >= self.window
        older = jax.tree.map(lambda x: jnp.where(_rows(full, x[0]), jnp.roll(x, -1, axis=0), x), context)
        context = self._put(older, columns, t)
        return context, self.read(context, t)

    def read(self, context: Columns, t: Array) -> Outs:
        """Predictions at the present step."""
        outs = self.net.parallel(self.variables, context, self._opens(t))
        return {name: x[self._place(t), jnp.arange(t.shape[0])] for name, x in outs.items()}

    def follow(self, context: Columns, columns: Columns, t: Array) -> Columns:
        return self._put(context, columns, t)

    def _opens(self, t: Array) -> Array:
        """Resets of the window, [W, B]: its first step. Not a constant, whose masks the compiler would work out."""
        return (jnp.arange(self.window)[:, None] == 0) & (t >= 0)

    def _place(self, t: Array) -> Array:
        return jnp.minimum(t, self.window - 1)

    def _put(self, context: Columns, columns: Columns, t: Array) -> Columns:
        rows = jnp.arange(t.shape[0])
        return jax.tree.map(lambda x, new: x.at[self._place(t), rows].set(new.astype(x.dtype)), context, columns)


def _rows(flags: Array, x: Array) -> Array:
    return flags.reshape(-1, *[1] * (x.ndim - 1))


def make_policy(
    net: TokenNet,
    signals: tuple[Signal, ...],
    variables: PyTree,
    asked: dict[str, Array],
    *,
    mode: Mode,
    window: int,
    greedy: bool = True,
) -> Sequencer:
    """The policy of a trained network in the mode that it was trained for."""
    if mode == "window":
        return Rereading(net, signals, variables, asked, greedy, window)
    return Stepping(net, signals, variables, asked, greedy)


def key_context(model: SequenceModel) -> int | None:
    """Tokens that every layer of attention sees back, the present one included; None for a model without a cache."""
    carry = jax.eval_shape(lambda: model.initialize_carry((1,)))
    nodes = jax.tree.leaves(carry, is_leaf=lambda x: isinstance(x, WindowCache))
    return min((x.keys.shape[-1] for x in nodes if isinstance(x, WindowCache)), default=None)


def check_mode(mode: str, model: SequenceModel, window: int, per_step: int) -> None:
    """ValueError for a mode that the model cannot act in, and for windows that it cannot see over."""
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.")
    context = key_context(model)
    if mode == "recurrent" and context is not None:
        raise ValueError(
            "mode recurrent is for models with a state, and this one keeps keys and values: use mode cache, which "
            "trains on whole episodes, or mode window, which reads the last steps anew."
        )
    if mode == "cache" and context is None:
        raise ValueError("mode cache is for attention, and this model keeps no keys: use mode recurrent, or window.")
    if mode == "window" and context is not None and window * per_step > context:
        raise ValueError(
            f"A window of {window} steps of {per_step} tokens has {window * per_step} tokens, but the model reads "
            f"{context}: give it a context of {window * per_step}, or use a window of {context // per_step} steps."
        )
