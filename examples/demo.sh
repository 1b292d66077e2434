#!/usr/bin/env bash
# The four commands in one pipe, on the example records, with the embedded model.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-out/demo}
mkdir -p "$out"
# After tee, jq or awk, dream no longer knows the folder of the images: it is set here.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} DREAM_IMAGE_ROOT=${DREAM_IMAGE_ROOT:-$here}
# Exit code 1: some rows have an error field; the demo continues with them. 2 is a failure.
{ dream disentangle "$here/records.jsonl" | tee "$out/observed.jsonl" \
  | dream sample -n 4 --append \
  | dream judge | tee "$out/judged.jsonl" \
  | dream pair -o "$out/pairs.jsonl"; } || [ $? -eq 1 ]
python "$here/demo_table.py" "$out/judged.jsonl" "$out/pairs.jsonl"
echo "pairs: $out/pairs.jsonl"
