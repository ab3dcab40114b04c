"""What a data set is of, as JSON: its spaces in the words of Minari, and where it came from."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxrl_seq.envs import Box, Discrete, MultiDiscrete, Space, Tree, make
from jaxrl_seq.offline.dataset import Meta


def space_to_json(space: Space, env: str = "") -> dict[str, Any]:
    """What `space_from_json` reads. A space of another kind is left to the environment `env`; ValueError without."""
    if isinstance(space, Box):
        sides = (np.asarray(side, np.float64) for side in (space.low, space.high))  # as declared, not as float32
        low, high = (np.broadcast_to(x if x.ndim == 0 else x.reshape(space.shape), space.shape).tolist() for x in sides)
        return {"type": "Box", "dtype": str(space.dtype), "shape": list(space.shape), "low": low, "high": high}
    if isinstance(space, Discrete):
        return {"type": "Discrete", "dtype": "int64", "start": 0, "n": space.n}
    if isinstance(space, MultiDiscrete):
        return {"type": "MultiDiscrete", "dtype": "int32", "nvec": list(space.ns), "start": [0] * len(space.ns)}
    if isinstance(space, Tree):
        return {"type": "Dict", "subspaces": {name: space_to_json(sub) for name, sub in space.spaces.items()}}
    if env:
        return {"type": "environment"}
    raise ValueError(f"No way to write the space {space}: use Box, Discrete, MultiDiscrete or a Tree of these.")


def space_from_json(record: dict[str, Any], what: str, env: str = "") -> Space:
    """A space; `what` (observation_space or action_space) is for messages, and for asking the environment `env`.

    Floats of 64 bits become float32, and integers int32, as arrays on the device do. Raises ValueError for kinds that
    this library has not, and for integers that do not start at 0.
    """
    kind = record.get("type")
    if kind == "environment":
        return getattr(make(env)[0], what)()
    if kind == "Dict":
        return Tree({name: space_from_json(sub, f"{what}.{name}") for name, sub in record["subspaces"].items()})
    if kind == "Box":
        shape, dtype = tuple(record["shape"]), np.dtype(record["dtype"])
        dtype = {"f": np.dtype("float32"), "i": np.dtype("int32")}.get(dtype.kind if dtype.itemsize > 4 else "", dtype)
        low, high = (tuple(np.ravel(record[side]).astype(float).tolist()) for side in ("low", "high"))
        same = [bound[0] if len(set(bound)) == 1 else bound for bound in (low, high)]
        return Box(same[0], same[1], shape, dtype)
    if kind in ("Discrete", "MultiDiscrete"):
        if np.any(np.asarray(record.get("start", 0))):
            raise ValueError(
                f"{what} starts at {record['start']}; integers start at 0 here: shift them before writing."
            )
        return Discrete(record["n"]) if kind == "Discrete" else MultiDiscrete(tuple(np.ravel(record["nvec"]).tolist()))
    raise ValueError(f"{what} is a space {kind!r}; served are Box, Discrete, MultiDiscrete and Dict.")


def meta_to_json(meta: Meta) -> dict[str, Any]:
    """What `meta_from_json` reads."""
    spaces = {name: space_to_json(getattr(meta, name), meta.env) for name in ("observation_space", "action_space")}
    return vars(meta) | spaces | {"reference": dict(meta.reference), "notes": dict(meta.notes)}


def meta_from_json(record: dict[str, Any]) -> Meta:
    """Raises ValueError for spaces that are not served."""
    env = record["env"]
    return Meta(
        observation_space=space_from_json(record["observation_space"], "observation_space", env),
        action_space=space_from_json(record["action_space"], "action_space", env),
        env=env,
        recipe=record["recipe"],
        seed=record["seed"],
        reference=tuple(record["reference"].items()),
        notes=tuple(record["notes"].items()),
    )
