"""REST requests and answers as httpx has them, the same for both kinds of clients; nothing is sent here."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from lensmesh_client.errors import FieldViolation, LensmeshError, Unreachable, error_of

# Seconds of silence after which a stream is taken for dead; the mesh sends a comment every 15.
SILENCE_S = 45.0
# What a proxy before the mesh says in its own words.
_PROXY_TYPES = {429: "resource_exhausted", 502: "unavailable", 503: "unavailable", 504: "unavailable"}


def headers(api_key: str, namespace: str) -> dict[str, str]:
    """The headers of every request; an empty namespace: the key's own."""
    scope = {"X-Namespace": namespace} if namespace else {}
    return {"Authorization": f"Bearer {api_key}", **scope}


def key_headers(keyed: bool) -> dict[str, str]:
    """A key of this request's own, which stays the same when it is sent again."""
    return {"Idempotency-Key": str(uuid.uuid4())} if keyed else {}


def given(values: Mapping[str, object] | None) -> dict[str, Any]:
    """The values that are not None."""
    return {name: value for name, value in (values or {}).items() if value is not None}


def arguments(
    query: Mapping[str, object] | None,
    body: Mapping[str, object] | None,
    content: bytes | None,
    file: bytes | Path | None,
    opened: ExitStack,
) -> dict[str, Any]:
    """What httpx is given beside the method and path. A file by its path is opened anew for each attempt."""
    made: dict[str, Any] = {"params": given(query)}
    if file is not None:
        source = opened.enter_context(file.open("rb")) if isinstance(file, Path) else file
        name = file.name if isinstance(file, Path) else "file"
        return made | {"files": {"file": (name, source)}, "data": {"json": json.dumps(given(body))}}
    if content is not None:
        return made | {"content": content}
    return made if body is None else made | {"json": given(body)}


def answer(response: httpx.Response) -> Any:
    """The JSON of an answer that was read.

    Raises:
        LensmeshError: it is a refusal.
    """
    if response.is_success:
        return response.json()
    raise refusal(response)


def checks(response: httpx.Response) -> dict[str, str]:
    """What /readyz says, which answers 503 where something is missing.

    Raises:
        LensmeshError: somebody else answered.
    """
    try:
        return dict(response.json()["checks"])
    except (ValueError, KeyError, TypeError):
        raise refusal(response) from None


def refusal(response: httpx.Response) -> LensmeshError:
    """The error in an answer that was read."""
    wait = response.headers.get("retry-after", "")
    retry_after_s = float(wait) if wait.isdigit() else None
    try:
        body = response.json()
        error, detail = body["error"], body["detail"]
        violations = [
            FieldViolation(".".join(map(str, each["loc"][1:])), each["msg"], each["type"])
            for each in detail
            if "loc" in each
        ]
        return error_of(
            error["type"],
            error["message"],
            violations=violations,
            details=error["details"],
            retry_after_s=retry_after_s,
        )
    except (ValueError, KeyError, TypeError):
        kind = _PROXY_TYPES.get(response.status_code, f"http_{response.status_code}")
        text = f"{response.request.url} answered {response.status_code} in no shape of lensmesh's"
        return error_of(kind, text, retry_after_s=retry_after_s)


def unreachable(error: httpx.HTTPError | httpx.InvalidURL, url: str) -> Unreachable:
    """What httpx met instead of an answer."""
    return Unreachable(f"{url} does not answer: {error or type(error).__name__}")
