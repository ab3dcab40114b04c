"""The agent: two equal views for every model, and what it believes before it has learned."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from members import random_inputs

from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.agents.actor_critic import example_inputs
from jaxrl_seq.envs import Box, Discrete, Env, MultiDiscrete, Space, Tree
from jaxrl_seq.models import make_model
from tests.kinds import every_model

T, B = 12, 3


@dataclass(frozen=True)
class Spaces(Env):
    """An environment that only says what is seen and done."""

    seen: Space
    done: Space

    def observation_space(self) -> Space:
        return self.seen

    def action_space(self) -> Space:
        return self.done


@pytest.mark.parametrize("name", every_model())
def test_acting_is_the_same_function_as_training(name, small_model, random_params):
    """A scan of `step` gives `__call__`'s parameters, values and carry, through random resets and from a used carry."""
    env = Spaces(Tree({"card": Discrete(3), "place": Box(-1.0, 1.0, (2,))}), Discrete(4))
    agent = ActorCritic.for_env(env, small_model(name))
    params = random_params(agent, env)

    @jax.jit
    def views(carry, inputs):
        def step(carry, x):
            return agent.apply(params, carry, x, x.first, method="step")

        return agent.apply(params, carry, inputs, inputs.first), jax.lax.scan(step, carry, inputs)

    inputs = random_inputs(env.seen, env.done, T, B)
    assert 0 < np.sum(inputs.first) < T * B
    (used, _), _ = views(agent.initialize_carry((B,)), inputs)
    (carry, whole), (last, stepped) = views(used, inputs)
    assert whole.policy_params.shape == (T, B, 4) and whole.value.shape == (T, B)
    assert np.std(whole.value) > 0.05 and np.std(whole.policy_params) > 0.1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), (carry, whole), (last, stepped))


@pytest.mark.parametrize(
    "action", [Discrete(6), MultiDiscrete((2, 5)), Box(-2.0, 2.0, (2, 2))], ids=("discrete", "multi", "box")
)
def test_the_first_policy_is_nearly_uniform(action):
    """Discrete: within 1 % of the largest entropy. Box: centred, with the spread of `log_std` in every state."""
    env = Spaces(Box(-1.0, 1.0, (3,)), action)
    agent: Any = ActorCritic.for_env(env, make_model("mlp", width=8, layers=1))
    inputs = random_inputs(env.seen, env.done, T, B)

    @jax.jit
    def start(key):
        params = agent.init(key, (), inputs, inputs.first)
        policy = agent.policy(agent.apply(params, (), inputs, inputs.first)[1], inputs)
        return params, policy.mode(), policy.entropy()

    params, mode, entropy = start(jax.random.key(0))
    if isinstance(action, Box):
        np.testing.assert_array_equal(params["params"]["log_std"], np.full(4, -0.5, np.float32))
        assert np.abs(mode).max() < 0.1
        np.testing.assert_allclose(entropy, 4 * (0.5 * np.log(2 * np.pi * np.e) - 0.5), rtol=1e-5)
    else:
        most = np.log(action.n) if isinstance(action, Discrete) else np.log(action.ns).sum()
        assert np.all(entropy > 0.99 * most)


def test_the_mask_of_the_inputs_reaches_the_policy(random_params):
    """`policy(decision, inputs)` never samples what `inputs.action_mask` forbids."""
    env = Spaces(Box(-1.0, 1.0, (3,)), Discrete(4))
    agent: Any = ActorCritic.for_env(env, make_model("mlp", width=8, layers=1))
    mask = np.random.default_rng(0).random((T, B, 4)) < 0.5
    mask[..., 2] = True
    inputs = random_inputs(env.seen, env.done, T, B).replace(action_mask=mask)

    @jax.jit
    def play(params, keys):
        _, decision = agent.apply(params, (), inputs, inputs.first)
        return jax.vmap(agent.policy(decision, inputs).sample)(keys)

    actions = play(random_params(agent, env), jax.random.split(jax.random.key(0), 20))
    assert np.take_along_axis(mask[None], np.asarray(actions)[..., None], -1).all()
    assert len(np.unique(actions)) == 4


def test_the_encoder_is_as_wide_as_the_model_unless_told():
    """So that small models are not dominated by their input layer."""
    env = Spaces(Discrete(2), Discrete(2))
    assert ActorCritic.for_env(env, make_model("mlp", width=24)).encoder_width == 24
    assert ActorCritic.for_env(env, make_model("mlp", width=24), encoder_width=5).encoder_width == 5


def test_an_agent_may_be_kept_from_its_own_past(random_params):
    """`previous=False` reaches the encoder: fewer inputs, the same everything else."""
    env = Spaces(Box(-1.0, 1.0, (3,)), Discrete(4))
    widths = []
    for previous in (True, False):
        agent = ActorCritic.for_env(env, make_model("mlp", width=8, layers=1), previous=previous)
        widths.append(random_params(agent, env)["params"]["encoder"]["Dense_0"]["kernel"].shape[0])
    assert widths == [3 + 1 + 4 + 1, 3 + 1]


def test_an_action_space_without_a_head_is_refused_before_anything_is_built():
    """ValueError at `for_env`, with the list of what is served."""
    env = Spaces(Discrete(2), Tree({"a": Discrete(2)}))
    with pytest.raises(ValueError, match=r"Served: Discrete"):
        ActorCritic.for_env(env, make_model("mlp"))


def test_example_inputs_have_the_shapes_of_real_ones():
    """Leaf for leaf in structure, shape and dtype, trees included."""
    env = Spaces(Tree({"eye": Box(0, 255, (8, 8, 3), np.uint8), "card": Discrete(3)}), Box(-1.0, 1.0, (2,)))

    def kinds(tree):
        return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)

    assert kinds(example_inputs(env, (T, B))) == kinds(random_inputs(env.seen, env.done, T, B))
