"""The one error table: each class states its gRPC code, HTTP status, public type and whether a retry may help.

Both doors and the task records read it; nothing else in the code maps an error to a code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import grpc


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One rule that a field breaks. `path` is its place in JSON, such as ("body", "percolate", "min_score")."""

    path: tuple[str | int, ...]
    message: str
    rule: str

    @classmethod
    def of(cls, dotted: str, message: str, rule: str) -> FieldViolation:
        """A violation in the body by its dotted path, in which numbers are places in lists."""
        parts = (int(part) if part.isdecimal() else part for part in dotted.split("."))
        return cls(("body", *parts), message, rule)

    @property
    def dotted(self) -> str:
        """The path without its first part, as gRPC's BadRequest names fields."""
        return ".".join(str(part) for part in self.path[1:])


class LensmeshError(Exception):
    """Something that a caller is told. `str(error)` is public: it never holds secrets or internals."""

    grpc_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    http_status: ClassVar[int] = 500
    type: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, details: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.details = details


class InternalError(LensmeshError):
    """A fault of ours; the log has the cause, the caller gets the id to ask for."""


class BadRequest(LensmeshError):
    """The request can't be read at all, such as a body that is not JSON."""

    grpc_code = grpc.StatusCode.INVALID_ARGUMENT
    http_status = 400
    type = "bad_request"


class InvalidArgument(LensmeshError):
    """One or more fields break a rule."""

    grpc_code = grpc.StatusCode.INVALID_ARGUMENT
    http_status = 422
    type = "validation_error"

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        super().__init__("; ".join(f"{v.dotted}: {v.message}" if v.dotted else v.message for v in violations))
        self.violations = tuple(violations)

    @classmethod
    def field(cls, path: str, message: str, rule: str) -> InvalidArgument:
        """One violation of a body field given by its dotted path."""
        return cls([FieldViolation.of(path, message, rule)])


class Unauthenticated(LensmeshError):
    """No key, or one that is not known."""

    grpc_code = grpc.StatusCode.UNAUTHENTICATED
    http_status = 401
    type = "unauthenticated"


class PermissionDenied(LensmeshError):
    """The key is known, but may not do this."""

    grpc_code = grpc.StatusCode.PERMISSION_DENIED
    http_status = 403
    type = "permission_denied"


class NotFound(LensmeshError):
    """What the request names does not exist in this namespace."""

    grpc_code = grpc.StatusCode.NOT_FOUND
    http_status = 404
    type = "not_found"


class MethodNotAllowed(LensmeshError):
    """The path exists, the method does not."""

    grpc_code = grpc.StatusCode.UNIMPLEMENTED
    http_status = 405
    type = "method_not_allowed"


class Conflict(LensmeshError):
    """What the request makes exists already, or changed meanwhile."""

    grpc_code = grpc.StatusCode.ALREADY_EXISTS
    http_status = 409
    type = "conflict"


class StillRunning(LensmeshError):
    """The same request with the same Idempotency-Key is being carried out at this moment."""

    grpc_code = grpc.StatusCode.ABORTED
    http_status = 409
    type = "still_running"
    retryable = True


class PayloadTooLarge(LensmeshError):
    """The request or a file exceeds a limit of bytes."""

    grpc_code = grpc.StatusCode.OUT_OF_RANGE
    http_status = 413
    type = "payload_too_large"


class ResourceExhausted(LensmeshError):
    """A queue or a quota is full; Retry-After says when to try again."""

    grpc_code = grpc.StatusCode.RESOURCE_EXHAUSTED
    http_status = 429
    type = "resource_exhausted"
    retryable = True


class QuotaExceeded(LensmeshError):
    """The namespace holds as much as it may; trying again does not help."""

    grpc_code = grpc.StatusCode.RESOURCE_EXHAUSTED
    http_status = 403
    type = "quota_exceeded"


class Unimplemented(LensmeshError):
    """Known and not offered, such as video."""

    grpc_code = grpc.StatusCode.UNIMPLEMENTED
    http_status = 501
    type = "not_implemented"


class Unavailable(LensmeshError):
    """Something that the request needs does not answer now."""

    grpc_code = grpc.StatusCode.UNAVAILABLE
    http_status = 503
    type = "unavailable"
    retryable = True


class FetchRefused(LensmeshError):
    """The address guard does not let this URL be fetched."""

    grpc_code = grpc.StatusCode.INVALID_ARGUMENT
    http_status = 422
    type = "fetch_refused"


class FetchFailed(LensmeshError):
    """The URL answered, but not with a file: a 4xx, too many redirects, not a known host."""

    grpc_code = grpc.StatusCode.INVALID_ARGUMENT
    http_status = 422
    type = "fetch_failed"


class FetchUnavailable(LensmeshError):
    """The URL's host does not answer now, or answered 5xx or 429; it may later."""

    grpc_code = grpc.StatusCode.UNAVAILABLE
    http_status = 503
    type = "fetch_unavailable"
    retryable = True


class FileTooLarge(LensmeshError):
    """The file behind a URL, or its pixels or frames, exceed a limit."""

    grpc_code = grpc.StatusCode.OUT_OF_RANGE
    http_status = 413
    type = "file_too_large"


class UnsupportedMediaType(LensmeshError):
    """The file is not an image of a supported type."""

    grpc_code = grpc.StatusCode.INVALID_ARGUMENT
    http_status = 422
    type = "unsupported_media_type"


class BrokenImage(LensmeshError):
    """The file claims to be an image and can't be decoded."""

    grpc_code = grpc.StatusCode.INVALID_ARGUMENT
    http_status = 422
    type = "broken_image"


class DuplicateAsset(LensmeshError):
    """The same file is already in this collection."""

    grpc_code = grpc.StatusCode.ALREADY_EXISTS
    http_status = 409
    type = "duplicate_asset"


class ModelRefused(LensmeshError):
    """A model does not take this input, or gives no usable answer to it, and would not if it were asked again."""

    grpc_code = grpc.StatusCode.FAILED_PRECONDITION
    http_status = 422
    type = "model_refused"


class ModelFailed(LensmeshError):
    """A model failed on this input; it may be broken and brought back."""

    grpc_code = grpc.StatusCode.INTERNAL
    http_status = 500
    type = "model_failed"
    retryable = True


def error_classes() -> dict[str, type[LensmeshError]]:
    """Every class of the table by its public type."""
    pending: list[type[LensmeshError]] = [LensmeshError]
    table: dict[str, type[LensmeshError]] = {}
    while pending:
        error_class = pending.pop()
        table[error_class.type] = error_class if error_class is not LensmeshError else InternalError
        pending.extend(error_class.__subclasses__())
    return table
