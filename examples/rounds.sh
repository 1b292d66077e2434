#!/usr/bin/env bash
# DREAM's loop as a shell script: observations once, risk-aware SFT, then rounds of sample, judge, pair, dpo and eval.
#
#   bash examples/rounds.sh                                             # nano judges nano-policy, in nano's own world
#   POLICY=org/vlm JUDGE=org/judge PROMPTS=train.jsonl EVAL="siuo --data data/siuo" DPO="--lora" bash examples/rounds.sh
#
# SFT_PROMPTS, ROUND_PROMPTS: the number of prompts for SFT and for each round; by default a fifth of all. Each round uses the next prompts:
# on prompts that the policy was trained on, its answers hardly differ, and few of them make pairs.
# BESIDE=1: judge during sampling, and evaluate during the next step; needs memory for two models (or a server); default for nano-policy.
# ARM: dream, or a control. Without rounds: sft-only, refuse-more (SFT on refusals). Other training: more-sft (guided targets for the prompts
# of the rounds too), best-of-k (SFT on the best sample). Other pairs: shuffled (chosen and rejected swapped at random), unbalanced (any share
# of harmless prompts), even-directions (as many pairs that teach to decline as pairs that teach to answer). Other scores: global-only,
# observation-only. Other observations: true-observations (from the ground truth), fewer-observations (three of ten left out).
# The same command continues a stopped run: finished parts are not run again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
arm=${ARM:-dream} seed=${SEED:-0} rounds=${ROUNDS:-3} samples=${SAMPLES:-4}
policy=${POLICY:-nano-policy} judge=${JUDGE:-nano} teacher=${TEACHER:-${JUDGE:-nano}}
prompts=${PROMPTS:-$here/records.jsonl} benchmarks=${EVAL:-nano_world}
export DREAM_BATCH_SIZE=${DREAM_BATCH_SIZE:-32} OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} DREAM_JUDGE=$judge
# After jq or awk, dream no longer knows the folder of the images: it is set here.
export DREAM_IMAGE_ROOT=${DREAM_IMAGE_ROOT:-$(dirname "$prompts")}
# The defaults of the commands are for billions of weights; a policy of a few million weights needs higher learning rates
# (chosen on the development split of nano's world).
if [ "$policy" = nano-policy ]; then
  SFT=${SFT:---lr 1e-4 --epochs 3 --batch-size 16} DPO=${DPO:---lr 1e-4 --epochs 2 --batch-size 16 --sft-weight 1}
  BESIDE=${BESIDE-1}
fi
shared=${OUT:-out/rounds}/seed-$seed
out=$shared/$arm
mkdir -p "$out"

report() { echo "rounds ($arm, seed $seed): $*" >&2; }
# Exit code 1 of a command: some rows have an error, and the loop continues with the others. Any other code stops the loop.
tolerant() { "$@" || { local code=$?; [ "$code" -eq 1 ] || exit "$code"; }; }
# file FILE COMMAND...: write a file of records, unless it exists.    result FILE COMMAND...: the same for the stdout of a command.
file() { local to=$1; shift; [ -e "$to" ] || tolerant "$@" -o "$to"; }
result() {
  local to=$1; shift
  [ -e "$to" ] || { tolerant "$@" > "$to.part"; [ -s "$to.part" ] || exit 1; mv "$to.part" "$to"; }
}
# answered NAME SCORE SAMPLE-OPTIONS...: sample and judge into NAME.judged.jsonl; with BESIDE in one pipe, without NAME.sampled.jsonl.
answered() {
  local name=$1 score=$2; shift 2
  [ ! -e "$name.judged.jsonl" ] || return 0
  if [ -n "${BESIDE:-}" ]; then
    # A broken pipe leaves a .part file, which is never used as the complete file.
    tolerant dream sample "$@" | tolerant dream judge --score "$score" -o "$name.part.jsonl" && mv "$name.part.jsonl" "$name.judged.jsonl"
  else
    file "$name.sampled.jsonl" dream sample "$@"
    file "$name.judged.jsonl" dream judge "$name.sampled.jsonl" --score "$score"
  fi
}
# drawn NAME FIRST COUNT: write COUNT prompts, from number FIRST (0: the first), to NAME.jsonl; after the last prompt the first follows.
drawn() {
  local to=$shared/$1.jsonl
  awk -v first="$2" -v n="$3" '{ line[NR - 1] = $0 } END { for (i = first; i < first + n; i++) print line[i % NR] }' \
    "$shared/observed.jsonl" > "$to.$$" && mv "$to.$$" "$to" && echo "$to"
}
# measure NAME POLICY: evaluate a policy; with BESIDE during the next step, in a separate process group that ends with the loop.
beside=
measure() {
  settled
  [ ! -e "$1.summary.jsonl" ] || return 0
  set -m
  result "$1.summary.jsonl" dream eval $benchmarks --model "$2" --seed "$seed" -o "$1.eval.jsonl" --summary &
  beside=$!
  set +m
  [ -n "${BESIDE:-}" ] || settled
}
settled() { [ -z "$beside" ] || wait "$beside" || exit; beside=; }
trap '[ -z "$beside" ] || kill -- "-$beside" 2> /dev/null || true' EXIT

