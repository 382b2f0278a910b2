"""A canned service for each test, and a way to run a command against it."""

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest
from cli_rigs import Assay, CannedService, Said, handler

from orchestrator.cli.main import main


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[CannedService]:
    made = CannedService()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(made))
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("ASSAY_URL", made.url)
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The person's own settings stay out of the tests; the window is 80 columns wide."""
    for name in ("ASSAY_URL", "ASSAY_TOKEN", "ASSAY_HOME", "ASSAY_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def assay(capsys: pytest.CaptureFixture[str]) -> Assay:
    """Runs a command and returns its exit code and what it said."""

    def run(*arguments: str) -> Said:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        code = ended.value.code
        said = capsys.readouterr()
        return Said(code if isinstance(code, int) else 0, said.out, said.err)

    return run
