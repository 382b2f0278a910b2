"""What holds of every text, length, seed and step."""

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data import TokenData
from trainer.text.corpus import Corpus, partition

SEEDS = st.integers(0, 2**63 - 1)
STEPS = st.integers(0, 2**40)


def counting(train: int, held_out: int = 2) -> TokenData:
    """Each token is its own position: what is drawn shows where it was drawn."""
    return TokenData(np.arange(train, dtype=np.uint32), np.arange(held_out, dtype=np.uint32), "counting")


@given(SEEDS, STEPS, st.integers(1, 9), st.integers(1, 40), st.integers(2, 500))
def test_windows_lie_within_the_text(seed: int, step: int, rows: int, length: int, extra: int) -> None:
    batch = counting(length + extra).batch(seed, step, rows, length)
    assert (batch.shape, batch.dtype) == ((rows, length + 1), np.int64)
    assert (np.diff(batch, axis=1) == 1).all()
    assert batch.min() >= 0
    assert batch.max() < length + extra


@given(SEEDS, STEPS, st.lists(st.tuples(SEEDS, STEPS), max_size=3))
def test_a_batch_depends_on_seed_and_step_alone(seed: int, step: int, before: list[tuple[int, int]]) -> None:
    data = counting(10_000)
    fresh = data.batch(seed, step, 4, 16)
    for other in before:
        data.batch(*other, 4, 16)
    assert np.array_equal(data.batch(seed, step, 4, 16), fresh)
    assert not np.array_equal(data.batch(seed, step + 1, 4, 16), fresh)


@given(SEEDS, STEPS, st.sampled_from([np.uint16, np.uint32]))
def test_a_batch_equals_the_slices_it_stands_for(
    seed: int, step: int, dtype: type[np.unsignedinteger]
) -> None:
    data = TokenData(np.arange(5000, dtype=dtype)[::-1].copy(), np.arange(2, dtype=dtype), "reversed")
    key = np.array([seed, step], dtype=np.uint64)
    starts = np.random.Generator(np.random.Philox(key=key)).integers(0, 5000 - 32, size=3)
    expected = np.stack([data.train[s : s + 33] for s in starts]).astype(np.int64)
    assert np.array_equal(data.batch(seed, step, 3, 32), expected)


@given(st.integers(2, 700), st.integers(1, 900))
def test_every_held_out_token_is_predicted_exactly_once(tokens: int, length: int) -> None:
    data = counting(2, tokens)
    windows = data.evaluation_windows(length)
    targets = np.concatenate([w[:, 1:].ravel() for w in windows])
    assert np.array_equal(targets, np.arange(1, tokens))
    assert all((w[:, :-1] + 1 == w[:, 1:]).all() for w in windows)


@given(st.integers(2, 300), st.integers(1, 300))
def test_a_limited_evaluation_is_the_start_of_the_whole_one(tokens: int, limit: int) -> None:
    data = counting(2, tokens)
    limited = data.limited(limit)
    assert np.array_equal(limited.held_out, data.held_out[: limit + 1])
    assert dataclasses.replace(limited, held_out=data.held_out).evaluation_set == data.evaluation_set


DOCUMENTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).map(lambda text: text + "\n"),
    min_size=1,
    max_size=120,
)


@settings(max_examples=200)
@given(DOCUMENTS, st.sampled_from([0.001, 0.05, 0.1, 0.3, 0.5]))
def test_a_split_is_a_partition(documents: list[str], share: float) -> None:
    text = np.frombuffer("".join(documents).encode(), np.uint8)
    ends, held_out = partition(text, np.cumsum([len(d.encode()) for d in documents]), share)
    corpus = Corpus(text, ends, held_out)
    train = list(corpus.documents(held_out=False))
    rest = list(corpus.documents(held_out=True))
    assert sorted("".join([*train, *rest])) == sorted("".join(documents))
    assert len(train) + len(rest) == len(ends)
    assert sum(corpus.bytes_of(held_out=part) for part in (True, False)) == len(text)
    merged = [(train if not mask else rest).pop(0) for mask in held_out]
    assert "".join(merged) == "".join(documents)
