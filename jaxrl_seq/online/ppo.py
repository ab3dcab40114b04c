"""Proximal policy optimisation with memory (Schulman et al. 2017; recurrent, with resets inside the sequences)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.agents.actor_critic import example_inputs
from jaxrl_seq.envs import Env, TrialEnv, VecEnv
from jaxrl_seq.models import SequenceModel
from jaxrl_seq.online.evaluate import Episodes, Recording, evaluate, record, reference_returns
from jaxrl_seq.online.losses import approximate_kl, clipped_surrogate, clipped_value_loss
from jaxrl_seq.online.optimiser import init_optimiser, optimiser_step
from jaxrl_seq.online.returns import generalized_advantage, next_values
from jaxrl_seq.online.rollout import Acting, Trajectory, rollout, start_acting
from jaxrl_seq.ops.segments import take_envs
from jaxrl_seq.types import Array, Metrics, PyTree


@struct.dataclass
class PPOHyper:
    """The numbers of PPO that are traced: a sweep over any of them is one compilation."""

    lr: float = 1e-3
    """Adam's learning rate."""
    gamma: float = 0.99
    """Discount per step."""
    gae_lambda: float = 0.95
    """Decay of advantage estimates over later steps (GAE's lambda)."""
    clip: float = 0.2
    """How far the probability ratio may move from 1 before it stops paying."""
    value_clip: float = 0.0
    """The same for the value function, in units of return; 0 turns it off."""
    value_coef: float = 0.5
    """Weight of the value loss, which grows with the square of returns: where they are tens, 0.01 suits the policy."""
    entropy_coef: float = 0.05
    """Weight of the entropy bonus; memory tasks pay late, so a policy must not settle early."""
    max_grad_norm: float = 0.5
    """Gradients longer than this (global norm) are scaled down to it."""
    anneal_updates: float = 0.0
    """Updates over which lr falls linearly to zero; 0 keeps it constant."""
    env_params: object = None
    """Parameters of the environment; None for its defaults."""


@struct.dataclass
class PPOState:
    """Everything that changes between updates. `params` are the network's, `key` never changes."""

    params: PyTree
    opt_state: PyTree
    acting: Acting
    key: Array
    update: Array
    """int32 []: updates done. Keys are folded from it, so that a resumed run needs no other clock."""


@struct.dataclass
class Batch:
    """What the epochs read: a rollout with its advantages and value targets [T, B]."""

    trajectory: Trajectory
    advantage: Array
    target: Array


