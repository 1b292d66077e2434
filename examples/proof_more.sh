#!/usr/bin/env bash
# The start, SFT and last policies of a grid of examples/proof.sh on as many further held-out items; then the tables over all of them.
#
#   OUT=out/proof bash examples/proof_more.sh                           # writes OUT/more, a grid of its own, with its proof.md
#
# The draw continues after the 2,100 items of the benchmark, so that no item is in both halves.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-out/proof} arms=${ARMS:-dream sft-only global-only observation-only refuse-more} policy=${POLICY:-nano-policy}
more=$out/more
export DREAM_BATCH_SIZE=${DREAM_BATCH_SIZE:-32} OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

[ -e "$more/items/records.jsonl" ] || python -m dream_cli.nano.items --split held-out --count 4200 --out "$more/items"
tail -n +2101 "$more/items/records.jsonl" > "$more/items/further.jsonl"

# answer POLICY NAME: the evaluation of a policy on the further items, appended to its evaluation in the grid.
answer() {
  [ ! -e "$more/$2.eval.jsonl" ] || return 0
  mkdir -p "$(dirname "$more/$2")"
  dream eval -q "$more/items/further.jsonl" --model "$1" --summary -o "$more/$2.further.jsonl" > "$more/$2.further.summary.jsonl"
  cat "$out/$2.eval.jsonl" "$more/$2.further.jsonl" > "$more/$2.part"
  mv "$more/$2.part" "$more/$2.eval.jsonl"
}
for folder in "$out"/seed-*; do
  seed=$(basename "$folder")
  answer "$policy" "$seed/start"
  answer "$folder/sft" "$seed/sft"
  for arm in $arms; do
    end=$(find "$folder" -path "*/$arm/*.eval.jsonl" | sort -V | tail -n 1)
    [ -z "$end" ] || answer "${end%.eval.jsonl}" "$seed/$arm/$(basename "$end" .eval.jsonl)"
  done
done
python "$here/proof_table.py" "$more" > "$more/proof.md.part"
mv "$more/proof.md.part" "$more/proof.md"
cat "$more/proof.md"
