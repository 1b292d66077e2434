"""The secrets of a request in a text of a server, which may repeat them in any of many forms."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from urllib.parse import quote, quote_plus

# A secret of fewer characters could be a part of any word.
_LEAST = 3
# A text with this many first characters of a secret reveals it; in a text of so many characters the case does not matter.
_HEAD = 8
MASK = "***"


@dataclass(frozen=True)
class Mask:
    """Replaces secrets in a text: each in all its spellings, in any case, and also its beginning of at least 8 characters."""

    secrets: tuple[str, ...] = field(default=(), repr=False)

    def __call__(self, text: str) -> str:
        """Return the text with `***` for each secret."""
        pieces, end = [], 0
        while self._forms and (found := self._heads.search(text, end)):
            pieces += [text[end : found.start()], MASK]
            end = max(_end_of(form, text, found.start()) for form in self._forms[found[0].lower()])
        return "".join([*pieces, text[end:]])

    @cached_property
    def _forms(self) -> dict[str, list[str]]:
        """The spellings of the secrets by their first characters, in lower case."""
        forms: dict[str, list[str]] = {}
        for secret in self.secrets:
            for form in spellings(secret) if len(secret) >= _LEAST else ():
                forms.setdefault(form[:_HEAD].lower(), []).append(form)
        return forms

    @cached_property
    def _heads(self) -> re.Pattern[str]:
        # The longest first: one may begin with another.
        heads = sorted({form[:_HEAD] for forms in self._forms.values() for form in forms}, key=len, reverse=True)
        return re.compile("|".join(f"(?i:{re.escape(head)})" if len(head) == _HEAD else re.escape(head) for head in heads))


def _end_of(form: str, text: str, start: int) -> int:
    """Return the end of the beginning of `form` that is at `start` in a text."""
    shown = text[start : start + len(form)]
    same = takewhile(lambda pair: pair[0].lower() == pair[1].lower(), zip(form, shown, strict=False))
    return start + sum(1 for _ in same)


def spellings(secret: str) -> set[str]:
    """Return the forms in which a server may repeat a secret.

    They are the secret itself, percent-encoded or escaped for HTML, each also in JSON, and the part of a base64 that holds it.
    """
    forms = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), html.escape(secret)}
    in_json = {json.dumps(form)[1:-1] for form in forms}
    in_json |= {form.replace("/", "\\/") for form in in_json}
    # A gateway quotes the reply of the server behind it.
    return forms | in_json | {json.dumps(form)[1:-1] for form in in_json} | set(_in_base64(secret))


def _in_base64(secret: str) -> Iterator[str]:
    """Yield the characters that a secret has in base64 at each offset, as in `user:secret`: those that depend on nothing around it."""
    data = secret.encode("utf-8", "surrogatepass")
    for offset in range(3):
        begin, end = -(-offset * 8 // 6), (offset + len(data)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            form = encode(bytes(offset) + data).decode()[begin:end]
            if len(form) >= _HEAD:
                yield form
