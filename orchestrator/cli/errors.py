"""What ends a command early, with its exit code. The sentence is written for the person at the terminal.

CliError
├── Refused       1  the service said no
│   └── Unknown   1  nothing goes by that name
├── DemoFailed    1
├── BadUsage      2
└── OutOfReach    3
"""


class CliError(Exception):
    """Something went wrong; the lines say what, and what to do."""

    exit_code = 1

    def __init__(self, *lines: str) -> None:
        self.lines = lines
        super().__init__("\n".join(lines))


class Refused(CliError):
    """The service said no. `status` is the HTTP status, 0 where none was involved."""

    def __init__(self, *lines: str, status: int = 0) -> None:
        self.status = status
        super().__init__(*lines)

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.status >= 500


class Unknown(Refused):
    """Nothing goes by that name."""


class DemoFailed(CliError):
    """The demo could not do what it shows."""


class BadUsage(CliError):
    """The command cannot be understood as written."""

    exit_code = 2


class OutOfReach(CliError):
    """Nobody answers at the address, or not the service."""

    exit_code = 3
