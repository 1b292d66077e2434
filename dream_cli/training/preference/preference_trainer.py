"""TRL's `DPOTrainer`, with each pair in one sequence and all constant values computed once.

The loop, the loss and the logs are TRL's. The layout of a batch, its forward pass, and the stores of the reference's
log-probabilities and of frozen image features are implemented here. Runs that cannot use this path use TRL's and report why; the
reference scores each pair once there too.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch  # noqa: TID253 - this module is imported only for training
import trl.trainer.utils  # noqa: TID253
from transformers import Trainer  # noqa: TID253
from trl import DPOTrainer  # noqa: TID253 - a class needs its base

from dream_cli.engines.patches import private_part
from dream_cli.errors import DreamError
from dream_cli.training import sharding
from dream_cli.training.launching import first_does, greatest
from dream_cli.training.preference import image_features, prefix, start
from dream_cli.training.preference.losses import answer_scores
from dream_cli.training.preference.prefix_batch import PairCollator, render
from dream_cli.training.preference.reference_scores import ReferenceStore, reference_weights, short_hash, weights_hash
from dream_cli.training.reporting import counted, report

GIB = 1 << 30
CPU_TILE = 1024  # words
SHARED, PLAIN = "shared-prefix", "plain"


@dataclass(frozen=True)
class FastPath:
    """The folder of the caches (None: in memory), the limit of image features in bytes, and whether to use the shared prefix.

    With `blocks`, the language model uses the block masks of FlexAttention, which need a GPU.
    """

    folder: Path | None = None
    feature_bytes: int = 8 * GIB
    enabled: bool = True
    blocks: bool = False


class PreferenceTrainer(DPOTrainer):  # type: ignore[misc]
    """A `DPOTrainer` that uses the shared prefix where the model supports it; `path` names the path, `reason` why it is the plain one.

    The reference is the initial policy (with an adapter: the base with a frozen copy of the adapter), never a second model.
    It scores every pair once; `keeps_reference` is False where the arguments do not allow that, and TRL's code then does everything.
    An update is the mean over its pairs (over its chosen tokens for the SFT term), for any split into micro-batches.
    """

    data_collator: Any
    loss_weights: list[float]
    reports = False  # whether the progress of the reference is reported on stderr

    def __init__(self, model: Any, ref_model: Any = None, args: Any = None, *, settings: FastPath | None = None, **others: Any) -> None:
        self.settings = settings or FastPath()
        given = {"ref_model": ref_model, "args": args, "others": others}
        objection = next(_reference_objections(model, **given), "")
        self.keeps_reference = not objection
        self.reason = objection or ("" if self.settings.enabled else "switched off") or prefix.why_not(model.config)
        self.path = PLAIN if self.reason else SHARED
        if self.keeps_reference:
            _check_parts()
        alone = self.keeps_reference and not hasattr(model, "peft_config") and others.get("peft_config") is None
        super().__init__(model, _NoReference(model.config) if alone else ref_model, args, **others)
        self._weights: list[float] = list(self.loss_weights)
        if self.keeps_reference:
            private_part(self, "precompute_ref_logps", "trl")
            self.ref_model, self.precompute_ref_logps = None, True
            start.remove_dropout(self.model)
            image_token = None
            if self.path == SHARED:
                prefix.use_pair_attention(self._bare, self.settings.blocks)
                image_token = self._bare.config.image_token_id
            _fit_tiles(self.accelerator.device)
            self._pairs = PairCollator(self.processing_class, image_token, self.args.max_length, self.data_collator)
            self.data_collator = self._pairs
            self._reference: ReferenceStore | None = None
            self._features: image_features.FeatureStore | None = None
            self._is_at_start = True

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as TRL does, after the reference has scored every pair that is not in its store."""
        if self.keeps_reference:
            self._open_stores()
            if not sharding.strategy():
                self._score_with_reference_at_start()
        return super().train(*args, **kwargs)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        # Sharded weights can be used only from here, and super() loads the checkpoint.
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        if self.keeps_reference:
            self._score_with_reference_at_start(moved=resume_from_checkpoint is not None)
        return prepared

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        if self.keeps_reference:
            self._score_with_reference_at_start()
        super()._load_from_checkpoint(*args, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Return the micro-batches of an update as TRL does, and count their pairs and chosen tokens over all processes."""
        batches, items = super().get_batch_samples(*args, **kwargs)
        if self.keeps_reference:
            sizes = [_size(batch) for batch in batches]
            own = torch.tensor([[sum(pairs for pairs, _ in sizes), sum(tokens for _, tokens in sizes)]], device=self.accelerator.device)
            self._update_size = self.accelerator.gather(own).sum(0).tolist()
        return batches, items

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """Return TRL's loss of a batch, with the stored log-probabilities of the reference, on shared sequences where the batch has them."""
        if not self.keeps_reference:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        batch = dict(inputs)
        self.loss_weights = self._shares_of_update(batch) if self.model.training else self._weights
        pairs, pictures = batch.pop("pairs"), batch.pop("pictures")
        chosen, rejected = self._reference_of(pairs, batch["input_ids"].device)
        reference = {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
        with contextlib.ExitStack() as images:
            forward = model
            if "answers" in batch:
                scores = self._scores(model, batch, pictures)
                batch, forward, return_outputs = prefix.as_trl_batch(batch), lambda **_: scores, False
            else:
                batch = images.enter_context(self._images(batch, pictures))
            if self.model.training and self.state.global_step == 0:
                forward = self._held_to_reference(forward, torch.cat([chosen, rejected]), batch["completion_mask"][:, 1:])
            return super().compute_loss(forward, {**batch, **reference}, return_outputs, num_items_in_batch)

    def _shares_of_update(self, batch: Mapping[str, Any]) -> list[float]:
        """Return the weights of TRL's loss terms, so that the mean of the micro-batches' means is the mean over the update."""
        pairs, tokens = (
            own * self.current_gradient_accumulation_steps * self.accelerator.num_processes / max(all_, 1)
            for own, all_ in zip(_size(batch), self._update_size, strict=True)
        )
        return [weight * (tokens if kind == "sft" else pairs) for kind, weight in zip(self.loss_types, self._weights, strict=True)]

    def _held_to_reference(self, forward: Any, reference: Any, real: Any) -> Any:
        """Return a forward pass that raises DreamError where the policy differs from its reference before the first update."""
        exact = self._bare.dtype == torch.float32 and self.accelerator.mixed_precision == "no" and not hasattr(self._bare, "hf_quantizer")

        def checked(**inputs: Any) -> Any:
            out = forward(**inputs)
            policy = answer_scores(out.log_probs.detach()[:, -real.shape[1] :], real, self.ld_alpha)
            start.check_equal(policy, reference, real.sum(1), exact=exact)
            return out

        return checked

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluate as TRL does, after the reference has scored new rows; raise DreamError where the policy is no longer the reference."""
        if self.keeps_reference and not isinstance(eval_dataset, str):
            self._score_sets_with_reference(self.eval_dataset if self._reference is None and eval_dataset is None else eval_dataset)
        return super().evaluate(eval_dataset, *args, **kwargs)

    @property
    def keeps_features(self) -> bool:
        """Whether image features are cached: their tower is frozen, and they fit the cache."""
        return self.keeps_reference and self._features is not None and self._features.wanted <= self.settings.feature_bytes

    @property
    def _bare(self) -> Any:
        """The model without wrappers and adapter."""
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if hasattr(model, "peft_config") else model

    def _scores(self, model: Any, batch: Mapping[str, Any], pictures: Sequence[str]) -> SimpleNamespace:
        """Return the model's output for a batch of shared sequences."""
        with self._images(batch, pictures) as shown:
            return prefix.score(model, self._bare, shown, router=self.aux_loss_enabled)

    @contextlib.contextmanager
    def _images(self, batch: Mapping[str, Any], pictures: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the batch with the stored features of its images instead of pixels; those that are missing are computed, and stored.

        A batch of TRL's collator has the images twice, for the chosen and for the rejected rows.
        """
        shown, store, bare = dict(batch), self._features, self._bare
        unkept = shown.pop("unkept", None)
        if store is None or "pixel_values" not in shown:
            yield shown
            return
        rows = [*pictures] * (len(shown["input_ids"]) // len(pictures))
        known = {key: features for key in set(filter(None, rows)) if (features := store.get(key)) is not None}
        missing = {*filter(None, rows)} - known.keys()
        if not missing:
            del shown["pixel_values"]
            features = image_features.as_encoder_outputs(_in_order(rows, known), shown["input_ids"].device)
            yield shown | {"mm_encoder_outputs": features}
            return
        computed, part = rows, None
        if unkept is not None and missing <= {*unkept["keys"]}:
            computed = unkept["keys"]
            part = image_features.Part(unkept["inputs"], lambda made: _in_order(rows, known | dict(zip(computed, made, strict=True))))
        tokens = dict(zip(rows, (shown["input_ids"] == bare.config.image_token_id).sum(1).tolist(), strict=True))
        with image_features.recorded(bare.base_model, [tokens[key] for key in computed], part) as seen:
            yield shown
        if not seen:
            self._features = self._pairs.holds = None
        for key in missing if seen else ():
            store.put(key, seen[computed.index(key)])

    def _score_with_reference_at_start(self, moved: bool = False) -> None:
        """Score the rows of this run with the reference, once, while the policy still equals it (unless it has `moved`)."""
        if self._is_at_start:
            self._is_at_start = not moved
            self._score_sets_with_reference(self.train_dataset, self.eval_dataset)
            self._is_at_start = False
            if self._features is not None and self._features.wanted > self.settings.feature_bytes:
                size, limit = self._features.wanted / GIB, self.settings.feature_bytes / GIB
                report(
                    f"dpo: the features of the images would take {size:.3g} GiB, more than {limit:.3g} (--cache-size), and are computed anew"
                )

    def _score_sets_with_reference(self, *datasets: Any) -> None:
        """Score every pair of some data sets (or dicts of them, or None) that the reference has not scored yet."""
        self._open_stores()
        for given in datasets:
            for rows in given.values() if isinstance(given, dict) else filter(None, [given]):
                self._score_with_reference(rows)

    def _open_stores(self) -> None:
        """Open the stores of this reference and, if the tower is frozen, of image features; requires the initial weights."""
        if self._reference is not None:
            return
        folder = self.settings.folder
        reference, tower = first_does(self._fingerprints)
        self._reference = ReferenceStore(folder, reference, self.accelerator.process_index)
        if image_features.can_be_kept(self._bare):
            place, sets = folder / f"features-{tower}" if folder else None, image_features.count_sets(self.train_dataset)
            self._features = image_features.FeatureStore(place, self.settings.feature_bytes, sets)
            self._pairs.holds = self._features.holds

    def _fingerprints(self) -> tuple[str, str]:
        """Return hashes that identify the reference and its tower: of the weights, which the first process has whole, and their use."""
        model, images = self.accelerator.unwrap_model(self.model), self.processing_class.image_processor.to_dict()
        how = [str(model.dtype), self.accelerator.mixed_precision, *filter(None, [sharding.strategy()])]
        reference = short_hash(weights_hash(reference_weights(model)), how, images, self.args.max_length, self.ld_alpha)
        return reference, short_hash(weights_hash(image_features.vision_weights(self._bare)), how, images, "by form")

    def _reference_of(self, pairs: Sequence[str], device: Any) -> tuple[Any, Any]:
        if self._reference is None:
            raise RuntimeError("the reference has not scored any pair yet; call train() or evaluate()")
        chosen, rejected = self._reference.of(pairs)
        return torch.tensor(chosen, device=device), torch.tensor(rejected, device=device)

    def _score_with_reference(self, rows: Any) -> None:
        """Score a data set; each process scores its share and receives the scores of the others.

        All processes do the same number of forward passes: with sharded weights every process takes part in each.
        """
        from accelerate.utils import gather_object
        from torch.utils.data import DataLoader, Subset

        assert self._reference is not None
        first, processes = self.accelerator.process_index, self.accelerator.num_processes
        share = [place % len(rows) for place in range(first, processes * math.ceil(len(rows) / processes), processes)]
        loader = DataLoader(
            Subset(rows, share),
            batch_size=self.args.per_device_train_batch_size,
            collate_fn=_Unscored(self._pairs, self._reference),
            num_workers=self.args.dataloader_num_workers,
        )
        scores: dict[str, tuple[float, float]] = {}
        any_unscored = False
        with self._as_reference() as model:
            rows_per_turn = processes * self.args.per_device_train_batch_size
            for batch in counted(loader, "dpo", not self.reports, work="scored by the reference", size=rows_per_turn):
                if not greatest(batch is not None):
                    continue
                any_unscored = True
                if not (self._is_at_start or hasattr(model, "peft_config")):
                    raise DreamError(
                        "the policy has moved off its reference, which has not scored all of these rows: give them when training starts, "
                        "and leave the cache alone until it ends; --overwrite starts anew"
                    )
                scored = self._reference_scores(model, self._prepare_inputs(batch or self._pairs([rows[0]])))
                if batch:
                    self._reference.add(scored)
                    scores |= scored
        if any_unscored:
            sharding.renew(model)
        self._reference.merge(gather_object([scores]))

    def _reference_scores(self, model: Any, batch: dict[str, Any]) -> dict[str, tuple[float, float]]:
        pairs, pictures = batch.pop("pairs"), batch.pop("pictures")
        if "answers" in batch:
            real = prefix.as_trl_batch(batch)["completion_mask"][:, 1:]
            scored = answer_scores(self._scores(model, batch, pictures).log_probs, real, self.ld_alpha).chunk(2)
        else:
            with self._images(batch, pictures) as shown:
                scored = self.compute_ref_log_probs(model, shown)
        chosen, rejected = (part.float().tolist() for part in scored)
        return dict(zip(pairs, zip(chosen, rejected, strict=True), strict=True))

    @contextlib.contextmanager
    def _as_reference(self) -> Iterator[Any]:
        """Yield the initial model: without its adapter, or with the frozen copy of its initial adapter."""
        from trl.trainer.utils import use_adapter

        model = self.accelerator.unwrap_model(self.model)
        adapted = hasattr(model, "peft_config")
        name = "ref" if adapted and "ref" in model.peft_config else None
        was_training = model.training
        # In eval mode on a CPU, a 4-bit base is packed for inference and passes no gradients any more; TRL has removed all dropout.
        model.train(was_training and getattr(model, "is_loaded_in_4bit", False))
        # FSDP and DeepSpeed cast weights and inputs themselves, for both the policy and the reference.
        cast = contextlib.nullcontext() if sharding.strategy() else self.accelerator.autocast()
        with torch.no_grad(), cast, use_adapter(model, name) if adapted else contextlib.nullcontext():
            yield model
            sharding.release(model)
        model.train(was_training)


def _check_parts() -> None:
    """Raise UsageError where TRL or transformers lacks a name that is overridden or set here: the run would ignore the reference."""
    for name in ("_prepare_for_training", "_load_from_checkpoint"):
        private_part(Trainer, name, "transformers")
    private_part(DPOTrainer, "compute_ref_log_probs", "trl")
    for name in ("_CHUNKED_LOGPROB_CHUNK_SIZE", "use_adapter"):
        private_part(trl.trainer.utils, name, "trl")


def _fit_tiles(device: Any) -> None:
    """Make TRL's fused head compute logits on a CPU in tiles that fit its cache; the default of 32768 words is for GPU kernels."""
    if device.type == "cpu":
        trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE = CPU_TILE


@dataclass(frozen=True)
class _Unscored:
    """Collates rows unless the reference has scored all of them; in whole batches, so that a resumed run has the same batches."""

    collate: PairCollator
    known: ReferenceStore

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the batch, None if all its rows are scored."""
        return self.collate(rows) if self.known.missing(render(row, self.collate.processor).key for row in rows) else None


class _NoReference(torch.nn.Module):  # type: ignore[misc]
    """A placeholder, so that TRL does not load a second copy of the weights as the reference."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self) -> None:
        """Never called."""


def _in_order(rows: Iterable[str], features: Mapping[str, image_features.Features]) -> list[image_features.Features]:
    """Return the features of the rows with images, in the order of the rows."""
    return [features[key] for key in rows if key]


def _size(batch: Mapping[str, Any]) -> tuple[int, int]:
    """Return the number of pairs of a batch, and of the tokens in their chosen answers."""
    pairs = len(batch["pairs"])
    chosen = batch["answers"][:, 0] != -100 if "answers" in batch else batch["completion_mask"][:pairs, 1:]
    return pairs, int(chosen.sum())


def _reference_objections(model: Any, ref_model: Any, args: Any, others: Mapping[str, Any]) -> Iterator[str]:
    """Yield the reasons why the reference cannot score each pair only once."""
    from transformers import ProcessorMixin

    rows: Any = others.get("train_dataset")
    held_out, adapter = others.get("eval_dataset"), others.get("peft_config")
    if isinstance(model, str) or args is None or rows is None:
        yield "the model is given by name, or there are no arguments or rows"
    if ref_model is not None:
        yield "a reference model of its own is given"
    if others.get("data_collator") is not None or others.get("compute_metrics") is not None:
        yield "a collator or metrics of its own are given"
    if not all(hasattr(given, "__len__") for given in (rows, held_out) if given is not None):
        yield "the rows are streamed"
    if not isinstance(others.get("processing_class"), ProcessorMixin) or not {"image", "images"} & set(next(iter(rows))):
        yield "the rows have no images"
    if args.sync_ref_model:
        yield "the reference changes during training (sync_ref_model)"
    yield from filter(None, [sharding.why_not_shared(args)])
    if any(plan.is_prompt_learning for plan in (*getattr(model, "peft_config", {}).values(), *filter(None, [adapter]))):
        yield "there are virtual tokens before the prompt"
