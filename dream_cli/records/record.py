"""The record: one prompt, or one conversation, with all its data.

A record is read once, at the edge, into the immutable types below. Unknown fields are kept in `extra` and are written back
unchanged, in their original order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace as replaced
from shlex import quote
from typing import Any

import msgspec
from msgspec.structs import replace

from dream_cli.errors import InvalidRecord, RowError
from dream_cli.records import fields
from dream_cli.records.access import ANYWHERE, Access
from dream_cli.records.columns import prompt_hint
from dream_cli.records.conversation import ROLES, Message, answers_user, is_tool_call, placed, role_of, transcript, without_tools
from dream_cli.records.failure import Failure, read_failure
from dream_cli.records.frozen import Frozen
from dream_cli.records.parts import IMAGE, Place, at_head, marked, read_text, unmarked, with_rest
from dream_cli.records.responses import (
    OBSERVATION,
    Judgement,
    Observation,
    Response,
    read_judgement,
    read_observations,
    read_responses,
)

# Parts of a record that are defined in other files of this folder.
__all__ = ["OBSERVATION", "Judgement", "Message", "Observation", "Place", "Response"]

Json = dict[str, Any]


class Image(Frozen, frozen=True):
    """One picture: a file (`path`), its bytes (`data`), or both, as in the `Image` struct of Hugging Face datasets.

    `access` does not count for equality.
    """

    path: str | None = None
    data: bytes | None = None
    access: Access = ANYWHERE

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and (self.path, self.data) == (other.path, other.data)

    def __hash__(self) -> int:
        return hash((self.path, self.data))


class Turn(Frozen, frozen=True):
    """One prompt to answer, with the conversation before it, its observations and its responses.

    `places` are the positions of the images in the prompt; messages of `history` have their own. `reply` is the index of the assistant
    message that answers the prompt. It is None where no message answers it yet: observations and responses are then on the record.
    """

    prompt: str
    history: tuple[Message, ...] = ()
    observations: tuple[Observation, ...] | None = None
    responses: tuple[Response, ...] = ()
    reply: int | None = None
    places: tuple[Place, ...] = ()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The history and the prompt, as messages."""
        return *self.history, Message("user", self.prompt, places=self.places)

    @property
    def transcript(self) -> str:
        """The prompt alone, or the conversation up to it with the roles named."""
        return transcript(self.messages)

    def seen(self, images: Sequence[Image]) -> tuple[Image, ...]:
        """Return the record's images in the prompt or before it, in order."""
        return tuple(images[place.image] for message in self.messages for place in message.places if place.image < len(images))


