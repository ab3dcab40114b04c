"""Losses of TD3+BC, IQL and CQL, in which the kind of model and of value head do not show."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrl_seq.envs import Discrete
from jaxrl_seq.offline.critics import Scene
from jaxrl_seq.types import Array, Metrics, PyTree


def td3_bc(scene: Scene, key: Array) -> Metrics:
    """Fujimoto & Gu 2021 (arXiv:2106.06860): a deterministic policy that maximises the critic and imitates."""
    hyper, term = scene.hyper, scene.learner.action
    noise = jnp.clip(hyper.noise * jax.random.normal(key, scene.window.mask.shape + (term.space.flat_dim,)), -0.5, 0.5)
    then = jnp.clip(term.point(scene.actor(scene.target)[1:]) + noise, -1.0, 1.0)
    after = scene.q(scene.target, scene.features(scene.target)[:, 1:], then)
    target = scene.backup(jnp.min(scene.number(after), axis=0))
    features = scene.features(scene.params)[:, :-1]
    error = jnp.sum(scene.error(scene.q_of_data(scene.params, features), target[None]), axis=0)

    out = scene.actor(scene.params)[:-1]
    fixed, seen = jax.lax.stop_gradient((scene.params, features))
    q = scene.number(scene.q(fixed, seen, term.point(out))[0])
    size = jax.lax.stop_gradient(scene.mean(jnp.abs(q)))
    imitation = scene.mean(term.loss(out, {"action": scene.window.action}))
    gain = scene.mean(q) / jnp.maximum(size, 1e-6)
    return {"critic_loss": scene.mean(error), "actor_loss": imitation - hyper.improvement * gain, "q": scene.mean(q)}


def iql(scene: Scene, key: Array) -> Metrics:
    """Kostrikov et al. 2022 (arXiv:2110.06169): values of the best actions in the data, and imitation of those."""
    hyper, term = scene.hyper, scene.learner.action
    slow = scene.features(scene.target)[:, :-1]
    q = jnp.min(scene.number(scene.q_of_data(scene.target, slow)), axis=0)
    out = scene.states(scene.params)
    value = scene.number(out)
    gap = jax.lax.stop_gradient(q - value[:-1])
    expectile = jnp.where(gap > 0, hyper.expectile, 1.0 - hyper.expectile)
    state_error = expectile * scene.error(out[:-1], q)

    features = scene.features(scene.params)[:, :-1]
    target = scene.backup(value[1:])
    error = jnp.sum(scene.error(scene.q_of_data(scene.params, features), target[None]), axis=0)

    weight = jnp.exp(hyper.temperature * gap / jnp.maximum(scene.mean(jnp.abs(gap)), 1e-6))
    columns = {"action": scene.window.action, "action_mask": scene.window.extra.get("action_mask")}
    imitation = jnp.minimum(weight, 100.0) * term.loss(scene.actor(scene.params)[:-1], columns)
    losses = {"critic_loss": scene.mean(error), "value_loss": scene.mean(state_error)}
    return losses | {"actor_loss": scene.mean(imitation), "q": scene.mean(q)}


def cql(scene: Scene, key: Array) -> Metrics:
    """Kumar et al. 2020 (arXiv:2006.04779), CQL(H) on a soft actor-critic: values of actions that the data does not
    show are pushed down, those of the data up. Of discrete actions all are summed over, of a box samples."""
    return (_cql_discrete if isinstance(scene.learner.env.action_space(), Discrete) else _cql_box)(scene, key)


def _cql_discrete(scene: Scene, key: Array) -> Metrics:
    hyper, term, mask = scene.hyper, scene.learner.action, scene.columns.get("action_mask")
    logits = term.distribution(scene.actor(scene.params), mask).params
    chances = jax.nn.softmax(logits)
    slow = scene.number(scene.q(scene.target, scene.features(scene.target)[:, 1:], None))
    target = scene.backup(jnp.sum(jax.lax.stop_gradient(chances[1:]) * jnp.min(slow, axis=0), axis=-1))

    features = scene.features(scene.params)[:, :-1]
    taken = scene.q_of_data(scene.params, features)
    error = jnp.sum(scene.error(taken, target[None]), axis=0)
    every = scene.number(scene.q(scene.params, features, None)) / scene.half
    gap = jnp.sum(jax.nn.logsumexp(every, axis=-1) - scene.number(taken) / scene.half, axis=0)

    worth = jax.lax.stop_gradient(jnp.min(every, axis=0)) - hyper.entropy * jax.nn.log_softmax(logits[:-1])
    gain = jnp.sum(chances[:-1] * worth, axis=-1)
    critic = scene.mean(error) + hyper.conservatism * scene.mean(gap)
    return {"critic_loss": critic, "actor_loss": -scene.mean(gain), "gap": scene.mean(gap)}


def _cql_box(scene: Scene, key: Array, samples: int = 8) -> Metrics:
    hyper, term = scene.hyper, scene.learner.action
    out = scene.actor(scene.params)
    policy = term.distribution(out)
    dim = term.space.flat_dim
    shape = (samples, *out.shape[:-1], dim)
    own_key, random_key = jax.random.split(key)
    mean, log_std = jnp.split(policy.params, 2, axis=-1)
    own = jnp.clip(mean + jnp.exp(log_std) * jax.random.normal(own_key, shape), -1.0, 1.0)  # [n, W + 1, B, A]
    density = -0.5 * jnp.sum(((own - mean) * jnp.exp(-log_std)) ** 2 + 2 * log_std + jnp.log(2 * jnp.pi), axis=-1)

    def worth(params: PyTree, features: Array, action: Array) -> Array:
        """[n, 2, ...] for actions [n, ..., A]."""
        return jax.vmap(lambda a: scene.number(scene.q(params, features, a)))(action)

    slow = scene.features(scene.target)[:, 1:]
    after = jnp.min(worth(scene.target, slow, jax.lax.stop_gradient(own[:1, 1:]))[0], axis=0)
    target = scene.backup(after)
    features = scene.features(scene.params)[:, :-1]
    taken = scene.q_of_data(scene.params, features)
    error = jnp.sum(scene.error(taken, target[None]), axis=0)

    far = jax.random.uniform(random_key, (samples, *out[:-1].shape[:-1], dim), minval=-1.0, maxval=1.0)
    near = jax.lax.stop_gradient(own[:, :-1])
    chance = jax.lax.stop_gradient(density[:, None, :-1])
    spread = jnp.concatenate(
        [
            worth(scene.params, features, far) / scene.half + dim * jnp.log(2.0),
            worth(scene.params, features, near) / scene.half - chance,
        ]
    )
    every = jax.nn.logsumexp(spread, axis=0) - jnp.log(2.0 * samples)
    gap = jnp.sum(every - scene.number(taken) / scene.half, axis=0)

    fixed, seen = jax.lax.stop_gradient((scene.params, features))
    gain = jnp.min(worth(fixed, seen, own[:1, :-1])[0], axis=0) / scene.half - hyper.entropy * density[0, :-1]
    critic = scene.mean(error) + hyper.conservatism * scene.mean(gap)
    return {"critic_loss": critic, "actor_loss": -scene.mean(gain), "gap": scene.mean(gap)}


CRITICS: dict[str, Callable[[Scene, Array], Metrics]] = {"td3bc": td3_bc, "cql": cql, "iql": iql}
"""name -> losses; those that end in `_loss` are added up, and each part of the parameters has its own."""
