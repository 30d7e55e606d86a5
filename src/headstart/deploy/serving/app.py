"""The application: routes from requests to answers.

Shapes: K classes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headstart.core import registry
from headstart.deploy import contract, folder, mates
from headstart.deploy.folder import Golden
from headstart.deploy.predictor import Predictor
from headstart.deploy.serving import asking, page
from headstart.deploy.serving.asking import Question
from headstart.deploy.serving.batching import Batcher, Problem
from headstart.deploy.serving.facts import Facts
from headstart.deploy.serving.guard import Guard
from headstart.deploy.serving.limits import Limits, Refusal
from headstart.deploy.serving.metrics import CONTENT_TYPE, Metrics

FREE = 65536  # bytes of a body that anyone may send, however many are sending


class Service:
    """One model behind the routes; ``app`` is the ASGI application.

    Args:
        names: that clients may call the server by, besides ``localhost`` and addresses.
    """

    def __init__(self, predictor: Predictor, limits: Limits | None = None, *, names: Collection[str] = ()) -> None:
        self.predictor, self.limits = predictor, limits or Limits()
        self.modality = registry.find(contract.MODALITIES, predictor.modality)
        self.metrics = Metrics()
        spec, golden = predictor.contract.spec, Golden.read(predictor.folder / folder.GOLDEN).inputs
        longest = self.modality.largest_canvas(spec) // (golden[0].nbytes // golden.shape[-1])
        gap = predictor.variant.batch_gap
        if gap <= mates.SAME:  # on the machine that exported: asked again on this one
            gap = predictor.batch_gap(golden, longest)
        rows = mates.ROWS if gap <= mates.SAME else 1
        self.facts = Facts.read(predictor, rows=rows, gap=gap)
        self.batcher = Batcher(
            _Measured(self), self.limits, self.metrics, rows=rows, cells=mates.ROWS * int(np.prod(spec.input_shape))
        )
        self._text, self._policy = page.render(self.facts, self.limits, self.modality.NOUN)
        self.ready = False
        self._receiving = asyncio.Semaphore(self.limits.requests)
        self._parsing = asyncio.Lock()
        self.metrics.model.info({"variant": predictor.name, "modality": predictor.modality})
        routes = {
            "/": self._page,
            "/model": self._model,
            "/predict": self._predict,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
        }
        self.app = Starlette(
            routes=[
                Route(path, act, methods=["POST" if path == "/predict" else "GET"]) for path, act in routes.items()
            ],
            middleware=[Middleware(Guard, names=names, paths=set(routes), metrics=self.metrics)],
            exception_handlers={Refusal: _refused, HTTPException: _unknown},
            lifespan=self._lifespan,
        )
        self.app.router.redirect_slashes = False

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.batcher.start()
        self.ready = True
        yield
        self.ready = False
        await self.batcher.stop()

    async def _page(self, request: Request) -> Response:
        return Response(self._text, media_type="text/html", headers={"content-security-policy": self._policy})

    async def _model(self, request: Request) -> Response:
        return JSONResponse({**self.facts.as_json(), "limits": self.limits.as_json(self.modality.EXTENT)})

    async def _healthz(self, request: Request) -> Response:
        return JSONResponse({"alive": self.batcher.alive}, 200 if self.batcher.alive else 503)

    async def _readyz(self, request: Request) -> Response:
        ready = self.ready and self.batcher.alive
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def _metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def _predict(self, request: Request) -> Response:
        self.batcher.demand_room()
        question = await self._question(request)
        answering = asyncio.ensure_future(self.batcher.answer(question.items))
        leaving = asyncio.ensure_future(_left(request))
        try:
            # A client that has left needs no answer, and its items no turn.
            await asyncio.wait(
                {answering, leaving}, timeout=self.limits.request_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if not answering.done():
                what = f"no answer within {self.limits.request_seconds:g} s"
                raise Refusal(503, "deadline", what, headers={"retry-after": "1"})
            found = answering.result()
        finally:
            answering.cancel()
            leaving.cancel()
        results = [self._told(answer, question.top_k) for answer in found]
        faults = [answer.status for answer in found if isinstance(answer, Problem)]
        status = max(faults) if len(faults) == len(found) else 200
        return JSONResponse({"results": results}, status)

    async def _question(self, request: Request) -> Question:
        if request.url.query:
            raise Refusal(400, "query", "the address takes no settings: top_k belongs in the body", close=True)
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refusal(415, "content-encoding", "send the body as it is", close=True)
        kinds = request.headers.getlist("content-type")
        if len(kinds) != 1:
            raise Refusal(415, "content-type", "send application/json or multipart/form-data", close=True)
        body = await self._body(request)
        async with self._parsing:  # one at a time: what JSON unfolds to is bounded for one, not for many
            of_texts = self.predictor.modality == "text"
            return await asyncio.to_thread(asking.parse, kinds[0], body, self.limits, of_texts=of_texts)

    async def _body(self, request: Request) -> bytes:
        """The whole body, in time; not one byte more than the limit is kept, and none read where it says so itself."""
        most, length = self.limits.body_bytes, request.headers.get("content-length", "0")
        too_long = Refusal(413, "body", f"the body takes more than {most:,} bytes", close=True)
        if length.isdigit() and int(length[:20]) > most:
            raise too_long
        body = bytearray()
        holding = False
        try:
            async with asyncio.timeout(self.limits.receive_seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > most:
                        raise too_long
                    if len(body) > FREE and not holding:
                        await self._receiving.acquire()
                        holding = True
            return bytes(body)
        except TimeoutError as error:
            what = f"the body did not arrive within {self.limits.receive_seconds:g} s"
            raise Refusal(408, "slow", what, close=True) from error
        except ClientDisconnect as error:
            raise Refusal(400, "left", "the client left", close=True) from error
        finally:
            if holding:
                self._receiving.release()

    def _told(self, answer: np.ndarray | Problem, top_k: int | None) -> dict[str, Any]:
        """One item's answer for the client: labels with probabilities, most likely first."""
        if isinstance(answer, Problem):
            return {"problem": answer.message, "code": answer.code}
        order = np.argsort(-answer, kind="stable")[: top_k or 5]
        labels = [{"label": self.predictor.classes[k], "score": float(answer[k])} for k in order]
        told: dict[str, Any] = {"predictions": labels}
        given_from = self.predictor.contract.given_from
        if given_from is not None:  # a row may have several labels: these it has
            every = np.argsort(-answer, kind="stable")
            told["labels"] = [self.predictor.classes[k] for k in every if answer[k] >= given_from]
        if self.predictor.threshold:
            told["sure"] = bool(answer.max() >= self.predictor.threshold)
        return told


class _Measured:
    """The predictor, which is given nothing larger than the limits allow."""

    def __init__(self, service: Service) -> None:
        self._modality, self.answer = service.modality, service.predictor.answer
        self._prepare, self._most = service.predictor.prepare, service.limits.extent(service.modality.EXTENT)

    def prepare(self, item: Any) -> np.ndarray:
        found = self._modality.extent(item)
        if found > self._most:
            what = f"has {found:,.0f} {self._modality.EXTENT}, the limit is {self._most:,.0f}"
            raise Refusal(413, f"too-many-{self._modality.EXTENT}", what)
        prepared: np.ndarray = self._prepare(item)
        return prepared


async def _left(request: Request) -> None:
    """Returns when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse({"problem": error.message, "code": error.code}, error.status, headers=error.headers)


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = {404: "there is nothing at this path", 405: "this path takes another method"}.get(error.status_code, "")
    return JSONResponse({"problem": told, "code": "path"}, error.status_code, headers=error.headers)
