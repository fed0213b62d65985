"""`make test-compose`: tells the story of the containers on a Docker engine with compose and buildx.

It has a compose project of its own, with its own port, password and volumes, and removes it at the end.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from user_processing_tests.containers.stack import ROOT, Stack
from user_processing_tests.containers.story import STORY, build, queued_backfill

NOT_RUN = 2
"""The exit code where there is no engine: neither passed nor failed."""


def main() -> int:
    """Tell the story; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queued-backfill", action="store_true", help=f"also: {queued_backfill.__doc__}")
    parser.add_argument("--only", choices=[step.__name__ for step in STORY], nargs="*", help="after the build, these")
    options = parser.parse_args()
    story = [step for step in STORY if not options.only or step is build or step.__name__ in options.only]
    if options.queued_backfill:
        story.append(queued_backfill)
    for needed in (["docker", "version"], ["docker", "compose", "version"], ["docker", "buildx", "version"]):
        if not shutil.which("docker") or subprocess.run(needed, check=False, capture_output=True).returncode:
            _print(f"not run: no Docker engine with compose and buildx (`{' '.join(needed)}` fails)")
            return NOT_RUN
    # Told to end, it removes its containers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    with tempfile.TemporaryDirectory() as folder:
        stack, passed = Stack(Path(folder)), 0
        (stack.folder / "deploy").symlink_to(ROOT / "deploy")
        try:
            stack.compose("down", "--volumes")
            for step in story:
                start = time.monotonic()
                said = step(stack)
                passed += 1
                _print(f"ok {time.monotonic() - start:6.1f} s  {step.__doc__}" + (f" ({said})" if said else ""))
        except (AssertionError, OSError, ValueError, subprocess.SubprocessError):
            with tempfile.NamedTemporaryFile("w", prefix=stack.project, suffix=".log", delete=False) as logs:
                logs.write(stack.logs())
            _print(f"FAILED: {step.__doc__}", traceback.format_exc(), f"What the containers said is in {logs.name}.")
            _print(f"{passed} passed, 1 failed")
            return 1
        finally:
            stack.compose("down", "--volumes")
    _print(f"{passed} passed, 0 failed")
    return 0


def _print(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
