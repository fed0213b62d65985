"""A webhook that takes what is posted to it, and answers as it was told to."""

import json
import ssl

from user_processing_tests.support import hostile_api
from user_processing_tests.support.hostile_api import Behaviour, Exchange, HostileApi, answers

CANARY = "canary"
PATH = f"/services/{CANARY}-path?key={CANARY}-query"


class Webhook(HostileApi):
    """Use it in `with`. `always` is what becomes of each request."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        self.always = says(200)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def texts(self) -> list[str]:
        """What the alerts that it was sent say."""
        return [json.loads(exchange.sent)["text"] for exchange in self.asked if exchange.method == "POST"]


def says(status: int, **headers: str) -> Behaviour:
    """An answer with this status, whose phrase nobody may repeat."""
    return answers(f"{status} {CANARY}-phrase", **headers)


def sends(data: bytes) -> Behaviour:
    """These bytes and no more."""

    def behave(exchange: Exchange) -> None:
        exchange.send(data)
        exchange.close()

    return behave


hangs = Exchange.hang

drips = hostile_api.sends_and_drips(b"HTTP/1.1 200 OK\r\nX: ", [b"x"])
"""A header that has no end; each byte comes long before any timeout."""
