"""The files of a day: whole or absent, in a folder or in an object store."""

import multiprocessing
import os
import resource
import signal
import stat
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

import dagster as dg
import pytest
from upath import UPath

from user_processing import settings
from user_processing.store.day_files import DayFiles, FilesUnavailableError, MissingFileError
from user_processing.store.manifests import PagesManifest

DAY = "2023-01-01"


@pytest.fixture(params=["folder", "object store"])
def day_files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DayFiles]:
    url = str(tmp_path) if request.param == "folder" else f"memory://{tmp_path}"
    with dg.build_resources({"day_files": DayFiles(url=url)}) as resources:
        yield resources.day_files


@pytest.fixture
def local(tmp_path: Path) -> Iterator[DayFiles]:
    with dg.build_resources({"day_files": DayFiles(url=str(tmp_path))}) as resources:
        yield resources.day_files


def test_what_is_written_is_read(day_files: DayFiles) -> None:
    for content in (b"first, and longer", b"second"):
        day_files.write(day_files.csv(DAY), content)
        with day_files.reading(day_files.csv(DAY), day=DAY, asset="processed_user_csv") as file:
            assert file.read() == content


def test_a_file_that_is_not_there_names_the_asset_that_makes_it(day_files: DayFiles) -> None:
    with (
        pytest.raises(MissingFileError, match=r"is not there\. Materialize processed_user_csv") as caught,
        day_files.reading(day_files.csv(DAY), day=DAY, asset="processed_user_csv"),
    ):
        pass
    assert caught.value.allow_retries is False


def test_a_manifest_that_is_not_whole_is_missing(day_files: DayFiles) -> None:
    day_files.write(day_files.pages(DAY), b'{"pages": [')
    with pytest.raises(MissingFileError, match="is not whole"):
        day_files.manifest(day_files.pages(DAY), PagesManifest, day=DAY, asset="raw_user")


def test_only_what_was_written_since_is_taken(day_files: DayFiles) -> None:
    path = day_files.page(DAY, 1)
    assert day_files.written_since(path, 0) is None
    day_files.write(path, b"page")
    modified = path.stat().st_mtime
    assert day_files.written_since(path, modified) == b"page"
    assert day_files.written_since(path, modified + 1) is None


def test_a_write_that_fails_leaves_the_file_as_it_was(local: DayFiles) -> None:
    path = local.csv(DAY)
    local.write(path, b"old")
    with pytest.raises(ZeroDivisionError), local.writing(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"


def test_folders_of_days_are_for_their_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    root = tmp_path / "made" / "days"
    before = os.umask(0)
    try:
        with dg.build_resources({"day_files": DayFiles(url=str(root))}) as resources:
            resources.day_files.write(resources.day_files.page(DAY, 1), b"page")
    finally:
        os.umask(before)
    made = [path for path in (root.parent, *root.parent.rglob("*")) if path.is_dir()]
    assert len(made) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o700}


@pytest.mark.parametrize("url", ["{}/days", "file://{}/days", "local://{}/days"])
def test_a_folder_is_a_folder_however_it_is_written(tmp_path: Path, url: str) -> None:
    """fsspec would write in place, and for everybody to read."""
    with dg.build_resources({"day_files": DayFiles(url=url.format(tmp_path))}) as resources:
        path = resources.day_files.csv(DAY)
        resources.day_files.write(path, b"users")
    assert path == UPath(tmp_path, "days", DAY, "users.csv")
    assert stat.S_IMODE((tmp_path / "days" / DAY / "users.csv").stat().st_mode) == 0o600