@dataclass(frozen=True)
class PPO:
    """One update = a rollout of `num_steps` in every environment, then `epochs` passes over it in minibatches.

    A minibatch is a set of whole environments in time order, so the memory is trained by the parallel view from the
    carry that the rollout started with, through every reset inside.
    """

    env: VecEnv
    agent: ActorCritic
    num_steps: int = 128
    epochs: int = 4
    minibatches: int = 4
    eval_env: Env | None = None
    """What `evaluate` plays, such as trials of held-out tasks; None for the environment of training."""
    greedy: bool | None = None
    """Whether evaluations and recordings take the most likely action; None: yes, but not in trials, where exploring is
    part of the policy."""

    def __post_init__(self) -> None:
        for field in ("num_steps", "epochs", "minibatches"):
            if getattr(self, field) < 1:
                raise ValueError(f"PPO: {field} must be at least 1, got {getattr(self, field)}.")
        envs, parts = self.env.num_envs, self.minibatches
        if envs % parts:
            below = envs // parts * parts
            nearest = " or ".join(str(n) for n in (below, below + parts) if n)
            divisors = [d for d in range(1, envs + 1) if envs % d == 0]
            raise ValueError(
                f"PPO: num_envs ({envs}) is not divisible by minibatches ({parts}). "
                f"Use num_envs {nearest}, or minibatches {min(divisors, key=lambda d: abs(d - parts))}."
            )
        played, learnt = (
            (e.observation_space(), e.action_space()) for e in (self.eval_env or self.env.env, self.env.env)
        )
        if played != learnt:
            raise ValueError(f"PPO: eval_env has spaces {played}, but the agent learns with {learnt}.")

    @property
    def steps_per_update(self) -> int:
        return self.num_steps * self.env.num_envs

    def init(self, key: Array, hyper: PPOHyper) -> PPOState:
        """Fresh parameters, environments and memory. The key is consumed."""
        inputs = example_inputs(self.env.env, (1, 1))
        carry = self.agent.initialize_carry((1,))
        init_key, reset_key, key = jax.random.split(key, 3)
        params = self.agent.init(init_key, carry, inputs, inputs.first)
        acting = start_acting(self.env, self.agent, reset_key, self._env_params(hyper))
        return PPOState(
            params=params,
            opt_state=init_optimiser(params),
            acting=acting,
            key=key,
            update=jnp.zeros((), jnp.int32),
        )

    def update(self, state: PPOState, hyper: PPOHyper) -> tuple[PPOState, Metrics]:
        """One rollout and its epochs. Pure; vmap it over (state, hyper) freely."""
        act_key, shuffle_key = jax.random.split(jax.random.fold_in(state.key, state.update))
        acting, (trajectory, episodes) = rollout(
            self.env,
            self.agent,
            state.params,
            state.acting,
            act_key,
            self._env_params(hyper),
            self.num_steps,
        )
        batch = _with_advantages(trajectory, hyper)
        lr = _learning_rate(state.update, hyper)
        (params, opt_state), losses = self._optimise(shuffle_key, state.params, state.opt_state, batch, hyper, lr)
        state = replace(state, params=params, opt_state=opt_state, acting=acting, update=state.update + 1)
        return state, episodes | losses | {"explained_variance": _explained_variance(batch), "lr": lr}

    # --- the epochs --------------------------------------------------------------------------------------------------
    def _optimise(
        self, key: Array, params: PyTree, opt_state: PyTree, batch: Batch, hyper: PPOHyper, lr: Array
    ) -> tuple[tuple[PyTree, PyTree], Metrics]:
        def one_minibatch(carry: tuple[PyTree, PyTree], envs: Array) -> tuple[tuple[PyTree, PyTree], Metrics]:
            params, opt_state = carry
            part = _take_batch(batch, envs)
            grads, metrics = jax.grad(self._loss, has_aux=True)(params, part, hyper)
            params, opt_state, steps = optimiser_step(params, opt_state, grads, lr, hyper.max_grad_norm)
            return (params, opt_state), metrics | steps

        # Random ranks are a random order: one draw and one sort for all epochs.
        order = jnp.argsort(jax.random.bits(key, (self.epochs, self.env.num_envs)), axis=-1)
        (params, opt_state), metrics = jax.lax.scan(
            one_minibatch, (params, opt_state), order.reshape(self.epochs * self.minibatches, -1)
        )
        mean = {name: jnp.mean(value) for name, value in metrics.items()}
        # Before any gradient step both views must agree: this ratio is 1 to rounding, or a model is broken.
        mean["ratio_error"] = metrics["ratio_error"][0]
        mean["skipped"] = jnp.sum(metrics["skipped"])
        return (params, opt_state), mean

    def _loss(self, params: PyTree, batch: Batch, hyper: PPOHyper) -> tuple[Array, Metrics]:
        old = batch.trajectory
        _, decision = self.agent.parallel(params, old.carry, old.inputs, old.inputs.first)
        policy = self.agent.policy(decision, old.inputs)
        log_ratio = policy.log_prob(old.action) - old.log_prob
        ratio = jnp.exp(log_ratio)

        policy_loss = jnp.mean(clipped_surrogate(ratio, batch.advantage, hyper.clip))
        value_loss = jnp.mean(clipped_value_loss(decision.value, old.value, batch.target, hyper.value_clip))
        entropy = jnp.mean(policy.entropy())
        loss = policy_loss + hyper.value_coef * value_loss - hyper.entropy_coef * entropy
        return loss, {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "approx_kl": jnp.mean(approximate_kl(log_ratio)),
            "clip_fraction": jnp.mean(jnp.abs(ratio - 1.0) > hyper.clip),
            "ratio_error": jnp.max(jnp.abs(ratio - 1.0)),
        }

    # --- what a run may ask of a learner -----------------------------------------------------------------------------
    def default_hyper(self) -> PPOHyper:
        return PPOHyper()

    def describe(self) -> dict[str, str]:
        """Names for summaries and reports."""
        model = self.agent.model
        return {"learner": "ppo", "env": self.env.env.name, "model": getattr(model, "label", type(model).__name__)}

    def reference(self, hyper: PPOHyper) -> dict[str, float] | None:
        """Reference returns of the environment, where it has them for these parameters."""
        return reference_returns(self.env.env, hyper.env_params)

    def evaluate(
        self, state: PPOState, hyper: PPOHyper, key: Array, *, episodes: int = 4, greedy: bool | None = None
    ) -> Episodes:
        """`episodes` episodes in each of `num_envs` copies of `eval_env`; see `evaluate`. The key is consumed."""
        params, greedy = self._env_params(hyper), self._is_greedy if greedy is None else greedy
        return evaluate(self._eval_env, self.agent, state.params, key, params, episodes=episodes, greedy=greedy)

    def record(
        self, state: PPOState, hyper: PPOHyper, key: Array, *, num_envs: int = 4, max_steps: int = 200
    ) -> Recording:
        """One episode in `num_envs` environments; see `online.record`. The key is consumed."""
        env, params = VecEnv(self.env.env, num_envs, "none"), self._env_params(hyper)
        return record(env, self.agent, state.params, key, params, max_steps=max_steps, greedy=self._is_greedy)

    @property
    def world(self) -> Env:
        """The environment that `record` shows."""
        return self.env.env

    @property
    def _eval_env(self) -> VecEnv:
        """A pool is sized for rollouts; an evaluation resets as needed."""
        policy = "select" if self.env.reset_policy == "pool" else self.env.reset_policy
        return VecEnv(self.eval_env or self.env.env, self.env.num_envs, policy)

    @property
    def _is_greedy(self) -> bool:
        return not isinstance(self.env.env, TrialEnv) if self.greedy is None else self.greedy

    def _env_params(self, hyper: PPOHyper) -> PyTree:
        return self.env.env.default_params() if hyper.env_params is None else hyper.env_params


