"""The engine for vLLM in this process, on a machine with a GPU."""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TextIO

from dream_cli.engines.batching import Batcher, More
from dream_cli.engines.checkpoint import Checkpoint, find_checkpoint, fingerprint
from dream_cli.engines.local_model import plain_chat, row_seed, special_tokens_of
from dream_cli.engines.parallel import all_of
from dream_cli.engines.protocol import Chat, ChatMessage, Choice, Completion, Engine, EngineSpec, Sampling
from dream_cli.engines.spellings import Spelling, Tokens, prefixes, share, spell
from dream_cli.engines.thoughts import no_thoughts, thinking_tag, with_more_tokens, with_thoughts_apart
from dream_cli.engines.usage import Usage
from dream_cli.errors import EngineError, RowError, UsageError

BATCH = 256
# Options that change only devices, batches or memory. All other options may change an answer.
_OF_RUNNING = re.compile(
    r"(data|pipeline|tensor)_parallel_\w+|enable_(chunked_prefill|expert_parallel|prefix_caching|sleep_mode)|max_num_\w+|max_(cpu_)?loras"
    r"|max_lora_rank|max_parallel_loading_workers|mm_(encoder_tp_mode|processor_cache_\w+)|master_\w+|nnodes|node_rank|device_ids|numa_\w+"
    r"|gpu_memory_utilization|kv_cache_memory_bytes|cpu_offload_gb|block_size|enforce_eager|limit_mm_per_prompt|skip_mm_profiling"
    r"|distributed_executor_backend|download_dir|safetensors_load_strategy|disable_log_stats|async_scheduling|served_model_name|use_tqdm_on_load"
)


def open_vllm(spec: EngineSpec) -> Engine:
    """Load the model of `spec.model` onto the GPU; raise UsageError if it cannot be loaded or another stage uses the GPU."""
    if spec.model is None:
        raise UsageError("no model was named")
    checkpoint = find_checkpoint(spec.model, spec.adapter)
    check_options(spec.engine_args)
    lock = _take_gpu()
    try:
        llm = _load(checkpoint, spec.engine_args)
    except (OSError, ValueError, TypeError, ImportError, RuntimeError) as error:
        lock.close()
        reason = " ".join(str(error).split())
        hint = "check --engine-args" if spec.engine_args else "--engine transformers runs it without vLLM"
        raise UsageError(f"vLLM cannot load the model {spec.model}: {reason}; {hint}") from error
    return VllmEngine(llm, checkpoint, spec, lock)


