"""What flows through the pipe: one record is one prompt with everything known about it.

A record is read once, at the edge, into the frozen dataclasses below. Fields that are not ours stay in `extra`
and are written back as they came, in the order in which they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from dream_cli.errors import InvalidRecord, RowError
from dream_cli.records import fields
from dream_cli.records.columns import prompt_like
from dream_cli.records.verdicts import Verdict, Verdicts, read_verdicts

Json = dict[str, Any]


@dataclass(frozen=True)
class Image:
    """One picture: a file (`path`), its bytes (`data`), or both, as in the `Image` struct of Hugging Face datasets."""

    path: str | None = None
    data: bytes | None = None


# The three texts of an observation (DREAM, section 3), in the order in which they are written.
OBSERVATION = ("malicious_content", "source", "risk_category")


@dataclass(frozen=True)
class Observation:
    """One risk of the input: which content, from which source, of which category (DREAM, section 3)."""

    malicious_content: str
    source: str
    risk_category: str
    confidence: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def texts(self) -> dict[str, str]:
        """The three texts by name."""
        return {name: getattr(self, name) for name in OBSERVATION}

    def to_dict(self) -> Json:
        """Return the observation as JSON; `confidence` only where it is known."""
        return fields.with_rest(self.texts | ({} if self.confidence is None else {"confidence": self.confidence}), self.extra)


@dataclass(frozen=True)
class Judgement:
    """What the judge measured of one response, or why it is unscored.

    `global_score` is in 0..10, `observation_score`, `helpfulness` and `score` are in [0, 1]; `recognised` holds one
    entry for each observation, None where that question could not be read. `unscored` is the reason why there is no score.
    """

    rubric: str | None = None
    global_score: float | None = None
    recognised: tuple[float | None, ...] | None = None
    observation_score: float | None = None
    helpfulness: float | None = None
    harm: float | None = None
    score: float | None = None
    model: str | None = None
    unscored: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> Json:
        """Return the judgement as JSON, without the parts that are not known."""
        names = ("rubric", "global_score", "recognised", "observation_score", "helpfulness", "harm", "score", "model", "unscored")
        known = {name: part for name in names if (part := getattr(self, name)) is not None}
        if self.recognised is not None:
            known["recognised"] = list(self.recognised)
        return fields.with_rest(known, self.extra)


@dataclass(frozen=True)
class Response:
    """One answer of a policy to the prompt, with its judgement where there is one."""

    text: str
    model: str | None = None
    finish_reason: str | None = None
    judgement: Judgement | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def verdicts(self) -> Verdicts:
        """The verdicts of an evaluation by rule and question, read once; empty where nothing was asked."""
        return read_verdicts(self.extra.get("verdicts"))

    def verdicts_under(self, rule: str) -> Mapping[str, Verdict]:
        """Return the verdicts under a rule by question."""
        return self.verdicts.get(rule, {})

    def with_verdicts(self, rule: str, new: Mapping[str, Verdict]) -> Response:
        """Return the response with verdicts added under a rule; those of other rules stay as they came."""
        if not new:
            return self
        came = self.extra.get("verdicts")
        under = {question: verdict.to_dict() for question, verdict in (*self.verdicts_under(rule).items(), *new.items())}
        return replace(self, extra={**self.extra, "verdicts": {**(came if isinstance(came, Mapping) else {}), rule: under}})

    def to_dict(self) -> Json:
        """Return the response as JSON."""
        names = ("text", "model", "finish_reason")
        known = fields.with_rest({name: part for name in names if (part := getattr(self, name)) is not None}, self.extra)
        if self.judgement is not None:
            known["judgement"] = self.judgement.to_dict()
        return known


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; observations and judgement stand on the assistant turn they belong to."""

    role: str
    content: str
    observations: tuple[Observation, ...] | None = None
    judgement: Judgement | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> Json:
        """Return the message as JSON."""
        known: Json = {"role": self.role, "content": self.content} | dict(self.extra)
        if self.observations is not None:
            known["observations"] = [o.to_dict() for o in self.observations]
        if self.judgement is not None:
            known["judgement"] = self.judgement.to_dict()
        return known


