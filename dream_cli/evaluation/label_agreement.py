"""Hold the labels of a judge, or of several, against those of people: who agrees with whom, and which way the judges lean."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dream_cli.choices import Rule
from dream_cli.errors import UsageError
from dream_cli.method.stages import identified
from dream_cli.records.record import Json, Record, Response
from dream_cli.stats.agreement import (
    Estimate,
    Label,
    Share,
    alpha,
    cohen_kappa,
    confusion,
    corrected_rate,
    length_bias,
    mean_error,
    position_bias,
    rank_correlation,
    true_rates,
)
from dream_cli.stats.intervals import Interval, percent, require_libraries

# The record, which of its responses, the question.
Slot = tuple[str, int, str]
SCORES = ("global_score", "observation_score", "helpfulness", "harm", "score")
REFUSAL = ("comply", "partial", "refuse")  # the one question whose words have an order
WORDS = {"yes": True, "true": True, "no": False, "false": False}


@dataclass(frozen=True)
class Voice:
    """What one judge said to one question about one response; no label where it could not be read."""

    label: Label | None
    text: str
    orders: tuple[float, float] | None = None
    joint: bool = False  # what a majority of judges said


@dataclass(frozen=True)
class Labelled:
    """A label that people gave, and the response they gave it to, where their file tells it."""

    label: Label
    text: str | None
    place: str


@dataclass(frozen=True)
class Matched:
    """One judge's answers to one question, beside those of people."""

    question: str
    judge: str
    pairs: tuple[tuple[Label, Label], ...]  # (gold, judged)
    words: tuple[int, ...]  # of each response
    voices: tuple[Voice, ...]  # all that the judge said to this question, labelled or not
    unscored: int
    missing: int
    other_text: int


def gold_labels(records: Iterable[Record]) -> dict[Slot, Labelled]:
    """Return the labels of people, by slot: from `gold` of the row, else `benchmark.gold`, else the row's own verdicts and scores.

    `gold` is an object of question and label, or a list of such, one for each response. Raises UsageError where a slot has two labels.
    """
    found: dict[Slot, Labelled] = {}
    for record in records:
        name = _name(record)
        for trial, labels in enumerate(_gold(record)):
            for question, label in labels.items():
                slot = (name, trial, question)
                if slot in found:
                    raise UsageError(f"{record.place}: {name} was labelled before, at {found[slot].place}; keep one label a response")
                if label is not None:
                    found[slot] = Labelled(_plain(label, record.place), _text(record, trial), record.place)
    return found


def unreadable(record: Record) -> bool:
    """Whether a row could not be read; an id with gold labels is enough, it needs no prompt."""
    return record.error is not None and not record.came_with_error and not {"id", "gold"} <= set(record.extra)


def _name(record: Record) -> str:
    return str(identified(record).id if record.error is None else record.extra.get("id"))


def _gold(record: Record) -> Sequence[Mapping[str, Any]]:
    said = record.extra.get("gold")
    if said is None:
        said = (record.extra.get("benchmark") or {}).get("gold")
    if said is None:
        voices = [list(_voices(response, "strict")) for response in record.responses or ()]
        return [{question: voice.label for _, question, voice in said if not voice.joint} for said in voices]
    labels = said if isinstance(said, list) else [said]
    if not all(isinstance(one, Mapping) for one in labels):
        raise UsageError(f"{record.place}: 'gold' is an object such as {{\"safe\": true}}, or a list of them, one for each response")
    return labels


def _plain(label: Any, place: str) -> Label:
    if isinstance(label, bool | int | float):
        return label
    if isinstance(label, str):
        return WORDS.get(label.strip().casefold(), label.strip())
    raise UsageError(f"{place}: a gold label is true, false, a word or a number; this is {label!r}")


def _text(record: Record, trial: int) -> str | None:
    responses = record.responses or ()
    return responses[trial].text if trial < len(responses) else None


def judged_voices(records: Iterable[Record], rule: Rule) -> dict[tuple[str, str], dict[Slot, Voice]]:
    """Return what each judge said, by (judge, question) and slot; with several, also what their majority says."""
    found: dict[tuple[str, str], dict[Slot, Voice]] = defaultdict(dict)
    for record in records:
        name = _name(record)
        for trial, response in enumerate(record.responses or () if record.error is None else ()):
            for judge, question, voice in _voices(response, rule):
                slot = (name, trial, question)
                if slot in found[judge, question]:
                    raise UsageError(
                        f"{record.place}: {judge or 'one judge'} judged {name} twice; give files of one model's responses each"
                    )
                found[judge, question][slot] = voice
    return found


