"""Suggestions of similar file names for a file that does not exist."""

from __future__ import annotations

import difflib
import os


def did_you_mean(path: str, suffixes: tuple[str, ...]) -> str:
    """Return a hint with similar names of these suffixes beside a missing file, or with the files of a folder; empty if there are none."""
    folder, name = os.path.split(path)
    try:
        names = [n for n in sorted(os.listdir(folder or ".")) if n.lower().endswith(suffixes)]
    except OSError:
        return f"; nor does the folder {folder}" if name else ""
    # Compared without the suffixes, which make any two names similar.
    stems = {n: n.partition(".")[0].lower() for n in names}
    near = difflib.get_close_matches(name.partition(".")[0].lower(), list(stems.values()), cutoff=0.7)
    close = [n for n in names if stems[n] in near][:3] if name else names if len(names) <= 3 else []
    return f"; did you mean {' or '.join(os.path.join(folder, n) for n in close)}?" if close else ""
