"""What the tests share: a real Postgres, the API's recorded answers over real HTTP, a run of the assets."""

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import psycopg2
import pytest

from user_processing import assets, notify
from user_processing.embedded import postgres as embedded
from user_processing_tests.support.pipeline import Pipeline
from user_processing_tests.support.recorded_api import RecordedApi, Row, recorded_users
from user_processing_tests.support.webhook import PATH, Webhook


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Each test, and what it starts, can be interrupted and ended, whatever the test before it has done to signals.

    Commands that run in this process block or ignore some. A suite in the background is started with SIGINT ignored.
    """
    both = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.getsignal(number) for number in both}
    if handlers[signal.SIGINT] is signal.SIG_IGN:
        handlers[signal.SIGINT] = signal.default_int_handler
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
    yield
    signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Postgres server, which stops when the tests are over."""
    folder: Path = tmp_path_factory.mktemp("server") / "postgres"
    with closing(psycopg2.connect(embedded.dsn("postgres", folder))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            # A quarter of the time goes into making databases. What is killed here are processes, not machines.
            cursor.execute("ALTER SYSTEM SET fsync = off")
            cursor.execute("SELECT pg_reload_conf()")
    return folder


@pytest.fixture
def database(server: Path) -> str:
    """The connection string of a new, empty database."""
    name = f"test_{uuid4().hex[:12]}"
    with closing(psycopg2.connect(embedded.dsn("postgres", server))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
    return embedded.dsn(name, server)


@pytest.fixture
def query(database: str) -> Callable[..., list[Row]]:
    """Runs one statement on the database, committed; returns its rows, if it has any."""

    def run(statement: str, values: Any = None) -> list[Row]:  # noqa: ANN401
        with closing(psycopg2.connect(database)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    return run


@pytest.fixture
def instance(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """As `dagster.yaml` says, in a database and a data folder of its own."""
    shutil.copy(Path(assets.__file__).parents[1] / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", database)
    monkeypatch.setenv("USERS_DATA_DIR", str(tmp_path / "local"))
    monkeypatch.chdir(tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def pipeline(database: str, tmp_path: Path) -> Iterator[Pipeline]:
    pipeline = Pipeline(database, tmp_path / "days")
    yield pipeline
    pipeline.instance.dispose()


@pytest.fixture
def recorded_api() -> Iterator[RecordedApi]:
    api = RecordedApi(recorded_users())
    yield api
    api.close()


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    """The one that the settings name."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("USERS_UI_URL", raising=False)
    monkeypatch.setattr(notify, "ALERT_TIMEOUT", 8.0)
    with Webhook() as webhook:
        monkeypatch.setenv("USERS_ALERT_URL", f"http://{webhook.host}{PATH}")
        yield webhook
