# The commands of lensmesh. `make help` lists them.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
VENV := .venv
TRITON_VENV := .venv-triton
BENCH_VENV := .cache/bench-venv
# Versions of the published client that the tests run unmodified.
PUBLISHED := 0.15 0.11
BIN := $(VENV)/bin
STAMPS := .cache/stamps
UV := .cache/uv/bin/uv
# One model set for fetching and for running: SET and LENSMESH_MODEL_SET are two names of one choice.
SET ?= $(or $(LENSMESH_MODEL_SET),lite)
ifneq ($(or $(LENSMESH_MODEL_SET),$(SET)),$(SET))
$(error SET=$(SET) and LENSMESH_MODEL_SET=$(LENSMESH_MODEL_SET) differ; set one of them)
endif
export LENSMESH_MODEL_SET := $(SET)

.DEFAULT_GOAL := help
.PHONY: help setup demo up test check format bench-mesh bench-search bench-percolate bench-imports bench-batching bench-vision protos models clean distclean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# With a Triton of one's own, neither the embedded one nor its weights are needed.
ifeq ($(LENSMESH_TRITON_ADDRESS),)
# A set of one's own, given by its path, stands on models that were fetched with the set they belong to.
EMBEDDED_TRITON := $(STAMPS)/triton-venv $(if $(filter %.json,$(SET)),,$(STAMPS)/models-$(SET))
endif

# A Milvus server, not the embedded one: one test of the path that clusters take. Its wheel is for this platform alone.
ifeq ($(shell uname -sm),Linux x86_64)
MILVUS_SERVER := $(STAMPS)/milvus-server
endif

setup: $(STAMPS)/paths $(STAMPS)/protos $(EMBEDDED_TRITON) ## Install everything that the other commands need

demo: setup ## Index the sample photos, percolate and search them, and end
	@$(BIN)/python -m demo

up: setup ## Run the mesh in the foreground; Ctrl-C drains it
	@$(BIN)/python -m runner.up

test: setup $(STAMPS)/models-lite $(MILVUS_SERVER) $(PUBLISHED:%=$(STAMPS)/mixpeek-%) ## Run the whole test suite against real servers
	$(BIN)/python -m pytest

check: $(STAMPS)/paths $(STAMPS)/protos ## Format, lint, types, contracts, import rules, manifests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python protos/build.py check
	$(BIN)/lint-imports
	$(BIN)/python -m deploy.check

format: $(STAMPS)/venv ## Format the code and the contracts
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	cd protos && ../$(BIN)/buf format -w

bench-mesh: setup ## Measure what the mesh costs beyond its models
	@$(BIN)/python -m bench.mesh

bench-search: setup ## Measure searches through the gateway beside pymilvus alone
	@$(BIN)/python -m bench.search

bench-percolate: setup $(STAMPS)/mokaccino ## Measure matching against a million stored queries beside numpy, faiss and mokaccino
	@OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 PYTHONPATH=.cache/mokaccino $(BIN)/python -m bench.percolate

bench-imports: setup ## Measure how fast stored queries are imported and exported
	@$(BIN)/python -m bench.imports

bench-batching: setup ## Measure which networks are cheaper in batches
	@$(BIN)/python -m bench.batching

bench-vision: setup $(STAMPS)/bench-venv ## Measure the models beside the reference libraries; DATA=folder for public sets
	@$(BIN)/python -m bench.vision $(if $(DATA),--data "$(DATA)")

protos: ## Generate the stubs again
	@rm -f $(STAMPS)/protos && $(MAKE) --no-print-directory $(STAMPS)/protos

models: $(STAMPS)/models-$(SET) ## Fetch and verify the weights of the model set SET

clean: ## Remove the mesh's data; refused while it runs
	@if [ -e .lensmesh/endpoints.json ]; then echo "a mesh is running on .lensmesh; stop it first"; exit 1; fi
	rm -rf .lensmesh

distclean: clean ## Remove everything that was installed or generated, too
	rm -rf $(VENV) $(TRITON_VENV) .cache gen models/repository/*/1/*.onnx

$(UV):
	@echo "lensmesh: making .cache/uv (installer)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
		{ echo "lensmesh needs Python 3.11; say where it is: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@$(PYTHON) -m venv .cache/uv
	@.cache/uv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt

$(STAMPS)/venv: requirements/lensmesh.txt $(UV)
	@echo "lensmesh: installing the services and their tools into $(VENV) (about 300 MB to download the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(UV) pip sync -q --python $(BIN)/python --require-hashes requirements/lensmesh.txt
	@mkdir -p $(STAMPS) && touch $@

# Where Python finds what is ours.
$(STAMPS)/paths: $(STAMPS)/venv Makefile
	@printf '%s\n' "$(CURDIR)" "$(CURDIR)/gen" "$(CURDIR)/client" > $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lensmesh.pth
	@touch $@

$(STAMPS)/triton-venv: requirements/triton.txt $(UV)
	@case "$$(uname -sm)" in "Linux x86_64"|"Linux aarch64") ;; *) \
		echo "the embedded Triton runs on Linux x86_64 and aarch64 (glibc 2.35 or newer), not on $$(uname -sm):"; \
		echo "set LENSMESH_TRITON_ADDRESS=host:port to a Triton that serves models/repository"; exit 1;; esac
	@echo "lensmesh: installing the model server into $(TRITON_VENV) (about 250 MB to download the first time)"
	@$(PYTHON) -m venv $(TRITON_VENV)
	@$(UV) pip sync -q --python $(TRITON_VENV)/bin/python --require-hashes requirements/triton.txt
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/bench-venv: requirements/bench.txt $(UV)
	@echo "lensmesh: installing the references of the benchmark into $(BENCH_VENV) (about 200 MB to download the first time)"
	@$(PYTHON) -m venv $(BENCH_VENV)
	@$(UV) pip sync -q --python $(BENCH_VENV)/bin/python --require-hashes requirements/bench.txt
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/mixpeek-%: requirements/mixpeek-%.txt $(UV)
	@echo "lensmesh: installing the published client mixpeek $* (about 5 MB to download the first time)"
	@$(PYTHON) -m venv .cache/mixpeek-$*
	@$(UV) pip sync -q --python .cache/mixpeek-$*/bin/python --require-hashes requirements/mixpeek-$*.txt
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/milvus-server: requirements/milvus-server.txt $(UV)
	@echo "lensmesh: fetching a Milvus server for one test (about 60 MB to download the first time)"
	@$(UV) pip install -q --python $(BIN)/python --no-deps --target .cache/milvus-server --require-hashes -r requirements/milvus-server.txt
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/mokaccino: requirements/mokaccino.txt $(STAMPS)/venv
	@$(UV) pip install -q --python $(BIN)/python --no-deps --target .cache/mokaccino --require-hashes -r requirements/mokaccino.txt
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/protos: $(STAMPS)/venv $(wildcard protos/*.py protos/lensmesh/v1/*.proto)
	@echo "lensmesh: generating the stubs of the contracts"
	@$(BIN)/python protos/build.py stubs
	@touch $@

$(STAMPS)/models-%: $(STAMPS)/triton-venv $(wildcard models/*.py models/convert/*.py models/sources/* models/weights/* models/lib/lensmesh_models/*.py)
	@echo "lensmesh: fetching the weights of the model set $*"
	@$(TRITON_VENV)/bin/python -m models.fetch --set $*
	@touch $@