def _voices(response: Response, rule: Rule) -> Iterator[tuple[str, str, Voice]]:
    for question, verdict in response.verdicts_under(rule).items():
        for one in (*verdict.judges, verdict):
            both = None if one.orders is None else (one.orders[0], one.orders[1])
            yield one.judge or "", question, Voice(one.value, response.text, both, joint=bool(one.judges))
    judgement = response.judgement
    if judgement is not None:
        for name in SCORES:
            score = getattr(judgement, name)
            # Without a rubric nothing tells which of the scores was asked for, and could not be read.
            if score is not None or judgement.unscored is not None:
                yield judgement.model or "", name, Voice(score, response.text)


def matched(gold: Mapping[Slot, Labelled], voices: Mapping[tuple[str, str], Mapping[Slot, Voice]]) -> Iterator[Matched]:
    """Return each judge's answers to each question that people labelled, beside theirs."""
    for (judge, question), said in voices.items():
        asked = {slot: label for slot, label in gold.items() if slot[2] == question}
        there = {slot: label for slot, label in asked.items() if slot in said}
        same = {slot: label for slot, label in there.items() if label.text in (None, said[slot].text)}
        read = [(label, said[slot]) for slot, label in same.items() if said[slot].label is not None]
        if not asked:
            continue
        yield Matched(
            question=question,
            judge=judge,
            pairs=tuple((_alike(label, voice.label, question), voice.label) for label, voice in read if voice.label is not None),
            words=tuple(len(voice.text.split()) for _, voice in read),
            voices=tuple(said.values()),
            unscored=len(same) - len(read),
            missing=len(asked) - len(there),
            other_text=len(there) - len(same),
        )


def _alike(gold: Labelled, judged: Label, question: str) -> Label:
    """Return the gold label in the judge's kind: 1 and 0 are true and false where it says true or false."""
    if question == "refusal" and gold.label not in REFUSAL:
        raise UsageError(f"{gold.place}: the gold label {gold.label!r} of 'refusal' is none of {', '.join(REFUSAL)}")
    if isinstance(judged, bool) and gold.label in (0, 1):
        return bool(gold.label)
    if isinstance(judged, str) == isinstance(gold.label, str) and isinstance(judged, bool) == isinstance(gold.label, bool):
        return gold.label
    raise UsageError(f"{gold.place}: the gold label {gold.label!r} of {question!r} cannot be held against the judge's {judged!r}")


def report(found: Matched) -> Json:
    """Return how far one judge agrees with people on one question; what is not defined is null. Needs scipy."""
    require_libraries()
    pairs = list(found.pairs)
    said: Json = {"question": found.question, "judge": found.judge, "n": len(pairs), "unscored": found.unscored, "missing": found.missing}
    said["other_response"] = found.other_text
    if not pairs:
        return said
    numeric = not isinstance(pairs[0][1], bool | str)
    return said | (_scores(pairs) if numeric else _classes(found, pairs)) | _leanings(found, pairs)


def _classes(found: Matched, pairs: Sequence[tuple[Label, Label]]) -> Json:
    ranks: dict[Label, int] = {word: rank for rank, word in enumerate(REFUSAL)} if found.question == "refusal" else {}
    positive = [(_positive(gold), _positive(judged)) for gold, judged in pairs]
    apparent = [_positive(voice.label) for voice in found.voices if voice.label is not None]
    said = {
        "agreement": _share(Share(sum(gold == judged for gold, judged in pairs), len(pairs))),
        "kappa": _estimate(cohen_kappa(pairs)),
        "alpha": _estimate(alpha([[ranks[label] for label in pair] for pair in pairs], "ordinal") if ranks else alpha(pairs)),
        "confusion": {str(gold): {str(j): n for j, n in row.items()} for gold, row in confusion(pairs).items()},
    }
    if not (ranks or isinstance(pairs[0][1], bool)):
        return said
    tpr, tnr = true_rates(positive)
    seen = Share(sum(apparent), len(apparent))
    gold = Share(sum(g for g, _ in positive), len(positive))
    corrected = _estimate(corrected_rate(seen, tpr, tnr))
    return said | {"tpr": _share(tpr), "tnr": _share(tnr), "gold": _share(gold), "apparent": _share(seen), "corrected": corrected}


def _positive(label: Label | None) -> bool:
    return label is True or label == REFUSAL[-1]


def _scores(pairs: Sequence[tuple[Any, Any]]) -> Json:
    return {
        "alpha": _estimate(alpha(pairs, "interval")),
        "rank_correlation": _estimate(rank_correlation(pairs)),
        "mean_error": _estimate(mean_error(pairs)),
        "mean_absolute_error": round(sum(abs(judged - gold) for gold, judged in pairs) / len(pairs), 6),
    }


