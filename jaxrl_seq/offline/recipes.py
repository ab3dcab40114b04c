"""Data sets by recipe: pure functions of a key over any environment of the library.

    dataset = make_dataset("medium-replay", env, params, jax.random.key(0), steps=100_000)

The recipes are those of D4RL (Fu et al. 2020) and some that need no training, because environments ship experts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_seq.envs import Box, Env, VecEnv
from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.envs.gridworlds.safe_grid import SafeGrid
from jaxrl_seq.models import make_model
from jaxrl_seq.offline.behaviours import Careful, NoisyExpert, Trained, default_envs, legs_of, record_episodes
from jaxrl_seq.offline.dataset import Dataset, Meta
from jaxrl_seq.offline.parts import concatenate
from jaxrl_seq.online import PPO, PPOHyper, make_ppo
from jaxrl_seq.online.evaluate import reference_returns
from jaxrl_seq.types import Array, PyTree


@dataclass(frozen=True)
class Teacher:
    """The PPO that makes what is neither random nor expert."""

    fraction: float = 1 / 3
    """"Medium" is so far on the way from random play's reference return to the expert's."""
    goal: float | None = None
    """That return itself, for environments without references."""
    max_updates: int = 1000
    """Updates until it gives up; "histories" makes all of them."""
    every: int = 1
    """Updates between two looks at how good it is; each look keeps the policy for the replay recipes."""
    snapshots: int = 16
    """Policies, evenly spread over the training, that the replay recipes record; the last one is among them."""
    model: str = "gru"
    """Its memory; "mlp" is faster where observations are states."""
    width: int = 64
    num_envs: int = 64
    num_steps: int | None = None
    """Steps of each environment per update; by default one episode, but 128 at most."""
    lr: float = 1e-3
    gamma: float = 0.99
    entropy_coef: float | None = None
    """By default 0.01, and 0 for continuous actions."""

    def __post_init__(self) -> None:
        for name in ("max_updates", "every", "snapshots", "width", "num_envs"):
            if getattr(self, name) < 1:
                raise ValueError(f"Teacher: {name} must be at least 1, got {getattr(self, name)}.")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"Teacher: fraction is {self.fraction}; above 0 and at most 1.")

    def ppo(self, env: Env, params: PyTree) -> tuple[PPO, PPOHyper]:
        vec = VecEnv(env, self.num_envs)
        steps = self.num_steps or min(env.horizon, 128)
        batches = next(n for n in (4, 2, 1) if self.num_envs % n == 0)
        ppo = make_ppo(vec, make_model(self.model, width=self.width), num_steps=steps, minibatches=batches)
        box = isinstance(env.action_space(), Box)
        entropy = (0.0 if box else 0.01) if self.entropy_coef is None else self.entropy_coef
        return ppo, PPOHyper(lr=self.lr, gamma=self.gamma, entropy_coef=entropy, env_params=params)


@dataclass(frozen=True)
class _Order:
    """What a recipe is asked for."""

    env: Env
    params: PyTree
    key: Array
    steps: int
    meta: Meta
    teacher: Teacher


def make_dataset(
    recipe: str,
    env: Env,
    params: PyTree,
    key: Array,
    steps: int,
    *,
    teacher: Teacher | None = None,
    meta: Meta | None = None,
) -> Dataset:
    """At least `steps` steps in whole episodes by the recipe of that name (see `RECIPES`). The key is consumed.

    The same key gives the same data. meta: of the data set; recipe, spaces and reference returns are filled in. Raises
    ValueError for unknown recipes, environments that a recipe does not fit, and a teacher that does not get there.
    """
    make = RECIPES[known(recipe, RECIPES, "recipe")]
    if steps < 1:
        raise ValueError(f"{recipe}: steps must be at least 1, got {steps}.")
    reference = reference_returns(env, params) or {}
    meta = replace(
        meta or Meta(env.observation_space(), env.action_space(), env.name),
        recipe=recipe,
        reference=tuple((name, float(x)) for name, x in reference.items() if name in ("random", "expert")),
    )
    return make(_Order(env, params, key, steps, meta, teacher or Teacher()))


# --- without training -------------------------------------------------------------------------------------------------
def _noisy(low: float, high: float) -> Callable[[_Order], Dataset]:
    def make(order: _Order) -> Dataset:
        env, informed = order.env, low < 1
        if informed and not env.has("expert"):
            raise ValueError(
                f"{order.meta.recipe}: {env.name} has no expert; recipes without one are random, medium, "
                "medium-replay and histories."
            )
        behaviour = NoisyExpert(env, order.params, low, high, informed)
        return record_episodes(env, order.params, behaviour, order.key, order.steps, order.meta)

    return make


def _walks(*names: str) -> Callable[[_Order], Dataset]:
    def make(order: _Order) -> Dataset:
        legs = getattr(order.env, "legs", {})
        name = next((name for name in names if name in legs), None)
        if name is None:
            raise ValueError(
                f"{order.meta.recipe}: {order.env.name} names no such walks; grid_stitch and cross_roads do (`legs`)."
            )
        num = len(legs[name]) * max(1, default_envs(order.env, order.steps) // len(legs[name]))
        env, params, walk = legs_of(order.env, name, num)
        return record_episodes(env, params, walk, order.key, order.steps, order.meta, num_envs=num)

    return make


def _budgets(order: _Order) -> Dataset:
    if not isinstance(order.env, SafeGrid):
        raise ValueError(f"{order.meta.recipe}: {order.env.name} has no guide that keeps to a budget; safe_grid has.")
    return record_episodes(order.env, order.params, Careful(order.env), order.key, order.steps, order.meta)


# --- with a teacher ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Look:
    """The teacher after some updates."""

    updates: int
    params: PyTree
    value: float
    """Mean return of sampled play."""


def _training(ppo: PPO, hyper: PPOHyper, key: Array, every: int, goal: float = math.inf) -> Iterator[_Look]:
    """Looks at a training, without end. The key is consumed.

    One that seems to be at the goal is taken again, eight times as long, lest luck pass for skill.
    """
    init_key, key = jax.random.split(key)
    state = jax.jit(ppo.init)(init_key, hyper)

    @jax.jit
    def judged(state: Any, key: Array) -> Array:
        return ppo.evaluate(state, hyper, key, episodes=1, greedy=False).means()["return_mean"]

    @jax.jit
    def later(state: Any) -> Any:
        return jax.lax.scan(lambda s, _: (ppo.update(s, hyper)[0], None), state, length=every)[0]

    for look in itertools.count():
        once, *more = jax.random.split(jax.random.fold_in(key, look), 9)
        value = float(judged(state, once))
        if value >= goal:
            value = sum(float(judged(state, again)) for again in more) / len(more)
        yield _Look(look * every, state.params, value)
        state = later(state)


def _to_goal(order: _Order, ppo: PPO, hyper: PPOHyper, key: Array) -> list[_Look]:
    """Looks at the training until "medium" is reached. The key is consumed."""
    teacher, goal = order.teacher, _goal(order)
    looks: list[_Look] = []
    for look in _training(ppo, hyper, key, teacher.every, goal):
        looks.append(look)
        if look.value >= goal:
            return looks
        if look.updates >= teacher.max_updates:
            break
    best = max(looks, key=lambda look: look.value)
    raise ValueError(
        f"{order.meta.recipe}: PPO on {order.env.name} did not reach a return of {goal:.4g} in {looks[-1].updates} "
        f"updates; the best was {best.value:.4g} after {best.updates}. Give the teacher more max_updates, another lr "
        "or model, or a lower goal or fraction."
    )


def _goal(order: _Order) -> float:
    teacher, reference = order.teacher, dict(order.meta.reference)
    if teacher.goal is not None:
        return teacher.goal
    if not {"random", "expert"} <= reference.keys():
        raise ValueError(
            f"{order.meta.recipe}: {order.env.name} has no reference returns of random play and an expert for these "
            "parameters, so what is medium? Give the teacher a goal, a return."
        )
    return reference["random"] + teacher.fraction * (reference["expert"] - reference["random"])


def _of(order: _Order, ppo: PPO, look: _Look, key: Array, steps: int) -> Dataset:
    """Episodes of the teacher as it was. The key is consumed."""
    policy = Trained(ppo.agent, look.params, jnp.int32(look.updates))
    return record_episodes(order.env, order.params, policy, key, steps, order.meta)


def _noted(dataset: Dataset, looks: list[_Look]) -> Dataset:
    """With what there is to know about the teacher."""
    last = looks[-1]
    notes = (("teacher_updates", str(last.updates)), ("teacher_return", f"{last.value:.6g}"))
    return replace(dataset, meta=replace(dataset.meta, notes=dataset.meta.notes + notes))


def _medium(order: _Order) -> Dataset:
    key, record_key = jax.random.split(order.key)
    ppo, hyper = order.teacher.ppo(order.env, order.params)
    looks = _to_goal(order, ppo, hyper, key)
    return _noted(_of(order, ppo, looks[-1], record_key, order.steps), looks)


def _medium_expert(order: _Order) -> Dataset:
    key, expert_key = jax.random.split(order.key)
    half = -(-order.steps // 2)
    expert = _noisy(0.0, 0.0)(replace(order, key=expert_key, steps=half))
    medium = _medium(replace(order, key=key, steps=half))
    return concatenate([medium, expert], medium.meta, number=True)


def _replay(order: _Order, ppo: PPO, looks: list[_Look], key: Array) -> Dataset:
    """Equal shares of the teacher as it was along its way, in that order. The key is consumed."""
    count = min(order.teacher.snapshots, len(looks))
    chosen = [looks[round(i * (len(looks) - 1) / max(count - 1, 1))] for i in range(count)] if count > 1 else looks[-1:]
    share = -(-order.steps // count)
    keys = jax.random.split(key, count)
    parts = [_of(order, ppo, look, key, share) for look, key in zip(chosen, keys, strict=True)]
    return _noted(concatenate(parts), looks)


def _medium_replay(order: _Order) -> Dataset:
    key, record_key = jax.random.split(order.key)
    ppo, hyper = order.teacher.ppo(order.env, order.params)
    return _replay(order, ppo, _to_goal(order, ppo, hyper, key), record_key)


def _histories(order: _Order) -> Dataset:
    key, record_key = jax.random.split(order.key)
    ppo, hyper = order.teacher.ppo(order.env, order.params)
    looks = itertools.islice(
        _training(ppo, hyper, key, order.teacher.every), order.teacher.max_updates // order.teacher.every + 1
    )
    return _replay(order, ppo, list(looks), record_key)


RECIPES: dict[str, Callable[[_Order], Dataset]] = {
    "random": _noisy(1.0, 1.0),
    "expert": _noisy(0.0, 0.0),
    "eps-mix": _noisy(0.0, 1.0),
    "medium": _medium,
    "medium-replay": _medium_replay,
    "medium-expert": _medium_expert,
    "histories": _histories,
    "stitch": _walks("stitch", "stitching"),
    "crossing": _walks("crossing"),
    "budgets": _budgets,
}
"""name -> recipe.

random          uniform legal actions
expert          the environment's own
eps-mix         the expert with a share of random actions that each episode draws from [0, 1]; `source`: in percent
medium          PPO, stopped on its way from random play to the expert
medium-replay   PPO on its way there, in this order; `source`: its updates
medium-expert   half of either; `source`: 0 or 1
histories       PPO along a whole training; `source`: its updates
stitch          walks of which no single one leads from the start to the goal; `source`: which walk
crossing        walks that meet halfway, of which one leads to the goal, from another start; `source`: which walk
budgets         shortest ways with so many costly steps at most, and one random action in five; `source`: how many
"""
