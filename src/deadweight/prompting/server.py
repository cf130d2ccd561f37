"""An OpenAI-compatible server as the model: its completions, asked for with bounded patience.

The key is read from the environment when a request is sent and is in no record, log, error or representation.
"""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import json
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deadweight.errors import CellFailed, InputError, SourceError

SCHEME = "openai:"
KEY_VARIABLE = "OPENAI_API_KEY"
TRIED_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
LONGEST_WAIT = 60.0
# Bytes a reply may have: a few tokens of text and their envelope need far less.
LARGEST_REPLY = 1 << 20


@dataclass(frozen=True)
class Server:
    """Where a server is and how patient we are with it.

    url:       the part before ``/completions``, e.g. ``http://localhost:8000/v1``.
    model:     what the server calls the model.
    api:       ``completions`` continues the prompt as it is; ``chat`` sends it as one message of a user.
    timeout:   seconds a reply may take.
    attempts:  requests for one prompt, the first included.
    rate:      requests a second, all threads together; 0 is no limit.
    workers:   requests under way at a time.
    variable:  the environment variable that holds the key.
    wait:      seconds a server may ask us to wait (``Retry-After``) and is obeyed; more is refused.
    """

    url: str
    model: str
    api: str = "completions"
    timeout: float = 60.0
    attempts: int = 5
    rate: float = 0.0
    workers: int = 4
    variable: str = KEY_VARIABLE
    wait: float = LONGEST_WAIT


def is_server(source: str) -> bool:
    return source.startswith(SCHEME)


def parse_server(source: str) -> Server:
    """``openai:http://HOST:PORT/v1?model=NAME``, and the fields of :class:`Server` as further options.

    Raises :class:`SourceError` for an address that is none, an option that is none, and a key within the address.
    """
    address, _, query = source.removeprefix(SCHEME).partition("?")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise SourceError(
            "the address of a server that is no plain http:// or https:// one",
            expected="openai:http://HOST:PORT/v1?model=NAME, without user or password",
            cure=f"give the key in the environment variable {KEY_VARIABLE}",
        )
    options = dict(pair.partition("=")[::2] for pair in query.split("&") if pair)
    kinds: dict[str, Callable[[str], Any]] = {
        "model": str, "api": str, "timeout": float, "attempts": int, "rate": float, "workers": int, "variable": str,
        "wait": float,
    }  # fmt: skip
    if unknown := sorted(set(options) - set(kinds)):
        raise SourceError(f"the server option {unknown[0]!r}", expected=f"some of {', '.join(kinds)}")
    try:
        server = Server(address.rstrip("/"), **{"model": "", **{n: kinds[n](value) for n, value in options.items()}})
    except ValueError as problem:
        raise SourceError(f"a server option that is no number: {problem}", expected="e.g. timeout=30") from None
    times = (server.timeout, server.rate, server.wait)
    counts = min(server.attempts, server.workers) >= 1 and all(map(math.isfinite, times)) and min(times) >= 0 < times[0]
    if not server.model or server.api not in ("completions", "chat") or not counts:
        raise SourceError(
            f"model={server.model!r}, api={server.api!r}, attempts={server.attempts}, workers={server.workers}, "
            f"timeout={server.timeout:g}, rate={server.rate:g}, wait={server.wait:g}",
            expected="a model's name, api=completions or api=chat, at least one attempt and worker, some time",
        )
    return server


@dataclass
class Journal:
    """Replies on disk, a line each as they come in, so that whoever is interrupted does not ask again."""

    path: Path | None
    known: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        if self.path is None or not self.path.is_file():
            return
        for line in self.path.read_text(encoding="utf-8").split("\n"):  # a reply may hold U+2028, which ends no line
            try:
                entry = json.loads(line)
                self.known[entry["asked"]] = entry["reply"]
            except (json.JSONDecodeError, KeyError, TypeError):
                continue  # a line cut off by a kill: its prompt is asked again

    def write(self, asked: str, reply: str) -> None:
        with self._lock:
            self.known[asked] = reply
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    # The line break comes first: a line that was cut off must not swallow this one.
                    file.write("\n" + json.dumps({"asked": asked, "reply": reply}, ensure_ascii=False))