@dataclass(frozen=True)
class Failure:
    """Why a record stopped: the stage, the kind of failure, and a message that says what to do."""

    stage: str
    kind: str
    message: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> Json:
        """Return the failure as JSON."""
        return {"stage": self.stage, "kind": self.kind, "message": self.message} | dict(self.extra)


@dataclass(frozen=True)
class Turn:
    """One prompt to be answered: what was said before it, its observations, and its responses.

    `reply` is the index of the assistant message that answers it, None for a prompt that no message answers yet:
    its observations and responses then stand on the record.
    """

    prompt: str
    history: tuple[Message, ...] = ()
    observations: tuple[Observation, ...] | None = None
    responses: tuple[Response, ...] = ()
    reply: int | None = None

    @property
    def transcript(self) -> str:
        """The prompt alone, or the conversation up to it with the speakers named."""
        if not self.history:
            return self.prompt
        said = [f"{m.role.capitalize()}: {m.content}" for m in self.history if m.role != "system"]
        return "\n".join([*said, f"User: {self.prompt}"])


@dataclass(frozen=True)
class Record:
    """One prompt, or one conversation, with everything known about it."""

    prompt: str | None = None
    messages: tuple[Message, ...] = ()
    images: tuple[Image, ...] = ()
    observations: tuple[Observation, ...] | None = None
    responses: tuple[Response, ...] | None = None
    id: str | None = None
    error: Failure | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    place: str = ""
    image_column: str = "images"
    prompt_column: str = "prompt"

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], place: str = "", image_column: str = "images", prompt_column: str = "prompt") -> Record:
        """Read a record from a JSON object; raise InvalidRecord with `place` (file:line) where a field is malformed.

        An image column of another name than `images` may hold one image or a list; it stays in `extra` and is written as it came.
        A record with an `error` is not looked into: it is only passed on.
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
            )
        try:
            return _read_record(raw, place, image_column, prompt_column)
        except InvalidRecord as error:
            raise InvalidRecord(f"{place}: {error}" if place else str(error)) from None

    @property
    def came_with_error(self) -> bool:
        """Whether the record was read with its error: then all its fields stand in `extra`, and no stage has looked at them."""
        return self.error is not None and self.extra.get("error") is not None

    def to_dict(self) -> Json:
        """Return the record as JSON, images excepted: those are written by the stream, which knows the folder."""
        known = self._known()
        merged = {
            name: known.pop(name) if name in known else self.extra[name] for name in self.order if name in known or name in self.extra
        }
        if "id" in known:
            merged = {"id": known.pop("id")} | merged
        error = known.pop("error", None)
        merged |= known | {name: value for name, value in self.extra.items() if name not in merged}
        return merged | ({"error": error} if error is not None else {})

    def _known(self) -> Json:
        if self.came_with_error:
            return {}
        known: Json = {}
        if self.id is not None:
            # A number is read as a string, and written as it came.
            came = self.extra.get("id")
            known["id"] = self.id if not isinstance(came, int | float) or _number_as_id(came) != self.id else came
        if self.prompt is not None:
            known[self.prompt_column] = self.prompt
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
        """Whether the responses are only the plain `response` string that the record came with."""
        return self.responses == (Response(str(self.extra.get("response"))),) and "responses" not in self.order

    def turns(self) -> tuple[Turn, ...]:
        """Return the prompts of this record that can be answered, in order.

        A conversation has one turn for each assistant message, and one more where it ends with the user.
        """
        if not self.messages:
            return (Turn(self.prompt or "", (), self.observations, self.responses or ()),)
        turns = []
        for i, message in enumerate(self.messages):
            before = self.messages[i - 1] if i else None
            if message.role == "assistant" and before is not None and before.role == "user":
                said = (Response(message.content, judgement=message.judgement),)
                turns.append(
                    Turn(prompt=before.content, history=self.messages[: i - 1], observations=message.observations, responses=said, reply=i)
                )
        if self.messages[-1].role == "user":
            turns.append(Turn(self.messages[-1].content, self.messages[:-1], self.observations, self.responses or ()))
        return tuple(turns)

    def with_turn(self, turn: Turn) -> Record:
        """Return the record with this turn's observations and judgements written where they belong."""
        if turn.reply is None:
            # A record never judged or sampled keeps the absence of the field.
            responses = turn.responses if turn.responses or self.responses is not None else None
            return replace(self, observations=turn.observations, responses=responses)
        judged = turn.responses[0].judgement if turn.responses else None
        message = replace(self.messages[turn.reply], observations=turn.observations, judgement=judged)
        return replace(self, messages=(*self.messages[: turn.reply], message, *self.messages[turn.reply + 1 :]))

    def failed(self, stage: str, error: RowError) -> Record:
        """Return the record marked with the error that a stage met on it, and where it was read."""
        raw = {} if error.raw is None else {"raw": error.raw}
        message = f"{self.place}: {error}" if self.place else str(error)
        return replace(self, error=Failure(stage, error.kind, message, raw))

    def retried(self) -> Record:
        """Return the record without its error, read anew; raise InvalidRecord where it still cannot be read."""
        raw = {k: v for k, v in self.extra.items() if k != "error"}
        return Record.from_dict(raw, self.place, self.image_column, self.prompt_column)

    def renamed(self) -> Record:
        """Return the record with its images and its prompt in the columns `images` and `prompt`."""
        names = {self.image_column: "images", self.prompt_column: "prompt"}
        if self.error is not None or names.keys() == {"images", "prompt"}:
            return self
        replaced = names.keys() | names.values()
        extra = {name: value for name, value in self.extra.items() if name not in replaced}
        order = tuple(names.get(name, name) for name in self.order if name in names or name not in replaced)
        return replace(self, extra=extra, order=order, image_column="images", prompt_column="prompt")


