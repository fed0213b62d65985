"""Where this machine keeps what is embedded, the files of the days and the logs of the runs.

Folders are open to their owner only.
"""

import contextlib
import errno
import os
from pathlib import Path

import platformdirs

from user_processing import settings
from user_processing.settings import SettingsError

_MADE_BY_US = "# Written anew with each version. To change it, copy it to another folder and set DAGSTER_HOME.\n\n"


def data_dir() -> Path:
    """The folder in which this machine keeps what is embedded; it need not be there yet.

    Raises:
        SettingsError: it would be in a home folder, and the user has none.
    """
    here = settings.checkout()
    unless_chosen = here / ".local" if here else platformdirs.user_state_path("user_processing")
    return local_path(settings.load().users_data_dir or unless_chosen, "USERS_DATA_DIR")


def local_path(path: Path, variable: str) -> Path:
    """The absolute path that a variable names: a relative one starts in the folder of `.env`, from wherever it is used.

    Raises:
        SettingsError: it starts with a ~, and the user has no home folder.
    """
    try:
        return settings.env_file().parent / path.expanduser()
    except RuntimeError:
        raise SettingsError(
            f"{path} cannot be found: your user has no home folder. Set {variable} to a full path."
        ) from None


def instance_folder() -> Path:
    """The folder to use as DAGSTER_HOME where none is chosen: it holds `dagster.yaml`.

    That is the checkout, or else the data folder, into which the `dagster.yaml` of this version is written.

    Raises:
        SettingsError: the data folder cannot be written.
    """
    here = settings.checkout()
    if here:
        return here
    folder = make_data_dir()
    text = _MADE_BY_US + (Path(__file__).parent / "dagster.yaml").read_text(encoding="utf-8")
    file, part = folder / "dagster.yaml", folder / f".dagster.yaml.{os.getpid()}"
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        part.write_text(text, encoding="utf-8")
        part.replace(file)
    return folder


def make_data_dir(*parts: str) -> Path:
    """Make the data folder, or a folder in it, unless it is there; returns its path.

    Raises:
        SettingsError: it cannot be made.
    """
    folder = data_dir().joinpath(*parts)
    try:
        make_private_folder(folder)
    except OSError as error:
        message = f"The data folder {folder} cannot be made: {error.strerror}."
        raise SettingsError(f"{message} Set USERS_DATA_DIR to a folder that you may write.") from None
    return folder


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its owner can enter, and those above it that are missing, whatever the umask.

    What is there stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    if folder.is_dir():
        return
    make_private_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder", str(folder))
