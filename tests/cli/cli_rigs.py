"""A service of canned answers on loopback: real HTTP, and every request is kept."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Answer = tuple[int, Any]


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class CannedService:
    """`routes` maps `GET /v1/slots` to a body, to (status, body), or to a function of the request."""

    routes: dict[str, Any] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        found = self.routes.get(f"{request.method} {request.path}")
        if callable(found):
            found = found(request)
        if found is None:
            return 404, {"title": "There is no such thing", "status": 404, "detail": f"no {request.path}"}
        return found if isinstance(found, tuple) else (200, found)


def handler(service: CannedService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply()

        def do_POST(self) -> None:
            self._reply()

        def _reply(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            parts = urlsplit(self.path)
            body = json.loads(self.rfile.read(length)) if length else None
            query = dict(parse_qsl(parts.query))
            request = Request(self.command, parts.path, query, dict(self.headers.items()), body)
            status, answer = service.answer(request)
            data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@dataclass
class Said:
    code: int
    out: str
    err: str


Assay = Callable[..., Said]
