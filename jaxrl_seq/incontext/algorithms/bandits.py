"""Bandit algorithms: Thompson sampling, optimism, greed, their linear forms, and the behaviour policy of DPT's data.

All are `Algorithm`s: one stream, no batch axis. Of what was pulled they keep counts and sums only, of which the last
part of this file makes the offline estimates.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.incontext.algorithms.scripted import allowed, draw, greedy
from jaxrl_seq.incontext.histories import History
from jaxrl_seq.incontext.policies import Step, View
from jaxrl_seq.types import Array


@struct.dataclass
class Pulls:
    """float32 [A] each."""

    counts: Array
    sums: Array
    """Of what the arm paid."""


@struct.dataclass
class _Counting:
    """Remembers counts and sums."""

    arms: int = struct.field(pytree_node=False)

    def init(self, key: Array) -> Pulls:
        return Pulls(counts=jnp.zeros(self.arms), sums=jnp.zeros(self.arms))

    def observe(self, key: Array, memory: Pulls, step: Step) -> Pulls:
        arm = jax.nn.one_hot(step.action, self.arms)
        return Pulls(counts=memory.counts + arm, sums=memory.sums + step.reward * arm)


def _best(scores: Array, view: View) -> tuple[Array, Array]:
    """Best arm by scores [A] that were drawn, hence of a chance that is not known: NaN."""
    scores = jnp.where(allowed(view, scores.shape[-1]), scores, -jnp.inf)
    return jnp.argmax(scores).astype(jnp.int32), jnp.float32(jnp.nan)


def gamma(key: Array, shape: Array) -> Array:
    """Draws from Gamma(shape, 1) for shapes [...] of at least 1, all at once (Marsaglia & Tsang 2000).

    JAX's own draws one number after the other on CPU, four times slower. Of six proposals the first accepted is taken,
    each is with a chance above 0.95: none is once in 10^8 draws, which then are the distribution's mode.
    """
    normal_key, key = jax.random.split(key)
    x = jax.random.normal(normal_key, (6, *shape.shape))
    scale = shape - 1 / 3
    v = (1 + x / jnp.sqrt(9 * scale)) ** 3
    bound = x**2 / 2 + scale * (1 - v + jnp.log(jnp.maximum(v, 1e-30)))
    accepted = (v > 0) & (jnp.log1p(-jax.random.uniform(key, x.shape)) < bound)
    first = jnp.take_along_axis(v, jnp.argmax(accepted, axis=0)[None], axis=0)[0]
    return jnp.where(accepted.any(axis=0), scale * first, shape - 1)


# --- independent arms -------------------------------------------------------------------------------------------------
@struct.dataclass
class BetaThompson(_Counting):
    """The best arm of a draw from the posterior, for payouts 0 or 1 (Thompson 1933). `log_prob` is NaN."""

    wins: Array | float = 1.0
    """Of the prior, Beta(wins, losses); at least 1."""
    losses: Array | float = 1.0

    def act(self, key: Array, memory: Pulls, view: View) -> tuple[Pulls, Array, Array]:
        won, lost = gamma(key, jnp.stack(self.posterior(memory)))
        return memory, *_best(won / (won + lost), view)

    def posterior(self, memory: Pulls) -> tuple[Array, Array]:
        """([A], [A]): both parameters of the arms' Beta distributions."""
        return self.wins + memory.sums, self.losses + memory.counts - memory.sums


@struct.dataclass
class GaussianThompson(_Counting):
    """The best arm of a draw from the posterior, for Gaussian payouts of known noise. `log_prob` is NaN.

    The prior N(1/2, 1/12) has the mean and the variance of U[0, 1], as in Lee et al. 2023 (arXiv 2306.14892).
    """

    prior_mean: Array | float = 0.5
    """[] or [A]."""
    prior_variance: Array | float = 1 / 12
    noise: Array | float = 0.3
    """Standard deviation of a payout."""

    def act(self, key: Array, memory: Pulls, view: View) -> tuple[Pulls, Array, Array]:
        mean, variance = self.posterior(memory)
        drawn = mean + jnp.sqrt(variance) * jax.random.normal(key, (self.arms,))
        return memory, *_best(drawn, view)

    def posterior(self, memory: Pulls) -> tuple[Array, Array]:
        """([A], [A]): means and variances."""
        weight = self.noise**2 / self.prior_variance
        return posterior_mean(memory, self.prior_mean, weight), self.noise**2 / (weight + memory.counts)


