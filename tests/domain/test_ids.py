"""Ids as the outside spells them: what names a row, and what names none."""

import pytest

from orchestrator.domain.errors import Missing
from orchestrator.domain.ids import Kind, missing, number_of, spell

KINDS: tuple[Kind, ...] = ("exp", "run", "att", "dec", "ref")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [1, 7, 10, 999_999_999, 10**18 - 1])
def test_what_is_spelled_is_read_back(kind: Kind, number: int) -> None:
    assert number_of(kind, spell(kind, number)) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "run_",
        "run_0",
        "run_01",
        "run_-1",
        "run_+1",
        "run_1.0",
        "run_1e3",
        "run_1 ",
        " run_1",
        "run_1\n",
        "RUN_1",
        "run-1",
        "run1",
        "1",
        "exp_1",
        "run_1_2",
        "run_1; drop table runs",
        "run_" + "9" * 19,
        "run_" + "9" * 5000,
        "run_1\u0663",
        "run_\uff11",
        "run_1\x00",
    ],
)
def test_garbage_names_no_run(text: str) -> None:
    with pytest.raises(Missing) as caught:
        number_of("run", text)
    assert "an id looks like `run_1`" in caught.value.detail


def test_the_largest_id_fits_64_bits() -> None:
    assert number_of("att", "att_" + "9" * 18) < 2**63


def test_a_long_id_is_not_echoed_whole() -> None:
    with pytest.raises(Missing) as caught:
        number_of("exp", "exp_" + "1" * 10_000)
    assert len(caught.value.detail) < 120


@pytest.mark.parametrize(
    ("kind", "noun"), [("exp", "experiment"), ("att", "attempt"), ("dec", "decision"), ("ref", "reference")]
)
def test_what_is_missing_is_told_by_its_noun(kind: Kind, noun: str) -> None:
    assert missing(kind, 12).detail == f"there is no {noun} `{kind}_12`"
