"""What units remember before they have learnt anything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_seq.models import GRU, LSTM, MinGRU, MinLSTM, make_model
from jaxrl_seq.models.timescales import chrono_bias, spread

HORIZON, UNITS = 300, 32
CELLS = {"gru": GRU, "lstm": LSTM, "min_gru": MinGRU, "min_lstm": MinLSTM}


def left_over(cell, steps):
    """The mean share of a state of 0.5 that is left after so many steps of silence."""
    start = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5), cell.initialize_carry((1,)))
    x, reset = jnp.zeros((steps, 1, UNITS)), jnp.zeros((steps, 1), bool)
    params = cell.init(jax.random.key(0), start, x, reset)
    # nothing but biases: what is measured is the keeping, not what random weights write anew
    params = jax.tree.map(lambda leaf: leaf if leaf.ndim == 1 else jnp.zeros_like(leaf), params)
    state = jax.tree.leaves(cell.apply(params, start, x, reset)[0])[0]
    return np.abs(np.asarray(state)).mean() / 0.5


@pytest.mark.parametrize("name", CELLS)
def test_states_last_for_the_horizon_and_no_longer(name):
    """Units that forget over tau steps, tau even in 0 .. H, keep the mean of exp(-t / tau)."""
    for steps in (HORIZON // 2, HORIZON):
        expected = np.exp(-steps / np.linspace(0.5, HORIZON - 0.5, HORIZON)).mean()
        assert left_over(CELLS[name](UNITS, horizon=HORIZON), steps) == pytest.approx(expected, rel=0.1)
    assert left_over(CELLS[name](UNITS), HORIZON // 2) < 1e-6


def test_gates_mirror_one_another_and_others_have_no_bias():
    enter, keep, other = np.split(chrono_bias(HORIZON, (-1, 1, 0))(jax.random.key(3), (3 * UNITS,)), 3)
    np.testing.assert_array_equal(enter, -keep)
    assert not other.any()
    steps = np.exp(keep)
    assert steps.min() >= 1 and steps.max() <= HORIZON - 1
    np.testing.assert_array_equal(np.floor((steps - 1) / (HORIZON - 2) * UNITS + 1e-4), np.arange(UNITS))


def test_a_spread_has_one_number_in_each_part():
    numbers = spread(jax.random.key(0), (5,), jnp.float32)
    np.testing.assert_array_equal(np.floor(numbers * 5), np.arange(5))


@pytest.mark.parametrize("name", CELLS)
def test_the_option_reaches_every_layer_and_is_checked(name):
    def biases(**options):
        model = make_model(name, width=8, layers=2, **options)
        carry, x = model.initialize_carry((1,)), jnp.zeros((1, 1, 8))
        params = model.init(jax.random.key(0), carry, x, jnp.zeros((1, 1), bool))
        return [leaf for path, leaf in jax.tree.leaves_with_path(params) if "'bias'" in str(path)]

    as_usual, told = biases(), biases(horizon=50)
    assert len(told) == len(as_usual) == 2
    assert all(2 < np.exp(np.abs(bias).max()) <= 49 for bias in told)
    assert all(np.abs(bias).max() <= 1 for bias in as_usual)
    for horizon in (1, -3):
        with pytest.raises(ValueError, match=f"horizon must be 0.* got {horizon}"):
            make_model(name, horizon=horizon)
