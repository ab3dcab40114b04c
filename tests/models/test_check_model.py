"""The checker passes the library's models, and each of its laws bites on a model broken on purpose."""

import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from zoo import SMALL, VARIANTS, small_config, variant_config

from jaxrl_seq.models import SequenceModel, SlidingWindowAttention
from jaxrl_seq.ops import cache_after, extend_cache, key_start, where_reset, windowed_attention
from jaxrl_seq.ops.attention import episode_position
from jaxrl_seq.testing import LAWS, ModelLawError, check_model

SAMPLE = {"gru", "s5", "transformer"}
"""One of each kind in all types and by all laws here; half a minute of compiling each, so the others are slow."""


@pytest.mark.parametrize("name", ["lru", "mamba2", "gated_delta_net", "mlstm", "gtrxl"])
def test_models_have_two_equal_views(name):
    report = check_model(small_config(name), laws=["carry_type", "views", "forgetting"], dtypes=["float64"])
    assert len(report.errors) == 3 and not report.skipped


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in SAMPLE else pytest.mark.slow) for n in SMALL])
def test_models_obey_all_laws_in_all_types(name):
    report = check_model(small_config(name))
    assert set(report.errors) == set(LAWS) and not report.skipped
    assert set(report.errors["views"]) == {"float64", "float32"}
    assert "all 12 laws hold" in str(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_variants_obey_all_laws(name):
    check_model(variant_config(name), seed=1)


class Average(SequenceModel):
    """Running mean of the episode: the example in the checker's documentation."""

    features: int

    def __call__(self, carry, x, reset):
        return jax.lax.scan(lambda c, i: self.step(c, *i), carry, (x, reset))

    def step(self, carry, x, reset):
        total, count = where_reset(reset, self.initialize_carry(reset.shape), carry)
        total, count = total + x, count + 1
        return (total, count), total / count[:, None]

    @nn.nowrap
    def initialize_carry(self, batch):
        return jnp.zeros((*batch, self.features)), jnp.zeros(batch)


def test_a_model_of_your_own():
    report = check_model(Average(3))
    assert report.skipped == ("bfloat16 (no config with a dtype option)",)
    assert set(report.errors) == set(LAWS) - {"bfloat16"}


class Leaky(SequenceModel):
    """h = h / 2 + w x, the sound model that the broken ones are made from; carry {"h": [B, F], "count": [B]}."""

    features: int

    def setup(self):
        self.w = self.param("w", nn.initializers.ones, (self.features,), jnp.float32)

    def clear(self, carry, reset):
        return where_reset(reset, jax.tree.map(jnp.zeros_like, carry), carry)

    def advance(self, carry, x):
        return {"h": carry["h"] / 2 + self.w * x, "count": carry["count"] + 1}

    def emit(self, carry, x):
        return carry["h"]

    def step(self, carry, x, reset):
        carry = self.advance(self.clear(carry, reset), x)
        return carry, self.emit(carry, x)

    def __call__(self, carry, x, reset):
        _ = self.w  # parameters are read outside the scan
        return jax.lax.scan(lambda c, i: self.step(c, *i), carry, (x, reset))

    @nn.nowrap
    def initialize_carry(self, batch):
        return {"h": jnp.zeros((*batch, self.features), jnp.float32), "count": jnp.zeros(batch, jnp.int32)}


class ResetsByMultiplying(Leaky):
    def clear(self, carry, reset):
        keep = 1 - reset.astype(carry["h"].dtype)
        return {"h": carry["h"] * keep[:, None], "count": carry["count"] * (1 - reset.astype(jnp.int32))}


class ResetsSoftly(Leaky):
    def clear(self, carry, reset):
        return {**carry, "h": carry["h"] * jnp.where(reset, 1e-5, 1.0).astype(carry["h"].dtype)[:, None]}


class ResetsAfterTheStep(Leaky):
    def step(self, carry, x, reset):
        carry = self.advance(carry, x)
        return self.clear(carry, reset), self.emit(carry, x)


class ResetsLateInParallel(Leaky):
    def __call__(self, carry, x, reset):
        return super().__call__(carry, x, jnp.roll(reset, 1, axis=0).at[0].set(reset[0]))


class ForgetsAtEveryCall(Leaky):
    def __call__(self, carry, x, reset):
        return super().__call__(jax.tree.map(jnp.zeros_like, carry), x, reset)


class NeverResetsItsPosition(Leaky):
    def clear(self, carry, reset):
        return {**super().clear(carry, reset), "count": carry["count"]}

    def emit(self, carry, x):
        return carry["h"] * jnp.cos(carry["count"])[:, None].astype(x.dtype)


class DriftsInType(Leaky):
    def __call__(self, carry, x, reset):
        y = []
        for t in range(x.shape[0]):
            carry, out = self.step(carry, x[t], reset[t])
            y.append(out)
        return carry, jnp.stack(y)

    def advance(self, carry, x):
        return {**super().advance(carry, x), "count": carry["count"] + 1.0}


class MixesTheBatch(Leaky):
    def emit(self, carry, x):
        return carry["h"] - carry["h"].mean(0)


class LooksAhead(Leaky):
    def __call__(self, carry, x, reset):
        return super().__call__(carry, x + 0.01 * jnp.roll(x, -1, axis=0), reset)


class CutsGradients(Leaky):
    def __call__(self, carry, x, reset):
        return super().__call__(jax.lax.stop_gradient(carry), x, reset)


class ComputesInFloat32(Leaky):
    def emit(self, carry, x):
        return carry["h"].astype(jnp.float32)


class ClockModel(Leaky):
    """Carry {"clock": []} as well; the good version does not show it."""

    def clear(self, carry, reset):
        cleared = super().clear({"h": carry["h"], "count": carry["count"]}, reset)
        return {**cleared, "clock": carry["clock"]}

    def advance(self, carry, x):
        return {**super().advance(carry, x), "clock": carry["clock"] + 1}

    @nn.nowrap
    def initialize_carry(self, batch):
        return {**super().initialize_carry(batch), "clock": jnp.zeros((), jnp.int32)}


class ShowsItsClock(ClockModel):
    def emit(self, carry, x):
        return carry["h"] * (1 + carry["clock"].astype(jnp.float32) * 1e-6)


class ClockFromParameters(ClockModel):
    def advance(self, carry, x):
        ticks = jnp.where(self.w[0] > 1e6, 2, 1).astype(jnp.int32)
        return {**super().advance(carry, x), "clock": carry["clock"] + ticks}


class CursorForEachEnv(Leaky):
    """A ring whose write index differs between environments."""

    def advance(self, carry, x):
        rows = jnp.arange(x.shape[0])
        ring = carry["ring"].at[rows, carry["count"] % 4].set(x)
        return {"ring": ring, "count": carry["count"] + 1}

    def emit(self, carry, x):
        return carry["ring"].sum(1) * self.w

    @nn.nowrap
    def initialize_carry(self, batch):
        ring = jnp.zeros((*batch, 4, self.features), jnp.float32)
        return {"ring": ring, "count": jnp.zeros(batch, jnp.int32)}


class NarrowInParallel(SlidingWindowAttention):
    """The parallel view sees one step less than the recurrent one."""

    def __call__(self, carry, x, reset):
        position = episode_position(reset, carry.age)
        clock = carry.clock + jnp.arange(x.shape[0], dtype=jnp.int32)[:, None]
        q, k, v = self._project(x, self._angles(clock, position, x.dtype))
        keys, values = extend_cache(carry, *(y.transpose(1, 2, 0, 3) for y in (k, v)))
        start = key_start(position, self.window - 1) + 1
        y = windowed_attention(q.transpose(1, 2, 0, 3), keys, values, start)
        y = y.transpose(2, 0, 1, 3).reshape(x.shape)
        return cache_after(carry, keys, values, position), self.out(y)


BROKEN = [
    ("nan_carry", ResetsByMultiplying(3), "after a nan carry and a reset at t=0.* at t=0, env=0"),
    ("large_carry", ResetsSoftly(3), "with and without a carry of 1e4"),
    (
        "forgetting",
        ResetsSoftly(3),
        "depends on an input before the reset at t=.*expected gradient exactly 0, got",
    ),
    ("forgetting", ResetsAfterTheStep(3), "depends on an input before the reset"),
    (
        "views",
        ResetsLateInParallel(3),
        r"y of the parallel view \(T=7\) and of step differ at t=.*env=.*expected",
    ),
    ("views", NarrowInParallel(8, heads=2, window=4), r"parallel view \(T=1\) and of step differ at t=0"),
    ("views", ForgetsAtEveryCall(3), r"\(T=1\)"),
    ("chunking", ForgetsAtEveryCall(3), r"calls of lengths \(7, 1, 11\) differ at t="),
    ("forgetting", NeverResetsItsPosition(3), "with and without another past"),
    ("carry_type", DriftsInType(3), r"carry leaf \['count'\] from int32\[6\] into float"),
    ("carry_type", ComputesInFloat32(3), "returned y in float32 from float64 parameters"),
    ("batch", MixesTheBatch(3), "of environments alone and together differ"),
    ("causality", LooksAhead(3), "parallel view: y.t. depends on a later input at t=0, input_t=1"),
    ("gradients", CutsGradients(3), "gradients .* with respect to carry differ"),
    ("long_run", ShowsItsClock(3), "y with clocks from 1073741824 and from 0 differ"),
    ("seeds", ClockFromParameters(3), "a clock must be computed from the old clock"),
    ("seeds", CursorForEachEnv(3), "scatter.*dynamic_update_slice"),
]


@pytest.mark.parametrize("law, model, words", BROKEN, ids=lambda x: type(x).__name__ if isinstance(x, Leaky) else None)
def test_law_bites(law, model, words):
    dtypes = ["float32"] if law in ("seeds", "long_run") else ["float64"]
    with pytest.raises(ModelLawError, match=f"law '{law}' is broken: ") as caught:
        check_model(model, laws=[law], dtypes=dtypes)
    assert re.search(words, str(caught.value)), str(caught.value)
    assert caught.value.law == law


@pytest.mark.parametrize("model", [Leaky(3), ClockModel(3)])
def test_their_sound_parents_pass(model):
    check_model(model, dtypes=["float64", "float32"])


def test_bfloat16_state_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Config:
        width: int = 3
        dtype: str = "float32"

        def build(self):
            return LowState(3) if self.dtype == "bfloat16" else Leaky(3)

    class LowState(Leaky):
        @nn.nowrap
        def initialize_carry(self, batch):
            return {**super().initialize_carry(batch), "h": jnp.zeros((*batch, 3), jnp.bfloat16)}

    with pytest.raises(ModelLawError, match=r"state \['h'\] is bfloat16; only caches may leave float32"):
        check_model(Config(), features_in=3, laws=["bfloat16"])


def test_wrong_requests():
    with pytest.raises(ValueError, match="unknown law 'view'; did you mean 'views'"):
        check_model(Leaky(3), laws=["view"])
    with pytest.raises(ValueError, match="unknown dtype 'float16'"):
        check_model(Leaky(3), dtypes=["float16"])
    with pytest.raises(ValueError, match="Dense is no sequence model: it lacks initialize_carry, step"):
        check_model(nn.Dense(3))
