"""CI asks for Pythons by their version, and gets one that works or an error."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from user_processing_tests.support.checkout import ROOT

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for PATH without a Python that works: the one of this version is a shim that refuses, as in pyenv."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "id"):
        (folder / name).symlink_to(shutil.which(name) or "")
    shim = folder / f"python{VERSION}"
    shim.write_text(f"#!{folder / 'bash'}\necho 'pyenv: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    return folder


def find_python(version: str, programs: Path, pyenv: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", ROOT / ".ci" / "find-python", version],
        env={"PATH": str(programs), "PYENV_ROOT": str(pyenv)},
        check=False,
        capture_output=True,
        text=True,
    )


def test_a_python_of_pyenv_is_found_behind_a_shim_that_refuses(programs: Path, tmp_path: Path) -> None:
    python = tmp_path / "versions" / f"{VERSION}.99" / "bin" / "python3"
    python.parent.mkdir(parents=True)
    python.symlink_to(os.path.realpath(sys.executable))
    found = find_python(VERSION, programs, tmp_path)
    assert (found.returncode, found.stdout, found.stderr) == (0, f"{python}\n", "")


@pytest.mark.parametrize("version", [VERSION, "3.10"])
def test_a_python_that_is_not_there_is_an_error(programs: Path, tmp_path: Path, version: str) -> None:
    python = tmp_path / "versions" / "3.10.1" / "bin" / "python3"
    python.parent.mkdir(parents=True)
    python.symlink_to(os.path.realpath(sys.executable))  # whatever the folder says, it is of another version
    found = find_python(version, programs, tmp_path)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.startswith(
        f"There is no Python {version} with venv and ensurepip: not on PATH, not in {tmp_path}"
    )


@pytest.mark.xdist_group("together")
def test_the_tests_of_a_group_are_given_to_one_worker(request: pytest.FixtureRequest) -> None:
    """Each would start servers of its own otherwise. To pytest-xdist a group is the end of its tests' ids."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith("@together")
