"""Cart-pole swing-up, reacher and swimmer against a slow twin of their mechanics, and against exact laws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from control_play import follow, openings, redrawn, step_all

from jaxrl_seq.envs.control.cartpole_swing_up import CartPoleSwingUp, CartPoleSwingUpState
from jaxrl_seq.envs.control.reacher import Reacher, ReacherState
from jaxrl_seq.envs.control.swimmer import Swimmer, SwimmerState


# --- mechanics against a twin in Cartesian coordinates ----------------------------------------------------------
def accelerations(q: np.ndarray, v: np.ndarray, mass: np.ndarray, force: np.ndarray, bonds: Callable) -> np.ndarray:
    """Newton's law for bodies held together by bonds(q) = 0: the forces of constraint are solved for, and the
    bonds' derivatives are taken numerically, so that nothing of the closed form is used. float64."""
    width = 1e-6
    jacobian = np.stack([(bonds(q + e) - bonds(q - e)) / (2 * width) for e in width * np.eye(len(q))], axis=1)
    small = 1e-4
    bending = (bonds(q + small * v) - 2 * bonds(q) + bonds(q - small * v)) / small**2
    rows = len(bending)
    system = np.block([[np.diag(mass), jacobian.T], [jacobian, np.zeros((rows, rows))]])
    return np.linalg.solve(system, np.concatenate([force, -bending]))[: len(q)]


def integrate(q: Any, v: Any, mass: Any, force: Callable, bonds: Callable, dt: float, pieces: int = 10) -> Any:
    """(q, v) after `dt`, in many small Runge-Kutta steps."""

    def slope(y: np.ndarray) -> np.ndarray:
        q, v = np.split(y, 2)
        return np.concatenate([v, accelerations(q, v, mass, force(q, v), bonds)])

    y, h = np.concatenate([q, v]).astype(np.float64), dt / pieces
    for _ in range(pieces):
        k1 = slope(y)
        k2 = slope(y + h / 2 * k1)
        k3 = slope(y + h / 2 * k2)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(y + h * k3))
    return np.split(y, 2)


