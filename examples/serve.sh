#!/usr/bin/env bash
# Start `vllm serve` for one model, wait until it is ready, run a command with it, and stop the server when the command ends.
#
#   bash examples/serve.sh org/vlm dream judge sampled.jsonl -o judged.jsonl
#   ADAPTER=ckpt/1 bash examples/serve.sh org/vlm dream sample in.jsonl -n 4 -o sampled.jsonl
#
# Sets DREAM_BASE_URL for the command, and DREAM_MODEL and DREAM_JUDGE to the name of the model, unless they are set.
# PORT (8000), WAIT (maximum seconds until the server is ready, 1800), LOG (serve.log), IMAGES (per prompt, 16),
# SERVE (further options of `vllm serve`, e.g. "--tensor-parallel-size 2 --max-model-len 8192"), VLLM (the program, vllm).
# Exit code: that of the command; 2 if the server does not start.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: bash examples/serve.sh MODEL COMMAND..." >&2; exit 2; }
model=$1 port=${PORT:-8000} log=${LOG:-serve.log} name=$(basename "$1")
shift
flags=(--served-model-name "$name" --host 127.0.0.1 --port "$port"
  # dream sets the sampling parameters, not the generation config of the checkpoint.
  --generation-config vllm
  # If any white space is allowed in JSON, a model can write nothing else until its token limit.
  --structured-outputs-config '{"backend": "xgrammar", "disable_any_whitespace": true}'
  --enable-prefix-caching
  --limit-mm-per-prompt "{\"image\": ${IMAGES:-16}, \"video\": 0}")
if [ -n "${ADAPTER:-}" ]; then
  # vLLM accepts ranks that are powers of two, at least 8.
  rank=$(python3 -c 'import json, sys; print(max(8, 1 << (json.load(open(sys.argv[1]))["r"] - 1).bit_length()))' "$ADAPTER/adapter_config.json")
  name=$name+$(basename "$ADAPTER")
  flags+=(--enable-lora --max-lora-rank "$rank" --lora-modules "$name=$ADAPTER")
fi
# A separate process group: the server's workers end with it.
set -m
VLLM_NO_USAGE_STATS=1 "${VLLM:-vllm}" serve "$model" "${flags[@]}" ${SERVE:-} > "$log" 2>&1 &
server=$!
set +m
finish() { kill -TERM -- "-$server" 2> /dev/null || true; wait "$server" 2> /dev/null || true; }
trap finish EXIT
trap 'exit 130' INT TERM HUP
for ((second = 0; ; second++)); do
  python3 -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=5)' "http://127.0.0.1:$port/health" 2> /dev/null && break
  kill -0 "$server" 2> /dev/null || { echo "serve: the server ended; the last lines of $log:" >&2; tail -n 5 "$log" >&2; exit 2; }
  ((second < ${WAIT:-1800})) || { echo "serve: no answer after ${WAIT:-1800} s; see $log" >&2; exit 2; }
  sleep 1
done
export DREAM_BASE_URL=http://127.0.0.1:$port/v1 DREAM_MODEL=${DREAM_MODEL:-$name} DREAM_JUDGE=${DREAM_JUDGE:-$name}
"$@"
