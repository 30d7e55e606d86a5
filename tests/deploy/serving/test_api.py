"""What clients ask for and are told: answers like the predictor's, and refusals that say why."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from headstart.core.run import Run
from headstart.data.modalities.base import DecodeError
from headstart.deploy.predictor import Predictor
from headstart.deploy.serving import asking, page
from headstart.deploy.serving.app import Service
from headstart.deploy.serving.facts import Facts
from headstart.deploy.serving.limits import Limits, Refusal

from ...data import corpus
from . import stand

JSON = {"content-type": "application/json"}


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def scores(result: dict[str, Any]) -> dict[str, float]:
    return {each["label"]: each["score"] for each in result["predictions"]}


def test_json_and_forms_are_answered_as_the_predictor_does(exported: Path, predictor: Predictor) -> None:
    contents = [stand.picture(kind, seed) for seed in range(3) for kind in range(3)]
    wanted = predictor.answer([predictor.prepare(content) for content in contents])[1]

    async def act(client: httpx.AsyncClient, service: Service) -> list[httpx.Response]:
        form = await client.post("/predict", files=stand.files(*contents), data={"top_k": "3"})
        several = await client.post("/predict", json={"inputs": [in_base64(each) for each in contents], "top_k": 3})
        one = await client.post("/predict", json={"inputs": "data:image/png;base64," + in_base64(contents[4])})
        first = await client.post("/predict", files=stand.files(contents[4]), data={"top_k": "1"})
        return [form, several, one, first]

    form, several, one, first = stand.asked(exported, act)
    for reply in (form, several):
        assert reply.status_code == 200, reply.text
        for result, shares in zip(reply.json()["results"], wanted, strict=True):
            found = scores(result)
            assert list(found) == [predictor.classes[k] for k in np.argsort(-shares, kind="stable")]
            assert max(abs(found[name] - share) for name, share in zip(predictor.classes, shares, strict=True)) < 1e-6
    assert form.json() == several.json()
    assert scores(one.json()["results"][0]).keys() == set(predictor.classes)
    assert list(scores(first.json()["results"][0])) == ["red"]


def test_an_item_that_cannot_be_read_has_its_own_problem(exported: Path) -> None:
    good = stand.picture(1)

    async def act(client: httpx.AsyncClient, service: Service) -> tuple[httpx.Response, ...]:
        mixed = await client.post("/predict", files=stand.files(good, b"no picture", good))
        alone = await client.post("/predict", files=stand.files(b"no picture"))
        large = await client.post("/predict", files=stand.files(stand.picture(size=101)))
        metrics = await client.get("/metrics")
        return mixed, alone, large, metrics

    mixed, alone, large, metrics = stand.asked(exported, act, pixels=10_000)
    assert mixed.status_code == 200
    first, second, third = mixed.json()["results"]
    assert first == third
    assert first["predictions"][0]["label"] == "red"
    assert second["code"] == "not-an-image"
    assert "predictions" not in second
    assert (alone.status_code, alone.json()["results"][0]["code"]) == (422, "not-an-image")
    assert (large.status_code, large.json()["results"][0]["code"]) == (413, "too-many-pixels")
    assert 'headstart_items_total{outcome="unreadable"} 3.0' in metrics.text
    assert 'headstart_items_total{outcome="answered"} 2.0' in metrics.text


def test_the_room_for_large_bodies_is_given_back(exported: Path) -> None:
    large = {"inputs": in_base64(bytes(90_000))}

    async def act(client: httpx.AsyncClient, service: Service) -> list[int]:
        return [(await asyncio.wait_for(client.post("/predict", json=large), 30)).status_code for _ in range(3)]

    assert stand.asked(exported, act, requests=1) == [422] * 3


def test_where_answers_depend_on_their_batch_on_this_machine_each_is_computed_alone(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Service(Predictor(exported)).batcher._rows > 1
    monkeypatch.setattr(Predictor, "batch_gap", lambda self, inputs, longest: 0.01)
    service = Service(Predictor(exported))
    assert service.batcher._rows == 1
    assert service.facts.batch_gap == 0.01


def test_every_odd_picture_is_prepared_as_everywhere_else(exported: Path, predictor: Predictor, tmp_path: Path) -> None:
    paths = {kind: path for kind, path in corpus.build(tmp_path).items() if path.is_file() and kind != "unreadable"}
    contents = {kind: path.read_bytes() for kind, path in paths.items()}
    seen: list[np.ndarray] = []

    async def act(client: httpx.AsyncClient, service: Service) -> dict[str, dict[str, Any]]:
        known = service.predictor.answer
        service.batcher._model.answer = lambda values: (seen.extend(values), known(values))[1]  # type: ignore
        return {
            kind: (await client.post("/predict", files=stand.files(content))).json()["results"][0]
            for kind, content in contents.items()
        }

    found = stand.asked(exported, act)
    wanted, refused = [], {}
    for kind, path in paths.items():
        try:
            wanted.append(predictor.prepare(str(path)))
        except DecodeError as error:
            refused[kind] = error.reason.code
    assert len(wanted) >= 40
    assert len(refused) >= 15
    assert {kind: result["code"] for kind, result in found.items() if "code" in result} == {
        **refused,
        "144 million pixels": "too-many-pixels",
        "900 million pixels": "too-many-pixels",
    }
    assert all(np.array_equal(a, b) for a, b in zip(seen, wanted, strict=True))


LARGE = b"x" * 40_001
REFUSED: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("no body", {}, 415),
    ("a text", {"content": b"hello", "headers": {"content-type": "text/plain"}}, 415),
    ("another alphabet", {"content": b"{}", "headers": {"content-type": "application/json; charset=utf-16"}}, 415),
    ("packed", {"content": b"x", "headers": {**JSON, "content-encoding": "gzip"}}, 415),
    ("no json", {"content": b"{", "headers": JSON}, 400),
    ("not utf-8", {"content": b'{"inputs": "\xff"}', "headers": JSON}, 400),
    ("deep json", {"content": b"[" * 20_000, "headers": JSON}, 400),
    ("a long number", {"content": b'{"inputs": ' + b"9" * 6000 + b"}", "headers": JSON}, 400),
    ("a list", {"json": ["x"]}, 400),
    ("nothing", {"json": {"inputs": []}}, 400),
    ("no inputs", {"json": {"top_k": 1}}, 400),
    ("another key", {"json": {"inputs": ["aGk="], "model": "../x"}}, 400),
    ("settings in the address", {"params": {"top_k": 1}, "json": {"inputs": ["aGk="]}}, 400),
    ("top_k 0", {"json": {"inputs": ["aGk="], "top_k": 0}}, 400),
    ("top_k true", {"json": {"inputs": ["aGk="], "top_k": True}}, 400),
    ("top_k 1.5", {"json": {"inputs": ["aGk="], "top_k": 1.5}}, 400),
    ("nine items", {"json": {"inputs": ["aGk="] * 9}}, 413),
    ("nine files", {"files": stand.files(*[b"x"] * 9)}, 413),
    ("many parts", {"files": stand.files(*[b"x"] * 200)}, 413),
    ("large json", {"content": LARGE, "headers": JSON}, 413),
    ("large form", {"files": stand.files(LARGE)}, 413),
    ("large and of unknown length", {"content": "stream", "headers": JSON}, 413),
    ("a form without boundary", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400),
    ("a form that is none", {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400),
    (
        "a form cut short",
        {
            "content": b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc',
            "headers": {"content-type": "multipart/form-data; boundary=b"},
        },
        400,
    ),
    ("another field", {"files": [("picture", ("a.png", b"x"))]}, 400),
    ("a text for pictures", {"files": [("text", (None, "hello"))]}, 400),
    ("a word for top_k", {"files": stand.files(b"x"), "data": {"top_k": "ten"}}, 400),
)


async def streamed() -> Any:
    for _ in range(100):
        yield b"x" * 1000


def test_what_cannot_be_asked_is_refused_with_its_reason(exported: Path) -> None:
    async def act(client: httpx.AsyncClient, service: Service) -> dict[str, httpx.Response]:
        found = {}
        for name, request, _ in REFUSED:
            if request.get("content") == "stream":
                request = {**request, "content": streamed()}
            found[name] = await client.post("/predict", **request)
        return found

    found = stand.asked(exported, act, body_bytes=40_000, items=8)
    told = {name: (reply.status_code, bool(reply.json().get("problem"))) for name, reply in found.items()}
    assert told == {name: (status, True) for name, _, status in REFUSED}
    assert len(REFUSED) == 28


NO_ITEMS: tuple[tuple[bytes, str], ...] = (
    (b"1", "shape"),
    (b'"\\u00e9"', "base64"),
    (b"NaN", "shape"),
    (b"null", "shape"),
)


def test_an_item_that_is_none_costs_no_other_its_answer(exported: Path) -> None:
    good = json.dumps(in_base64(stand.picture(0, 0))).encode()

    async def act(client: httpx.AsyncClient, service: Service) -> list[tuple[httpx.Response, httpx.Response]]:
        async def asked(*items: bytes) -> httpx.Response:
            return await client.post("/predict", content=b'{"inputs": [' + b",".join(items) + b"]}", headers=JSON)

        return [(await asked(item), await asked(item, good)) for item, _ in NO_ITEMS]

    for (alone, beside), (_, code) in zip(stand.asked(exported, act), NO_ITEMS, strict=True):
        (problem,) = alone.json()["results"]
        assert (alone.status_code, problem["code"]) == (400, code)
        told, answered = beside.json()["results"]
        assert (beside.status_code, told) == (200, problem)
        assert "inputs[0]" in problem["problem"]
        assert answered["predictions"]


OTHERS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("GET", "/", {"host": "evil.example"}),
    ("GET", "/healthz", {"host": "evil.example:8000"}),
    ("GET", "/", {"host": "localhost.evil.example"}),
    ("GET", "/", {"host": ""}),
    ("GET", "/", {"host": "localhost:8000@evil.example"}),
    ("POST", "/predict", {"origin": "http://evil.example"}),
    ("POST", "/predict", {"origin": "null"}),
    ("POST", "/predict", {"origin": "http://localhost:3000"}),
    ("POST", "/predict", {"origin": "http://evil.example", "host": "evil.example"}),
    ("POST", "/predict", {"sec-fetch-site": "cross-site"}),
    ("POST", "/predict", {"sec-fetch-site": "same-site"}),
    ("OPTIONS", "/predict", {"origin": "http://evil.example", "access-control-request-method": "POST"}),
)
OURS: tuple[dict[str, str], ...] = (
    {"host": "localhost:8000", "origin": "http://localhost:8000", "sec-fetch-site": "same-origin"},
    {"host": "127.0.0.1:9999"},
    {"host": "[::1]:8000", "origin": "https://[::1]:8000"},
    {"host": "192.168.1.20"},
    {"host": "Pets.Example.", "origin": "https://Pets.Example."},
    {"host": "localhost", "sec-fetch-site": "none"},
)


def test_other_names_and_other_sites_are_not_answered(exported: Path, predictor: Predictor) -> None:
    service = Service(predictor, names=["pets.example"])

    async def act() -> tuple[list[httpx.Response], list[httpx.Response]]:
        async with stand.client(service) as client:
            others = [await client.request(way, path, headers=given) for way, path, given in OTHERS]
            body = stand.files(stand.picture(2))
            return others, [await client.post("/predict", headers=given, files=body) for given in OURS]

    others, ours = asyncio.run(act())
    assert [reply.status_code for reply in others] == [403] * 12
    assert [reply.status_code for reply in ours] == [200] * len(OURS)
    for reply in [*others, *ours]:
        assert not any(name.startswith("access-control") for name in reply.headers)
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"


def test_the_routes(exported: Path) -> None:
    async def act(client: httpx.AsyncClient, service: Service) -> list[httpx.Response]:
        paths = ("/healthz", "/readyz", "/model", "/metrics", "/", "/nothing", "/predict", "/../etc/passwd", "/model/")
        first = [await client.get(path) for path in paths]
        service.ready = False
        return [*first, await client.get("/readyz"), await client.post("/"), await client.get("/metrics")]

    health, ready, model, metrics, front, *missing, later, posted, counted = stand.asked(exported, act)
    assert [each.status_code for each in (health, ready, model, metrics, front)] == [200] * 5
    assert [each.status_code for each in missing] == [404, 405, 404, 404]
    assert (later.status_code, posted.status_code) == (503, 405)
    told = model.json()
    assert told["classes"] == ["dark", "red", "stripes"]
    assert told["limits"]["pixels"] == Limits().pixels
    assert str(exported.parent.parent) not in model.text
    assert 'headstart_requests_total{path="other",status="404"} 3.0' in counted.text


def test_the_page_allows_only_what_it_holds(exported: Path) -> None:
    async def act(client: httpx.AsyncClient, service: Service) -> httpx.Response:
        return await client.get("/")

    reply = stand.asked(exported, act)
    policy = reply.headers["content-security-policy"]
    for kind in ("style", "script"):
        text = re.search(rf"<{kind}>(.*?)</{kind}>", reply.text, re.S)
        assert text is not None
        digest = base64.b64encode(hashlib.sha256(text[1].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    outside = [found for found in re.findall(r"https?://[^\s'\")]+", reply.text) if "w3.org" not in found]
    assert not outside
    assert len(reply.content) < 40_000


def test_names_on_the_page_are_text(predictor: Predictor) -> None:
    facts = Facts.read(predictor, rows=16, gap=0.0)
    evil = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "ok")
    text, _ = page.render(
        Facts(**{**facts.as_json(), "name": evil[0], "classes": evil}), Limits(), ("picture", "pictures")
    )
    assert text.count("<script>") == 1
    assert "<img src=x" not in text
    assert "{{ 7 * 7 }}" in text


@pytest.mark.parametrize("texts", [1, 2])
def test_the_page_of_pairs_has_two_fields(predictor: Predictor, texts: int) -> None:
    facts = Facts(**{**Facts.read(predictor, rows=16, gap=0.0).as_json(), "modality": "text", "texts": texts})
    told, _ = page.render(facts, Limits(), ("text", "texts"))
    assert told.count("<textarea") == texts
    assert ('"text_pair": "its second"' in told) == (texts == 2)


def test_texts_and_pairs_are_taken_as_they_are() -> None:
    def parsed(told: Any, **limits: int) -> asking.Question:
        return asking.parse("application/json", json.dumps(told).encode(), Limits(**limits), of_texts=True)

    assert parsed({"inputs": "grüße"}).items == ("grüße",)
    pair = {"text": "a", "text_pair": "b"}
    assert parsed({"inputs": ["aGk=", pair], "top_k": 2}) == asking.Question(("aGk=", ("a", "b")), 2)
    assert parsed({"inputs": [{"text": "a"}]}).items == ("a",)
    for wrong in ({"text_pair": "a"}, {"text": 1, "text_pair": "b"}, None, ["a"]):
        refused, text = parsed({"inputs": [wrong, "b"]}).items
        assert isinstance(refused, Refusal)
        assert ("inputs[0]" in refused.message, text) == (True, "b")
    form = b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\n\xc3\xa9\r\n--b--\r\n'
    assert asking.parse("multipart/form-data; boundary=b", form, Limits(), of_texts=True).items == ("é",)
    with pytest.raises(Refusal, match="UTF-8"):
        asking.parse("multipart/form-data; boundary=b", form.replace(b"\xc3", b"\xff"), Limits(), of_texts=True)


def test_base64_comes_as_its_tools_write_it() -> None:
    content = bytes(range(256))
    written = [base64.b64encode(content), base64.encodebytes(content), base64.urlsafe_b64encode(content)]
    written.append(written[-1].rstrip(b"="))
    told = json.dumps({"inputs": [each.decode() for each in written]}).encode()
    assert asking.parse("application/json", told, Limits(), of_texts=False).items == (content,) * 4


def test_what_is_unsure_is_said(exported: Path) -> None:
    async def act(client: httpx.AsyncClient, service: Service) -> list[dict[str, Any]]:
        found = []
        for threshold in (0.0, 0.999999, 0.1):
            service.predictor.threshold = threshold
            reply = await client.post("/predict", files=stand.files(noise.getvalue()))
            found += reply.json()["results"]
        return found

    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(noise, "PNG")
    without, unsure, sure = stand.asked(exported, act)
    assert "sure" not in without
    assert unsure["sure"] is False
    assert sure["sure"] is True
    assert unsure["predictions"] == sure["predictions"]


def test_a_run_without_an_export_is_told_to_export(toy_run: Run, tmp_path: Path) -> None:
    from headstart.core.errors import ArtefactError
    from headstart.workflows.serve import prepare

    with pytest.raises(ArtefactError, match="headstart export"):
        prepare(tmp_path, on_event=lambda event: None)


def test_several_labels_are_those_that_reach_the_threshold() -> None:
    known = SimpleNamespace(given_from=0.4)
    predictor = SimpleNamespace(classes=("cat", "dog", "indoor"), threshold=0.0, contract=known)
    service: Any = SimpleNamespace(predictor=predictor)
    told = Service._told(service, np.array([0.41, 0.2, 0.9]), None)
    assert told["labels"] == ["indoor", "cat"]
    assert [each["label"] for each in told["predictions"]] == ["indoor", "cat", "dog"]
    assert Service._told(service, np.array([0.1, 0.2, 0.3]), 1)["labels"] == []
    known.given_from = None
    assert "labels" not in Service._told(service, np.array([0.1, 0.2, 0.7]), None)
