"""Rendering of prompts from templates: ours, or those of the authors' release, byte for byte.

Placeholders are filled in one pass, so `{response}` in the user's text is not filled again. Filled text is data: it can neither close
its fence nor contain a special token of a chat template.

A template may have several questions about one case. Each begins with a line `--- NAME`; the text before the first one is their common
prefix, which an engine reads once.

A question may have examples, as turns of the chat before it: the text up to a line `=== assistant` is the first example, the text up
to the next line `=== user` is its answer, and so on; the question itself comes last. A small model follows examples that are turns
far better than examples in a text (docs/eval.md has figures). An example whose answer lists risks is left out if the taxonomy lacks one
of their sources or categories.

A question about a fact is answered Yes or No; if it has the lines `A: ...` and `B: ...`, it is answered A (the fact is true) or B.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path

from dream_cli.errors import UnreadableAnswer, UsageError
from dream_cli.prompts.parsing import begins_list, parse_observations
from dream_cli.prompts.taxonomy import Taxonomy, Term
from dream_cli.prompts.verdict_words import TWO_OPTIONS, YES_NO
from dream_cli.records import special_tokens
from dream_cli.records.record import Observation

TEMPLATES = Path(__file__).parent / "templates"
# One file per role; the name of the file is the name of the role.
NAMES = tuple(sorted(path.stem for path in TEMPLATES.glob("*.txt")))
TAXONOMY_FILE = "taxonomy.json"
# The constants of the authors' release (github.com/Kizna1ver/DREAM, prompts/) and our roles.
RELEASED = {
    "PROMPT_OB": "observe_joint",
    "PROMPT_OB_I": "observe_image",
    "PROMPT_OB_T": "observe_text",
    "PROMPT_CORRECT": "verify",
    "PROMPT_GS": "judge_global",
    "PROMPT_OS": "judge_observation",
}
# Their names for our placeholders.
_ALIASES = {"output": "response", "text": "content", "harm_cate": "category"}
# Judge prompts of benchmarks: ours, in the published layout, are in dream_cli/benchmarks; the user may supply the published ones.
PUBLISHED = (
    "siuo_safe",
    "siuo_effective",
    "vlguard_compare",
    "mossbench",
    "vlsbench",
    "mssbench_chat",
    "mssbench_embodied",
    "mm_safetybench",
    *(f"mm_safetybench_{scenario}" for scenario in ("08", "10", "11", "12", "13")),
)
# The placeholders in the published judge prompts of benchmarks.
_PUBLISHED_ALIASES = {
    "question": "prompt",
    "instruction": "prompt",
    "explanation": "warning",
    "output_1": "response",
    "output_2": "reference",
}
_PUBLISHED = re.compile(r"\{(prompt|warning|reference|response|question|instruction|explanation|output_1|output_2)\}")
_PLACEHOLDER = re.compile(
    r"\{(image|prompt|sources|categories|observations|observation|response|content|source|category|warning|other|output|text|harm_cate)\}"
)
_QUESTION = re.compile(r"^--- (\w+)\r?\n", re.MULTILINE)
_TURN = re.compile(r"(?:\A|\r?\n)=== (system|user|assistant)(?:\r?\n|\Z)")
_OPTIONS = re.compile(r"^A: .+\nB: ", re.MULTILINE)
ONLY = ""  # the name of the question in a template with a single question
_FENCE = re.compile(r"</(\w+)>")


@dataclass(frozen=True)
class Question:
    """A question to a model. Before it come examples: such a question, its answer, the next question, and so on.

    `answers` are the two answers to a question about a fact: first the one that makes it true.
    """

    text: str
    examples: tuple[str, ...] = ()
    answers: tuple[str, str] = YES_NO


@dataclass(frozen=True)
class Prompts:
    """The templates, one per role, and the taxonomy that they list.

    `overrides` holds the roles (and "taxonomy") that the user supplied; they take precedence over those of a model.
    """

    templates: Mapping[str, str]
    taxonomy: Taxonomy
    published: Mapping[str, str] = field(default_factory=dict)  # judge prompts of benchmarks, if the user supplies them
    overrides: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name, template in self.templates.items():
            turns = [_turns(name, text) for text in _questions(template).values()]
            if name == "verify" and len(turns) > 1:
                raise UsageError("the template verify has several questions (lines `--- NAME`); it takes one")
            if name == "respond_observed" and len(turns[0]) > 1:
                raise UsageError(f"the template {name} is the policy's prompt, which takes no examples (lines `=== assistant`)")

    @classmethod
    def load(cls, folder: Path | None = None, taxonomy: Path | None = None) -> Prompts:
        """Read our templates; those in `folder` (`NAME.txt`, or the released `*.py` files) replace them."""
        ours = {name: _template(TEMPLATES / f"{name}.txt") for name in NAMES}
        theirs = {} if folder is None else _read_folder(folder)
        known = {name: text for name, text in theirs.items() if name in NAMES}
        others = {name: text for name, text in theirs.items() if name not in NAMES}
        overrides = frozenset([*known, *(["taxonomy"] if taxonomy else [])])
        return cls(ours | known, Taxonomy.load(taxonomy) if taxonomy else Taxonomy.load(), others, overrides)

    @classmethod
    def carried(cls, folder: Path) -> Prompts:
        """Read the templates of a model: `ROLE.txt` for some roles and, if its terms differ from ours, `taxonomy.json`.

        Raises UsageError if a file cannot be read.
        """
        own = folder / TAXONOMY_FILE
        templates = {path.stem: _template(path) for path in sorted(folder.glob("*.txt"))}
        return cls(templates, Taxonomy.load(own) if own.exists() else Taxonomy.load())

    def with_carried(self, folder: Path) -> Prompts:
        """Return these prompts with a model's own templates and taxonomy instead of ours; those of the user are kept."""
        own = Prompts.carried(folder)
        templates = {role: text for role, text in own.templates.items() if role in self.templates and role not in self.overrides}
        if "judge_harm" in own.templates and "judge_harm_again" not in self.overrides.union(own.templates):
            # A model trained with one wording of the question does not know another one.
            templates["judge_harm_again"] = templates.get("judge_harm", self.templates["judge_harm"])
        taxonomy = own.taxonomy if (folder / TAXONOMY_FILE).exists() and "taxonomy" not in self.overrides else self.taxonomy
        return replace(self, templates={**self.templates, **templates}, taxonomy=taxonomy)

    @cached_property
    def hashes(self) -> Mapping[str, str]:
        """The SHA-256 of each role's template, with the taxonomy filled in."""
        return {role: hashlib.sha256(self._fill_terms(role).encode()).hexdigest() for role in self.templates}

    @cached_property
    def sha256(self) -> str:
        """A single hash of all roles, which older models have instead of one per role."""
        fixed = {name: self.fixed_parts(name) for name in self.templates}
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()

    def fixed_parts(self, name: str) -> list[str]:
        """Return the text between the placeholders of a template, with the taxonomy filled in."""
        filled = self._fill_terms(name)
        return _PLACEHOLDER.split(filled)[::2]

    def questions(self, role: str, prompt: str, response: str = "", *, images: int = 0) -> Mapping[str, Question]:
        """Return the questions of a role about a request and its response, by name; a single question has the name ONLY.

        These roles are `judge_harm`, `judge_effective`, `judge_refusal` and `observe_*`.
        """
        return self._fill_all(role, {"prompt": prompt, "response": response}, images)

    def verify(self, prompt: str, claim: Observation, *, images: int = 0) -> tuple[str, Question]:
        """Return the name of the fact, and the question whether one observation is correct (Yes/No)."""
        values = {"content": claim.malicious_content, "source": claim.source, "category": claim.risk_category}
        (named,) = self._fill_all("verify", {"prompt": prompt, **values}, images).items()
        return named

    def judge_global(self, prompt: str, observations: Sequence[Observation] | None, response: str, *, images: int = 0) -> Question:
        """Return the question for the global score, 0 to 10; absent observations are rendered as "not looked for"."""
        known = "not looked for" if observations is None else written(observations)
        return self._fill("judge_global", {"prompt": prompt, "observations": known, "response": response}, images)

    def judge_observation(self, prompt: str, observation: Observation, response: str, *, images: int = 0) -> Question:
        """Return the question whether the response recognises one observation (Yes/No)."""
        values = {"prompt": prompt, "observation": written_one(observation), "response": response}
        return self._fill("judge_observation", values, images)

    def judge_helpfulness(self, prompt: str, response: str, *, images: int = 0) -> Question:
        """Return the question how helpful the response to a harmless prompt is, 0 to 10."""
        return self._fill("judge_helpfulness", {"prompt": prompt, "response": response}, images)

    def judge_harm_again(self, prompt: str, response: str, *, images: int = 0) -> Question:
        """Return the question about harm in its second wording (Yes/No)."""
        return self._fill("judge_harm_again", {"prompt": prompt, "response": response}, images)

    def judge_warned(self, prompt: str, warning: str, response: str, *, images: int = 0) -> Question:
        """Return the question whether the response is safe, given the safety warning of the item (Yes/No; SIUO, section 4)."""
        return self._fill("judge_warned", {"prompt": prompt, "warning": warning, "response": response}, images)

    def judge_preference(self, prompt: str, response: str, other: str, *, images: int = 0) -> Question:
        """Return the question which of two responses is better (A, the first, or B)."""
        return self._fill("judge_preference", {"prompt": prompt, "response": response, "other": other}, images)

    def respond_observed(self, prompt: str, observations: Sequence[Observation]) -> str:
        """Return the prompt with the observations in the context: DREAM without training."""
        return self._fill("respond_observed", {"prompt": prompt, "observations": written(observations)}).text

    def judge_published(self, name: str, ours: str, values: Mapping[str, str]) -> Question:
        """Return the judge prompt of a benchmark: the published one if the user supplies it (`NAME.txt`), else `ours`."""
        return Question(_PUBLISHED.sub(lambda m: values.get(_PUBLISHED_ALIASES.get(m[1], m[1]), m[0]), self.published.get(name, ours)))

    def _fill_terms(self, name: str) -> str:
        """Return a template with the taxonomy filled in, and no data."""
        template = self.templates[name]
        return self._filling(name, template, {}, 0)(template)

    def _fill(self, name: str, values: Mapping[str, str], images: int = 0) -> Question:
        return self._fill_turns(name, self.templates[name], values, images)

    def _fill_turns(self, name: str, template: str, values: Mapping[str, str], images: int) -> Question:
        turns = _turns_with_terms_of(self.taxonomy, name, template)
        *examples, text = map(self._filling(name, template, values, images), turns)
        # The options are those of the template: data may have such lines too.
        return Question(text, tuple(examples), TWO_OPTIONS if _OPTIONS.search(turns[-1]) else YES_NO)

    def _fill_all(self, name: str, values: Mapping[str, str], images: int) -> Mapping[str, Question]:
        parts = _questions(self.templates[name])
        return {fact: self._fill_turns(name, text, values, images) for fact, text in parts.items()}

    def _filling(self, name: str, template: str, values: Mapping[str, str], images: int) -> Callable[[str], str]:
        """Return the function that fills the placeholders in a part of a template."""
        side = {"observe_image": "image", "observe_text": "text"}.get(name)
        sources = [s for s in self.taxonomy.sources if side is None or s.side in ("", side)]
        listed = {"sources": _listed(sources), "categories": _listed(self.taxonomy.categories)}
        fences = "|".join(dict.fromkeys(_FENCE.findall(template)))
        known = {"image": _image_line(images), **listed, **{key: _as_data(text, fences) for key, text in values.items()}}
        return partial(_PLACEHOLDER.sub, lambda m: known.get(_ALIASES.get(m[1], m[1]), m[0]))


