"""Every error that a caller can cause or meet. The docstring is the title; the status code is on the class.

AssayError
├── NotAllowed            401
├── Missing               404
├── Conflict              409
│   ├── StaleEpoch        409
│   └── IllegalTransition 409
├── Invalid               422  (holds the fields)
├── TooMany               429
├── NotLeading            503
└── Busy                  503
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class FieldError:
    """One field that is wrong: its dotted path, and a message that says how to mend it."""

    field: str
    message: str


class AssayError(Exception):
    """Something went wrong."""

    status = 500
    code = "error"

    def __init__(self, detail: str = "") -> None:
        self.detail = detail
        super().__init__(detail or self.title)

    @property
    def title(self) -> str:
        return (type(self).__doc__ or "").splitlines()[0].rstrip(".")


class NotAllowed(AssayError):
    """A valid token is needed."""

    status = 401
    code = "not_allowed"


class Missing(AssayError):
    """There is no such thing."""

    status = 404
    code = "missing"


class Conflict(AssayError):
    """That contradicts what is already recorded."""

    status = 409
    code = "conflict"


class StaleEpoch(Conflict):
    """Another attempt holds the lease of this run."""

    code = "stale_epoch"


class IllegalTransition(Conflict):
    """That status cannot follow the present one."""

    code = "illegal_transition"


class Invalid(AssayError):
    """Some fields are not valid."""

    status = 422
    code = "invalid"

    def __init__(self, errors: list[FieldError]) -> None:
        self.errors = errors
        super().__init__("; ".join(f"{error.field}: {error.message}" for error in errors))


class TooMany(AssayError):
    """More waits to be written than the service takes at once; try again shortly."""

    status = 429
    code = "too_many"


class Busy(AssayError):
    """The service cannot take this now; try again shortly."""

    status = 503
    code = "busy"


class NotLeading(AssayError):
    """Another service holds the lead, and this one may not act on its plan."""

    status = 503
    code = "not_leading"
