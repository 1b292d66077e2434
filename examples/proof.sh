#!/usr/bin/env bash
# The proof: examples/rounds.sh for every arm and seed, then the tables and the plot of the grid, proof.md and proof.png.
#
#   bash examples/proof.sh                                              # nano-policy and nano, in nano's own world
#   ARMS="dream sft-only" SEEDS="0 1" POLICY=org/vlm JUDGE=org/judge PROMPTS=train.jsonl EVAL="siuo figstep_benign --data data" bash examples/proof.sh
#
# Six arms with five seeds (ARMS, SEEDS), then five more arms with three seeds (MORE_ARMS, MORE_SEEDS), round by round, so that a table of
# fewer rounds and seeds is available early.
# It can be stopped at any time: the same command continues, and finished parts are not run again. A failed run is reported, and the
# others continue. Two commands with different SEEDS can share a machine: with BESIDE= in front each uses one core.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
arms=${ARMS:-sft-only dream more-sft shuffled unbalanced even-directions} seeds=${SEEDS:-0 1 2 3 4}
more_arms=${MORE_ARMS-global-only observation-only best-of-k true-observations fewer-observations} more_seeds=${MORE_SEEDS:-0 1 2}
rounds=${ROUNDS:-3} loop=${LOOP:-$here/rounds.sh}
# All rounds are run, even if the stop rule of the loop applies: a round selected by its result would be biased.
export OUT=${OUT:-out/proof} KEEP_GOING=1 DREAM_JUDGE=${JUDGE:-nano} OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
mkdir -p "$OUT"

report() { echo "proof: $*" >&2; }
# Policy, judge, templates, scoring, pairing and training must be of the same commit: otherwise seeds and arms are not comparable.
code=$(git -C "$here/.." rev-parse HEAD:dream_cli HEAD:commands HEAD:examples/rounds.sh HEAD:examples/proof_arms.py 2> /dev/null) || code="not in git"
if [ "$(cat "$OUT/code" 2> /dev/null || echo "$code")" != "$code" ]; then
  report "$OUT was started with other code (dream_cli, commands or the loop have changed since); choose another OUT, or check out that commit"
  exit 2
fi
echo "$code" > "$OUT/code"

# Few targets, and fresh prompts in each round; docs/proof.md explains how the numbers were chosen.
if [ -z "${PROMPTS:-}" ]; then
  export PROMPTS=$OUT/prompts/records.jsonl SFT_PROMPTS=${SFT_PROMPTS:-100} ROUND_PROMPTS=${ROUND_PROMPTS:-300}
  export DREAM_BATCH_SIZE=${DREAM_BATCH_SIZE:-128}
  export GUIDED=${GUIDED:--n 1 --temperature 0} EVAL=${EVAL:-nano_world --limit 100}
  [ -e "$PROMPTS" ] || python -m dream_cli.nano.items --split train --mix training --count "${COUNT:-1000}" --out "$OUT/prompts" || exit
fi
# One call store for all seeds and arms: equal calls, such as those for the observations, are made once.
export DREAM_STORE=${DREAM_STORE:-$OUT/calls.sqlite}

failed=0
# run SEED ARM ROUNDS: one arm up to a round; finished rounds are not run again.
run() {
  local at=$OUT/seed-$1
  mkdir -p "$at"
  [ ! -e "$at/$2.$3.done" ] || return 0
  # In nano's world benchmark answers are greedy: those of the start policy are the same for every seed.
  [ -n "${POLICY:-}" ] || [ -e "$at/start.summary.jsonl" ] || cp "$OUT"/seed-*/start.{eval,summary}.jsonl "$at/" 2> /dev/null || true
  report "seed $1, $2, up to round $3 ($at/$2.log)"
  if ARM=$2 SEED=$1 ROUNDS=$3 bash "$loop" >> "$at/$2.log" 2>&1; then touch "$at/$2.$3.done"; else
    report "seed $1, $2 failed: $(tail -n 1 "$at/$2.log")"
    failed=1
  fi
}
for round in $(seq 1 "$rounds"); do
  for seed in $seeds; do
    for arm in $arms; do run "$seed" "$arm" "$round"; done
  done
done
for seed in $more_seeds; do
  for arm in $more_arms; do run "$seed" "$arm" "$rounds"; done
done

python "$here/proof_table.py" "$OUT" --plot "$OUT/proof.png" > "$OUT/proof.md.part" || exit
mv "$OUT/proof.md.part" "$OUT/proof.md"
cat "$OUT/proof.md"
exit $failed
