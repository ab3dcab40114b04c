"""The supervised learner of in-context policies: sequences from learning histories, a recipe's loss, Adam.

A recipe says what a sequence is, what is predicted, and how the trained network acts: see `imitation` (Algorithm
Distillation and its kin) and `dpt`. Everything runs on the device, the making of fresh histories included.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.envs.core.trials import TrialEnv
from jaxrl_seq.incontext.evaluation import evaluate_in_context
from jaxrl_seq.incontext.histories import History, film, play
from jaxrl_seq.online.evaluate import Episodes, Recording, reference_returns
from jaxrl_seq.online.optimiser import FitHyper, fit, init_optimiser, learning_rate
from jaxrl_seq.types import Array, Metrics, PyTree


class Recipe(Protocol):
    """A paper's choices; frozen and hashable. M sequences of T steps are a batch."""

    @property
    def trial(self) -> TrialEnv:
        """The trials that histories come from."""
        ...

    @property
    def window(self) -> int:
        """T."""
        ...

    def check(self, history: Any) -> None:
        """ValueError unless batches can be made of `history` (shapes are enough)."""
        ...

    def init(self, key: Array) -> PyTree:
        """The network's parameters. The key is consumed."""
        ...

    def sequences(self, key: Array, history: History, num: int) -> PyTree:
        """A batch of `num` sequences. The key is consumed."""
        ...

    def loss(self, params: PyTree, batch: PyTree) -> tuple[Array, Metrics]: ...

    def policy(self, params: PyTree, greedy: bool) -> Any:
        """A `ContextPolicy` with these parameters."""
        ...


@struct.dataclass
class DistillHyper(FitHyper):
    """The numbers that are traced, and where sequences come from."""

    history: object = None
    """A `History` to learn from; None to play fresh ones of `source` at every update."""
    source: object = None
    """The `ContextPolicy` that plays them."""
    env_params: object = None
    """Parameters of the environment; None for its defaults."""


@struct.dataclass
class DistillState:
    params: PyTree
    opt_state: PyTree
    key: Array
    update: Array
    """int32 []: updates done; keys are folded from it."""


@dataclass(frozen=True)
class Distill:
    """One update = one gradient step on `batch` sequences of `recipe`."""

    recipe: Any
    eval_trial: TrialEnv
    """What `evaluate` plays: longer trials, on tasks that were held out."""
    batch: int = 64
    steps: int = 1
    """Gradient steps an update."""

    def __post_init__(self) -> None:
        if min(self.batch, self.steps) < 1:
            raise ValueError(f"Distill: batch and steps must be at least 1, got {self.batch} and {self.steps}.")
        shown = [(t.observation_space(), t.action_space()) for t in (self.recipe.trial, self.eval_trial)]
        if shown[0] != shown[1]:
            raise ValueError(f"Distill: histories have spaces {shown[0]}, but evaluation trials {shown[1]}.")

    @property
    def steps_per_update(self) -> int:
        """Steps of histories that an update reads."""
        return self.steps * self.batch * self.recipe.window

    def init(self, key: Array, hyper: DistillHyper) -> DistillState:
        """Fresh parameters. ValueError where `hyper` gives no histories that fit. The key is consumed."""
        if (hyper.history is None) == (hyper.source is None):
            raise ValueError("Distill: give either a history or a source to play fresh ones.")
        history = hyper.history
        if history is None:
            history = jax.eval_shape(self._fresh, key, hyper)
        self.recipe.check(history)
        init_key, key = jax.random.split(key)
        params = self.recipe.init(init_key)
        return DistillState(params=params, opt_state=init_optimiser(params), key=key, update=jnp.int32(0))

    def update(self, state: DistillState, hyper: DistillHyper) -> tuple[DistillState, Metrics]:
        """`steps` gradient steps. Pure."""

        def draw(key: Array) -> PyTree:
            play_key, key = jax.random.split(key)
            history = self._fresh(play_key, hyper) if hyper.history is None else hyper.history
            return self.recipe.sequences(key, history, self.batch)

        keys = jax.random.split(jax.random.fold_in(state.key, state.update), self.steps)
        lr = learning_rate(state.update, hyper)
        params, opt_state, metrics = fit(draw, self.recipe.loss, state.params, state.opt_state, keys, lr, hyper)
        return replace(state, params=params, opt_state=opt_state, update=state.update + 1), metrics

    def _fresh(self, key: Array, hyper: DistillHyper) -> History:
        """One trial of the source on `batch` tasks drawn anew, labelled."""
        trial, params = self.recipe.trial, self._params(hyper)
        task_key, key = jax.random.split(key)
        tasks = self._drawn(trial, task_key, self.batch, params)
        return play(hyper.source, trial, tasks, key, params, label=True)

    def _drawn(self, trial: TrialEnv, key: Array, num: int, params: PyTree) -> PyTree:
        """`num` tasks of a trial. The key is consumed."""
        return jax.vmap(trial.sample_task, in_axes=(0, None))(jax.random.split(key, num), params)

    def _params(self, hyper: DistillHyper) -> PyTree:
        return self.eval_trial.default_params() if hyper.env_params is None else hyper.env_params

    # --- what a run may ask of a learner -----------------------------------------------------------------------------
    def default_hyper(self) -> DistillHyper:
        return DistillHyper()

    def describe(self) -> dict[str, str]:
        """Names for summaries and reports."""
        model = self.recipe.agent.model
        name = getattr(self.recipe, "name", "distill")
        return {"learner": name, "env": self.eval_trial.name, "model": getattr(model, "label", type(model).__name__)}

    def reference(self, hyper: DistillHyper) -> dict[str, float] | None:
        """Reference returns of one episode."""
        return reference_returns(self.eval_trial.env, hyper.env_params)

    def evaluate(
        self, state: DistillState, hyper: DistillHyper, key: Array, *, episodes: int = 4, greedy: bool = False
    ) -> Episodes:
        """`episodes` trials on every task of `eval_trial` (64 drawn ones where there is no list); their episodes as
        [B, K]. Actions are sampled unless `greedy`, as a policy that learns has to explore. The key is consumed."""
        trial, params = self.eval_trial, self._params(hyper)
        task_key, key = jax.random.split(key)
        if trial.has("tasks"):
            tasks = jax.tree.map(lambda x: jnp.repeat(x, episodes, axis=0), trial.tasks(params))
        else:
            tasks = self._drawn(trial, task_key, 64 * episodes, params)
        scores = evaluate_in_context(self.recipe.policy(state.params, greedy), trial, tasks, key, params)
        returns = jnp.where(scores.finished, scores.returns, 0.0)
        lengths = jnp.where(scores.finished, scores.lengths, 0.0)
        # episodes are those inside the trials here, so that the first and the last are columns
        first, last = (jnp.broadcast_to(returns[:, [k]], returns.shape) for k in (0, -1))
        return Episodes(returns, lengths, None, scores.finished, first, last)

    def record(
        self, state: DistillState, hyper: DistillHyper, key: Array, *, num_envs: int = 4, max_steps: int = 200
    ) -> Recording:
        """The beginning of `num_envs` trials of tasks drawn anew. The key is consumed."""
        task_key, key = jax.random.split(key)
        params = self._params(hyper)
        tasks = self._drawn(self.eval_trial, task_key, num_envs, params)
        return film(self.recipe.policy(state.params, False), self.eval_trial, tasks, key, params, max_steps)

    @property
    def world(self) -> TrialEnv:
        """The environment that `record` shows."""
        return self.eval_trial
