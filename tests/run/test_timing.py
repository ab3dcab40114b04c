"""Times mean what they say."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_seq.run.timing import compile_timed, measure


def test_waits_for_every_output_and_leaves_compilation_out():
    def slow(x):
        def sleep(value):
            time.sleep(0.05)
            return value

        return {"fast": x + 1, "slow": jax.pure_callback(sleep, jax.ShapeDtypeStruct((), np.float32), x)}

    timing = measure(slow, jnp.float32(1.0), repeats=3)
    assert len(timing.runs) == 3 and timing.median_s >= 0.05
    assert timing.compile_s > 0
    assert timing.median_s in timing.runs
    assert timing.spread == pytest.approx((max(timing.runs) - min(timing.runs)) / timing.median_s)


def test_the_number_of_calls(monkeypatch):
    calls = []

    class Jitted:
        def lower(self, *args):
            return self

        def compile(self):
            return lambda *args: calls.append(args)

    timing = measure(Jitted(), 1, 2, repeats=4, warmup=3)  # pyright: ignore[reportArgumentType]
    assert calls == [(1, 2)] * 7 and len(timing.runs) == 4


def test_compile_timed_with_static_arguments_and_shapes():
    power = jax.jit(lambda x, n: x**n, static_argnums=1)
    compiled, seconds = compile_timed(power, jax.ShapeDtypeStruct((3,), jnp.float32), 2)
    assert seconds > 0
    np.testing.assert_array_equal(compiled(jnp.arange(3.0)), [0.0, 1.0, 4.0])


def test_what_cannot_be_measured():
    donating = jax.jit(lambda x: x + 1, donate_argnums=0)
    with pytest.raises(ValueError, match="donates"):
        measure(donating, jnp.zeros(1000))
    with pytest.raises(ValueError, match="repeats is 0"):
        measure(lambda x: x, jnp.zeros(1), repeats=0)
