"""Many environments that have one fault each: what `check_env` has to find."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from recall_env import SIDES, Array, Recall

BROKEN: list[tuple[str, str, type]] = []
"""(the check that must fail, words of its message, the environment)."""


def fault(check: str, words: str) -> Any:
    def note(cls: type) -> type:
        frozen = cls if "__dataclass_fields__" in cls.__dict__ else dataclass(frozen=True)(cls)
        BROKEN.append((check, words, frozen))
        return frozen

    return note


# --- form -------------------------------------------------------------------------------------------------------------
@fault("structure", "int32")
class StateChangesItsType(Recall):
    def step(self, key, state, action, params):
        state, timestep = super().step(key, state, action, params)
        return replace(state, t=state.t.astype(jnp.float32)), timestep


@fault("structure", "jnp.where")
class ParameterDecidesABranch(Recall):
    def step(self, key, state, action, params):
        return super().step(key, state, 0 if params.prize > 1 else action, params)


@fault("structure", "success")
class InfoOnlyInStep(Recall):
    def reset_to(self, key, task, params):
        state, timestep = super().reset_to(key, task, params)
        return state, replace(timestep, info={})


@fault("structure", "weakly typed")
class PythonNumberInTheState(Recall):
    def reset_to(self, key, task, params):
        state, timestep = super().reset_to(key, task, params)
        return replace(state, t=jnp.asarray(0)), timestep


@fault("flags", "float32[]")
class WholeNumberedReward(Recall):
    def reset_to(self, key, task, params):
        state, timestep = super().reset_to(key, task, params)
        return state, replace(timestep, reward=jnp.int32(0))

    def step(self, key, state, action, params):
        state, timestep = super().step(key, state, action, params)
        return state, replace(timestep, reward=timestep.reward.astype(jnp.int32))


@fault("flags", "first")
class ResetDoesNotOpen(Recall):
    def reset_to(self, key, task, params):
        state, timestep = super().reset_to(key, task, params)
        return state, replace(timestep, first=jnp.zeros((), bool))


@fault("spaces", "expected a Space")
class SpaceOfAnotherLibrary(Recall):
    def observation_space(self):
        return (SIDES,)


@fault("hashing", "equal")
@dataclass(frozen=True, eq=False)
class EqualOnesDiffer(Recall):
    def __eq__(self, other):
        return self is other

    def __hash__(self):
        return id(self)


@fault("x64", "64-bit")
class TypeFollowsTheMode(Recall):
    def reset_to(self, key, task, params):
        state, timestep = super().reset_to(key, task, params)
        return replace(state, t=jnp.zeros((), int)), timestep

    def step(self, key, state, action, params):
        following, timestep = super().step(key, state, action, params)
        return replace(following, t=following.t.astype(int)), timestep


@fault("host_calls", "calls the host")
class PrintsEveryStep(Recall):
    def step(self, key, state, action, params):
        jax.debug.callback(lambda t: None, state.t)
        return super().step(key, state, action, params)


@fault("key_reuse", "twice")
class KeyUsedTwice(Recall):
    def step(self, key, state, action, params):
        state, timestep = super().step(key, state, action, params)
        noise = jax.random.uniform(key) + jax.random.uniform(key)
        return state, replace(timestep, obs=jnp.clip(timestep.obs + 0.0 * noise, 0.0, 1.0))


@fault("purity", "different results")
class DrawsWithNumPy(Recall):
    def sample_task(self, key, params):
        return jnp.int32(np.random.randint(10**6)) % SIDES + 0 * super().sample_task(key, params)


# --- transformations --------------------------------------------------------------------------------------------------
@fault("jit", "compiled and plain Python")
class KnowsWhetherItIsTraced(Recall):
    def step(self, key, state, action, params):
        state, timestep = super().step(key, state, action, params)
        bonus = 0.0 if isinstance(state.t, jax.core.Tracer) else 1.0
        return state, replace(timestep, reward=timestep.reward + jnp.float32(bonus))


@fault("vmap", "batch")
class LooksAtTheWholeBatch(Recall):
    def reset_to(self, key, task, params):
        @jax.custom_batching.custom_vmap
        def of_the_batch(task):
            return task

        @of_the_batch.def_vmap
        def _(axis_size, in_batched, task):
            return jnp.broadcast_to(task.max(), task.shape), True

        return super().reset_to(key, of_the_batch(task), params)


@fault("parameters", "changes nothing")
class DeadParameter(Recall):
    def default_params(self):
        return RecallWithDeadParams(prize=jnp.float32(1.0), penalty=jnp.float32(0.5))


@struct.dataclass
class RecallWithDeadParams:
    prize: Array
    penalty: Array


# --- episodes ---------------------------------------------------------------------------------------------------------
@fault("observations", "observation_space")
class LastObservationOutOfBounds(Recall):
    def _obs(self, state):
        return super()._obs(state) + 2.0 * (state.t == self.horizon)


@fault("observations", "action_space")
class ExpertOutOfItsSpace(Recall):
    def expert(self, key, state, params):
        return jnp.where(state.t < self.delay, SIDES, state.task).astype(jnp.int32)


@fault("observations", "optimal_actions")
class OptimalActionsOfTheWrongSide(Recall):
    def optimal_actions(self, state, params):
        return jnp.arange(SIDES) == (state.task + 1) % SIDES


@fault("observations", "not finite")
class RewardIsNaN(Recall):
    def step(self, key, state, action, params):
        state, timestep = super().step(key, state, action, params)
        return state, replace(timestep, reward=timestep.reward / jnp.where(state.t == 2, 0.0, 1.0) * 1.0)


@fault("observations", "Leave resetting to VecEnv")
class ResetsItself(Recall):
    def step(self, key, state, action, params):
        state, timestep = super().step(key, state, action, params)
        fresh, opened = self.reset(key, params)
        pick = timestep.done
        state = jax.tree.map(lambda a, b: jnp.where(pick, a, b), fresh, state)
        return state, replace(
            timestep, obs=jnp.where(pick, opened.obs, timestep.obs), first=jnp.where(pick, True, timestep.first)
        )


@fault("observations", "expected one")
class EndsTwice(Recall):
    def step(self, key, state, action, params):
        state, timestep = super().step(key, state, action, params)
        return state, replace(timestep, truncated=timestep.terminated)


@fault("actions", "every declared action")
class ChokesOnAnAction(Recall):
    def step(self, key, state, action, params):
        state, timestep = super().step(key, state, action, params)
        return state, replace(timestep, reward=jnp.where(action == SIDES - 1, jnp.inf, timestep.reward))


@fault("actions", "allows no action")
class MaskWithoutAChoice(Recall):
    def reset_to(self, key, task, params):
        state, timestep = super().reset_to(key, task, params)
        return state, replace(timestep, action_mask=jnp.zeros(SIDES, bool))

    def step(self, key, state, action, params):
        state, timestep = super().step(key, state, action, params)
        return state, replace(timestep, action_mask=jnp.ones(SIDES, bool))


@fault("indices", "out-of-bounds")
class IndexOutOfBounds(Recall):
    def step(self, key, state, action, params):
        state, timestep = super().step(key, state, action, params)
        table = jnp.ones(self.horizon, jnp.float32)
        return state, replace(timestep, reward=timestep.reward * table[state.t])


@fault("indices", "division by zero")
class DividesByZero(Recall):
    def step(self, key, state, action, params):
        state, timestep = super().step(key, state, action, params)
        share = 1.0 / (state.t - 1).astype(jnp.float32)
        return state, replace(timestep, reward=jnp.where(state.t > 1, timestep.reward * jnp.sign(share), 0.0))


@fault("ends", "not over")
class NeverEnds(Recall):
    def step(self, key, state, action, params):
        state, timestep = super().step(key, state, action, params)
        return state, replace(timestep, terminated=jnp.zeros((), bool))


@fault("ends", "fixed_length")
class EndsEarlyUndeclared(Recall):
    def step(self, key, state, action, params):
        state, timestep = super().step(key, state, action, params)
        return state, replace(timestep, terminated=timestep.terminated | (action == 0))


@fault("ends", "time_limit")
class CutsWhatItSaysIsTerminal(Recall):
    def step(self, key, state, action, params):
        state, timestep = super().step(key, state, action, params)
        return state, replace(timestep, truncated=timestep.terminated, terminated=jnp.zeros((), bool))


@fault("ends", "Only the time limit truncates")
class TruncatesEarly(Recall):
    time_limit: ClassVar[Any] = "truncate"
    fixed_length: ClassVar[bool] = False

    def step(self, key, state, action, params):
        state, timestep = super().step(key, state, action, params)
        over = timestep.terminated | (action == 0)
        return state, replace(timestep, truncated=over, terminated=jnp.zeros((), bool))


@fault("after_end", "after the end")
class ClockRunsOut(Recall):
    def _obs(self, state):
        return super()._obs(state).at[0].add(jnp.maximum(state.t - self.horizon, 0).astype(jnp.float32))


# --- claims -----------------------------------------------------------------------------------------------------------
@fault("reference", "expert")
class UnsolvablePuzzle(Recall):
    """The question is about another side than the one that was shown (as a port of Autoencode once did)."""

    def step(self, key, state, action, params):
        return super().step(key, state, (action + 1) % SIDES, params)


@fault("reference", "random <= reactive <= expert")
class MemorylessIsBest(Recall):
    def reference(self):
        return super().reference() | {"reactive": 2.0}


@fault("resets", "reset_policy")
class StateSurvivesTheReset(Recall):
    """Once compiled, each trace of reset goes on where the last one stopped."""

    memory: list = field(default_factory=list, compare=False, hash=False)

    def reset_to(self, key, task, params):
        self.memory.append(0)
        return super().reset_to(key, (task + len(self.memory) // 3) % SIDES, params)


@fault("tasks", "same task")
class OneTaskOnly(Recall):
    def sample_task(self, key, params):
        return jnp.int32(1)


@fault("tasks", "tasks() lists")
class TasksAreMissing(Recall):
    def tasks(self, params):
        return jnp.arange(SIDES - 1, dtype=jnp.int32)


@fault("tasks", "reset and reset_to")
class ResetIgnoresTheTask(Recall):
    def reset(self, key, params):
        return self.reset_to(key, jax.random.randint(key, (), 0, SIDES, jnp.int32), params)


# --- presentation -----------------------------------------------------------------------------------------------------
@fault("pictures", "uint8")
class PictureOfFloats(Recall):
    def render(self, state, params):
        return super().render(state, params).astype(jnp.float32)


@fault("pictures", "the same")
class PictureStandsStill(Recall):
    def render(self, state, params):
        return super().render(replace(state, t=jnp.int32(0)), params)


@fault("pictures", "ascii")
class SilentAscii(Recall):
    def ascii(self, state, params):
        return "recall"


@struct.dataclass
class KeyedState:
    task: Array
    t: Array
    key: Array


@fault("storage", "random key")
class KeyInTheState(Recall):
    def reset_to(self, key, task, params):
        a, b = jax.random.split(key)
        state, timestep = super().reset_to(a, task, params)
        return KeyedState(state.task, state.t, b), timestep
