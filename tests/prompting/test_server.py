"""The server backend against a server: HTTP on a real socket, a model behind it that answers."""

import asyncio
import importlib.util
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from deadweight.errors import CellFailed, InputError, SourceError
from deadweight.loading import load_lm
from deadweight.prompting import server as backend
from deadweight.prompting.generate import LocalGenerator
from deadweight.prompting.server import Server, ServerGenerator, check_server, parse_server
from deadweight.studies.frame.run import run
from deadweight.studies.icl.study import IclStudy

pytestmark = pytest.mark.slow

KEY = "sk-very-secret-0123456789"
PROMPTS = ["Review: the soup was", "who wrote", "Question: the bread", "Review: the room was"]


class Local:
    """Completions of `lm` at `url`; `faults` are met one a request, before anything is answered."""

    def __init__(self, lm):
        self.lm, self.faults, self.asked, self.headers, self.busy, self.most = lm, [], [], [], 0, 0
        self._lock = threading.Lock()
        app = FastAPI()
        app.post("/v1/completions")(self.completions)
        app.post("/v1/chat/completions")(self.chat)
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    async def completions(self, request: Request):
        asked = await request.json()
        return await self._answer(request, asked["prompt"], asked, lambda text: {"text": text})

    async def chat(self, request: Request):
        asked = await request.json()
        (message,) = asked["messages"]
        return await self._answer(request, message["content"], asked, lambda text: {"message": {"content": text}})

    async def _answer(self, request, prompt, asked, choice):
        self.asked.append(prompt)
        self.headers.append(dict(request.headers))
        assert asked["temperature"] == 0
        if self.faults:
            return await self.faults.pop(0)()
        self.busy += 1
        self.most = max(self.most, self.busy)
        await asyncio.sleep(0.01)
        self.busy -= 1
        with self._lock:
            (text,) = LocalGenerator(self.lm).generate([prompt], asked["max_tokens"])
        return JSONResponse({"choices": [choice(text)]})

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join()


def replying(status, content="", headers=None):
    async def reply():
        return Response(content, status, headers)

    return reply


async def sleeping():
    await asyncio.sleep(1.0)
    return Response("late")


async def dripping():
    async def drops():
        for _ in range(100):
            yield b" "
            await asyncio.sleep(0.05)

    return StreamingResponse(drops())


@pytest.fixture
def local(llama):
    with Local(llama) as server:
        yield server


@pytest.fixture
def pauses():
    return []


def generator(local, pauses, journal=None, **options):
    return ServerGenerator(Server(local.url, "tiny", **options), journal, sleep=pauses.append)


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_replies_are_those_of_the_model_in_the_order_of_the_prompts(local, pauses, api, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    found = generator(local, pauses, api=api, workers=3).generate(PROMPTS * 2, 4)
    assert found == LocalGenerator(local.lm).generate(PROMPTS, 4) * 2
    assert Counter(local.asked) == Counter(PROMPTS)  # asked once each
    assert 1 < local.most <= 3
    assert {headers["authorization"] for headers in local.headers} == {f"Bearer {KEY}"}


def test_without_a_key_none_is_sent(local, pauses, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    generator(local, pauses).generate(PROMPTS[:1], 2)
    assert "authorization" not in local.headers[0]


PASSING = {
    "too many requests": (replying(429, headers={"Retry-After": "7"}), 7),
    "too many requests, for a whole minute": (replying(429, headers={"Retry-After": "60"}), 60),
    "too many requests, until a date gone by": (
        replying(429, headers={"Retry-After": "Thu, 01 Jan 2009 00:00:00 GMT"}),
        0.3,
    ),
    "too many requests, until nobody knows": (replying(503, headers={"Retry-After": "soon"}), 0.3),
    "an error of the server": (replying(503), 0.3),
    "no JSON": (replying(200, "<html>"), 0.3),
    "JSON without a choice": (replying(200, '{"choices": []}'), 0.3),
    "a choice that is no text": (replying(200, '{"choices": [{"text": 3}]}'), 0.3),
    "more bytes than a reply has": (replying(200, "x" * (backend.LARGEST_REPLY + 10)), 0.3),
    "a reply that is late": (sleeping, 0.3),
    "a reply that only drips": (dripping, 0.3),
}


@pytest.mark.parametrize("case", PASSING)
def test_what_may_pass_is_tried_again(local, pauses, case):
    fault, pause = PASSING[case]
    local.faults.append(fault)
    found = generator(local, pauses, timeout=0.4).generate(PROMPTS[:1], 3)
    assert found == LocalGenerator(local.lm).generate(PROMPTS[:1], 3)
    assert len(local.asked) == 2
    assert len(pauses) == 1
    assert pause <= pauses[0] <= max(60, pause)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("61", "asks to wait 61 s"),
        ("1500", "asks to wait 25 min"),
        ("86400", "asks to wait 24 h"),
        ("999999", "asks to wait 12 days"),
        ("Thu, 01 Jan 2099 00:00:00 GMT", "asks to wait .* days"),
    ],
)
def test_a_wait_beyond_our_patience_is_refused_at_once_with_how_long(local, pauses, asked, said):
    local.faults.append(replying(429, headers={"Retry-After": asked}))
    with pytest.raises(CellFailed, match=rf"status 429 and {said} \(Retry-After\), more than the 60 s") as refused:
        generator(local, pauses).generate(PROMPTS[:1], 3)
    assert (len(local.asked), pauses) == (1, [])
    wait = int(re.search(r"\?wait=(\d+)", str(refused.value))[1])
    local.faults.append(replying(429, headers={"Retry-After": asked}))
    found = generator(local, pauses, wait=float(wait)).generate(PROMPTS[:1], 3)
    assert found == LocalGenerator(local.lm).generate(PROMPTS[:1], 3)
    assert pauses == [pytest.approx(wait, rel=1e-3)]  # as long as the server asked, not a minute


