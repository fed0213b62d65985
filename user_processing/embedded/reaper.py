"""The process that stops the embedded Postgres once nobody uses it. `postgres` spawns it, and tells it how to.

It runs as a script, isolated from what the variables of Python name: nothing but the standard library is imported.
"""

import fcntl
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def runs(folder: Path) -> bool:
    """Whether there is a server to stop. The file that a killed one left may name another program's process by now."""
    if not (folder / "data" / "postmaster.pid").exists():
        return False
    with (folder / "server.lock").open("ab") as server:
        try:
            fcntl.flock(server, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def main(folder: Path, reaper_lock: int, stop: Sequence[str]) -> None:
    """Wait until no process uses the server of `folder`, and run the command that stops it."""
    with (folder / "users.lock").open("ab") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        if runs(folder):
            subprocess.run(stop, check=False, cwd=folder)
        # Before the next user gets in: it must find that it has to spawn a reaper of its own.
        os.close(reaper_lock)


if __name__ == "__main__":
    # Nobody's child: the process that spawned it may end first, and has nothing to wait for.
    if os.fork():
        os._exit(0)
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
