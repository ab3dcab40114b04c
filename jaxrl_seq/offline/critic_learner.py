"""Learners with value functions: TD3+BC, CQL and IQL, around any model, with any of three value heads.

An update reads windows of W steps; with a memoryless model W is 1, and windows are transitions. Values of what came
next are read in the same pass: the observations of a window and the one after it are W + 1 in a row.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.agents.distributions import to_unit
from jaxrl_seq.envs import Box, Discrete, Env
from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.models import SequenceModel
from jaxrl_seq.offline.critic_losses import CRITICS
from jaxrl_seq.offline.critics import Critic, CriticHyper, Scene
from jaxrl_seq.offline.dataset import Dataset, returns_to_go
from jaxrl_seq.offline.learner import OfflineState, SequenceLearner
from jaxrl_seq.offline.network import TokenNet, columns_of, fresh_variables
from jaxrl_seq.offline.objectives import ActionTerm, Columns
from jaxrl_seq.offline.policy import Mode
from jaxrl_seq.offline.sampler import Window
from jaxrl_seq.offline.tokens import AFTER, Tokens
from jaxrl_seq.offline.values import ValueHead
from jaxrl_seq.online.optimiser import init_optimiser, learning_rate, mean_metrics, optimiser_step
from jaxrl_seq.types import Array, Metrics, PyTree


@struct.dataclass
class CriticState(OfflineState):
    """`params` and `stats` have parts "actor", "critic" (two of each parameter) and, for IQL, "value"."""

    target: PyTree
    """Slow copies of the actor's and critics' parameters."""


@dataclass(frozen=True, kw_only=True)
class CriticLearner(SequenceLearner):
    """One update = `steps` gradient steps of the actor `net`, of two critics, and of what else the method has."""

    value_head: ValueHead = ValueHead()

    needs_value: ClassVar[tuple[str, ...]] = ("iql",)

    def __post_init__(self) -> None:
        super().__post_init__()
        space = self.env.action_space()
        if self.name == "td3bc" and not isinstance(space, Box):
            raise ValueError(f"td3bc needs continuous actions, and {self.env.name} has {space}: use iql or cql.")
        if not isinstance(space, Box | Discrete):
            raise ValueError(f"{self.name}: no critic for the actions {space}; they are Discrete or a Box.")

    @property
    def action(self) -> ActionTerm:
        return cast(ActionTerm, self.net.terms[0])

    @property
    def _trunk(self) -> TokenNet:
        return self.net.clone(terms=())

    @property
    def critic(self) -> Critic:
        return Critic(self._trunk, self.value_head.width, self.env.action_space())

    @property
    def state_value(self) -> Critic:
        return Critic(self._trunk, self.value_head.width)

    def default_hyper(self) -> CriticHyper:
        return CriticHyper()

    def init(self, key: Array, hyper: CriticHyper) -> CriticState:
        """Fresh parameters; targets equal them. ValueError without data. The key is consumed."""
        data = self._data(hyper)
        actor_key, critic_key, value_key, key = jax.random.split(key, 4)
        actor = fresh_variables(self.net, self.env, actor_key, data)
        units = {"net": actor["stats"]}
        space = self.env.action_space()

        def fresh(module: Critic, key: Array) -> PyTree:
            inputs = columns_of(self.sampler(jax.random.key(0), data, 1))
            action = to_unit(space, inputs["action"]) if isinstance(module.actions, Box) else None
            return module.init(key, inputs, jnp.ones((self.window, 1), bool), action)["params"]

        params = {"actor": actor["params"]}
        params["critic"] = jax.vmap(lambda key: fresh(self.critic, key))(jax.random.split(critic_key))
        stats = {"actor": actor["stats"], "critic": units, "support": self._support(data, hyper)}
        if self.name in self.needs_value:
            params["value"], stats["value"] = fresh(self.state_value, value_key), units
        target = {name: params[name] for name in ("actor", "critic")}
        return CriticState(params, stats, init_optimiser(params), key, jnp.int32(0), target)

    def _support(self, data: Dataset, hyper: CriticHyper) -> Array:
        """float32 [2]: discounted returns of the data's steps, and a quarter of their range on either side."""
        returns = returns_to_go(data.reward, data.to_end, hyper.gamma)
        low, high = jnp.min(returns), jnp.max(returns)
        margin = jnp.maximum(0.25 * (high - low), 1e-3)
        return jnp.stack([low - margin, high + margin])

    def update(self, state: CriticState, hyper: CriticHyper) -> tuple[CriticState, Metrics]:
        """`steps` gradient steps. Pure."""
        data, lr = self._data(hyper), learning_rate(state.update, hyper)

        def one_step(carry: tuple[PyTree, PyTree, Any], key: Array) -> tuple[tuple[PyTree, PyTree, Any], Metrics]:
            params, target, opt_state = carry
            draw_key, key = jax.random.split(key)
            window = self.sampler(draw_key, data, self.batch)

            def loss(params: PyTree) -> tuple[Array, Metrics]:
                scene = Scene(self, params, target, state.stats, and_after(window), window, hyper)
                metrics = CRITICS[self.name](scene, key)
                return sum((x for name, x in metrics.items() if name.endswith("_loss")), jnp.float32(0.0)), metrics

            grads, metrics = jax.grad(loss, has_aux=True)(params)
            params, opt_state, norms = optimiser_step(
                params, opt_state, grads, lr, hyper.max_grad_norm, hyper.weight_decay
            )
            new = {name: params[name] for name in target}
            target = jax.tree.map(lambda old, new: old + hyper.polyak * (new - old), target, new)
            return (params, target, opt_state), metrics | norms

        keys = jax.random.split(jax.random.fold_in(state.key, state.update), self.steps)
        start = (state.params, state.target, state.opt_state)
        (params, target, opt_state), metrics = jax.lax.scan(one_step, start, keys)
        state = dataclasses.replace(state, params=params, target=target, opt_state=opt_state, update=state.update + 1)
        return state, mean_metrics(metrics) | {"lr": lr}

    def acting(self, state: CriticState) -> PyTree:
        return {"params": state.params["actor"], "stats": state.stats["actor"]}


