#!/usr/bin/env bash
# The picture of the README: a screenshot of the gallery of `make demo`, taken with headless Chromium.
#
#   bash examples/pictures.sh [DEMO_FOLDER] [OUT_FOLDER]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
demo=${1:-out/demo} out=${2:-$here/images/readme}
mkdir -p "$out"
export DREAM_IMAGE_ROOT=$here
dream view "$demo/judged.jsonl" --html "$out/gallery.html"
chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update \
  --disable-sync --hide-scrollbars --user-data-dir="$(mktemp -d)" --window-size=1280,900 --screenshot="$out/gallery.png" "file://$(realpath "$out/gallery.html")" 2> /dev/null
rm "$out/gallery.html"
echo "$out/gallery.png"
