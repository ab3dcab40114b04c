"""Every registered environment, with every preset, keeps the contract of `Env` and its own reference returns."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from env_rollouts import assert_same, measured, primitives, trajectory
from jax.experimental import checkify

from jaxrl_seq.envs import list_envs, make
from jaxrl_seq.envs.core.checking import check_structure

NAMES = sorted(list_envs())
SPECS = NAMES + [f"{name}-{preset}" for name, presets in list_envs().items() for preset in presets]
# Whole episodes of the presets that are not the default again, and of a few lengths of the T-maze.
AS_DEFAULT = {"tmaze-50"} | {f"{n}-easy" for n in NAMES}
PLAYED = [s for s in SPECS if s not in AS_DEFAULT | {"tmaze-20", "tmaze-100", "tmaze-500"}]


def leaf_names(params: Any) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def with_leaf(params: Any, name: str, change: Any) -> Any:
    """`params` with `change` applied to the leaf called `name`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: change(x) if jax.tree_util.keystr(path) == name else x, params
    )


@pytest.mark.parametrize("spec", SPECS)
def test_structure(spec: str):
    env, params = make(spec)
    check_structure(env, params)
    key = jax.random.key(0)
    opened = jax.eval_shape(env.reset, key, params)
    stepped = jax.eval_shape(env.step, key, opened[0], jax.eval_shape(env.action_space().sample, key), params)
    for path, leaf in jax.tree_util.tree_leaves_with_path((opened, stepped, params)):
        # Only strong dtypes: a weak one (from a Python number) would compile every caller twice.
        assert not getattr(leaf, "weak_type", False), jax.tree_util.keystr(path)
    assert opened[1].reward.dtype == jnp.float32
    assert make(spec)[0] == env and hash(make(spec)[0]) == hash(env)
    assert env.name == spec.split("-")[0] and env.paper


@pytest.mark.parametrize("expert", [False, True], ids=["random", "expert"])
@pytest.mark.parametrize("spec", PLAYED)
def test_episodes_stay_in_their_spaces_and_end_as_declared(spec: str, expert: bool):
    env, _, episodes = measured(spec, expert)
    assert episodes.legal.all()
    assert (episodes.terminated ^ episodes.truncated).all(), "every episode ends within the horizon"
    if env.fixed_length:
        assert (episodes.lengths == env.horizon).all()
    if env.time_limit == "terminal":
        assert not episodes.truncated.any()
    else:
        assert (episodes.lengths[episodes.truncated] == env.horizon).all()


@pytest.mark.parametrize("policy", ["random", "expert"])
@pytest.mark.parametrize("spec", PLAYED)
def test_reference_returns(spec: str, policy: str):
    env, _, episodes = measured(spec, policy == "expert")
    error = float(episodes.returns.std()) / len(episodes.returns) ** 0.5
    assert episodes.returns.mean() == pytest.approx(env.reference()[policy], abs=4 * error + 1e-4)


@pytest.mark.parametrize("spec", PLAYED)
def test_the_expert_beats_memoryless_play(spec: str):
    reference = make(spec)[0].reference()
    assert reference["expert"] > reference["random"]
    if "reactive" in reference:
        assert reference["expert"] >= reference["reactive"] >= reference["random"]
    if "success" in jax.eval_shape(lambda: make(spec)[0].reset(jax.random.key(0), make(spec)[1]))[1].info:
        assert measured(spec, True)[2].success.all()
        assert not measured(spec, False)[2].success.all()


