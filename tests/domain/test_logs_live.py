"""Live logs: what the Trainer prints, among what everybody else does."""

import math

import pytest
from log_texts import EVAL_EVERY, LOG_EVERY, entries, eval_at, live, loss_at, points, quoted, read

from orchestrator.domain.errors import Invalid

NOISE = (
    "/site-packages/torch/utils.py:12: UserWarning: {'a': 1} {not a dict}\n"
    "  1%|▏         | 10/1000 [00:02<03:18,  4.99it/s]\r  2%|▏         | 20/1000 [00:04<03:15,  5.01it/s]"
)
EVALUATED = [(step, eval_at(step)) for step in range(EVAL_EVERY, 201, EVAL_EVERY)]
TRAINED = tuple((step, loss_at(step)) for step in range(LOG_EVERY, 201, LOG_EVERY))


@pytest.mark.parametrize("write", [live, quoted])
def test_losses_and_evaluations_are_read_in_either_print(write: object) -> None:
    assert callable(write)
    curve = read(write(entries(0, 200)))
    assert points(curve) == EVALUATED
    assert curve.train_loss == TRAINED
    assert curve.format == "live-log"
    assert curve.notes == ()


def test_noise_between_and_beside_entries_changes_nothing() -> None:
    lines = live(entries(0, 200)).splitlines(keepends=True)
    text = (
        "".join(f"{NOISE}{line}" for line in lines)
        + "{'train_runtime': 12.0, 'train_loss': 3.9, 'epoch': 0.1}\n"
    )
    assert points(read(text)) == EVALUATED
    assert read(text).train_loss == TRAINED


def test_windows_lines_and_bytes_that_are_no_text_are_read() -> None:
    text = live(entries(0, 200)).replace("\n", "\r\n").encode() + b"\xff\xfe\x00"
    assert points(read(text.decode("latin-1"))) == EVALUATED


@pytest.mark.parametrize(
    "line",
    [
        "{'epoch': 0.05, 'loss': 3.5}",
        '{"loss": 3.5, "epoch": 0.05}',
        "{'loss': np.float64(3.5), 'epoch': 0.05}",
        "{'loss': 3.5, 'step': 50}",
        "{'loss': '3.5', 'grad_norm': '1', 'learning_rate': '1e-05', 'entropy': '2.1', 'epoch': '0.05'}",
        "{'loss': 3.5, 'epoch': 0.05, 'eval_loss': 3.9}",
    ],
)
def test_keys_in_any_order_and_other_keys_are_read(line: str) -> None:
    text = line + "\n{'eval_loss': 3.9, 'epoch': 0.05}\n"
    curve = read(text, format_="live-log", steps_per_epoch=1000)
    assert curve.train_loss == ((50, 3.5),)
    assert points(curve) == [(50, 3.9)]


def test_what_an_evaluation_says_besides_is_kept() -> None:
    line = "{'eval_loss': 3.9, 'learning_rate': 0.001, 'num_input_tokens_seen': 1000, 'step': 50}"
    (evaluation,) = read(line).evaluations
    assert evaluation == {"step": 50, "eval_loss": 3.9, "learning_rate": 0.001, "tokens": 1000}


def test_the_train_loss_of_an_evaluation_is_the_mean_since_the_one_before() -> None:
    first, second = read(live(entries(0, 100))).evaluations
    assert first["train_loss"] == pytest.approx(sum(loss_at(s) for s in range(10, 51, 10)) / 5)
    assert second["train_loss"] == pytest.approx(sum(loss_at(s) for s in range(60, 101, 10)) / 5)


def test_an_entry_without_its_end_is_passed_over_and_told() -> None:
    curve = read(live(entries(0, 200)) + "{'loss': 3.1, 'gra")
    assert points(curve) == EVALUATED
    assert curve.notes == ("train.log: 1 entry without an end passed over",)


