"""Blocks and nets: what each promises beyond the laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twins import compiled

from jaxrl_seq import ops
from jaxrl_seq.models import MixerBlock, MixtureOfExperts, SequenceModel, make_model
from jaxrl_seq.models.blocks import GRUGate
from jaxrl_seq.ops import choice


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    return np.asarray(jax.nn.gelu(jnp.asarray(x)))


def test_gru_gate_is_the_papers_formula_and_starts_near_the_identity():
    gate = GRUGate(3)
    x, y = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    params = gate.init(jax.random.key(0), x, y)
    p = jax.tree.map(np.asarray, params["params"])
    w_r, w_z, w_h = np.split(p["from_y"]["kernel"], 3, axis=1)
    u_r, u_z = np.split(p["from_x"]["kernel"], 2, axis=1)
    r, z = sigmoid(y @ w_r + x @ u_r), sigmoid(y @ w_z + x @ u_z - 2.0)
    want = (1 - z) * x + z * np.tanh(y @ w_h + (r * x) @ p["candidate"]["kernel"])
    np.testing.assert_allclose(gate.apply(params, x, y), want, atol=1e-6)

    shut = GRUGate(3, shut=30.0)
    np.testing.assert_allclose(shut.apply(shut.init(jax.random.key(0), x, y), x, y), x, atol=1e-6)


class Constant(SequenceModel):
    """A mixer that answers -1 whatever it is asked."""

    features: int

    def __call__(self, carry, x, reset):
        return carry, -jnp.ones_like(x)

    def initialize_carry(self, batch):
        return ()


@pytest.mark.parametrize("kind", ["pre_norm", "post_norm", "gru_gated"])
def test_residual_kinds(kind):
    block = compiled(MixerBlock(4, Constant(4), kind))
    x = jax.random.normal(jax.random.key(0), (2, 3, 4))
    params = block.init(jax.random.key(1), 4)
    y = block.apply(params, (), x, jnp.zeros((2, 3), bool))[1]
    if kind == "pre_norm":
        np.testing.assert_allclose(y, x - 1, atol=1e-6)
    elif kind == "post_norm":
        want = (x - 1) / jnp.sqrt(jnp.square(x - 1).mean(-1, keepdims=True) + 1e-6)
        np.testing.assert_allclose(y, want, rtol=1e-5)
    else:
        # relu silences the branch, so only the gate's own candidate is left
        gate = GRUGate(4)
        want = gate.apply({"params": params["params"]["residual"]["gate"]}, x, jnp.zeros_like(x))
        np.testing.assert_allclose(y, want, atol=1e-6)


def test_experts_are_the_weighted_best():
    net = MixtureOfExperts(features=3, hidden=4, experts=5, top_k=2)
    x = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    params = net.init(jax.random.key(0), x)
    p = jax.tree.map(np.asarray, params["params"])
    want = np.zeros_like(x)
    for i, row in enumerate(x):
        logits = row @ p["router"]["kernel"]
        best = np.argsort(-logits)[:2]
        shares = np.exp(logits[best]) / np.exp(logits[best]).sum()
        for share, expert in zip(shares, best, strict=True):
            cut = slice(4 * expert, 4 * expert + 4)
            hidden = gelu(row @ p["widen"]["kernel"][:, cut] + p["widen"]["bias"][cut])
            want[i] += share * hidden @ p["narrow"]["kernel"][cut]
    np.testing.assert_allclose(net.apply(params, x), want + p["narrow"]["bias"], atol=1e-5)


def test_a_context_read_anew_sees_its_inputs_only_a_cache_sees_further():
    """Three layers, context 3: the input of 4 steps ago reaches the output through a cache, not through a window."""
    x = jax.random.normal(jax.random.key(0), (6, 1, 8))
    first = jnp.zeros((6, 1), bool).at[0].set(True)
    reach = {}
    for inference in ("window", "cache"):
        model = compiled(make_model("gpt", width=8, heads=2, context=3, inference=inference))
        params = model.init(jax.random.key(1), 8)
        apply = jax.jit(model.apply)

        def last(x, apply=apply, params=params, model=model):
            return apply(params, model.initialize_carry((1,)), x, first)[1][-1]

        changes = [float(jnp.abs(last(x) - last(x.at[t].set(0))).max()) for t in range(6)]
        reach[inference] = [t for t, change in enumerate(changes) if change > 1e-7]
    assert reach == {"window": [3, 4, 5], "cache": [0, 1, 2, 3, 4, 5]}


def test_memory_tokens_reach_over_many_segments():
    """Segments of 4 steps: attention alone would see 4, tokens carry the first input through five rewritings."""
    model = compiled(make_model("rmt", width=8, layers=1, heads=2, segment=4, memory=2))
    params = model.init(jax.random.key(0), 8)
    x = jax.random.normal(jax.random.key(1), (22, 1, 8))
    reset = jnp.zeros((22, 1), bool)
    apply = jax.jit(lambda x, reset: model.apply(params, model.initialize_carry((1,)), x, reset)[1][-1])
    other = x.at[0].set(-x[0])
    assert jnp.abs(apply(x, reset) - apply(other, reset)).max() > 1e-6
    np.testing.assert_array_equal(apply(x, reset.at[9].set(True)), apply(other, reset.at[9].set(True)))


def test_auto_takes_the_nearest_measured_row():
    rows = (
        {"op": "probe", "backend": "cpu", "steps": 16, "numbers": 64, "impl": "short"},
        {"op": "probe", "backend": "cpu", "steps": 1024, "numbers": 64, "impl": "long"},
        {"op": "probe", "backend": "tpu", "steps": 512, "numbers": 64, "impl": "other"},
    )
    chosen = [choice.fastest("probe", steps, 64, "none", rows) for steps in (1, 100, 200, 10**6)]
    assert chosen == ["short", "short", "long", "long"]
    assert choice.fastest("unknown", 16, 64, "default", rows) == "default"


def test_measured_table_names_real_implementations():
    from jaxrl_seq.ops.linear_recurrence import IMPLS

    for row in choice.ROWS:
        assert row["op"] == "linear_recurrence" and row["impl"] in IMPLS and row["impl"] != "auto"


@pytest.mark.parametrize("impl", ["scan", "associative", "chunked"])
def test_a_recurrence_keeps_three_arrays_at_most(impl):
    """S5's recurrence, in units of one complex [T, B, P] array: popjaxrl's operator keeps 16.9."""
    steps, batch, size = 64, 4, 8
    shape = (steps, batch, size)
    decay = (jnp.full(size, 0.9), jnp.full(size, 0.1))
    h0, reset = (jnp.zeros(shape[1:]),) * 2, jnp.zeros(shape[:2], bool)

    def states(decay, b):
        return ops.linear_recurrence(decay, b, h0, reset, impl=impl)

    kept = jax.eval_shape(lambda a, b: jax.vjp(states, a, b)[1], decay, (jnp.zeros(shape),) * 2)
    numbers = sum(leaf.size for leaf in jax.tree.leaves(kept) if leaf.dtype == jnp.float32)
    assert 2 * np.prod(shape) <= numbers <= 3 * 2 * np.prod(shape)
