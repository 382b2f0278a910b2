"""References as documents: what is known of them, and what a comparison says of what is not."""

import math
from dataclasses import replace
from typing import Any

import pytest
from test_curves import IDENTITY, curve

from orchestrator.domain.curves import Unmatched, comparable, match, upto
from orchestrator.domain.errors import Invalid
from orchestrator.domain.references import (
    NEEDED,
    KnownEvaluation,
    KnownIdentity,
    ReferenceDocument,
    as_json,
    full_evaluation,
    full_identity,
    parse_reference,
    unrecorded,
    with_tokens,
    with_tokens_per_step,
)
from orchestrator.protocol.report import Evaluation, Identity

SOUND: dict[str, Any] = {"name": "dense", "evaluations": [{"step": 500, "eval_loss": 4.0}]}


def test_every_field_of_an_identity_and_of_an_evaluation_can_be_known() -> None:
    assert KnownIdentity.model_fields.keys() == Identity.model_fields.keys()
    assert KnownEvaluation.model_fields.keys() == Evaluation.model_fields.keys()


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"nmae": 1}, "nmae", "did you mean `name`"),
        ({"name": "a b"}, "name", "is not a name"),
        ({"name": "ref_1"}, "name", "choose another"),
        ({"evaluations": []}, "evaluations", "at least 1"),
        ({"evaluations": [{"step": 1}]}, "evaluations[0].eval_loss", "is required"),
        (
            {"evaluations": [{"step": 1, "eval_lss": 2}]},
            "evaluations[0].eval_lss",
            "did you mean `eval_loss`",
        ),
        (
            {"evaluations": [{"step": -1, "eval_loss": 2}]},
            "evaluations[0].step",
            "greater than or equal to 0",
        ),
        ({"evaluations": [{"step": 1, "eval_loss": "NaN"}]}, "evaluations", "no eval loss is finite"),
        (
            {"evaluations": [{"step": s, "eval_loss": 2} for s in (1, 3, 2)]},
            "evaluations[2]",
            "step 2 follows step 3",
        ),
        ({"train_loss": [[1, 2.0], [1, 2.1]]}, "train_loss[1]", "step 1 follows step 1"),
        ({"identity": {"horizon_step": 0}}, "identity.horizon_step", "greater than or equal to 1"),
        ({"identity": {"tokeniser": "x"}}, "identity.tokeniser", "did you mean `tokenizer`"),
    ],
)
def test_a_wrong_document_names_the_field_and_the_fix(
    changes: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(Invalid) as refused:
        parse_reference(SOUND | changes)
    assert (field, True) in [(each.field, message in each.message) for each in refused.value.errors]


def test_what_is_not_finite_is_a_string_in_json_and_a_number_in_the_rules() -> None:
    document = parse_reference(
        SOUND | {"evaluations": [{"step": 1, "eval_loss": 2}, {"step": 2, "eval_loss": "NaN"}]}
    )
    assert isinstance(document, ReferenceDocument)
    written = as_json(document)["evaluations"]
    assert written == [
        {"step": 1, "eval_loss": 2.0},
        {"step": 2, "eval_loss": "NaN"},
    ]
    assert isinstance(written, list)
    assert math.isnan(full_evaluation(written[1]).eval_loss)  # type: ignore[arg-type]  # an object


def test_an_evaluation_is_filled_with_what_is_unknown() -> None:
    filled = full_evaluation({"step": 10, "eval_loss": 2.0, "tokens": 100, "aux_loss": None})
    assert (filled.step, filled.tokens, filled.perplexity) == (10, 100, pytest.approx(math.exp(2)))
    assert math.isnan(filled.train_loss)
    assert math.isnan(filled.tokens_per_second)
    assert full_evaluation({"step": 10, "eval_loss": 1000.0}).perplexity == math.inf


def test_tokens_come_from_the_step_where_a_file_has_none() -> None:
    given = [{"step": 10, "eval_loss": 2.0}, {"step": 20, "eval_loss": 2.0, "tokens": 5}]
    assert [e.get("tokens") for e in with_tokens(given, 100)] == [1000, 5]
    assert with_tokens(given, None) == given


def test_tokens_per_step_come_from_the_tokens_where_they_agree() -> None:
    even = [{"step": 10, "tokens": 1000}, {"step": 20, "tokens": 2000}]
    assert with_tokens_per_step({}, even) == {"tokens_per_step": 100}
    assert with_tokens_per_step({"tokens_per_step": 7}, even) == {"tokens_per_step": 7}
    assert with_tokens_per_step({}, [*even, {"step": 30, "tokens": 1}]) == {}
    assert with_tokens_per_step({}, [{"step": 30, "tokens": 1}]) == {}
    assert with_tokens_per_step({}, [{"step": 30}]) == {}


KNOWN = {name: getattr(IDENTITY, name) for name in NEEDED}


def test_what_a_comparison_needs_makes_an_identity_and_the_rest_stays_unknown() -> None:
    identity = full_identity(KNOWN)
    assert identity is not None
    assert (identity.parameters_total, identity.device) == (0, "")
    assert math.isnan(identity.flops_per_token)
    assert comparable(curve({}), replace(curve({}), identity=identity)) is None
    assert full_identity(as_json(IDENTITY)) == IDENTITY


@pytest.mark.parametrize("name", NEEDED)
def test_a_comparison_without_it_is_invalid_and_says_what_nobody_recorded(name: str) -> None:
    known = {key: value for key, value in KNOWN.items() if key != name}
    reference = replace(
        curve({500: 4.0}, "dense"), identity=full_identity(known), unrecorded=unrecorded(known)
    )
    reason = f"the reference dense has no recorded {name.replace('_', ' ')}"
    assert comparable(curve({}), reference) == reason
    assert comparable(reference, curve({})) == reason
    found = match(curve({500: 3.9}), upto(reference, 500), 500)
    assert isinstance(found, Unmatched)
    assert found.invalid
    assert reason in found.reason


def test_all_that_is_missing_is_listed() -> None:
    reference = replace(curve({}, "dense"), identity=None, unrecorded=unrecorded({"horizon_step": 5}))
    assert str(comparable(curve({}), reference)).endswith(
        "has no recorded evaluation set, tokenizer, schedule family and tokens per step"
    )
