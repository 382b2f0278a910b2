"""What a run rests on: packages, and the commit of the code with what was not committed."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from trainer import provenance


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *words], check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture
def code(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    file = tmp_path / "pkg" / "trainer.py"
    file.parent.mkdir()
    file.write_text("one = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    return file


def test_committed_code_is_a_commit(code: Path) -> None:
    commit = git(code.parent, "rev-parse", "HEAD").strip()
    assert provenance.code_of(code) == {"git_commit": commit, "clean": "true"}


def test_what_is_not_committed_has_the_hash_of_its_diff(code: Path) -> None:
    code.write_text("one = 2\n")
    said = provenance.code_of(code)
    diff = git(code.parent, "diff", "HEAD", "--binary")
    assert said["git_diff_sha256"] == hashlib.sha256(diff.encode()).hexdigest()
    assert "clean" not in said


def test_code_beneath_a_repository_that_does_not_track_it_is_not_its_code(code: Path) -> None:
    installed = code.parent / "site-packages" / "trainer.py"
    installed.parent.mkdir()
    installed.write_text("one = 1\n")
    assert provenance.code_of(installed) == {}


def test_without_a_repository_or_git_nothing_is_said(
    tmp_path: Path, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert provenance.code_of(tmp_path.parent / "nowhere" / "trainer.py") == {}
    monkeypatch.setenv("PATH", "")
    assert provenance.code_of(code) == {}


def test_versions_are_those_that_are_installed() -> None:
    said = provenance.versions("12.8")
    assert {"python", "assay", "torch", "numpy", "cuda"} <= said.keys()
    assert "cuda" not in provenance.versions(None)
