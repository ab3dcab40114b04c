"""Importers of brax, craftax, jumanji, navix and pgx; each is skipped where its library is not installed."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_seq.envs import VecEnv, make
from jaxrl_seq.envs.core.checking import check_structure

# Steps of random play within which an episode ends. Craftax takes a minute to compile.
SPECS = [
    pytest.param("craftax:Craftax-Classic-Symbolic-v1,max_steps=6", marks=pytest.mark.slow),
    "brax:inverted_pendulum,backend=generalized,max_steps=20",
    "jumanji:Snake-v1,max_steps=25",
    "navix:Navix-Empty-5x5-v0,max_steps=9",
    "pgx:2048,max_steps=9",
    "pgx:minatar-breakout,max_steps=30",
]
STEPS = 40


@pytest.mark.parametrize("spec", SPECS)
def test_structure_spaces_and_ends(spec: str):
    pytest.importorskip(spec.partition(":")[0])
    env, params = make(spec)
    check_structure(env, params)
    assert env == make(spec)[0] and hash(env) == hash(make(spec)[0])
    assert not any(x.weak_type for x in jax.tree.leaves(jax.eval_shape(env.reset, jax.random.key(0), params)))
    venv, space = VecEnv(env, 2, "select"), env.observation_space()

    def step(state: Any, key: Any) -> Any:
        act_key, step_key = jax.random.split(key)
        action = jax.vmap(env.action_space().sample)(jax.random.split(act_key, 2))
        mask = state.inputs.action_mask
        if mask is not None:
            action = jax.random.categorical(act_key, jnp.where(mask, 0.0, -jnp.inf)).astype(jnp.int32)
        state, outcome = venv.step(step_key, state, action, params)
        legal = jax.vmap(space.contains)(outcome.final.obs) & jax.vmap(space.contains)(state.inputs.obs)
        return state, (legal, outcome.terminated, outcome.truncated, outcome.episode_length, outcome.reward)

    @jax.jit
    def run(key: Any) -> Any:
        first = venv.reset(key, params)
        return jax.vmap(space.contains)(first.inputs.obs), jax.lax.scan(step, first, jax.random.split(key, STEPS))[1]

    opened, (legal, terminated, truncated, length, reward) = jax.device_get(run(jax.random.key(0)))
    assert opened.all() and legal.all() and np.isfinite(reward).all()
    assert (terminated | truncated).any(0).all() and not (terminated & truncated).any()
    assert (length[truncated] == env.horizon).all() and length.max() <= env.horizon


def test_navix_and_pgx_tell_success_and_masks():
    pytest.importorskip("navix")
    env, params = make("navix:Navix-Empty-5x5-v0")
    state, opened = env.reset(jax.random.key(0), params)
    assert not bool(opened.info["success"])
    # From the top left corner, facing east, to the bottom right one: two steps, a turn to the right, two steps.
    for action in (2, 2, 1, 2, 2):
        state, timestep = env.step(jax.random.key(1), state, jnp.int32(action), params)
    assert bool(timestep.terminated) and bool(timestep.info["success"]) and float(timestep.reward) == 1


@pytest.mark.parametrize("library", ["brax", "craftax", "jumanji", "navix", "pgx"])
def test_without_the_library_the_message_says_what_to_install(library: str, monkeypatch: pytest.MonkeyPatch):
    for module in [m for m in sys.modules if m == library or m.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=f"pip install {library}"):
        make(f"{library}:anything")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("pgx:tic_tac_toe", "game of 2 players"),
        ("pgx:2084", "Did you mean '2048'"),
        ("navix:Navix-Empty-5x5", "Did you mean 'Navix-Empty-5x5-v0'"),
        ("jumanji:Snake", "Did you mean 'Snake-v1'"),
        ("brax:antt", "Did you mean 'ant'"),
        ("craftax:Craftax-Symbolic", "Did you mean 'Craftax-Symbolic-v1'"),
        ("pgx:2048,max_steps=0", "max_steps must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(spec: str, message: str):
    pytest.importorskip(spec.partition(":")[0])
    with pytest.raises(ValueError, match=message):
        make(spec)
