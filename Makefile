# make demo and make test are each enough on a fresh clone: they make the environment themselves
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEER := .venv-peer
DEMO ?= demo

.PHONY: help setup peer lint test demo bench reliability fuzz
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY) ## make the environment, with uv where it is installed, else with venv and pip

$(READY): pyproject.toml constraints.txt
	@if command -v uv >/dev/null; then \
		uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
		VIRTUAL_ENV=$(VENV) uv pip install --quiet --constraint constraints.txt --editable '.[train,bands,keras,volumes,dicom,openvino]' --group dev; \
	else \
		$(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" && \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,bands,keras,volumes,dicom]' --group dev; \
	fi
	@touch $(READY)

peer: $(PEER)/.ready ## make an environment with TensorFlow, in which the tests open our Keras files

$(PEER)/.ready: pyproject.toml constraints-peer.txt
	@if command -v uv >/dev/null; then \
		uv venv --quiet --allow-existing --python $(PYTHON) $(PEER) && \
		VIRTUAL_ENV=$(PEER) uv pip install --quiet --constraint constraints-peer.txt --group peer; \
	else \
		$(PYTHON) -m venv $(PEER) && $(PEER)/bin/python -m pip install --quiet --upgrade "pip>=25.1" && \
		$(PEER)/bin/python -m pip install --quiet --constraint constraints-peer.txt --group peer; \
	fi
	@touch $@

lint: $(READY) ## check style, types and the order of the modules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(READY) ## run the tests; TESTS="-m real" and the like are handed on
	@$(MAKE) --no-print-directory peer || echo "no TensorFlow here: the tests that open our files in it are skipped"
	$(BIN)/python -m pytest $(TESTS)

demo: $(READY) ## draw phantoms, train, test, report, export, predict: about two minutes on two cores
	$(BIN)/flexunet demo --out $(DEMO) --overwrite

bench: $(READY) ## measure what the project claims to be fast
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/decode_mask.py
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/check.py
	$(BIN)/python benchmarks/cache.py
	$(BIN)/python benchmarks/score.py
	$(BIN)/python benchmarks/inference.py
	$(BIN)/python benchmarks/service.py

COUNTS := build/reliability.jsonl
FUZZ ?= 2000000
SOAK ?= 10

reliability: $(READY) ## repeat every fault of the programme, and write docs/reliability.md: 75 minutes on two cores
	@mkdir -p build && rm -f $(COUNTS)
	-FLEXUNET_RELIABILITY=$(COUNTS) FLEXUNET_FUZZ=$(FUZZ) $(BIN)/python -m pytest -m "reliability or case or fuzz"
	($(BIN)/python benchmarks/service.py --soak $(SOAK) && $(BIN)/python benchmarks/hostile.py) | tee build/service.txt
	$(BIN)/python tests/reliability/page.py $(COUNTS) build/service.txt docs/reliability.md

fuzz: $(READY) ## feed every reader with FUZZ mutants in all
	FLEXUNET_FUZZ=$(FUZZ) $(BIN)/python -m pytest tests/fuzz
