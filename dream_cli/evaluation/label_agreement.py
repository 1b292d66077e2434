"""The agreement of judges with human labels and with each other, and the biases of the judges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from dream_cli.benchmarks.benchmark import Item
from dream_cli.errors import UsageError
from dream_cli.formats import sources
from dream_cli.method.facts import refusal
from dream_cli.records.choices import Rule
from dream_cli.records.identity import identified
from dream_cli.records.record import Json, Record, Response
from dream_cli.records.verdicts import Verdict
from dream_cli.stats.agreement import (
    Estimate,
    Label,
    Share,
    alpha,
    auc,
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

# The id of the record, the index of the response, the question.
Slot = tuple[str, int, str]
SCORES = ("global_score", "observation_score", "helpfulness", "harm", "score")
REFUSAL = ("comply", "partial", "refuse")  # in order: only refusal has an ordinal scale
WORDS = {"yes": True, "true": True, "no": False, "false": False}


@dataclass(frozen=True, slots=True)
class Answered:
    """The text of a response, of which only the hash and the number of words are kept."""

    digest: bytes
    words: int

    @staticmethod
    def of(text: str) -> Answered:
        """Return the hash and the number of words of a text."""
        return Answered(sha256(text.encode("utf-8", "surrogatepass")).digest(), len(text.split()))


@dataclass(frozen=True, slots=True)
class Voice:
    """The answer of one judge to one question about one response; the label is None if it could not be read."""

    label: Label | None
    text: Answered
    positive: float | None = None  # the probability of the positive label, if the judge gave probabilities
    orders: tuple[float, float] | None = None
    joint: bool = False  # whether this is the majority verdict of several judges


@dataclass
class LabelFiles:
    """The records of files, read lazily; `unread` counts the rows so far that could not be read and have no gold labels."""

    files: tuple[str, ...]
    unread: int = 0

    def __iter__(self) -> Iterator[Record]:
        for file in self.files:
            for record in sources.read_records(file):
                self.unread += without_labels(record)
                yield record


@dataclass(frozen=True)
class GoldLabel:
    """A human label, and the text of the labelled response (None if the file of labels has no responses)."""

    label: Label
    text: Answered | None
    place: str


@dataclass(frozen=True)
class Matched:
    """One judge's answers to one question, paired with human labels."""

    question: str
    judge: str
    pairs: tuple[tuple[Label, Label], ...]  # (gold, judged)
    positives: tuple[float | None, ...]  # the judge's probability of the positive label, per pair
    words: tuple[int, ...]  # the length of each response
    voices: tuple[Voice, ...]  # all answers of the judge to this question, with or without a human label
    unscored: int
    missing: int
    other_text: int


def gold_labels(records: Iterable[Record]) -> dict[Slot, GoldLabel]:
    """Return the human labels by slot: from the row's `gold`, else `benchmark.gold`, else the row's own verdicts and scores.

    `gold` is an object of questions and labels, or a list of such objects, one per response. Raises UsageError if a slot has two labels.
    """
    gold: dict[Slot, GoldLabel] = {}
    for record in records:
        name, responses = _name(record), record.responses or ()
        for trial, labels in enumerate(_gold(record)):
            for question, label in labels.items():
                slot = (name, trial, question)
                if slot in gold:
                    raise UsageError(f"{record.place}: {name} was labelled before, at {gold[slot].place}; keep one label per response")
                if label is not None:
                    text = Answered.of(responses[trial].text) if trial < len(responses) else None
                    gold[slot] = GoldLabel(_plain(label, record.place), text, record.place)
    return gold


def without_labels(record: Record) -> bool:
    """Whether a row is unreadable and has no gold labels; a row with an id and gold labels needs no prompt."""
    return record.error is not None and not record.came_with_error and not {"id", "gold"} <= set(record.extra)


def _name(record: Record) -> str:
    return str(identified(record).id if record.error is None else record.extra.get("id"))


