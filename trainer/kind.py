"""What the check of a trainer kind is made with. No tensor library: the service calls it."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.protocol.kind import ConfigProblem
from orchestrator.protocol.wire import JsonObject

Model = TypeVar("Model", bound=BaseModel)


def parsed(model: type[Model], config: JsonObject) -> Model:
    """`config` as `model`, defaults filled in. Raises `ConfigProblem` with every field that does not fit.

    Let the model forbid extra fields, so that a misspelt one is refused and not ignored.
    """
    try:
        return model.model_validate(config)
    except ValidationError as error:
        raise ConfigProblem([_explain(one, model) for one in error.errors()]) from None


def _explain(error: ErrorDetails, model: type[BaseModel]) -> tuple[str, str]:
    field = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return field, f"unknown setting: remove it; known are {', '.join(model.model_fields)}"
    if error["type"] == "missing":
        return field, "missing: it has no default, give it a value"
    return field, f"{error['msg'][0].lower()}{error['msg'][1:]} (got {str(error['input'])[:60]!r})"
