"""History files: what is written is what is read, and what is wrong with a file is said."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_seq.envs import TrialEnv, make
from jaxrl_seq.incontext.algorithms import make_algorithm
from jaxrl_seq.incontext.histories import History, play
from jaxrl_seq.run.histories import load_history, save_history


def recorded(spec: str, label: bool = True) -> History:
    env, params = make(spec)
    trial = TrialEnv(env, episodes=2)
    keys = jax.random.split(jax.random.key(0), 3)
    tasks = jax.vmap(trial.sample_task, in_axes=(0, None))(keys, params)
    return play(make_algorithm("uniform", trial, params), trial, tasks, keys[0], params, label=label)


@pytest.mark.parametrize("spec", ["darkroom,size=3,limit=4", "tabular_mdp,states=3,limit=2", "linear_bandit,pulls=4"])
def test_a_file_gives_back_what_was_written(tmp_path, spec):
    history = recorded(spec)
    path = save_history(tmp_path / "h.npz", history, {"env": spec, "label": True, "source": "uniform"})
    again, header = load_history(path)
    assert header["source"] == "uniform" and jax.tree.structure(again) == jax.tree.structure(history)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(history), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_faults_of_files_are_named(tmp_path):
    history, spec = recorded("darkroom,size=3,limit=4"), "darkroom,size=3,limit=4"
    with pytest.raises(ValueError, match="header of a history needs 'label'"):
        save_history(tmp_path / "h.npz", history, {"env": spec})
    path = save_history(tmp_path / "h.npz", history, {"env": spec, "label": True})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="holds no histories, or is damaged"):
        load_history(path)
    inside = whole.index(b"reward.npy") + 60  # past the name, in what is compressed
    for at in range(inside, inside + 8):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        path.write_bytes(bytes(damaged))
        with pytest.raises(ValueError, match="damaged"):
            load_history(path)
    with pytest.raises(ValueError, match="damaged"):
        load_history(tmp_path / "none.npz")
    other = save_history(tmp_path / "o.npz", history, {"env": "bernoulli_bandit", "label": True})
    with pytest.raises(ValueError, match="but histories of bernoulli_bandit have"):
        load_history(other)
    other = save_history(tmp_path / "o.npz", history, {"env": "darkroom,size=300", "label": True})
    with pytest.raises(ValueError, match=r"obs is uint8.*makes uint16"):
        load_history(other)
    wide = history.replace(optimal=jnp.ones((*history.reward.shape, 7), bool))  # pyright: ignore[reportAttributeAccessIssue]
    other = save_history(tmp_path / "o.npz", wide, {"env": spec, "label": True})
    with pytest.raises(ValueError, match="optimal is bool"):
        load_history(other)
