"""Every exception and exit code of fatpatch, on one screen.

Only a ``FatpatchError`` leaves the library; only ``fatpatch.commands`` turns one into an exit code.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_OK = 0
EXIT_INTERRUPTED = 130

EXIT_CODES: tuple[tuple[int, str], ...] = (
    (0, "done, nothing wrong"),
    (1, "findings, differences, or a verdict that fails"),
    (2, "usage error"),
    (3, "cannot read the input or write the output"),
    (4, "malformed input (what could be read is still shown)"),
    (5, "well-formed but unsupported"),
    (6, "edit refused"),
    (7, "result failed verification, nothing written"),
    (8, "an external tool is missing"),
    (70, "internal error"),
    (130, "interrupted"),
)


class FatpatchError(Exception):
    """Base of all errors: what happened, where, and what to do next."""

    exit_code: ClassVar[int] = 70

    def __init__(
        self, message: str, *, locator: str = "", offset: int | None = None, field: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.locator = locator
        self.offset = offset
        self.field = field
        self.hint = hint

    def speak_of(self, path: str, shown: str) -> None:
        """Say where by the name that the user gave, instead of the path that was read."""
        self.locator = self.locator.replace(path, shown) if path and path in self.locator else self.locator or shown

    def __str__(self) -> str:
        where = f"{self.locator}: " if self.locator else ""
        at = "" if self.offset is None else f" at {self.offset:#x}"
        return f"{where}{self.message}{at}"


class InputError(FatpatchError):
    """The input cannot be opened or read."""

    exit_code = 3


class UnauthorizedError(InputError):
    """A server wants to know who asks; ``challenge`` is how (RFC 9110, section 11.6.1)."""

    challenge: str = ""


class FormatError(FatpatchError):
    """The bytes break the format they claim to follow."""

    exit_code = 4


class TruncatedError(FormatError):
    """A structure reaches past the end of the bytes that hold it."""


class LimitError(FormatError):
    """A limit on size, count or depth was reached (hostile or absurd input)."""


class UnsupportedError(FatpatchError):
    """Well-formed, but not implemented."""

    exit_code = 5


class EditError(FatpatchError):
    """An edit or a write was refused before anything was changed."""

    exit_code = 6


class ReferencedError(EditError):
    """Something leads into bytes that an edit would move or take away."""


class VerifyError(FatpatchError):
    """A result failed its check; nothing was written under the final name."""

    exit_code = 7


class ToolError(FatpatchError):
    """An external tool is missing or failed."""

    exit_code = 8


class InternalError(FatpatchError):
    """A bug in fatpatch."""

    exit_code = 70