@struct.dataclass
class UCB(_Counting):
    """The highest mean + bonus * sqrt(log(t) / n) in pull t of an arm pulled n times; arms never pulled come first.

    `bonus` sqrt(2) is UCB1, for payouts in 0 .. 1 (Auer et al. 2002); less is better in practice. With `fixed` the
    logarithm is left out: mean + bonus / sqrt(n). Ties are broken at random, and `log_prob` is exact.
    """

    bonus: Array | float = 2**0.5
    fixed: bool = struct.field(pytree_node=False, default=False)

    def act(self, key: Array, memory: Pulls, view: View) -> tuple[Pulls, Array, Array]:
        return memory, *draw(key, greedy(self.bounds(memory), allowed(view, self.arms)))

    def bounds(self, memory: Pulls) -> Array:
        """[A]: infinite for arms never pulled."""
        spread = 1.0 if self.fixed else jnp.log(memory.counts.sum() + 1)
        bounds = memory.sums / jnp.maximum(memory.counts, 1)
        bounds += self.bonus * jnp.sqrt(spread / jnp.maximum(memory.counts, 1))
        return jnp.where(memory.counts > 0, bounds, jnp.inf)


@struct.dataclass
class Greedy(_Counting):
    """The highest posterior mean. Without a prior (`prior_weight` 0): every arm once, then the highest mean payout.

    Ties are broken at random, and `log_prob` is exact.
    """

    prior_mean: Array | float = 0.5
    """[] or [A]."""
    prior_weight: Array | float = 0.0
    """How many pulls the prior counts for: 2 for Beta(1, 1), noise variance / prior variance for Gaussian payouts."""

    def act(self, key: Array, memory: Pulls, view: View) -> tuple[Pulls, Array, Array]:
        means = posterior_mean(memory, self.prior_mean, self.prior_weight)
        return memory, *draw(key, greedy(means, allowed(view, self.arms)))


# --- arms of known features -------------------------------------------------------------------------------------------
@struct.dataclass
class Regression:
    """Of pulls of arms with features x."""

    gram: Array  # float32 [d, d], sum of x x^T
    moment: Array  # float32 [d], sum of x times payout


@struct.dataclass
class _Linear:
    """Ridge regression of payouts on known features."""

    features: Array
    """float32 [A, d]"""
    ridge: Array | float = 1.0

    def init(self, key: Array) -> Regression:
        size = self.features.shape[1]
        return Regression(gram=jnp.zeros((size, size)), moment=jnp.zeros(size))

    def observe(self, key: Array, memory: Regression, step: Step) -> Regression:
        x = self.features[step.action]
        return Regression(gram=memory.gram + jnp.outer(x, x), moment=memory.moment + step.reward * x)

    def estimate(self, memory: Regression) -> tuple[Array, Array]:
        """(theta [d], factor [d, d] of the covariance's shape: factor^T factor = (gram + ridge I)^-1)."""
        size = self.features.shape[1]
        lower = jnp.linalg.cholesky(memory.gram + self.ridge * jnp.eye(size))
        factor = jax.scipy.linalg.solve_triangular(lower, jnp.eye(size), lower=True)
        return factor.T @ (factor @ memory.moment), factor


