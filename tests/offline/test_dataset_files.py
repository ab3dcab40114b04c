"""Files of data sets: what is written is what is read, Minari reads ours and we read Minari's, and what is wrong with a
file is said."""

from __future__ import annotations

import importlib
import json
import shutil

import jax
import numpy as np
import pytest
from flat_data import META, columns, dataset

from jaxrl_seq.cli import main
from jaxrl_seq.envs import Box, Discrete, MultiDiscrete, Tree, make
from jaxrl_seq.offline import Meta, build
from jaxrl_seq.run.dataset_hdf5 import read_d4rl, read_minari, write_minari
from jaxrl_seq.run.dataset_meta import space_from_json, space_to_json
from jaxrl_seq.run.datasets import Data, check_path, get_dataset, load_dataset, save_dataset, split_name

LENGTHS = (3, 1, 5, 2, 1, 4)


@pytest.fixture
def h5py():
    return pytest.importorskip("h5py")


def tree_data():
    """With dictionaries, integers and pictures in the observations."""
    given = columns(LENGTHS)
    rng = np.random.default_rng(0)

    def seen(rows):
        pictures = rng.integers(0, 256, (rows, 8, 8, 3)).astype(np.uint8)
        return {"image": pictures, "cell": rng.integers(0, 4, (rows, 2)).astype(np.int32)}

    space = Tree({"image": Box(0, 255, (8, 8, 3), np.uint8), "cell": MultiDiscrete((4, 4))})
    given |= {"obs": seen(16), "final_obs": seen(6), "action": rng.uniform(-1, 1, (16, 2)).astype(np.float32)}
    return build(**given, meta=Meta(space, Box(-1, 1, (2,)), recipe="made", seed=3, notes=(("why", "a test"),)))


def same(a, b):
    assert a.meta == b.meta
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert [x.dtype for x in jax.tree.leaves(a)] == [x.dtype for x in jax.tree.leaves(b)]


# --- the native file --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make_data", [lambda: dataset(LENGTHS), tree_data])
def test_a_file_gives_back_what_was_written(tmp_path, make_data):
    data = make_data()
    same(load_dataset(save_dataset(tmp_path / "sub" / "d.npz", data)), data)


def test_a_folder_of_files_is_one_data_set_and_faults_name_the_shard(tmp_path):
    first, second = dataset(LENGTHS), dataset((2, 2), seed=1)
    save_dataset(tmp_path / "a.npz", first)
    save_dataset(tmp_path / "b.npz", second)
    whole = load_dataset(tmp_path)
    assert whole.steps == 20 and whole.num_episodes == 8
    given = columns((2, 2))
    given["reward"][3] = np.nan
    save_dataset(tmp_path / "b.npz", build(**given, meta=META))
    with pytest.raises(ValueError, match=r"shard b.npz, episode 1, step 1: reward is nan"):
        load_dataset(tmp_path)
    assert [report.failed for report in check_path(tmp_path)] == [(), ("finite",)]


def test_faults_of_native_files_are_named(tmp_path):
    path = save_dataset(tmp_path / "d.npz", dataset(LENGTHS))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="d.npz is no data set of this library, or damaged"):
        load_dataset(path)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="other.npz is no data set of this library"):
        load_dataset(tmp_path / "other.npz")
    path.write_bytes(whole)
    arrays = dict(np.load(path))

    def rewritten(**changes):
        np.savez(path, **{name: x for name, x in (arrays | changes).items() if x is not None})
        return path

    with pytest.raises(ValueError, match="reward is .*crc32.*, but .* was written: the file is damaged"):
        load_dataset(rewritten(reward=arrays["reward"] + 1))
    with pytest.raises(ValueError, match="has arrays .*; its header names"):
        load_dataset(rewritten(reward=None))
    header = json.loads(str(arrays["header"]))
    with pytest.raises(ValueError, match="the header was changed"):
        load_dataset(rewritten(header=np.array(json.dumps(header | {"meta": {}}))))
    with pytest.raises(ValueError, match="is of version 9; this library reads version 1"):
        load_dataset(rewritten(header=np.array(json.dumps(header | {"version": 9}))))
    with pytest.raises(ValueError, match="no such file"):
        load_dataset(tmp_path / "none.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no data set: neither .npz files nor main_data.hdf5"):
        load_dataset(tmp_path / "empty")
    with pytest.raises(ValueError, match="kept in a .npz file"):
        save_dataset(tmp_path / "d.pkl", dataset(LENGTHS))