def test_a_relative_folder_starts_where_the_settings_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not in the folder of each command."""
    monkeypatch.setenv("USERS_FILES_URL", "days")
    monkeypatch.chdir(tmp_path)
    with dg.build_resources({"day_files": DayFiles()}) as resources:
        assert resources.day_files.csv(DAY) == UPath(settings.env_file().parent, "days", DAY, "users.csv")


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Starts processes of their own, in which this module is imported already: the import takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _fill_the_disk(root: str, said: "Connection[object, object]") -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    with dg.build_resources({"day_files": DayFiles(url=root)}) as resources:
        try:
            resources.day_files.write(resources.day_files.csv(DAY), bytes(1001))
        except FilesUnavailableError as error:
            said.send(str(error))


def test_a_file_that_cannot_be_written_is_named_and_what_was_there_stays(
    local: DayFiles, tmp_path: Path, processes: ForkServerContext
) -> None:
    """A process may not write so much, which is the errno next to a full disk."""
    local.write(local.csv(DAY), b"old")
    told, said = multiprocessing.Pipe(duplex=False)
    process = processes.Process(target=_fill_the_disk, args=(str(tmp_path), said))
    process.start()
    process.join()
    said.close()
    assert told.recv() == (
        f"Day {DAY}: {local.csv(DAY)} cannot be written: "
        "File too large. Free some space there, or let USERS_FILES_URL name another folder; then run the day again. "
        "What is stored was left as it is."
    )
    assert [(path.name, path.read_bytes()) for path in (tmp_path / DAY).iterdir()] == [("users.csv", b"old")]


@pytest.mark.parametrize("access", ["write", "read", "look"])
def test_a_file_where_a_folder_should_be_is_named(local: DayFiles, tmp_path: Path, access: str) -> None:
    (tmp_path / DAY).touch()
    path = local.csv(DAY)
    with pytest.raises(FilesUnavailableError, match=f"Day {DAY}: {path} cannot be .*(folder|directory).*Let your user"):
        if access == "write":
            local.write(path, b"users")
        elif access == "read":
            with local.reading(path, day=DAY, asset="processed_user_csv"):
                pass
        else:
            local.written_since(path, 0)


def _die_while_writing(root: str) -> None:
    with dg.build_resources({"day_files": DayFiles(url=root)}) as resources:
        day_files: DayFiles = resources.day_files
        with day_files.writing(day_files.csv(DAY)) as file:
            file.write(b"half of it, and longer than what comes next")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_leaves_no_half_file_and_blocks_nobody(
    local: DayFiles, tmp_path: Path, processes: ForkServerContext
) -> None:
    process = processes.Process(target=_die_while_writing, args=(str(tmp_path),))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not local.csv(DAY).exists()
    local.write(local.csv(DAY), b"whole")
    assert [path.name for path in (tmp_path / DAY).iterdir()] == ["users.csv"]
    assert local.csv(DAY).read_bytes() == b"whole"


def _write_many(root: str, content: bytes) -> None:
    with dg.build_resources({"day_files": DayFiles(url=root)}) as resources:
        for _ in range(200):
            resources.day_files.write(resources.day_files.csv(DAY), content)


def test_processes_that_write_one_file_at_once_leave_one_of_theirs(
    local: DayFiles, tmp_path: Path, processes: ForkServerContext
) -> None:
    contents = [bytes([letter]) * 100_000 for letter in b"abcd"]
    writers = [processes.Process(target=_write_many, args=(str(tmp_path), content)) for content in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    assert local.csv(DAY).read_bytes() in contents
    assert [path.name for path in (tmp_path / DAY).iterdir()] == ["users.csv"]


def test_without_a_url_the_files_lie_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERS_DATA_DIR", str(tmp_path / "local"))
    with dg.instance_for_test() as instance:
        context = dg.build_init_resource_context(instance=instance)
        with DayFiles().yield_for_execution(context) as day_files:
            assert day_files.csv(DAY) == UPath(tmp_path, "local", "storage", "days", DAY, "users.csv")


def test_without_an_instance_the_files_are_gone_afterwards() -> None:
    with dg.build_resources({"day_files": DayFiles()}) as resources:
        path = resources.day_files.csv(DAY)
        resources.day_files.write(path, b"users")
    assert not path.exists()