class ServerGenerator:
    """Greedy completions of a server (temperature 0), several at a time, in the order of the prompts."""

    def __init__(self, server: Server, journal: Path | None = None, sleep: Callable[[float], object] | None = None):
        self.server = server
        self.name = f"{server.model} at {urlsplit(server.url).netloc}"
        self.journal = Journal(journal)
        self._over = threading.Event()  # nobody waits for what will not be used
        self._sleep = sleep or self._over.wait
        self._turn = threading.Lock()
        self._next = 0.0

    def generate(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        """Raises :class:`CellFailed` for a prompt all attempts failed on; the replies so far stay in the journal."""
        keys = [self._key(prompt, max_tokens) for prompt in prompts]
        self._over.clear()
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self.journal.known}
        with ThreadPoolExecutor(self.server.workers) as pool:
            waiting = [pool.submit(self._ask, key, prompt, max_tokens) for key, prompt in missing.items()]
            try:
                for one in waiting:
                    one.result()
            except BaseException:
                self._over.set()
                for one in waiting:
                    one.cancel()
                raise
        return [self.journal.known[key] for key in keys]

    def _key(self, prompt: str, max_tokens: int) -> str:
        asked = [self.server.url, self.server.model, self.server.api, max_tokens, prompt]
        return hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).hexdigest()

    def _ask(self, key: str, prompt: str, max_tokens: int) -> None:
        try:
            self._try(key, prompt, max_tokens)
        except BaseException:
            self._over.set()
            raise

    def _try(self, key: str, prompt: str, max_tokens: int) -> None:
        problem, pause = "", 0.0
        for attempt in range(self.server.attempts):
            if attempt:
                self._sleep(pause)
            self._wait_for_turn()
            if self._over.is_set():
                return
            pause = min(LONGEST_WAIT, 0.5 * 2**attempt * random.uniform(0.75, 1.25))  # noqa: S311 (no secret)
            try:
                status, headers, body = self._post(prompt, max_tokens)
            except (OSError, http.client.HTTPException) as trouble:
                problem = f"{type(trouble).__name__}: {trouble}" if str(trouble) else type(trouble).__name__
                continue
            if status == 200:
                reply = _reply(body, self.server.api)
                if reply is not None:
                    self.journal.write(key, reply)
                    return
                problem = "a reply that holds no text"
                continue
            problem = f"status {status}"
            if status not in TRIED_AGAIN:
                raise CellFailed(
                    f"{self.name} refused a request with {problem}; is {self.server.variable} set, and the model's "
                    "name what the server calls it?"
                )
            asked = _retry_after(headers)
            if asked > self.server.wait:
                raise CellFailed(
                    f"{self.name} answered with {problem} and asks to wait {_time(asked)} (Retry-After), more than the "
                    f"{_time(self.server.wait)} we wait. Replies so far are kept: give the same command again after "
                    f"that time, or ?wait={math.ceil(asked)} to wait for it"
                )
            pause = max(pause, asked)
        raise CellFailed(
            f"{self.name} gave no answer in {self.server.attempts} attempts; the last: {problem}. Replies so far are "
            "kept: the same command goes on where it stopped"
        )

    def _wait_for_turn(self) -> None:
        if self.server.rate <= 0:
            return
        with self._turn:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + 1 / self.server.rate
        self._sleep(max(0.0, at - now))

    def _post(self, prompt: str, max_tokens: int) -> tuple[int, http.client.HTTPMessage, bytes]:
        parts, until = urlsplit(self.server.url), time.monotonic() + self.server.timeout
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=self.server.timeout)
        asked: dict[str, Any] = {"model": self.server.model, "max_tokens": max_tokens, "temperature": 0, "seed": 0}
        chat = self.server.api == "chat"
        asked |= {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.server.variable, "").strip():
            if not (key.isascii() and key.isprintable()):  # http.client's own error would show it
                raise InputError(
                    f"the key in {self.server.variable}", expected="printable ASCII characters on one line"
                )
            headers["Authorization"] = f"Bearer {key}"
        try:
            connection.request(
                "POST", f"{parts.path}/{'chat/completions' if chat else 'completions'}", json.dumps(asked), headers
            )
            response = connection.getresponse()
            return response.status, response.headers, _whole(response, connection, until)
        finally:
            connection.close()


def _whole(response: http.client.HTTPResponse, connection: http.client.HTTPConnection, until: float) -> bytes:
    """The body, read within the time there is; a server that only drips must not hold us for ever."""
    body = b""
    while len(body) <= LARGEST_REPLY:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        if connection.sock is not None:
            connection.sock.settimeout(left)
        part = response.read1(LARGEST_REPLY)
        if not part:
            return body
        body += part
    raise http.client.HTTPException(f"a reply of more than {LARGEST_REPLY:,} bytes")


def _reply(body: bytes, api: str) -> str | None:
    try:
        choice = json.loads(body)["choices"][0]
        text = choice["message"]["content"] if api == "chat" else choice["text"]
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return text if isinstance(text, str) else None


def _retry_after(headers: http.client.HTTPMessage) -> float:
    """Seconds a server asks to wait: a number, or a date; 0 for what is neither."""
    asked = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,12}(\.\d*)?", asked):
        return float(asked)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(asked).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _time(seconds: float) -> str:
    """``90 s``, ``25 min``, ``3 h``, ``2 days``: never less than the time itself."""
    for unit, size in (("s", 1), ("min", 60), ("h", 3600)):
        if seconds <= 100 * size or (unit == "h" and seconds <= 48 * size):
            return f"{math.ceil(seconds / size)} {unit}"
    return f"{math.ceil(seconds / 86400)} days"


def check_server(source: str, decoding: str) -> Server:
    """Refuse what a server cannot do before it is asked."""
    server = parse_server(source)
    if decoding != "greedy":
        raise InputError(
            f"decoding {decoding!r} with a server", expected="greedy: servers tell no likelihood of given labels",
            cure="set decoding: greedy",
        )  # fmt: skip
    return server
