"""The XLand-MiniGrid adapter, beside the library's own raw step; skipped where xminigrid is not installed."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_seq.envs import Discrete, TaskEnv, VecEnv, make
from jaxrl_seq.envs.adapters.xland import from_xland, make_xland
from jaxrl_seq.envs.core.checking import check_structure

SPECS = ["XLand-MiniGrid-R1-9x9", "XLand-MiniGrid-R4-13x13", "MiniGrid-MemoryS8", "MiniGrid-DoorKey-5x5"]


@pytest.fixture
def xminigrid() -> Any:
    return pytest.importorskip("xminigrid")


def two_tasks() -> Any:
    """Hold the red ball; hold the blue square. Both are on the floor."""
    from xminigrid.benchmarks import Benchmark  # pyright: ignore[reportMissingImports]
    from xminigrid.core.constants import TILES_REGISTRY, Colors, Tiles  # pyright: ignore[reportMissingImports]
    from xminigrid.core.goals import AgentHoldGoal  # pyright: ignore[reportMissingImports]
    from xminigrid.core.rules import EmptyRule  # pyright: ignore[reportMissingImports]

    tiles = TILES_REGISTRY[Tiles.BALL, Colors.RED], TILES_REGISTRY[Tiles.SQUARE, Colors.BLUE]
    rules = jnp.stack([EmptyRule().encode()[None]] * 2)
    goals = jnp.stack([AgentHoldGoal(tile=tile).encode() for tile in tiles])
    return Benchmark(goals=goals, rules=rules, init_tiles=jnp.stack([jnp.stack(tiles)] * 2), num_rules=jnp.ones(2))


@pytest.mark.parametrize("name", SPECS)
def test_structure(xminigrid: Any, name: str):
    env, params = make(f"xland:{name}")
    check_structure(env, params)
    opened = jax.eval_shape(env.reset, jax.random.key(0), params)
    assert not any(x.weak_type for x in jax.tree.leaves((opened, params)))
    assert not [x for x in jax.tree.leaves(opened[0]) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
    assert env.observation_space().contains(env.reset(jax.random.key(0), params)[1].obs)
    assert env == make_xland(name)[0] and hash(env) == hash(make_xland(name)[0]) and env.name == name
    assert jax.tree.structure(env.default_params()) == jax.tree.structure(params)
    assert env.has("sample_task") == isinstance(env, TaskEnv) == name.startswith("XLand")


@pytest.mark.parametrize("name", ["XLand-MiniGrid-R1-9x9", "MiniGrid-MemoryS8"])
def test_every_number_is_that_of_the_raw_step(xminigrid: Any, name: str):
    env, params = make(f"xland:{name},max_steps=40")
    raw, raw_params = xminigrid.make(name, max_steps=40)
    key, steps = jax.random.key(2), 40
    actions = jax.random.randint(key, (steps,), 0, 6)
    reset_key = jax.random.split(key)[1] if isinstance(env, TaskEnv) else key

    @jax.jit
    def ours() -> Any:
        state, opened = env.reset(key, params)

        def step(state: Any, action: Any) -> Any:
            state, timestep = env.step(key, state, action, params)
            return state, (timestep.obs, timestep.reward, timestep.terminated, timestep.truncated)

        return opened.obs, jax.lax.scan(step, state, actions)[1]

    @jax.jit
    def theirs() -> Any:
        opened = raw.reset(raw_params, reset_key)

        def step(timestep: Any, action: Any) -> Any:
            timestep = raw.step(raw_params, timestep, action)
            over = timestep.discount == 0
            return timestep, (timestep.observation, timestep.reward, over, timestep.last() & ~over)

        return opened.observation, jax.lax.scan(step, opened, actions)[1]

    # Beyond the end of an episode both go on in the same way, so that all steps can be compared.
    for a, b in zip(jax.tree.leaves(ours()), jax.tree.leaves(theirs()), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_tasks_come_from_the_rulesets(xminigrid: Any):
    """Whoever picks up what the task names has reached the goal, and only then."""
    env, params = from_xland(*xminigrid.make("XLand-MiniGrid-R1-9x9"), two_tasks())
    assert isinstance(env, TaskEnv) and env.tasks(params).goal.shape[0] == 2
    drawn = jax.vmap(env.sample_task, in_axes=(0, None))(jax.random.split(jax.random.key(0), 200), params).goal
    assert 70 < int((drawn == params.goal[0]).all(-1).sum()) < 130

    @jax.jit
    def pick_up(task: Any, tile: Any) -> Any:
        """Stand below the tile, face it and take it."""
        state, _ = env.reset_to(jax.random.key(1), task, params)
        grid = state.grid.at[3, 4].set(tile).at[4, 4].set(jnp.array([1, 7], jnp.uint8))
        agent = state.agent.replace(position=jnp.array([4, 4]), direction=jnp.zeros_like(state.agent.direction))
        return env.step(jax.random.key(2), state.replace(grid=grid, agent=agent), jnp.int32(3), params)[1]

    for i in range(2):
        for j in range(2):
            timestep = pick_up(jax.tree.map(lambda x, i=i: x[i], params), params.init_tiles[0, j])
            assert bool(timestep.terminated) == bool(timestep.info["success"]) == (i == j)
            assert float(timestep.reward) == pytest.approx(1 - 0.9 / 243 if i == j else 0.0)


def test_a_batch_resets_and_truncates(xminigrid: Any):
    env, params = make("xland:XLand-MiniGrid-R1-9x9,max_steps=5")
    assert env.horizon == 5 and env.time_limit == "truncate"
    venv = VecEnv(env, 3, "select")

    def step(state: Any, key: Any) -> Any:
        state, outcome = venv.step(key, state, jnp.zeros(3, jnp.int32), params)
        return state, (outcome.truncated, outcome.terminated, state.inputs.first)

    first = venv.reset(jax.random.key(0), params)
    truncated, terminated, opened = jax.lax.scan(step, first, jax.random.split(jax.random.key(1), 10))[1]
    assert truncated[4::5].all() and truncated.sum() == 6 and not terminated.any()
    np.testing.assert_array_equal(truncated, opened)


def test_observation_wrappers_are_fine_and_reset_wrappers_are_not(xminigrid: Any):
    from xminigrid import wrappers  # pyright: ignore[reportMissingImports]

    raw, raw_params = xminigrid.make("XLand-MiniGrid-R1-9x9")
    env, params = from_xland(wrappers.DirectionObservationWrapper(raw), raw_params)
    check_structure(env, params)
    obs = env.reset(jax.random.key(0), params)[1].obs
    assert set(obs) == {"img", "direction"} and bool(env.observation_space().contains(obs))
    assert env.action_space() == Discrete(6)
    for wrapper in (wrappers.GymAutoResetWrapper, wrappers.DmEnvAutoResetWrapper):
        with pytest.raises(ValueError, match="take .*AutoResetWrapper off"):
            from_xland(wrappers.DirectionObservationWrapper(wrapper(raw)), raw_params)


def test_options_and_what_does_not_fit(xminigrid: Any):
    env, _ = make("xland:XLand-MiniGrid-R1-9x9,view_size=7")
    assert env.observation_space().shape == (7, 7, 2)
    with pytest.raises(ValueError, match="Did you mean 'XLand-MiniGrid-R1-9x9'"):
        make("xland:XLand-MiniGrid-R1-9x8")
    with pytest.raises(ValueError, match="Did you mean 'view_size'"):
        make("xland:XLand-MiniGrid-R1-9x9,viewsize=7")
    with pytest.raises(ValueError, match="Unknown XLand-MiniGrid benchmark"):
        make("xland:XLand-MiniGrid-R1-9x9,benchmark=trivial")
    with pytest.raises(ValueError, match="no rulesets"):
        make("xland:MiniGrid-MemoryS8,benchmark=small-1m")
    with pytest.raises(ValueError, match="max_steps must be at least 1"):
        make("xland:MiniGrid-MemoryS8,max_steps=0")


def test_pictures(xminigrid: Any):
    env, params = make("xland:MiniGrid-MemoryS8")
    state, _ = env.reset(jax.random.key(0), params)
    picture = np.asarray(env.render(state, params))
    assert picture.shape == (112, 128, 3) and picture.dtype == np.uint8
    y, x = (int(i) for i in state.agent.position)
    red = (picture.astype(int) @ [1, -1, -1] > 150).reshape(7, 16, 8, 16).any((1, 3))
    assert np.argwhere(red).tolist() == [[y, x]], "the agent, where it is"
    turned, _ = env.step(jax.random.key(0), state, jnp.int32(1), params)
    assert (np.asarray(env.render(turned, params)) != picture).any()
    assert env.ascii(state, params).splitlines()[y][x] == ">" and env.ascii(turned, params) != env.ascii(state, params)


def test_without_the_library_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "xminigrid", None)
    with pytest.raises(ImportError, match="pip install xminigrid"):
        make("xland:XLand-MiniGrid-R1-9x9")
