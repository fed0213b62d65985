"""Users that randomuser.me has sent, and an API that sends them again."""

import functools
import json
import operator
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from user_processing.columns import COLUMNS, INCLUDED

RECORDED = Path(__file__).parent / "recorded"

Row = tuple[Any, ...]


def recorded_users() -> list[dict[str, Any]]:
    """Users that randomuser.me sent for the first four fields; what else the columns need is that of one whole user."""
    whole = json.loads((RECORDED / "user.all-fields.json").read_bytes())
    asked = {field: whole[field] for field in INCLUDED.split(",")}
    return [asked | user for user in json.loads((RECORDED / "users.json").read_bytes())]


def stored(user: dict[str, Any]) -> Row:
    """The row that a record of the API has to become."""
    return tuple(functools.reduce(operator.getitem, column.path.split("."), user) for column in COLUMNS)


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
