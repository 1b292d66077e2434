"""The names of files that are near to one that does not exist."""

from __future__ import annotations

import difflib
import os


def did_you_mean(path: str, suffixes: tuple[str, ...]) -> str:
    """Return a hint at files of these suffixes beside one that does not exist, or at those of a folder; empty where none is near."""
    folder, name = os.path.split(path)
    try:
        names = [n for n in sorted(os.listdir(folder or ".")) if n.lower().endswith(suffixes)]
    except OSError:
        return f"; nor does the folder {folder}"
    # Compared without the suffixes, which make any two names look alike.
    stems = {n: n.partition(".")[0].lower() for n in names}
    near = difflib.get_close_matches(name.partition(".")[0].lower(), list(stems.values()), cutoff=0.7)
    close = [n for n in names if stems[n] in near][:3] if name else names if len(names) <= 3 else []
    return f"; did you mean {' or '.join(os.path.join(folder, n) for n in close)}?" if close else ""
