"""How a command ends: the exit codes, and the complaint that becomes one line on standard error."""

import sys
from typing import Final

COMPLETED: Final = 0
FAILED: Final = 1
USAGE: Final = 2
CANCELLED: Final = 3
UNREACHABLE: Final = 4
INTERRUPTED: Final = 130

EPILOG: Final = (
    "Exit codes: 0 completed; 1 failed, refused, or a verification found a fault; 2 wrong usage; 3 the run was "
    "cancelled; 4 the server cannot be reached or does not know the key; 130 interrupted or detached (the run goes on)."
)


class Complaint(Exception):
    """What a person is told, in one line, when a command cannot do what was asked."""

    def __init__(self, message: str, code: int = FAILED, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


def complain(message: object) -> None:
    """One line on standard error, whatever the message holds."""
    print("runwire:", " ".join(str(message).split()), file=sys.stderr, flush=True)
