"""Choices without a world: arms that pay."""

from jaxrl_seq.envs.core.entry import Entry

_HERE = "jaxrl_seq.envs.bandits"
_SIZES = {
    f"{arms}x{pulls}": {"arms": arms, "pulls": pulls} for arms, pulls in ((5, 10), (5, 500), (10, 100), (50, 100))
}
ENTRIES: dict[str, Entry] = {
    "bernoulli_bandit": Entry(f"{_HERE}.bernoulli:BernoulliBandit", _SIZES),
    "dependent_bandit": Entry(
        f"{_HERE}.bernoulli:DependentBandit",
        {"easy": {"chance": 0.1}, "medium": {"chance": 0.25}, "hard": {"chance": 0.4}},
    ),
    "odd_bandit": Entry(f"{_HERE}.bernoulli:OddBandit"),
    "gaussian_bandit": Entry(f"{_HERE}.gaussian:GaussianBandit", {"3x200": {"arms": 3, "pulls": 200}}),
    "linear_bandit": Entry(f"{_HERE}.gaussian:LinearBandit"),
    "gamble": Entry(f"{_HERE}.gamble:Gamble"),
}
