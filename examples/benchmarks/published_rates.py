"""Published rates as counts, with Wilson's interval.    python examples/benchmarks/published_rates.py

A rate over n items is k/n for a whole k: if no k gives the printed figure, it was misprinted, rounded twice or computed over other items.
Sources: SIUO leaderboard (sinwang20.github.io/SIUO), FigStep assets (ThuCCSLab/FigStep), VLGuard paper (arXiv 2402.02207, table 2),
MOSSBench README (xirui-li/MOSSBench), XSTest labels (paul-rottger/exaggerated-safety); DREAM's SIUO rate from its abstract (arXiv 2504.18053).
"""

from __future__ import annotations

import sys

from dream_cli.stats.intervals import newcombe, wilson

# Name, n, printed rates in percent.
ROWS = (
    ("SIUO safe, effective, both, MCQA: GPT-4V", 167, (53.29, 69.46, 23.35, 38.92)),
    ("SIUO safe, effective, both, MCQA: GPT-4o", 167, (50.90, 95.81, 46.71, 41.32)),
    ("SIUO safe, effective, both, MCQA: Gemini 1.5 Pro", 167, (52.10, 91.62, 45.51, 47.31)),
    ("SIUO safe, effective, both, MCQA: LLaVA-1.6-34B", 167, (40.72, 95.81, 37.13, 52.69)),
    ("SIUO safe, effective, both, MCQA: Qwen-VL-7B-Chat", 167, (41.32, 82.63, 29.94, 20.96)),
    ("SIUO safe, effective, both, MCQA: LLaVA-1.5-7B", 167, (21.56, 87.43, 16.17, 33.53)),
    ("SIUO safe, effective, both, MCQA: LLaVA-1.5-13B", 167, (22.16, 91.62, 19.76, 32.93)),
    ("SIUO both: DREAM, GPT-4V's 23.35 + 16.17", 167, (39.52,)),
    ("FigStep ASR, text alone: LLaVA-1.5-7B, 13B, MiniGPT4 L2-7B, V-7B, V-13B, CogVLM", 500, (57.4, 45.4, 23.8, 50.6, 83.4, 8.2)),
    ("FigStep ASR, in the image: the same", 500, (84.0, 88.2, 82.6, 68.0, 85.2, 87.0)),
    ("FigStep ASR on Tiny: LLaVA, MiniGPT4, CogVLM", 50, (92.0, 90.0, 82.0)),
    ("VLGuard safe-safe wins: LLaVA-1.5-7B, post-hoc, mixed", 558, (18.82, 18.96, 20.78)),
    ("VLGuard safe-unsafe ASR: LLaVA-1.5-7B, post-hoc; 13B, post-hoc", 558, (87.46, 0.90, 80.65, 1.25)),
    ("VLGuard unsafe ASR: LLaVA-1.5-7B, post-hoc, mixed; 13B, post-hoc", 442, (72.62, 0.23, 0.90, 55.88, 0.00)),
    ("FigStep ASR in VLGuard's table: LLaVA-1.5-7B; 13B", 500, (90.40, 92.90)),
    ("XSTest compliance, safe prompts: LLaVA-1.5-7B, post-hoc, mixed; data without utility mix", 250, (91.2, 80.8, 82.4, 41.6)),
    ("XSTest compliance, unsafe prompts: LLaVA-1.5-7B, post-hoc, mixed", 200, (26.5, 6.0, 4.0)),
    ("MOSSBench refusal: Claude 3 Opus web, API, Gemini 1.5 Pro, Qwen-VL-Chat", 300, (70.67, 34.67, 29.33, 21.67)),
    ("MOSSBench refusal: LLaVA-1.5-7B, 13B, GPT-4o", 300, (12.33, 9.67, 6.33)),
    ("XSTest full refusal, safe prompts: Llama2-orig, new, Mistral-guard, GPT-4, Mistral-instruct", 250, (38.0, 14.0, 9.6, 6.4, 0.8)),
    ("XSTest full refusal, unsafe prompts: the same in order", 200, (99.5, 97.5, 87.5, 97.5, 23.5)),
)


def count(percent: float, n: int) -> int | None:
    """Return the k whose share of n is this percentage to two decimals; None if there is none."""
    k = round(percent * n / 100)
    return k if abs(100 * k / n - percent) <= 0.005 + 1e-9 else None


def main() -> None:
    """Print each rate as k/n with its interval, then which models differ significantly."""
    rates = impossible = 0
    for name, n, printed in ROWS:
        sys.stdout.write(f"{name}\n")
        for percent in printed:
            k = count(percent, n)
            rates += 1
            impossible += k is None
            counted = f"{k}/{n} {wilson(k, n)}" if k is not None else f"no k/{n}: the nearest is {100 * round(percent * n / 100) / n:.2f}"
            sys.stdout.write(f"  {percent:6.2f}  {counted}\n")
    sys.stdout.write(f"{rates - impossible} of {rates} rates are counts\n\n")
    for name, k in (("GPT-4V", 39), ("GPT-4o", 78)):
        low, high = newcombe((66, 167), (k, 167))
        apart = "told apart" if low > 0 or high < 0 else "not told apart"
        sys.stdout.write(
            f"SIUO both, DREAM 66/167 minus {name} {k}/167: {100 * (66 - k) / 167:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}], {apart}\n"
        )


if __name__ == "__main__":
    main()