def unreadable(file: str, line: int, message: str) -> Record:
    """Return the row that stands for a line which cannot be read."""
    return Record(error=Failure("read", "unreadable", message, {"file": file, "line": line}), place=f"{file}:{line}")


def read_failure(raw: Any) -> Failure:
    """Read an `error` field; anything that is not one of ours is kept as its message."""
    if not isinstance(raw, Mapping):
        return Failure("unknown", "unknown", str(raw))
    rest = {k: v for k, v in raw.items() if k not in ("stage", "kind", "message")}
    return Failure(str(raw.get("stage", "unknown")), str(raw.get("kind", "unknown")), str(raw.get("message", "")), rest)


_OURS = ("id", "messages", "observations", "responses", "error")


def _read_record(raw: Mapping[str, Any], place: str, image_column: str, prompt_column: str) -> Record:
    messages = tuple(_read_message(m, i) for i, m in enumerate(fields.items(raw, "messages") or ()))
    prompt = fields.text(raw, prompt_column)
    if prompt is None and not messages:
        other = prompt_like(raw)
        hint = f"; {other!r} may be it: --prompt-column {other}" if other else ""
        raise InvalidRecord(f"missing field {prompt_column!r} (or 'messages', a conversation){hint}")
    if messages and messages[-1].role == "system":
        raise InvalidRecord("'messages' ends with a system message; there is nothing to answer")
    ours = (*_OURS, prompt_column, *(["images"] if image_column == "images" else []))
    record = Record(
        prompt=prompt,
        messages=messages,
        images=_read_images(raw, image_column),
        observations=read_observations(raw, "observations"),
        responses=_read_responses(raw),
        id=_identifier(raw),
        extra=fields.rest_of(raw, *ours) | ({} if isinstance(raw.get("id"), str | None) else {"id": raw["id"]}),
        order=tuple(raw),
        place=place,
        image_column=image_column,
        prompt_column=prompt_column,
    )
    if not record.turns():
        raise InvalidRecord("'messages' holds no message of the user that is answered or stands last")
    return record


def _identifier(raw: Mapping[str, Any]) -> str | None:
    value = raw.get("id")
    if value is None or isinstance(value, str):
        return value
    if (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer()):
        return _number_as_id(value)
    raise InvalidRecord(f"'id' is {fields.kind(value)}, not a string or a whole number")


def _number_as_id(value: Any) -> str:
    """Return a whole number as an id; 3.0 is 3: pandas makes floats of whole numbers in a column with a hole."""
    return str(int(value))


