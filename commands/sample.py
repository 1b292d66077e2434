"""Sample responses of the policy.    dream sample observed.jsonl -n 4 -o sampled.jsonl"""

from __future__ import annotations

from typing import Annotated

import typer

from dream_cli.cli.options import EngineOptions, PromptFolder, Seed, StageOptions

N = Annotated[int, typer.Option("-n", "--samples", min=1, help="Responses per prompt.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="Sampling temperature (0: greedy decoding).")]
TopP = Annotated[
    float, typer.Option("--top-p", min=0.0, max=1.0, help="Nucleus sampling: cumulative probability of the tokens sampled from.")
]
MaxTokens = Annotated[int, typer.Option(min=1, help="Maximum tokens per response.")]
System = Annotated[str | None, typer.Option(help="System message.")]
Observe = Annotated[bool, typer.Option("--observe", help="Add the observations to the prompt (DREAM without training).")]
Append = Annotated[bool, typer.Option("--append", help="Append to existing responses instead of replacing them.")]


def run(
    n: N = 1,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    max_tokens: MaxTokens = 256,
    system: System = None,
    observe: Observe = False,
    append: Append = False,
    prompts: PromptFolder = None,
    seed: Seed = 0,
    *,
    engine: EngineOptions,
    stage: StageOptions,
) -> None:
    """Sample responses of the policy to each prompt.

    Replaces `responses`; the same seed gives the same responses.

    Example: dream sample examples/records.jsonl -n 4 --limit 2
    """
    from dream_cli.engines.protocol import Sampling
    from dream_cli.method.model_prompts import with_model_prompts
    from dream_cli.method.sampling import Sampler
    from dream_cli.method.stages import run_stage
    from dream_cli.prompts.rendering import Prompts

    templates = Prompts.load(prompts)
    drawing = Sampling(temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed)
    run = stage.run("sample")
    tally = run_stage(
        run,
        engine.spec("sample"),
        lambda opened: with_model_prompts(
            Sampler(engine=opened, prompts=templates, sampling=drawing, n=n, system=system, observe=observe, append=append), run.report
        ),
    )
    raise typer.Exit(tally.exit_code)
