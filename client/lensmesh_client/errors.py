"""What a mesh refuses with, as exceptions: a class for each type of its error table, and what a client adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A rule that a field breaks: the field's dotted path, what is wrong, and the rule's name."""

    field: str
    message: str
    rule: str


class LensmeshError(Exception):
    """A refusal, or no answer at all.

    Attributes:
        type: the error's type in the mesh's table, such as "not_found".
        message: a sentence for people.
        violations: the fields that break a rule, all of them.
        details: what else the mesh says of it.
        retryable: whether the same request may succeed later.
        retry_after_s: seconds that the mesh asks to wait before.
    """

    # Of the class; an error of a type that this client does not know has its own.
    TYPE: ClassVar[str] = ""
    RETRYABLE: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        type: str = "",
        violations: Sequence[FieldViolation] = (),
        details: Mapping[str, object] | None = None,
        retryable: bool | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.type = type or self.TYPE
        self.violations = tuple(violations)
        self.details = dict(details or {})
        self.retryable = self.RETRYABLE if retryable is None else retryable
        self.retry_after_s = retry_after_s


class BadRequest(LensmeshError):
    """The request can't be read at all."""

    TYPE = "bad_request"


class ValidationFailed(LensmeshError):
    """Fields break rules; `violations` names them."""

    TYPE = "validation_error"


class Unauthenticated(LensmeshError):
    """No key, or one that is not known, is disabled or has expired."""

    TYPE = "unauthenticated"


class PermissionDenied(LensmeshError):
    """The key may not do this."""

    TYPE = "permission_denied"


class NotFound(LensmeshError):
    """It does not exist in this namespace."""

    TYPE = "not_found"


class MethodNotAllowed(LensmeshError):
    """The path does not take this method."""

    TYPE = "method_not_allowed"


class Conflict(LensmeshError):
    """It exists already, or changed meanwhile."""

    TYPE = "conflict"


class StillRunning(LensmeshError):
    """The same request with the same Idempotency-Key is being carried out."""

    TYPE, RETRYABLE = "still_running", True


class PayloadTooLarge(LensmeshError):
    """The request or a file is too large."""

    TYPE = "payload_too_large"


class ResourceExhausted(LensmeshError):
    """Too much at once: a queue or the key's limit is full."""

    TYPE, RETRYABLE = "resource_exhausted", True


class QuotaExceeded(LensmeshError):
    """The namespace holds as much as it may."""

    TYPE = "quota_exceeded"


class Unimplemented(LensmeshError):
    """Known and not offered, such as video."""

    TYPE = "not_implemented"


class Unavailable(LensmeshError):
    """Something that the mesh needs for this does not answer now."""

    TYPE, RETRYABLE = "unavailable", True


class FetchRefused(LensmeshError):
    """The mesh does not fetch from this address."""

    TYPE = "fetch_refused"


class FetchFailed(LensmeshError):
    """The URL answered, but not with a file."""

    TYPE = "fetch_failed"


class FetchUnavailable(LensmeshError):
    """The URL's host does not answer now."""

    TYPE, RETRYABLE = "fetch_unavailable", True


class FileTooLarge(LensmeshError):
    """The file behind a URL is too large."""

    TYPE = "file_too_large"


class UnsupportedMediaType(LensmeshError):
    """The file is not an image of a supported type."""

    TYPE = "unsupported_media_type"


class BrokenImage(LensmeshError):
    """The file can't be decoded."""

    TYPE = "broken_image"


class DuplicateAsset(LensmeshError):
    """The collection has the same file already."""

    TYPE = "duplicate_asset"


class ModelRefused(LensmeshError):
    """A model does not take this input."""

    TYPE = "model_refused"


class ModelFailed(LensmeshError):
    """A model failed on this input."""

    TYPE, RETRYABLE = "model_failed", True


class InternalError(LensmeshError):
    """A fault of the mesh."""

    TYPE = "internal_error"


class Unreachable(LensmeshError):
    """Nobody answered: no connection, a connection that broke, or no answer in time."""

    TYPE, RETRYABLE = "unreachable", True


class TimedOut(LensmeshError):
    """What was waited for did not come in time."""

    TYPE = "timed_out"


# The client's own; the others are the mesh's table.
OWN = (Unreachable, TimedOut)
TABLE: dict[str, type[LensmeshError]] = {each.TYPE: each for each in LensmeshError.__subclasses__()}


def error_of(
    type: str,
    message: str,
    *,
    violations: Sequence[FieldViolation] = (),
    details: Mapping[str, object] | None = None,
    retry_after_s: float | None = None,
) -> LensmeshError:
    """The error of a type; of one that this client does not know, retryable if the mesh says when to try again."""
    known = TABLE.get(type, LensmeshError)
    retryable = known.RETRYABLE if type in TABLE else retry_after_s is not None
    return known(
        message, type=type, violations=violations, details=details, retryable=retryable, retry_after_s=retry_after_s
    )
