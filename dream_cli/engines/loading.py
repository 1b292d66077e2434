"""Whether a model is being loaded, which blocks the event loop: a signal must then interrupt at once, without the loop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Loading:
    """Whether this process is loading a model, and whether a signal has interrupted that without an effect so far."""

    active: bool = False
    interrupted: bool = False

    @contextlib.contextmanager
    def model(self) -> Iterator[None]:
        """Mark the body as the loading of a model."""
        self.active = True
        try:
            yield
        except BaseException:
            self.interrupted = False
            raise
        finally:
            self.active = False


LOADING = Loading()
