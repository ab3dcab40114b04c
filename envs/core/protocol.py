"""The contract of an environment: two pure functions, a description of itself, and optional capabilities."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Generic, Literal, TypeVar

import jax
import jax.numpy as jnp

from jaxrl_seq.envs.core.spaces import Space
from jaxrl_seq.envs.core.timestep import TimeStep

Array = jax.Array
State = TypeVar("State")
Params = TypeVar("Params")


@dataclasses.dataclass(frozen=True)
class Env(Generic[State, Params]):
    """A pure-JAX environment. Subclass it as a frozen dataclass whose fields are *static* sizes.

    Being frozen it hashes by value, so two equal environments share one compilation. Numbers that may be traced,
    swept or drawn per task live in `params` (a pytree of arrays that can be vmapped on every leaf); nothing random
    lives in the state; there is no auto-reset inside (`VecEnv` owns that). Use `opening` and `transition` to build
    the TimeStep, `jnp` scalars (never Python ones) in the state, and one function for `obs` in both reset and step.
    """

    name: ClassVar[str] = "env"
    time_limit: ClassVar[Literal["terminal", "truncate"]] = "terminal"
    """"terminal": the clock is part of the problem and its end is a termination; "truncate": it merely cuts."""
    fixed_length: ClassVar[bool] = True
    """True if every episode lasts exactly `horizon` steps whatever is done (lets all environments reset at once)."""
    paper: ClassVar[str] = ""

    # --- required -----------------------------------------------------------------------------------------------
    @property
    def horizon(self) -> int:
        """Upper bound on the steps of an episode (static)."""
        raise NotImplementedError

    def default_params(self) -> Params:
        """The traced parameters of the default task; a pytree of arrays."""
        raise NotImplementedError

    def reset(self, key: Array, params: Params) -> tuple[State, TimeStep]:
        """Open an episode. The key is consumed."""
        raise NotImplementedError

    def step(self, key: Array, state: State, action: Any, params: Params) -> tuple[State, TimeStep]:
        """One step of the episode; never resets. The key is consumed."""
        raise NotImplementedError

    def observation_space(self) -> Space:
        """Static description of `obs`: shapes never depend on traced params."""
        raise NotImplementedError

    def action_space(self) -> Space:
        raise NotImplementedError

    # --- optional capabilities: see `has` ------------------------------------------------------------------------
    def expert(self, key: Array, state: State, params: Params) -> Any:
        """An action of a scripted optimum (or a strong policy) that sees the state."""
        raise NotImplementedError

    def optimal_actions(self, state: State, params: Params) -> Array:
        """bool [A]: every action with which an optimal policy that sees the state may go on; discrete actions only."""
        raise NotImplementedError

    def reference(self) -> dict[str, float]:
        """Mean episode returns of {"random", "reactive", "expert"} at the default params; `reactive` is the best
        policy that sees only the current observation. Each figure is measured or derived, and tested."""
        raise NotImplementedError

    def sample_task(self, key: Array, params: Params) -> Any:
        """Draw a task, a pytree of arrays, from the distribution that `params` describe: the goal, the arms' means,
        the maze. The key is consumed. Environments that have tasks subclass `TaskEnv`."""
        raise NotImplementedError

    def reset_to(self, key: Array, task: Any, params: Params) -> tuple[State, TimeStep]:
        """Open an episode of the given task. The key is consumed."""
        raise NotImplementedError

    def tasks(self, params: Params) -> Any:
        """Every task of a finite distribution, stacked on a leading axis [G]."""
        raise NotImplementedError

    def optimal_return(self, task: Any, params: Params) -> Array:
        """float32 []: the expected return of an episode of `task` for the best policy that knows it, exact."""
        raise NotImplementedError

    def render(self, state: State, params: Params) -> Array:
        """Pure-JAX picture of the state: uint8 [height, width, 3] of a fixed shape."""
        raise NotImplementedError

    def ascii(self, state: State, params: Params) -> str:
        """Host-side text picture of the state."""
        raise NotImplementedError

    def has(self, capability: str) -> bool:
        """Whether this class implements an optional capability: "expert", "optimal_actions", "reference", "render",
        "ascii", "sample_task", "tasks", "optimal_return"."""
        return getattr(type(self), capability) is not getattr(Env, capability)


@dataclasses.dataclass(frozen=True)
class TaskEnv(Env[State, Params]):
    """An environment whose episodes differ in a hidden task: `reset` draws one, `reset_to` opens another episode of it.

    The state carries its task. Write `sample_task` (the expensive part) and `reset_to` (the cheap part).
    """

    def reset(self, key: Array, params: Params) -> tuple[State, TimeStep]:
        """Open an episode of a task drawn anew. The key is consumed."""
        task_key, key = jax.random.split(key)
        return self.reset_to(key, self.sample_task(task_key, params), params)


def stacked_params(env: Env, params: Any, num: int) -> Any:
    """`in_axes` for `vmap` over `num` environments: 0 where a leaf has a leading `[num]` axis, None where it is shared.

    Raises ValueError when a leaf has neither the default's shape nor that shape with `[num]` in front.
    """
    default = jax.eval_shape(env.default_params)

    def axis(path: Any, want: Any, leaf: Any) -> int | None:
        shape = jnp.shape(leaf)
        if shape == want.shape:
            return None
        if shape == (num, *want.shape):
            return 0
        raise ValueError(
            f"{env.name}: params{jax.tree_util.keystr(path)} has shape {shape}; "
            f"expected {want.shape}, or {(num, *want.shape)} for one value per environment."
        )

    if jax.tree.structure(default) != jax.tree.structure(params):
        raise ValueError(
            f"{env.name}: params have structure {jax.tree.structure(params)}; "
            f"expected {jax.tree.structure(default)}, as default_params() makes them."
        )
    axes = jax.tree_util.tree_map_with_path(axis, default, params, is_leaf=lambda x: x is None)
    return axes