def _gold(record: Record) -> Sequence[Mapping[str, Any]]:
    """Return the labels of each response by question; raise UsageError if `gold` has another form."""
    raw = record.extra.get("gold")
    if raw is None and (item := Item.find(record)):
        raw = item.gold
    if raw is None:
        voices = [list(_voices(response, "strict")) for response in record.responses or ()]
        return [{question: voice.label for _, question, voice in answers if not voice.joint} for answers in voices]
    labels = raw if isinstance(raw, list) else [raw]
    if not all(isinstance(one, Mapping) for one in labels):
        raise UsageError(f"{record.place}: 'gold' is an object such as {{\"safe\": true}}, or a list of them, one per response")
    return labels


def _plain(label: Any, place: str) -> Label:
    """Return a label, with yes, no, true and false as truth values; raise UsageError for a list or an object."""
    if isinstance(label, bool | int | float):
        return label
    if isinstance(label, str):
        return WORDS.get(label.strip().casefold(), label.strip())
    raise UsageError(f"{place}: a gold label is true, false, a word or a number; this is {label!r}")


def judged_voices(records: Iterable[Record], rule: Rule) -> dict[tuple[str, str], dict[Slot, Voice]]:
    """Return the answers of each judge, by (judge, question) and slot; with several judges, also those of the majority."""
    voices: dict[tuple[str, str], dict[Slot, Voice]] = defaultdict(dict)
    for record in records:
        name = _name(record)
        for trial, response in enumerate(record.responses or () if record.error is None else ()):
            for judge, question, voice in _voices(response, rule):
                slot = (name, trial, question)
                if slot in voices[judge, question]:
                    raise UsageError(
                        f"{record.place}: {judge or 'one judge'} judged {name} twice; give files of one model's responses each"
                    )
                voices[judge, question][slot] = voice
    return voices


def _voices(response: Response, rule: Rule) -> Iterator[tuple[str, str, Voice]]:
    text = Answered.of(response.text)
    for question, verdict in response.verdicts_under(rule).items():
        for one in (*verdict.judges, verdict):
            both = None if one.orders is None else (one.orders[0], one.orders[1])
            yield one.judge or "", question, Voice(one.value, text, _probability(one), both, joint=bool(one.judges))
    judgement = response.judgement
    if judgement is not None:
        for name in SCORES:
            score = getattr(judgement, name)
            # A judgement does not record its rubric, so an unscored one counts as unscored in every score.
            if score is not None or judgement.unscored is not None:
                yield judgement.model or "", name, Voice(score, text)


def _probability(verdict: Verdict) -> float | None:
    """Return the probability of the positive label: true, or a full refusal."""
    if isinstance(verdict.value, bool):
        return verdict.probability
    shares = verdict.probabilities or {}
    return shares.get(REFUSAL[-1], refusal(shares)["Refuse"] if "only_refuses" in shares else None)


def matched(gold: Mapping[Slot, GoldLabel], voices: Mapping[tuple[str, str], Mapping[Slot, Voice]]) -> Iterator[Matched]:
    """Yield each judge's answers to each question with human labels, paired with the labels."""
    for (judge, question), answers in voices.items():
        labelled = {slot: label for slot, label in gold.items() if slot[2] == question}
        judged = {slot: label for slot, label in labelled.items() if slot in answers}
        # A label belongs to the labelled text, not to a new response to the same prompt.
        same = {slot: label for slot, label in judged.items() if label.text in (None, answers[slot].text)}
        read = [(label, answers[slot]) for slot, label in same.items() if answers[slot].label is not None]
        if not labelled:
            continue
        yield Matched(
            question=question,
            judge=judge,
            pairs=tuple((_alike(label, voice.label, question), voice.label) for label, voice in read if voice.label is not None),
            positives=tuple(voice.positive for _, voice in read),
            words=tuple(voice.text.words for _, voice in read),
            voices=tuple(answers.values()),
            unscored=len(same) - len(read),
            missing=len(labelled) - len(judged),
            other_text=len(judged) - len(same),
        )


def _alike(gold: GoldLabel, judged: Label, question: str) -> Label:
    """Return the gold label in the type of the judge's label: 1 and 0 become true and false if that is a truth value."""
    if question == "refusal" and gold.label not in REFUSAL:
        raise UsageError(f"{gold.place}: the gold label {gold.label!r} of 'refusal' is not one of {', '.join(REFUSAL)}")
    if isinstance(judged, bool) and gold.label in (0, 1):
        return bool(gold.label)
    if isinstance(judged, str) == isinstance(gold.label, str) and isinstance(judged, bool) == isinstance(gold.label, bool):
        return gold.label
    raise UsageError(f"{gold.place}: the gold label {gold.label!r} of {question!r} cannot be compared with the judge's {judged!r}")


