# The front door. `make repro` on a fresh machine needs Python 3.11 or newer and nothing else.

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
PORT   ?= 5000
CODE   := pipelines stages tests
# files stay whole, so that what a file's tests share is made once; two at a time keep two cores busy
PYTEST := $(RUN) -m pytest --numprocesses $(or $(WORKERS),2) --dist loadfile --no-loadscope-reorder

# libgomp spins at barriers without this: far slower on small or busy machines
export OMP_WAIT_POLICY = PASSIVE
export DO_NOT_TRACK = 1
export DVC_NO_ANALYTICS = 1
export MLFLOW_DISABLE_TELEMETRY = true
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: repro test test-all check bench drill drill-points ui backup restore clean-old clean help
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
	@$(PYTEST) -m "not slow"

test-all: check  ## check, then all tests
	@$(PYTEST)

bench: $(STAMP)  ## speed beside others' code (clones of it: EXAMPLES=, STYLEGAN2_ADA=, STYLEGAN3=), cost of checkpoints and live logging
	@$(RUN) -m tests.bench.adversarial $(if $(EXAMPLES),--examples $(EXAMPLES)) $(if $(STYLEGAN2_ADA),--reference $(STYLEGAN2_ADA))
	@$(RUN) -m tests.bench.augmentation $(if $(STYLEGAN2_ADA),--reference $(STYLEGAN2_ADA))
	@$(RUN) -m tests.bench.normalize $(if $(STYLEGAN3),--reference $(STYLEGAN3))
	@$(RUN) -m tests.bench.live
	@$(RUN) -m tests.bench.checkpoints

drill: $(STAMP)  ## interrupt 30 trainings in every way, go on, compare with an undisturbed one (WHOLE=1: all stages, the flow, too)
	@$(RUN) -m tests.drill.interruptions $(if $(WHOLE),--whole) $(if $(COUNT),--count $(COUNT))

drill-points: $(STAMP)  ## crash 1,000 small trainings at every write and step, go on, compare
	@$(RUN) -m tests.drill.points $(if $(COUNT),--count $(COUNT))

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

clean-old: $(STAMP)  ## drop superseded states, caches and runs, keep champions and releases; says what first (YES=1: without asking)
	@$(RUN) -m pipelines.retention $(if $(YES),--yes) $(foreach project,$(PROJECTS),--project $(project))

backup: $(STAMP)  ## registry, cache, states, releases and Git into a folder: TO=/other/disk/backup; only what is new is copied
	@$(RUN) -m pipelines.backup create "$(or $(TO),$(error make backup TO=folder))"

restore: $(STAMP)  ## bring a back-up into this clone: FROM=/other/disk/backup (OVERWRITE=1: over files that differ)
	@$(RUN) -m pipelines.backup restore "$(or $(FROM),$(error make restore FROM=folder))" $(if $(OVERWRITE),--overwrite)

clean:  ## bytecode, tool caches and half-written files; results, training states and .venv stay
	@find pipelines stages tests -name __pycache__ -type d -prune -exec rm -rf {} +
	@for folder in $(wildcard data models); do find $$folder -name '.*.partial' -prune -exec rm -rf {} +; done
	@rm -rf .pytest_cache .mypy_cache .ruff_cache