@struct.dataclass
class LinUCB(_Linear):
    """The highest x . theta + bonus * sqrt(x^T (gram + ridge I)^-1 x) (Li et al. 2010; Chu et al. 2011).

    Ties are broken at random, and `log_prob` is exact.
    """

    bonus: Array | float = 1.0

    def act(self, key: Array, memory: Regression, view: View) -> tuple[Regression, Array, Array]:
        theta, factor = self.estimate(memory)
        bounds = self.features @ theta + self.bonus * jnp.linalg.norm(self.features @ factor.T, axis=-1)
        return memory, *draw(key, greedy(bounds, allowed(view, self.features.shape[0])))


@struct.dataclass
class LinThompson(_Linear):
    """The best arm of a theta drawn from the posterior N(theta, noise^2 (gram + ridge I)^-1). `log_prob` is NaN.

    It is the posterior if the prior is N(0, noise^2 / ridge) in every direction.
    """

    noise: Array | float = 0.3
    """Standard deviation of a payout."""

    def act(self, key: Array, memory: Regression, view: View) -> tuple[Regression, Array, Array]:
        theta, factor = self.estimate(memory)
        drawn = theta + self.noise * factor.T @ jax.random.normal(key, theta.shape)
        return memory, *_best(self.features @ drawn, view)


# --- behaviour --------------------------------------------------------------------------------------------------------
@struct.dataclass
class DPTBehaviour:
    """Arms drawn from chances that every stream has of its own: (1 - c) Dirichlet(1) + c (one arm, at random), with c
    uniform on {0, .1, ..., 1} (Lee et al. 2023, arXiv 2306.14892). `log_prob` is exact."""

    arms: int = struct.field(pytree_node=False)

    def init(self, key: Array) -> Array:
        """float32 [A]: the stream's chances."""
        flat_key, arm_key, key = jax.random.split(key, 3)
        raw = jax.random.exponential(flat_key, (self.arms,))  # a flat Dirichlet is normalised exponentials
        one = jax.nn.one_hot(jax.random.randint(arm_key, (), 0, self.arms), self.arms)
        share = jax.random.randint(key, (), 0, 11) / 10
        return (1 - share) * raw / raw.sum() + share * one

    def act(self, key: Array, memory: Array, view: View) -> tuple[Array, Array, Array]:
        chances = memory * allowed(view, self.arms)
        return memory, *draw(key, chances / chances.sum())

    def observe(self, key: Array, memory: Array, step: Step) -> Array:
        return memory


# --- offline: what the data of a history say, [..., A] ----------------------------------------------------------------
def pulls_within(history: History, arms: int, steps: int) -> Pulls:
    """[B, A]: of the first `steps` steps. Raises ValueError for more steps than there are."""
    if not 0 <= steps <= history.length:
        raise ValueError(f"Histories of {history.length} steps have no first {steps}; ask for 0 to {history.length}.")
    taken = jax.nn.one_hot(history.action[:steps], arms) * history.valid[:steps, :, None]
    return Pulls(counts=taken.sum(0), sums=(taken * history.reward[:steps, :, None]).sum(0))


def posterior_mean(pulls: Pulls, prior_mean: Array | float = 0.5, prior_weight: Array | float = 0.0) -> Array:
    """[..., A]: means of a prior that counts for `prior_weight` pulls and of the data; infinite where neither is."""
    weight = prior_weight + pulls.counts
    mean = (prior_weight * prior_mean + pulls.sums) / jnp.where(weight > 0, weight, 1)
    return jnp.where(weight > 0, mean, jnp.inf)


def lower_bounds(pulls: Pulls, bonus: Array | float = 1.0) -> Array:
    """[..., A]: mean - bonus / sqrt(n), pessimism (LCB), or the mere means (bonus 0); minus infinity without data."""
    counts = jnp.maximum(pulls.counts, 1)
    return jnp.where(pulls.counts > 0, pulls.sums / counts - bonus / jnp.sqrt(counts), -jnp.inf)


def suboptimality(means: Array, arm: Array) -> Array:
    """[...]: how much less the arm [...] pays in the mean than the best one; means [..., A]."""
    return means.max(-1) - jnp.take_along_axis(means, arm[..., None], -1)[..., 0]