def _directions(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _normals(angles: np.ndarray) -> np.ndarray:
    return np.stack([-np.sin(angles), np.cos(angles)], axis=1)


@pytest.mark.parametrize("seed", range(4))
def test_cartpole_swing_up_obeys_newton(seed: int):
    env, rng = CartPoleSwingUp(), np.random.default_rng(seed)
    params = redrawn(env.default_params(), rng) if seed else env.default_params()
    p = {k: float(v) for k, v in vars(params).items()}
    x, x_dot, theta, theta_dot, action = rng.uniform(-1, 1, 5) * [2.3, 3, np.pi, 8, 1]
    mass = np.array([p["mass_cart"], p["mass_pole"], p["mass_pole"], p["mass_pole"] * p["length"] ** 2 / 12])

    def middle(x: float, theta: float) -> np.ndarray:
        return np.array([x + p["length"] / 2 * np.sin(theta), p["length"] / 2 * np.cos(theta)])

    def force(q: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.array([p["force"] * action - p["friction"] * v[0], 0, -p["gravity"] * p["mass_pole"], 0])

    tip = theta_dot * p["length"] / 2 * np.array([np.cos(theta), -np.sin(theta)])
    q, v = integrate(
        np.array([x, *middle(x, theta), theta]), np.array([x_dot, tip[0] + x_dot, tip[1], theta_dot]), mass, force,
        lambda q: q[1:3] - middle(q[0], q[3]), p["dt"],
    )  # fmt: skip
    state = CartPoleSwingUpState(*jnp.float32([x, x_dot, theta, theta_dot]), t=jnp.int32(0))
    _, timestep = step_all(env, [state], [[action]], params)
    want = [q[0], v[0], np.cos(q[3]), np.sin(q[3]), v[3]]
    np.testing.assert_allclose(timestep.obs[0], want, atol=5e-4)
    assert timestep.reward[0] == pytest.approx((1 + np.cos(q[3])) / 2 * np.cos(np.pi / 2 * q[0] / 2.4), abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_reacher_obeys_newton(seed: int):
    env, rng = Reacher(), np.random.default_rng(seed)
    params = redrawn(env.default_params(), rng) if seed else env.default_params()
    lengths, masses = np.asarray(params.lengths, np.float64), np.asarray(params.masses, np.float64)
    damping, scale, effort = float(params.damping), float(params.torque), float(params.effort)
    angles, speeds = rng.uniform(-np.pi, np.pi, 2), rng.uniform(-3, 3, 2)
    target, action = rng.uniform(-0.6, 0.6, 2), rng.uniform(-1, 1, 2)
    mass = np.repeat(masses, 3) * np.stack([np.ones(2), np.ones(2), lengths**2 / 12], axis=1).ravel()

    def place(along: np.ndarray) -> np.ndarray:
        reach = lengths[:, None] * _directions(along)
        return np.cumsum(reach, axis=0) - reach / 2

    def force(q: np.ndarray, v: np.ndarray) -> np.ndarray:
        turning = v[[2, 5]] - [0, v[2]]
        joint = scale * action - damping * turning  # a joint turns its link on, and the one before it back
        return np.array([0, 0, joint[0] - joint[1], 0, 0, joint[1]])

    along, turning = np.cumsum(angles), np.cumsum(speeds)
    swing = (lengths * turning)[:, None] * _normals(along)
    q = np.concatenate([place(along), along[:, None]], axis=1).ravel()
    v = np.concatenate([np.cumsum(swing, axis=0) - swing / 2, turning[:, None]], axis=1).ravel()
    bonds = lambda q: (q.reshape(2, 3)[:, :2] - place(q[[2, 5]])).ravel()  # noqa: E731
    q, v = integrate(q, v, mass, force, bonds, float(params.dt))
    state = ReacherState(jnp.float32(angles), jnp.float32(speeds), jnp.float32(target), jnp.int32(0))
    _, timestep = step_all(env, [state], [action], params)
    tip = q[3:5] + lengths[1] / 2 * _directions(q[[5]])[0]
    angles, speeds = np.array([q[2], q[5] - q[2]]), np.array([v[2], v[5] - v[2]])
    want = [*np.cos(angles), *np.sin(angles), *speeds, *target, *(target - tip)]
    np.testing.assert_allclose(timestep.obs[0], want, atol=2e-3)
    distance = np.linalg.norm(target - tip)
    assert timestep.reward[0] == pytest.approx(-distance - effort * np.sum(action**2), abs=1e-3)
    assert timestep.info["success"][0] == (distance < 0.05)


@pytest.mark.parametrize("links", [3, 6])
@pytest.mark.parametrize("seed", range(3))
def test_swimmer_obeys_newton(links: int, seed: int):
    env, rng = Swimmer(links=links), np.random.default_rng(seed)
    params = redrawn(env.default_params(), rng) if seed else env.default_params()
    p = {k: float(v) for k, v in vars(params).items()}
    angles, speeds = rng.uniform(-np.pi, np.pi, links), rng.uniform(-2, 2, links)
    velocity, action = rng.uniform(-1, 1, 2), rng.uniform(-1, 1, links - 1)
    length, viscosity = p["length"], p["viscosity"]
    mass = np.tile([p["mass"], p["mass"], p["mass"] * length**2 / 12], links)

    def force(q: np.ndarray, v: np.ndarray) -> np.ndarray:
        q, v = q.reshape(links, 3), v.reshape(links, 3)
        normal = _normals(q[:, 2])
        sideways = np.sum(v[:, :2] * normal, axis=1)
        push = -viscosity * length * sideways[:, None] * normal
        turn = -viscosity * length**3 / 12 * v[:, 2]
        turn[1:] += p["torque"] * action
        turn[:-1] -= p["torque"] * action
        return np.concatenate([push, turn[:, None]], axis=1).ravel()

    def bonds(q: np.ndarray) -> np.ndarray:
        q = q.reshape(links, 3)
        half = length / 2 * _directions(q[:, 2])
        return ((q[:, :2] + half)[:-1] - (q[:, :2] - half)[1:]).ravel()

    def chain(steps: np.ndarray) -> np.ndarray:
        """The links' middles, or their velocities, about the centre of mass."""
        middles = np.cumsum(steps, axis=0) - steps / 2
        return middles - middles.mean(axis=0)

    q = np.concatenate([chain(length * _directions(angles)), angles[:, None]], axis=1)
    v = chain(length * speeds[:, None] * _normals(angles)) + velocity
    v = np.concatenate([v, speeds[:, None]], axis=1)
    q, v = integrate(q.ravel(), v.ravel(), mass, force, bonds, p["dt"])
    q, v = q.reshape(links, 3), v.reshape(links, 3)
    start = (jnp.float32(angles), jnp.float32(speeds), jnp.zeros(2, jnp.float32), jnp.float32(velocity))
    state, timestep = step_all(env, [SwimmerState(*start, t=jnp.int32(0))], [action], params)
    want = [*np.cos(q[:, 2]), *np.sin(q[:, 2]), *v[:, 2], *v[:, :2].mean(axis=0)]
    np.testing.assert_allclose(timestep.obs[0], want, rtol=3e-3, atol=6e-3)
    np.testing.assert_allclose(state.position[0], q[:, :2].mean(axis=0), atol=1e-3)
    assert timestep.reward[0] == pytest.approx(q[:, 0].mean() - p["effort"] * np.sum(action**2), abs=1e-3)


# --- laws -------------------------------------------------------------------------------------------------------
def test_cartpole_swing_up_without_friction_keeps_its_energy():
    env = CartPoleSwingUp()
    params = replace(env.default_params(), friction=jnp.float32(0))
    state = CartPoleSwingUpState(*jnp.float32([0, 0.3, 2.0, 1.0]), t=jnp.int32(0))
    states, _ = follow(env, state, np.zeros((300, 1), np.float32), params)

    def energy(s: Any) -> Any:
        tip = s.x_dot**2 + 0.6 * s.x_dot * s.theta_dot * np.cos(s.theta) + 0.6**2 / 3 * s.theta_dot**2
        return 0.5 * 0.5 * s.x_dot**2 + 0.5 * 0.5 * tip + 0.5 * 9.82 * 0.3 * np.cos(s.theta)

    np.testing.assert_allclose(energy(states), float(energy(state)), atol=2e-3)
    assert np.ptp(states.theta) > 2


def test_cartpole_swing_up_ends_off_the_track():
    state = CartPoleSwingUpState(*jnp.float32([2.39, 2.0, 0.05, 0.0]), t=jnp.int32(0))
    _, timestep = step_all(CartPoleSwingUp(), [state, replace(state, x=jnp.float32(2.0))], [[1.0], [1.0]])
    assert timestep.terminated.tolist() == [True, False] and timestep.reward[0] == 0 < timestep.reward[1]
    assert timestep.info["success"].tolist() == [False, True]


def test_reacher_without_damping_keeps_its_energy():
    env = Reacher()
    params = replace(env.default_params(), damping=jnp.float32(0))
    state = ReacherState(jnp.float32([0.3, 1.0]), jnp.float32([1.0, -2.5]), jnp.zeros(2, jnp.float32), jnp.int32(0))
    states, _ = follow(env, state, np.zeros((200, 2), np.float32), params)

    def energy(s: Any) -> Any:
        first, second = np.moveaxis(np.asarray(s.speeds), -1, 0)
        both = first + second
        return (
            0.5 * 0.125 * (first**2 / 3 + first**2 + both**2 / 3 + first * both * np.cos(np.asarray(s.angles)[..., 1]))
        )

    np.testing.assert_allclose(energy(states), energy(state), rtol=5e-3)


def test_reachers_targets_fill_the_reach_evenly():
    env = Reacher()
    for lengths, inner in ((jnp.float32([0.5, 0.5]), 0.0), (jnp.float32([0.7, 0.3]), 0.4)):
        params = replace(env.default_params(), lengths=lengths)
        states, timestep = openings(env, params)
        radius = np.linalg.norm(np.asarray(states.target), axis=1)
        share = (radius**2 - inner**2) / (0.95**2 - inner**2)
        assert share.min() >= -1e-5 and share.max() <= 1 + 1e-5
        np.testing.assert_allclose(np.quantile(share, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.04)
        assert np.asarray(jax.vmap(env.observation_space().contains)(timestep.obs)).all()


@pytest.mark.parametrize("links", [3, 6])
def test_swimmer_needs_the_liquid(links: int):
    """At rest it stays; without viscosity no wriggling moves the centre of mass or makes it spin; with viscosity it
    coasts, losing energy at every step."""
    env, rng = Swimmer(links=links), np.random.default_rng(0)
    angles = jnp.float32(rng.uniform(-1, 1, links))
    zero = jnp.zeros(2, jnp.float32)
    rest = SwimmerState(angles, jnp.zeros(links, jnp.float32), zero, zero, jnp.int32(0))
    states, timestep = follow(env, rest, np.zeros((100, links - 1), np.float32))
    np.testing.assert_array_equal(states.angles[-1], angles)
    assert not states.position.any() and not timestep.reward.any()

    actions = rng.uniform(-0.2, 0.2, (100, links - 1)).astype(np.float32)
    states, _ = follow(env, rest, actions, replace(env.default_params(), viscosity=jnp.float32(0)))
    assert np.abs(states.speeds).max() > 0.1 and not states.position.any()
    np.testing.assert_allclose(_spin(states), 0, atol=2e-3)

    moving = replace(rest, speeds=jnp.float32(rng.uniform(-2, 2, links)), velocity=jnp.float32([1.0, -0.5]))
    states, _ = follow(env, moving, np.zeros((100, links - 1), np.float32))
    energy = np.concatenate([[_energy(moving)], _energy(states)])
    assert (np.diff(energy) <= 1e-6).all() and energy[-1] < 0.2 * energy[0]


def _middles(states: Any) -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities [..., N, 2] of the links' middles about the centre of mass, lengths of 1."""
    angles, speeds = np.asarray(states.angles, np.float64), np.asarray(states.speeds, np.float64)
    along = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    swing = speeds[..., None] * np.stack([-np.sin(angles), np.cos(angles)], axis=-1)
    place, speed = (np.cumsum(x, axis=-2) - x / 2 for x in (along, swing))
    return place - place.mean(axis=-2, keepdims=True), speed - speed.mean(axis=-2, keepdims=True)


def _spin(states: Any) -> np.ndarray:
    place, speed = _middles(states)
    return np.sum(place[..., 0] * speed[..., 1] - place[..., 1] * speed[..., 0] + states.speeds / 12, axis=-1)


def _energy(states: Any) -> np.ndarray:
    speed = _middles(states)[1] + np.asarray(states.velocity, np.float64)[..., None, :]
    return np.sum(speed**2, axis=(-1, -2)) / 2 + np.sum(np.asarray(states.speeds, np.float64) ** 2, axis=-1) / 24


def test_swimmer_is_symmetric():
    """The mirror image of a swim is a swim."""
    env, rng = Swimmer(), np.random.default_rng(1)
    state, _ = env.reset(jax.random.key(0), env.default_params())
    actions = rng.uniform(-1, 1, (60, 2)).astype(np.float32)
    states, timestep = follow(env, state, actions)
    mirrored, other = follow(env, replace(state, angles=-state.angles), -actions)
    np.testing.assert_allclose(mirrored.position, states.position * [1, -1], atol=1e-4)
    np.testing.assert_allclose(other.reward, timestep.reward, atol=1e-5)
