"""A small real service on loopback: it keeps what workers post and answers what a test tells it to."""

import json
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any

from orchestrator.protocol.assignment import ServiceAddress
from orchestrator.protocol.report import Directive, DirectiveKind, Phase

TOKEN = "att_1.secret"
Refusal = tuple[int, dict[str, Any], dict[str, str]]
"""Status, body, headers."""


class ListeningService:
    """`decide(phase, step)` gives the directive; `refuse(path, body)` may give a refusal instead."""

    def __init__(self, target: int, port: int = 0) -> None:
        self.reports: dict[int, dict[str, Any]] = {}
        self.heartbeats: list[dict[str, Any]] = []
        self.posts: list[int] = []
        self.changed = Condition()
        self.decide: Callable[[Phase, int], Directive] = lambda _phase, _step: Directive(
            kind=DirectiveKind.CONTINUE, target_step=target
        )
        self.refuse: Callable[[str, dict[str, Any]], Refusal | None] = lambda _path, _body: None
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                service.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def address(self, address_file: str | None = None) -> ServiceAddress:
        return ServiceAddress(url=self.url, token=TOKEN, address_file=address_file)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait_for(self, what: Callable[[], bool], timeout: float = 60) -> None:
        with self.changed:
            assert self.changed.wait_for(what, timeout), "the worker did not say it in time"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        assert re.fullmatch(r"/v1/attempts/att_1/(reports|heartbeat)", request.path)
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        refusal = self.refuse(request.path, body)
        if refusal is not None:
            status, answer, headers = refusal
        else:
            status, answer, headers = 200, self._take(request.path, body), {}
        with self.changed:
            self.changed.notify_all()
        payload = json.dumps(answer).encode()
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(payload))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(payload)

    def _take(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path.endswith("reports"):
            self.posts.append(body["sequence"])
            self.reports.setdefault(body["sequence"], body)
        else:
            self.heartbeats.append(body)
        acknowledged = next(n for n in range(len(self.reports) + 1) if n + 1 not in self.reports)
        directive = self.decide(Phase(body["phase"]), body["step"])
        return {"acknowledged": acknowledged, "directive": directive.model_dump(mode="json")}
