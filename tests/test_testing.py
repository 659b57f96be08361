"""The judge in tests that are no coroutines."""

from __future__ import annotations

import signal
import socket
import threading

import pytest

from trio_echo.testing import split_probe


def test_ctrl_c_ends_a_probe_as_it_ends_a_test() -> None:
    """It is no group of exceptions, for which pytest would go on with the next test."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def interrupt() -> None:
            with server.accept()[0]:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                split_probe(f"127.0.0.1:{server.getsockname()[1]}", timeout=60)
        finally:
            thread.join()
