"""Trajectory Transformer (Janner et al. 2021, arXiv:2106.02039): a language model of whole trajectories, and a planner.

Every number of a step is a word (`Vocabulary`); the model learns which word comes next, what is seen and paid as well
as what is done. To act, `planner` searches for continuations that pay. Values, too, are predicted (behind the reward)
but no token shows them: what a plan is worth must not depend on values that were made up on the way. (The paper shows
them and hides their keys.)

Letters as in `vocabulary`: P places, K classes; H plan steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxrl_seq.envs import Env
from jaxrl_seq.models import SequenceModel
from jaxrl_seq.offline.dataset import Dataset, returns_to_go
from jaxrl_seq.offline.learner import OfflineHyper, OfflineLearner, OfflineState
from jaxrl_seq.offline.planner import Planner, Search
from jaxrl_seq.offline.policy import key_context
from jaxrl_seq.offline.sampler import Window, Windows
from jaxrl_seq.offline.vocabulary import Codebook, Vocabulary
from jaxrl_seq.online.optimiser import init_optimiser
from jaxrl_seq.types import Array, Metrics, PyTree

ACTION_WEIGHT = 5.0
"""Of an action's word in the loss; all others have 1 (the authors' code)."""

WINDOW = 10
"""Steps that are learnt from in one piece (the paper's)."""


class TrajectoryNet(nn.Module):
    """Any model over the words of trajectories.

    `net(carry, classes[T, P, B], reset[T, B]) -> (carry, logits[T, P+1, B, K])`: behind each word the one that comes
    next, behind a reward the next step's first, and the value; in the order of `predicted`. `step` reads one word, and
    `word` predicts the one of a place from what was read before it.
    """

    model: SequenceModel
    places: int
    """P."""
    bins: int
    """K."""

    def setup(self) -> None:
        shape, init = (self.bins, self.model.features), nn.initializers.normal(0.02)
        self.embeds = self.param("embeds", init, (self.places, *shape))
        self.heads = self.param("heads", init, (self.places + 1, *shape))
        self.biases = self.param("biases", nn.initializers.zeros, (self.places + 1, self.bins))

    @property
    def predicted(self) -> tuple[int, ...]:
        """The places of the P + 1 predictions of a step."""
        return (*range(1, self.places), 0, self.places)

    def __call__(self, carry: PyTree, classes: Array, reset: Array) -> tuple[PyTree, Array]:
        steps, places, batch = classes.shape
        x = self.embeds[jnp.arange(places)[:, None], classes].reshape(steps * places, batch, -1)
        opens = jnp.zeros((steps, places, batch), bool).at[:, 0].set(reset)
        carry, y = self.model(carry, x, opens.reshape(-1, batch))
        y = y.reshape(steps, places, batch, -1)
        y = jnp.concatenate([y, y[:, -1:]], axis=1)
        of = jnp.array(self.predicted)
        logits = jnp.einsum("tpbd,pkd->tpbk", y, self.heads[of]) + self.biases[of][:, None]
        return carry, logits.astype(jnp.float32)

    def step(self, carry: PyTree, place: Array, classes: Array, reset: Array) -> tuple[PyTree, Array]:
        """Reads words [B] of a place (int32 []): (carry, hidden [B, D])."""
        return self.model.step(carry, self.embeds[place, classes], reset)

    def word(self, place: Array | int, hidden: Array) -> Array:
        """Logits [..., K] of the word of a place, P for the value, from what was read before it, [..., D]."""
        return (hidden @ self.heads[place].T + self.biases[place]).astype(jnp.float32)


@dataclass(frozen=True, kw_only=True)
class TrajectoryLearner(OfflineLearner):
    """One update = `steps` gradient steps on `batch` windows each: the next word of each, and the values."""

    net: TrajectoryNet
    vocabulary: Vocabulary
    window: int = WINDOW
    """W, steps of a training window; acting reads W - H steps and plans H."""
    search: Search = Search()
    gamma: float = 0.99
    """Discount of the value, and of a plan's rewards."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.gamma <= 1:
            raise ValueError(f"{self.name}: gamma must be in (0, 1], got {self.gamma}.")
        if not self.search.horizon <= self.window:
            raise ValueError(
                f"{self.name}: a plan of {self.search.horizon} steps is longer than the windows of {self.window} steps "
                "that are learnt from: plan fewer steps, or use longer windows."
            )
        context, words = key_context(self.net.model), self.window * self.vocabulary.places
        if context is not None and words > context:
            raise ValueError(
                f"{self.name}: a window of {self.window} steps has {words} words ({self.vocabulary.places} a step), "
                f"but the model reads {context}: give it a context of {words}, or use a window of "
                f"{context // self.vocabulary.places} steps."
            )

    @property
    def sampler(self) -> Windows:
        return Windows(self.window)

    def prepared(self, dataset: Dataset) -> Dataset:
        total = returns_to_go(dataset.reward, dataset.to_end, self.gamma)
        return dataset.with_column("value", (total - dataset.reward) / self.gamma)

    def init(self, key: Array, hyper: OfflineHyper) -> OfflineState:
        """Fresh parameters, and the classes of this data. ValueError where `hyper` was not made for this learner. The
        key is consumed."""
        data = self._data(hyper)
        if "value" not in data.extra:
            raise ValueError(f"{self.name}: the data has no column 'value': make hyper with learner.hyper(...).")
        init_key, key = jax.random.split(key)
        classes = jnp.zeros((1, self.vocabulary.places, 1), jnp.int32)
        carry = self.net.model.initialize_carry((1,))
        params = self.net.init(init_key, carry, classes, jnp.ones((1, 1), bool))["params"]
        book = self.vocabulary.fit(data, data.extra["value"])
        return OfflineState(params, book, init_optimiser(params), key, jnp.int32(0))

    def loss(self, variables: PyTree, window: Window) -> tuple[Array, Metrics]:
        book: Codebook = variables["stats"]
        words, places, acted = self.vocabulary, self.vocabulary.places, self.vocabulary.acted
        classes = book.classes(words.write(window.obs, window.action, window.reward)).swapaxes(1, 2)
        steps, _, batch = classes.shape
        carry = self.net.model.initialize_carry((batch,))
        outs: Any = self.net.apply({"params": variables["params"]}, carry, classes, window.reset)

        predicted = self.net.predicted
        following = jnp.roll(classes.reshape(-1, batch), -1, axis=0).reshape(classes.shape)
        target = jnp.concatenate([following, book.value_class(window.extra["value"])[:, None]], axis=1)
        later = jnp.concatenate([window.mask[1:], jnp.zeros((1, batch), bool)])
        valid = jnp.stack([later if place == 0 else window.mask for place in predicted], axis=1)
        logits = book.possible(outs[1], jnp.array(predicted)[:, None])
        error = jnp.where(valid, optax.softmax_cross_entropy_with_integer_labels(logits, target), 0.0)

        kinds = {"obs": range(words.observed), "action": range(acted.start, acted.stop), "reward": (places - 1,)}
        metrics, weights = {}, jnp.array([ACTION_WEIGHT if place in kinds["action"] else 1.0 for place in predicted])
        for name, kind in (kinds | {"value": (places,)}).items():
            of_kind = jnp.array([place in kind for place in predicted])[:, None]
            metrics[f"{name}_loss"] = jnp.sum(error * of_kind) / jnp.maximum(jnp.sum(valid & of_kind), 1)
        return jnp.sum(error * weights[:, None]) / jnp.maximum(jnp.sum(valid), 1), metrics

    def policy(self, state: OfflineState, asked: dict[str, Array], greedy: bool) -> Planner:
        past = self.window - self.search.horizon
        return Planner(self.net, self.vocabulary, self.search, past, self.gamma, state.variables)


def make_trajectory(
    env: Env,
    model: SequenceModel,
    *,
    bins: int = 100,
    window: int | None = None,
    search: Search | None = None,
    **options: Any,
) -> TrajectoryLearner:
    """The learner for `env`, around `model`; `options` are further fields of `TrajectoryLearner`. window None: what the
    model reads, at most 10 steps. Raises ValueError for what does not go together."""
    vocabulary = Vocabulary(env.observation_space(), env.action_space(), bins)
    context = key_context(model)
    longest = WINDOW if context is None else min(WINDOW, max(context // vocabulary.places, 1))
    return TrajectoryLearner(
        env=env,
        name="tt",
        model_name=getattr(model, "label", type(model).__name__),
        net=TrajectoryNet(model, vocabulary.places, bins),
        vocabulary=vocabulary,
        window=window or longest,
        search=search or Search(),
        **options,
    )
