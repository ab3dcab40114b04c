"""What tests of formulas share: comparing trees, and random resets."""

import jax
import numpy as np


def close(got, want, tolerance=1e-10):
    """Trees of arrays agree to `tolerance`, relative and absolute."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), got, want)


def flags(rng, *shape, share=0.25):
    """Random resets, True with probability `share`."""
    return rng.random(shape) < share
