"""A router that is away for a while does not fail a Spark task: what is harmless to repeat is tried again."""

import time
from collections.abc import Callable
from typing import TypeVar

from qis_connectors.connection import UnreachableError

SECONDS = 60.0
"""For so long since it last answered; then the task fails and Spark's own retries begin."""

_PAUSE_SECONDS = 0.25
Answer = TypeVar("Answer")


class Patience:
    """`wait` after each error; `renew` when the router has answered."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._end = time.monotonic() + SECONDS

    def wait(self, error: UnreachableError) -> None:
        """A pause before the next attempt; raises `error` when patience has run out."""
        if time.monotonic() > self._end:
            raise error
        time.sleep(_PAUSE_SECONDS)


def patiently(ask: Callable[[], Answer]) -> Answer:
    """The answer, asked for again while the router is unreachable."""
    patience = Patience()
    while True:
        try:
            return ask()
        except UnreachableError as error:
            patience.wait(error)
