"""What tests of formulas share: comparing trees, random resets, and models compiled whole."""

import jax
import numpy as np

from jaxrl_seq.models import as_functions
from jaxrl_seq.models.base import SequenceFns


def close(got, want, tolerance=1e-10):
    """Trees of arrays agree to `tolerance`, relative and absolute."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), got, want)


def flags(rng, *shape, share=0.25):
    """Random resets, True with probability `share`."""
    return rng.random(shape) < share


def compiled(model) -> SequenceFns:
    """The model as functions, each one program: one by one, the operations of an `init` are a hundred compilations."""
    fns = as_functions(model)
    return fns._replace(init=jax.jit(fns.init, static_argnums=1), apply=jax.jit(fns.apply), step=jax.jit(fns.step))
