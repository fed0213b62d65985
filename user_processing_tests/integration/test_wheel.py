"""What is installed from a wheel, without a checkout: it runs, and keeps its data where no update deletes it."""

import fcntl
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from user_processing_tests.support.checkout import ROOT

RUN = """
cd "$WORK" && umask 000
export DAGSTER_HOME="$(python3 -c 'from user_processing import paths; print(paths.instance_folder())')"
exec python3 -m dagster asset materialize -m user_processing --select '*' --partition 2023-01-01
"""
SHOW = "import sys; from user_processing.__main__ import main; sys.argv = ['user_processing', 'show']; main()"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for part in ("user_processing", "user_processing_tests"):
        shutil.copytree(ROOT / part, folder / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "README.md", "LICENSE", "dagster.yaml"):
        shutil.copy(ROOT / part, folder)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", folder / "dist", folder], check=True, cwd=folder)
    (wheel,) = (folder / "dist").iterdir()
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    subprocess.run([*pip, "--target", folder, wheel], check=True)
    return folder


@pytest.fixture
def environment(installed: Path, tmp_path: Path) -> dict[str, str]:
    """The packages, and a user who has configured nothing."""
    foreign = ("COVERAGE", "DAGSTER", "USER", "XDG", "PYTHON")
    known = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    for name in ("work", "home"):
        (tmp_path / name).mkdir()
    return {
        **known,
        # Not the environment's own Python, which would find the checkout as well.
        "PATH": f"{Path(sys.base_prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{installed}{os.pathsep}{sysconfig.get_path('purelib')}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(tmp_path / "home"),
        "WORK": str(tmp_path / "work"),
    }


def run(*command: str, environment: dict[str, str]) -> str:
    finished = subprocess.run(
        command, env=environment, cwd=environment["WORK"], check=False, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def wait_until_stopped(folder: Path) -> None:
    """The reaper holds its lock until the server has stopped."""
    with (folder / "postgres" / "reaper.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
    assert not (folder / "postgres" / "data" / "postmaster.pid").exists()


def files(folder: Path) -> Iterator[Path]:
    return (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def test_the_wheel_holds_the_package_and_what_it_needs_and_no_test(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        assert archive.read("user_processing/dagster.yaml") == (ROOT / "dagster.yaml").read_bytes()
    package = {str(path) for path in files(ROOT) if path.parts[0] == "user_processing" and path.suffix != ".pyc"}
    assert {name for name in names if ".dist-info/" not in name} == package


def test_users_are_kept_in_the_state_folder_of_the_user(environment: dict[str, str], tmp_path: Path) -> None:
    said = run("python3", "-c", "from user_processing import paths; print(paths.data_dir())", environment=environment)
    assert said == f"{tmp_path / 'home' / '.local' / 'state' / 'user_processing'}\n"


def test_users_are_kept_outside_of_the_environment(
    installed: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """In the folder that USERS_DATA_DIR names, whatever its name holds."""
    before = sorted(files(installed))
    folder = tmp_path / """it's a "folder", for $USER"""
    environment["USERS_DATA_DIR"] = str(folder)
    run("bash", "-c", RUN, environment=environment)
    assert "1 user of 1 day, in the embedded Postgres" in run("python3", "-c", SHOW, environment=environment)
    wait_until_stopped(folder)

    assert {path.name for path in folder.iterdir()} == {"postgres", "storage", "compute_logs", "dagster.yaml"}
    assert (folder / "storage" / "days" / "2023-01-01" / "users.csv").read_text().count("\n") == 1
    assert sorted(files(installed)) == before
    assert list((tmp_path / "work").iterdir()) == []
    # Whatever the umask.
    days = folder / "storage" / "days" / "2023-01-01"
    for made in (folder, folder / "postgres", folder / "compute_logs", *days.parents[:2], days, days / "pages"):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700, made
