"""Checkpoints come back bit for bit or not at all, whatever was done to their files."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_seq.run import checkpoint
from jaxrl_seq.run.checkpoint import Checkpoints


class Moments(NamedTuple):
    count: jax.Array
    mu: dict[str, jax.Array]


def make_state(seed: int = 0) -> dict:
    """Every kind of leaf a learner has: nesting, named tuples, bf16, bool, ints, scalars, both key types."""
    a, b = jax.random.split(jax.random.key(seed))
    return {
        "params": {"encoder": {"kernel": jax.random.normal(a, (64, 96)), "mask": jnp.array([True, False])}},
        "opt": (Moments(jnp.int32(7), {"w": jax.random.normal(b, (33, 5), jnp.bfloat16)}), ()),
        "env": {"position": jnp.arange(6, dtype=jnp.int8), "none": None, "empty": jnp.zeros((0, 4))},
        "keys": jax.random.split(jax.random.key(seed, impl="rbg"), 3),
        "key": jax.random.key(seed + 1),
        "odd/name.0": jnp.float32(jnp.nan),
    }


def abstract(state):
    return jax.eval_shape(lambda: state)


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert g.dtype == w.dtype and g.shape == w.shape
        if jnp.issubdtype(g.dtype, jax.dtypes.prng_key):
            g, w = jax.random.key_data(g), jax.random.key_data(w)
        assert np.asarray(g).tobytes() == np.asarray(w).tobytes()


@pytest.fixture(scope="module")
def two_good(tmp_path_factory):
    """A folder with intact checkpoints 1 and 2, to be copied by tests that damage it."""
    folder = tmp_path_factory.mktemp("good") / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.save(1, make_state(1), {"update": 1})
        assert checkpoints.save(2, make_state(2), {"update": 2})
    return folder


@pytest.fixture
def folder(two_good, tmp_path):
    return Path(shutil.copytree(two_good, tmp_path / "checkpoints"))


def restore_quietly(folder, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Checkpoints(folder).restore(abstract(make_state()), **kwargs)


def test_round_trip_is_bit_exact_and_keeps_meta(two_good):
    restored = restore_quietly(two_good)
    assert (restored.step, restored.meta) == (2, {"update": 2})
    assert_same(restored.state, make_state(2))
    assert not jax.tree.leaves(restored.state)[0].committed
    assert restore_quietly(two_good, step=1).meta == {"update": 1}
    assert Checkpoints(two_good).read_meta() == {"update": 2}
    assert Checkpoints(two_good).read_meta(1) == {"update": 1}


def test_concrete_targets_and_numpy_leaves(tmp_path):
    state = {"jax": jnp.arange(3), "wide": np.arange(3, dtype=np.int64), "number": np.float64(0.1)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state, {})
        restored = checkpoints.restore({**state, "number": np.zeros(())})
    assert isinstance(restored.state["wide"], np.ndarray) and isinstance(restored.state["jax"], jax.Array)
    assert restored.state["wide"].dtype == np.int64 and restored.state["number"] == 0.1


def test_saved_values_are_those_at_the_call_even_if_the_state_is_donated(tmp_path):
    step = jax.jit(lambda x: x + 1.0, donate_argnums=0)
    x = jnp.zeros((500, 500))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"x": x}, {})
        for _ in range(5):
            x = step(x)
        restored = checkpoints.restore({"x": jax.ShapeDtypeStruct((500, 500), jnp.float32)})
    assert float(restored.state["x"].sum()) == 0.0


def test_retention_and_steps(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, {"x": jnp.float32(step)}, {})
        checkpoints.wait()
        assert checkpoints.steps() == [20, 30]
        (tmp_path / "99999").mkdir()  # named like a step, but nothing of ours: must not push out a good one
        checkpoints.save(40, {"x": jnp.float32(40)}, {})
    assert Checkpoints(tmp_path).steps() == [30, 40]
    assert not (tmp_path / "99999").exists()


def test_an_existing_step_is_replaced_and_later_steps_go(folder):
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.save(2, make_state(2), {"update": "ignored"})  # same values: the old one stays
        assert checkpoints.read_meta(2) == {"update": 2}
        assert checkpoints.save(1, make_state(5), {"update": "again"})
    restored = restore_quietly(folder)
    assert (restored.step, restored.meta) == (1, {"update": "again"})
    assert_same(restored.state, make_state(5))


def data_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(bytes(data))


def restore_after_damage(folder: Path) -> tuple[int, str]:
    """The step that was used and the warning given; what is returned must be the true state of that step."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        restored = Checkpoints(folder).restore(abstract(make_state()))
    assert_same(restored.state, make_state(restored.step))
    assert restored.meta == {"update": restored.step}
    return restored.step, "\n".join(str(w.message) for w in caught)


