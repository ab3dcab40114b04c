"""Compiled once a session: a learner on the ledger probe, and the rollouts of every model with their replays."""

from __future__ import annotations

import jax
import pytest
from lab import B, Played, T, Training, play
from probes import Ledger

from jaxrl_seq.envs import VecEnv
from jaxrl_seq.online import PPOHyper, make_ppo
from jaxrl_seq.run.programs import update_rows
from tests.kinds import every_model


@pytest.fixture(scope="session")
def training(small_model, random_params) -> Training:
    env = VecEnv(Ledger(), B, "select")
    learner = make_ppo(env, small_model("gru"), num_steps=T, epochs=2, minibatches=2)
    hyper = PPOHyper(env_params=Ledger().default_params())
    fresh = jax.jit(learner.init)(jax.random.key(0), hyper)
    state = fresh.replace(params=random_params(learner.agent, env.env))
    return Training(learner, hyper, fresh, state, jax.jit(update_rows(learner, 1)))


@pytest.fixture(scope="session", params=every_model())
def played(request, small_model, random_params) -> Played:
    env = VecEnv(Ledger(), B, "select")
    learner = make_ppo(env, small_model(request.param), num_steps=T)
    return play(learner, random_params(learner.agent, env.env))
