"""What a person posts to replay or calibrate: policies, a history of curves, a plan, how many sets."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.spec_errors import Models, field_error, mistakes
from orchestrator.protocol.wire import MAX_INTEGER, JsonObject

MOST_SETS = 10_000
MOST_CURVES = 20_000
MOST_POINTS = 10_000

Text = Annotated[str, Field(min_length=1, max_length=200)]
Step = Annotated[int, Field(ge=0, le=10**9, strict=True)]
Steps = Annotated[int, Field(ge=1, le=10**9, strict=True)]
PolicySource = str | JsonObject


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PostedCurve(Document):
    """One run of one config: its eval losses by step, in nats."""

    config: Text
    run: Text = "0"
    points: Annotated[list[tuple[Step, float]], Field(max_length=MOST_POINTS)]
    horizon_steps: Steps | None = None
    """What its schedule was sized to; the last stage's step where nothing is said."""
    seconds_per_step: Annotated[float, Field(gt=0)] | None = None


class History(Document):
    """Finished experiments of the service, or curves posted with the question."""

    experiments: Annotated[list[Text], Field(max_length=100)] = []
    curves: Annotated[list[PostedCurve], Field(max_length=MOST_CURVES)] = []
    horizon_exchange: float | None = None
    """Nats that a step of the horizon is worth: by it, runs of other horizons are moved to the last stage."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if bool(self.experiments) == bool(self.curves):
            raise Invalid([FieldError("history", "give either `experiments` or `curves`, and at least one")])
        problems = [problem for i, curve in enumerate(self.curves) for problem in _curve_problems(i, curve)]
        problems += _twice(self.curves)
        if self.horizon_exchange is not None and not self.curves:
            message = "is for posted curves: the runs of experiments are compared at their own horizon"
            problems.append(FieldError("history.horizon_exchange", message))
        if problems:
            raise Invalid(problems)
        return self


class Gate(Document):
    """What a gate lets through: the cap, and who is eligible."""

    best: Annotated[int, Field(ge=1, le=1000, strict=True)] = 1000
    eligible: Literal["policy", "all"] = "policy"
    if_none: Literal["no_winner", "probation"] = "no_winner"


class Backtest(Document):
    """One question: what would these policies have done with sets drawn from this history?"""

    policy: PolicySource
    against: Annotated[list[PolicySource], Field(max_length=50)] = ["run-all"]
    history: History
    stages: Annotated[list[Steps], Field(min_length=1, max_length=16)] | None = None
    """The step of each gate, the horizon last; those of the experiments where they agree."""
    promote: Annotated[list[Gate], Field(max_length=16)] | None = None
    """One for each stage but the last; no cap where nothing is said."""
    eval_every: Steps | None = None
    sets: Annotated[int, Field(ge=1, le=MOST_SETS, strict=True)] = 1000
    size: Annotated[tuple[Steps, Steps], Field()] | None = None
    """The smallest and the largest set, the control counted; 8 to 16, or as many configs as there are."""
    seed: Annotated[int, Field(ge=0, le=MAX_INTEGER, strict=True)] = 0
    control: Text | None = None
    """A config; the experiment's own, else the first of each set, where nothing is said."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [*_stage_problems(self.stages or []), *_size_problems(self.size)]
        gates = len(self.stages) - 1 if self.stages else None
        if self.promote is not None and gates is not None and len(self.promote) != gates:
            message = f"{len(self.promote)} rules for {gates} gates: write one for each stage but the last"
            problems.append(FieldError("promote", message))
        if problems:
            raise Invalid(problems)
        return self


class Calibration(Document):
    """One question: how large is seed noise in this history, and what are a policy's margins beside it?"""

    history: History
    policy: PolicySource | None = None
    steps: Annotated[list[Steps], Field(min_length=1, max_length=200)] | None = None
    """Where noise is measured; a few steps between the first and the last where nothing is said."""


D = TypeVar("D", bound=Document)
MODELS: Models = {"history": History, "curves": PostedCurve, "promote": Gate}


def parse(document: JsonObject, model: type[D]) -> D:
    """The question in `document`. Raises `Invalid` with every field that is wrong, and how to mend it."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise Invalid([_finite(item, {**MODELS, "": model}) for item in mistakes(error)]) from None


def _finite(item: dict[str, object], models: Models) -> FieldError:
    found = field_error(item, models)
    if item["type"] != "finite_number" or not found.field.startswith("history"):
        return found
    fix = "is not a finite number: end the curve before it, and the replay asks for nothing past that"
    return FieldError(found.field, fix)


def _curve_problems(index: int, curve: PostedCurve) -> Iterable[FieldError]:
    field = f"history.curves[{index}].points"
    if len(curve.points) < 2:
        message = f"a curve of {len(curve.points)} points ({_called(curve)}): give two at least"
        yield FieldError(field, message)
    for place, ((step, _), (following, _)) in enumerate(pairwise(curve.points)):
        if following <= step:
            how = (
                f"step {step} is there twice"
                if following == step
                else f"from step {step} back to {following}"
            )
            message = f"{how} ({_called(curve)}): give each step once, ascending"
            yield FieldError(f"{field}[{place + 1}]", message)
            return


def _called(curve: PostedCurve) -> str:
    return f"config {curve.config}, run {curve.run}"


def _twice(curves: Sequence[PostedCurve]) -> Iterable[FieldError]:
    seen: set[tuple[str, str]] = set()
    for index, curve in enumerate(curves):
        if (curve.config, curve.run) in seen:
            message = f"config `{curve.config}` has a run `{curve.run}` already: give each run its own name"
            yield FieldError(f"history.curves[{index}].run", message)
        seen.add((curve.config, curve.run))


def _stage_problems(stages: Sequence[int]) -> Iterable[FieldError]:
    for index, (before, after) in enumerate(pairwise(stages), 1):
        if after <= before:
            yield FieldError(f"stages[{index}]", f"{after} must be above the stage before ({before})")


def _size_problems(size: tuple[int, int] | None) -> Iterable[FieldError]:
    if size is not None and size[0] < 2:
        yield FieldError("size[0]", "a set needs two configs at least: a control and a variant")
    if size is not None and size[1] < size[0]:
        yield FieldError("size[1]", f"{size[1]} is below the smallest set ({size[0]}): turn them round")
