#!/usr/bin/env bash
# The tour: the pipe on the example records, then a small loop in nano's world: before, after SFT on few targets, after a round of DPO.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-out/demo}
bash "$here/demo.sh" "$out"

export OUT=$out/loop ROUNDS=1 KEEP_GOING=1 SFT_PROMPTS=80 ROUND_PROMPTS=120 GUIDED="-n 1 --temperature 0" EVAL="nano_world --limit 24"
export DPO=${DPO:---lr 1e-4 --epochs 2 --batch-size 8 --sft-weight 0.1}
export PROMPTS=$out/prompts/records.jsonl DREAM_IMAGE_ROOT=$out/prompts
[ -e "$PROMPTS" ] || python -m dream_cli.nano.items --split train --mix training --count 200 --out "$out/prompts"
echo "a small loop: SFT on 80 guided targets, then a round of DPO on 120 fresh prompts (log: $out/loop.log) ..."
bash "$here/rounds.sh" 2> "$out/loop.log" || { tail -n 5 "$out/loop.log" >&2; exit 1; }
at=$OUT/seed-0
python "$here/tour_table.py" "before=$at/start.summary.jsonl" "after SFT=$at/sft.summary.jsonl" "after a round of DPO=$at/dream/1.summary.jsonl"

id=$(python -c '
import json, sys
pairs = [json.loads(line) for line in open(sys.argv[1])]
print(max((pair for pair in pairs if pair["observations"]), key=lambda pair: pair["margin"])["id"])' "$at/dream/1.pairs.jsonl")
echo "one prompt of the round: the picture, its risk, and four answers with their scores"
dream view "$at/round-1.judged.jsonl" --id "$id"
echo "the pair from these answers"
dream view "$at/dream/1.pairs.jsonl" --id "$id"
cat << END
next:
  dream view $at/dream/1.pairs.jsonl                 # the other pairs
  dream view $at/dream/1.eval.jsonl --html out.html  # answers after the round, as a page
  bash examples/rounds.sh                            # the whole loop; its first lines explain how to set your model and prompts
END
