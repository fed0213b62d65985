"""Dagster's processes end when they are told to, however they were started; a code server is alone on its port."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from user_processing_tests.support.checkout import Checkout, checkout_in, free_port, wait_for

pytestmark = pytest.mark.xdist_group("processes")

CODE_SERVER = "python -m user_processing.internals.code_server"
INTERRUPTIBLE = "python -m user_processing.internals.interruptible"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    with checkout_in(tmp_path_factory.mktemp("checkout")) as checkout:
        yield checkout


@pytest.mark.parametrize(
    ("command", "runs"),
    [
        (f"{CODE_SERVER} --port {{port}}", "Started Dagster code server"),
        (f"{INTERRUPTIBLE} dagster dev --port {{port}}", "Serving dagster-webserver on"),
        (
            f"{INTERRUPTIBLE} dagster-webserver --workspace workspace.yaml --port {{port}}",
            "Serving dagster-webserver on",
        ),
        (f"{INTERRUPTIBLE} dagster-daemon run --workspace workspace.yaml", "configured with the following daemons"),
    ],
    ids=["code server", "dev", "webserver", "daemon"],
)
def test_what_a_script_started_in_the_background_ends_on_sigterm(
    checkout: Checkout, tmp_path: Path, command: str, runs: str
) -> None:
    """At rest each ends within five seconds. One that ignores the signal never does, however long it is given."""
    log = tmp_path / "log"
    # A script that ends a command with & starts it like this.
    in_background = f"bash -c \"trap '' INT; exec {command.format(port=free_port())}\""
    with checkout.running(in_background, log) as process:
        wait_for(lambda: runs in log.read_text())
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        wait_for(lambda: not is_left(process.pid), seconds=60)


def test_a_second_code_server_on_a_port_is_refused(checkout: Checkout, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    with checkout.running(f"{CODE_SERVER} --host 0.0.0.0 --port {port}", log):
        wait_for(lambda: "Started Dagster code server" in log.read_text())
        for host in ("0.0.0.0", "127.0.0.1"):
            second = checkout.try_to(f"{CODE_SERVER} --host {host} --port {port}")
            assert second.returncode == 1
            assert "The code server cannot listen: another program does." in second.stdout


def is_left(group: int) -> bool:
    """Whether any process of a group is there."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