# --- names ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("point_mass-medium-replay", ("point_mass", "medium-replay")),
        ("tmaze-10-expert,penalty=0.0", ("tmaze-10,penalty=0.0", "expert")),
        ("gymnax:CartPole-v1-random", ("gymnax:CartPole-v1", "random")),
        ("autoencode-medium-expert", ("autoencode", "medium-expert")),
        ("autoencode-medium/expert", ("autoencode-medium", "expert")),
        ("my/two_bells.py:TwoBells/eps-mix", ("my/two_bells.py:TwoBells", "eps-mix")),
    ],
)
def test_a_name_is_an_environment_and_a_recipe(name, want):
    assert split_name(name) == want


def test_data_by_name_and_by_path_is_the_same(tmp_path):
    data, env, params = Data("grid_stitch-stitch", dataset_steps=60, dataset_seed=2).open()
    assert env == make("grid_stitch")[0] and data.meta.seed == 2 and data.meta.env == "grid_stitch"
    path = save_dataset(tmp_path / "d.npz", data)
    again, env, _ = Data(str(path)).open()
    same(again, data)
    with pytest.raises(ValueError, match="neither a file nor a data set's name"):
        get_dataset("grid_stitch")
    with pytest.raises(ValueError, match="there is no such file"):
        get_dataset("grid_stich.npz")
    plain = save_dataset(tmp_path / "plain.npz", dataset(LENGTHS))
    with pytest.raises(ValueError, match="does not say what it is of: give --dataset-env"):
        Data(str(plain)).open()
    with pytest.raises(ValueError, match="cartpole differ in observations"):
        Data(str(plain), dataset_env="cartpole").open()


def test_the_command_line_collects_and_checks(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["collect", "dataset", "--env", "grid_stitch", "--recipe", "stitch", "--steps", "60"]) == 0
    assert "grid_stitch-stitch.npz: 65 steps, 5 episodes with returns 0 to 1" in capsys.readouterr().out
    assert main(["check", "dataset", "grid_stitch-stitch.npz"]) == 0
    assert "grid_stitch-stitch: 10 rules hold" in capsys.readouterr().out
    given = columns(LENGTHS)
    given["obs"][5, 0] = np.nan
    save_dataset("bad.npz", build(**given, meta=META))
    assert main(["check", "dataset", "bad.npz"]) == 1
    assert "finite       FAILED   shard bad.npz, episode 2, step 1: obs[0] is nan" in capsys.readouterr().out
    for words, message in (
        ("check dataset none.npz", "no such file"),
        ("collect dataset --recipe best", "Unknown recipe 'best'"),
        ("collect dataset --recipe random --out d.pkl", "give a file NAME.npz, or a folder"),
        ("collect dataset --env kartpole --recipe random", "Did you mean 'cartpole'"),
    ):
        assert main(words.split()) == 2
        assert message in capsys.readouterr().err


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    real = importlib.import_module

    def missing(name, *rest):
        if name == "h5py":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"HDF5 files need h5py: pip install 'jaxrl_seq\[offline\]'"):
        write_minari(tmp_path / "m", dataset(LENGTHS))


# --- Minari -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make_data", [lambda: dataset(LENGTHS), tree_data])
def test_minari_folders_give_back_what_was_written(tmp_path, h5py, make_data):
    data = make_data()
    path = write_minari(tmp_path / "m", data)
    for place in (path, path / "data", path / "data" / "main_data.hdf5"):
        same(load_dataset(place), data)
    with pytest.raises(ValueError, match="holds a data set already"):
        write_minari(path, data)


@pytest.mark.parametrize("make_data", [lambda: dataset(LENGTHS), tree_data])
def test_minari_itself_reads_what_we_write(tmp_path, make_data):
    minari = pytest.importorskip("minari")
    data = make_data()
    theirs = minari.MinariDataset(write_minari(tmp_path / "m", data) / "data")
    assert (theirs.total_episodes, theirs.total_steps) == (6, 16)
    host = jax.device_get(data)
    for e, episode in enumerate(theirs.iterate_episodes()):
        rows = slice(host.start[e], host.start[e] + host.length[e])
        jax.tree.map(
            np.testing.assert_array_equal,
            episode.observations,
            jax.tree.map(
                lambda x, last, rows=rows, e=e: np.concatenate([x[rows], last[None, e]]), host.obs, host.final_obs
            ),
        )
        np.testing.assert_array_equal(episode.actions, host.action[rows])
        np.testing.assert_array_equal(episode.rewards, host.reward[rows])
        np.testing.assert_array_equal(episode.terminations, host.terminated[rows])
        np.testing.assert_array_equal(episode.truncations, host.truncated[rows])
        np.testing.assert_array_equal(episode.infos["cost"][1:], host.extra["cost"][rows])
        assert all(
            theirs.observation_space.contains(_row(episode.observations, t)) for t in range(len(episode.rewards))
        )


