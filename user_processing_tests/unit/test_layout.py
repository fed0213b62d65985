"""The README's layout is that of the tree."""

import re

from user_processing_tests.support.checkout import ROOT

_LAYOUT = re.compile(r"^## Layout\n\n((?:    .*\n)+)", re.MULTILINE)
_NOT_ROOMS = {"__init__.py", "__main__.py", "__pycache__", "dagster.yaml"}


def test_the_readme_lists_the_rooms_of_the_package_as_they_are() -> None:
    found = _LAYOUT.search((ROOT / "README.md").read_text())
    assert found
    listed = {line.split()[0].rstrip("/") for line in found[1].splitlines() if line.startswith(" " * 6)}
    there = {path.name for path in (ROOT / "user_processing").iterdir()} - _NOT_ROOMS
    assert listed == there


def test_the_readme_lists_the_folders_beside_it_as_they_are() -> None:
    found = _LAYOUT.search((ROOT / "README.md").read_text())
    assert found
    listed = {line.split()[0] for line in found[1].splitlines() if not line.startswith(" " * 6)}
    there = {f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert listed == there - {"user_processing.egg-info/", "build/"}


def test_every_document_is_named_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [path.name for path in (ROOT / "docs").glob("*.md") if path.name not in readme] == []


def test_every_test_that_the_documents_name_is_there() -> None:
    """Not whether it passes: that is for the suite. A test that was renamed shows here."""
    named: list[tuple[str, str]] = []
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for commands in re.findall(r"`(pytest user_processing_tests/[^`]+)`", document.read_text()):
            for command in commands.split(";"):
                path, _, expression = command.split(maxsplit=1)[1].partition(" -k ")
                named += [(path, word) for word in re.findall(r"\w+", expression) or [""] if word not in {"or", "and"}]
    assert len(named) > 40
    assert [(path, word) for path, word in named if word not in (ROOT / path.strip()).read_text()] == []
