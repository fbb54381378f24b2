"""The web app: its routes, and how an error becomes an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

from glassgpt.config import from_dict, parse_json_as
from glassgpt.errors import UserError
from glassgpt.server.guard import Access, Guard, Json, TooLarge, refuse
from glassgpt.server.library import Library, UnknownRun, card_fields
from glassgpt.server.live import Followed, Mark, Watched, follow
from glassgpt.server.pages import VIEWS, Pages
from glassgpt.server.references import ReferenceBook
from glassgpt.server.shelf import Shelf
from glassgpt.server.views.embedding import look_at_embedding
from glassgpt.server.views.heads import list_heads
from glassgpt.server.views.inside import (
    Question,
    TooLong,
    look_ahead,
    look_at_head,
    look_inside,
    look_through_lens,
)
from glassgpt.server.views.ladder import describe_ladder
from glassgpt.server.views.loss import look_at_losses
from glassgpt.server.views.neurons import NeuronBook
from glassgpt.server.views.pair import look_inside_pair
from glassgpt.server.views.runs import pack_metrics, run_details
from glassgpt.server.views.tokens import MergesQuestion, TokensQuestion, build_word, split_text
from glassgpt.server.wire import MEDIA_TYPE
from glassgpt.server.workbench import Bench, Busy, Gone, Workbench

if TYPE_CHECKING:
    from glassgpt.server.guard import App

STATUS: dict[type[UserError], int] = {UnknownRun: 404, TooLong: 413, Busy: 429}  # other errors of the user: 400
Q = TypeVar("Q", Question, TokensQuestion, MergesQuestion)
MOST_WATCHED = 50  # runs that one page may follow
MOST_LETTERS = 200_000  # of a text in a request


def build_app(library: Library, workbench: Workbench, access: Access) -> App:
    """The app with its guard, for an ASGI server."""
    pages = Pages()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _add_pages(app, pages)
    _add_runs(app, library)
    _add_tokens(app, Shelf(library, Path()))
    _add_inside(app, library, workbench)

    @app.exception_handler(UserError)
    async def _explain(_: Request, error: UserError) -> Response:
        status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 400)
        return refuse(status, str(error))

    @app.exception_handler(TooLarge)
    async def _too_large(_: Request, error: TooLarge) -> Response:
        return refuse(413, "the request is too large")

    @app.exception_handler(Gone)
    async def _gone(_: Request, error: Gone) -> Response:
        return Response(status_code=499)  # nobody reads it

    @app.exception_handler(HTTPException)
    async def _not_served(request: Request, error: HTTPException) -> Response:
        return refuse(error.status_code, f"{request.method} {request.url.path} is nothing that this server answers")

    return Guard(app, access, pages.policy)


def _add_pages(app: FastAPI, pages: Pages) -> None:
    async def page() -> Response:
        return Response(pages.index.data, media_type=pages.index.media_type)

    for path in ("", *VIEWS):
        app.get(f"/{path}")(page)

    @app.get("/assets/{name:path}")
    async def asset(name: str, request: Request) -> Response:
        found = pages.assets.get(name)
        if found is None:
            return refuse(404, f"there is no file {name}")
        headers = {"ETag": found.tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == found.tag:
            return Response(status_code=304, headers=headers)
        return Response(found.data, media_type=found.media_type, headers=headers)


def _add_runs(app: FastAPI, library: Library) -> None:
    @app.get("/api/runs")
    def runs() -> Response:
        return Json({"runs": [card_fields(card) for card in library.cards()]})

    # The id of a run that belongs to a climb has a slash. Routes are tried in order, so the shortest one comes last.
    @app.get("/api/runs/{id:path}/metrics")
    def metrics(id: str) -> Response:
        return Response(pack_metrics(library.find(id)), media_type=MEDIA_TYPE)

    references = ReferenceBook()

    @app.get("/api/runs/{id:path}/references")
    def references_of(id: str) -> Response:
        return Json(asdict(references.find(library.open(id)[0], library.find(id))))

    @app.get("/api/runs/{id:path}")
    def run(id: str) -> Response:
        return Json(run_details(library, id))

    @app.get("/api/ladder")
    def ladder() -> Response:
        return Json(describe_ladder(library))

    @app.get("/api/live")
    async def live(request: Request) -> Response:
        watched = _watched(request.query_params, library)
        events: AsyncIterator[bytes] = follow(watched, library.folders, request.is_disconnected)
        return StreamingResponse(events, media_type="text/event-stream")


def _watched(query: QueryParams, library: Library) -> list[Watched]:
    """The runs to follow, each from the marks up to which the page has its files; without them from the start.

    A run that is not there any more is left out: the stream says which runs there are.
    """
    ids = query.getlist("run")[:MOST_WATCHED]
    marks = (map(Mark.parse, chain(query.getlist(name), repeat(""))) for name in ("figures", "samples"))
    folders, found = library.folders(), []
    for id, figures, samples in zip(ids, *marks, strict=False):
        if (folder := folders.get(id)) is not None:
            files = Followed(folder / "metrics.jsonl", figures), Followed(folder / "samples.jsonl", samples)
            found.append(Watched(id, *files))
    return found


def _add_tokens(app: FastAPI, shelf: Shelf) -> None:
    @app.post("/api/tokens")
    async def tokens(request: Request) -> Response:
        question = await read_question(request, TokensQuestion)
        return Json(await asyncio.to_thread(split_text, shelf, question))

    @app.post("/api/merges")
    async def merges(request: Request) -> Response:
        question = await read_question(request, MergesQuestion)
        return Json(await asyncio.to_thread(build_word, shelf, question))


def _add_inside(app: FastAPI, library: Library, workbench: Workbench) -> None:
    def answer(path: str, work: Callable[[Bench, Question], bytes]) -> None:
        @app.post(path)
        async def compute(request: Request) -> Response:
            question = await read_question(request, Question)
            folder = library.find(question.run)
            packed = await workbench.compute(
                folder, question.checkpoint, lambda bench: work(bench, question), request.is_disconnected
            )
            return Response(packed, media_type=MEDIA_TYPE)

    answer("/api/inside", look_inside)
    answer("/api/pair", look_inside_pair)
    answer("/api/next", look_ahead)
    answer("/api/lens", look_through_lens)
    answer("/api/embedding", look_at_embedding)
    answer("/api/head", look_at_head)
    answer("/api/heads", list_heads)
    answer("/api/losses", look_at_losses)
    neurons = NeuronBook()
    answer("/api/neurons", neurons.list_neurons)
    answer("/api/neuron", neurons.look_at_neuron)


async def read_question(request: Request, kind: type[Q]) -> Q:
    """The body of a request. Raises UserError if it is not what the view asks for."""
    try:
        fields: dict[str, Any] = parse_json_as(dict[str, Any], await request.body())
    except ValueError as error:
        raise UserError(f"the request is not JSON: {error}") from None
    question = from_dict(kind, fields, where="request")
    for text in (question.text, getattr(question, "target", None) or ""):
        if len(text) > MOST_LETTERS:
            raise UserError(f"this text has {len(text):,} letters, and at most {MOST_LETTERS:,} are read")
    return question
