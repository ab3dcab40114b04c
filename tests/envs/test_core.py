"""The registry, the structure check and VecEnv's resets."""

from __future__ import annotations

import functools
import importlib.metadata
import sys
import types
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from env_rollouts import assert_same, primitives
from flax import struct

from jaxrl_seq.envs import (
    Box,
    Discrete,
    Env,
    TimeStep,
    VecEnv,
    list_envs,
    make,
    opening,
    register,
    transition,
)
from jaxrl_seq.envs.core import registry
from jaxrl_seq.envs.core.checking import check_structure
from jaxrl_seq.envs.core.vector import VecState, episode_sums
from jaxrl_seq.envs.memory.tmaze import TMaze

Array = jax.Array


# --- an environment whose every episode is recognisable -----------------------------------------------------
@struct.dataclass
class LotteryState:
    ticket: Array  # float32 [], drawn by the reset: no two episodes share it
    length: Array  # int32 [], when this episode ends
    t: Array


@struct.dataclass
class LotteryParams:
    prize: Array
    longest: Array


@dataclass(frozen=True)
class Lottery(Env[LotteryState, LotteryParams]):
    """Episodes of 1 .. longest steps; each step pays `prize`; the observation is (ticket, t)."""

    limit: int = 5
    even: bool = False

    name: ClassVar[str] = "lottery"
    fixed_length: ClassVar[bool] = False

    @property
    def horizon(self) -> int:
        return self.limit

    def default_params(self) -> LotteryParams:
        return LotteryParams(prize=jnp.float32(1.0), longest=jnp.int32(self.limit))

    def reset(self, key: Array, params: LotteryParams) -> tuple[LotteryState, TimeStep]:
        ticket, chance = jax.random.uniform(key, (2,))
        length = jnp.int32(self.limit) if self.even else 1 + (chance * params.longest).astype(jnp.int32)
        state = LotteryState(ticket=ticket, length=length, t=jnp.int32(0))
        return state, opening(self._obs(state), info={"success": jnp.zeros((), bool)})

    def step(
        self, key: Array, state: LotteryState, action: Array, params: LotteryParams
    ) -> tuple[LotteryState, TimeStep]:
        state = replace(state, t=state.t + 1)
        over = state.t >= state.length
        return state, transition(self._obs(state), params.prize, over, info={"success": over & (state.ticket > 0.5)})

    def _obs(self, state: LotteryState) -> Array:
        return jnp.stack([state.ticket, state.t.astype(jnp.float32)])

    def observation_space(self) -> Box:
        return Box((0.0, 0.0), (1.0, self.limit), (2,))

    def action_space(self) -> Discrete:
        return Discrete(3)


def roll(venv: VecEnv, key: Array, params: Any, steps: int) -> tuple[VecState, Any]:
    """(first state, (states, outcomes, key data, actions) of each step, `[steps, ...]`)."""
    reset_key, key = jax.random.split(key)
    first = venv.reset(reset_key, params)

    def step(state: VecState, turn: tuple[Array, Array]) -> tuple[VecState, Any]:
        key, t = turn
        action = (t + jnp.arange(venv.num_envs)) % 3
        new, outcome = venv.step(key, state, action, params)
        return new, (new, outcome, jax.random.key_data(key), action)

    return first, jax.lax.scan(step, first, (jax.random.split(key, steps), jnp.arange(steps)))[1]


def rolled(venv: VecEnv, key: Array, params: Any, steps: int) -> tuple[VecState, Any]:
    """The same compiled, as NumPy arrays."""
    return jax.device_get(jax.jit(lambda key, params: roll(venv, key, params, steps))(key, params))


def at(tree: Any, t: int) -> Any:
    """Index the leaves of a tree of NumPy arrays."""
    return jax.tree.map(lambda x: x[t], tree)


def before(first: Any, later: Any, t: int) -> Any:
    """The state that step t started from."""
    return first if t == 0 else at(later, t - 1)


# --- registry -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("spelt", ["pointmass", "PointMass", "point_mass"])
def test_ids_are_known_without_underscores_and_in_capitals(spelt):
    assert make(spelt)[0].name == "point_mass"


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("tmaz", "Did you mean 'tmaze'"),
        ("tmaze,lenght=3", "Did you mean 'length'"),
        ("repeat_previous-esay", "Did you mean 'easy'"),
        ("gymnaks:CartPole-v1", "Did you mean 'gymnax'"),
        ("gymnax:CartPol-v1", "Did you mean 'CartPole-v1'"),
        ("gymnax:MemoryChain-bsuite,memory_lengt=3", "Did you mean 'memory_length'"),
        ("tmaze,length", "name=value"),
        ("tmaze,penalty=abc", "not a number"),
        ("tmaze,length=abc", "of type int"),
        ("tmaze,length=10.5", "of type int"),
        ("tmaze,active=3", "of type bool"),
        ("gymnax:MemoryChain-bsuite,memory_length=2.5", "whole number"),
    ],
)
def test_mistakes_are_named(spec: str, hint: str):
    with pytest.raises(ValueError, match=hint):
        make(spec)


