"""Sessions put together: the later wins from its first step on, and what falls is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_texts import EVAL_EVERY, LOG_EVERY, PER_EPOCH, entries, live, points, read, state

from orchestrator.domain.errors import Invalid
from orchestrator.domain.logs.read import LogCurve

LAST = 600
CUTS = st.lists(
    st.tuples(
        st.integers(1, LAST // LOG_EVERY - 1).map(lambda i: i * LOG_EVERY),  # where a session ends
        st.integers(0, 20).map(lambda i: i * LOG_EVERY),  # how far before that the next one begins
    ),
    max_size=4,
)


def sessions(cuts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(after, last) of each session: one ends at each cut, and the next begins some steps before that."""
    found, start = [], 0
    for end, back in sorted(cuts):
        if end > start:
            found.append((start, end))
            start = max(0, end - back)
    return [*found, (start, LAST)]


def same(left: LogCurve, right: LogCurve) -> bool:
    return (left.evaluations, left.train_loss) == (right.evaluations, right.train_loss)


@given(CUTS)
def test_sessions_appended_to_each_other_give_the_unbroken_curve(cuts: list[tuple[int, int]]) -> None:
    whole = read(live(entries(0, LAST)))
    broken = read("".join(live(entries(after, last)) for after, last in sessions(cuts)))
    assert same(whole, broken)


@given(CUTS, st.randoms(use_true_random=False))
def test_the_order_in_which_files_are_given_does_not_matter(
    cuts: list[tuple[int, int]], random: object
) -> None:
    parts = [state(after, last) for after, last in sessions(cuts)]
    shuffled = list(parts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a Random
    whole = read(state(0, LAST), name="trainer_state.json")
    assert same(whole, read(*parts, name="trainer_state.json"))
    assert same(whole, read(*shuffled, name="trainer_state.json"))


@given(st.integers(0, 11), st.integers(1, 12), st.floats(-0.04, 0.04))
def test_from_its_first_step_on_every_value_is_the_later_sessions(begin: int, end: int, shift: float) -> None:
    after, last = begin * EVAL_EVERY, 600
    first_last = end * EVAL_EVERY
    curve = read(live(entries(0, max(first_last, after))) + live(entries(after, last, shift)))
    later = dict(points(read(live(entries(after, last, shift)))))
    earlier = dict(points(read(live(entries(0, 600)))))
    assert dict(points(curve)) == {s: loss for s, loss in earlier.items() if s <= after} | later  # type: ignore[operator]  # steps are numbers


def test_what_was_dropped_is_counted_in_a_sentence() -> None:
    curve = read(live(entries(0, 200)) + live(entries(100, 300, 0.01)))
    assert [step for step, _ in points(curve)] == [50, 100, 150, 200, 250, 300]
    (note,) = curve.notes
    assert note == (
        "session 2 (train.log:25) begins at step 110: "
        "2 evaluations and 10 losses of session 1 at and after it were dropped"
    )


def test_what_a_later_session_repeats_unchanged_is_not_called_dropped() -> None:
    (note,) = read(live(entries(0, 200)) + live(entries(100, 300))).notes
    assert note.endswith(
        "begins at step 110: nothing of session 1 was dropped; 12 that it repeats are unchanged"
    )


def test_a_later_session_that_ends_earlier_ends_the_curve() -> None:
    curve = read(live(entries(0, 300)) + live(entries(100, 200, 0.01)))
    assert [step for step, _ in points(curve)] == [50, 100, 150, 200]
    assert "4 evaluations and 20 losses of session 1" in curve.notes[0]


def test_of_equal_spans_the_one_given_last_wins() -> None:
    curve = read(state(0, 100), state(0, 100, shift=0.01), name="trainer_state.json")
    assert same(curve, read(state(0, 100, shift=0.01), name="trainer_state.json"))


class TestMixture:
    def test_runs_that_write_in_turns_are_seen(self) -> None:
        slow, fast = entries(0, 200), entries(2000, 2200)
        text = "".join(live([a, b]) for a, b in zip(fast, slow, strict=True))
        with pytest.raises(Invalid, match=r"train.log:\d+: holds more than one run: steps go back"):
            read(text)

    def test_runs_that_write_in_blocks_are_seen(self) -> None:
        parts = [live(entries(after, after + 100)) for i in range(4) for after in (3000 + 100 * i, 100 * i)]
        with pytest.raises(Invalid, match="steps jump back and forth"):
            read("".join(parts))

    def test_runs_in_step_with_each_other_are_seen(self) -> None:
        pairs = zip(entries(0, 200), entries(0, 200, 0.5), strict=True)
        with pytest.raises(Invalid, match="eval losses differ at the same step 4 times"):
            read("".join(live(pair) for pair in pairs))

    def test_another_run_after_the_first_is_seen_by_its_losses(self) -> None:
        with pytest.raises(Invalid, match=r"eval losses at 4 equal steps differ by 0\.3"):
            read(live(entries(0, 200)) + live(entries(0, 300, 0.3)))
        losses = [entry for entry in entries(0, 200, 0.6) if "loss" in entry]
        with pytest.raises(Invalid, match="training losses at 20 equal steps differ"):
            read(live(losses) + live(entries(0, 300)))

    def test_another_run_is_seen_behind_a_session_that_shares_no_steps_with_it(self) -> None:
        with pytest.raises(Invalid, match=r"session 3 \(train\.log:\d+\) repeats steps of those before it"):
            read(live(entries(0, 600)) + live(entries(300, 350)) + live(entries(200, 600, 0.5)[12:]))

    def test_folders_of_two_runs_are_seen(self) -> None:
        with pytest.raises(Invalid, match=r"2-trainer_state\.json.*holds more than one run"):
            read(state(0, 200), state(0, 300, shift=0.3), name="trainer_state.json")

    @pytest.mark.parametrize("shift", [0.02, -0.05])
    def test_a_resume_that_moves_the_losses_a_little_is_one_run(self, shift: float) -> None:
        assert len(points(read(live(entries(0, 200)) + live(entries(100, 400, shift))))) == 8

    def test_a_crash_that_comes_back_at_once_is_one_run(self) -> None:
        text = live(entries(0, 200)) + 6 * live(entries(200, 220)) + live(entries(200, 400))
        assert same(read(text), read(live(entries(0, 400))))

    def test_a_session_with_lines_missing_is_one_run(self) -> None:
        kept = [entry for entry in entries(100, 600) if not 140 < entry["epoch"] * PER_EPOCH < 420]
        assert points(read(live(entries(0, 200)) + live(kept)))[-1][0] == 600

    def test_an_evaluation_made_again_is_told(self) -> None:
        text = live(entries(0, 100)) + f"{{'eval_loss': 3.0, 'epoch': {100 / PER_EPOCH}}}\n"
        curve = read(text)
        assert points(curve)[-1] == (100, 3.0)
        assert curve.notes == ("train.log:13: evaluated again at step 100; the one before was dropped",)
