"""The engine for any vision-language or text-only model that transformers loads, with batching, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from dream_cli.engines import prefix_tree
from dream_cli.engines.batching import Batcher, More, out_of_memory
from dream_cli.engines.checkpoint import Checkpoint, find_checkpoint, fingerprint
from dream_cli.engines.local_model import (
    PRINTS_PARTS,
    first_line,
    is_text_only,
    load_processor,
    load_weights,
    plain_chat,
    prints_parts,
    quiet_libraries,
    row_seed,
    special_tokens_of,
    with_adapter,
)
from dream_cli.engines.parallel import all_of
from dream_cli.engines.protocol import Chat, ChatMessage, Choice, Completion, Engine, EngineSpec, Sampling
from dream_cli.engines.running_batch import RunningBatch, Sample, Sampler
from dream_cli.engines.sampling_noise import RowNoise, generator
from dream_cli.engines.shared_choices import Request, SharedChoices
from dream_cli.engines.spellings import Spelling, Tokens, prefixes, share, spell
from dream_cli.engines.thoughts import no_thoughts, thinking_tag, with_more_tokens, with_thoughts_apart
from dream_cli.engines.usage import Usage
from dream_cli.errors import EngineError, RowError, UsageError

QUESTIONS = 8  # questions about the same images that together cost about as much as one response


@dataclass(frozen=True)
class Pictures:
    """The key of questions that can share a forward pass: the hashes of their images."""

    sha256: tuple[str, ...]


def open_transformers(spec: EngineSpec) -> Engine:
    """Load the model of `spec.model`, a path or hub id; raise UsageError if it cannot be loaded."""
    if spec.model is None:
        raise UsageError("no model was named")
    checkpoint = find_checkpoint(spec.model, spec.adapter)
    quiet_libraries()
    model, processor = _load(checkpoint, spec.model, spec.device)
    vlm = VisionLanguageModel(model, processor, spec.model, no_thoughts(spec))
    return TransformersEngine(vlm, checkpoint, spec)


class TransformersEngine(Engine):
    """The engine of a model in this process: waiting requests with the same key are one batch."""

    kind = "transformers"

    def __init__(self, vlm: VisionLanguageModel, checkpoint: Checkpoint, spec: EngineSpec) -> None:
        self.model = spec.label
        self.checkpoint = checkpoint
        self.fingerprint = fingerprint(checkpoint) + thinking_tag(spec)
        self.concurrency = QUESTIONS * spec.batch_size  # the next batch waits while one runs
        self.usage = vlm.usage
        self._vlm = vlm
        self._thinking = spec.thinking or 0
        self._batch_size = spec.batch_size
        self._batcher = Batcher(
            self._run,
            spec.batch_size,
            multiple=lambda key: QUESTIONS if isinstance(key, Pictures) else 1,
            length=_length,
        )

    async def generate(self, chat: Sequence[ChatMessage], sampling: Sampling, samples: Sequence[int]) -> list[Completion]:
        """Return one completion per sample index; neither a schema nor choices are enforced."""

        async def draw(settings: Sampling, indexes: Sequence[int]) -> list[Completion]:
            return await all_of(self._generate_one(chat, settings, sample) for sample in indexes)

        budgeted = replace(sampling, schema=None, choices=(), max_tokens=sampling.max_tokens + self._thinking)
        return await with_more_tokens(draw, budgeted, samples)

    async def choose(self, chat: Sequence[ChatMessage], answers: Sequence[str]) -> Choice:
        """Return the probability of each answer as the whole reply."""
        pictures = Pictures(tuple(sha256(image.data or b"").hexdigest() for message in chat for image in message.images))
        choice: Choice = await self._submit(pictures, (tuple(chat), tuple(answers)))
        return choice

    async def close(self) -> None:
        """End the worker and release the model."""
        await self._batcher.close()
        del self._vlm

    async def _generate_one(self, chat: Sequence[ChatMessage], sampling: Sampling, sample: int) -> Any:
        # Not every processor accepts rows with and without images in one batch.
        return await self._submit((sampling, any(message.images for message in chat)), (tuple(chat), sample))

    async def _submit(self, key: Hashable, item: Any) -> Any:
        if self._vlm.text_only and any(message.images for message in item[0]):
            raise EngineError(f"{self.model} is a text-only model and takes no images; name a vision-language model for this row")
        try:
            return await self._batcher.submit(key, item)
        except RowError:
            raise
        except Exception as error:
            raise EngineError(f"{self.model}: {type(error).__name__}: {error}") from error

    def _run(self, key: Any, items: list[Any], more: More) -> Iterable[tuple[int, Any]]:
        if isinstance(key, Pictures):
            return enumerate(self._vlm.choose_many(items, self._batch_size))
        sampling, _ = key
        if self._vlm.shares_prompts:
            return self._vlm.generate_continuously(items, sampling, more)
        return enumerate(self._vlm.generate([chat for chat, _ in items], sampling, [sample for _, sample in items]))


def _length(item: tuple[Chat, Any]) -> int:
    """Return the characters of a prompt that is to be answered; 0 for a question, because those of one record stay together."""
    chat, sample = item
    return sum(len(message.text) for message in chat) if isinstance(sample, int) else 0


class VisionLanguageModel:
    """The blocking part of the engine: returns completions or choices for lists of chats, in the same order.

    The processor of a text-only model is its tokenizer.
    """

    def __init__(self, model: Any, processor: Any, name: str, template: Mapping[str, Any] | None = None) -> None:
        self.usage = Usage()
        self._model = model
        self._processor = processor
        self._template = dict(template or {})  # variables of the chat template
        self.text_only = is_text_only(model.config)
        self._tokenizer = getattr(processor, "tokenizer", processor)
        if not (getattr(processor, "chat_template", None) or getattr(self._tokenizer, "chat_template", None)):
            raise UsageError(f"the model {name} has no chat template, so it cannot take a conversation; use its instruction-tuned version")
        if not self.text_only and prints_parts(processor):
            raise UsageError(f"the model {name} {PRINTS_PARTS}")
        self._special = special_tokens_of(processor)
        self._ends = _ends(model, self._tokenizer)
        self._context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.shares_prompts = not prefix_tree.why_not(model.config)
        self._shared = SharedChoices(model, processor, self._ends, self._encode)
        self._forget_defaults()

    def _forget_defaults(self) -> None:
        """Pad on the left, and remove the checkpoint's own sampling defaults, which would override the request."""
        from transformers import GenerationConfig

        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        bos = getattr(self._model.generation_config, "bos_token_id", None)
        pad = self._tokenizer.pad_token_id
        self._model.generation_config = GenerationConfig(bos_token_id=bos, pad_token_id=pad, eos_token_id=list(self._ends) or None)

    def generate(self, chats: Sequence[Chat], sampling: Sampling, samples: Sequence[int]) -> list[Completion]:
        """Return one completion per chat, sampled with the noise of its sample index."""
        inputs = self._encode(chats)
        noise = []
        if sampling.temperature > 0:
            seeds = [row_seed(chat, sampling.seed, sample) for chat, sample in zip(chats, samples, strict=True)]
            noise = [RowNoise(seeds, sampling.temperature, sampling.top_p)]
        out = self._model.generate(**inputs, max_new_tokens=sampling.max_tokens, do_sample=False, logits_processor=noise)
        written = out[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._completion(row, length) for row, length in zip(written, inputs["attention_mask"].sum(1).tolist(), strict=True)]

    def generate_continuously(self, items: Sequence[tuple[Chat, int]], sampling: Sampling, more: More) -> Iterator[tuple[int, Any]]:
        """Yield (number of the item, completion or error) as samples end; an item is a chat and the index of a sample.

        `more(n)` returns the items that join a batch of n samples; they are numbered in this order.
        """
        batch = RunningBatch(self._model, Sampler(sampling.temperature, sampling.top_p, self._ends))
        count = 0
        while items or batch:
            joining: dict[Chat, list[tuple[int, int]]] = {}
            for number, (chat, index) in enumerate(items, count):
                joining.setdefault(chat, []).append((number, index))
            count += len(items)
            for chats, inputs in self._encoded(list(joining)):
                if isinstance(inputs, Exception):
                    yield from ((number, inputs) for chat in chats for number, _ in joining[chat])
                    continue
                lengths = zip(chats, inputs["attention_mask"].sum(1).tolist(), strict=True)
                batch.join(inputs, [[self._sample(chat, sampling, *each, prompt=n) for each in joining[chat]] for chat, n in lengths])
            for sample in batch.step() if batch else ():
                yield sample.request, self._completion(sample.tokens, sample.prompt)
            items = more(len(batch))

    def _encoded(self, chats: list[Chat]) -> list[tuple[list[Chat], Any]]:
        """Return the inputs of the chats as one batch; if one of them cannot be read, of each alone, or its error."""
        if not chats:
            return []
        try:
            return [(chats, self._encode(chats))]
        except Exception as error:
            if out_of_memory(error):
                raise
            return [(chats, error)] if len(chats) == 1 else [one for chat in chats for one in self._encoded([chat])]

    def _sample(self, chat: Chat, sampling: Sampling, number: int, index: int, prompt: int) -> Sample:
        seed = row_seed(chat, sampling.seed, index)
        most = sampling.max_tokens if self._context is None else min(sampling.max_tokens, self._context - prompt)
        return Sample(number, prompt, most, generator(seed, self._model.device) if sampling.temperature > 0 else None)

    def _count(self, calls: int, prompt_tokens: int, completion_tokens: int) -> None:
        self.usage.calls += calls
        self.usage.prompt_tokens += prompt_tokens
        self.usage.completion_tokens += completion_tokens

    def _completion(self, tokens: list[int], prompt: int) -> Completion:
        """Return the completion of one row, which ends at its first end token or at the end of the context."""
        limit = len(tokens) if self._context is None else min(len(tokens), self._context - prompt)
        end = next((i for i, token in enumerate(tokens[:limit]) if token in self._ends), None)
        kept = tokens[: limit if end is None else end]
        text = self._tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        count = len(kept) if end is None else end + 1
        self._count(1, prompt, count)
        return with_thoughts_apart(Completion(text, "length" if end is None else "stop", prompt, count))

    def choose(self, chats: Sequence[Chat], answers: Sequence[str]) -> list[Choice]:
        """Return one choice per chat, with one forward pass for the batch and one more per shared prefix of answers."""
        inputs = self._encode(chats)
        spellings = spell(answers, self._tokenizer)
        logs = {prefix: self._next(inputs, prefix) for prefix in prefixes(spellings)}
        self._count(len(chats), int(inputs["attention_mask"].sum()), len(chats))
        sums = [sum((self._log(logs, s).exp() for s in spellings[answer]), logs[()].new_zeros(len(chats))) for answer in answers]
        return [share(answers, [float(column[row]) for column in sums]) for row in range(len(chats))]

    def choose_many(self, requests: Sequence[Request], batch_size: int) -> list[Choice]:
        """Return one choice per request about the same images, in one shared pass if possible, else in batches."""
        shared = self._shared.choose(requests, self._render, lambda request: self.choose([request[0]], request[1])[0])
        if shared is not None:
            self.usage.calls += len(requests)
            return shared
        choices: dict[int, Choice] = {}
        for answers in dict.fromkeys(answers for _, answers in requests):
            rows = [i for i, (_, others) in enumerate(requests) if others == answers]
            for start in range(0, len(rows), batch_size):
                batch = rows[start : start + batch_size]
                choices |= zip(batch, self.choose([requests[i][0] for i in batch], answers), strict=True)
        return [choices[i] for i in range(len(requests))]

    def _render(self, chat: Chat) -> str:
        """Return the rendered text of a chat, with the processor's placeholder for each image; no image is read."""
        chat = plain_chat(chat, self._special)
        marks = [
            {
                "role": m.role,
                "content": [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in m.parts],
            }
            for m in chat
        ]
        marks = _texts(chat) if self.text_only else marks
        text: str = self._processor.apply_chat_template(marks, add_generation_prompt=True, tokenize=False, **self._template)
        return text

    def _log(self, logs: dict[Tokens, Any], spelling: Spelling) -> Any:
        """Return the log-probability of one spelling for each row, shape (rows,)."""
        tokens = spelling.tokens
        total = sum(logs[tokens[:i]][:, token] for i, token in enumerate(tokens))
        return total + logs[tokens][:, list(self._ends)].logsumexp(1) if spelling.closed else total

    def _next(self, inputs: dict[str, Any], prefix: Tokens) -> Any:
        """Return the log-probabilities of the token after the prompt and `prefix`, shape (rows, vocabulary)."""
        # generate() handles the positions of each architecture, and computes logits of the last position only.
        out = self._model.generate(
            **_append(inputs, prefix), max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        return out.logits[0].float().log_softmax(-1)

    def _encode(self, chats: Sequence[Chat]) -> dict[str, Any]:
        """Return the model's inputs for the chats, padded on the left; raise EngineError if one is too long."""
        chats = [plain_chat(chat, self._special) for chat in chats]
        padding = {"padding": True} if self.text_only else {"processor_kwargs": {"padding": True}}
        inputs = self._processor.apply_chat_template(
            [_texts(chat) if self.text_only else _conversation(chat) for chat in chats],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **padding,
            **self._template,
        )
        if self.text_only:
            # Some tokenizers also return token types, which most language models reject.
            inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        longest = int(inputs["attention_mask"].sum(1).max())
        if self._context is not None and longest >= self._context:
            raise EngineError(f"the prompt is {longest} tokens long with its images, the model's context only {self._context}")
        return {name: self._to_device(value) for name, value in inputs.items()}

    def _to_device(self, value: Any) -> Any:
        """Return a tensor on the model's device; floating-point tensors get the model's dtype."""
        if not hasattr(value, "to"):
            return value
        return value.to(self._model.device, self._model.dtype) if value.is_floating_point() else value.to(self._model.device)


def _append(inputs: dict[str, Any], prefix: Tokens) -> dict[str, Any]:
    """Return the inputs with the same tokens appended to every row; the masks mark them as visible text."""
    import torch

    ids = inputs["input_ids"]
    tail = ids.new_tensor(prefix).expand(len(ids), -1)
    tails = {"input_ids": tail, "attention_mask": torch.ones_like(tail)}
    grown = dict(inputs)
    for name, value in inputs.items():
        if name in tails or (getattr(value, "shape", None) == ids.shape and name.endswith("token_type_ids")):
            grown[name] = torch.cat([value, tails.get(name, torch.zeros_like(tail)).to(value.dtype)], 1)
    return grown


def _conversation(chat: Chat) -> list[dict[str, Any]]:
    """Return the chat in the format of chat templates."""
    from dream_cli.records.images import open_rgb

    return [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": open_rgb(part)}
                for part in message.parts
            ],
        }
        for message in chat
    ]


def _texts(chat: Chat) -> list[dict[str, Any]]:
    """Return the chat in the format of the chat templates of language models."""
    return [{"role": message.role, "content": message.text} for message in chat]


def _ends(model: Any, tokenizer: Any) -> Tokens:
    """Return the tokens that end a reply: the model's own, and the tokenizer's."""
    known = getattr(model.generation_config, "eos_token_id", None)
    known = [] if known is None else [known] if isinstance(known, int) else known
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return tuple(dict.fromkeys([*known, *own]))


def _load(checkpoint: Checkpoint, name: str, device: str | None) -> tuple[Any, Any]:
    """Return the model, on its device and in evaluation mode, and its processor."""
    import torch

    processor = load_processor(checkpoint, name)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = load_weights(checkpoint.folder, name, torch.bfloat16 if device.startswith("cuda") else torch.float32, allow_text_only=True)
    if checkpoint.adapter is not None:
        model = with_adapter(model, checkpoint).merge_and_unload()
    try:
        return model.to(device).eval(), processor
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch without CUDA
        raise UsageError(f"cannot load the model {name} on {device}: {first_line(error)}") from error
