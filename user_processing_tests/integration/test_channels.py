"""What an alert looks like in the channels of Apprise: real HTTP, HTTPS and SMTP on loopback."""

import email.message
import email.policy
import json
import logging
import os
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from apprise import NotifyFormat
from apprise.conversion import convert_between

from user_processing import channel, notify, settings
from user_processing.notify import Alert
from user_processing_tests.support import certificates

CANARY = "canary"
MARKUP = "<!channel> <b>users_per_day</b> & *2023-01-01* [x](http://x) <@U1>"
END = "Dagster tries it again.\nhttp://127.0.0.1:3000/runs/1"
LONG = Alert("&" * 5_000, END)
SLACK = f"slack://T1JJ3T3L2/A1BRTD4JD/{CANARY}7jdnlazkcOXrIdev?verify=no"


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Internet:
    """All HTTPS hosts that there are, behind a proxy: what is posted to them is kept with its host and path."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.posted: list[tuple[str, Any]] = []
        self.status = 200
        internet = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            host = ""

            def do_CONNECT(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.host = self.path.partition(":")[0]
                self.connection = tls.wrap_socket(self.connection, server_side=True)
                self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
                self.close_connection = False

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                internet.posted.append((self.host + self.path, body))
                answer = b"ok" if "slack" in self.host else b"{}"
                self.send_response(internet.status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def finish(self) -> None:
                super().finish()
                self.connection.close()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def internet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    internet = Internet(certificates.make(tmp_path).self_signed)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{internet.server.server_port}")
    with serving(internet.server):
        yield internet


class Mailbox(socketserver.ThreadingTCPServer):
    """An SMTP server that takes what it is sent, from whoever logs in."""

    daemon_threads = True

    def __init__(self) -> None:
        self.mails: list[email.message.EmailMessage] = []
        self.refuses = False
        mailbox = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"220 mail\r\n")
                for line in self.rfile:
                    match line.split()[0].upper():
                        case b"EHLO":
                            self.wfile.write(b"250-mail\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n")
                        case b"AUTH":
                            code = b"535 no such user: " + line if mailbox.refuses else b"235 welcome\r\n"
                            self.wfile.write(code)
                        case b"DATA":
                            self.wfile.write(b"354 go on\r\n")
                            lines = iter(self.rfile.readline, b".\r\n")
                            mail = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
                            mailbox.mails.append(mail)
                            self.wfile.write(b"250 taken\r\n")
                        case b"QUIT":
                            self.wfile.write(b"221 bye\r\n")
                            return
                        case _:
                            self.wfile.write(b"250 fine\r\n")

        super().__init__(("127.0.0.1", 0), Handler)

    def url(self, more: str = "") -> str:
        port = self.server_address[1]
        return f"mailto://user:{CANARY}@127.0.0.1:{port}?from=a@example.org&to=b@example.org{more}"


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    mailbox = Mailbox()
    with serving(mailbox):
        yield mailbox


def tell(url: str, alert: Alert) -> str | None:
    return notify.tell({url: alert}).get(url)


def test_slack_shows_what_is_said_and_calls_nobody(internet: Internet) -> None:
    assert tell(SLACK, Alert(MARKUP, END)) is None
    ((path, message),) = internet.posted
    assert path.startswith("hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/")
    assert message["mrkdwn"] is False
    (part,) = message["attachments"]
    assert part["text"] == f"{MARKUP}\n{END}".replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def test_a_plain_url_of_slack_is_a_webhook_like_any_other(internet: Internet) -> None:
    """Apprise would make its own channel of it. That it is asked at all is seen by the certificate, which is none."""
    said = tell(f"https://hooks.slack.com/services/T1/B1/{CANARY}", Alert(MARKUP, END))
    assert said
    assert said.startswith("https://hooks.slack.com: SSLCertVerificationError: ")
    assert internet.posted == []
    assert isinstance(channel.open_channel(f"https://hooks.slack.com/services/T1/B1/{CANARY}"), channel.Webhook)


def test_teams_shows_what_is_said(internet: Internet) -> None:
    """It takes Markdown, in which a backslash makes a character mean itself."""
    url = f"workflows://teams.example:443/{CANARY}workflow/{CANARY}signature?verify=no"
    assert tell(url, Alert("*users_per_day* [x](http://x)", END)) is None
    ((_, message),) = internet.posted
    assert r"\*users\_per\_day\* \[x\]\(http://x\)" in json.dumps(message).replace("\\\\", "\\")


def test_telegram_shows_what_is_said(internet: Internet) -> None:
    """It takes HTML."""
    assert tell(f"tgram://123456789:{CANARY}_hijklmnop/12315544/?verify=no", Alert(MARKUP, END)) is None
    ((path, message),) = internet.posted
    assert path.startswith("api.telegram.org/bot123456789:")
    assert message["parse_mode"] == "HTML"
    assert "&lt;b&gt;users_per_day&lt;/b&gt; &amp; *2023-01-01*" in message["text"]
    assert "<" not in message["text"]


@pytest.mark.parametrize(("more", "kind"), [("", "text/plain"), ("&format=html", "text/html")])
def test_a_mail_shows_what_is_said(mailbox: Mailbox, more: str, kind: str) -> None:
    assert tell(mailbox.url(more), Alert(f"{MARKUP} Zoë \ud800", END)) is None
    (mail,) = mailbox.mails
    assert mail["Subject"] == "Alert of user_processing"
    assert (mail["From"].addresses[0].addr_spec, mail["To"]) == ("a@example.org", "b@example.org")
    (body,) = [part.get_content() for part in mail.walk() if part.get_content_type() == kind]
    if kind == "text/plain":
        assert body.replace("\r\n", "\n").strip() == f"{MARKUP} Zoë ?\n{END}"
    else:
        assert "&lt;b&gt;users_per_day&lt;/b&gt;&nbsp;&amp;" in body.replace(" ", "&nbsp;")
        assert "<b>users" not in body


def test_of_a_long_text_the_last_lines_are_never_cut(internet: Internet, mailbox: Mailbox) -> None:
    assert notify.tell(dict.fromkeys([SLACK, mailbox.url()], LONG)) == {}
    text = internet.posted[0][1]["attachments"][0]["text"]
    assert text.endswith(f"&amp;…\n{END}")
    assert channel.MAX_ALERT_LENGTH - 5 < len(text) <= channel.MAX_ALERT_LENGTH
    mail = mailbox.mails[0].get_body()
    assert mail
    assert mail.get_content().replace("\r\n", "\n").strip().endswith(f"&…\n{END}")


@pytest.mark.parametrize(
    "url",
    [
        "json://127.0.0.1/",
        "wxteams://" + "a" * 80,
        "ifttt://a@b/",
        "sns://AHIAJGNT76XIMXDBIJYA/bu1dHSdO22pfaaVy/us-east-2/12223334444",
    ],
)
def test_a_text_is_cut_to_what_the_channel_takes(url: str) -> None:
    taker = channel.open_channel(url)
    longest = min(channel.MAX_ALERT_LENGTH, taker.body_maxlen)
    said = channel.render(taker, "x" * 5_000, END)
    assert said.endswith(f"…\n{END}")
    assert len(convert_between(NotifyFormat.TEXT, taker.resolve_format(NotifyFormat.TEXT), said)) == longest


@pytest.mark.parametrize(("status", "seen"), [(404, "HTTP 404"), (302, "HTTP 302")])
def test_a_channel_that_does_not_take_an_alert_is_named_by_its_kind_alone(
    internet: Internet, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], status: int, seen: str
) -> None:
    internet.status = status
    with caplog.at_level(1):
        said = tell(SLACK, Alert("It failed.", END))
    assert said == f"slack://…: {seen}."
    printed = capfd.readouterr()
    assert CANARY not in caplog.text + printed.out + printed.err
    assert len(internet.posted) == 3


def test_a_mail_server_that_refuses_is_told_without_its_words(
    mailbox: Mailbox, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    mailbox.refuses = True
    with caplog.at_level(1):
        assert tell(mailbox.url(), Alert("It failed.", END)) == "mailto://…: SMTPAuthenticationError."
    printed = capfd.readouterr()
    assert CANARY not in caplog.text + printed.out + printed.err
    mailbox.refuses = False
    assert tell(mailbox.url(), Alert("It failed.", END)) is None


def test_a_channel_that_nobody_listens_on(internet: Internet) -> None:
    internet.status = 0
    assert (
        tell("json://127.0.0.1:9/", Alert("It failed.", END)) == "json://…: ConnectionRefusedError: Connection refused."
    )


def test_the_urls_of_apprise_are_read_from_the_settings(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    urls = [SLACK, "mailto://u:p@example.org?to=b@example.org,c@example.org", f"https://hooks.example/{CANARY}?a=b,c"]
    monkeypatch.setenv("USERS_ALERT_URL", f" {urls[0]}\t{urls[1]}, {urls[2]};{urls[0]} ")
    with caplog.at_level(1):
        secret = settings.load().users_alert_url
    assert secret
    assert notify.split(secret.get_secret_value()) == urls
    assert CANARY not in caplog.text


@pytest.mark.parametrize(("url", "imported"), [("", False), ("https://hooks.example/x", False), (SLACK, True)])
def test_who_has_no_url_of_apprise_does_not_wait_for_it(url: str, imported: bool) -> None:  # noqa: FBT001 - a case
    program = "import sys; from user_processing.definitions import defs; print('apprise' in sys.modules)"
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, "USERS_ALERT_URL": url},
        check=True,
        capture_output=True,
        text=True,
    )
    assert finished.stdout.split() == [str(imported)]
    assert logging.getLogger("apprise").level > logging.CRITICAL