def test_patience_is_bounded_and_grows(local, pauses):
    local.faults += [replying(500)] * 10
    with pytest.raises(CellFailed, match=r"in 4 attempts; the last: status 500"):
        generator(local, pauses, attempts=4).generate(PROMPTS[:1], 3)
    assert len(local.asked) == 4
    assert pauses == sorted(pauses)
    assert len(pauses) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 301])
def test_what_will_not_pass_is_not_tried_again(local, pauses, status, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    local.faults.append(replying(status, f"your key {KEY} is wrong", {"Location": "http://127.0.0.1:9/"}))
    with pytest.raises(CellFailed, match=f"status {status}") as caught:
        generator(local, pauses).generate(PROMPTS[:1], 3)
    assert KEY not in str(caught.value)
    assert len(local.asked) == 1


def test_a_server_that_is_down(pauses):
    away = ServerGenerator(Server("http://127.0.0.1:9/v1", "tiny", attempts=3), sleep=pauses.append)
    with pytest.raises(CellFailed, match="ConnectionRefusedError"):
        away.generate(PROMPTS[:1], 3)
    assert len(pauses) == 2


def test_nobody_waits_for_the_others_once_it_has_failed(local):
    local.faults += [replying(503), replying(503), replying(401)]
    began = time.monotonic()
    with pytest.raises(CellFailed):
        ServerGenerator(Server(local.url, "tiny", workers=3, attempts=50)).generate(PROMPTS[:3], 3)
    assert time.monotonic() - began < 10
    assert len(local.asked) <= 3 + 2


def test_a_rate_is_kept(local, pauses):
    generator(local, pauses, rate=2.0, workers=4).generate(PROMPTS, 2)
    assert sorted(pauses) == pytest.approx([0, 0.5, 1, 1.5], abs=0.2)


@pytest.mark.parametrize("key", ["sk-one\nX-Other: header", "sk-ünicode"])
def test_a_key_that_cannot_be_sent(local, pauses, key, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(InputError, match="OPENAI_API_KEY") as caught:
        generator(local, pauses).generate(PROMPTS[:1], 2)
    assert key not in str(caught.value)
    assert not local.asked


def test_a_reply_with_other_line_ends_is_kept_too(local, pauses, tmp_path):
    async def odd():
        return JSONResponse({"choices": [{"text": "one\u2028two\x85three"}]})

    local.faults.append(odd)
    first = generator(local, pauses, tmp_path / "r.jsonl").generate(PROMPTS[:1], 3)
    assert generator(local, pauses, tmp_path / "r.jsonl").generate(PROMPTS[:1], 3) == first == ["one\u2028two\x85three"]
    assert len(local.asked) == 1


def test_replies_are_kept_for_the_next_time(local, pauses, tmp_path):
    journal = tmp_path / "cell" / "replies.jsonl"
    generator(local, pauses, journal).generate(PROMPTS[:2], 3)
    journal.write_text(journal.read_text() + '\n{"asked": "abc", "repl')  # a kill in the middle of a line
    local.asked.clear()
    found = generator(local, pauses, journal).generate(PROMPTS, 3)
    assert sorted(local.asked) == sorted(PROMPTS[2:])
    assert found == LocalGenerator(local.lm).generate(PROMPTS, 3)
    local.asked.clear()
    assert generator(local, pauses, journal).generate(PROMPTS, 3) == found
    assert local.asked == []
    generator(local, pauses, journal).generate(PROMPTS[:1], 4)  # another question: more tokens
    assert local.asked == PROMPTS[:1]


@pytest.mark.skipif(importlib.util.find_spec("openai") is None, reason="transformers serve wants the package openai")
def test_the_server_of_transformers(language_folder, pauses):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(language_folder), "--device", "cpu",
               "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as serving:
        try:
            asked = Server(f"http://127.0.0.1:{port}/v1", str(language_folder), attempts=120, workers=1)
            found = ServerGenerator(asked, sleep=lambda _: time.sleep(0.5)).generate(PROMPTS, 4)
        finally:
            serving.terminate()
    assert found == LocalGenerator(load_lm(f"hf:{language_folder}", device="cpu")).generate(PROMPTS, 4)


@pytest.fixture
def study(local, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    lines = [f"the soup was {'warm' if n % 2 else 'cold'} {n},{'good' if n % 2 else 'bad'}" for n in range(18)]
    (tmp_path / "r.csv").write_text("\n".join(["text,label", *lines]))
    return IclStudy(
        language=f"openai:{local.url}?model=tiny&attempts=1&workers=1&timeout=5", tasks=f"csv:{tmp_path}/r.csv",
        k=(2,), seeds=(0,), limit=4, conditions=("zero-shot", "natural"), decoding="greedy",
    )  # fmt: skip


def test_a_failed_cell_goes_on_where_it_stopped(local, study, tmp_path):
    async def answered():
        return JSONResponse({"choices": [{"text": " good"}]})

    local.faults += [answered] * 5 + [replying(401)]
    failed = run(study, tmp_path / "out")
    assert len(failed.failed) == 1
    assert len(local.asked) == 6
    local.faults += [answered] * 3
    done = run(study, tmp_path / "out")
    assert not done.failed
    assert len(local.asked) == 6 + 3  # the five that were answered are not asked again
    (record,) = done
    assert [frame["texts"] for frame in record.result["frames"]] == [[" good"] * 4] * 2
    assert [frame["invalid"] for frame in record.result["frames"]] == [0, 0]
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


WRONG = {
    "no address": "openai:localhost?model=x",
    "a password in it": "openai:http://me:secret@host/v1?model=x",
    "no model": "openai:http://host/v1",
    "an unknown option": "openai:http://host/v1?model=x&key=secret",
    "a number that is none": "openai:http://host/v1?model=x&timeout=soon",
    "no attempt": "openai:http://host/v1?model=x&attempts=0",
    "another interface": "openai:http://host/v1?model=x&api=embeddings",
    "a time without end": "openai:http://host/v1?model=x&timeout=inf",
    "half an attempt": "openai:http://host/v1?model=x&attempts=2.5",
    "a wait that is none": "openai:http://host/v1?model=x&wait=-1",
    "no rate": "openai:http://host/v1?model=x&rate=nan",
    "no time": "openai:http://host/v1?model=x&timeout=0",
}


@pytest.mark.parametrize("case", WRONG)
def test_an_address_that_is_none(case):
    with pytest.raises(SourceError) as caught:
        parse_server(WRONG[case])
    assert "secret" not in str(caught.value)


def test_a_server_tells_no_likelihoods():
    with pytest.raises(InputError, match="greedy"):
        check_server("openai:http://host/v1?model=x", "sum")


def test_options_of_a_server():
    found = parse_server("openai:https://host:8000/v1/?model=org/x&rate=0.5&workers=2&variable=MY_KEY")
    assert found == Server("https://host:8000/v1", "org/x", rate=0.5, workers=2, variable="MY_KEY")
