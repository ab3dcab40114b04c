"""XLand-MiniGrid environments under our contract: raw reset and step, so that our reset policies apply.

    env, params = make("xland:MiniGrid-MemoryS16")
    env, params = make("xland:XLand-MiniGrid-R4-13x13,benchmark=trivial-21k,view_size=7")
    env, params = from_xland(their_env, their_params, rulesets)     # a Benchmark, a stacked RuleSet, or None

The XLand family has tasks: `params` is a RuleSet stacked on a leading axis [G], and an episode draws one of the G.
Without a benchmark it holds the one ruleset of their params, which is empty unless they set one: nothing to do and no
reward. `default_params()` has as many rulesets, all empty. The MiniGrid family has no params.

Observations are the egocentric view, uint8 [V, V, 2] of tile and colour. What reaches the goal terminates
(`info["success"]`: with a reward), what their `max_steps` cuts is truncated. Their key is left out of the state.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.envs.adapters.gymnax import Config
from jaxrl_seq.envs.adapters.imported import library
from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.envs.core.protocol import Env, TaskEnv
from jaxrl_seq.envs.core.spaces import Box, Discrete, Space, Tree
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition

Array = jax.Array
PyTree = Any
_TILE = 16  # pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class XLandEnv(Env[Any, Any]):
    """An environment of xminigrid without rulesets; make it with `make_xland` or `from_xland`."""

    config: Config
    """Their environment."""
    params_type: type
    settings: tuple[tuple[str, Any], ...]
    """The static fields of their params, by name."""
    observations: Space
    actions: Space
    name: str = "xland"  # pyright: ignore[reportIncompatibleVariableOverride]

    time_limit: ClassVar[Literal["terminal", "truncate"]] = "truncate"
    fixed_length: ClassVar[bool] = False
    paper: ClassVar[str] = "Nikulin et al. 2024 (arXiv 2312.12044)"

    @property
    def horizon(self) -> int:
        return dict(self.settings)["max_steps"]

    def default_params(self) -> PyTree:
        return ()

    def reset(self, key: Array, params: PyTree) -> tuple[PyTree, TimeStep]:
        return self._open(key, {})

    def step(self, key: Array, state: PyTree, action: Any, params: PyTree) -> tuple[PyTree, TimeStep]:
        from xminigrid.types import StepType  # pyright: ignore[reportMissingImports]
        from xminigrid.types import TimeStep as TheirStep  # pyright: ignore[reportMissingImports]

        # Their step reads nothing but the state; nothing is random.
        before = TheirStep(state=state, step_type=StepType.MID, reward=0.0, discount=1.0, observation=None)
        after = self.config.env.step(self._theirs({}), before, action)
        terminated = after.discount == 0
        info = {"success": terminated & (after.reward > 0)}
        state, obs = self._parts(after)
        return state, transition(obs, after.reward, terminated, after.step_type == StepType.LAST, info=info)

    def observation_space(self) -> Space:
        return self.observations

    def action_space(self) -> Space:
        return self.actions

    def _open(self, key: Array, fields: dict[str, Any]) -> tuple[PyTree, TimeStep]:
        state, obs = self._parts(self.config.env.reset(self._theirs(fields), key))
        return state, opening(obs, info={"success": jnp.zeros((), bool)})

    def _theirs(self, fields: dict[str, Any]) -> Any:
        return self.params_type(**dict(self.settings), **fields)

    def _parts(self, theirs: Any) -> tuple[PyTree, PyTree]:
        """(state without its key, observation), all of strong dtypes."""
        return jax.tree.map(lambda x: jnp.asarray(x, x.dtype), (theirs.state.replace(key=()), theirs.observation))

    def render(self, state: PyTree, params: PyTree) -> Array:
        """uint8 [16 height, 16 width, 3], drawn with their tiles."""
        height, width = state.grid.shape[:2]
        rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None]
        here = (rows == state.agent.position[0]) & (columns == state.agent.position[1])
        facing = jnp.where(here, state.agent.direction, 4)
        tiles = jnp.asarray(_atlas())[state.grid[..., 0], state.grid[..., 1], facing]
        return tiles.transpose(0, 2, 1, 3, 4).reshape(height * _TILE, width * _TILE, 3)

    def ascii(self, state: PyTree, params: PyTree) -> str:
        from xminigrid.rendering.text_render import PLAYER_STR, TILE_STR  # pyright: ignore[reportMissingImports]

        rows = [[TILE_STR[int(tile)] for tile in row] for row in np.asarray(state.grid[..., 0])]
        y, x = (int(i) for i in state.agent.position)
        rows[y][x] = PLAYER_STR[int(state.agent.direction)]
        return "\n".join("".join(row) for row in rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class XLandTasks(XLandEnv, TaskEnv[Any, Any]):
    """An environment of xminigrid with rulesets: each is a task."""

    shapes: tuple[tuple[int, ...], ...] = ()
    """Of goals [G, ...], rules [G, R, ...] and initial tiles [G, I, 2]."""

    def default_params(self) -> PyTree:
        from xminigrid.types import RuleSet  # pyright: ignore[reportMissingImports]

        return RuleSet(*(jnp.zeros(shape, jnp.uint8) for shape in self.shapes))

    def sample_task(self, key: Array, params: PyTree) -> PyTree:
        one = jax.random.randint(key, (), 0, self.shapes[0][0], jnp.int32)
        return jax.tree.map(lambda x: x[one], params)

    def reset(self, key: Array, params: PyTree) -> tuple[PyTree, TimeStep]:
        return TaskEnv.reset(self, key, params)

    def reset_to(self, key: Array, task: PyTree, params: PyTree) -> tuple[PyTree, TimeStep]:
        return self._open(key, {"ruleset": task})

    def tasks(self, params: PyTree) -> PyTree:
        return params


def make_xland(name: str, benchmark: str | None = None, **options: Any) -> tuple[XLandEnv, Any]:
    """Build (env, params) from an xminigrid id; an option names a field of their params (height, view_size, ...).

    `benchmark` (XLand family only) is one of their collections of rulesets, downloaded when first used. Raises
    ValueError with a suggestion for an unknown id, benchmark or option.
    """
    xminigrid = library("xminigrid")
    raw, params = xminigrid.make(known(name, xminigrid.registered_environments(), "XLand-MiniGrid environment"))
    for option in options:
        known(option, set(_static_fields(params)) | {"benchmark"}, f"option of {name}")
    params = params.replace(**options)
    rulesets = None
    if benchmark is not None:
        if not hasattr(params, "ruleset"):
            raise ValueError(f"{name} has no rulesets, so that it takes no benchmark.")
        known(benchmark, xminigrid.registered_benchmarks(), "XLand-MiniGrid benchmark")
        rulesets = xminigrid.load_benchmark(benchmark)
    return _wrap(name, raw, params, rulesets)


def from_xland(env: Any, params: Any, rulesets: Any = None) -> tuple[XLandEnv, Any]:
    """(env, params) of ours from those of xminigrid; `rulesets` is one of its Benchmarks or a RuleSet stacked on [G]
    (None: the one in `params`). Their observation wrappers are fine. Raises ValueError for those that reset."""
    return _wrap(type(getattr(env, "_env", env)).__name__, env, params, rulesets)


def _wrap(name: str, raw: Any, params: Any, rulesets: Any) -> tuple[XLandEnv, Any]:
    inner = raw
    while inner is not None:
        if "AutoReset" in type(inner).__name__:
            raise ValueError(f"{name}: take {type(inner).__name__} off; VecEnv resets the episodes.")
        inner = getattr(inner, "_env", None)
    if params.max_steps is None or params.max_steps < 1:
        raise ValueError(f"{name}: max_steps must be at least 1, got {params.max_steps}.")
    key = jax.eval_shape(lambda: jax.random.key(0))
    obs = jax.eval_shape(lambda key: raw.reset(params, key).observation, key)
    fields: dict[str, Any] = {
        "name": name,
        "config": Config(raw),
        "params_type": type(params),
        "settings": tuple(sorted(_static_fields(params).items())),
        "observations": _observations("", obs),
        "actions": Discrete(int(raw.num_actions(params))),
    }
    if not hasattr(params, "ruleset"):
        return XLandEnv(**fields), ()
    stacked = _stacked(params.ruleset if rulesets is None else rulesets)
    return XLandTasks(**fields, shapes=tuple(x.shape for x in jax.tree.leaves(stacked))), stacked


def _stacked(rulesets: Any) -> PyTree:
    """A RuleSet with an axis [G] in front, uint8, from a Benchmark or a RuleSet."""
    from xminigrid.types import RuleSet  # pyright: ignore[reportMissingImports]

    goals = rulesets.goals if hasattr(rulesets, "goals") else rulesets.goal
    stacked = RuleSet(*(jnp.asarray(x, jnp.uint8) for x in (goals, rulesets.rules, rulesets.init_tiles)))
    return stacked if goals.ndim == 2 else jax.tree.map(lambda x: x[None], stacked)


def _static_fields(params: Any) -> dict[str, Any]:
    """The fields of their params that are sizes: all but the ruleset."""
    return {f.name: getattr(params, f.name) for f in dataclasses.fields(params) if f.name != "ruleset"}


def _observations(name: str, obs: Any) -> Space:
    if isinstance(obs, dict):
        return Tree({key: _observations(key, part) for key, part in obs.items()})
    tiles = name in ("", "img") and obs.shape[-1] == 2
    highest = 12 if tiles else 255 if obs.dtype == np.uint8 else 1
    return Box(0, highest, obs.shape, obs.dtype)


@functools.cache
def _atlas() -> np.ndarray:
    """uint8 [13, 12, 5, 16, 16, 3]: every tile in every colour, with the agent facing each way and without it."""
    from xminigrid.core import constants  # pyright: ignore[reportMissingImports]
    from xminigrid.rendering.rgb_render import render_tile  # pyright: ignore[reportMissingImports]

    def drawn(tile: int, color: int, facing: int | None = None) -> np.ndarray:
        return render_tile((tile, color), facing, tile_size=_TILE).astype(np.uint8)

    plain = [[drawn(tile, color) for color in range(constants.NUM_COLORS)] for tile in range(constants.NUM_TILES)]
    atlas = np.repeat(np.array(plain)[:, :, None], 5, axis=2)
    floor = int(constants.Tiles.FLOOR), int(constants.Colors.BLACK)
    for facing in range(4):
        agent = drawn(*floor, facing)
        atlas[:, :, facing] = np.where((agent != drawn(*floor)).any(-1)[..., None], agent, atlas[:, :, facing])
    return atlas
