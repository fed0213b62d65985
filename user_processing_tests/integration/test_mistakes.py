"""The likeliest mistakes of a first day: what is said last names what was wrong, and what to do."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from user_processing import settings
from user_processing.embedded import api as stand_in
from user_processing.embedded import postgres as embedded
from user_processing.embedded.programs import EmbeddedPostgresError
from user_processing.source.user_api import UserApi
from user_processing.store.day_files import DayFiles
from user_processing.store.postgres import Postgres
from user_processing_tests.support import certificates
from user_processing_tests.support.checkout import Checkout
from user_processing_tests.support.hostile_api import HostileApi, answers

DAY = "2023-01-01"


def load() -> None:
    settings.load()


def connect() -> None:
    with Postgres().transaction():
        pass


def start() -> None:
    embedded.dsn("users")


def ask() -> None:
    with UserApi(attempts=1).yield_for_execution(dg.build_init_resource_context()) as user_api:
        user_api.page(seed=DAY, page=1, results=1)


def write() -> None:
    with DayFiles().yield_for_execution(dg.build_init_resource_context()) as day_files:
        day_files.write(day_files.csv(DAY), b"users")


_DATABASE_URL = "USERS_POSTGRES_URL"
_API_URL = "USER_API_URL"

# What is wrong: the variable, what it holds, what is done then, and what is said last.
MISTAKES = {
    "a database whose host nobody knows": (
        *(_DATABASE_URL, "postgresql://u:canary@db.invalid/users", connect),
        r"^Postgres cannot be reached at db\.invalid:5432: .*Correct the host in USERS_POSTGRES_URL, or mend",
    ),
    "a database that is not started": (
        *(_DATABASE_URL, "postgresql://u:canary@127.0.0.1:1/users", connect),
        r"^Postgres cannot be reached at 127\.0\.0\.1:1: .*Start the server, or correct host and port in",
    ),
    "the API's port for that of the database": (
        *(_DATABASE_URL, "postgresql://u:canary@127.0.0.1:{plain}/users", connect),
        r"^Postgres cannot be reached at 127\.0\.0\.1:\d+: .*Is it Postgres that listens there\? Correct host and port",
    ),
    "a database that is not made": (
        *(_DATABASE_URL, "host={server} user=postgres dbname=nowhere", connect),
        r'database "nowhere" does not exist\. Make it, or correct USERS_POSTGRES_URL\.$',
    ),
    "a password with an @": (
        *(_DATABASE_URL, "postgresql://u:p@canary@db.invalid/users", load),
        r"^USERS_POSTGRES_URL cannot be used: its password has to be percent-encoded, an @ as %40",
    ),
    "a password with a /": (
        *(_DATABASE_URL, "postgresql://u:1/canary@db.invalid/users", load),
        r"^USERS_POSTGRES_URL cannot be used: its password has to be percent-encoded, .*a / as %2F",
    ),
    "an API whose host nobody knows": (
        *(_API_URL, "http://alice:canary@api.invalid/api/", ask),
        r"^GET http://api\.invalid/api/.*Correct the host in USER_API_URL, or mend the look-up of names\.$",
    ),
    "an API that is not started": (
        *(_API_URL, "http://alice:canary@127.0.0.1:1/api/", ask),
        r"127\.0\.0\.1:1: .*Connection refused\. Start the API, or correct host and port in USER_API_URL\.$",
    ),
    "https to a port without TLS": (
        *(_API_URL, "https://alice:canary@127.0.0.1:{plain}/api/", ask),
        r"No TLS is spoken on this port\. Correct the port, or write http:// in USER_API_URL\.$",
    ),
    "http to a port with TLS": (
        *(_API_URL, "http://alice:canary@127.0.0.1:{tls}/api/", ask),
        r"Is it the API that listens there\? Correct scheme, host and port in USER_API_URL\.$",
    ),
    "the API's authority is unknown": (
        *(_API_URL, "https://alice:canary@127.0.0.1:{tls}/api/", ask),
        r"Let REQUESTS_CA_BUNDLE name a file with the certificate of the API's authority\.$",
    ),
    "another path of the API": (
        *(_API_URL, "http://alice:canary@127.0.0.1:{plain}/elsewhere", ask),
        r"HTTP 404, body: .*\. The API is not there\. Correct the path in USER_API_URL\.$",
    ),
    "an IPv6 host without brackets": (
        *(_API_URL, "http://alice:canary@::1:8000/api/", load),
        r"^USER_API_URL cannot be used: it is not a URL\. .*an IPv6 host stands in brackets",
    ),
    "an object store whose package is missing": (
        *("USERS_FILES_URL", "s3://bucket/canary", write),
        r"^The files of the days cannot be kept in s3://…: Install s3fs to access S3\. Install what is missing, or let",
    ),
    "a kind of URL that does not exist": (
        *("USERS_FILES_URL", "s4://bucket/canary", write),
        r"^The files of the days cannot be kept in s4://…: .* let USERS_FILES_URL name a folder or another URL\.$",
    ),
    "a file where the folder of the days should be": (
        *("USERS_FILES_URL", "{file}", write),
        rf"^Day {DAY}: .* cannot be written: it is a file, not a folder\. .* let USERS_FILES_URL name another folder",
    ),
    "a file where the data folder should be": (
        *("USERS_DATA_DIR", "{file}", start),
        r"^The embedded Postgres cannot keep its data in .*: it is a file, not a folder\. Set USERS_DATA_DIR to",
    ),
    "a home folder of nobody": (
        *("USERS_DATA_DIR", "~nobody-at-all/data", start),
        r"^~nobody-at-all/data cannot be found: your user has no home folder\. Set USERS_DATA_DIR to a full path\.$",
    ),
}


@pytest.fixture(scope="module")
def places(server: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """What the table fills in: a Postgres, an API with and without TLS, and a file."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "file").touch()
    with HostileApi(tls=certificates.make(folder).good) as tls, stand_in.serve() as plain:
        tls.always = answers("200 OK")
        port = plain.split(":")[2].split("/")[0]
        yield {"server": server, "plain": port, "tls": tls.server_address[1], "file": folder / "file"}


