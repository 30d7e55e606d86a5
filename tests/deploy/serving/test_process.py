"""The server as a process that cannot import torch: started, attacked, overloaded, stopped."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from headstart.deploy.predictor import Predictor
from headstart.deploy.serving import server
from headstart.deploy.serving.app import Service

from .. import torchless
from . import hostile, stand


def exchange(port: int, request: bytes, timeout: float = 5.0) -> bytes:
    """What comes back until the server closes; raises TimeoutError where it does not."""
    with socket.create_connection(("127.0.0.1", port), timeout) as link:
        found = b""
        try:
            link.sendall(request)
            while part := link.recv(65536):
                found += part
        except (ConnectionResetError, BrokenPipeError):
            pass
        return found


def status(reply: bytes) -> int:
    return int(reply[9:12]) if reply.startswith(b"HTTP/1.1 ") else 0


def results(reply: bytes) -> Any:
    return json.loads(reply.partition(b"\r\n\r\n")[2])["results"]


def test_the_base_install_serves(exported: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", torchless.BAN + torchless.COMMAND]
    command += ["serve", str(exported.parent), "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first, second = process.stdout.readline(), process.stdout.readline()
            assert "photos" in first
            address = second.split()[0]
            found = httpx.post(f"{address}/predict", files=stand.files(stand.picture(1)), timeout=30).json()
            assert found["results"][0]["predictions"][0]["label"] == "red"
            process.terminate()
            out, errors = process.communicate(timeout=40)
        finally:
            process.kill()
    assert (process.returncode, errors) == (0, "")
    assert out == "■ stopped: 1 answered, none left waiting\n"


def test_another_address_is_said_aloud(exported: Path) -> None:
    from headstart.workflows.serve import prepare

    said: list[Any] = []
    server = prepare(exported, host="0.0.0.0", port=0, on_event=said.append)
    server.bound.close()
    assert any("no password" in event.message for event in said)
    said.clear()
    prepare(exported, port=0, on_event=said.append).bound.close()
    assert not said


def fuzzed(exported: Path, count: int, clients: int) -> dict[str, Any]:
    """Send ``count`` hostile requests, and an honest one after every fifty."""
    made, honest = hostile.Hostile(), hostile.valid(stand.picture(1))
    seen: Counter[int] = Counter()
    probes, memory, slowest = [], [], 0.0
    with stand.running(exported, receive_seconds=1.0) as server:
        own = psutil.Process(server.process.pid)

        def send(number: int) -> tuple[int, float]:
            begun = time.monotonic()
            reply = exchange(server.port, made.request(number), timeout=8.0)
            return status(reply), time.monotonic() - begun

        with ThreadPoolExecutor(clients) as pool:
            for start in range(0, count, 50):
                for code, seconds in pool.map(send, range(start, min(start + 50, count))):
                    seen[code] += 1
                    slowest = max(slowest, seconds)
                probes.append(results(exchange(server.port, honest)))
                memory.append(own.memory_info().rss)
        code, _, errors = server.stop()
    return {"seen": seen, "probes": probes, "memory": memory, "slowest": slowest, "code": code, "errors": errors}


def demand_unharmed(found: dict[str, Any]) -> None:
    assert not [code for code in found["seen"] if code >= 500], found["seen"]
    assert {200, 400, 422} <= set(found["seen"]), found["seen"]
    assert all(probe == found["probes"][0] for probe in found["probes"])
    assert found["code"] == 0
    assert found["errors"] == ""


def test_hostile_requests_do_no_harm(exported: Path) -> None:
    demand_unharmed(fuzzed(exported, 300, 8))


@pytest.mark.slow
def test_ten_thousand_hostile_requests_do_no_harm(exported: Path) -> None:
    found = fuzzed(exported, 10_000, 16)
    print({key: found[key] for key in ("seen", "slowest")}, [round(rss / 2**20) for rss in found["memory"][::20]])
    demand_unharmed(found)
    assert max(found["memory"][40:]) < 1.05 * found["memory"][40]


def trickle(port: int, kind: int) -> float:
    """Be a slow client of some kind; after how many seconds the server ends it."""
    begun = time.monotonic()
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n"
    first, then = (
        (head[:20], b"x"),
        (head + b"\r\n{", b" "),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 400, b""),
        (b"", b""),
    )[kind]
    with socket.create_connection(("127.0.0.1", port), 60) as link:
        if kind == 2:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        link.settimeout(0.2)
        try:
            sent = 0
            while time.monotonic() - begun < 60:
                try:
                    if first[sent:]:
                        sent += link.send(first[sent:])
                    elif then:
                        link.sendall(then)
                    if kind == 2:
                        time.sleep(0.2)
                        link.send(b"G") if sent == len(first) else None
                    elif not link.recv(1000):
                        break
                except TimeoutError:
                    continue
        except (ConnectionError, OSError):
            pass
    return time.monotonic() - begun


def besieged(exported: Path, count: int, seconds: float, honest: int) -> dict[str, Any]:
    """``count`` slow clients, and ``honest`` requests among them."""
    latencies: list[float] = []
    with stand.running(exported, receive_seconds=seconds) as server, ThreadPoolExecutor(count) as pool:
        slow = [pool.submit(trickle, server.port, kind % 4) for kind in range(count)]
        codes = []
        with httpx.Client(base_url=server.address, timeout=30) as client:
            for number in range(honest):
                begun = time.monotonic()
                codes.append(client.get("/healthz").status_code)
                latencies.append(time.monotonic() - begun)
                codes.append(client.post("/predict", files=stand.files(stand.picture(number % 3))).status_code)
        ended = [each.result() for each in slow]
        late = [pool.submit(trickle, server.port, kind % 4) for kind in range(count)]
        time.sleep(0.5)
        begun = time.monotonic()
        code, _, errors = server.stop()
        stopped = time.monotonic() - begun
        for each in late:
            each.result()
    return {"codes": codes, "ended": ended, "latencies": latencies, "code": code, "stopped": stopped, "errors": errors}


def test_slow_clients_are_ended_and_others_are_answered(exported: Path) -> None:
    found = besieged(exported, 12, 1.0, 10)
    assert found["codes"] == [200] * 20
    assert max(found["ended"]) < 30
    assert (found["code"], found["errors"]) == (0, "")


@pytest.mark.slow
def test_two_hundred_slow_clients(exported: Path) -> None:
    found = besieged(exported, 200, 10.0, 100)
    p99 = float(np.quantile(found["latencies"], 0.99))
    print(f"all ended in {max(found['ended']):.1f} s, p99 {1000 * p99:.0f} ms, stopped in {found['stopped']:.1f} s")
    assert found["codes"] == [200] * 200
    assert max(found["ended"]) <= 15
    assert (found["code"], found["errors"]) == (0, "")
    assert found["stopped"] < 15


def stopped_under_load(exported: Path, after: float) -> tuple[Counter[str], int]:
    """Clients that ask without pause, and a SIGTERM after some seconds."""
    seen: Counter[str] = Counter()
    request = hostile.valid(stand.picture(1))
    lasting = request.replace(b"Connection: close\r\n", b"")
    with stand.running(exported, seconds=0.02) as server:
        done = threading.Event()

        def ask(number: int) -> None:
            link = None
            while not done.is_set():
                if link is None:
                    try:
                        link = socket.create_connection(("127.0.0.1", server.port), 20)
                    except ConnectionRefusedError:
                        seen["refused"] += 1
                        return
                keeps, reply = number % 2 == 0, b""
                try:
                    link.sendall(lasting if keeps else request)
                    while part := link.recv(65536):
                        reply += part
                        if keeps and reply.endswith(b"]}"):
                            break
                except ConnectionError:
                    pass
                seen[str(status(reply)) if reply.endswith(b"}") else "lost"] += 1
                if not keeps or b"connection: close" in reply.lower() or not reply:
                    link.close()
                    link = None

        with ThreadPoolExecutor(12) as pool:
            asking = [pool.submit(ask, number) for number in range(12)]
            time.sleep(after)
            code, _, errors = server.stop()
            done.set()
            for each in asking:
                each.result()
    assert errors == ""
    return seen, code


@pytest.mark.parametrize("after", [0.3, pytest.param(0.75, marks=pytest.mark.slow)])
def test_a_stop_under_load_loses_nothing(exported: Path, after: float) -> None:
    seen, code = stopped_under_load(exported, after)
    assert code == 0
    assert set(seen) <= {"200", "refused"}, seen
    assert seen["200"] > 12


def test_who_waits_at_the_door_is_answered(exported: Path) -> None:
    """A connection that the system has let in, and that nobody has taken when the server stops."""

    async def run() -> bytes:
        bound = server.listen("127.0.0.1", 0)
        made = server._server(Service(Predictor(exported, threads=1)), lambda: None)
        made.config.load()
        made.lifespan = made.config.lifespan_class(made.config)
        await made.startup(sockets=[bound])
        port = bound.getsockname()[1]
        asyncio.get_running_loop().remove_reader(bound)  # as where the loop has been busy since
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(hostile.valid(stand.picture(1)))
        await made.shutdown(sockets=[bound])
        reply = await reader.read()
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        return reply

    reply = asyncio.run(run())
    assert status(reply) == 200, reply
    assert results(reply)[0]["predictions"][0]["label"] == "red"


@pytest.mark.slow
def test_twenty_stops_under_load_lose_nothing(exported: Path) -> None:
    total: Counter[str] = Counter()
    for after in np.random.default_rng(0).uniform(0.1, 1.5, 20):
        seen, code = stopped_under_load(exported, float(after))
        assert code == 0
        total += seen
    print(total)
    assert set(total) <= {"200", "refused"}, total


def test_the_first_to_know_of_a_stop_is_the_balancer(exported: Path) -> None:
    with stand.running(exported) as server, httpx.Client(base_url=server.address, timeout=30) as client:
        assert client.get("/readyz").status_code == 200
        server.process.terminate()
        codes = []
        try:
            while True:
                codes.append(client.get("/readyz").status_code)
        except httpx.TransportError:
            pass
        assert 503 in codes
        assert server.process.wait(20) == 0


def overloaded(exported: Path, count: int, seconds: float) -> tuple[list[httpx.Response], list[httpx.Response]]:
    """Everyone at once, and then once more a few."""

    async def run() -> tuple[list[httpx.Response], list[httpx.Response]]:
        service = Service(Predictor(exported, threads=1))
        known = service.predictor.answer
        service.batcher._model.answer = lambda values: (time.sleep(seconds), known(values))[1]  # type: ignore
        async with stand.client(service) as client:
            form = {"files": stand.files(stand.picture(2))}
            rush = await asyncio.gather(*(client.post("/predict", **form) for _ in range(count)))
            calm = [await client.post("/predict", **form) for _ in range(5)]
            return list(rush), calm

    return asyncio.run(run())


def test_overload_is_refused_and_passes(exported: Path) -> None:
    rush, calm = overloaded(exported, 300, 0.05)
    codes = Counter(reply.status_code for reply in rush)
    assert set(codes) == {200, 429}, codes
    assert codes[200] >= 64
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in rush if reply.status_code == 429)
    assert [reply.status_code for reply in calm] == [200] * 5
    assert len({reply.text for reply in [*rush, *calm] if reply.status_code == 200}) == 1


def test_what_takes_too_long_is_given_up(exported: Path) -> None:
    async def act(client: httpx.AsyncClient, service: Service) -> list[httpx.Response]:
        known = service.predictor.answer
        service.batcher._model.answer = lambda values: (time.sleep(0.6), known(values))[1]  # type: ignore
        late = await asyncio.gather(*(client.post("/predict", files=stand.files(stand.picture())) for _ in range(40)))
        return list(late)

    late = stand.asked(exported, act, request_seconds=0.9)
    codes = Counter(reply.status_code for reply in late)
    assert set(codes) == {200, 503}
    assert all(reply.headers["retry-after"] for reply in late if reply.status_code == 503)


def test_a_model_that_is_exchanged_while_it_serves_changes_no_answer(exported: Path, tmp_path: Path) -> None:
    import shutil

    place = tmp_path / "export"
    shutil.copytree(exported, place)
    with stand.running(place) as server, httpx.Client(base_url=server.address, timeout=30) as client:
        ask = lambda: client.post("/predict", files=stand.files(stand.picture(1))).json()  # noqa: E731
        first = ask()
        for file in place.iterdir():
            file.write_bytes(b"something else")
        assert all(ask() == first for _ in range(20))
