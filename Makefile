# `make demo` and `make test` set up what they need; PYTHON chooses the interpreter (3.10 to 3.13).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := $(shell grep '^torch==' constraints.txt)
# Set WORKERS=0 to see the output of a test as it runs.
WORKERS ?= 2

.PHONY: install demo test test-slurm test-readers gpu ablation lint docs docs-serve wheel
install: $(STAMP)

# PyTorch comes first and by its exact version, so that a build already chosen for this machine (CPU, CUDA) is kept.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,docs]"
	touch $@

# Generated videos are segmented and scored by the whole method; real frames are segmented as `zsvss predict` does it.
demo: $(STAMP)
	HF_HUB_OFFLINE=1 $(BIN)/python -m zsvss.run test --config demo.yaml
	HF_HUB_OFFLINE=1 $(BIN)/python -m zsvss.run predict docs/swan --config predict_embedded.yaml

# The tests' environment is set in tests/clean_environment.py; those of the pages need Chromium.
test: $(STAMP)
	@{ command -v chromium || command -v chromium-browser || command -v google-chrome; } > /dev/null || \
		echo "Chromium is missing: the tests of the report's and the studio's page will be skipped; apt-get install chromium"
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# Everything that a session on a GPU is to answer, in under 8 minutes: its tests, then one JSON file and a page for
# docs/benchmarks.md. Try it without a GPU: make gpu GPU="--device cpu --network embedded --size 64 64 --frames 1
# --labels 2 --dtype float32" GPU_JSON=/tmp/gpu.json
# The tests are stopped after GPU_SECONDS, and killed if that does not stop them; the page tells it and the command fails.
GPU_JSON ?= gpu.json
GPU ?=
GPU_TESTS ?= tests/gpu
GPU_SECONDS ?= 260
gpu: $(STAMP)
	rm -f $(GPU_JSON).xml
	status=0; \
	HF_HUB_OFFLINE=1 timeout --signal=INT --kill-after=20 $(GPU_SECONDS) $(BIN)/python -m pytest -m gpu \
		-p no:cacheprovider -n 0 $(GPU_TESTS) --junitxml=$(GPU_JSON).xml || status=$$?; \
	HF_HUB_OFFLINE=1 $(BIN)/python -m zsvss.run bench --page --minutes 3.2 --tests $(GPU_JSON).xml \
		--tests-status $$status --tests-limit $(GPU_SECONDS) --json $(GPU_JSON) $(GPU)

# A SLURM of one node for the length of the test; needs root and `apt-get install slurm-wlm munge`.
test-slurm: $(STAMP)
	$(BIN)/python -m pytest -m slurm tests/cluster

# Exports read back by Datumaro, Label Studio's SDK, supervision and Cityscapes' scripts, in an environment of their own:
# they bring another OpenCV.
READERS := .venv-readers
test-readers: $(STAMP) $(READERS)/.installed
	$(BIN)/python -m pytest -n 0 -m readers tests/results/exports

$(READERS)/.installed:
	test -x $(READERS)/bin/python || $(PYTHON) -m venv $(READERS)
	$(READERS)/bin/python -m pip install --quiet datumaro==1.13.12 label-studio-sdk==2.0.13 supervision==0.31.2 pycocotools==2.0.11
	$(READERS)/bin/python -m pip install --quiet --no-deps cityscapesScripts==2.3.0 pyquaternion==0.9.9
	touch $@

# The component sweep on generated videos and, where its folder is (CAMVID_ROOT, or data/camvid), on CamVid. More of it:
# make ablation ABLATION="--videos 20 --frames 42"
ablation: $(STAMP)
	HF_HUB_OFFLINE=1 $(BIN)/python experiments/table_ablation/make.py $(ABLATION)

lint: $(STAMP) docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict zsvss
	MYPYPATH=tests $(BIN)/mypy --strict --explicit-package-bases tests/gpu
	$(BIN)/lint-imports

# The documentation site in site/; a broken link fails.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

docs-serve: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

wheel: $(STAMP)
	$(BIN)/python -m build --wheel
