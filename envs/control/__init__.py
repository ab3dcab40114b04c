"""Classic control and point masses, fully and partially observed."""

from jaxrl_seq.envs.core.entry import Entry

_HERE = "jaxrl_seq.envs.control"
ENTRIES = {
    "cartpole": Entry(f"{_HERE}.cartpole:CartPole"),
    "position_only_cartpole": Entry(
        f"{_HERE}.cartpole:PositionOnlyCartPole",
        {"easy": {"limit": 200}, "medium": {"limit": 400}, "hard": {"limit": 600}},
    ),
    "noisy_position_only_cartpole": Entry(
        f"{_HERE}.cartpole:NoisyPositionOnlyCartPole",
        {"easy": {"noise": 0.1}, "medium": {"noise": 0.2}, "hard": {"noise": 0.3}},
    ),
    "pendulum": Entry(f"{_HERE}.pendulum:Pendulum"),
    "position_only_pendulum": Entry(
        f"{_HERE}.pendulum:PositionOnlyPendulum",
        {"easy": {"limit": 200}, "medium": {"limit": 150}, "hard": {"limit": 100}},
    ),
}
