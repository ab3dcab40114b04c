"""Beam search through a model of trajectories: to act, look for a continuation that pays, and take its first action.

A plan grows step by step: `expand` actions are tried behind each of `beam` plans, the model says what they pay and what
will be seen, and the plans with the highest predicted return go on. Nothing but a policy that imitates is left of it
with one plan of one step and one action.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.agents.distributions import MASKED_LOGIT
from jaxrl_seq.envs.core.vector import Inputs, Outcome
from jaxrl_seq.offline.vocabulary import Codebook, Vocabulary
from jaxrl_seq.ops import take_envs
from jaxrl_seq.types import Array, PyTree


@dataclass(frozen=True)
class Search:
    """How widely and how far is planned. Raises ValueError for sizes that make no search."""

    beam: int = 32
    """Plans that go on after each step."""
    expand: int = 2
    """Actions that are tried behind each of them."""
    horizon: int = 5
    """H, steps of a plan."""
    nucleus: float = 0.6
    """Words of actions are drawn from the likeliest that together have this probability; 0: the likeliest alone."""

    def __post_init__(self) -> None:
        for name in ("beam", "expand", "horizon"):
            if getattr(self, name) < 1:
                raise ValueError(f"A search needs {name} of at least 1, got {getattr(self, name)}.")
        if not 0 <= self.nucleus <= 1:
            raise ValueError(f"nucleus must be in [0, 1], got {self.nucleus}.")


@struct.dataclass
class Reading:
    """Of B episodes in progress."""

    past: Array
    """int32 [past, P, B]: classes of the last steps, the latest last."""
    t: Array
    """int32 [B]: steps taken in the episode."""
    obs: Array
    """int32 [N, B]: classes of what is seen."""


@struct.dataclass
class Plans:
    """R rows, the plans of an episode one after the other."""

    carry: PyTree
    hidden: Array
    """[R, D]: what the next word is predicted from."""
    paid: Array
    """float32 [R]: discounted rewards so far."""
    worth: Array
    """float32 [R]: those and the discounted value behind them."""
    first: Array
    """int32 [R, M]: classes of the first action."""


@struct.dataclass
class Planner:
    """A policy (see `offline.policy`) that plans at every step. Rewards and values count by their expectations; the
    words that a plan goes on with are the likeliest ones, but for its actions, which are drawn."""

    net: Any = struct.field(pytree_node=False)
    vocabulary: Vocabulary = struct.field(pytree_node=False)
    search: Search = struct.field(pytree_node=False)
    past: int = struct.field(pytree_node=False)
    """Steps that are read before the present one."""
    gamma: float = struct.field(pytree_node=False)
    variables: PyTree

    @property
    def book(self) -> Codebook:
        return self.variables["stats"]

    def init(self, inputs: Inputs) -> Reading:
        num, words = inputs.first.shape[0], self.vocabulary
        past = jnp.zeros((self.past, words.places, num), jnp.int32)
        return Reading(past, jnp.zeros(num, jnp.int32), jnp.zeros((words.observed, num), jnp.int32))

    def act(self, key: Array, memory: Reading, inputs: Inputs) -> tuple[Reading, Any]:
        """The key is consumed."""
        seen = self.book.classes(self.vocabulary.observation(inputs.obs))
        memory = Reading(memory.past, jnp.where(inputs.first, 0, memory.t), seen.T)
        plans = self.plan(key, memory)
        worth = plans.worth.reshape(seen.shape[0], -1)
        best = jnp.arange(worth.size, step=worth.shape[1]) + jnp.argmax(worth, axis=1)
        return memory, self.vocabulary.action(self.book.numbers(plans.first[best], self.vocabulary.observed))

    def observe(self, memory: Reading, action: Any, outcome: Outcome) -> Reading:
        numbers = self.vocabulary.behaviour(action, outcome.reward)
        now = jnp.concatenate([memory.obs, self.book.classes(numbers, self.vocabulary.observed).T])
        return Reading(jnp.concatenate([memory.past, now[None]])[1:], memory.t + 1, memory.obs)

    # --- the search ---------------------------------------------------------------------------------------------------
    def plan(self, key: Array, memory: Reading) -> Plans:
        """Finished plans, `beam` for every episode. The key is consumed."""
        keys = jax.random.split(key, self.search.horizon)
        beam, expand = self.search.beam, self.search.expand
        first = self._grow(keys[0], self._read(memory), jnp.float32(1.0), 1, beam * expand, opening=True)

        def further(plans: Plans, now: tuple[Array, Array]) -> tuple[Plans, None]:
            key, discount = now
            return self._grow(key, self._say(plans, 0, self.vocabulary.observed), discount, beam, expand), None

        discounts = jnp.float32(self.gamma) ** jnp.arange(1, self.search.horizon)
        return jax.lax.scan(further, first, (keys[1:], discounts))[0]

    def _read(self, memory: Reading) -> Plans:
        """One empty plan for every episode, behind what it has seen."""
        num, known = memory.t.shape[0], jnp.minimum(memory.t, self.past)
        carry = self.net.model.initialize_carry((num,))
        params = {"params": self.variables["params"]}
        if self.past:  # what is older than the episode is forgotten where that begins
            opens = jnp.arange(self.past)[:, None] == self.past - known
            carry, _ = self.net.apply(params, carry, memory.past, opens)

        def read(carry: PyTree, now: tuple[Array, Array]) -> tuple[PyTree, Array]:
            place, classes = now
            return self.net.apply(params, carry, place, classes, (known == 0) & (place == 0), method="step")

        places = jnp.arange(self.vocabulary.observed)
        carry, hidden = jax.lax.scan(read, carry, (places, memory.obs))
        words = self.vocabulary.acted.stop - self.vocabulary.observed
        return Plans(carry, hidden[-1], jnp.zeros(num), jnp.zeros(num), jnp.zeros((num, words), jnp.int32))

    def _grow(self, key: Array, plans: Plans, discount: Array, many: int, expand: int, opening: bool = False) -> Plans:
        """One step more, of the `many` plans of each episode: the `beam` best of all with `expand` actions each."""
        acted, reward = self.vocabulary.acted, self.vocabulary.places - 1
        word_key, key = jax.random.split(key)
        logits = self._likely(self._logits(plans, acted.start))
        words, possible = _tries(word_key, logits, expand, alone=acted.stop - acted.start == 1)
        rows, expand = plans.paid.shape[0], words.shape[1]
        plans = self._hear(take_envs(plans, jnp.repeat(jnp.arange(rows), expand)), acted.start, words.reshape(-1))

        def draw(plans: Plans, now: tuple[Array, Array]) -> tuple[Plans, Array]:
            key, place = now
            word = jax.random.categorical(key, self._likely(self._logits(plans, place))).astype(jnp.int32)
            return self._hear(plans, place, word), word

        places = jnp.arange(acted.start + 1, acted.stop)
        plans, others = jax.lax.scan(draw, plans, (jax.random.split(key, len(places)), places))
        action = jnp.concatenate([words.reshape(1, -1), others]).T

        paid = jnp.where(possible.reshape(-1), plans.paid + discount * self._expected(plans, reward), -jnp.inf)
        plans = self._say(plans, reward, reward + 1)
        worth = paid + discount * self.gamma * self._expected(plans, reward + 1)
        plans = replace(plans, paid=paid, worth=worth, first=action if opening else plans.first)
        return _best(plans, many * expand, self.search.beam)

    def _say(self, plans: Plans, start: int, stop: int) -> Plans:
        """The likeliest words of the places start .. stop - 1."""

        def say(plans: Plans, place: Array) -> tuple[Plans, None]:
            return self._hear(plans, place, jnp.argmax(self._logits(plans, place), axis=-1).astype(jnp.int32)), None

        return jax.lax.scan(say, plans, jnp.arange(start, stop))[0]

    def _hear(self, plans: Plans, place: Array | int, words: Array) -> Plans:
        params, never = {"params": self.variables["params"]}, jnp.zeros(words.shape, bool)
        carry, hidden = self.net.apply(params, plans.carry, place, words, never, method="step")
        return replace(plans, carry=carry, hidden=hidden)

    def _logits(self, plans: Plans, place: Array | int) -> Array:
        """[R, K]: of the next word, which is of this place."""
        logits = self.net.apply({"params": self.variables["params"]}, place, plans.hidden, method="word")
        return self.book.possible(logits, place)

    def _expected(self, plans: Plans, place: int) -> Array:
        """[R]: the mean of the number that comes next."""
        return jnp.sum(jax.nn.softmax(self._logits(plans, place)) * self.book.centres[place], axis=-1)

    def _likely(self, logits: Array) -> Array:
        """Without what is not in the nucleus."""
        ordered = -jnp.sort(-jax.nn.softmax(logits), axis=-1)
        before = jnp.cumsum(ordered, axis=-1) - ordered
        kept = jnp.maximum(jnp.sum(before < self.search.nucleus, axis=-1), 1)
        least = jnp.take_along_axis(-jnp.sort(-logits, axis=-1), kept[..., None] - 1, axis=-1)
        return jnp.where(logits >= least, logits, MASKED_LOGIT)


def _tries(key: Array, logits: Array, number: int, alone: bool) -> tuple[Array, Array]:
    """(words [R, E] drawn by logits [R, K], which of them count). E is `number` at most: a word that is an action
    `alone` is tried once, since the same again would be the same plan. The key is consumed."""
    rows, classes = logits.shape
    if not alone:
        noise = jax.random.gumbel(key, (rows, number, classes))
        words = jnp.argmax(logits[:, None] + noise, axis=-1)
        return words.astype(jnp.int32), jnp.ones(words.shape, bool)
    drawn, words = jax.lax.top_k(logits + jax.random.gumbel(key, logits.shape), min(number, classes))
    return words, drawn > MASKED_LOGIT / 2


def _best(plans: Plans, per_episode: int, beam: int) -> Plans:
    """The plans of each episode that are worth most, `beam` of them; where there are fewer, plans worth nothing."""
    worth = plans.worth.reshape(-1, per_episode)
    worth = jnp.pad(worth, ((0, 0), (0, max(beam - per_episode, 0))), constant_values=-jnp.inf)
    top, index = jax.lax.top_k(worth, beam)
    rows = jnp.arange(worth.shape[0])[:, None] * per_episode + jnp.minimum(index, per_episode - 1)
    taken = take_envs(plans, rows.reshape(-1))
    return replace(taken, paid=jnp.where(top.reshape(-1) > -jnp.inf, taken.paid, -jnp.inf), worth=top.reshape(-1))
