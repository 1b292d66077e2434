#!/usr/bin/env bash
# The tour: the pipe on the example records, then one short round of DREAM's loop in nano's world, with figures before and after.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-out/demo}
bash "$here/demo.sh" "$out"

export OUT=$out/loop ROUNDS=1 SAMPLES=4 KEEP_GOING=1 EVAL="nano_world --limit 60"
export PROMPTS=$out/prompts/records.jsonl
[ -e "$PROMPTS" ] || python -m dream_cli.nano.items --split train --count 160 --out "$out/prompts"
echo "one round of the loop on 160 prompts of nano's world (log: $out/loop.log) ..."
bash "$here/rounds.sh" 2> "$out/loop.log" || { tail -n 5 "$out/loop.log" >&2; exit 1; }
at=$OUT/seed-0
python "$here/tour_table.py" "before=$at/start.summary.jsonl" "after SFT=$at/sft.summary.jsonl" "after a round of DPO=$at/dream/1.summary.jsonl"