@pytest.mark.parametrize(("variable", "value", "action", "said"), MISTAKES.values(), ids=MISTAKES)
def test_what_is_said_last_names_what_was_wrong_and_what_to_do(  # noqa: PLR0913, PLR0917
    monkeypatch: pytest.MonkeyPatch,
    places: dict[str, object],
    variable: str,
    value: str,
    action: Callable[[], None],
    said: str,
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value.format(**places))
    with pytest.raises((dg.Failure, EmbeddedPostgresError)) as caught:
        action()
    told = str(caught.value)
    assert re.search(said, told), told
    assert "\n" not in told
    assert "canary" not in told


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_a_file_of_settings_in_another_encoding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str) -> None:
    monkeypatch.setattr(settings, "env_file", lambda: tmp_path / ".env")
    (tmp_path / ".env").write_text("# für alle\nUSERS_PER_DAY=3\n", encoding=encoding)
    with pytest.raises(settings.SettingsError) as caught:
        settings.load()
    assert str(caught.value) == f"{tmp_path / '.env'} is not UTF-8 text. Save it with the encoding UTF-8."


def test_a_file_of_settings_that_begins_with_a_mark_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Notepad writes one. It would be part of the first name."""
    monkeypatch.setattr(settings, "env_file", lambda: tmp_path / ".env")
    (tmp_path / ".env").write_text("USERS_PER_DAY=3\n", encoding="utf-8-sig")
    assert settings.load().users_per_day == 3


@pytest.mark.filterwarnings("ignore:python-dotenv")
def test_a_line_of_the_settings_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(settings, "env_file", lambda: tmp_path / ".env")
    (tmp_path / ".env").write_text("USERS_CATCHUP=true\nUSERS_PER_DAY: 3\n")
    assert list(settings.unknown_variables()) == [
        f"Line 2 of {tmp_path / '.env'} cannot be read, and has no effect. Write NAME=value."
    ]


# Without a right of root's that opens every file and folder.
AS_ANYBODY = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", "--"] if os.geteuid() == 0 else []
)
# As `docker run --user 12345` does: a user of whom the machine knows nothing but the number.
AS_NOBODY_KNOWN = (
    [
        *("setpriv", "--reuid=12345", "--clear-groups", "--securebits=+no_setuid_fixup"),
        *("--inh-caps=-all,+dac_override", "--ambient-caps=+dac_override", "--"),
    ]
    if os.geteuid() == 0
    else ["unshare", "--user", "--map-user=12345"]
)
CONNECT = "from user_processing.store.postgres import Postgres; Postgres().transaction().__enter__()"


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    (tmp_path / "checkout").mkdir()
    checkout = Checkout(tmp_path / "checkout")
    yield checkout
    checkout.folder.chmod(0o700)


def last_line(checkout: Checkout, *prefix: str, **environment: str) -> str:
    finished = subprocess.run(
        [*prefix, ".venv/bin/python", "-c", CONNECT],
        cwd=checkout.folder,
        env=checkout.environment | environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 1, finished.stdout
    return finished.stderr.splitlines()[-1]


def test_a_read_only_checkout(checkout: Checkout) -> None:
    checkout.folder.chmod(0o500)
    assert re.search(
        rf"The embedded Postgres cannot keep its data in {checkout.folder}/\.local/postgres: Permission denied\. "
        r"Set USERS_DATA_DIR to a folder that you may write\.",
        last_line(checkout, *AS_ANYBODY),
    )


def test_a_file_of_settings_that_one_may_not_read(checkout: Checkout) -> None:
    (checkout.folder / ".env").touch(mode=0o000)
    told = last_line(checkout, *AS_ANYBODY)
    assert f"{checkout.folder / '.env'} cannot be read: Permission denied. Let your user read it" in told


def test_a_user_of_whom_only_the_number_is_known(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o777)
    told = last_line(checkout, *AS_NOBODY_KNOWN, USERS_DATA_DIR=str(tmp_path / "data"), HOME="/")
    assert "did not start: your user 12345 has no entry in /etc/passwd. Run as a user that has one." in told


def test_a_command_in_another_folder_reads_the_settings_of_the_checkout(checkout: Checkout, tmp_path: Path) -> None:
    """Dagster itself reads `.env` of the folder that it is started in only."""
    (checkout.folder / ".env").write_text("USERS_PER_DAY=3\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    checkout.run(f"cd {elsewhere} && dagster asset materialize -m user_processing --select '*' --partition {DAY}")
    assert checkout.query("SELECT count(*) FROM users") == [(3,)]
    assert (checkout.folder / ".local" / "storage" / "days" / DAY / "users.csv").read_text().count("\n") == 3
    assert list(elsewhere.iterdir()) == []
    checkout.run("python -m user_processing stop")