class Record(Frozen, frozen=True):
    """One prompt, or one conversation, with all its data; `access` does not count for equality."""

    prompt: str | None = None
    messages: tuple[Message, ...] = ()
    images: tuple[Image, ...] = ()
    observations: tuple[Observation, ...] | None = None
    responses: tuple[Response, ...] | None = None
    id: str | None = None
    error: Failure | None = None
    extra: Mapping[str, Any] = msgspec.field(default_factory=dict)
    order: tuple[str, ...] = ()
    place: str = ""
    image_column: str = "images"
    prompt_column: str = "prompt"
    places: tuple[Place, ...] = ()
    access: Access = ANYWHERE

    def __eq__(self, other: object) -> bool:
        compared = [name for name in self.__struct_fields__ if name != "access"]
        return isinstance(other, Record) and all(getattr(self, name) == getattr(other, name) for name in compared)

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def from_dict(
        cls,
        raw: Mapping[str, Any],
        place: str = "",
        image_column: str = "images",
        prompt_column: str = "prompt",
        access: Access = ANYWHERE,
    ) -> Record:
        """Read a record from a JSON object; raise InvalidRecord with `place` (file:line) where a field is malformed.

        An image column of another name than `images` may hold one image or a list; it is kept in `extra` and written back unchanged. So
        are images in parts of messages: the image column of such a record is "".
        The other fields of a record with an `error` are not read: it is only passed on.
        """
        if raw.get("error") is not None:
            failure = read_failure(raw["error"])
            return cls(
                prompt=None,
                messages=(),
                images=(),
                observations=None,
                responses=None,
                id=None,
                error=failure,
                extra=dict(raw),
                order=tuple(raw),
                place=place,
                image_column=image_column,
                prompt_column=prompt_column,
                access=access,
            )
        try:
            return _read_record(raw, place, image_column=image_column, prompt_column=prompt_column, access=access)
        except InvalidRecord as error:
            raise InvalidRecord(f"{place}: {error}" if place else str(error)) from None

    @property
    def came_with_error(self) -> bool:
        """Whether the record was read with its error: all its fields are then unread in `extra`."""
        return self.error is not None and self.extra.get("error") is not None

    @property
    def labelled_harmful(self) -> bool:
        """Whether the user's own label marks the prompt as harmful."""
        return self.extra.get("harmful") is True

    def to_dict(self, images: list[Any] | None = None) -> Json:
        """Return the record as JSON with `images` as its images (None: without them); the caller knows the folder of their paths."""
        known, extra = self._known(), self.extra
        if images is not None:
            known["images"] = images
        merged = {name: known.pop(name) if name in known else extra[name] for name in self.order if name in known or name in extra}
        if "id" in known:
            merged = {"id": known.pop("id")} | merged
        if "images" in known:
            # Images that were not in the input are written after the prompt.
            merged |= {name: known.pop(name) for name in ("prompt", "messages") if name in known}
            at = 1 + max((i for i, name in enumerate(merged) if name in ("prompt", "messages")), default=-1)
            fields = list(merged.items())
            merged = dict([*fields[:at], ("images", known.pop("images")), *fields[at:]])
        error = known.pop("error", None)
        if known:
            merged |= known
        if len(merged) < len(extra) or not extra.keys() <= merged.keys():
            merged |= {name: value for name, value in extra.items() if name not in merged}
        if error is not None:
            merged["error"] = error
        return merged

    def _known(self) -> Json:
        if self.came_with_error:
            return {}
        known: Json = {}
        if self.id is not None:
            # A number is read as a string and written back as a number.
            original = self.extra.get("id")
            known["id"] = self.id if not isinstance(original, int | float) or _number_as_id(original) != self.id else original
        if self.prompt is not None:
            # A text with image marks is written back with its marks.
            original = self.extra.get(self.prompt_column)
            known[self.prompt_column] = original if isinstance(original, str) and unmarked(original)[0] == self.prompt else self.prompt
        if self.messages:
            known["messages"] = [m.to_dict() for m in self.messages]
        if self.observations is not None:
            known["observations"] = [o.to_dict() for o in self.observations]
        if self.responses is not None and not self._plain_response():
            known["responses"] = [r.to_dict() for r in self.responses]
        if self.error is not None:
            known["error"] = self.error.to_dict()
        return known

    def _plain_response(self) -> bool:
        """Whether the only response is the plain `response` or `completion` string of the input."""
        plain = self.extra.get("response", self.extra.get("completion"))
        return isinstance(plain, str) and self.responses == (Response(plain),) and "responses" not in self.order

    def turns(self) -> tuple[Turn, ...]:
        """Return the turns of this record, in order.

        A conversation has one turn for each assistant message, and one more where it ends with the user.
        """
        if not self.messages:
            places = self.places or at_head(len(self.images))
            return (Turn(self.prompt or "", observations=self.observations, responses=self.responses or (), places=places),)
        messages, turns = placed(self.messages, len(self.images)), []
        for i, message in enumerate(messages):
            if message.role == "assistant" and not is_tool_call(messages, i) and answers_user(messages, i):
                response = Response(message.content, judgement=message.judgement)
                turns.append(_turn(messages[:i], message.observations, (response,), reply=i))
        if messages[-1].role in ("user", "tool") and answers_user(messages, len(messages)):
            turns.append(_turn(messages, self.observations, self.responses or (), reply=None))
        return tuple(turns)

    def require_images(self) -> None:
        """Raise InvalidRecord where a text has more image marks than the record has images: a model would see a mark without its image."""
        places = (*self.places, *(place for message in self.messages for place in message.places))
        marks = 1 + max((place.image for place in places), default=-1)
        if marks > len(self.images):
            marked_for = f"a mark for an image ({IMAGE})" if marks == 1 else f"marks for {marks} images ({IMAGE})"
            has = len(self.images) or "none"
            raise InvalidRecord(f"the text has {marked_for}, and the record has {has}; name the image, or remove the mark")

    def with_turn(self, turn: Turn) -> Record:
        """Return the record with this turn's observations and judgements, on the record or on the message that answers."""
        if turn.reply is None:
            # No empty field is added to a record that was never sampled or judged.
            responses = turn.responses if turn.responses or self.responses is not None else None
            return replace(self, observations=turn.observations, responses=responses)
        judged = turn.responses[0].judgement if turn.responses else None
        message = replaced(self.messages[turn.reply], observations=turn.observations, judgement=judged)
        return replace(self, messages=(*self.messages[: turn.reply], message, *self.messages[turn.reply + 1 :]))

    def failed(self, stage: str, error: RowError) -> Record:
        """Return the record with the error of a stage; the message begins with the record's source and row."""
        raw = {} if error.raw is None else {"raw": error.raw}
        message = f"{self.place}: {error}" if self.place else str(error)
        return replace(self, error=Failure(stage, error.kind, message, raw))

    def retried(self) -> Record:
        """Return the record read again without its error; raise InvalidRecord where it still cannot be read."""
        raw = {k: v for k, v in self.extra.items() if k != "error"}
        return Record.from_dict(raw, self.place, image_column=self.image_column, prompt_column=self.prompt_column, access=self.access)

    def renamed(self) -> Record:
        """Return the record with its images and its prompt in the columns `images` and `prompt`."""
        names = {self.image_column or "images": "images", self.prompt_column: "prompt"}
        if not self.image_column:
            return replace(self, messages=tuple(map(_with_marks, self.messages)), image_column="images").renamed()
        if self.error is not None or names.keys() == {"images", "prompt"}:
            return self
        replaced = names.keys() | names.values()
        extra = {name: value for name, value in self.extra.items() if name not in replaced}
        order = tuple(names.get(name, name) for name in self.order if name in names or name not in replaced)
        return replace(self, extra=extra, order=order, image_column="images", prompt_column="prompt")


