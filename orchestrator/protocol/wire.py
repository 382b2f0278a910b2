"""What every wire model shares: strict keys, bounded integers, floats that may be not finite."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

MAX_INTEGER = 2**53 - 1  # the largest integer that every JSON reader keeps exact

Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
"""A step, a number of tokens, a number of bytes."""

Ordinal = Annotated[int, Field(ge=1, le=MAX_INTEGER)]
"""An attempt number, an epoch, a sequence number: counted from 1."""

JsonObject = dict[str, JsonValue]


class WireModel(BaseModel):
    """A frozen message. Unknown keys are refused; NaN and infinities travel as strings."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, ser_json_inf_nan="strings", protected_namespaces=()
    )