class VllmEngine(Engine):
    """The engine of a model in vLLM, which schedules large batches itself."""

    kind = "vllm"
    concurrency = 2 * BATCH

    def __init__(self, llm: Any, checkpoint: Checkpoint, spec: EngineSpec, lock: TextIO) -> None:
        self.model = spec.label
        self.checkpoint = checkpoint
        self.fingerprint = f"vllm-{fingerprint(checkpoint)}{thinking_tag(spec)}{options_tag(spec.engine_args)}"
        self.usage = Usage()
        self._llm = llm
        self._tokenizer = llm.get_tokenizer()
        self._special = special_tokens_of(self._tokenizer)
        self._ends = _ends(checkpoint, self._tokenizer)
        self._options = _chat_options(checkpoint) | ({"chat_template_kwargs": template} if (template := no_thoughts(spec)) else {})
        self._lock = lock
        self._thinking = spec.thinking or 0
        self._batcher = Batcher(self._run, BATCH)

    async def generate(self, chat: Sequence[ChatMessage], sampling: Sampling, samples: Sequence[int]) -> list[Completion]:
        """Return one completion per sample index, constrained to the schema or the choices if there are any."""

        async def draw(settings: Sampling, indexes: Sequence[int]) -> list[Completion]:
            return await all_of(self._submit(chat, settings, sample) for sample in indexes)

        return await with_more_tokens(draw, replace(sampling, max_tokens=sampling.max_tokens + self._thinking), samples)

    async def choose(self, chat: Sequence[ChatMessage], answers: Sequence[str]) -> Choice:
        """Return the probability of each answer as the whole reply."""
        choice: Choice = await self._submit(chat, tuple(answers), 0)
        return choice

    def constrains(self) -> bool:
        """Return True: tokens outside the choices are masked."""
        return True

    async def close(self) -> None:
        """End the worker and release the model and the GPU."""
        await self._batcher.close()
        # Otherwise its process, with its GPU memory, would outlive this one if that exits without Python's cleanup.
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        self._lock.close()

    async def _submit(self, chat: Sequence[ChatMessage], key: Hashable, sample: int) -> Any:
        try:
            return await self._batcher.submit(key, (tuple(chat), sample))
        except RowError:
            raise
        except Exception as error:
            raise EngineError(f"{self.model}: {type(error).__name__}: {error}") from error

    def _run(self, key: Any, items: list[tuple[Chat, int]], more: More) -> Iterable[tuple[int, Any]]:
        # vLLM batches continuously by itself.
        if isinstance(key, Sampling):
            return enumerate(self._generate(key, items))
        return enumerate(self._choose(key, [chat for chat, _ in items]))

    def _generate(self, sampling: Sampling, items: list[tuple[Chat, int]]) -> list[Completion]:
        parameters = [_parameters(replace(sampling, seed=row_seed(chat, sampling.seed, sample))) for chat, sample in items]
        outs = self._llm.chat([self._conversation(chat) for chat, _ in items], parameters, **self._options)
        self.usage.calls += len(items)
        self._count(outs)
        return [_completion(out) for out in outs]

    def _conversation(self, chat: Chat) -> list[dict[str, Any]]:
        """Return the chat in the format of vLLM."""
        from dream_cli.records.images import open_rgb

        return [
            {
                "role": message.role,
                "content": [
                    {"type": "text", "text": part} if isinstance(part, str) else {"type": "image_pil", "image_pil": open_rgb(part)}
                    for part in message.parts
                ],
            }
            for message in plain_chat(chat, self._special)
        ]

    def _count(self, outs: Sequence[Any]) -> None:
        self.usage.prompt_tokens += sum(len(out.prompt_token_ids) for out in outs)
        self.usage.completion_tokens += sum(len(completion.token_ids) for out in outs for completion in out.outputs)

    def _choose(self, answers: Sequence[str], chats: Sequence[Chat]) -> list[Choice]:
        spellings = spell(answers, self._tokenizer)
        after = {prefix: self._next(chats, prefix, tokens) for prefix, tokens in _needed_tokens(spellings, self._ends).items()}
        self.usage.calls += len(chats)
        return [
            share(answers, [sum(self._probability(after, s, row) for s in spellings[answer]) for answer in answers])
            for row in range(len(chats))
        ]

    def _probability(self, after: dict[Tokens, list[dict[int, float]]], spelling: Spelling, row: int) -> float:
        tokens = spelling.tokens
        product = math.prod(after[tokens[:i]][row][token] for i, token in enumerate(tokens))
        return product * sum(after[tokens][row][end] for end in self._ends) if spelling.closed else product

    def _next(self, chats: Sequence[Chat], prefix: Tokens, tokens: Sequence[int]) -> list[dict[int, float]]:
        """Return the probabilities of `tokens` after the prompt and `prefix`, per chat."""
        from vllm import SamplingParams

        options = dict(self._options)
        prefill: list[dict[str, Any]] = []
        if prefix:
            prefill = [{"role": "assistant", "content": self._tokenizer.decode(prefix)}]
            options |= {"add_generation_prompt": False, "continue_final_message": True}
        # By token id: a list of the most probable tokens would omit improbable ones.
        parameters = SamplingParams(max_tokens=1, temperature=0, logprob_token_ids=list(tokens))
        outs = self._llm.chat([[*self._conversation(chat), *prefill] for chat in chats], parameters, **options)
        self._count(outs)
        return [{token: math.exp(entry.logprob) for token, entry in out.outputs[0].logprobs[0].items()} for out in outs]


