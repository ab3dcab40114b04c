"""Decision-Pretrained Transformer (Lee et al. 2023, arXiv:2306.14892): what is best here, given a set of transitions.

The paper puts the query state before the context and reads the whole anew for every query. Here the context is read
once, by any sequence model without positions, and a head combines what it made of it with the query. All queries of a
batch then share one pass over their context, and acting costs one step however long the context is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.agents.distributions import Policy, parameter_dim, to_unit
from jaxrl_seq.agents.encoders import ObservationEncoder
from jaxrl_seq.envs import Discrete, Space
from jaxrl_seq.envs.core.trials import TrialEnv
from jaxrl_seq.incontext.histories import History, require_oracle, widened
from jaxrl_seq.incontext.imitation import imitation_loss
from jaxrl_seq.incontext.policies import Step, View
from jaxrl_seq.models import SequenceModel
from jaxrl_seq.types import Array, Metrics, PyTree


@struct.dataclass
class Transition:
    """What one step shows of the task, [...] each; all zero with `empty` set for the token before a context."""

    obs: PyTree
    action: Array
    reward: Array
    next_obs: PyTree
    done: Array
    """bool: the episode ended, so that `next_obs` belongs to another and is not looked at."""
    empty: Array


class SetReader(nn.Module):
    """Transitions, one after the other, into a summary; a summary and a query into logits."""

    observation_space: Space
    action_space: Space
    model: SequenceModel
    hidden: int = 128

    def setup(self) -> None:
        self.obs = ObservationEncoder(self.observation_space)
        self.token = nn.Dense(self.model.features)
        self.query = nn.Dense(self.hidden)
        self.mix = nn.Dense(self.hidden)
        self.logits = nn.Dense(parameter_dim(self.action_space), kernel_init=nn.initializers.orthogonal(0.01))

    def __call__(self, carry: PyTree, tokens: Transition, reset: Array, query: PyTree) -> tuple[PyTree, Array]:
        """tokens [T, B], reset [T, B], query observations [B, Q] -> carry, logits [T, B, Q, A]."""
        carry, summary = self.model(carry, self._embed(tokens), reset)
        return carry, self.decide(summary[:, :, None], query)

    def read(self, carry: PyTree, token: Transition, reset: Array) -> tuple[PyTree, Array]:
        """token [B], reset [B] -> carry, summary [B, D]."""
        return self.model.step(carry, self._embed(token), reset)

    def decide(self, summary: Array, query: PyTree) -> Array:
        """summary [..., D], query observations [...] (broadcast against each other) -> logits [..., A] float32."""
        hidden = nn.gelu(self.mix(summary) + self.query(self.obs(query)))
        return self.logits(hidden).astype(jnp.float32)

    def _embed(self, token: Transition) -> Array:
        def here(x: Array) -> Array:
            return jnp.where(token.empty[..., None], 0.0, x)

        flags = jnp.stack([token.done, token.empty], axis=-1).astype(jnp.float32)
        after = jnp.where(token.done[..., None], 0.0, self.obs(token.next_obs))
        parts = [self.obs(token.obs), to_unit(self.action_space, token.action), token.reward[..., None], after]
        return nn.silu(self.token(jnp.concatenate([*map(here, parts), flags], axis=-1)))


@struct.dataclass
class Sets:
    """M contexts of T transitions, the empty token first, and Q queries each."""

    tokens: Transition  # [T + 1, M, ...]
    valid: Array  # bool [T + 1, M]: prefixes whose every transition is one
    query: PyTree  # [M, Q, ...]
    optimal: Array  # bool [M, Q, A]


@dataclass(frozen=True)
class DPT:
    """Predict the set of optimal actions in query states, after every prefix of a shuffled context.

    Contexts are `window` transitions of one stream in random order; queries are other states of the same stream, with
    all optimal actions as targets: the paper labels one of them, which caps what can be learnt. `commit`: when acting,
    whether the context grows at every step (bandits) or only when an episode ends.
    """

    trial: TrialEnv
    model: SequenceModel
    window: int = 100
    queries: int = 4
    commit: Literal["step", "episode"] = "step"
    name: str = "dpt"

    def __post_init__(self) -> None:
        require_oracle(self.trial.env)
        if min(self.window, self.queries) < 1:
            raise ValueError(f"dpt: window and queries must be at least 1, got {self.window} and {self.queries}.")

    @property
    def agent(self) -> SetReader:
        env = self.trial.env
        return SetReader(env.observation_space(), env.action_space(), self.model)

    def check(self, history: Any) -> None:
        if self.window > history.length:
            raise ValueError(
                f"dpt: contexts of {self.window} transitions do not fit into histories of {history.length} steps."
            )
        if history.optimal is None:
            raise ValueError("dpt: these histories have no optimal actions; record them with label=True.")
        if history.action_mask is not None:
            raise ValueError("dpt: streams differ in their actions, and a head has a fixed number; use headless-ad.")

    def init(self, key: Array) -> PyTree:
        token = self._empty(1)
        query = jax.tree.map(lambda x: x[:, None], token.obs)
        tokens = jax.tree.map(lambda x: x[None], token)
        return self.agent.init(key, self.model.initialize_carry((1,)), tokens, tokens.empty, query)

    def sequences(self, key: Array, history: History, num: int) -> Sets:
        stream_key, set_key, query_key = jax.random.split(key, 3)
        stream = jax.random.randint(stream_key, (num,), 0, history.streams)
        steps = jnp.argsort(jax.random.bits(set_key, (history.length, num)), axis=0)[: self.window]
        following = jnp.minimum(steps + 1, history.length - 1)
        done = history.done[steps, stream] | (steps + 1 >= history.length)

        def rows(tree: PyTree, steps: Array) -> PyTree:
            return widened(jax.tree.map(lambda x: x[steps, stream], tree))

        tokens = Transition(
            obs=rows(history.obs, steps),
            action=rows(history.action, steps),
            reward=rows(history.reward, steps),
            next_obs=rows(history.obs, following),
            done=done,
            empty=jnp.zeros_like(done),
        )
        begin = jax.tree.map(lambda x: x[None], self._empty(num))
        asked = jax.random.randint(query_key, (self.queries, num), 0, history.length)
        assert history.optimal is not None
        query, optimal = jax.tree.map(
            lambda x: jnp.swapaxes(x, 0, 1), (rows(history.obs, asked), history.optimal[asked, stream])
        )
        valid = jnp.concatenate([jnp.ones((1, num), bool), history.valid[steps, stream]])
        return Sets(
            tokens=jax.tree.map(lambda *x: jnp.concatenate(x), begin, tokens),
            valid=jnp.cumprod(valid, axis=0).astype(bool),
            query=query,
            optimal=optimal,
        )

    def loss(self, params: PyTree, batch: Sets) -> tuple[Array, Metrics]:
        """Cross-entropy against the uniform distribution over the optimal actions, a prefix and query, in nats."""
        num = batch.valid.shape[1]
        reset = jnp.zeros_like(batch.valid).at[0].set(True)
        carry = self.model.initialize_carry((num,))
        _, logits = cast(Any, self.agent.apply(params, carry, batch.tokens, reset, batch.query))
        shape = logits.shape
        optimal = jnp.broadcast_to(batch.optimal, shape)
        valid = jnp.broadcast_to(batch.valid[..., None], shape[:-1])
        return imitation_loss(Policy(self._actions, logits), jnp.zeros(shape[:-1], jnp.int32), optimal, valid)

    def policy(self, params: PyTree, greedy: bool) -> SetPolicy:
        return SetPolicy(self, params, greedy)

    @property
    def _actions(self) -> Discrete:
        space = self.trial.env.action_space()
        assert isinstance(space, Discrete)
        return space

    def _empty(self, num: int) -> Transition:
        """The token before a context, [num]."""
        shapes = jax.eval_shape(lambda: self.trial.env.observation_space().sample(jax.random.key(0)))
        obs = jax.tree.map(lambda x: jnp.zeros((num, *x.shape), x.dtype), shapes)
        no = jnp.zeros(num, bool)
        return Transition(obs, jnp.zeros(num, jnp.int32), jnp.zeros(num, jnp.float32), obs, done=no, empty=~no)


@struct.dataclass
class _Context:
    carry: PyTree
    summary: Array  # [B, D], of everything seen
    shown: Array  # [B, D], of what is acted on


@struct.dataclass
class SetPolicy:
    """A trained `DPT` acting: a `ContextPolicy` whose memory is what it made of its transitions."""

    recipe: DPT = struct.field(pytree_node=False)
    params: PyTree
    greedy: bool = struct.field(pytree_node=False, default=False)

    def init(self, key: Array, num: int) -> _Context:
        carry = self.recipe.model.initialize_carry((num,))
        carry, summary = self._read(carry, self.recipe._empty(num), jnp.ones(num, bool))
        return _Context(carry, summary, summary)

    def act(self, key: Array, memory: _Context, view: View) -> tuple[_Context, Array, Array]:
        logits = self.recipe.agent.apply(self.params, memory.shown, view.obs, method="decide")
        policy = Policy(self.recipe._actions, cast(Array, logits))
        action = policy.mode() if self.greedy else policy.sample(key)
        return memory, action, policy.log_prob(action)

    def observe(self, key: Array, memory: _Context, step: Step) -> _Context:
        no = jnp.zeros_like(step.done)
        token = Transition(step.view.obs, step.action, step.reward, step.after.obs, done=step.done, empty=no)
        carry, summary = self._read(memory.carry, token, no)
        shown = summary
        if self.recipe.commit == "episode":
            shown = jnp.where(step.done[:, None], summary, memory.shown)
        return _Context(carry, summary, shown)

    def _read(self, carry: PyTree, token: Transition, reset: Array) -> tuple[PyTree, Array]:
        return cast(Any, self.recipe.agent.apply(self.params, carry, token, reset, method="read"))
