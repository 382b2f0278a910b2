"""The Python that the trainer's page shows runs exactly as it is shown."""

import io
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from doc_pages import blocks, read


def test_ten_lines_build_and_train_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = read("docs/trainer.md").partition("## From Python")[2].partition("\n## ")[0]
    (code,) = blocks(section, "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "cache"))
    said = io.StringIO()
    with redirect_stdout(said):
        exec(compile(code, "docs/trainer.md", "exec"), {})  # noqa: S102 - our own page
    before, after = (float(line.split()[1]) for line in said.getvalue().splitlines())
    assert after < before - 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