def and_after(window: Window) -> Columns:
    """The columns of a window and of the step after it, [W + 1, B, ...], as far as observations go."""
    columns = columns_of(window)

    def extended(first: PyTree, following: PyTree) -> PyTree:
        return jax.tree.map(lambda x, y: jnp.concatenate([x[:1], y]), first, following)

    longer = {
        "obs": extended(columns["obs"], columns["next_obs"]),
        "prev_action": extended(columns["prev_action"], columns["action"]),
        "prev_reward": extended(columns["prev_reward"], columns["reward"]),
        "t": extended(columns["t"], columns["t"] + 1),
    }
    if "action_mask" in columns:  # of the last step unknown: any action
        mask = columns["action_mask"]
        longer["action_mask"] = jnp.concatenate([mask, jnp.ones_like(mask[:1])])
    return longer


def make_critic(
    name: str,
    env: Env,
    model: SequenceModel,
    *,
    tokens: str = "obs*",
    mode: Mode = "window",
    window: int = 1,
    value_head: str = "mse",
    bins: int = 51,
    **options: Any,
) -> CriticLearner:
    """td3bc, cql or iql for `env`, whose networks are around `model`; `options` are fields of `CriticLearner`.

    With a memory: tokens "obs + prev_action + prev_reward*", and windows longer than 1. Raises ValueError for what
    does not go together.
    """
    known(name, CRITICS, "method")
    space, line = env.action_space(), Tokens(tokens)
    if late := [column for column in line.columns if column in AFTER]:
        raise ValueError(f"{name}: values are of observations, so tokens cannot show {late[0]!r}: use prev_{late[0]}.")
    head = "ce" if not isinstance(space, Box) else "mse" if name == "td3bc" else "gaussian"
    net = TokenNet(env.observation_space(), space, model, line, (), (ActionTerm(space, head),))
    return CriticLearner(
        env=env,
        name=name,
        model_name=getattr(model, "label", type(model).__name__),
        net=net,
        mode=mode,
        window=window if mode == "window" else env.horizon,
        value_head=ValueHead(value_head, bins),
        **options,
    )