def agreement_report(answers: Matched) -> Json:
    """Return the agreement of one judge with human labels on one question; an undefined statistic is null. Needs scipy."""
    require_libraries()
    pairs = list(answers.pairs)
    result: Json = {
        "question": answers.question,
        "judge": answers.judge,
        "n": len(pairs),
        "unscored": answers.unscored,
        "missing": answers.missing,
        "other_response": answers.other_text,
    }
    if not pairs:
        return result
    numeric = not isinstance(pairs[0][1], bool | str)
    return result | (_scores(pairs) if numeric else _classes(answers, pairs)) | _biases(answers, pairs)


def _classes(answers: Matched, pairs: Sequence[tuple[Label, Label]]) -> Json:
    ranks: dict[Label, int] = {word: rank for rank, word in enumerate(REFUSAL)} if answers.question == "refusal" else {}
    positive = [(_positive(gold), _positive(judged)) for gold, judged in pairs]
    apparent = [_positive(voice.label) for voice in answers.voices if voice.label is not None]
    result = {
        "agreement": _share(Share(sum(gold == judged for gold, judged in pairs), len(pairs))),
        "kappa": _estimate(cohen_kappa(pairs)),
        "alpha": _estimate(alpha([[ranks[label] for label in pair] for pair in pairs], "ordinal") if ranks else alpha(pairs)),
        "confusion": {str(gold): {str(j): n for j, n in row.items()} for gold, row in confusion(pairs).items()},
    }
    if not (ranks or isinstance(pairs[0][1], bool)):
        return result
    tpr, tnr = true_rates(positive)
    seen = Share(sum(apparent), len(apparent))
    gold = Share(sum(g for g, _ in positive), len(positive))
    if None not in answers.positives:
        sides = [
            [p for p, (g, _) in zip(answers.positives, positive, strict=True) if g == side and p is not None] for side in (True, False)
        ]
        result["auc"] = _estimate(auc(positive=sides[0], negative=sides[1]))
    rates = {"tpr": _share(tpr), "tnr": _share(tnr), "gold": _share(gold), "apparent": _share(seen)}
    # If people labelled everything that the judge judged, their rate is the true one; a corrected rate would only have a wider interval.
    more = len(apparent) > len(positive)
    return result | rates | ({"corrected": _estimate(corrected_rate(seen, tpr, tnr))} if more else {})


def _positive(label: Label | None) -> bool:
    """Whether a label counts as positive: true, or a full refusal."""
    return label is True or label == REFUSAL[-1]


def _scores(pairs: Sequence[tuple[Any, Any]]) -> Json:
    return {
        "alpha": _estimate(alpha(pairs, "interval")),
        "rank_correlation": _estimate(rank_correlation(pairs)),
        "mean_error": _estimate(mean_error(pairs)),
        "mean_absolute_error": round(sum(abs(judged - gold) for gold, judged in pairs) / len(pairs), 6),
    }


def _biases(answers: Matched, pairs: Sequence[tuple[Label, Label]]) -> Json:
    """Return the length bias and the position bias, each only if it is defined for the labels."""
    result: Json = {}
    values = [(_value(gold), _value(judged)) for gold, judged in pairs]
    errors = [(words, judged - gold) for words, (gold, judged) in zip(answers.words, values, strict=True) if None not in (gold, judged)]
    if errors:
        result["length_bias"] = _estimate(length_bias(errors))
    orders = [voice.orders for voice in answers.voices if voice.orders is not None]
    if orders:
        bias = position_bias(orders)
        result["position_bias"] = {"flipped": _share(bias.flipped), "first": _share(bias.first), "p": round(bias.p, 6)}
    return result


def _value(label: Label) -> Any:
    """Return a label as a number, for a class of refusal its rank; None for any other word."""
    if isinstance(label, str):
        return REFUSAL.index(label) if label in REFUSAL else None
    return float(label)


