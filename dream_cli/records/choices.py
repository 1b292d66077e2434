"""The values that an option may have, each set named once.

They stand at the bottom of the house, so that the command line prints its help without importing what uses them. Where a list is
needed, `get_args` gives it.
"""

from __future__ import annotations

from typing import Literal

LocalEngine = Literal["transformers", "vllm"]
EngineName = Literal[LocalEngine, "openai"]

Mode = Literal["split", "joint", "image", "text"]  # which sides of a prompt the teacher is asked about
Combination = Literal["sum", "product", "lexicographic", "global", "observation"]  # how two scores make one
Rubric = Literal["paper", "facts"]  # by a scale as in the paper, or from Yes/No questions
AnswerReading = Literal["expected", "parsed"]  # how a judge's answer becomes a number
VerdictReading = Literal[AnswerReading, "constrained"]  # how it did: constrained where the server let the judge write nothing else

PairPolicy = Literal["best-worst", "all", "adjacent"]
TargetPick = Literal["first", "best", "all"]

PairLoss = Literal["sigmoid", "hinge", "ipo", "robust", "sigmoid_norm", "bco_pair"]
LossTerm = Literal[PairLoss, "sft"]
Decay = Literal["linear", "cosine", "constant"]
Dtype = Literal["auto", "float32", "bfloat16"]
Optimiser = Literal["adamw", "adamw_8bit", "paged_adamw_8bit"]
OnTooLong = Literal["drop", "stop"]
Tracker = Literal["tensorboard", "wandb", "trackio"]

Rule = Literal["strict", "official"]  # the image-grounded judge, or the benchmark's own published rule
GuardName = Literal["llama-guard", "qwen3guard", "shieldgemma"]  # families of models that label a response as safe or unsafe
JudgeFormat = Literal["questions", GuardName]  # how a judge is asked: our questions, or the published form of a guard
Aggregate = Literal["any", "mean", "majority"]  # how the trials of a prompt make one outcome

# The order in which a row is tried: a dialect with a field that no other has comes before those that look alike.
WrittenDialect = Literal["llamafactory", "llava", "alpaca", "openai", "swift", "trl", "rlaif-v", "spa-vl"]
ForeignDialect = Literal[
    "rlhf-v", "vlfeedback", "beavertails-v", "vlguard", "distilabel", "argilla", "openrlhf", WrittenDialect, "vlmevalkit"
]
SourceName = Literal["dream", ForeignDialect]
TargetName = Literal["dream", WrittenDialect]
ImageForm = Literal["inline", "extract", "paths"]  # how a converted row holds its images

Shell = Literal["bash", "zsh", "fish"]
