"""The application: its parts, its routes, its page, in one place."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from fastapi import Depends, FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from api import decisions, errors, health, metrics, policies, runs, service, workflows
from api.audit import verification
from api.callers import Caller
from api.errors import NotAllowed, Problem
from api.figures import ApiFigures
from api.fronts import events, poll, replay, websocket
from api.fronts.short import ShortPath
from api.fronts.waits import Waits
from api.middleware import Edge
from api.service import Who
from api.settings import ApiSettings

STATIC: Final = Path(__file__).parent / "web" / "static"
PAGE_PATH: Final = re.compile(r"/|(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+", re.ASCII)
PROBLEM: Final = {"$ref": "#/components/schemas/Problem"}
PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: {
        "description": description,
        "content": {"application/problem+json": {"schema": PROBLEM}},
    }
    for status, description in {
        400: "a parameter, header or cursor cannot be read",
        401: "no key, or an unknown one",
        403: "the role may not do this",
        404: "there is none, or it is somebody else's",
        406: "none of the accepted formats is served",
        409: "the run has moved on",
        422: "the body does not fit",
        429: "a limit is reached: `Retry-After` says when to come back",
        503: "the log cannot be reached",
    }.items()
}


class Page(StaticFiles):
    """The console's files; always asked for anew, so that a release shows at once."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response


async def officers_only(caller: Who) -> Caller:
    """The officer's desk is for officers."""
    if caller.role != "officer":
        raise NotAllowed("Only the role officer may use /v1/audit.")
    return caller


def create_app(settings: ApiSettings) -> FastAPI:
    """The API. Reads the policies now, so that a broken one stops the start."""
    loaded = policies.load(settings.policies, settings.workflows)
    waits, figures = Waits(settings.send_timeout_s), ApiFigures()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.opened(settings, loaded, waits, figures) as app.state.service:
            yield

    app = FastAPI(
        title="Runwire",
        summary="Runs long AI workflows and serves every event of every run, live, by polling and by replay.",
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        responses=PROBLEMS,
    )
    app.state.waits = waits
    app.state.figures = figures
    errors.install(app)
    for part in (runs, decisions, events, poll, websocket, workflows, health, metrics):
        app.include_router(part.router)
    for router in (replay.router, verification.router):
        app.include_router(router, dependencies=[Depends(officers_only)])
    app.router.default = _page()
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    app.add_middleware(ShortPath)
    app.add_middleware(Edge, body_bytes_max=settings.request_bytes_max, figures=figures)
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the shape of problems named once."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
    assert app.openapi_schema is not None
    return app.openapi_schema


def _page() -> Any:
    """What answers where no route does: the console's files. Not a mount, which would hide every 405."""
    files = Page(directory=STATIC, html=True) if STATIC.is_dir() else None

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            raise HTTPException(404)
        if files is not None and PAGE_PATH.fullmatch(scope["path"]):
            await files(scope, receive, send)
        elif files is None and scope["path"] == "/":
            hint = "Runwire's API is at /v1 and described at /openapi.json. This build has no page.\n"
            await PlainTextResponse(hint)(scope, receive, send)
        else:
            raise HTTPException(404)

    return page
