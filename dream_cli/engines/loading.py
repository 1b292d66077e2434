"""Whether a model is being loaded, which holds up the event loop: a signal then interrupts at once, and not when the loop goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Loading:
    """The state of this process."""

    active: bool = False

    @contextlib.contextmanager
    def model(self) -> Iterator[None]:
        """Load a model in the body."""
        self.active = True
        try:
            yield
        finally:
            self.active = False


LOADING = Loading()
