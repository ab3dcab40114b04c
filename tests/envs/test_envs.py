"""Every registered environment, with every preset, keeps the contract of `Env` and its own reference
returns."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from env_rollouts import assert_same, measured, plain_trajectory, primitives, trajectory
from jax.experimental import checkify

from jaxrl_seq.envs import list_envs, make
from jaxrl_seq.envs.core.checking import check_structure

NAMES = sorted(list_envs())
SPECS = NAMES + [f"{name}-{preset}" for name, presets in list_envs().items() for preset in presets]
# Whole episodes of the presets that are not the default again, and of a few lengths of the T-maze.
AS_DEFAULT = {"tmaze-50"} | {f"{n}-easy" for n in NAMES}
PLAYED = [s for s in SPECS if s not in AS_DEFAULT | {"tmaze-20", "tmaze-100", "tmaze-500"}]


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


@pytest.mark.parametrize("spec", PLAYED)
def test_episodes_stay_in_their_spaces_and_end_as_declared(spec: str):
    env, by_policy = measured(spec)
    for episodes in by_policy.values():
        assert episodes.legal.all()
        assert (episodes.terminated ^ episodes.truncated).all(), "every episode ends within the horizon"
        if env.fixed_length:
            assert (episodes.lengths == env.horizon).all()
        if env.time_limit == "terminal":
            assert not episodes.truncated.any()
        else:
            assert (episodes.lengths[episodes.truncated] == env.horizon).all()


@pytest.mark.parametrize("spec", PLAYED)
def test_reference_returns(spec: str):
    env, by_policy = measured(spec)
    reference = env.reference()
    for policy, episodes in by_policy.items():
        error = float(episodes.returns.std()) / len(episodes.returns) ** 0.5
        assert episodes.returns.mean() == pytest.approx(reference[policy], abs=4 * error + 1e-4), policy
    assert reference["expert"] > reference["random"]
    if "reactive" in reference:
        assert reference["expert"] >= reference["reactive"] >= reference["random"]


@pytest.mark.parametrize("spec", ["tmaze", "tmaze-active", "associative_recall"])
def test_success_is_the_experts(spec: str):
    _, by_policy = measured(spec)
    assert by_policy["expert"].success.all() and not by_policy["random"].success.all()


@pytest.mark.parametrize("name", NAMES)
def test_determinism(name: str):
    env, params = make(name)
    assert_same(trajectory(env, params, jax.random.key(1), 12), trajectory(env, params, jax.random.key(1), 12))
    other = trajectory(env, params, jax.random.key(2), 12)
    assert any(
        (x != y).any()
        for x, y in zip(
            jax.tree.leaves(other),
            jax.tree.leaves(trajectory(env, params, jax.random.key(1), 12)),
            strict=True,
        )
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_can_be_vmapped_and_matters(name: str):
    env, params = make(name)
    leaves, structure = jax.tree.flatten(params)
    if not leaves:
        pytest.skip("no parameters")
    # Row 0 is the default, row i + 1 has leaf i halved.
    rows = [[leaf * (0.5 if i == row - 1 else 1.0) for i, leaf in enumerate(leaves)] for row in range(len(leaves) + 1)]
    swept = structure.unflatten([jnp.stack(column) for column in zip(*rows, strict=True)])
    key, steps = jax.random.key(3), 12
    together = jax.vmap(trajectory, in_axes=(None, 0, None, None))(env, swept, key, steps)
    for row, values in enumerate(rows):
        alone = trajectory(env, structure.unflatten(values), key, steps)
        assert_same(jax.tree.map(lambda x, row=row: x[row], together), alone, atol=1e-4, rtol=1e-4)
    for row in range(1, len(rows)):
        assert any((x[0] != x[row]).any() for x in jax.tree.leaves(together)), f"leaf {row - 1} changes nothing"


@pytest.mark.parametrize("name", ["tmaze", "repeat_previous", "noisy_position_only_cartpole", "pendulum"])
def test_compiled_and_plain_python_agree(name: str):
    env, params = make(name)
    action = env.action_space().sample(jax.random.key(4))

    def two(key: Any) -> Any:
        state, opened = env.reset(key, params)
        return opened, env.step(key, state, action, params)

    with jax.disable_jit():
        plain = two(jax.random.key(5))
    assert_same(jax.jit(two)(jax.random.key(5)), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_callbacks_and_no_data_dependent_loops(name: str):
    env, params = make(name)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state, action = jax.eval_shape(env.reset, key, params)[0], jax.eval_shape(env.action_space().sample, key)
    for program in (
        jax.make_jaxpr(env.reset)(key, params),
        jax.make_jaxpr(env.step)(key, state, action, params),
        jax.make_jaxpr(env.expert)(key, state, params),
    ):
        used = set(primitives(program.jaxpr))
        assert used and not {p for p in used if "callback" in p or p in ("infeed", "outfeed", "while")}


@pytest.mark.parametrize("name", ["tmaze", "repeat_previous", "associative_recall"])
def test_no_index_is_out_of_bounds(name: str):
    """Over whole episodes, their last step included, and experts' actions too."""
    env, params = make(name)

    def episode(key: Any) -> Any:
        state, timestep = plain_trajectory(env, params, key, env.horizon)
        return timestep, jax.vmap(env.expert, in_axes=(None, 0, None))(key, state, params)

    error, _ = jax.jit(checkify.checkify(episode, errors=checkify.index_checks))(jax.random.key(5))
    error.throw()


@pytest.mark.parametrize("name", NAMES)
def test_no_key_is_used_twice(name: str):
    env, params = make(name)
    action = env.action_space().sample(jax.random.key(7))

    def two(reset_key: Any, step_key: Any) -> Any:
        return env.step(step_key, env.reset(reset_key, params)[0], action, params)

    with jax.debug_key_reuse(True):
        jax.block_until_ready(jax.jit(two)(jax.random.key(6), jax.random.key(8)))


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
