"""The cache folder of `dream`: its content can be computed again at any time."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder of the file $DREAM_STORE if it is set, otherwise `dream` in the user's cache folder ($XDG_CACHE_HOME)."""
    if store := os.environ.get("DREAM_STORE"):
        return Path(store).parent
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "dream"