def _row(tree, t):
    return jax.tree.map(lambda x: x[t], tree)


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
def test_we_read_what_minari_itself_writes(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    import gymnasium as gym
    from minari.data_collector.episode_buffer import EpisodeBuffer  # pyright: ignore[reportMissingImports]

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    data = dataset(LENGTHS)
    host = jax.device_get(data)
    buffers = []
    for e in range(6):
        rows = slice(host.start[e], host.start[e] + host.length[e])
        seen = np.concatenate([host.obs[rows], host.final_obs[e : e + 1]]).astype(np.float64)
        flags = (list(column[rows]) for column in (host.terminated, host.truncated))
        buffers.append(
            EpisodeBuffer(
                None, None, None, list(seen), list(host.action[rows].astype(int)), list(host.reward[rows]), *flags
            )
        )
    made = minari.create_dataset_from_buffers(
        "there/and/back-v0",
        buffers,
        observation_space=gym.spaces.Box(-1e6, 1e6, (2,), np.float64),
        action_space=gym.spaces.Discrete(5),
        algorithm_name="by hand",
    )
    made.storage.update_metadata({"ref_min_score": -1.0, "ref_max_score": 2.0})
    again = load_dataset(made.storage.data_path)
    for name in ("obs", "action", "reward", "terminated", "truncated", "rtg", "final_obs", "length"):
        np.testing.assert_array_equal(getattr(again, name), getattr(data, name), err_msg=name)
    assert again.meta.recipe == "by hand" and dict(again.meta.reference) == {"random": -1.0, "expert": 2.0}
    assert again.meta.observation_space == Box(-1e6, 1e6, (2,)) and again.meta.action_space == Discrete(5)


def test_faults_of_minari_folders_are_named(tmp_path, h5py):
    data = dataset(LENGTHS)
    spare = write_minari(tmp_path / "spare", data) / "data"

    def broken(change):
        folder = tmp_path / "m"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(spare, folder)
        with h5py.File(folder / "main_data.hdf5", "a") as file:
            change(file)
        return folder / "main_data.hdf5"

    def drop(name):
        def change(file):
            del file[name]

        return change

    def flag(file):
        file["episode_2/terminations"][-1] = False

    def short(file):
        file["episode_2/observations"].resize((5, 2))

    for change, message in (
        (drop("episode_3"), "has no episode_3; expected 6 episodes"),
        (drop("episode_3/rewards"), "episode 3 has no rewards; it has"),
        (flag, "episode 2, step 4 is the last one but neither terminated nor truncated: load it with"),
        (short, "episode 2 has 5 observations; expected 6, for 5 rewards"),
    ):
        with pytest.raises(ValueError, match=message):
            read_minari(broken(change))
    place = broken(flag)
    assert read_minari(place, "drop").num_episodes == 5
    kept = read_minari(place, "truncate")
    assert kept.num_episodes == 6 and bool(kept.truncated[8]) and not bool(kept.terminated[8])
    whole = place.read_bytes()
    place.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(ValueError, match="is damaged, cut off, or no HDF5 file"):
        read_minari(place)
    (place.parent / "metadata.json").unlink()
    with pytest.raises(ValueError, match="metadata.json, which says what main_data.hdf5 is of, is missing"):
        read_minari(place)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"type": "Text", "max_length": 3}, "obs is a space 'Text'; served are"),
        ({"type": "Discrete", "start": 2, "n": 3}, "obs starts at 2; integers start at 0 here"),
        ({"type": "Dict", "subspaces": {"a": {"type": "Tuple"}}}, "obs.a is a space 'Tuple'"),
    ],
)
def test_foreign_spaces_are_refused(record, message):
    with pytest.raises(ValueError, match=message):
        space_from_json(record, "obs")


