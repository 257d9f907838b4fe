"""The studio as a local web server: the page, frames and masks, the annotation's state, and steps that change it.

::

    GET  /                                      the page; /files/<name> its scripts and styles
    GET  /api/studio                            videos, and names to complete
    GET  /api/videos/<v>                        what stays: size, number of frames, areas of segments
    GET  /api/videos/<v>/state                  what steps have changed; its revision
    GET  /api/videos/<v>/frames/<t>             a frame, JPEG
    GET  /api/videos/<v>/masks/<t>/<version>    a mask, PNG; its values are ids as `merged` of the state explains
    GET  /api/videos/<v>/split/<t>/<s>/<k>      segment s of frame t in k parts, PNG
    GET  /api/events                            server-sent: a line whenever something changes
    POST /api/videos/<v>/<step>                 a step, with the revision that it was made from
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from zsvss import viz
from zsvss.results.exports import FORMATS
from zsvss.results.id_images import write_ids
from zsvss.studio.access import BodyTooLargeError, Guard
from zsvss.studio.actions import ACTIONS
from zsvss.studio.background_work import MOST_PARTS, propagation, split, split_preview
from zsvss.studio.frames import FramesError
from zsvss.studio.model import Model
from zsvss.studio.open_video import Desk
from zsvss.studio.request_fields import FieldError, Fields
from zsvss.studio.session import ConflictError, LockedError

PAGE = Path(__file__).parent / "page"
REPORT_STYLE = Path(viz.__file__).parent / "templates" / "report.css"
SHARED_SCRIPT = REPORT_STYLE.parent / "script" / "dom.js"
_EXPORTS = "export { $, $$, css, element };\n"
_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript"}
_SECONDS_BETWEEN_LOOKS = 0.1
_LARGEST = 2**31


@dataclass
class Studio:
    """What the server serves.

    Attributes:
        desks: the videos.
        model: the network.
        taxonomies: names to complete, by what they are from.
        closing: whether the server is to end.
    """

    desks: Sequence[Desk]
    model: Model
    taxonomies: Mapping[str, Sequence[str]]
    closing: Callable[[], bool] = lambda: False


def application(studio: Studio, token: str, port: int) -> Guard:
    """The server's application.

    Args:
        studio: what it serves.
        token: that requests must bring.
        port: of the server.
    """
    video = "/api/videos/{video:int}"
    answers: Mapping[str, Callable[[Studio, Request], Response]] = {
        "/": _page,
        "/files/{name}": _file,
        "/api/studio": _studio,
        video: lambda studio, request: JSONResponse(_desk(studio, request).facts()),
        f"{video}/state": lambda studio, request: JSONResponse(_desk(studio, request).now()),
        f"{video}/frames/{{frame:int}}": _frame,
        f"{video}/masks/{{frame:int}}/{{version}}": _mask,
        f"{video}/split/{{frame:int}}/{{segment:int}}/{{num:int}}": _split_preview,
    }
    routes = [Route(path, partial(_answer, studio, answer), methods=["GET"]) for path, answer in answers.items()]
    routes += [
        Route("/api/events", partial(_events, studio), methods=["GET"]),
        Route(f"{video}/{{step}}", partial(_step, studio), methods=["POST"]),
    ]
    return Guard(Starlette(routes=routes), token, port)


async def _answer(studio: Studio, answer: Callable[[Studio, Request], Response], request: Request) -> Response:
    """An answer that reads files, in a thread."""
    return await _told(lambda: run_in_threadpool(answer, studio, request))


async def _told(make: Callable[[], Awaitable[Response]]) -> Response:
    """An answer, or what was wrong in one line."""
    try:
        return await make()
    except FieldError as error:
        return PlainTextResponse(str(error), 400)
    except (LookupError, FileNotFoundError) as error:
        return PlainTextResponse(str(error).strip("'"), 404)
    except ConflictError as error:
        return PlainTextResponse(str(error), 409)
    except BodyTooLargeError as error:
        return PlainTextResponse(str(error), 413)
    except LockedError as error:
        return PlainTextResponse(str(error), 423)
    except (ValueError, OSError, FramesError) as error:
        return PlainTextResponse(str(error), 422)


def _page(studio: Studio, request: Request) -> Response:
    return FileResponse(PAGE / "index.html", media_type="text/html")


def _file(studio: Studio, request: Request) -> Response:
    """One of the page's own files, which are all in one folder, or one that it shares with the report."""
    name = request.path_params["name"]
    if name == SHARED_SCRIPT.name:
        return Response(SHARED_SCRIPT.read_text(encoding="utf-8") + _EXPORTS, media_type=_TYPES[".js"])
    known = {path.name: path for path in (*PAGE.iterdir(), REPORT_STYLE) if path.suffix in _TYPES}
    if name not in known:
        raise LookupError("there is no such page")
    return FileResponse(known[name], media_type=_TYPES[known[name].suffix])