def _read_responses(raw: Mapping[str, Any]) -> tuple[Response, ...] | None:
    if raw.get("responses") is None:
        plain = fields.text(raw, "response")
        return None if plain is None else (Response(plain),)
    return tuple(_read_response(r, i) for i, r in enumerate(fields.items(raw, "responses") or ()))


def _read_response(raw: Any, index: int) -> Response:
    if isinstance(raw, str):
        return Response(raw)
    where = f"responses[{index}]"
    text = fields.mapping(raw, where).get("text")
    if not isinstance(text, str):
        raise InvalidRecord(f"{where} has no 'text' string")
    rest = fields.rest_of(raw, "text", "model", "finish_reason", "judgement")
    return Response(
        text=text,
        model=fields.text(raw, "model"),
        finish_reason=fields.text(raw, "finish_reason"),
        judgement=read_judgement(raw.get("judgement"), where),
        extra=rest,
    )


def read_judgement(raw: Any, where: str) -> Judgement | None:
    """Read a judgement; numbers that are not numbers raise InvalidRecord."""
    if raw is None:
        return None
    known = {"global_score": 10, "observation_score": 1, "helpfulness": 1, "harm": 1, "score": 1}
    numbers = {name: fields.number(fields.mapping(raw, f"{where}.judgement"), name, where, top) for name, top in known.items()}
    recognised = fields.items(raw, "recognised")
    names = (*known, "rubric", "recognised", "model", "unscored")
    return Judgement(
        rubric=fields.text(raw, "rubric"),
        recognised=None if recognised is None else tuple(fields.number({"recognised": r}, "recognised", where, 1) for r in recognised),
        model=fields.text(raw, "model"),
        unscored=fields.text(raw, "unscored"),
        extra=fields.rest_of(raw, *names),
        **numbers,
    )


def read_observations(raw: Mapping[str, Any], name: str) -> tuple[Observation, ...] | None:
    """Read a list of observations as it stands; None where the field is absent. Names are made canonical by the taxonomy."""
    items = fields.items(raw, name)
    return None if items is None else tuple(_read_observation(o, f"{name}[{i}]") for i, o in enumerate(items))


def _read_observation(raw: Any, where: str) -> Observation:
    for name in OBSERVATION:
        if not isinstance(fields.mapping(raw, where).get(name), str):
            raise InvalidRecord(f"{where} has no '{name}' string")
    rest = fields.rest_of(raw, *OBSERVATION, "confidence")
    return Observation(**{name: raw[name] for name in OBSERVATION}, confidence=fields.number(raw, "confidence", where, 1), extra=rest)


def _read_message(raw: Any, index: int) -> Message:
    where = f"messages[{index}]"
    role, content = fields.mapping(raw, where).get("role"), raw.get("content")
    if role not in ("system", "user", "assistant"):
        raise InvalidRecord(f"{where} has no 'role' of system, user or assistant")
    if not isinstance(content, str):
        raise InvalidRecord(f"{where} has no 'content' string")
    rest = fields.rest_of(raw, "role", "content", "observations", "judgement")
    return Message(
        role=role,
        content=content,
        observations=read_observations(raw, "observations"),
        judgement=read_judgement(raw.get("judgement"), where),
        extra=rest,
    )


def _read_images(raw: Mapping[str, Any], column: str) -> tuple[Image, ...]:
    value = raw.get(column)
    # `images` is a list; a column of another name may hold one image alone.
    images = fields.items(raw, column) if column == "images" or isinstance(value, list) else [value]
    return tuple(_read_image(image, f"{column}[{i}]") for i, image in enumerate(images or ()) if column == "images" or image is not None)


def _read_image(raw: Any, where: str) -> Image:
    if isinstance(raw, str) and raw:
        return Image(path=raw)
    if isinstance(raw, Mapping):
        path, data = raw.get("path"), raw.get("bytes")
        if isinstance(data, bytes) and data:
            return Image(path=path if isinstance(path, str) else None, data=data)
        if data is None and isinstance(path, str) and path:
            return Image(path=path)
    empty = isinstance(raw, str | bytes | Mapping | list) and not raw
    raise InvalidRecord(f"{where} is {'empty' if empty else fields.kind(raw)}; an image is a path, a data: URI or {{bytes, path}}")