@pytest.mark.parametrize("spec", ["point_mass", "tabular_mdp", "darkroom", "cartpole", "pixels:tmaze,length=5"])
def test_spaces_come_back_from_json(spec):
    env, _ = make(spec)
    for what in ("observation_space", "action_space"):
        space = getattr(env, what)()
        assert space_from_json(json.loads(json.dumps(space_to_json(space, spec))), what, spec) == space


# --- D4RL -------------------------------------------------------------------------------------------------------------
GOLDEN = {
    "observations": np.arange(14, dtype=np.float64).reshape(7, 2),
    "actions": np.linspace(-1, 1, 7, dtype=np.float32)[:, None],
    "rewards": np.arange(7, dtype=np.float32)[:, None],  # (N, 1), as some have it
    "terminals": np.array([0, 0, 1, 0, 0, 0, 0], np.uint8)[:, None],
    "timeouts": np.array([0, 0, 0, 0, 0, 1, 0], bool),
}
NEXT = {"next_observations": GOLDEN["observations"] + 100}


def d4rl(h5py, path, **changes):
    with h5py.File(path, "w") as file:
        for name, column in (GOLDEN | changes).items():
            if column is not None:
                file[name] = column
        file["metadata/algorithm"] = "by hand"
    return path


def test_d4rl_files_are_read(tmp_path, h5py):
    with pytest.warns(UserWarning, match="episode 2 has no end: its 1 steps are left out"):
        data = load_dataset(d4rl(h5py, tmp_path / "g.hdf5", **NEXT, costs=np.ones(7)))
    np.testing.assert_array_equal(data.length, [3, 3])
    np.testing.assert_array_equal(data.reward, np.arange(6))
    np.testing.assert_array_equal(data.final_obs, [[104, 105], [110, 111]])
    np.testing.assert_array_equal(data.terminated, [0, 0, 1, 0, 0, 0])
    np.testing.assert_array_equal(data.truncated, [0, 0, 0, 0, 0, 1])
    assert data.meta.action_space == Box(-1, 1, (1,)) and data.extra["cost"].shape == (6, 1)
    whole = read_d4rl(tmp_path / "g.hdf5", "truncate")
    assert whole.steps == 7 and bool(whole.truncated[6])
    with pytest.raises(ValueError, match="episode 2, step 0 is the last one but neither"):
        read_d4rl(tmp_path / "g.hdf5", "error")


def test_d4rl_files_without_next_observations_lose_the_step_that_was_cut(tmp_path, h5py):
    with pytest.warns(UserWarning, match="are left out"):
        data = load_dataset(d4rl(h5py, tmp_path / "g.hdf5"))
    np.testing.assert_array_equal(data.length, [3, 2])
    np.testing.assert_array_equal(data.truncated, [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(data.final_obs, [[4, 5], [10, 11]])  # of the terminated one its own, never used


def test_faults_of_d4rl_files_are_named(tmp_path, h5py):
    path = tmp_path / "g.hdf5"
    with pytest.raises(ValueError, match="is no D4RL file: it has actions, .* but no flat terminals"):
        load_dataset(d4rl(h5py, path, terminals=None))
    with pytest.raises(ValueError, match="6 actions, but 7 rewards: the file is cut off or foreign"):
        load_dataset(d4rl(h5py, path, actions=GOLDEN["actions"][:-1]))
    nothing = {"terminals": np.zeros(7), "timeouts": None}
    with pytest.raises(ValueError, match="holds no complete episode: none of its 7 steps"), pytest.warns(UserWarning):
        load_dataset(d4rl(h5py, path, **nothing))
    bad = NEXT | {"observations": np.where(np.arange(14).reshape(7, 2) == 9, np.nan, GOLDEN["observations"])}
    with pytest.raises(ValueError, match=r"episode 1, step 1: obs\[1\] is nan"), pytest.warns(UserWarning):
        load_dataset(d4rl(h5py, path, **bad))
    with pytest.raises(ValueError, match="cartpole differ in observations"), pytest.warns(UserWarning):
        load_dataset(d4rl(h5py, path), env="cartpole")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="is damaged, cut off, or no HDF5 file"):
        load_dataset(path)
    path.write_text("not HDF5")
    with pytest.raises(ValueError, match="is damaged, cut off, or no HDF5 file"):
        load_dataset(path)