def _needed_tokens(spellings: dict[str, list[Spelling]], ends: Tokens) -> dict[Tokens, Tokens]:
    """Return the tokens whose probability is needed after each prefix."""
    every = [spelling for group in spellings.values() for spelling in group]
    tokens_by_prefix: dict[Tokens, Tokens] = {}
    for prefix in prefixes(spellings):
        within = [s.tokens[len(prefix)] for s in every if s.tokens[: len(prefix)] == prefix and len(s.tokens) > len(prefix)]
        closing = ends if any(s.closed and s.tokens == prefix for s in every) else ()
        tokens_by_prefix[prefix] = tuple(dict.fromkeys([*within, *closing]))
    return tokens_by_prefix


def check_options(options: Mapping[str, Any]) -> None:
    """Raise UsageError if vLLM does not have one of the engine options; no model is loaded."""
    if not options:
        return
    _quiet_vllm()
    try:
        from vllm import EngineArgs
    except (OSError, ImportError, RuntimeError) as error:
        raise UsageError(f"vLLM cannot be imported: {error}") from error

    known = [option.name for option in fields(EngineArgs)]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name.lstrip("-").replace("-", "_"), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; `vllm serve --help=all` lists them"
            raise UsageError(f"--engine-args: vLLM has no engine option {name!r}{hint}")


def options_tag(options: Mapping[str, Any]) -> str:
    """Return the part of the fingerprint for these engine options; empty if they cannot change an answer."""
    changing = {name: value for name, value in options.items() if not _OF_RUNNING.fullmatch(name)}
    return f"-{hashlib.sha256(json.dumps(changing, sort_keys=True).encode()).hexdigest()[:16]}" if changing else ""


def _quiet_vllm() -> None:
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


def _load(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Any:
    _quiet_vllm()
    from vllm import LLM

    adapter: dict[str, Any] = {}
    if checkpoint.adapter is not None:
        rank = json.loads((checkpoint.adapter / "adapter_config.json").read_text())["r"]
        # vLLM takes powers of two from 8 on.
        adapter = {"enable_lora": True, "max_lora_rank": max(8, 1 << (rank - 1).bit_length())}
    ours: dict[str, Any] = {
        # The checkpoint's own sampling defaults must not override the request.
        "generation_config": "vllm",
        # With free whitespace in its JSON, a model can write whitespace until its tokens are used up.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        "limit_mm_per_prompt": {"image": 16, "video": 0},
        "use_tqdm_on_load": False,
    }
    return LLM(str(checkpoint.folder), **{**ours, **adapter, **options})


def _chat_options(checkpoint: Checkpoint) -> dict[str, Any]:
    if checkpoint.adapter is None:
        return {"use_tqdm": False}
    from vllm.lora.request import LoRARequest

    return {"use_tqdm": False, "lora_request": LoRARequest("adapter", 1, str(checkpoint.adapter))}


def _parameters(sampling: Sampling) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    constraint = None
    if sampling.choices:
        constraint = StructuredOutputsParams(choice=list(sampling.choices))
    elif sampling.schema is not None:
        constraint = StructuredOutputsParams(json=dict(sampling.schema))
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        seed=sampling.seed,
        structured_outputs=constraint,
    )


def _completion(out: Any) -> Completion:
    first = out.outputs[0]
    return with_thoughts_apart(Completion(first.text, first.finish_reason, len(out.prompt_token_ids), len(first.token_ids)))


def _ends(checkpoint: Checkpoint, tokenizer: Any) -> Tokens:
    """Return the tokens that end a reply: those of the checkpoint and of the tokenizer."""
    file = checkpoint.folder / "generation_config.json"
    known = json.loads(file.read_text()).get("eos_token_id") if file.exists() else None
    ends = known if isinstance(known, list) else [known]
    return tuple(dict.fromkeys(end for end in (*ends, tokenizer.eos_token_id) if end is not None))


def _take_gpu() -> TextIO:
    """Return the lock of the visible GPUs; vLLM uses all their memory, so a second stage would fail."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "all").replace(",", "-").replace("/", "-")
    lock = (Path(tempfile.gettempdir()) / f"dream-vllm-{os.getuid()}-{gpus}.lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise UsageError(
            "another stage of this pipe already has the GPU; start one server for each model (vllm serve MODEL) "
            "and give every stage its address with --base-url"
        ) from None
    return lock