def _turn(
    messages: Sequence[Message], observations: tuple[Observation, ...] | None, responses: tuple[Response, ...], *, reply: int | None
) -> Turn:
    *history, request = without_tools(messages)
    return Turn(request.content, tuple(history), observations, responses, reply=reply, places=request.places)


def unreadable(file: str, line: int, message: str) -> Record:
    """Return the record of a line that cannot be read."""
    return Record(error=Failure("read", "unreadable", message, {"file": file, "line": line}), place=f"{file}:{line}")


_OURS = ("id", "messages", "observations", "responses", "error")


def _read_record(raw: Mapping[str, Any], place: str, image_column: str, prompt_column: str, access: Access) -> Record:
    slots: list[Any] = []
    messages = tuple(_read_message(m, i, slots) for i, m in enumerate(fields.items(raw, "messages") or ()))
    if isinstance(raw.get(prompt_column), list):
        raise InvalidRecord(f"{prompt_column!r} is a list, not a string; `dream convert` reads a prompt of messages")
    original = fields.text(raw, prompt_column)
    prompt, places = (original, ()) if original is None or messages else read_text(original, raw.get("image_tag"), prompt_column, slots)
    if prompt is None and not messages:
        other = prompt_hint(raw)
        hint = f"{other!r} may be it: --prompt-column {quote(other)}" if other else "`dream convert` reads rows of other forms"
        raise InvalidRecord(f"missing field {prompt_column!r} (or 'messages', a conversation); {hint}")
    if messages and messages[-1].role == "system":
        raise InvalidRecord("'messages' ends with a system message; there is nothing to answer")
    images = _images_of_slots(slots, _read_images(raw, image_column, access), access)
    messages = tuple(replaced(m, places=with_rest(m.places, len(slots), len(images))) for m in messages)
    named = any(slot is not None for slot in slots)
    known = (*_OURS, prompt_column, *(["images"] if image_column == "images" else []))
    record = Record(
        prompt=prompt,
        messages=messages,
        images=images,
        observations=read_observations(raw, "observations"),
        responses=read_responses(raw),
        id=_identifier(raw),
        extra=fields.rest_of(raw, *known)
        | ({} if isinstance(raw.get("id"), str | None) else {"id": raw["id"]})
        | ({} if prompt == original else {prompt_column: original}),
        order=tuple(raw),
        place=place,
        image_column="" if named else image_column,
        prompt_column=prompt_column,
        places=with_rest(places, len(slots), len(images)),
        access=access,
    )
    if not record.turns():
        raise InvalidRecord("'messages' holds no user message that is answered or comes last")
    return record


