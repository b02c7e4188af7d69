# The front door. `make repro` on a fresh machine needs Python 3.11 or newer and nothing else.

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
PORT   ?= 5000
CODE   := pipelines stages tests

# libgomp spins at barriers without this: far slower on small or busy machines
export OMP_WAIT_POLICY = PASSIVE
export DO_NOT_TRACK = 1
export DVC_NO_ANALYTICS = 1
export MLFLOW_DISABLE_TELEMETRY = true
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: repro test test-all check bench ui clean help
.DEFAULT_GOAL := help

help:  ## what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

$(STAMP): pyproject.toml constraints.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

repro: $(STAMP)  ## bring everything up to date: pictures in, scored ONNX generators out
	@$(RUN) -m pipelines.run

check: $(STAMP)  ## lint, format and types
	@$(RUN) -m ruff check $(CODE)
	@$(RUN) -m ruff format --check $(CODE)
	@$(RUN) -m mypy $(CODE)

test: check  ## check, then the tests that take minutes
	@$(RUN) -m pytest -m "not slow"

test-all: check  ## check, then all tests
	@$(RUN) -m pytest

bench: $(STAMP)  ## speed beside NVIDIA's code: STYLEGAN2_ADA=, STYLEGAN3= name clones of stylegan2-ada-pytorch and stylegan3
	@$(RUN) -m tests.bench.augmentation $(if $(STYLEGAN2_ADA),--reference $(STYLEGAN2_ADA))
	@$(RUN) -m tests.bench.normalize $(if $(STYLEGAN3),--reference $(STYLEGAN3))

ui: $(STAMP)  ## MLflow's pages on 127.0.0.1 (PORT=5000)
	@case "$$MLFLOW_TRACKING_URI" in \
	http://*|https://*) \
		printf '%s' 'MLFLOW_TRACKING_URI names a server; its pages are at '; \
		printf '%s\n' "$$MLFLOW_TRACKING_URI" | sed -E 's,://[^/]*@,://,; s,[?].*,,' ;; \
	*) \
		echo "MLflow: http://127.0.0.1:$(PORT)"; \
		MLFLOW_BACKEND_STORE_URI="$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}" \
			$(RUN) -m mlflow ui --host 127.0.0.1 --port $(PORT) ;; \
	esac

clean:  ## bytecode, tool caches and half-written files; results, training states and .venv stay
	@find pipelines stages tests -name __pycache__ -type d -prune -exec rm -rf {} +
	@for folder in $(wildcard data models); do find $$folder -name '.*.partial' -prune -exec rm -rf {} +; done
	@rm -rf .pytest_cache .mypy_cache .ruff_cache
