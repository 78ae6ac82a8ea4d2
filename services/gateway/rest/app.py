"""The REST application: the routes of the contracts, health, the description and its page, and errors for the rest."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway.config import GatewaySettings
from services.gateway.core import links
from services.gateway.core.core import Core
from services.gateway.rest.errors import error_response
from services.gateway.rest.openapi import describe
from services.gateway.rest.routes import guarded, routes
from services.mesh.errors import BadRequest, LensmeshError, MethodNotAllowed, NotFound, Unimplemented
from services.mesh.rpc import as_lensmesh_error
from services.mesh.service import Ping, ping_all

API_VERSION = "1.0.0"
# Normalised images are JPEG or PNG.
_PNG = b"\x89PNG"

_DOCS = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>lensmesh API</title>
<link rel="stylesheet" href="docs/static/swagger-ui.css"></head>
<body><div id="ui"></div>
<script src="docs/static/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "openapi.json", dom_id: "#ui", persistAuthorization: true})</script>
</body></html>
"""


def build_app(core: Core, pings: dict[str, Ping], settings: GatewaySettings) -> ASGIApp:
    """The application."""
    description = orjson.dumps(describe(core.operations, API_VERSION))

    async def healthcheck(request: Request) -> Response:
        return _json({"status": "OK"})

    async def readyz(request: Request) -> Response:
        state = await ping_all(pings)
        ready = not any(state.values())
        checks = {name: reason or "OK" for name, reason in state.items()}
        return _json({"status": "OK" if ready else "NOT READY", "checks": checks}, 200 if ready else 503)

    async def openapi(request: Request) -> Response:
        return Response(description, media_type="application/json")

    async def docs(request: Request) -> Response:
        return HTMLResponse(_DOCS)

    async def preview(request: Request) -> Response:
        given = request.query_params
        image = await core.links.follow(
            request.path_params["namespace_id"],
            request.path_params["asset_id"],
            given.get("expires", ""),
            given.get("signature", ""),
        )
        kind = "image/png" if image.startswith(_PNG) else "image/jpeg"
        # The link is the permission: only who has it may keep what it leads to.
        return Response(image, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})

    async def video(request: Request) -> Response:
        raise Unimplemented("video is not supported: index images by POST /index/images/url")

    fixed: list[BaseRoute] = [
        Route("/healthcheck", healthcheck),
        Route("/readyz", readyz),
        Route("/openapi.json", openapi),
        Route("/docs", docs),
        Route(f"{links.PATH}/{{namespace_id}}/{{asset_id}}", guarded("preview", preview)),
        Mount("/docs/static", StaticFiles(directory=_swagger_ui())),
    ]
    for prefix in ("/index", "/ingest", "/v1/index", "/v1/ingest"):
        fixed.append(Route(f"{prefix}/videos/{{rest:path}}", guarded("video", video), methods=["GET", "POST"]))
    operations = routes(core.operations, core.calls, settings)
    app = Starlette(
        routes=[*fixed, *operations],
        exception_handlers={HTTPException: _http_error, Exception: _any_error},
    )
    return _with_shortcuts(app, operations)


def _with_shortcuts(app: Starlette, operations: list[Route]) -> ASGIApp:
    """The application, in which an operation whose path is fixed is found at once.

    Starlette tries one path after the other, and puts five layers around each answer to catch errors that the
    operations' endpoints never raise.
    """
    known = {
        (method, route.path): route for route in operations for method in route.methods or () if "{" not in route.path
    }

    async def shortened(scope: Scope, receive: Receive, send: Send) -> None:
        route = known.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            await app(scope, receive, send)
        else:
            response = await route.endpoint(Request(scope, receive))
            await response(scope, receive, send)

    return shortened


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


async def _http_error(request: Request, error: Exception) -> Response:
    """What the router itself refuses, in the API's shape."""
    assert isinstance(error, HTTPException)
    known: LensmeshError = BadRequest(error.detail)
    if error.status_code == 404:
        known = NotFound(f"there is no {request.url.path}; the API is described at /docs")
    elif error.status_code == 405:
        known = MethodNotAllowed(f"{request.url.path} does not take {request.method}; the API is described at /docs")
    return error_response(known)


async def _any_error(request: Request, error: Exception) -> Response:
    return error_response(as_lensmesh_error(error, request.url.path))


def _swagger_ui() -> Path:
    spec = importlib.util.find_spec("swagger_ui")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "static"
