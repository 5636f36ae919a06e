"""Run the service: one process, one address, an orderly stop.

Does not know what it serves.
"""

from __future__ import annotations

import errno
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from agents.errors import InputError

HOST = "127.0.0.1"
PORT = 8000
LAST_PORT = 65535
STOP_SECONDS = 20


def serve(app: FastAPI, *, host: str = HOST, port: int = PORT) -> None:
    """Serve until SIGTERM or SIGINT; answers under way get 20 seconds to end.

    Raises InputError when the address cannot be had.
    """
    with open_port(host, port) as listener:
        run_server(app, listener)


def open_port(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the address; raise InputError when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if not 0 <= port <= LAST_PORT:
        raise InputError(f"{port} is not a port.", f"Choose one from 1024 to {LAST_PORT}.")
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(*_why_not(host, port, error)) from error


def _why_not(host: str, port: int, error: OSError) -> tuple[str, str]:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is taken.", "Stop what listens there, or choose another port."
    if error.errno == errno.EACCES:
        return f"Port {port} on {host} is not allowed to this user.", "Choose a port above 1023."
    return f"The service cannot listen on {host}, port {port}: {error.strerror}.", "Choose another address."


def run_server(app: FastAPI, listener: socket.socket) -> None:
    """Serve on a listening socket until SIGTERM or SIGINT."""
    server = uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=STOP_SECONDS))
    with stopping_on_signals(server):
        server.run(sockets=[listener])


@contextmanager
def stopping_on_signals(server: uvicorn.Server) -> Iterator[None]:
    """Turn SIGTERM and SIGINT into an orderly stop.

    Uvicorn raises the signal again once it has stopped, which by default would end the process before its
    caller can clean up.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask_to_stop(*_: Any) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