def test_presets_and_options():
    assert make("repeat_previous-hard")[0] == make("repeat_previous", decks=3, k=64)[0]
    assert make("tmaze-10,active=true")[0] == make("tmaze", length=10, active=True)[0]
    assert make("tmaze,length=10", length=20)[0] == make("tmaze-20")[0], "Python's options win"
    assert float(make("noisy_position_only_cartpole-hard")[1].noise) == pytest.approx(0.3)
    penalty = make("tmaze,penalty=0")[1].penalty
    assert penalty.dtype == jnp.float32 and float(penalty) == 0
    assert list_envs()["repeat_previous"] == ("easy", "medium", "hard")


def test_register(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    register("lottery", Lottery, {"long": {"limit": 50}})
    assert make("lottery-long")[0] == Lottery(limit=50)
    assert float(make("lottery", prize=2)[1].prize) == 2
    register("lottery", Lottery)  # a module that is run again registers its own anew
    with pytest.raises(ValueError, match="taken"):
        register("lottery", TMaze)
    with pytest.raises(ValueError, match="letters"):
        register("my-lottery", Lottery)
    register("made", lambda limit=7: Lottery(limit=limit))
    assert make("made,limit=9")[0] == Lottery(limit=9)


def test_entry_points_of_installed_packages(monkeypatch: pytest.MonkeyPatch):
    module = types.ModuleType("a_users_package")
    cast(Any, module).Lottery = Lottery
    monkeypatch.setitem(sys.modules, "a_users_package", module)
    point = importlib.metadata.EntryPoint("their_lottery", "a_users_package:Lottery", "jaxrl_seq.envs")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point] if group == "jaxrl_seq.envs" else [])
    assert "their_lottery" in list_envs()
    assert make("their_lottery,limit=3")[0] == Lottery(limit=3)


# --- structure ----------------------------------------------------------------------------------------------
def test_check_structure_names_the_leaf():
    class Drifting(Lottery):
        def step(self, key: Array, state: LotteryState, action: Array, params: LotteryParams) -> Any:
            state, timestep = super().step(key, state, action, params)
            return replace(state, t=state.t * 1.0), timestep

    class Forgetful(Lottery):
        def step(self, key: Array, state: LotteryState, action: Array, params: LotteryParams) -> Any:
            state, timestep = super().step(key, state, action, params)
            return state, replace(timestep, info={})

    class Reshaping(Lottery):
        def _obs(self, state: LotteryState) -> Array:
            return super()._obs(state)

        def step(self, key: Array, state: LotteryState, action: Array, params: LotteryParams) -> Any:
            state, timestep = super().step(key, state, action, params)
            return state, replace(timestep, obs=timestep.obs[:1])

    check_structure(Lottery(), Lottery().default_params())
    for env, words in (
        (Drifting(), r"state\.t is float32\[\] but reset makes int32\[\]"),
        (Forgetful(), r"info\['success'\]"),
        (Reshaping(), r"timestep\.obs is float32\[1\] but reset makes float32\[2\]"),
    ):
        with pytest.raises(ValueError, match=words):
            check_structure(env, env.default_params())
        with pytest.raises(ValueError, match=words):
            VecEnv(env, 2).reset(jax.random.key(0), env.default_params())


