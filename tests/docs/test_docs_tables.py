"""Tables against the code: settings, dependencies, endpoints and reasons, none missing and none made up."""

import re
import tomllib

import pytest
from doc_pages import read, table_rows

from orchestrator.api.app import create_app
from orchestrator.domain.lifecycle import Reason, RunStatus
from orchestrator.settings import Settings

IN_WORDS = {"home": "the user's data folder", "database_url": "`<home>/assay.sqlite3`"}
FREE = {Reason.PREEMPTED, Reason.YIELDED, Reason.STALE_EPOCH, Reason.LINKED}


def default_of(field: str) -> str:
    """A setting's default as the table writes it."""
    if field in IN_WORDS:
        return IN_WORDS[field]
    default = Settings.model_fields[field].get_default(call_default_factory=True, validated_data={})
    if default is None:
        return "none"
    return "`[]`" if default == () else f"`{default}`"


def setting_rows() -> dict[str, str]:
    text = read("docs/configuration.md").partition("## A file")[0]
    return {row[0].strip("`"): row[1] for row in table_rows(text) if row[0].startswith("`ASSAY_")}


def test_every_setting_has_its_row_and_default() -> None:
    expected = {f"ASSAY_{field.upper()}": default_of(field) for field in Settings.model_fields}
    assert setting_rows() == expected


def test_the_file_of_settings_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASSAY_CONFIG", raising=False)
    (example,) = re.findall(r"^```toml\n(.*?)^```", read("docs/configuration.md"), re.MULTILINE | re.DOTALL)
    document = tomllib.loads(example)
    assert document.keys() <= Settings.model_fields.keys()
    assert Settings(**document).trainers["mine"].check == "mine.facts:check"


def test_every_dependency_has_its_line() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    wanted = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    names = {re.split(r"[\[<>=!~ ;]", requirement)[0] for requirement in wanted}
    rows = [
        name for row in table_rows(read("docs/dependencies.md")) for name in re.findall(r"`([\w-]+)`", row[0])
    ]
    assert sorted(rows) == sorted(names)


def test_every_endpoint_has_its_row() -> None:
    app = create_app(None)  # type: ignore[arg-type]  # the description needs no context
    served = {
        (method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods
    }
    rows = table_rows(read("docs/api.md"))
    shown = [(row[0], row[1].strip("`")) for row in rows if row[1].startswith("`/")]
    assert sorted(shown) == sorted(served)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_under_its_status(reason: Reason) -> None:
    rows = [row for row in table_rows(read("docs/architecture.md")) if f"`{reason}`" in row[0]]
    rows = [row for row in rows if row[1].startswith(("`", "not over"))]
    assert len(rows) == 1
    assert rows[0][1].startswith("not over" if reason in FREE else f"`{reason.status}`")


def test_every_status_of_a_run_is_explained() -> None:
    first = " ".join(row[0] for row in table_rows(read("docs/architecture.md")))
    assert [status for status in RunStatus if f"`{status}`" not in first] == []
