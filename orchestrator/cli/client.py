"""The service over HTTP: JSON in, JSON out, and every failure as one of the command line's errors."""

import json
from collections.abc import Callable
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any, Self

import httpx

from orchestrator.cli.address import Address, find_address, setting
from orchestrator.cli.errors import BadUsage, OutOfReach, Refused, Unknown

Json = dict[str, Any]
PAGE = 500
TRIES = 3
START = "start it with `assay serve`, or name another address with --url or ASSAY_URL"


class Client:
    """One conversation with the service. `find` is asked again by `reconnect`: its port may change."""

    def __init__(self, find: Callable[[], Address], token: str | None = None) -> None:
        self._find = find
        self._token = token
        self._open()

    def _open(self) -> None:
        self.address = self._find()
        try:
            base = httpx.URL(self.address.url)
        except httpx.InvalidURL as error:
            raise BadUsage(f"{self.address.source}: `{self.address.url}` is no address: {error}") from None
        self._http = httpx.Client(
            base_url=base,
            headers={"Authorization": f"Bearer {self._token}"} if self._token else {},
            timeout=httpx.Timeout(60.0, connect=5.0),
            trust_env=not self.address.is_loopback,  # no proxy stands between us and this machine
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def reconnect(self) -> None:
        """Looks up the address again: a service that came back may have another port."""
        self._http.close()
        self._open()

    def get(self, path: str, **params: str | int | None) -> Json:
        return self._json(self._send("GET", path, params=_given(params)))

    def text(self, path: str, **params: str | int | None) -> str:
        """The body as it is, for what is not JSON."""
        return self._send("GET", path, params=_given(params)).text

    def items(self, path: str, cursor: str | None = None, **params: str | int | None) -> list[Json]:
        """Every item of a list from `cursor` on, over all of its pages."""
        found: list[Json] = []
        while True:
            page = self.get(path, **params, limit=PAGE, cursor=cursor)
            found.extend(page["items"])
            cursor = page.get("next_cursor")
            if cursor is None:
                return found

    def post(self, path: str, body: Json, key: str | None = None) -> Json:
        """With an idempotency `key` a reply that got lost is asked for again; without one it is not."""
        headers = {"Idempotency-Key": key} if key else {}
        for left in reversed(range(TRIES if key else 1)):
            try:
                return self._json(self._send("POST", path, json=body, headers=headers))
            except OutOfReach as error:
                if not left or isinstance(error.__cause__, httpx.ConnectError):
                    raise
            except Refused as error:
                if not left or not error.may_pass:
                    raise
            Event().wait(0.5)
        raise AssertionError("the last try either answers or raises")

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise self._out_of_reach(_why(error)) from error
        if response.is_error:
            raise _refusal(response)
        if not response.is_success:
            raise self._out_of_reach(f"what answers there is not Assay (HTTP {response.status_code})")
        return response

    def _json(self, response: httpx.Response) -> Json:
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise self._out_of_reach("what answers there is not Assay (no JSON object)")
        return document

    def _out_of_reach(self, why: str) -> OutOfReach:
        at = f"the service is out of reach at {self.address.url} (from {self.address.source}): {why}"
        return OutOfReach(at, START)


def connect(url: str | None = None) -> Client:
    """A client of the service that `url`, the environment or the data folder names."""
    return Client(lambda: find_address(url), setting("token"))


def connect_to(service_file: Path) -> Client:
    """A client of the service that wrote `service_file`, whatever the environment says."""
    return Client(lambda: Address(str(json.loads(service_file.read_text())["url"]), str(service_file)))


def _given(params: dict[str, str | int | None]) -> dict[str, str | int]:
    return {name: value for name, value in params.items() if value is not None}


def _why(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.ConnectError):
        return "nobody listens there"
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return str(error) or type(error).__name__


def _refusal(response: httpx.Response) -> Refused:
    """The lines of a problem document: title, detail, then each field that is wrong."""
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"title": f"HTTP {response.status_code}", "detail": response.text[:200].strip()}
    errors = [error for error in problem.get("errors") or [] if isinstance(error, dict)]
    lines = [str(problem.get("title") or f"HTTP {response.status_code}")]
    detail = str(problem.get("detail") or "")
    if detail and not "; ".join(_field_line(error) for error in errors).startswith(detail):
        lines.append(detail)
    lines += [f"  {_field_line(error)}" for error in errors]
    if response.status_code == httpx.codes.UNAUTHORIZED:
        lines.append("put the service's token into ASSAY_TOKEN")
    kind = Unknown if response.status_code == httpx.codes.NOT_FOUND else Refused
    return kind(*lines, status=response.status_code)


def _field_line(error: Json) -> str:
    return f"{error.get('field')}: {error.get('message')}"
