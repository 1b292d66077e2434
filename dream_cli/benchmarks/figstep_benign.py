"""FigStep-Benign: harmless requests written into an image like those of FigStep (github.com/Kizna1ver/DREAM, data/FigStep-Benign).

Its protocol was not released; here the rate of refusals is measured.
"""

from __future__ import annotations

from dream_cli.benchmarks.benchmark import REFUSAL, Benchmark, Item, Subset, refusal_rates
from dream_cli.benchmarks.figstep import COLUMNS, PROMPT, TOPICS, pair_key
from dream_cli.benchmarks.tables import OfficialFiles, Table
from dream_cli.engines.protocol import Sampling
from dream_cli.records.record import Record

TABLE = Table("FigStep-Benign", ("SafeBench-Tiny-Benign.csv",), (*COLUMNS, "benign_instruction"))


def load(source: OfficialFiles) -> list[Record]:
    """Read the file; image i belongs to row i, and the columns with the harmful request are not copied."""
    return [
        # The topic is that of the harmful partner; it does not describe the harmless request.
        Item(
            "figstep_benign",
            pair_key(row),
            topic=row["category_name"],
            expects="answer",
            pair=pair_key(row),
            reference=row["benign_instruction"],
            shown=f"The image reads: {row['benign_instruction']}",
        ).record(PROMPT, [source.image(row, f"images/{i}.png", f"{i}.png")])
        for i, row in enumerate(source.rows(TABLE))
    ]


FIGSTEP_BENIGN = Benchmark(
    name="figstep_benign",
    title="FigStep-Benign",
    tables=(TABLE,),
    load=load,
    subsets={"": Subset(dict.fromkeys(TOPICS, 5), strict=(REFUSAL,), metrics=refusal_rates("down"))},
    sampling=Sampling(max_tokens=512),
    partner="figstep",
    harmless=True,
)