@pytest.mark.parametrize("name", NAMES)
def test_determinism(name: str):
    env, params = make(name)
    assert_same(trajectory(env, params, jax.random.key(1), 8), trajectory(env, params, jax.random.key(1), 8))
    other = trajectory(env, params, jax.random.key(2), 8)
    assert any((x != y).any() for x, y in zip(jax.tree.leaves(other), jax.tree.leaves(
        trajectory(env, params, jax.random.key(1), 8)), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_can_be_vmapped_and_matters(name: str):
    env, params = make(name)
    key, steps = jax.random.key(3), 12
    for leaf in leaf_names(params):
        axes = jax.tree_util.tree_map_with_path(
            lambda path, _: 0 if jax.tree_util.keystr(path) == leaf else None, params
        )
        swept = with_leaf(params, leaf, lambda x: x * jnp.array([0.5, 1.0, 1.5], x.dtype))
        together = jax.vmap(trajectory, in_axes=(None, axes, None, None))(env, swept, key, steps)
        for i in range(3):
            alone = trajectory(env, with_leaf(swept, leaf, lambda x, i=i: x[i]), key, steps)
            assert_same(jax.tree.map(lambda x, i=i: x[i], together), alone, atol=1e-4, rtol=1e-4)
        moved = [np.ptp(np.asarray(x, np.float64), axis=0).max() for x in jax.tree.leaves(together)]
        assert max(moved) > 0, f"{leaf} changes nothing"


@pytest.mark.parametrize("name", NAMES)
def test_compiled_and_plain_python_agree(name: str):
    env, params = make(name)
    compiled = trajectory(env, params, jax.random.key(4), 3)
    with jax.disable_jit():
        plain = trajectory.__wrapped__(env, params, jax.random.key(4), 3)
    assert_same(compiled, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_callbacks_and_no_data_dependent_loops(name: str):
    env, params = make(name)
    used = set(primitives(jax.make_jaxpr(lambda key: trajectory(env, params, key, 2))(jax.random.key(0)).jaxpr))
    assert "scan" in used, "the walk must have reached the inside"
    assert not {p for p in used if "callback" in p or p in ("infeed", "outfeed")}
    steps = jax.make_jaxpr(lambda key, state, action: env.step(key, state, action, params))
    key = jax.random.key(0)
    assert "while" not in primitives(steps(key, env.reset(key, params)[0], env.action_space().sample(key)).jaxpr)


@pytest.mark.parametrize("name", NAMES)
def test_no_index_out_of_bounds_and_no_nan(name: str):
    env, params = make(name)
    steps = min(env.horizon, 60)
    checked = checkify.checkify(
        lambda key: trajectory.__wrapped__(env, params, key, steps),
        errors=checkify.index_checks | checkify.float_checks,
    )
    error, _ = jax.jit(checked)(jax.random.key(5))
    error.throw()


@pytest.mark.parametrize("name", NAMES)
def test_no_key_is_used_twice(name: str):
    env, params = make(name)
    with jax.debug_key_reuse(True):
        jax.block_until_ready(jax.jit(lambda key: env.reset(key, params))(jax.random.key(6)))
        state, _ = env.reset(jax.random.key(6), params)
        action = env.action_space().sample(jax.random.key(7))
        jax.block_until_ready(jax.jit(lambda key: env.step(key, state, action, params))(jax.random.key(8)))


@pytest.mark.parametrize("name", NAMES)
def test_pictures(name: str):
    env, params = make(name)
    states, _ = trajectory(env, params, jax.random.key(9), 12)
    pictures = np.asarray(jax.jit(jax.vmap(env.render, in_axes=(0, None)))(states, params))
    assert pictures.dtype == np.uint8 and pictures.ndim == 4 and pictures.shape[-1] == 3
    assert (pictures[0] != pictures[-1]).any()
    assert (pictures.reshape(13, -1).std(axis=1) > 0).all(), "no picture is blank"
    texts = [env.ascii(jax.tree.map(lambda x, i=i: x[i], states), params) for i in (0, 12)]
    assert all(isinstance(t, str) and t.strip() for t in texts) and texts[0] != texts[1]


@pytest.mark.parametrize(
    "spec",
    [
        "tmaze,length=1",
        "repeat_previous,k=52",
        "repeat_previous,k=0",
        "repeat_previous,decks=0",
        "associative_recall,pairs=9",
        "associative_recall,queries=5",
        "associative_recall,delay=-1",
        "associative_recall,num_values=1",
        "cartpole,limit=0",
        "pendulum,limit=0",
    ],
)
def test_bad_sizes_are_refused_in_words(spec: str):
    with pytest.raises(ValueError, match=spec.split(",")[0]):
        make(spec)
