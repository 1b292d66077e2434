#!/usr/bin/env bash
# The pictures of the README from the files of `make demo`: the terminal view as SVG, the gallery through a headless Chromium.
#
#   bash examples/pictures.sh [DEMO_FOLDER] [OUT_FOLDER]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
demo=${1:-out/demo} out=${2:-$here/images/readme}
mkdir -p "$out"
export DREAM_IMAGE_ROOT=$here
COLUMNS=90 dream view "$demo/judged.jsonl" --id words-risk-1 | python -c '
import sys
from rich.console import Console
from rich.text import Text
console = Console(record=True, width=90, file=open("/dev/null", "w"))
console.print(Text.from_ansi(sys.stdin.read().replace(sys.argv[2] + "/", "")))
console.save_svg(sys.argv[1], title="dream view judged.jsonl --id words-risk-1")' "$out/view.svg" "$(dirname "$here")"
dream view "$demo/judged.jsonl" --html "$out/gallery.html"
chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update \
  --disable-sync --hide-scrollbars --user-data-dir="$(mktemp -d)" --window-size=1280,900 --screenshot="$out/gallery.png" "file://$(realpath "$out/gallery.html")" 2> /dev/null
rm "$out/gallery.html"
echo "$out/view.svg $out/gallery.png"
