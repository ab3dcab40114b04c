"""Learning algorithms and oracles by name, as policies for `play`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxrl_seq.envs import Discrete, MultiDiscrete
from jaxrl_seq.envs.bandits.bandit import Bandit
from jaxrl_seq.envs.bandits.bernoulli import BernoulliBandit, DependentBandit, OddBandit
from jaxrl_seq.envs.bandits.gaussian import LinearBandit
from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.envs.core.trials import TrialEnv
from jaxrl_seq.envs.gridworlds.darkroom import DarkRoom
from jaxrl_seq.envs.planning.tabular_mdp import TabularMDPParams
from jaxrl_seq.incontext.algorithms.bandits import (
    UCB,
    BetaThompson,
    DPTBehaviour,
    GaussianThompson,
    Greedy,
    LinThompson,
    LinUCB,
)
from jaxrl_seq.incontext.algorithms.dark_rooms import Posterior, Roamer, Sweeper
from jaxrl_seq.incontext.algorithms.scripted import Expert, NoisyExpert, Uniform
from jaxrl_seq.incontext.algorithms.tabular import PSRL, UCBVI, Numbered, QLearning
from jaxrl_seq.incontext.policies import Streams
from jaxrl_seq.types import PyTree

__all__ = [
    "ALGORITHMS",
    "PSRL",
    "UCB",
    "UCBVI",
    "BetaThompson",
    "DPTBehaviour",
    "Expert",
    "GaussianThompson",
    "Greedy",
    "LinThompson",
    "LinUCB",
    "NoisyExpert",
    "Posterior",
    "QLearning",
    "Roamer",
    "Sweeper",
    "Uniform",
    "make_algorithm",
]


def make_algorithm(name: str, trial: TrialEnv, params: PyTree = None, **options: Any) -> Streams:
    """The algorithm of that name for trials of `trial`, as a policy; one independent copy in every stream.

    params: of the environment, for what algorithms may know of it, such as the noise; the default ones if None.
    options: fields of the algorithm, in place of what is best known for the environment. Raises ValueError for unknown
    names and options, and for algorithms that do not fit the environment.
    """
    known(name, ALGORITHMS, "algorithm")
    if not isinstance(trial, TrialEnv):
        raise ValueError(f"{name} learns over a trial: wrap it, TrialEnv({trial.name}, episodes=...).")
    params = trial.default_params() if params is None else params
    return Streams(ALGORITHMS[name](trial, params, **options))


# --- what fits --------------------------------------------------------------------------------------------------------
def _with(name: str, kind: type, fixed: dict[str, Any], defaults: dict[str, Any], options: dict[str, Any]) -> Any:
    """`kind(**fixed, **defaults, **options)`, options before defaults, numbers as float32 arrays."""
    fields = [field.name for field in dataclasses.fields(kind) if field.name not in fixed]
    for option in options:
        known(option, fields, f"option of {name}")
    given = {
        key: value if isinstance(value, str | bool) else jnp.asarray(value, jnp.float32)
        for key, value in (defaults | options).items()
    }
    return kind(**fixed, **given)


def _actions(name: str, trial: TrialEnv) -> int:
    space = trial.action_space()
    if not isinstance(space, Discrete):
        raise ValueError(f"{name} chooses among discrete actions; those of {trial.name} are {space}.")
    return space.n


def _arms(name: str, trial: TrialEnv, kinds: type | tuple[type, ...] = Bandit) -> int:
    if not isinstance(trial.env, kinds):
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        wanted = "a bandit" if kinds == (Bandit,) else " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{name} needs {wanted}; {trial.name} is none. `q-learning` is for what has states.")
    return _actions(name, trial)


def _tables(name: str, trial: TrialEnv) -> dict[str, Any]:
    """Sizes of a tabular MDP."""
    space = trial.env.observation_space()
    if isinstance(space, MultiDiscrete):
        return {"states": math.prod(space.ns), "actions": _actions(name, trial)}
    if not isinstance(space, Discrete):
        raise ValueError(
            f"{name} keeps a table of states; observations of {trial.name} are {space}, not numbers of states "
            "(`darkroom`, `tabular_mdp` and others have these)."
        )
    return {"states": space.n, "actions": _actions(name, trial)}


def _dark_room(name: str, trial: TrialEnv) -> dict[str, Any]:
    if not isinstance(trial.env, DarkRoom) or trial.env.permuted:
        raise ValueError(f"{name} walks through dark rooms (`darkroom`, not permuted), not through {trial.env}.")
    return {"env": trial.env}


def _oracle(name: str, trial: TrialEnv) -> None:
    if not trial.has("expert"):
        raise ValueError(f"{name} acts as the environment's `expert` does, and {trial.name} has none.")


def _numbered(trial: TrialEnv, algorithm: Any) -> Any:
    """`algorithm`, which takes numbers of states, for the observations of `trial`."""
    space = trial.env.observation_space()
    return Numbered(algorithm, space.ns) if isinstance(space, MultiDiscrete) else algorithm


# --- builders ---------------------------------------------------------------------------------------------------------
_COINS = (BernoulliBandit, DependentBandit, OddBandit)


def _uniform(trial: TrialEnv, params: PyTree, **options: Any) -> Any:
    return _with("uniform", Uniform, {"space": trial.action_space()}, {}, options)


def _expert(trial: TrialEnv, params: PyTree, **options: Any) -> Any:
    _oracle("expert", trial)
    return _with("expert", Expert, {"trial": trial, "params": params}, {}, options)


def _noisy_expert(trial: TrialEnv, params: PyTree, **options: Any) -> Any:
    name = "noisy-expert"
    _oracle(name, trial)
    _actions(name, trial)
    known(options.get("schedule", "linear"), ("linear", "constant", "stream"), f"schedule of {name}")
    fixed = {"trial": trial, "params": params}
    return _with(name, NoisyExpert, fixed, {"episodes": trial.max_episodes}, options)


def _sweeper(trial: TrialEnv, params: PyTree, **options: Any) -> Any:
    return _with("sweeper", Sweeper, _dark_room("sweeper", trial), {}, options)


def _roamer(trial: TrialEnv, params: PyTree, **options: Any) -> Any:
    return _with("roamer", Roamer, _dark_room("roamer", trial), {}, options)


def _posterior(trial: TrialEnv, params: PyTree, **options: Any) -> Any:
    known(options.get("commit", "step"), ("step", "episode"), "commit of posterior")
    return _with("posterior", Posterior, _dark_room("posterior", trial), {}, options)


def _normal_prior(trial: TrialEnv, params: Any) -> tuple[Any, Any]:
    """(means, variances) of the arms, [] or [A]."""
    if isinstance(trial.env, LinearBandit):
        return 0.0, (params.features**2).mean(-1)  # theta ~ N(0, 1 / d)
    return (params.low + params.high) / 2, (params.high - params.low) ** 2 / 12


def _thompson(trial: TrialEnv, params: Any, **options: Any) -> Any:
    arms = {"arms": _arms("thompson", trial)}
    if isinstance(trial.env, _COINS):
        return _with("thompson", BetaThompson, arms, {}, options)
    mean, variance = _normal_prior(trial, params)
    defaults = {"prior_mean": mean, "prior_variance": variance, "noise": params.noise}
    return _with("thompson", GaussianThompson, arms, defaults, options)


def _ucb(trial: TrialEnv, params: PyTree, **options: Any) -> Any:
    arms = {"arms": _arms("ucb", trial)}
    # what does well: tuned for flips of coins, and the reference of Lee et al. 2023 for Gaussian arms
    best = {"bonus": 0.2} if isinstance(trial.env, _COINS) else {"bonus": 1.0, "fixed": True}
    return _with("ucb", UCB, arms, best, options)


def _greedy(trial: TrialEnv, params: PyTree, **options: Any) -> Any:
    arms = {"arms": _arms("greedy", trial)}
    return _with("greedy", Greedy, arms, {"prior_weight": 2.0} if isinstance(trial.env, _COINS) else {}, options)


def _lin_ucb(trial: TrialEnv, params: Any, **options: Any) -> Any:
    _arms("lin-ucb", trial, LinearBandit)
    return _with("lin-ucb", LinUCB, {}, {"features": params.features}, options)


def _lin_thompson(trial: TrialEnv, params: Any, **options: Any) -> Any:
    _arms("lin-thompson", trial, LinearBandit)
    ridge = params.noise**2 * params.features.shape[1]  # of the prior N(0, 1 / d)
    defaults = {"features": params.features, "noise": params.noise, "ridge": ridge}
    return _with("lin-thompson", LinThompson, {}, defaults, options)


def _q_learning(trial: TrialEnv, params: PyTree, **options: Any) -> Any:
    name = "q-learning"
    defaults = {"episodes": trial.max_episodes, "terminal": not trial.env.fixed_length}
    return _numbered(trial, _with(name, QLearning, _tables(name, trial), defaults, options))


def _psrl(trial: TrialEnv, params: PyTree, **options: Any) -> Any:
    fixed = _tables("psrl", trial) | {"horizon": trial.env.horizon}
    prior = {}
    if isinstance(params, TabularMDPParams):
        prior = {name: getattr(params, name) for name in ("reward_mean", "reward_spread", "noise")}
    return _numbered(trial, _with("psrl", PSRL, fixed, prior, options))


def _ucb_vi(trial: TrialEnv, params: PyTree, **options: Any) -> Any:
    fixed = _tables("ucb-vi", trial) | {"horizon": trial.env.horizon}
    defaults: dict[str, Any] = {"steps": trial.horizon}
    if isinstance(params, TabularMDPParams):
        defaults["top"] = params.reward_mean + 2 * params.reward_spread
    return _numbered(trial, _with("ucb-vi", UCBVI, fixed, defaults, options))


def _dpt_behaviour(trial: TrialEnv, params: PyTree, **options: Any) -> Any:
    return _with("dpt-behaviour", DPTBehaviour, {"arms": _arms("dpt-behaviour", trial)}, {}, options)


ALGORITHMS: dict[str, Callable[..., Any]] = {
    "uniform": _uniform,
    "expert": _expert,
    "noisy-expert": _noisy_expert,
    "sweeper": _sweeper,
    "roamer": _roamer,
    "posterior": _posterior,
    "thompson": _thompson,
    "ucb": _ucb,
    "greedy": _greedy,
    "lin-ucb": _lin_ucb,
    "lin-thompson": _lin_thompson,
    "q-learning": _q_learning,
    "psrl": _psrl,
    "ucb-vi": _ucb_vi,
    "dpt-behaviour": _dpt_behaviour,
}
"""name -> builder(trial, params, **options) of an `Algorithm`."""
