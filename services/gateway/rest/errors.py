"""Errors in the API's JSON shapes; which status an error has, the error table says."""

from __future__ import annotations

import math
from typing import Any

import orjson
from starlette.responses import Response

from services.mesh.errors import InvalidArgument, LensmeshError


def error_body(error: LensmeshError) -> dict[str, Any]:
    """The body: FastAPI's `detail` list and the service's own `error` object in one."""
    body: dict[str, Any] = {
        "success": False,
        "status": error.http_status,
        "error": {"message": error.message, "type": error.type, "details": error.details},
        "detail": [{"msg": error.message}],
    }
    if isinstance(error, InvalidArgument):
        body["detail"] = [{"loc": list(v.path), "msg": v.message, "type": v.rule} for v in error.violations]
    elif error.http_status == 422:
        # What a request names can't be used, such as an image behind a URL: clients read these three keys of every 422.
        body["detail"] = [{"loc": ["body"], "msg": error.message, "type": error.type}]
    return body


def error_response(error: LensmeshError) -> Response:
    """The response."""
    headers = {}
    if error.http_status in (429, 503):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s or 1))
    if error.http_status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(orjson.dumps(error_body(error)), error.http_status, headers, "application/json")
