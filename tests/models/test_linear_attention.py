"""Matrix memories with decays, in chunks, against slow numpy float64 twins."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twins import close, compiled
from zoo import small

from jaxrl_seq import ops
from jaxrl_seq.models import FEATURE_MAPS, FeatureMap, model_config
from jaxrl_seq.models.linear_attention import FLOOR
from jaxrl_seq.models.mamba2 import init_dt, init_log_rate

BATCH, HEADS, KEYS, VALUES = 3, 2, 4, 5


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def twin(q, k, v, log_decay, state, reset):
    """log_decay [T, B, N], or [T, B, N, K] for one decay a channel."""
    decay = np.exp(log_decay if log_decay.ndim == 4 else log_decay[..., None])
    state, outputs = state.copy(), []
    for t in range(len(reset)):
        state[reset[t]] = 0
        state = decay[t][..., None] * state + np.einsum("bnk,bnv->bnkv", k[t], v[t])
        outputs.append(np.einsum("bnkv,bnk->bnv", state, q[t]))
    return np.stack(outputs), state


def naive(step):
    """The step view scanned over time, for autodiff."""

    def run(q, k, v, log_decay, state, reset):
        def body(state, inputs):
            y, state = step(*inputs[:-1], state, inputs[-1])
            return state, y

        state, y = jax.lax.scan(body, state, (q, k, v, log_decay, reset))
        return y, state

    return run


def case(seed, steps, channels=False) -> Any:
    rng = np.random.default_rng(seed)
    q, k = rng.normal(size=(2, steps, BATCH, HEADS, KEYS))
    v = rng.normal(size=(steps, BATCH, HEADS, VALUES))
    log_decay = -rng.exponential(size=(steps, BATCH, HEADS, KEYS) if channels else (steps, BATCH, HEADS))
    return (q, k, v, log_decay, rng.normal(size=(BATCH, HEADS, KEYS, VALUES))), rng


def paid(run, weights):
    """Values and the gradient of a random sum of them with respect to all float arguments."""

    def loss(arguments, reset):
        result = run(*arguments, reset)
        return sum(jnp.sum(w * x) for w, x in zip(weights, result, strict=True)), result

    return jax.jit(jax.grad(loss, has_aux=True))


OPS = {
    "head": (ops.chunked_linear_attention, ops.linear_attention_step),
    "channel": (ops.gated_linear_attention, ops.gated_linear_attention_step),
}


@pytest.mark.parametrize("decays", OPS)
@pytest.mark.parametrize("steps, chunk", [(1, 4), (7, 8), (13, 4)])
def test_chunks_steps_and_gradients(decays, steps, chunk):
    op, step = OPS[decays]
    arguments, rng = case(steps, steps, decays == "channel")
    weights = rng.normal(size=arguments[2].shape), rng.normal(size=arguments[4].shape)
    fast = paid(lambda *a: op(*a, chunk=chunk), weights)
    slow = paid(naive(step), weights)
    for share in (0.0, 0.2, 0.6, 1.0):
        reset = rng.random((steps, BATCH)) < share
        grads, got = fast(arguments, reset)
        want_grads, want = slow(arguments, reset)
        close(got, twin(*arguments, reset=reset))
        close(want, twin(*arguments, reset=reset))
        close(grads, want_grads)


def test_shared_heads_are_copies():
    (q, k, v, log_decay, state), rng = case(0, 9)
    reset = rng.random((9, BATCH)) < 0.2
    q, k, log_decay = q[:, :, :1], k[:, :, :1], log_decay[:, :, :1]
    got = ops.chunked_linear_attention(q, k, v, log_decay, state, reset, chunk=4)
    q, k, log_decay = (np.repeat(x, HEADS, axis=2) for x in (q, k, log_decay))
    close(got, twin(q, k, v, log_decay, state, reset))


@pytest.mark.parametrize("share", [1, HEADS])
def test_constant_decay(share):
    (q, k, v, _, state), rng = case(1, 9)
    reset = rng.random((9, BATCH)) < 0.2
    constant = -rng.exponential(size=share)
    everywhere = np.broadcast_to(constant, v.shape[:-1])
    close(
        ops.chunked_linear_attention(q, k, v, constant, state, reset, chunk=4),
        twin(q, k, v, everywhere, state, reset),
    )


def test_without_decay_it_is_a_cumulative_sum():
    (_, _, v, log_decay, _), _ = case(2, 6)
    one = jnp.ones((*v.shape[:-1], 1))
    state, never = jnp.zeros((BATCH, HEADS, 1, VALUES)), jnp.zeros((6, BATCH), bool)
    y, state = ops.chunked_linear_attention(one, one, v, 0 * log_decay, state, never, chunk=4)
    close(y, v.cumsum(0))
    close(state[:, :, 0], v.sum(0))


@pytest.mark.parametrize("decays", OPS)
def test_extreme_decays_and_nan_states(decays):
    op, _ = OPS[decays]
    (q, k, v, log_decay, state), _ = case(3, 16, decays == "channel")
    reset: Any = np.zeros((16, BATCH), bool)
    reset[0] = True
    arguments = [x.astype(np.float32) for x in (q, k, v, 1000 * log_decay, state * np.nan)]
    with jax.enable_x64(False):
        grads, (y, after) = paid(lambda *a: op(*a, chunk=8), (1.0, 1.0))(tuple(arguments), reset)
    assert y.dtype == after.dtype == np.float32
    assert all(np.isfinite(x).all() for x in (y, after, *grads))
    close(y, twin(q, k, v, 1000 * log_decay, 0 * state, reset)[0], 1e-4)


@pytest.mark.parametrize("decays", OPS)
def test_one_sum_is_not_rounded_away_by_another_episode(decays):
    """Decays of an earlier episode, however strong, leave the digits of later ones alone."""
    op, _ = OPS[decays]
    (q, k, v, log_decay, state), _ = case(4, 12, decays == "channel")
    log_decay = 0.01 * log_decay
    log_decay[:4] = -1e6
    reset: Any = np.zeros((12, BATCH), bool)
    reset[4] = True
    arguments = [x.astype(np.float32) for x in (q, k, v, log_decay, state)]
    with jax.enable_x64(False):
        y, _ = op(*arguments, reset, chunk=12)
    close(y[4:], twin(q, k, v, log_decay, state, reset)[0][4:], 1e-5)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"v": (7, 3, 5)}, r"v must be \[T, B, N, V\], got \(7, 3, 5\)"),
        ({"q": (7, 3, 2, 3)}, r"q and k must both be \(7, 3, 2, K\), or have one head"),
        ({"state": (3, 2, 4, 4)}, r"state must be \(3, 2, 4, 5\), got \(3, 2, 4, 4\)"),
        ({"log_decay": (7, 2)}, r"log_decay must be \(7, 3, 2\) or \(2,\), got \(7, 2\)"),
        ({"reset": (3, 7)}, r"reset must be \(7, 3\), got \(3, 7\)"),
    ],
)
def test_shapes_that_do_not_fit(change, words):
    (q, k, v, log_decay, state), _ = case(0, 7)
    arguments = {"q": q, "k": k, "v": v, "log_decay": log_decay, "state": state, "reset": np.zeros((7, 3), bool)}
    arguments |= {name: np.zeros(shape) for name, shape in change.items()}
    with pytest.raises(ValueError, match=words):
        ops.chunked_linear_attention(**arguments)
    if "log_decay" in change:
        with pytest.raises(ValueError, match="takes one decay a head"):
            ops.gated_linear_attention(**arguments)


# the models


@pytest.mark.parametrize("kind", FEATURE_MAPS)
def test_feature_maps_are_positive(kind):
    phi = FeatureMap(kind, 6)
    x = np.random.default_rng(0).normal(size=(4, 6))
    y: Any = phi.apply(phi.init(jax.random.key(0), x), x)
    assert y.shape == (4, 12 if kind == "dpfp" else 6) and (y >= 0).all() and (y > 0).any()


def test_dpfp_multiplies_neighbours():
    phi = FeatureMap("dpfp", 2)
    close(phi.apply({}, np.array([2.0, -3.0])), np.array([6.0, 0.0, 0.0, 0.0]))
    close(phi.apply({}, np.array([2.0, 3.0])), np.array([0.0, 6.0, 0.0, 0.0]))


def test_linear_attention_is_a_weighted_mean():
    """With equal queries and keys everywhere it is the mean of the values since the reset."""
    model = small("linear_attention", heads=1, ffn="none")
    mixer = model.blocks[0].mixer
    fns = compiled(mixer)
    x = np.random.default_rng(0).normal(size=(6, 1, 16))
    params = fns.init(jax.random.key(0), 16)["params"]
    kernel = np.zeros((16, 48))
    kernel[:, 32:] = np.eye(16)  # q = k = 0, v = x
    params = {"project": {"kernel": kernel}, "out": {"kernel": np.eye(16), "bias": np.zeros(16)}}
    reset: Any = np.zeros((6, 1), bool)
    reset[2] = True
    _, y = fns.apply({"params": params}, mixer.initialize_carry((1,)), x, reset)
    count = np.array([1, 2, 1, 2, 3, 4])[:, None, None]
    close(y, np.concatenate([x[:2].cumsum(0), x[2:].cumsum(0)]) / (count + FLOOR / 16), 1e-9)


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("linear_attention", {"width": 30}, "width=30 must be a multiple of heads=4; nearest: 28 or 32"),
        ("linear_attention", {"feature_map": "relu6"}, "Unknown feature_map 'relu6'"),
        ("retnet", {"heads": 0}, "heads must be positive, got 0"),
        ("gated_linear_attention", {"gates": "heads"}, "Unknown gates 'heads'"),
        ("gated_linear_attention", {"ffn": "swish"}, "Unknown ffn 'swish'"),
    ],
)
def test_options_that_do_not_work(name, options, words):
    with pytest.raises(ValueError, match=words):
        model_config(name, **options)


@pytest.mark.parametrize("heads", [1, 4])
def test_few_heads_of_mamba_cover_all_scales(heads: int):
    """Steps and rates are uniform draws over all keys, and in every single draw one head remembers long."""

    def draw(key):
        keys = jax.random.split(key)
        return jax.nn.softplus(init_dt(keys[0], (heads,))), jnp.exp(init_log_rate(keys[1], (heads,)))

    dt, rate = map(np.asarray, jax.vmap(draw)(jax.random.split(jax.random.key(0), 4000)))
    at = np.linspace(0, 1, 11)
    np.testing.assert_allclose(np.quantile(np.log10(dt), at), -3 + 2 * at, atol=0.06)
    np.testing.assert_allclose(np.quantile(rate, at), 1 + 15 * at, atol=0.5)
    longest = 1 / (dt * rate).min(axis=1)  # steps until a memory has faded to 1 / e
    assert longest.min() >= 0.999 / (0.001 * 100 ** (1 / heads) * (1 + 15 / heads))