class TestSteps:
    def test_epochs_without_steps_per_epoch_name_the_option_and_the_line(self) -> None:
        with pytest.raises(Invalid, match=r"--steps-per-epoch: train.log:2 says an epoch and no step"):
            read("hello\n" + live(entries(0, 50)), steps_per_epoch=None)

    @pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
    @pytest.mark.parametrize("option", ["steps_per_epoch", "eval_every"])
    def test_a_number_of_steps_that_cannot_be_names_its_option(self, option: str, value: float) -> None:
        with pytest.raises(Invalid, match=option.replace("_", "-")):
            read(live(entries(0, 50)), **{option: value})

    def test_rounded_epochs_say_how_far_a_step_may_be_off(self) -> None:
        curve = read(
            "{'eval_loss': 5.6, 'epoch': 0.14}\n{'eval_loss': 4.8, 'epoch': 0.28}\n", steps_per_epoch=3571
        )
        assert points(curve) == [(500, 5.6), (1000, 4.8)]
        (note,) = curve.notes
        assert "18 steps" in note
        assert "--eval-every" in note

    def test_eval_every_puts_rounded_evaluations_on_their_grid(self) -> None:
        text = "{'eval_loss': 5.6, 'epoch': '0.14'}\n{'eval_loss': 4.8, 'epoch': '0.29'}\n"
        assert points(read(text, steps_per_epoch=3500, eval_every=None)) == [(490, 5.6), (1015, 4.8)]
        rounded = text.replace("'0.14'", "0.14").replace("'0.29'", "0.29")
        assert points(read(rounded, steps_per_epoch=3500, eval_every=500)) == [(500, 5.6), (1000, 4.8)]

    def test_an_evaluation_far_from_the_grid_stays_where_it_is(self) -> None:
        text = "{'eval_loss': 5.6, 'epoch': 0.14}\n{'eval_loss': 4.8, 'epoch': 0.21}\n"
        assert points(read(text, steps_per_epoch=3500, eval_every=500)) == [(500, 5.6), (735, 4.8)]

    def test_losses_that_share_a_rounded_step_are_counted(self) -> None:
        text = (
            "{'loss': 5.0, 'epoch': 0.01}\n{'loss': 4.0, 'epoch': 0.01}\n{'eval_loss': 4.0, 'epoch': 0.02}\n"
        )
        curve = read(text, steps_per_epoch=1000)
        assert curve.train_loss == ((10, 4.0),)
        assert any("1 training loss dropped" in note for note in curve.notes)


class TestBadEntries:
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{'loss': high, 'epoch': 0.1}", "train.log:3: holds a number that cannot be read"),
            ("{'loss': 3.1, 'grad_norm': 1.0}", "train.log:3: says a loss, and neither a step nor an epoch"),
            ("{'loss': 3.1, 'epoch': -0.1}", "train.log:3: says no sound step"),
            ("{'loss': 3.1, 'epoch': nan}", "train.log:3: says no sound step"),
            ("{'loss': 3.1, 'epoch': 1e300}", "train.log:3: says no sound step"),
        ],
    )
    def test_the_line_is_named(self, line: str, message: str) -> None:
        with pytest.raises(Invalid, match=message):
            read(f"a\nb\n{line}\n", format_="live-log")

    def test_other_names_of_evaluations_are_named(self) -> None:
        with pytest.raises(Invalid, match="`eval_wikitext_loss`"):
            read("{'eval_wikitext_loss': 3.0, 'epoch': 0.5}\n", format_="live-log")

    def test_no_evaluation_at_all_counts_the_losses(self) -> None:
        with pytest.raises(Invalid, match=r"no evaluation was found \(1 training loss\)"):
            read("{'loss': 3.0, 'epoch': 0.5}\n")

    def test_an_empty_file_says_its_format_is_not_known_or_that_nothing_is_in_it(self) -> None:
        with pytest.raises(Invalid, match="--format"):
            read("")
        with pytest.raises(Invalid, match="no evaluation was found"):
            read("", format_="live-log")


class TestNotFinite:
    def test_they_are_kept_and_told(self) -> None:
        text = "{'loss': nan, 'step': 100}\n{'eval_loss': 4.0, 'step': 100}\n"
        curve = read(text + "{'eval_loss': nan, 'step': 200}\n{'eval_loss': inf, 'step': 300}\n")
        assert [str(loss) for _, loss in points(curve)] == ["4.0", "nan", "inf"]
        assert "2 eval losses are not finite, the first at step 200" in curve.notes[0]
        assert "1 training loss is not finite, the first at step 100" in curve.notes[1]

    def test_a_curve_without_a_finite_evaluation_is_refused(self) -> None:
        with pytest.raises(Invalid, match="none of the 1 eval losses is finite"):
            read("{'eval_loss': nan, 'step': 200}\n")


def test_one_evaluation_is_taken_and_says_that_nothing_can_be_interpolated() -> None:
    curve = read("{'eval_loss': 4.0, 'step': 500}\n")
    assert points(curve) == [(500, 4.0)]
    assert "compares at step 500 alone" in curve.notes[0]


def test_a_long_series_of_losses_is_thinned_and_says_so() -> None:
    found = [f"{{'loss': {1 + i}, 'step': {i}}}\n" for i in range(12_000)]
    curve = read("".join(found) + "{'eval_loss': 4.0, 'step': 12000}\n")
    assert len(curve.train_loss) == 5000
    assert (curve.train_loss[0], curve.train_loss[-1]) == ((0, 1.0), (11_999, 12_000.0))
    assert "5,000 of 12,000 training losses are kept, evenly spaced" in curve.notes
