"""Classic control and point masses, fully and partially observed."""

from jaxrl_seq.envs.core.entry import Entry

_HERE = "jaxrl_seq.envs.control"
ENTRIES = {
    "point_robot": Entry(f"{_HERE}.point_robot:PointRobot", {"dense": {"sparse": False}}),
    "cartpole": Entry(f"{_HERE}.cartpole:CartPole"),
    "position_only_cartpole": Entry(
        f"{_HERE}.cartpole:PositionOnlyCartPole",
        {"easy": {"limit": 200}, "medium": {"limit": 400}, "hard": {"limit": 600}},
    ),
    "velocity_only_cartpole": Entry(
        f"{_HERE}.cartpole:VelocityOnlyCartPole",
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
    "noisy_position_only_pendulum": Entry(
        f"{_HERE}.pendulum:NoisyPositionOnlyPendulum",
        {"easy": {"noise": 0.1}, "medium": {"noise": 0.2}, "hard": {"noise": 0.3}},
    ),
    "mountain_car": Entry(f"{_HERE}.mountain_car:MountainCar"),
    "mountain_car_continuous": Entry(f"{_HERE}.mountain_car:MountainCarContinuous"),
    "acrobot": Entry(f"{_HERE}.acrobot:Acrobot"),
    "cartpole_swing_up": Entry(f"{_HERE}.cartpole_swing_up:CartPoleSwingUp"),
    "reacher": Entry(f"{_HERE}.reacher:Reacher"),
    "swimmer": Entry(f"{_HERE}.swimmer:Swimmer", {"3": {"links": 3}, "6": {"links": 6}}),
    "point_mass": Entry(f"{_HERE}.point_mass:PointMass2D"),
    "point_maze": Entry(
        f"{_HERE}.point_maze:PointMaze", {layout: {"layout": layout} for layout in ("open", "umaze", "medium", "large")}
    ),
}
