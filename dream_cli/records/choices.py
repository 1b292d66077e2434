"""The allowed values of options, each set defined once.

This module imports nothing else of the package, so that the command line can print its help without importing the code that uses
them. `get_args` returns a set as a list.
"""

from __future__ import annotations

from typing import Literal

LocalEngine = Literal["transformers", "vllm"]
EngineName = Literal[LocalEngine, "openai"]

Mode = Literal["split", "joint", "image", "text"]  # which parts of a prompt the teacher analyses
Combination = Literal["sum", "product", "lexicographic", "global", "observation"]  # how two scores are combined
Rubric = Literal["paper", "facts"]  # a rating scale as in the paper, or Yes/No questions
AnswerReading = Literal["expected", "parsed"]  # how a judge's answer becomes a number
VerdictReading = Literal[AnswerReading, "constrained"]  # how a verdict was read: constrained where the server allowed no other answer

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
JudgeFormat = Literal["questions", GuardName]  # the judge's prompt: our questions, or the published format of a guard model
Aggregate = Literal["any", "mean", "majority"]  # how the trials of a prompt are combined

# The order in which dialects are tried on a row: a dialect with a field of its own comes before those that look alike.
WrittenDialect = Literal["llamafactory", "llava", "alpaca", "openai", "swift", "trl", "rlaif-v", "spa-vl"]
ForeignDialect = Literal[
    "rlhf-v",
    "vlfeedback",
    "beavertails-v",
    "vlguard",
    "distilabel",
    "argilla",
    "openrlhf",
    "hh-rlhf",
    "finevision",
    WrittenDialect,
    "vlmevalkit",
]
SourceName = Literal["dream", ForeignDialect]
TargetName = Literal["dream", WrittenDialect]
ImageForm = Literal["inline", "extract", "paths"]  # how a converted row holds its images

Shell = Literal["bash", "zsh", "fish"]
