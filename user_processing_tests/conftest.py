"""What the tests share: a real Postgres, the API's recorded answers over real HTTP, a run of the assets."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import dagster as dg
import psycopg2
import pytest

from user_processing import assets, automation, checks
from user_processing.embedded import postgres as embedded
from user_processing.resources.day_files import DayFiles
from user_processing.resources.postgres import Postgres
from user_processing.resources.user_api import UserApi
from user_processing.resources.user_records import UserRecords

ALL = [assets.users_table, assets.raw_user, assets.processed_user_csv, assets.stored_users]
RECORDED = Path(__file__).parent / "recorded" / "users.json"

Row = tuple[Any, ...]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Postgres server, which stops when the tests are over."""
    folder: Path = tmp_path_factory.mktemp("server") / "postgres"
    embedded.dsn("postgres", folder)
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
    """As `dagster.yaml` says, in a database of its own."""
    shutil.copy(Path(assets.__file__).parents[1] / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", database)
    monkeypatch.chdir(tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


class Pipeline:
    """The four assets with resources of their own."""

    def __init__(self, database: str, folder: Path) -> None:
        self.instance = dg.DagsterInstance.ephemeral(tempdir=str(folder.with_name("instance")))
        self.folder = folder
        self.postgres = Postgres(url=database)
        self.user_api = UserApi()
        self.day_files = DayFiles(url=str(folder))
        self.user_records = UserRecords()

    @property
    def resources(self) -> dict[str, Any]:
        return {
            "user_api": self.user_api,
            "postgres": self.postgres,
            "day_files": self.day_files,
            "user_records": self.user_records,
        }

    def ask(self, api: "RecordedApi", **options: Any) -> None:  # noqa: ANN401
        """Take the users from this API from now on."""
        self.user_api = UserApi(url=api.url, backoff_seconds=0, **options)

    def run(
        self, first: str, last: str | None = None, *, select: list[str] | None = None, **config: object
    ) -> dg.ExecuteInProcessResult:
        """Materialize the assets for one day, or for the days from the first to the last; never raises."""
        options: dict[str, Any] = {"partition_key": first}
        if last:
            options = {
                "tags": {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
            }
        return dg.materialize(
            [*ALL, checks.reconciliation],
            instance=self.instance,
            resources=self.resources,
            run_config={"ops": {"raw_user": {"config": config}}} if config else None,
            selection=select,
            raise_on_error=False,
            **options,
        )

    def run_job(
        self, first: str, last: str | None = None, *, tags: dict[str, str] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Run the job `user_processing` for one day, for a range of days, or with the tags of a request."""
        definitions = dg.Definitions(
            assets=ALL,
            asset_checks=[checks.reconciliation],
            resources=self.resources,
            jobs=[automation.user_processing],
        )
        if last:
            tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        return definitions.resolve_job_def("user_processing").execute_in_process(
            instance=self.instance, partition_key=None if tags else first, tags=tags, raise_on_error=False
        )

    def checked(self, result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
        """What each check of a run came to."""
        return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}

    def check(self) -> dict[str, dg.AssetCheckEvaluation]:
        """Run the checks by themselves, over all days."""
        definitions = dg.Definitions(
            assets=ALL, asset_checks=[checks.reconciliation], resources=self.resources, jobs=[automation.morning_checks]
        )
        job = definitions.resolve_job_def("morning_checks")
        return self.checked(job.execute_in_process(instance=self.instance))

    def error(self, result: dg.ExecuteInProcessResult) -> str:
        """What the step that failed said."""
        (event,) = [event for event in result.all_events if event.is_step_failure]
        data = event.step_failure_data
        return (data.user_failure_data.description if data.user_failure_data else None) or str(data.error)

    def events(self, asset: str) -> list[tuple[str | None, dict[str, Any]]]:
        """Day and metadata of every materialization of an asset, oldest first."""
        records = self.instance.fetch_materializations(dg.AssetKey(asset), limit=1000).records
        found = []
        for record in reversed(records):
            materialization = record.asset_materialization
            assert materialization
            values = {name: value.value for name, value in materialization.metadata.items()}
            found.append((materialization.partition, values))
        return found


@pytest.fixture
def pipeline(database: str, tmp_path: Path) -> Iterator[Pipeline]:
    pipeline = Pipeline(database, tmp_path / "days")
    yield pipeline
    pipeline.instance.dispose()


class RecordedApi:
    """Answers of randomuser.me, recorded, and served again page by page."""

    def __init__(self, users: list[Any]) -> None:
        self.users = users
        self.asked: list[dict[str, str]] = []
        self.tamper: Callable[[dict[str, str], dict[str, Any]], object] = lambda _, page: page
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body are two packets, of which the second would wait 40 ms for the client to acknowledge one.
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
                body = json.dumps(api.tamper(query, api.answer(query)), ensure_ascii=False).encode(
                    errors="surrogatepass"
                )
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/api/1.4/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, query: dict[str, str]) -> dict[str, Any]:
        self.asked.append(query)
        results, page = int(query["results"]), int(query["page"])
        start = (page - 1) * 5000
        chosen = [self.users[(start + position) % len(self.users)] for position in range(results)]
        info = {"seed": query["seed"], "results": results, "page": page, "version": "1.4"}
        return {"results": chosen, "info": info}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def recorded_api() -> Iterator[RecordedApi]:
    api = RecordedApi(json.loads(RECORDED.read_bytes()))
    yield api
    api.close()


def stored(user: dict[str, Any]) -> Row:
    """The row that a record of the API has to become."""
    return (
        user["name"]["first"],
        user["name"]["last"],
        user["location"]["country"],
        user["login"]["username"],
        user["login"]["password"],
        user["email"],
    )
