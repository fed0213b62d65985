"""The files of a day: whole or absent, in a folder or in an object store."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from upath import UPath

from user_processing.resources.day_files import DayFiles, MissingFileError

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


def test_an_account_that_is_not_whole_is_missing(day_files: DayFiles) -> None:
    day_files.write(day_files.pages(DAY), b'{"pages": [')
    with pytest.raises(MissingFileError, match="is not whole"):
        day_files.account(day_files.pages(DAY), dict[str, int], day=DAY, asset="raw_user")


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


def _die_while_writing(root: str) -> None:
    with dg.build_resources({"day_files": DayFiles(url=root)}) as resources:
        day_files: DayFiles = resources.day_files
        with day_files.writing(day_files.csv(DAY)) as file:
            file.write(b"half of it, and longer than what comes next")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_leaves_no_half_file_and_blocks_nobody(local: DayFiles, tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_die_while_writing, args=(str(tmp_path),))
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


def test_processes_that_write_one_file_at_once_leave_one_of_theirs(local: DayFiles, tmp_path: Path) -> None:
    contents = [bytes([letter]) * 100_000 for letter in b"abcd"]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write_many, args=(str(tmp_path), content)) for content in contents]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert local.csv(DAY).read_bytes() in contents
    assert [path.name for path in (tmp_path / DAY).iterdir()] == ["users.csv"]


def test_without_a_url_the_files_lie_in_the_storage_of_the_instance(tmp_path: Path) -> None:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        context = dg.build_init_resource_context(instance=instance)
        with DayFiles().yield_for_execution(context) as day_files:
            assert day_files.csv(DAY) == UPath(tmp_path, "storage", "days", DAY, "users.csv")


def test_without_an_instance_the_files_are_gone_afterwards() -> None:
    with dg.build_resources({"day_files": DayFiles()}) as resources:
        path = resources.day_files.csv(DAY)
        resources.day_files.write(path, b"users")
    assert not path.exists()