# --- VecEnv -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("policy", ["sync", "select", "pool", "none"])
def test_each_new_episode_is_an_independent_reset(policy: Any):
    """Steps are the environments' own; who finished gets the reset that the documented key makes."""
    num, env = 6, Lottery()
    params = env.default_params()
    venv = VecEnv(env, num, policy, pool_size=64)
    first, (states, outcomes, keys, actions) = rolled(venv, jax.random.key(0), params, 12)

    @functools.partial(jax.jit, static_argnames="n")
    def reset(key: Array, n: int = num) -> Any:
        return jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(key, n), params)

    @jax.jit
    def step(key: Array, state: Any, action: Array) -> Any:
        return jax.vmap(env.step, in_axes=(0, 0, 0, None))(jax.random.split(key, num), state, action, params)

    start = jax.random.split(jax.random.key(0))[0]
    pooled = None
    if policy == "pool":
        start, pool_key = jax.random.split(start)
        pooled = jax.device_get(reset(pool_key, 64))
    assert_same(first.env, reset(start)[0])

    tickets = 0
    for t in range(12):
        old, new, outcome = before(first, states, t), at(states, t), at(outcomes, t)
        key = jax.random.wrap_key_data(keys[t])
        stepped, timestep = jax.device_get(step(key, old.env, actions[t]))
        fresh = jax.device_get(reset(jax.random.fold_in(key, num)))
        done = timestep.terminated | timestep.truncated
        for i in range(num):
            if policy == "none" or not done[i]:
                expected = at((stepped, timestep), i)
            elif policy == "pool":
                expected, tickets = at(pooled, tickets), tickets + 1
            else:
                expected = at(fresh, i)
            assert_same(at(new.env, i), expected[0])
            assert_same(at(new.inputs.obs, i), expected[1].obs)
        # The outcome is the old episode's, whatever was reset.
        assert_same(outcome.final.obs, timestep.obs)
        assert_same(outcome.final.prev_action, actions[t])
        assert_same((outcome.reward, outcome.terminated), (timestep.reward, timestep.terminated))
        assert int(outcome.overflow) == 0
        opens = new.inputs.first
        assert (opens == (done & (policy != "none"))).all()
        assert (new.inputs.prev_action == np.where(opens, 0, actions[t])).all()
        assert (new.inputs.prev_reward == np.where(opens, 0, 1)).all()
        if policy == "none":
            break  # past its end an episode is undefined
    assert policy == "none" or np.asarray(outcomes.done).sum() > num, "the test saw resets"


@pytest.mark.parametrize(
    ("spec", "actions", "message"),
    [
        ("tmaze", jnp.zeros(4, jnp.int32), r"\(4,\); expected \(3,\)"),
        ("tmaze", jnp.zeros((3, 1), jnp.int32), r"\(3, 1\); expected \(3,\)"),
        ("tmaze", jnp.zeros(3), "whole numbers"),
        ("tmaze", jnp.array([0, 4, 1]), "action 4 of environment 1 is outside of Discrete"),
        ("tmaze", jnp.array([0, 1, -1]), "action -1 of environment 2"),
        ("pendulum", jnp.array([[0.0], [2.5], [1.0]]), "environment 1 is outside of Box"),
        ("pendulum", jnp.array([[0.0], [jnp.nan], [1.0]]), "environment 1 is outside"),
        ("pendulum", jnp.zeros(3), r"expected \(3, 1\)"),
    ],
)
def test_actions_that_are_none_are_refused_in_words(spec: str, actions: Any, message: str):
    env, params = make(spec)
    venv = VecEnv(env, 3, "none")
    state = venv.reset(jax.random.key(0), params)
    with pytest.raises(ValueError, match=message):
        venv.step(jax.random.key(1), state, actions, params)
    if "expected" in message or "whole" in message:  # what types show is seen while tracing
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(venv.step, jax.random.key(1), state, actions, params)


def test_auto_policy():
    assert VecEnv(make("tmaze")[0], 2).reset_policy == "sync"
    assert VecEnv(make("cartpole")[0], 2).reset_policy in ("select", "pool")
    with pytest.raises(ValueError, match="select"):
        VecEnv(Lottery(), 2, cast(Any, "selekt"))
    with pytest.raises(ValueError, match="num_envs"):
        VecEnv(Lottery(), 0)


def test_pool_hands_out_each_reset_once_and_counts_what_it_could_not():
    num, size = 4, 10
    env = Lottery(limit=2)
    params = env.default_params()
    venv = VecEnv(env, num, "pool", pool_size=size)
    _, (states, outcomes, _, _) = rolled(venv, jax.random.key(1), params, 20)
    opened = states.inputs.first.sum(axis=1)
    tickets = states.env.ticket[states.inputs.first]
    assert len(set(tickets[:size].tolist())) == size, "no duplicates before the pool is dry"
    used = np.cumsum(opened)
    expected = np.maximum(used, size) - np.maximum(used - opened, size)
    assert (outcomes.overflow == expected).all() and expected.sum() > 0

    last = at(states, -1)
    refilled = jax.device_get(jax.jit(venv.refill)(jax.random.key(2), last, params))
    assert int(refilled.pool.used) == 0 and int(last.pool.used) == used[-1]
    assert not set(refilled.pool.state.ticket.tolist()) & set(last.pool.state.ticket.tolist())
    assert_same(refilled.env, last.env)
    with pytest.raises(ValueError, match="cannot differ per environment"):
        venv.reset(jax.random.key(0), replace(params, prize=jnp.ones(num)))
    plain = VecEnv(env, num, "select")
    assert plain.refill(jax.random.key(0), replace(last, pool=None), params).pool is None


