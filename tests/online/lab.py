"""One learner a model on the ledger probe, its rollouts, and the same steps once more by hand."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.agents.distributions import to_env
from jaxrl_seq.envs.core.vector import Inputs
from jaxrl_seq.online import PPO, PPOHyper, PPOState, Trajectory, rollout
from jaxrl_seq.online.ppo import _with_advantages
from jaxrl_seq.online.rollout import Acting, start_acting

B, T = 8, 16


quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""`jax.jit` for programs that run once: compiles in half the time, to slower machine code of the same operations."""


class Training(NamedTuple):
    """A GRU on the ledger; `rows(state, hyper, n)` is the compiled program of a run, one metric row an update.

    `fresh` is the learner's own start from key 0; `state` is the same with a lively policy.
    """

    learner: PPO
    hyper: PPOHyper
    fresh: PPOState
    state: PPOState
    rows: Any


class Played(NamedTuple):
    """Two rollouts in a row of one model with lively parameters; `trajectory` is the second.

    It starts in the middle of episodes, with memories in use. `replay` is what `Replay` says of it.
    """

    learner: PPO
    params: Any
    start: Acting
    trajectories: tuple[Trajectory, Trajectory]
    sums: tuple[dict, dict]
    replay: dict[str, np.ndarray]

    @property
    def trajectory(self) -> Trajectory:
        return self.trajectories[1]


@functools.partial(quick, static_argnums=0)
def replay(learner: PPO, params: Any, trajectory: Trajectory, end: Acting) -> dict[str, Any]:
    """The trajectory once more, by hand: steps with resets, the ledger's own observations, and the parallel view."""
    agent: Any = learner.agent
    t = trajectory

    def step(carry: Any, now: Any) -> Any:
        inputs, action, reward = now
        carry, decision = agent.apply(params, carry, inputs, inputs.first, method="step")
        after = Inputs(
            obs=inputs.obs + jnp.array([0.0, 1.0]),  # the ledger's clock moves, its secret stays
            prev_action=to_env(agent.action_space, action),
            prev_reward=reward,
            first=jnp.zeros_like(inputs.first),
        )
        _, beyond = agent.apply(params, carry, after, after.first, method="step")
        return carry, (decision.value, agent.policy(decision, inputs).log_prob(action), beyond.value)

    carry, (value, log_prob, beyond) = jax.lax.scan(step, t.carry, (t.inputs, t.action, t.reward))
    last = agent.apply(params, carry, end.env.inputs, end.env.inputs.first, method="step")[1].value
    _, parallel = agent.apply(params, t.carry, t.inputs, t.inputs.first)
    again = agent.policy(parallel, t.inputs).log_prob(t.action)
    _, metrics = learner._loss(params, _with_advantages(t, PPOHyper()), PPOHyper())
    return {
        "value": value,
        "log_prob": log_prob,
        "beyond": beyond,
        "last": last,
        "ratio": jnp.exp(again - t.log_prob),
        "ratio_error": metrics["ratio_error"],
        "entropy": metrics["entropy"],
    }


def one_rollout(learner: PPO, params: Any, acting: Acting, key: Any) -> Any:
    """(where acting stands, (trajectory, sums)) of one rollout."""
    env_params = learner.env.env.default_params()
    return rollout(learner.env, learner.agent, params, acting, key, env_params, learner.num_steps)


def fresh_acting(learner: PPO, key: Any) -> Acting:
    """All environments freshly reset."""
    return start_acting(learner.env, learner.agent, key, learner.env.env.default_params())


run = quick(one_rollout, static_argnums=0)  # compiled once for equal learners
open_all = quick(fresh_acting, static_argnums=0)


def play(learner: PPO, params: Any) -> Played:
    start = open_all(learner, jax.random.key(0))
    middle, (first, sums) = run(learner, params, start, jax.random.key(1))
    end, (second, more) = run(learner, params, middle, jax.random.key(2))
    again = jax.tree.map(np.asarray, replay(learner, params, second, end))
    return Played(learner, params, start, (first, second), (sums, more), again)
