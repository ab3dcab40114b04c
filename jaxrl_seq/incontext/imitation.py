"""Next-action prediction across episodes: Algorithm Distillation (Laskin et al. 2022, arXiv:2210.14215) and its kin.

AD         time order, the source's own action, histories of an RL algorithm, every k-th episode
AD^eps     the same on histories of a demonstrator whose noise fades (Zisman et al. 2024, arXiv:2312.12275)
CEC        episodes ordered by skill (Shi et al. 2023, arXiv:2310.08549): the same again; `order` gives the controls
TaDM, DPT  optimal actions as targets (Lin et al. 2024, arXiv:2310.08566; see `dpt` for sets as contexts)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.agents.actor_critic import example_inputs
from jaxrl_seq.agents.distributions import Policy
from jaxrl_seq.envs.core.trials import TrialEnv
from jaxrl_seq.envs.core.vector import Inputs
from jaxrl_seq.incontext.histories import History, widened
from jaxrl_seq.incontext.policies import AgentPolicy, Deprived
from jaxrl_seq.types import Array, Metrics, PyTree

Order = Literal["time", "shuffled", "single"]


@struct.dataclass
class Window:
    """M pieces of histories, [T, M, ...] each."""

    inputs: Inputs
    action: Array
    """int32, what the source did."""
    optimal: Array | None
    valid: Array


@dataclass(frozen=True)
class Imitation:
    """Predict at every step what the source did next (`target` "action"), or what is optimal ("optimal").

    A window is `window` steps of one stream: in time order from any step on; or of whole episodes in random order
    ("shuffled"), or forgetting at every episode ("single"), which are controls. The agent is that of PPO, so any
    sequence model will do; its value head is not used.
    """

    trial: TrialEnv
    agent: ActorCritic
    window: int = 160
    target: Literal["action", "optimal"] = "action"
    order: Order = "time"
    name: str = "ad"

    def check(self, history: Any) -> None:
        if not 1 <= self.window <= history.length:
            raise ValueError(
                f"{self.name}: windows of {self.window} steps do not fit into histories of {history.length}: "
                "choose a shorter window, or record longer histories."
            )
        horizon = self.trial.env.horizon
        if self.order == "shuffled" and (history.length % horizon or self.window % horizon):
            raise ValueError(
                f"{self.name}: windows of {self.window} and histories of {history.length} steps do not consist of "
                f"whole episodes of {horizon}."
            )
        if self.target == "optimal" and history.optimal is None:
            raise ValueError(f"{self.name}: these histories have no optimal actions; record them with label=True.")
        if history.action_mask is not None:
            raise ValueError(
                f"{self.name}: streams differ in their actions, and a head has a fixed number; use headless-ad."
            )

    def init(self, key: Array) -> PyTree:
        inputs = example_inputs(self.trial, (1, 1))
        return self.agent.init(key, self.agent.initialize_carry((1,)), inputs, inputs.first)

    def sequences(self, key: Array, history: History, num: int) -> Window:
        stream_key, step_key = jax.random.split(key)
        stream = jax.random.randint(stream_key, (num,), 0, history.streams)
        return take_window(history, self._steps(step_key, history, num), stream, self.order == "single")

    def _steps(self, key: Array, history: History, num: int) -> Array:
        """int32 [T, M]: which steps of its stream make a window."""
        if self.order == "shuffled":
            horizon = self.trial.env.horizon
            count = history.length // horizon
            chosen = jnp.argsort(jax.random.bits(key, (count, num)), axis=0)[: self.window // horizon]
            return (chosen[:, None] * horizon + jnp.arange(horizon)[:, None]).reshape(self.window, num)
        last = history.length - self.window
        # half a window beyond either end: the beginning, where every trial starts, is seen as often as the rest
        start = jax.random.randint(key, (num,), -self.window // 2, last + self.window // 2 + 1)
        return jnp.clip(start, 0, last) + jnp.arange(self.window)[:, None]

    def loss(self, params: PyTree, batch: Window) -> tuple[Array, Metrics]:
        """Cross-entropy a valid step, in nats; against the uniform distribution over the optimal actions."""
        num = batch.valid.shape[1]
        carry = self.agent.initialize_carry((num,))
        _, decision = self.agent.parallel(params, carry, batch.inputs, batch.inputs.first)
        policy = self.agent.policy(decision, batch.inputs)
        optimal = batch.optimal if self.target == "optimal" else None
        return imitation_loss(policy, batch.action, optimal, batch.valid)

    def policy(self, params: PyTree, greedy: bool) -> AgentPolicy | Deprived:
        policy = AgentPolicy(self.agent, params, greedy)
        return Deprived(policy, forgets=True) if self.order == "single" else policy


def take_window(history: History, steps: Array, stream: Array, single: bool = False) -> Window:
    """Steps [T, M] of streams [M], as a network will meet them: what came before a window is forgotten."""

    def rows(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: x[steps, stream], tree)

    action, reward, opens = widened(rows(history.action)), rows(history.reward), rows(history.first)
    first = jnp.zeros_like(opens).at[0].set(True)

    def previous(x: Array) -> Array:
        return jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]])

    inputs = Inputs(
        obs={"obs": widened(rows(history.obs)), "first_inner": opens[..., None].astype(jnp.float32)},
        prev_action=previous(action),
        prev_reward=previous(reward),
        first=first | opens if single else first,
    )
    return Window(inputs, action, rows(history.optimal), rows(history.valid))


def imitation_loss(policy: Policy, action: Array, optimal: Array | None, valid: Array) -> tuple[Array, Metrics]:
    """Cross-entropy a valid step, of `action` [T, M] or of the uniform distribution over `optimal` [T, M, A].

    `agreement`: how often the most likely action is the target, or among the targets.
    """
    mode = policy.mode()
    if optimal is None:
        error, right = -policy.log_prob(action), mode == action
    else:
        target = optimal / jnp.sum(optimal, axis=-1, keepdims=True)
        error = -jnp.sum(target * jax.nn.log_softmax(policy.params), axis=-1)
        right = jnp.take_along_axis(optimal, mode[..., None], axis=-1)[..., 0]
    count = jnp.maximum(jnp.sum(valid), 1)
    agreement = jnp.sum(right & valid) / count
    return jnp.sum(jnp.where(valid, error, 0.0)) / count, {"agreement": agreement.astype(jnp.float32)}