def _identifier(raw: Mapping[str, Any]) -> str | None:
    value = raw.get("id")
    if value is None or isinstance(value, str):
        return value
    if (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer()):
        return _number_as_id(value)
    raise InvalidRecord(f"'id' is {fields.kind(value)}, not a string or a whole number")


def _number_as_id(value: Any) -> str:
    """Return a whole number as an id; 3.0 is read as 3, because pandas turns a column of integers with a missing value into floats."""
    return str(int(value))


def _read_message(raw: Any, index: int, slots: list[Any]) -> Message:
    """Read a message; append the source of each of its images to `slots`, None for an image of the record's own list."""
    where = f"messages[{index}]"
    name, content = fields.mapping(raw, where).get("role"), raw.get("content")
    role = role_of(name)
    if role is None:
        raise InvalidRecord(f"{where} has no 'role' of {', '.join(ROLES)}")
    no_places: tuple[Place, ...] = ()
    if content is None and role == "assistant" and (raw.get("tool_calls") or raw.get("function_call")):
        text, places = "", no_places
    elif role == "assistant" and isinstance(content, str):
        text, places = content, no_places
    else:
        text, places = read_text(content, raw.get("image_tag"), where, slots)
    as_came = {"content": content} if content != text else {}
    as_came |= {"role": name} if name != role and name in ROLES else {}
    rest = fields.rest_of(raw, "role", "content", "observations", "judgement") | as_came
    observations, judgement = read_observations(raw, "observations"), read_judgement(raw.get("judgement"), where)
    return Message(role, text, observations=observations, judgement=judgement, extra=rest, places=places)


def _images_of_slots(slots: list[Any], beside: tuple[Image, ...], access: Access) -> tuple[Image, ...]:
    """Return the images of a record, from its messages or its image column; raise InvalidRecord where it has both."""
    named = [slot for slot in slots if slot is not None]
    if named and (beside or len(named) < len(slots)):
        raise InvalidRecord("images are named in parts of the messages and beside them; name each image in one place")
    return tuple(read_image(image, f"the image of part {i + 1}", access) for i, image in enumerate(named)) if named else beside


def _with_marks(message: Message) -> Message:
    """Return a message whose content is one text with a mark for each image."""
    if isinstance(message.extra.get("content"), list):
        text, _ = marked(message.extra["content"], "")
        return replaced(message, extra={**message.extra, "content": text})
    return message


def _read_images(raw: Mapping[str, Any], column: str, access: Access) -> tuple[Image, ...]:
    value = raw.get(column)
    # `images` is a list; a column of another name may hold one image alone.
    images = fields.items(raw, column) if column == "images" or isinstance(value, list) else [value]
    return tuple(
        read_image(image, f"{column}[{i}]", access) for i, image in enumerate(images or ()) if column == "images" or image is not None
    )


def read_image(raw: Any, where: str, access: Access) -> Image:
    """Read an image as a record names it: a path, a URI or {bytes, path}; raise InvalidRecord for anything else."""
    if isinstance(raw, str) and raw:
        return Image(raw, access=access)
    if isinstance(raw, Mapping):
        path, data = raw.get("path"), raw.get("bytes")
        if isinstance(data, bytes) and data:
            return Image(path if isinstance(path, str) else None, data, access)
        if data is None and isinstance(path, str) and path:
            return Image(path, access=access)
    empty = isinstance(raw, str | bytes | Mapping | list) and not raw
    raise InvalidRecord(f"{where} is {'empty' if empty else fields.kind(raw)}; an image is a path, a data: URI or {{bytes, path}}")
