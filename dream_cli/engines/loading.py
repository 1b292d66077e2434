"""Whether a model is being loaded, which blocks the event loop: a signal must then interrupt at once, without the loop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Loading:
    """Whether this process is loading a model."""

    active: bool = False

    @contextlib.contextmanager
    def model(self) -> Iterator[None]:
        """Mark the body as the loading of a model."""
        self.active = True
        try:
            yield
        finally:
            self.active = False


LOADING = Loading()
