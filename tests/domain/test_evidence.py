"""Three-valued logic: its tables and its laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.evidence import Verdict, all_of, any_of, negate

PASS, FAIL, OPEN, INVALID = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.INVALID
verdicts = st.lists(st.sampled_from(Verdict), max_size=6)


def plain(verdict: Verdict) -> Verdict:
    """An invalid leaf counts as inconclusive."""
    return OPEN if verdict is INVALID else verdict


@pytest.mark.parametrize(
    ("given_verdicts", "both", "either"),
    [
        ([], PASS, FAIL),
        ([PASS], PASS, PASS),
        ([FAIL], FAIL, FAIL),
        ([OPEN], OPEN, OPEN),
        ([INVALID], OPEN, OPEN),
        ([PASS, FAIL], FAIL, PASS),
        ([PASS, OPEN], OPEN, PASS),
        ([FAIL, OPEN], FAIL, OPEN),
        ([PASS, INVALID], OPEN, PASS),
        ([FAIL, INVALID], FAIL, OPEN),
        ([PASS, OPEN, FAIL], FAIL, PASS),
    ],
)
def test_all_and_any(given_verdicts: list[Verdict], both: Verdict, either: Verdict) -> None:
    assert all_of(given_verdicts) is both
    assert any_of(given_verdicts) is either


@given(verdicts)
def test_de_morgan(given_verdicts: list[Verdict]) -> None:
    turned = [negate(verdict) for verdict in given_verdicts]
    assert negate(all_of(given_verdicts)) is any_of(turned)
    assert negate(any_of(given_verdicts)) is all_of(turned)


@given(verdicts, st.randoms())
def test_order_and_repetition_do_not_matter(given_verdicts: list[Verdict], random: object) -> None:
    shuffled = list(given_verdicts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for combine in (all_of, any_of):
        assert combine(shuffled) is combine(given_verdicts) is combine(given_verdicts * 2)


@given(verdicts, verdicts)
def test_grouping_does_not_matter(left: list[Verdict], right: list[Verdict]) -> None:
    assert all_of(left + right) is all_of([all_of(left), all_of(right)])
    assert any_of(left + right) is any_of([any_of(left), any_of(right)])


@given(st.sampled_from(Verdict))
def test_negation_twice_is_the_same(verdict: Verdict) -> None:
    assert negate(negate(verdict)) is verdict


@given(verdicts)
def test_an_invalid_leaf_counts_as_inconclusive(given_verdicts: list[Verdict]) -> None:
    softened = [plain(verdict) for verdict in given_verdicts]
    assert all_of(given_verdicts) is all_of(softened)
    assert any_of(given_verdicts) is any_of(softened)