def test_a_flipped_bit_anywhere_never_gives_wrong_values(folder, capfd):
    fell_back = 0
    for path in data_files(folder / "2"):
        intact = path.read_bytes()
        for position in {0, len(intact) // 3, len(intact) // 2, len(intact) - 1}:
            flip(path, position)
            step, message = restore_after_damage(folder)
            fell_back += step == 1
            assert (step == 2) == (message == ""), message
            path.write_bytes(intact)
    assert fell_back >= 8  # the manifest, the array data and their index are all guarded
    assert "Traceback" not in capfd.readouterr().err


def test_a_flipped_bit_in_array_data_names_step_and_leaf(folder):
    largest = max(data_files(folder / "2"), key=lambda p: p.stat().st_size)
    flip(largest, largest.stat().st_size // 2)
    step, message = restore_after_damage(folder)
    assert step == 1
    assert message == "checkpoint 2 is damaged: params/encoder/kernel (checksum).\nUsing 1."
    with pytest.raises(ValueError, match=r"checkpoint 2 is damaged: params/encoder/kernel \(checksum\)"):
        Checkpoints(folder).restore(abstract(make_state()), step=2)  # asked for: nothing else will do


def test_half_cut_and_deleted_files(folder):
    for path in data_files(folder / "2"):
        intact = path.read_bytes()
        path.write_bytes(intact[: len(intact) // 2])
        step, message = restore_after_damage(folder)
        assert (step == 2) == (message == "") and len(message) < 300
        path.unlink()
        restore_after_damage(folder)
        path.write_bytes(intact)


@pytest.mark.parametrize("damage", ["no manifest", "empty folder", "edited manifest"])
def test_unfinished_or_edited_checkpoints_are_passed_over(folder, damage):
    if damage == "no manifest":
        shutil.rmtree(folder / "2" / "manifest")
    elif damage == "empty folder":
        shutil.rmtree(folder / "2")
        (folder / "2").mkdir()
    else:
        path = folder / "2" / "manifest" / "metadata"
        path.write_text(path.read_text().replace('"update": 2', '"update": 3'))
    step, message = restore_after_damage(folder)
    assert step == 1 and "checkpoint 2 is damaged: " in message and message.endswith("Using 1.")
    assert Checkpoints(folder).read_meta() == {"update": 1}
    assert Checkpoints(folder).steps() == ([1, 2] if damage == "edited manifest" else [1])


def test_all_damaged_or_none_there(folder, tmp_path):
    for step in "12":
        shutil.rmtree(folder / step / "manifest")
    with pytest.raises(ValueError, match=r"(?s)checkpoint 2 .*checkpoint 1 .*No usable checkpoint"):
        Checkpoints(folder).restore(abstract(make_state()))
    with pytest.raises(ValueError, match="no checkpoint in .*give the run folder"):
        Checkpoints(tmp_path / "nowhere").restore({})
    assert not (tmp_path / "nowhere").exists() and Checkpoints(tmp_path / "nowhere").steps() == []
    with pytest.raises(ValueError, match="no checkpoint of step 7"):
        Checkpoints(folder).restore({}, step=7)


def test_another_tree_is_a_readable_diff(two_good):
    target = abstract(make_state())
    target["params"]["encoder"]["kernel"] = jax.ShapeDtypeStruct((64, 128), jnp.float32)
    target["params"]["encoder"]["mask"] = jax.ShapeDtypeStruct((2,), jnp.int32)
    target["params"]["head"] = jax.ShapeDtypeStruct((2,), jnp.float32)
    target["key"] = jax.eval_shape(lambda: jax.random.key(0, impl="rbg"))
    del target["odd/name.0"]
    with pytest.raises(ValueError) as caught:
        Checkpoints(two_good).restore(target)
    lines = str(caught.value).splitlines()
    assert "(5 leaves differ)" in lines[0]
    assert "  params/encoder/kernel: saved float32[64, 96], expected float32[64, 128]" in lines
    assert "  params/encoder/mask: saved bool[2], expected int32[2]" in lines
    assert "  params/head: saved nothing, expected float32[2]" in lines
    assert "  key: saved key<fry>[], expected key<rbg>[]" in lines
    assert "  odd/name.0: saved float32[], expected nothing" in lines


def test_what_cannot_be_saved_is_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(ValueError, match="state leaf a/b is a int"):
        checkpoints.save(1, {"a": {"b": 3}}, {})
    with pytest.raises(ValueError, match="same path"):
        checkpoints.save(1, {"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}}, {})
    with pytest.raises(ValueError, match="keep is 0"):
        Checkpoints(tmp_path, keep=0)
    with pytest.raises(TypeError):
        checkpoints.save(1, {"a": jnp.ones(1)}, {"x": object()})


def test_a_full_disk_warns_and_training_goes_on(folder, monkeypatch):
    usage = shutil.disk_usage(folder)
    with Checkpoints(folder) as checkpoints:
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
            with pytest.warns(RuntimeWarning, match=r"(?s)checkpoint 3 was not saved.*last checkpoint is 2"):
                assert not checkpoints.save(3, make_state(3), {})
        assert checkpoints.save(3, make_state(3), {"update": 3})
    assert restore_quietly(folder).step == 3


def test_a_disk_that_fills_up_during_a_save(tmp_path, capfd):
    """A file-size limit stands for the full disk: orbax's threads fail after `save` returned."""
    resource = pytest.importorskip("resource")
    state = {"x": jax.random.normal(jax.random.key(0), (700, 700))}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.save(1, state, {}) and checkpoints.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
        try:
            with pytest.warns(RuntimeWarning, match=r"(?s)checkpoint 2 was not saved.*checkpoint is 1") as caught:
                assert not (checkpoints.save(2, state, {}) and checkpoints.wait())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert checkpoints.wait() and [p.name for p in tmp_path.iterdir()] == ["1"]
        assert len(caught) == 1 and str(caught[0].message).splitlines()[1].endswith("checkpoint is 1.")
        assert checkpoints.save(3, state, {})
    assert Checkpoints(tmp_path).steps() == [1, 3]
    assert capfd.readouterr().err == ""


SAVER = """
import sys, jax, jax.numpy as jnp
from jaxrl_seq.run.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1], keep=2)
for step in range(1, 10_000):
    checkpoints.save(step, {"x": jnp.full((1000, 1000), step, jnp.float32)}, {"step": step})
    print(step, flush=True)
"""


def test_kill_9_in_the_middle_of_a_save(tmp_path):
    target = {"x": jax.ShapeDtypeStruct((1000, 1000), jnp.float32)}
    killed_in_a_save = False
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        process = subprocess.Popen([sys.executable, "-c", SAVER, str(folder)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        seen = [int(process.stdout.readline()) for _ in range(4)][-1]
        time.sleep(0.004 * attempt)  # at different moments of the next save
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed_in_a_save |= any("orbax-checkpoint-tmp" in p.name for p in folder.iterdir())
        with Checkpoints(folder) as checkpoints:
            restored = checkpoints.restore(target)
            assert restored.step >= seen - 1  # save N returns once N - 1 is on disk
            assert restored.meta == {"step": restored.step}
            assert np.all(np.asarray(restored.state["x"]) == restored.step)
            assert checkpoints.save(restored.step + 1, {"x": restored.state["x"]}, {})
        assert not any("tmp" in p.name for p in folder.iterdir())
    assert killed_in_a_save


def test_sharded_arrays_come_back_where_the_target_says(tmp_path):
    code = """
import sys, jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from jaxrl_seq.run.checkpoint import Checkpoints
mesh = jax.make_mesh((2,), ("seed",))
spread = NamedSharding(mesh, P("seed"))
keys = jax.random.split(jax.random.key(0), 2)
state = {"x": jax.device_put(jnp.arange(8.0), spread), "k": jax.device_put(keys, spread)}
target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=spread), state)
with Checkpoints(sys.argv[1]) as c:
    c.save(1, state, {})
    for want in (target, state):
        got = c.restore(want).state
        assert got["x"].sharding == spread and got["k"].sharding.is_equivalent_to(spread, 1)
        assert jnp.array_equal(got["x"], jnp.arange(8.0)) and bool(jnp.all(got["k"] == state["k"]))
    alone = c.restore(jax.eval_shape(lambda: {"x": jnp.arange(8.0), "k": keys}))
    assert len(alone.state["x"].devices()) == 1
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    environment = {**checkpoint_environment(), **flags}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # neither orbax nor tensorstore may chatter


def checkpoint_environment() -> dict[str, str]:
    import os

    root = str(Path(checkpoint.__file__).parents[2])
    return {**os.environ, "PYTHONPATH": root}