def test_episode_statistics_are_sums_and_never_nan():
    env = Lottery()
    params = replace(env.default_params(), prize=jnp.float32(0.5))
    venv = VecEnv(env, 5, "select")
    _, (_, outcomes, _, _) = rolled(venv, jax.random.key(3), params, 15)
    done = outcomes.terminated | outcomes.truncated
    sums = jax.device_get(jax.jit(jax.vmap(episode_sums))(outcomes))
    assert all(np.isfinite(v).all() for v in sums.values())
    assert (sums["episodes"] == done.sum(axis=1)).all()

    returns, lengths = np.zeros(5), np.zeros(5)
    for t in range(15):  # the slow twin
        returns, lengths = returns + outcomes.reward[t], lengths + 1
        np.testing.assert_allclose(outcomes.episode_return[t], returns)
        np.testing.assert_array_equal(outcomes.episode_length[t], lengths)
        assert sums["return_sum"][t] == pytest.approx(returns[done[t]].sum())
        assert sums["length_sum"][t] == lengths[done[t]].sum()
        assert sums["success_sum"][t] == outcomes.info["success"][t][done[t]].sum()
        returns, lengths = np.where(done[t], 0, returns), np.where(done[t], 0, lengths)
    no = jnp.zeros(5, bool)
    nothing = replace(at(outcomes, 0), terminated=no, truncated=no)
    assert all(float(v) == 0 for v in episode_sums(nothing).values())


@pytest.mark.parametrize("policy", ["sync", "select"])
def test_parameters_may_differ_per_environment(policy: Any):
    env = Lottery()
    shared = env.default_params()
    params = replace(shared, prize=jnp.array([1.0, 2.0, 3.0]), longest=jnp.array([1, 2, 3], jnp.int32))
    venv = VecEnv(env, 3, policy)
    _, (states, outcomes, _, _) = rolled(venv, jax.random.key(4), params, 12)
    np.testing.assert_array_equal(outcomes.reward, np.tile([1.0, 2.0, 3.0], (12, 1)))
    assert (states.env.length.max(axis=0) == [1, 2, 3]).all()
    with pytest.raises(ValueError, match=r"params\.prize has shape \(2,\)"):
        venv.reset(jax.random.key(0), replace(shared, prize=jnp.ones(2)))
    with pytest.raises(ValueError, match="structure"):
        venv.reset(jax.random.key(0), {"prize": 1.0})


@pytest.mark.parametrize("policy", ["sync", "pool"])
def test_vmapped_seeds_equal_a_loop_over_them(policy: Any):
    env = Lottery()
    params = env.default_params()
    venv = VecEnv(env, 3, policy, pool_size=40)
    keys = jax.random.split(jax.random.key(5), 3)
    alone = jax.jit(lambda key: roll(venv, key, params, 8))
    together = jax.device_get(jax.jit(jax.vmap(lambda key: roll(venv, key, params, 8)))(keys))
    for i in range(3):
        assert_same(at(together, i), jax.device_get(alone(keys[i])))


def test_the_sync_branch_is_real_under_vmap_and_taken_only_when_asked():
    """`cond` survives vmap over seeds; without it every step would pay for a reset."""
    env = Lottery(even=True)
    params = env.default_params()

    def program(policy: Any) -> set[str]:
        venv = VecEnv(env, 3, policy)
        keys = jax.random.split(jax.random.key(0), 2)
        run = jax.vmap(jax.vmap(lambda key: roll(venv, key, params, 4)))
        return set(primitives(jax.make_jaxpr(run)(jnp.stack([keys, keys])).jaxpr))

    assert "cond" in program("sync") and "cond" not in program("select")
    assert not any("callback" in name for name in program("sync"))


def test_plain_python_agrees_with_the_compiled_program():
    env = Lottery(limit=2)
    params = env.default_params()
    venv = VecEnv(env, 2, "sync")

    def two(key: Array) -> Any:
        state = venv.reset(key, params)
        for i in range(2):
            state, outcome = venv.step(jax.random.fold_in(key, i), state, jnp.zeros(2, jnp.int32), params)
        return state, outcome

    with jax.disable_jit():
        plain = two(jax.random.key(6))
    assert_same(jax.jit(two)(jax.random.key(6)), plain, atol=1e-6)


def test_vecenv_spends_each_key_once():
    env = Lottery()
    params = env.default_params()
    for policy in ("select", "pool"):
        venv = VecEnv(env, 2, policy)
        with jax.debug_key_reuse(True):
            jax.block_until_ready(jax.jit(lambda key, venv=venv: roll(venv, key, params, 2))(jax.random.key(0)))