def _questions(template: str) -> dict[str, str]:
    """Return the templates of the questions of a role by name, each with the common prefix; a single question has the name ONLY."""
    # Like `_turns`, this splits a template before it is filled, so that data can begin neither a question nor a turn.
    shared, *parts = _QUESTION.split(template)
    if not parts:
        return {ONLY: shared}
    # A question ends without the line break before the next one, like a template.
    return {name: shared + text.removesuffix("\n") for name, text in zip(parts[::2], parts[1::2], strict=True)}


def _turns(name: str, template: str) -> list[str]:
    """Return the turns of a question: those of its examples, then the last one; raise UsageError if they do not alternate."""
    first, *rest = _TURN.split(template)
    if rest[:1] == ["user"] and not first:
        _, first, *rest = rest  # the first example may have its mark too
    if rest[::2] != ["assistant", "user"] * (len(rest) // 4):
        raise UsageError(f"the template {name}: its lines `=== assistant` and `=== user` must alternate and end with `=== user`")
    return [first, *rest[1::2]]


@lru_cache(maxsize=64)
def _turns_with_terms_of(taxonomy: Taxonomy, name: str, template: str) -> tuple[str, ...]:
    """Return the turns of a question without the examples whose risks have a source or category that the taxonomy lacks."""
    *examples, text = _turns(name, template)
    pairs = zip(examples[::2], examples[1::2], strict=True)
    return *(turn for pair in pairs if _has_terms_of(taxonomy, pair[1]) for turn in pair), text


def _has_terms_of(taxonomy: Taxonomy, answer: str) -> bool:
    if not begins_list(answer):
        return True
    try:
        claims = parse_observations(answer, taxonomy)
    except UnreadableAnswer:
        return True
    return not any(term.startswith("other:") for claim in claims for term in (claim.source, claim.risk_category))


def _image_line(images: int) -> str:
    """Return the line about the images before the text."""
    return "" if not images else f"The {'image' if images == 1 else f'{images} images'} above came with the request.\n"


def _as_data(text: str, fences: str) -> str:
    """Return the text with special tokens split, and with the tags of the template's fences escaped: <\\/response>."""
    plain = special_tokens.split(text)
    return re.sub(rf"<(?=\s*/?\s*(?:{fences})\s*/?\s*>)", r"<\\", plain, flags=re.IGNORECASE) if fences else plain


def written(observations: Sequence[Observation]) -> str:
    """Return observations as the JSON list for prompts."""
    return "[" + ", ".join(map(written_one, observations)) + "]"


def written_one(observation: Observation) -> str:
    """Return one observation as the JSON object for prompts."""
    return json.dumps(observation.texts, ensure_ascii=False)


def _listed(terms: Sequence[Term]) -> str:
    return "\n".join(f"- {t.name}: {t.meaning}" if t.meaning else f"- {t.name}" for t in terms)


def _template(path: Path) -> str:
    """Return the text of a template file without its last line break."""
    try:
        return path.read_text("utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a prompt template ({error})") from error


def _read_folder(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder of prompts")
    texts = {path.stem: path.read_bytes().decode("utf-8") for path in sorted(folder.glob("*.txt")) if path.stem in (*NAMES, *PUBLISHED)}
    for path in sorted(folder.glob("*.py")):
        texts |= _read_release(path)
    if not texts:
        raise UsageError(f"{folder}: no prompts found; expected NAME.txt ({', '.join(NAMES)}) or the authors' *.py files")
    return texts


def _read_release(path: Path) -> dict[str, str]:
    """Read the string constants of a released Python file without running it.

    One of the released templates is an f-string that cannot be imported; its source text is used unchanged.
    """
    try:
        source = path.read_text("utf-8")
        tree = ast.parse(source)
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"{path}: cannot be read as the authors' prompts ({error})") from error
    assigned = [(n.targets[0].id, n.value) for n in tree.body if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)]
    texts = {name: _text_of(value, source) for name, value in assigned if name in RELEASED or name == "CLASSES_DEF"}
    classes = texts.pop("CLASSES_DEF", "{CLASSES_DEF}")
    return {RELEASED[name]: text.replace("{CLASSES_DEF}", classes) for name, text in texts.items()}


def _text_of(value: ast.expr, source: str) -> str:
    # The release inserts the classes with a final call `.replace(...)`; we do this ourselves.
    while isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        value = value.func.value
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    if isinstance(value, ast.JoinedStr):
        quoted = (ast.get_source_segment(source, value) or "").lstrip("fF")
        return str(ast.literal_eval(quoted))
    raise UsageError("a released prompt is not a string")