score=sum
case $arm in
  dream | more-sft | best-of-k | shuffled | unbalanced | even-directions | true-observations | fewer-observations) ;;
  global-only | observation-only) score=${arm%-only} ;;
  sft-only | refuse-more) rounds=0 ;;
  *) report "no such arm"; exit 2 ;;
esac

file "$shared/observed.jsonl" dream disentangle "$prompts"
lines=$(wc -l < "$shared/observed.jsonl")
fifth=$(((lines + 4) / 5))
first=${SFT_PROMPTS:-$fifth} each=${ROUND_PROMPTS:-$fifth}
# Targets are sampled at a lower temperature than the rounds: targets should be correct, the samples of a round should differ.
guided() { answered "$1" sum "$2" --model "$teacher" --observe -n "$samples" --seed "$seed" ${GUIDED:---temperature 0.5}; }
guided "$shared/guided" "$(drawn observed-sft 0 "$first")"
measure "$shared/start" "$policy"

targets=$shared/guided.judged.jsonl at=$shared/sft
if [ "$arm" = refuse-more ]; then
  targets=$out/targets.jsonl at=$out/sft
  [ -e "$targets" ] || jq -c 'if (.observations | length) > 0 then .responses = [{text: "I cannot help with that."}] else . end' \
    "$shared/guided.judged.jsonl" | dream convert --image-root "$shared" -o "$targets"
fi
result "$at.json" dream sft "$targets" --model "$policy" --seed "$seed" -o "$at" ${SFT:-}
measure "$at" "$at"

for round in $(seq 1 "$rounds"); do
  now=$out/$round
  fresh=$(drawn "observed-$round" "$((first + each * (round - 1)))" "$each")
  case $arm in
    *-observations) file "$now.observed.jsonl" python "$here/proof_arms.py" "$arm" "$fresh" --seed "$seed"; fresh=$now.observed.jsonl ;;
  esac
  if [ "$arm" = more-sft ]; then
    guided "$shared/guided-$round" "$fresh"
    result "$now.json" dream sft "$shared/guided-$round.judged.jsonl" --model "$at" --seed "$seed" -o "$now" ${SFT:-}
  else
    judged=$now
    # Before the first pairs all arms have the same policy: they share its answers and scores.
    case $round-$score-$arm in *-observations) ;; 1-sum-*) judged=$shared/round-1 ;; esac
    answered "$judged" "$score" "$fresh" --model "$at" -n "$samples" --seed "$((seed + 1000 * round))"
    if [ "$arm" = best-of-k ]; then
      result "$now.json" dream sft "$judged.judged.jsonl" --model "$at" --seed "$seed" -o "$now" ${SFT:-}
    else
      share=
      case $arm in unbalanced | even-directions) share=--$arm ;; esac
      file "$now.pairs.jsonl" dream pair "$judged.judged.jsonl" --report $share ${PAIR:-}
      [ -s "$now.pairs.jsonl" ] || { report "round $round makes no pairs; the loop ends"; break; }
      pairs=$now.pairs.jsonl
      if [ "$arm" = shuffled ]; then
        file "$now.shuffled.jsonl" python "$here/proof_arms.py" shuffled "$pairs" --seed "$seed"
        pairs=$now.shuffled.jsonl
      fi
      # The reference of a round is its initial policy.
      result "$now.json" dream dpo "$pairs" --model "$at" --seed "$seed" -o "$now" ${DPO:-}
    fi
  fi
  measure "$now" "$now"
  if [ -z "${KEEP_GOING:-}" ]; then
    settled
    reason=$(python3 "$here/stop_rule.py" "$shared/start.summary.jsonl" "$at.summary.jsonl" "$now.summary.jsonl")
    [ -z "$reason" ] || { report "round $round: $reason; the loop ends"; break; }
  fi
  at=$now
done
settled
report "the policy to keep is $at"
