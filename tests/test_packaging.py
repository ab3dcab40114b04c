"""The folder envs/ is `jaxrl_seq.envs` however the package got here, and never takes the name `envs` from a user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.readme_code import ROOT

PROBE = "import jaxrl_seq.envs as e; env, _ = e.make('tmaze,length=5'); print(env.horizon, e.__file__)"
SOURCES = ("pyproject.toml", "README.md", "jaxrl_seq", "envs")


def run(*command, cwd, **options):
    return subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what packaging reads, with the symlink kept a symlink."""
    target = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)
    return target


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    done = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", out, cwd=checkout)
    assert done.returncode == 0, done.stderr[-2000:]
    return next(out.glob("*.whl"))


@pytest.fixture
def elsewhere(tmp_path):
    """A user's folder with their own `envs` package beside their script."""
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").write_text("MINE = True\n")
    return tmp_path


def test_wheel_holds_envs_under_the_package_only(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"jaxrl_seq"}
    every = {p.relative_to(ROOT).as_posix() for p in (ROOT / "envs").rglob("*.py")}
    assert {f"jaxrl_seq/{name}" for name in every} <= set(names)
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "jaxrl_seq").rglob("*.py")}
    assert sources <= set(names), "a package is missing from [tool.setuptools] packages"


def test_installed_wheel_works_beside_a_users_envs_folder(wheel, elsewhere, tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(site)
    code = f"import envs; assert envs.MINE; {PROBE}"
    done = run(sys.executable, "-c", code, cwd=elsewhere, env=environment(site))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 ") and str(site) in done.stdout


def test_editable_install_works_beside_a_users_envs_folder(checkout, elsewhere, tmp_path_factory):
    site = tmp_path_factory.mktemp("editable")
    command = ("-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    done = run(sys.executable, *command, "--target", site, "-e", checkout, cwd=checkout)
    assert done.returncode == 0, done.stderr
    # --target leaves .pth files unread, so read this one as site-packages would; an editable install of this very
    # checkout, which runs these tests under make, must not answer in its place.
    code = (
        "import sys, site; is_editable = lambda name: name.startswith('__editable__');"
        "sys.meta_path[:] = [f for f in sys.meta_path if not is_editable(getattr(f, '__module__', ''))];"
        "[sys.modules.pop(name) for name in list(sys.modules) if is_editable(name)];"
        f"sys.path.insert(0, {str(site)!r}); site.addsitedir({str(site)!r});"
        f"import envs; assert envs.MINE; {PROBE}"
    )
    done = run(sys.executable, "-c", code, cwd=elsewhere, env=environment(None))
    assert done.returncode == 0, done.stderr
    assert str(checkout) in done.stdout


def test_checkout_works_without_an_install(checkout):
    done = run(sys.executable, "-c", PROBE, cwd=checkout, env=environment(None))
    assert done.returncode == 0, done.stderr
    assert str(checkout) in done.stdout


def test_bare_import_of_our_folder_is_refused(checkout):
    done = run(sys.executable, "-c", "import envs", cwd=checkout, env=environment(None))
    assert done.returncode != 0
    assert "import jaxrl_seq.envs" in done.stderr


def test_symlink_is_relative():
    link = ROOT / "jaxrl_seq" / "envs"
    assert link.is_symlink() and link.readlink().as_posix() == "../envs"


def environment(site) -> dict[str, str]:
    """This process's environment with only `site` on PYTHONPATH, which comes before what is installed."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | ({"PYTHONPATH": str(site)} if site else {})
