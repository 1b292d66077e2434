"""Files at a URL (`s3://`, `gs://`, `hf://`, `https://`, ...), opened by fsspec, which the extra `remote` installs."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from dream_cli.errors import UsageError, with_extra

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_GLOB = re.compile(r"[*?\[]")


def is_url(path: str) -> bool:
    """Whether a path is a URL."""
    return _URL.match(path) is not None


def opened(source: str) -> IO[bytes]:
    """Open a file or a URL to read its bytes; raise UsageError or OSError where that is not possible."""
    if not is_url(source):
        return open(source, "rb")
    files, path = _filesystem(source)
    with _as_usage_error(source):
        # The files of fsspec have no length limit for a line.
        return io.BufferedReader(files.open(path, "rb"))


def exists(url: str) -> bool:
    """Whether there is a file at a URL; raise UsageError where that cannot be determined."""
    files, path = _filesystem(url)
    with _as_usage_error(url):
        return bool(files.exists(path))


def listed(url: str, suffixes: tuple[str, ...]) -> list[str]:
    """Return the URLs that a URL matches, sorted: of a glob, of the files of a folder (it ends in /), otherwise the URL itself."""
    if not url.endswith("/") and not _GLOB.search(url):
        return [url]
    files, path = _filesystem(url)
    with _as_usage_error(url):
        paths = files.glob(path) if _GLOB.search(url) else files.ls(path, detail=False)
    return sorted(str(files.unstrip_protocol(one)) for one in paths if one.lower().endswith(suffixes))


@contextmanager
def uploading(url: str) -> Iterator[IO[bytes]]:
    """Yield an open local file that is uploaded to the URL only when the body succeeds. Raises UsageError."""
    files, path = _filesystem(url)
    with tempfile.NamedTemporaryFile(prefix="dream-") as file:
        yield cast("IO[bytes]", file)
        file.flush()
        with _as_usage_error(url):
            files.makedirs(path.rpartition("/")[0], exist_ok=True)
            files.put_file(file.name, path)


def _filesystem(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise UsageError(f"{url} is a URL, and fsspec opens it; {with_extra('remote')}, or download the file") from None
    try:
        files, path = url_to_fs(url)
    except ImportError as error:
        # fsspec names the package of a service; that of s3:// comes with the extra.
        fix = with_extra("remote") if url.startswith("s3://") else "install the package that is named"
        raise UsageError(f"{url} cannot be opened ({error}); {fix}, or download the file") from None
    except ValueError as error:
        raise UsageError(f"{url} is not a URL that can be opened: {error}") from None
    return files, str(path)


@contextmanager
def _as_usage_error(url: str) -> Iterator[None]:
    """Turn any exception of the body into a UsageError that names the URL; each service has exceptions of its own."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{url} cannot be reached: {str(error) or type(error).__name__}; check its name, the network and your keys"
        ) from error
