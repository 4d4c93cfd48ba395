"""What a session does between two calls, in a thread of its own."""

import threading
from collections.abc import Callable


class Background:
    """Work that is done piece by piece while nobody calls. A call waits for one piece at most.

    At rest it holds nothing of the session, so that one that is dropped is gone at once. A process that
    ends while it works waits for the piece, too: compiled code cannot be left halfway.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._called = threading.Event()
        self._failure: BaseException | None = None

    @property
    def here(self) -> bool:
        """Whether this is its thread."""
        return threading.current_thread() is self._thread

    @property
    def busy(self) -> bool:
        """Whether it is at work."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, piece: Callable[[], bool]) -> None:
        """Does a piece, and another for as long as it returns True and nobody calls.

        What it can have no thread for is not done.
        """
        self._called.clear()
        self._thread = threading.Thread(target=self._work, args=(piece,), name="pqjax-background")
        try:
            self._thread.start()
        except (RuntimeError, MemoryError):
            self._thread = None

    def pause(self) -> None:
        """Waits for the piece it is at; then nothing is done until `begin`.

        Raises:
          BaseException: what ended a piece, once.
        """
        self._called.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _work(self, piece: Callable[[], bool]) -> None:
        try:
            while not self._called.is_set() and piece():
                pass
        except BaseException as error:  # raised where somebody waits
            self._failure = error