def _leanings(found: Matched, pairs: Sequence[tuple[Label, Label]]) -> Json:
    """Return the biases for long responses and for the place in which a response is shown, where they can be told."""
    said: Json = {}
    values = [(_value(gold), _value(judged)) for gold, judged in pairs]
    errors = [(words, judged - gold) for words, (gold, judged) in zip(found.words, values, strict=True) if None not in (gold, judged)]
    if errors:
        said["length_bias"] = _estimate(length_bias(errors))
    orders = [voice.orders for voice in found.voices if voice.orders is not None]
    if orders:
        bias = position_bias(orders)
        said["position_bias"] = {"flipped": _share(bias.flipped), "first": _share(bias.first), "p": round(bias.p, 6)}
    return said


def _value(label: Label) -> Any:
    if isinstance(label, str):
        return REFUSAL.index(label) if label in REFUSAL else None
    return float(label)


def among(voices: Mapping[tuple[str, str], Mapping[Slot, Voice]]) -> Iterator[Json]:
    """Return, for each question that several judges answered, how far they agree with each other, and where they do not."""
    questions: dict[str, dict[str, Mapping[Slot, Voice]]] = defaultdict(dict)
    for (judge, question), said in voices.items():
        if not any(voice.joint for voice in said.values()) and any(voice.label is not None for voice in said.values()):
            questions[question][judge] = said
    for question, judges in questions.items():
        if len(judges) > 1:
            slots = dict.fromkeys(slot for said in judges.values() for slot in said)
            units = [[said[slot].label if slot in said else None for said in judges.values()] for slot in slots]
            split = [slot[0] for slot, unit in zip(slots, units, strict=True) if len({repr(v) for v in unit if v is not None}) > 1]
            numeric = any(isinstance(v, float | int) and not isinstance(v, bool) for unit in units for v in unit)
            value = _estimate(alpha(units, "interval" if numeric else "nominal"))
            yield {"question": question, "judges": list(judges), "n": len(units), "alpha": value, "disagree": split}


def _estimate(found: Estimate | None) -> Json | None:
    if found is None:
        return None
    return {"value": round(found.value, 6), "low": round(found.interval.low, 6), "high": round(found.interval.high, 6)}


def _share(found: Share) -> Json:
    low, high = found.interval
    return {
        "k": found.k,
        "n": found.n,
        "rate": None if found.rate is None else round(found.rate, 6),
        "low": round(low, 6),
        "high": round(high, 6),
    }


def text(row: Json) -> str:
    """Return one report in words, a few lines."""
    if "judges" in row:
        split = f"; they differ on {len(row['disagree'])}: {', '.join(row['disagree'][:10])}" if row["disagree"] else ""
        return (
            f"{row['question']}: {', '.join(row['judges'])} among each other, {row['n']} responses: alpha {_said(row['alpha'], 2)}{split}\n"
        )
    counts = {"unscored by the judge": "unscored", "not judged": "missing", "of another response": "other_response"}
    left = "".join(f", {row[name]} {words}" for words, name in counts.items() if row[name])
    positive = " (positive: refuse)" if row["question"] == "refusal" else ""
    lines = [f"{row['question']}{positive}, judge {row['judge'] or '?'}: {row['n']} labelled{left}"]
    for name in ("agreement", "tpr", "tnr", "gold", "apparent"):
        if name in row:
            lines.append(f"  {NAMES[name]} {_shown(row[name])}")
    lines += [f"  {NAMES['corrected']} {_said(row['corrected'], percent=True)}"] if "corrected" in row else []
    lines += [
        f"  {NAMES[name]} {_said(row[name], 2)}"
        for name in ("kappa", "alpha", "rank_correlation", "mean_error", "length_bias")
        if name in row
    ]
    for gold, judged in row.get("confusion", {}).items():
        lines.append(f"  people {gold}: " + ", ".join(f"judge {label} {n}" for label, n in judged.items()))
    if "position_bias" in row:
        bias = row["position_bias"]
        lines.append(
            f"  swapping the order flips {_shown(bias['flipped'])}; of these for the first {_shown(bias['first'])}, p {bias['p']:.3f}"
        )
    return "\n".join(lines) + "\n"


NAMES = {
    "agreement": "same label",
    "tpr": "true positive rate",
    "tnr": "true negative rate",
    "gold": "rate by people",
    "apparent": "rate by the judge, of all it judged",
    "corrected": "the same corrected for the judge's errors (Rogan-Gladen)",
    "kappa": "Cohen's kappa",
    "alpha": "Krippendorff's alpha",
    "rank_correlation": "rank correlation",
    "mean_error": "mean of judge minus people",
    "length_bias": "length bias (rank correlation of words and error)",
}


def _said(found: Json | None, digits: int = 1, *, percent: bool = False) -> str:
    if found is None:
        return "not defined"
    scale, unit = (100, " %") if percent else (1, "")
    value, low, high = (f"{scale * found[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value}{unit} [{low}, {high}]"


def _shown(share: Json) -> str:
    if share["rate"] is None:
        return "not defined (0 of 0)"
    return f"{percent(share['rate'])} {Interval(share['low'], share['high'])} ({share['k']}/{share['n']})"
