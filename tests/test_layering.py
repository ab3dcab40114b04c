"""Imports go one way, and importing the package costs no more than importing jax."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.readme_code import ROOT

ORDER = ["envs", "types", "ops", "models", "agents", "online", "incontext", "offline", "run", "cli"]
"""Each may import those to its left. `testing` may import all but cli; experiments and benchmarks may import all."""

LAZY = {"distrax": "agents/distributions.py", "orbax": "run", "gymnax": "envs/adapters", "tyro": "run", "h5py": "run"}


def imports(path) -> set[str]:
    """Modules that a file imports, at any depth of nesting."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "jaxrl_seq" and len(parts) > 1 and parts[1] in ORDER else None


@pytest.mark.parametrize("name", [name for name in ORDER if name not in ("envs",)])
def test_package_imports_only_what_lies_below(name):
    folder = ROOT / "jaxrl_seq" / name
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    for path in files:
        for module in imports(path):
            other = layer(module)
            if other:
                assert ORDER.index(other) <= ORDER.index(name), f"{path.relative_to(ROOT)} imports {module}"


def test_envs_know_nothing_of_the_rest():
    for path in sorted((ROOT / "envs").rglob("*.py")):
        for module in imports(path):
            if module.startswith("jaxrl_seq"):
                assert module.startswith("jaxrl_seq.envs"), f"{path.relative_to(ROOT)} imports {module}"


def test_distrax_is_known_to_one_file():
    users = [p for p in (ROOT / "jaxrl_seq").rglob("*.py") if any(m.split(".")[0] == "distrax" for m in imports(p))]
    assert {p.relative_to(ROOT).as_posix() for p in users} == {"jaxrl_seq/agents/distributions.py"}


def test_only_run_and_cli_touch_files_clocks_and_signals():
    host = {"time", "signal", "threading", "pathlib", "os", "shutil", "tempfile", "subprocess"}
    for name in ("types", "ops", "models", "agents", "online", "incontext", "offline"):
        folder = ROOT / "jaxrl_seq" / name
        for path in sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]:
            assert not {m.split(".")[0] for m in imports(path)} & host, path


def test_import_brings_in_nothing_but_the_standard_library():
    """`import jaxrl_seq` is lazy; environments, models and learners do without gymnax, distrax and orbax."""
    code = (
        "import sys, jaxrl_seq; assert 'jax' not in sys.modules, 'jax';"
        "from jaxrl_seq import PPO, VecEnv, make, make_model;"
        "heavy = {'gymnax', 'distrax', 'orbax', 'matplotlib', 'tyro', 'PIL'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