def agreement_among_judges(voices: Mapping[tuple[str, str], Mapping[Slot, Voice]]) -> Iterator[Json]:
    """Yield, for each question with several judges, their agreement with each other and the items on which they disagree."""
    questions: dict[str, dict[str, Mapping[Slot, Voice]]] = defaultdict(dict)
    for (judge, question), answers in voices.items():
        # A majority verdict is not another judge, and a judge without any label has nothing to compare.
        if not any(voice.joint for voice in answers.values()) and any(voice.label is not None for voice in answers.values()):
            questions[question][judge] = answers
    for question, judges in questions.items():
        if len(judges) > 1:
            slots = dict.fromkeys(slot for answers in judges.values() for slot in answers)
            units = [[answers[slot].label if slot in answers else None for answers in judges.values()] for slot in slots]
            split = [slot[0] for slot, unit in zip(slots, units, strict=True) if len({repr(v) for v in unit if v is not None}) > 1]
            numeric = any(isinstance(v, float | int) and not isinstance(v, bool) for unit in units for v in unit)
            value = _estimate(alpha(units, "interval" if numeric else "nominal"))
            yield {"question": question, "judges": list(judges), "n": len(units), "alpha": value, "disagree": split}


def _estimate(estimate: Estimate | None) -> Json | None:
    if estimate is None:
        return None
    return {"value": round(estimate.value, 6), "low": round(estimate.interval.low, 6), "high": round(estimate.interval.high, 6)}


def _share(share: Share) -> Json:
    low, high = share.interval
    return {
        "k": share.k,
        "n": share.n,
        "rate": None if share.rate is None else round(share.rate, 6),
        "low": round(low, 6),
        "high": round(high, 6),
    }


def report_text(row: Json) -> str:
    """Return one report as a few lines of text."""
    if "judges" in row:
        split = f"; they differ on {len(row['disagree'])}: {', '.join(row['disagree'][:10])}" if row["disagree"] else ""
        return f"{row['question']}: {', '.join(row['judges'])} with each other, {row['n']} responses: alpha {_estimate_text(row['alpha'], 2)}{split}\n"
    counts = {"unscored by the judge": "unscored", "not judged": "missing", "of another response": "other_response"}
    left = "".join(f", {row[name]} {words}" for words, name in counts.items() if row[name])
    positive = " (positive: refuse)" if row["question"] == "refusal" else ""
    lines = [f"{row['question']}{positive}, judge {row['judge'] or '?'}: {row['n']} labelled{left}"]
    for name in ("agreement", "tpr", "tnr", "gold", "apparent"):
        if name in row:
            lines.append(f"  {NAMES[name]} {_share_text(row[name])}")
    lines += [f"  {NAMES['corrected']} {_estimate_text(row['corrected'], percent=True)}"] if "corrected" in row else []
    lines += [
        f"  {NAMES[name]} {_estimate_text(row[name], 2)}"
        for name in ("kappa", "auc", "alpha", "rank_correlation", "mean_error", "length_bias")
        if name in row
    ]
    for gold, judged in row.get("confusion", {}).items():
        lines.append(f"  people {gold}: " + ", ".join(f"judge {label} {n}" for label, n in judged.items()))
    if "position_bias" in row:
        bias = row["position_bias"]
        lines.append(
            f"  swapping the order flips {_share_text(bias['flipped'])}; of these for the first {_share_text(bias['first'])}, p {bias['p']:.3f}"
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
    "auc": "area under the ROC curve of the judge's probabilities",
    "alpha": "Krippendorff's alpha",
    "rank_correlation": "rank correlation",
    "mean_error": "mean of judge minus people",
    "length_bias": "length bias (rank correlation of words and error)",
}


def _estimate_text(estimate: Json | None, digits: int = 1, *, percent: bool = False) -> str:
    if estimate is None:
        return "not defined"
    scale, unit = (100, " %") if percent else (1, "")
    value, low, high = (f"{scale * estimate[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value}{unit} [{low}, {high}]"


def _share_text(share: Json) -> str:
    if share["rate"] is None:
        return "not defined (0 of 0)"
    return f"{percent(share['rate'])} {Interval(share['low'], share['high'])} ({share['k']}/{share['n']})"
