"""Signals, from the first millisecond to the last.

The handlers are set before anything of note is imported and stay to the end of
the process. No handler is ever put in the place of another, so no signal falls
into a gap between two, and none breaks into code that does not expect it: a
signal is remembered until somebody asks for it.

This module imports nothing that takes time: before the handlers are set, a Ctrl-C
would end in a traceback.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes 5 ms
if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType
else:
    import _signal as signal  # what signal is made of, without its enums, which take 4 ms

__all__ = ["expect", "install", "interrupted", "interruptible", "received"]

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_arrived: list[int] = []
_wake: Callable[[], None] | None = None
_interruptible = False
_interrupted: bool | None = False
"""None where signals are expected."""


def install() -> None:
    """Remember SIGINT, SIGTERM and SIGHUP from now on.

    SIGHUP stays ignored where it is, for the sake of nohup. One that was blocked up
    to here arrives now: the image's entry point blocks SIGTERM, since the kernel
    throws away what comes to a container's first process before it has a handler,
    and Python alone takes longer than that to start.
    """
    global _interrupted  # noqa: PLW0603 - signals belong to the process
    _interrupted = False
    _arrived.clear()
    for number in _NUMBERS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _remember)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _NUMBERS)


def _remember(number: int, _frame: object) -> None:
    global _interrupted, _interruptible  # noqa: PLW0603 - signals belong to the process
    _arrived.append(number)
    if _interrupted is not None:
        _interrupted = True
    if _interruptible:
        _interruptible = False  # the next one must not break into what ends the command
        raise KeyboardInterrupt
    if _wake is not None:
        _wake()


def expect() -> None:
    """Take a signal for the usual end of the command from now on, for no interruption."""
    global _interrupted  # noqa: PLW0603 - signals belong to the process
    _interrupted = None


def interrupted() -> bool:
    """Whether a signal arrived that was not expected, whoever has seen it."""
    return bool(_interrupted)


class interruptible:  # noqa: N801 - used as the context managers of contextlib are
    """Let a signal end what may take long outside of trio, such as reading a pipe.

    Raises:
        KeyboardInterrupt: a signal arrived, or had arrived before.
    """

    def __enter__(self) -> None:
        global _interruptible  # noqa: PLW0603 - signals belong to the process
        _interruptible = True
        if _arrived:
            _interruptible = False
            raise KeyboardInterrupt

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        global _interruptible  # noqa: PLW0603 - signals belong to the process
        _interruptible = False


class received:  # noqa: N801 - used as the context managers of contextlib are
    """Give the signals to a trio task, those that have arrived before too.

    It is an iterator over them while it is entered. Cancelling the iteration
    loses none.
    """

    def __enter__(self) -> AsyncIterator[int]:
        global _wake  # noqa: PLW0603 - signals belong to the process
        import trio  # noqa: PLC0415 - takes 80 ms

        self._token = trio.lowlevel.current_trio_token()
        self._new_event = trio.Event
        self._event = trio.Event()
        _wake = self._look
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        global _wake  # noqa: PLW0603 - signals belong to the process
        _wake = None

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        while not _arrived:
            # A signal after the check sets the new event: `_set` runs later.
            self._event = self._new_event()
            await self._event.wait()
        return _arrived.pop(0)

    def _look(self) -> None:
        """Have the task look for signals; called in the middle of anything."""
        self._token.run_sync_soon(self._set, idempotent=True)

    def _set(self) -> None:
        self._event.set()