def _studio(studio: Studio, request: Request) -> Response:
    if not any(desk.is_live for desk in studio.desks):
        studio.model.submit(studio.model.ready)  # so that the first propagation need not wait for it
    formats = {name: says for name, (_, _, says) in FORMATS.items()}
    names = [desk.name for desk in studio.desks]
    return JSONResponse({"videos": names, "taxonomies": studio.taxonomies, "formats": formats})


def _desk(studio: Studio, request: Request) -> Desk:
    number: int = request.path_params["video"]
    if number >= len(studio.desks):
        raise LookupError(f"there is no video {number}")
    return studio.desks[number]


def _number(desk: Desk, request: Request) -> int:
    number: int = request.path_params["frame"]
    if number >= desk.num_frames():
        raise LookupError(f"there is no frame {number}")
    return number


def _frame(studio: Studio, request: Request) -> Response:
    desk = _desk(studio, request)
    return Response(desk.jpeg(_number(desk, request)), media_type="image/jpeg")


def _mask(studio: Studio, request: Request) -> Response:
    desk = _desk(studio, request)
    return Response(desk.mask(_number(desk, request), request.path_params["version"]), media_type="image/png")


def _split_preview(studio: Studio, request: Request) -> Response:
    desk = _desk(studio, request)
    number, segment = _number(desk, request), request.path_params["segment"]
    num = Fields(request.path_params).integer("num", 2, MOST_PARTS)
    parts_HW = studio.model.submit(split_preview, desk.session(), studio.model, number, segment, num).result()
    content = BytesIO()
    write_ids(content, parts_HW, np.zeros((num + 1, 3), np.uint8))  # the page has its own colours
    return Response(content.getvalue(), media_type="image/png")


async def _step(studio: Studio, request: Request) -> Response:
    """Take a step; answers with the new state."""

    async def answer() -> Response:
        desk = _desk(studio, request)
        body = await request.body()
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return PlainTextResponse("a step is sent as application/json", 415)
        try:
            fields = Fields(json.loads(body))
        except (ValueError, RecursionError) as error:
            if isinstance(error, FieldError):
                raise
            raise FieldError("the request is no JSON") from error
        said = await run_in_threadpool(_take, studio, desk, request.path_params["step"], fields)
        return JSONResponse({"said": said, "state": await run_in_threadpool(desk.now)})

    return await _told(answer)


def _take(studio: Studio, desk: Desk, step: str, fields: Fields) -> Any:
    """Do what a request wants; returns what to tell beside the new state."""
    if step == "stop":
        if desk.work is not None:
            desk.work.stopping.set()
        return None
    session, revision = desk.session(), fields.integer("revision", 0, _LARGEST)
    last = session.original.num_frames - 1
    if step in ACTIONS:
        label, action = ACTIONS[step]
        session.perform(revision, label, lambda session: action(session, fields))
        if fields.has("frame"):
            studio.model.look_ahead(session.frames, fields.integer("frame", 0, last), last + 1)
    elif step == "undo":
        session.undo(revision)
    elif step == "redo":
        session.redo(revision)
    elif step == "propagate":
        number, backwards = fields.integer("frame", 0, last), fields.flag("backwards")
        desk.start(revision, lambda s: propagation(s, studio.model, number, backwards=backwards), studio.model)
    elif step == "split":
        number, segment = fields.integer("frame", 0, last), fields.integer("segment", 1, _LARGEST)
        num = fields.integer("num", 2, MOST_PARTS)
        desk.start(revision, lambda s: split(s, studio.model, number, segment, num), studio.model)
    elif step == "save":
        desk.save(revision)
    elif step == "score":
        return desk.score(revision)
    elif step == "export":
        return desk.export(revision, fields.chosen("format", FORMATS), with_frames=fields.flag("frames"))
    else:
        raise LookupError(f"there is no step {step!r}")
    return None


async def _events(studio: Studio, request: Request) -> Response:
    """A line of JSON whenever a video has something new: its number and what `Desk.pulse` says."""

    async def lines() -> AsyncIterator[str]:
        told: list[Any] = [None] * len(studio.desks)
        yield ": here\n\n"
        while not studio.closing():
            for number, desk in enumerate(studio.desks):
                with suppress(OSError, ValueError):
                    pulse = await run_in_threadpool(desk.pulse) if desk.is_live else desk.pulse()
                    if pulse != told[number]:
                        told[number] = pulse
                        yield f"data: {json.dumps({'video': number, 'pulse': pulse})}\n\n"
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)

    return StreamingResponse(lines(), media_type="text/event-stream")
