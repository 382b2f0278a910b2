"""One kept-alive connection to the service, by the standard library: nothing to import, no proxies."""

import http.client
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.protocol.assignment import ServiceAddress

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 15.0


@dataclass(frozen=True)
class Response:
    """A status and its body; `retry_after` in seconds when the service asked for patience."""

    status: int
    body: bytes
    retry_after: float | None


class Unreachable(Exception):
    """No answer: refused, reset, timed out, or not HTTP."""


class ServiceConnection:
    """Posts JSON. After a failure the address is read anew: the service may have moved to another port."""

    def __init__(self, address: ServiceAddress) -> None:
        self._address = address
        self._url = address.url
        self._connection: http.client.HTTPConnection | None = None

    def post(self, path: str, body: bytes) -> Response:
        """The service's response. Raises `Unreachable`."""
        fresh = self._connection is None
        try:
            return self._send(path, body)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not fresh and not isinstance(error, TimeoutError):
                return self.post(path, body)  # a kept-alive connection that the service had closed
            self._reread_address()
            raise Unreachable(f"{self._url}: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(self, path: str, body: bytes) -> Response:
        if self._connection is None:
            self._connection = self._open()
        prefix = urlsplit(self._url).path.rstrip("/")
        headers = {"Authorization": f"Bearer {self._address.token}", "Content-Type": "application/json"}
        self._connection.request("POST", prefix + path, body, headers)
        answer = self._connection.getresponse()
        return Response(answer.status, answer.read(), _seconds(answer.getheader("Retry-After")))

    def _open(self) -> http.client.HTTPConnection:
        parts = urlsplit(self._url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)

    def _reread_address(self) -> None:
        if self._address.address_file is None:
            return
        try:
            url = json.loads(Path(self._address.address_file).read_text())["url"]
        except (OSError, ValueError, KeyError, TypeError):
            return
        if isinstance(url, str) and url != self._url:
            log.info("the service is now at %s", url)
            self._url = url


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None  # an HTTP date: the ordinary back-off does
