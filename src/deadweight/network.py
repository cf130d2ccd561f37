"""Whether the Hugging Face hub can be reached, found out once and quickly."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlparse


@contextmanager
def hub_reach() -> Iterator[bool]:
    """Whether the hub can be reached; while it cannot, its client reads the local cache only.

    Without this the client retries for most of a minute before it says that there is no network.
    """
    constants: Any = importlib.import_module("huggingface_hub.constants")
    address = urlparse(constants.ENDPOINT)
    reachable = False
    if not constants.HF_HUB_OFFLINE:
        try:
            port = address.port or (80 if address.scheme == "http" else 443)
            socket.create_connection((address.hostname, port), timeout=5).close()
            reachable = True
        except OSError:
            reachable = False
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not reachable
    try:
        yield reachable
    finally:
        constants.HF_HUB_OFFLINE = before
