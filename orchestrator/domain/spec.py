"""The document a person submits. Immutable once accepted; identified by its hash."""

from pydantic import BaseModel, ValidationError

from orchestrator.domain.errors import Invalid
from orchestrator.domain.hashing import content_hash
from orchestrator.domain.spec_checks import problems_of
from orchestrator.domain.spec_errors import field_error, mistakes
from orchestrator.domain.spec_models import BestOf, Budget, ExperimentSpec, Promote, Resources, StageSpec
from orchestrator.protocol.wire import JsonObject

_MODELS: dict[str, type[BaseModel]] = {
    "": ExperimentSpec,
    "stages": StageSpec,
    "resources": Resources,
    "promote": Promote,
    "budget": Budget,
    "from": BestOf,
}


def parse_spec(document: JsonObject) -> ExperimentSpec:
    """The spec in `document`. Raises `Invalid` with every field that is wrong, and how to mend it."""
    try:
        spec = ExperimentSpec.model_validate(document)
    except ValidationError as error:
        found = [field_error(item, _MODELS) for item in mistakes(error)]
        raise Invalid(found) from None
    problems = problems_of(spec)
    if problems:
        raise Invalid(problems)
    return spec


def spec_hash(spec: ExperimentSpec) -> str:
    """What identifies an accepted spec: equal for documents that mean the same."""
    return content_hash(spec.model_dump(mode="json"))
