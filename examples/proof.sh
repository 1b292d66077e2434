#!/usr/bin/env bash
# The proof: every arm with every seed through examples/rounds.sh, then the tables and the plot of the grid, proof.md and proof.png.
#
#   bash examples/proof.sh                                              # nano-policy and nano, in nano's own world
#   ARMS="dream sft-only" SEEDS="0 1" POLICY=org/vlm JUDGE=org/judge PROMPTS=train.jsonl EVAL="siuo figstep_benign --data data" bash examples/proof.sh
#
# It can be stopped at any time: the same command continues, and finished parts are not run again. A failed run is reported, and the
# others go on. Two commands with different SEEDS can share a machine: with BESIDE= in front each takes one core.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
arms=${ARMS:-dream sft-only global-only observation-only refuse-more} seeds=${SEEDS:-0 1 2}
policy=${POLICY:-nano-policy} loop=${LOOP:-$here/rounds.sh}
# All rounds are run, even where the loop by itself would stop: a round chosen by its result would be biased.
export OUT=${OUT:-out/proof} KEEP_GOING=1 DREAM_JUDGE=${JUDGE:-nano} OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
mkdir -p "$OUT"

report() { echo "proof: $*" >&2; }
# Policy, judge, grader and splits must be those of one commit, or the seeds and arms are not comparable.
frozen=$(git -C "$here" rev-parse HEAD:dream_cli/nano 2> /dev/null || echo "not in git")
if [ "$(cat "$OUT/frozen" 2> /dev/null || echo "$frozen")" != "$frozen" ]; then
  report "$OUT was started with another nano (dream_cli/nano has changed since); choose another OUT"
  exit 2
fi
echo "$frozen" > "$OUT/frozen"

# SFT gets many prompts with one target each, most of them harmless: with few, the policy mistakes harmless combinations for risky ones.
# Each round gets the next 600.
if [ -z "${PROMPTS:-}" ]; then
  export PROMPTS=$OUT/prompts/records.jsonl ROUND_PROMPTS=${ROUND_PROMPTS:-600}
  export GUIDED=${GUIDED:--n 1 --temperature 0} SFT=${SFT:---lr 1e-4 --epochs 2 --batch-size 16}
  [ -e "$PROMPTS" ] || python -m dream_cli.nano.items --split train --mix "${MIX:-training}" --count "${COUNT:-4300}" --out "$OUT/prompts" || exit
fi

failed=0
for seed in $seeds; do
  at=$OUT/seed-$seed
  mkdir -p "$at"
  for arm in $arms; do
    [ ! -e "$at/$arm.done" ] || continue
    report "seed $seed, $arm ($at/$arm.log)"
    if ARM=$arm SEED=$seed bash "$loop" >> "$at/$arm.log" 2>&1; then touch "$at/$arm.done"; else
      report "seed $seed, $arm failed: $(tail -n 1 "$at/$arm.log")"
      failed=1
    fi
  done
  # DREAM without training (MRD): the start policy with the observations of the same items in its prompt, sampled as in the benchmark.
  if [ -e "$at/start.eval.jsonl" ] && [ ! -e "$at/mrd.eval.jsonl" ]; then
    report "seed $seed, the start policy with the observations"
    dream disentangle -q "$at/start.eval.jsonl" -o "$at/mrd.observed.jsonl" &&
      dream sample -q "$at/mrd.observed.jsonl" --model "$policy" --observe -n 1 ${MRD:---temperature 0 --max-tokens 96} --seed "$seed" \
        -o "$at/mrd.eval.jsonl" ||
      { report "seed $seed: the observations failed"; failed=1; }
  fi
done

python "$here/proof_table.py" "$OUT" --plot "$OUT/proof.png" > "$OUT/proof.md.part" || exit
mv "$OUT/proof.md.part" "$OUT/proof.md"
cat "$OUT/proof.md"
exit $failed