def make_ppo(env: VecEnv, model: SequenceModel, **options: Any) -> PPO:
    """PPO for `env` with `model` as its memory; `options` are the fields of `PPO`."""
    return PPO(env, ActorCritic.for_env(env.env, model), **options)


def _learning_rate(update: Array, hyper: PPOHyper) -> Array:
    left = 1.0 - update / jnp.maximum(hyper.anneal_updates, 1.0)
    return hyper.lr * jnp.where(jnp.asarray(hyper.anneal_updates) > 0, jnp.maximum(left, 0.0), 1.0)


def _with_advantages(trajectory: Trajectory, hyper: PPOHyper) -> Batch:
    """Advantages (normalised over the whole batch, so minibatches and sharding cannot change them) and targets."""
    t = trajectory
    following = jax.vmap(next_values, in_axes=(1, 1, 1, 0), out_axes=1)(
        t.value, t.truncated, t.final_value, t.last_value
    )
    advantage = jax.vmap(generalized_advantage, in_axes=(1, 1, 1, 1, 1, None, None), out_axes=1)(
        t.reward, t.value, following, t.terminated, t.truncated, hyper.gamma, hyper.gae_lambda
    )
    normalised = (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)
    return Batch(trajectory=t, advantage=normalised, target=advantage + t.value)


def _take_batch(batch: Batch, envs: Array) -> Batch:
    """The environments `envs` [M] of a batch, whole in time."""
    t = batch.trajectory
    rows = take_envs(replace(batch, trajectory=replace(t, carry=(), last_value=())), envs, axis=1)
    carry, last = take_envs((t.carry, t.last_value), envs, axis=0)
    return replace(rows, trajectory=replace(rows.trajectory, carry=carry, last_value=last))


def _explained_variance(batch: Batch) -> Array:
    """1 - Var(target - value) / Var(target) of the rollout's values; 1 is perfect, 0 is no better than a constant."""
    target = batch.target
    return 1.0 - jnp.var(target - batch.trajectory.value) / jnp.maximum(jnp.var(target), 1e-8)
