"""Learners from data: what all of them share, and the supervised one of sequence policies.

learner = make_method("dt", env, make_model("gpt", width=32))
hyper = learner.hyper(dataset, env_params=params, lr=1e-3)
state, metrics = learner.update(learner.init(key, hyper), hyper)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs import Env
from jaxrl_seq.offline.dataset import Dataset, require_env, warn_target
from jaxrl_seq.offline.evaluate import evaluate_policy, film_policy, target_curve
from jaxrl_seq.offline.network import TokenNet, columns_of, fresh_variables, prepare
from jaxrl_seq.offline.objectives import objective
from jaxrl_seq.offline.policy import Mode, Policy, check_mode, make_policy
from jaxrl_seq.offline.sampler import Anchor, Weight, Window, Windows
from jaxrl_seq.offline.signals import Signal
from jaxrl_seq.online.evaluate import Episodes, Recording, reference_returns
from jaxrl_seq.online.optimiser import FitHyper, fit, init_optimiser, learning_rate
from jaxrl_seq.types import Array, Metrics, PyTree

CURVE = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
"""Targets of every evaluation, as shares of the way from random play (or the data's worst) to the data's best."""


@struct.dataclass
class OfflineHyper(FitHyper):
    """The numbers that are traced, and the data. `learner.hyper(dataset)` makes and checks one."""

    target: float | None = None
    """The return that the headline asks for; None for the best of the data."""
    data: object = None
    """The `Dataset`, with the columns that the learner needs."""
    env_params: object = None
    """Parameters of the environment; None for its defaults."""


@struct.dataclass
class OfflineState:
    params: PyTree
    """What is learnt."""
    stats: PyTree
    """Units of the data, which belong to the parameters and never change."""
    opt_state: PyTree
    key: Array
    update: Array
    """int32 []: updates done; keys are folded from it."""

    @property
    def variables(self) -> dict[str, PyTree]:
        """As networks take them."""
        return {"params": self.params, "stats": self.stats}


@dataclass(frozen=True, kw_only=True)
class OfflineLearner:
    """What a run may ask of a learner that has a `policy`; subclasses say how it learns."""

    env: Env
    """What evaluations and recordings play."""
    name: str
    model_name: str = "custom"
    batch: int = 64
    """Windows of a gradient step."""
    steps: int = 1
    """Gradient steps an update."""
    num_envs: int = 16
    """Environments of an evaluation, for each target."""
    greedy: bool = True
    """Whether evaluations take the most likely action."""

    def __post_init__(self) -> None:
        for field in ("batch", "steps", "num_envs"):
            if getattr(self, field) < 1:
                raise ValueError(f"{self.name}: {field} must be at least 1, got {getattr(self, field)}.")

    # --- what subclasses say ------------------------------------------------------------------------------------------
    def prepared(self, dataset: Dataset) -> Dataset:
        """The data with the columns that are needed. ValueError for data that this cannot learn from."""
        return dataset

    def policy(self, state: Any, asked: dict[str, Array], greedy: bool) -> Policy:
        """Trained so far; asked: what is asked of each signal [B], a number a row."""
        raise NotImplementedError

    @property
    def sampler(self) -> Windows:
        """What draws the windows of an update."""
        raise NotImplementedError

    def loss(self, variables: PyTree, window: Window) -> tuple[Array, Metrics]:
        """The objective's value on windows [W, B], a mean over what is valid of them."""
        raise NotImplementedError

    def asked(self, hyper: Any) -> dict[str, Array]:
        """What evaluations ask of each signal, float32 [G]: the headline first, then a curve. Nothing: {}."""
        if not self.conditioned:
            return {}
        return {"rtg": self.targets(hyper)}

    def curve(self, played: Episodes, asked: dict[str, Array]) -> dict[str, Array]:
        """Float32 scalars for the rows of a run, of episodes [G, B, E] that asked for this [G], the headline's not
        among them."""
        return target_curve(played, CURVE, asked["rtg"])

    @property
    def conditioned(self) -> bool:
        """Whether the policy is asked for a return."""
        return False

    @property
    def steps_per_update(self) -> int:
        """Steps of the data that an update reads, padding included."""
        return self.steps * self.batch * self.sampler.length

    # --- hyper-parameters ---------------------------------------------------------------------------------------------
    def hyper(self, dataset: Dataset, *, env_params: PyTree = None, **numbers: Any) -> Any:
        """The hyper-parameters, with the data. ValueError where it does not fit the environment or the network; warns
        of a target that the data never shows."""
        require_env(dataset, self.env)
        data = self.prepared(dataset)
        hyper = dataclasses.replace(self.default_hyper(), data=data, env_params=env_params, **numbers)
        if self.conditioned and hyper.target is not None:
            warn_target(dataset.stats, hyper.target)
        best = float(np.asarray(dataset.stats.return_high))
        return dataclasses.replace(hyper, target=best if hyper.target is None else float(hyper.target))

    def default_hyper(self) -> Any:
        return OfflineHyper()

    def _data(self, hyper: Any) -> Dataset:
        if not isinstance(hyper.data, Dataset):
            raise ValueError(f"{self.name}: there is no data to learn from: make hyper with learner.hyper(dataset).")
        return hyper.data

    def update(self, state: OfflineState, hyper: OfflineHyper) -> tuple[OfflineState, Metrics]:
        """`steps` gradient steps. Pure."""
        data = self._data(hyper)

        def draw(key: Array) -> Any:
            return self.sampler(key, data, self.batch)

        def loss(params: PyTree, window: Window) -> tuple[Array, Metrics]:
            return self.loss({"params": params, "stats": state.stats}, window)

        keys = jax.random.split(jax.random.fold_in(state.key, state.update), self.steps)
        lr = learning_rate(state.update, hyper)
        params, opt_state, metrics = fit(draw, loss, state.params, state.opt_state, keys, lr, hyper)
        return dataclasses.replace(state, params=params, opt_state=opt_state, update=state.update + 1), metrics

    # --- what a run may ask -------------------------------------------------------------------------------------------
    def describe(self) -> dict[str, str]:
        """Names for summaries and reports."""
        return {"learner": self.name, "env": self.env.name, "model": self.model_name}

    def reference(self, hyper: Any) -> dict[str, float] | None:
        """Reference returns of the environment, where it has them for these parameters."""
        return reference_returns(self.env, hyper.env_params)

    def evaluate(
        self, state: OfflineState, hyper: Any, key: Array, *, episodes: int = 4, greedy: bool | None = None
    ) -> Episodes:
        """`episodes` episodes in each of `num_envs` environments that ask for `hyper.target`, [B, E]; the targets of
        a curve are played beside them and are in `numbers`. The best of them is never picked. The key is consumed."""
        asked = self.asked(hyper)
        rows = {name: jnp.repeat(x, self.num_envs) for name, x in asked.items()}
        played = evaluate_policy(
            self.policy(state, rows, self.greedy if greedy is None else greedy),
            self.env,
            key,
            self._env_params(hyper),
            num_envs=self.num_envs,
            groups=len(next(iter(asked.values()), "1")),
            episodes=episodes,
        )
        headline, rest = jax.tree.map(lambda x: x[0], played), jax.tree.map(lambda x: x[1:], (played, asked))
        numbers = {"online_episodes": jnp.float32(played.returns.size)} | (self.curve(*rest) if asked else {})
        return dataclasses.replace(headline, numbers=numbers)

    def targets(self, hyper: Any) -> Array:
        """float32 [G]: returns, the headline's and then those of `CURVE`."""
        data = self._data(hyper)
        headline = jnp.asarray(data.stats.return_high if hyper.target is None else hyper.target, jnp.float32)
        low = dict(data.meta.reference).get("random", data.stats.return_low)
        curve = low + jnp.asarray(CURVE, jnp.float32) * (data.stats.return_high - low)
        return jnp.concatenate([headline[None], curve])

    def record(
        self, state: OfflineState, hyper: Any, key: Array, *, num_envs: int = 4, max_steps: int = 200
    ) -> Recording:
        """One episode in `num_envs` environments that ask for the headline's target. The key is consumed."""
        asked = {name: jnp.repeat(x[:1], num_envs) for name, x in self.asked(hyper).items()}
        policy = self.policy(state, asked, self.greedy)
        params = self._env_params(hyper)
        return film_policy(policy, self.env, key, params, num_envs=num_envs, max_steps=max_steps)

    @property
    def world(self) -> Env:
        """The environment that `record` shows."""
        return self.env

    def _env_params(self, hyper: Any) -> PyTree:
        return self.env.default_params() if hyper.env_params is None else hyper.env_params


@dataclass(frozen=True, kw_only=True)
class SequenceLearner(OfflineLearner):
    """One update = `steps` gradient steps on `batch` windows each: predict the terms of `net` from its tokens."""

    net: TokenNet
    signals: tuple[Signal, ...] = ()
    mode: Mode = "window"
    """How the policy acts; see `offline.policy`. cache and recurrent learn from whole episodes."""
    window: int = 20
    """W, steps of a training window; for whole episodes at least their length."""
    weight: Weight = "step"
    """What windows are drawn by."""

    def __post_init__(self) -> None:
        super().__post_init__()
        net = self.net
        if self.window < 1:
            raise ValueError(f"{self.name}: window must be at least 1, got {self.window}.")
        given = tuple(name for term in net.terms for name in term.given)
        net.tokens.check(tuple(signal.name for signal in self.signals), given)
        if net.model.has_memory:
            check_mode(self.mode, net.model, self.window, net.tokens.per_step)
        if 0 < net.positions < self.env.horizon:
            raise ValueError(
                f"{self.name}: there are {net.positions} positions, but episodes of {self.env.name} have up to "
                f"{self.env.horizon} steps: give as many positions, or none (0)."
            )

    @property
    def conditioned(self) -> bool:
        return any(signal.name == "rtg" for signal in self.signals)

    @property
    def sampler(self) -> Windows:
        whole = self.mode != "window" and self.net.model.has_memory
        anchor: Anchor = "first" if whole else "start"
        return Windows(self.window, self.weight, anchor)

    def prepared(self, dataset: Dataset) -> Dataset:
        longest = int(dataset.stats.length_max)
        if self.sampler.anchor == "first" and longest > self.window:
            raise ValueError(
                f"{self.name}: in mode {self.mode} the policy remembers whole episodes, so it learns from whole ones, "
                f"and the longest of the data has {longest} steps: use a window of {longest}, or mode window."
            )
        if 0 < self.net.positions < longest:
            raise ValueError(
                f"{self.name}: there are {self.net.positions} positions, but the data has an episode of {longest} "
                "steps: give as many positions, or none (0)."
            )
        return prepare(dataset, self.signals)

    def init(self, key: Array, hyper: OfflineHyper) -> OfflineState:
        """Fresh parameters. ValueError where `hyper` was not made for this learner. The key is consumed."""
        data = self._data(hyper)
        if missing := [signal.name for signal in self.signals if signal.name not in data.extra]:
            raise ValueError(f"{self.name}: the data has no column {missing[0]!r}: make hyper with learner.hyper(...).")
        init_key, key = jax.random.split(key)
        variables = fresh_variables(self.net, self.env, init_key, data)
        params = variables["params"]
        return OfflineState(params, variables["stats"], init_optimiser(params), key, jnp.int32(0))

    def loss(self, variables: PyTree, window: Window) -> tuple[Array, Metrics]:
        columns = columns_of(window)
        outs = self.net.parallel(variables, columns, window.reset, window.clock)
        return objective(self.net.terms, outs, columns, window.mask)

    def policy(self, state: Any, asked: dict[str, Array], greedy: bool) -> Any:
        variables = self.acting(state)
        return make_policy(self.net, self.signals, variables, asked, mode=self.mode, window=self.window, greedy=greedy)

    def acting(self, state: Any) -> PyTree:
        """The variables of `net`."""
        return state.variables
