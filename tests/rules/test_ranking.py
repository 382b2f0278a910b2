"""Cap and order: ties within `same eval loss` go to fewer FLOPs, fewer parameters, the name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.rules.ranking import Contender, rank

TIE = 0.005 + 1e-6


def names(*contenders: Contender) -> list[str]:
    return [contender.variant for contender in rank(contenders, TIE)]


def test_lower_is_better() -> None:
    assert names(Contender("a", 3.2), Contender("b", 3.1)) == ["b", "a"]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        pytest.param(("a", 3.1, 9.0, 1.0), ("b", 3.105, 8.0, 2.0), ["b", "a"], id="equality: fewer FLOPs"),
        pytest.param(("a", 3.1, 9.0, 1.0), ("b", 3.1051, 8.0, 1.0), ["a", "b"], id="no tie"),
        pytest.param(("a", 3.1, 9.0, 2.0), ("b", 3.104, 9.0, 1.0), ["b", "a"], id="then fewer parameters"),
        pytest.param(("b", 3.1, 9.0, 1.0), ("a", 3.104, 9.0, 1.0), ["a", "b"], id="then the name"),
    ],
)
def test_ties(
    left: tuple[str, float, float, float], right: tuple[str, float, float, float], expected: list[str]
) -> None:
    assert names(Contender(*left), Contender(*right)) == expected


def test_a_group_reaches_no_further_than_the_tie_from_its_best() -> None:
    chain = [Contender("a", 3.100, 3.0), Contender("b", 3.104, 2.0), Contender("c", 3.108, 1.0)]
    assert names(*chain) == ["b", "a", "c"]  # c is near b, yet 0.008 from a


contenders = st.lists(
    st.builds(
        Contender,
        variant=st.text("abcdef", min_size=1, max_size=3),
        value=st.floats(3.0, 3.02),
        flops_per_token=st.sampled_from([1.0, 2.0]),
        parameters=st.sampled_from([1.0, 2.0]),
    ),
    unique_by=lambda contender: contender.variant,
    max_size=8,
)


@given(contenders, st.randoms(use_true_random=False))
def test_the_order_given_does_not_matter(given_order: list[Contender], random: object) -> None:
    shuffled = list(given_order)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert rank(shuffled, TIE) == rank(given_order, TIE)


@given(contenders)
def test_nobody_overtakes_by_more_than_the_tie(given_order: list[Contender]) -> None:
    ranked = rank(given_order, TIE)
    assert sorted(ranked, key=lambda c: c.variant) == sorted(given_order, key=lambda c: c.variant)
    for i, better in enumerate(ranked):
        assert all(worse.value >= better.value - TIE for worse in ranked[i:])
