"""`jaxrl-seq new-env NAME`: a working environment of your own, with its test, to change line by line."""

from __future__ import annotations

from pathlib import Path

ENV = '''"""CLASS: hear one of two bells, wait, say which it was."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.envs import Box, Discrete, Env, TimeStep, opening, register, transition
from jaxrl_seq.envs.core import rendering as draw

Array = jax.Array


@struct.dataclass
class CLASSState:
    """What changes in an episode. Arrays only, of a fixed dtype; no random key."""

    bell: Array  # int32 [], 0 or 1
    t: Array  # int32 [], steps taken


@struct.dataclass
class CLASSParams:
    """Numbers that one may sweep, or give each environment its own of."""

    prize: Array  # float32 [], reward of the right answer


@dataclass(frozen=True)
class CLASS(Env[CLASSState, CLASSParams]):
    """Say at the end which of two bells rang at the start.

    Observation float32 [3]: the bell, one-hot, at the start only; a flag that asks. Actions: the two bells. The episode
    lasts `delay + 1` steps; the last pays `prize` for the right answer.
    """

    delay: int = 8
    """Silent steps between the bell and the question. Fields are static sizes; they decide shapes and lengths."""

    name: ClassVar[str] = "NAME"
    paper: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if self.delay < 1:
            raise ValueError(f"NAME: delay must be at least 1, got {self.delay}.")

    @property
    def horizon(self) -> int:
        return self.delay + 1

    def default_params(self) -> CLASSParams:
        return CLASSParams(prize=jnp.float32(1.0))

    def reset(self, key: Array, params: CLASSParams) -> tuple[CLASSState, TimeStep]:
        state = CLASSState(bell=jax.random.bernoulli(key).astype(jnp.int32), t=jnp.int32(0))
        return state, opening(self._obs(state), info={"success": jnp.zeros((), bool)})

    def step(
        self, key: Array, state: CLASSState, action: Array, params: CLASSParams
    ) -> tuple[CLASSState, TimeStep]:
        asked = state.t == self.delay
        right = asked & (action == state.bell)
        state = replace(state, t=state.t + 1)
        reward = jnp.where(right, params.prize, 0.0)
        over = state.t >= self.horizon
        return state, transition(self._obs(state), reward, terminated=over, info={"success": right})

    def _obs(self, state: CLASSState) -> Array:
        """One function for reset and step, so that they cannot drift apart."""
        bell = jax.nn.one_hot(state.bell, 2, dtype=jnp.float32) * (state.t == 0)
        return jnp.append(bell, state.t == self.delay).astype(jnp.float32)

    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (3,))

    def action_space(self) -> Discrete:
        return Discrete(2)

    # What follows is optional; each unlocks something: scores, pictures, checks.

    def expert(self, key: Array, state: CLASSState, params: CLASSParams) -> Array:
        """The right answer; an expert may look at the state."""
        return state.bell

    def reference(self) -> dict[str, float]:
        """Mean returns of random play, of the best policy without memory, and of the expert. The checker plays them."""
        return {"random": 0.5, "reactive": 0.5, "expert": 1.0}

    def render(self, state: CLASSState, params: CLASSParams) -> Array:
        """uint8 [40, 80, 3]: the two bells, the one that rang in orange, and the time that has passed."""
        image = draw.canvas(40, 80)
        for bell, x in enumerate((25, 55)):
            rang = jnp.where(state.bell == bell, jnp.array(draw.ORANGE), jnp.array(draw.GREY))
            image = draw.paint(image, draw.disc(40, 80, 17, x, 11), rang)
        return draw.paint(image, draw.rectangle(40, 80, 34, 0, 40, 80 * state.t / self.horizon), draw.BLUE)

    def ascii(self, state: CLASSState, params: CLASSParams) -> str:
        return ("(*) ( )" if int(state.bell) == 0 else "( ) (*)") + f"  step {int(state.t)} of {self.horizon}"


# `make("NAME")` works wherever this file is imported. A package announces it without an import, in pyproject.toml:
#     [project.entry-points."jaxrl_seq.envs"]
#     NAME = "my_package.NAME:CLASS"
register("NAME", CLASS, presets={"long": {"delay": 50}})
'''

TEST = '''"""CLASS keeps the contract of an environment: run with `pytest`."""

import jax
import pytest
from NAME import CLASS

from jaxrl_seq.envs import check_env, make


@pytest.mark.parametrize("spec", ["NAME", "NAME-long"])
def test_contract(spec):
    print(check_env(*make(spec)))


def test_the_question_comes_at_the_end():
    env, params = make("NAME,delay=2,prize=3.0")
    state, timestep = env.reset(jax.random.key(0), params)
    for expected in (0.0, 0.0, 3.0):
        state, timestep = env.step(jax.random.key(1), state, state.bell, params)
        assert float(timestep.reward) == expected
    assert bool(timestep.terminated)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="delay must be at least 1"):
        CLASS(delay=0)
'''


def new_env(name: str, folder: Path) -> tuple[Path, Path]:
    """Write NAME.py and test_NAME.py into `folder`; returns their paths.

    Raises ValueError for a name that is no plain word, is taken, or whose files exist.
    """
    from jaxrl_seq.envs import list_envs

    if not name.isidentifier() or name != name.lower():
        raise ValueError(f"Environment name {name!r}: write it in lower case, as a Python word such as my_corridor.")
    if name in list_envs():
        raise ValueError(f"Environment name {name!r} is taken; `jaxrl-seq list envs` shows all.")
    cls = "".join(part.capitalize() for part in name.split("_"))
    files = {folder / f"{name}.py": ENV, folder / f"test_{name}.py": TEST}
    for path in files:
        if path.exists():
            raise ValueError(f"{path} exists already; choose another name or folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        path.write_text(text.replace("CLASS", cls).replace("NAME", name))
    env, test = files
    return env, test
