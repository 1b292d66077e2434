#!/usr/bin/env bash
# The four commands in one pipe, on the example records, with the embedded model.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-out/demo}
mkdir -p "$out"
# Records that pass through tee, jq or awk are not known to be written by dream: where their images lie is named here.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} DREAM_IMAGE_ROOT=${DREAM_IMAGE_ROOT:-$here}
# Exit code 1: some rows have an error, which they carry; the demo goes on with them. 2 is a real failure.
{ dream disentangle "$here/records.jsonl" | tee "$out/observed.jsonl" \
  | dream sample -n 4 --append \
  | dream judge | tee "$out/judged.jsonl" \
  | dream pair -o "$out/pairs.jsonl"; } || [ $? -eq 1 ]
python "$here/demo_table.py" "$out/judged.jsonl" "$out/pairs.jsonl"
echo "pairs: $out/pairs.jsonl"
