# Every command of the project. `make demo` and `make test` set up what they need first.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3.11
BIN := .venv/bin
VERSITYGW := .cache/bin/versitygw-v1.8.0
# What the JVM, TensorFlow, Dagster and Ivy (of Spark's S3 packages) say at every start.
NOISE := 'PreviewWarning|^  self._expected_writers|^(WARNING: (Using incubator|All log messages)|[IW]0000|INFO: Created TensorFlow Lite|Using Spark.s default|Setting default log level|To adjust logging level|[0-9/]+ [0-9:]+ WARN )|SupersessionWarning|^  return callback|^(SLF4J|Ivy Default|The jars for|:: (loading|resolving|resolution|retrieving)|[[:blank:]]+(confs|found|:: (modules|evicted)|org\.|software\.|-----|[|]|[0-9]+ artifacts))|added as a dependency'
# `exec` makes a command the only process between make and what it says: signals to make reach it. Its
# output outlives Ctrl-C, so that it can say that it was interrupted.
QUIETLY = > >(trap '' INT TERM; grep --line-buffered -vE $(NOISE)) 2>&1
export DAGSTER_HOME ?= $(CURDIR)/.dagster
export TF_CPP_MIN_LOG_LEVEL := 3
# Every command starts many Python processes: without bytecode, each compiles all it imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List the commands.
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: demo
demo: install ## Run the whole pipeline on the embedded sample.
	@FRUITS_SOURCE= FRUITS_WEIGHTS= $(MAKE) --no-print-directory run
	@FRUITS_SOURCE= FRUITS_WEIGHTS= $(MAKE) --no-print-directory deliverables CONFIG=
	@printf '\n%s\n' 'Go on with:'
	@printf '  %-34s %s\n' 'make ui' 'see it all in the Dagster UI' \
		'FRUITS_SOURCE=~/photos make run' 'run on your own photos' \
		'make help' 'every other command'

.PHONY: run
run: install ## Run the whole pipeline on FRUITS_SOURCE.
	@exec $(BIN)/dagster job execute -m fruits_assets.definitions -j fruits_job $(if $(CONFIG),-c $(CONFIG)) \
		$(QUIETLY)
	@$(BIN)/fruits status

.PHONY: deliverables
deliverables: install ## Make notebook, presentation, gallery and index of what the lake holds.
	@exec $(BIN)/dagster job execute -m fruits_assets.definitions -j deliverables_job $(if $(CONFIG),-c $(CONFIG)) \
		$(QUIETLY)
	@printf '\n%s\n' 'Open in a browser:'
	@$(BIN)/fruits index

.PHONY: ui
ui: install ## Open the Dagster UI on http://localhost:3000.
	@$(BIN)/python -m fruits_assets.webserver $(if $(PORT),-p $(PORT))

.PHONY: repair
repair: install ## Read the whole lake, remove what is damaged, name what to make again.
	@$(BIN)/fruits repair

# Tests run in parallel; each worker has a Spark session of its own. Some fast tests wait, so that there
# is a worker more than cores; slow ones start many processes themselves. The longest files begin first
# (`LONGEST` in conftest.py): pytest-xdist would begin with those of the most tests.
PYTEST := $(BIN)/python -m pytest --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# A worker has a core: more threads of OpenBLAS would spin while they wait for each other, and a PCA
# takes up to ten times as long.
test test-slow test-yarn mutants: export OPENBLAS_NUM_THREADS := 1

.PHONY: test
test: install test-tools ## Run the fast tests (minutes).
	@$(PYTEST) --numprocesses $(shell expr $$(nproc) + 1) -m 'not slow' $(ARGS)

.PHONY: test-slow
test-slow: install test-tools ## Run the slow tests: real spark-submit, browser, commands.
	@$(PYTEST) --numprocesses logical -m 'slow and not yarn' $(ARGS)

.PHONY: test-yarn
test-yarn: install test-tools ## Run the tests on a genuine YARN, its jars fetched once (20 minutes at most).
	@$(PYTEST) --numprocesses logical -m yarn $(ARGS)

.PHONY: test-all
test-all: test test-slow test-yarn ## Run all three.

.PHONY: mutants
mutants: install test-tools ## Break promises in 300 places: which do the fast tests notice? (artifacts/mutants)
	@$(BIN)/python -m benchmarks.mutants $(ARGS)

.PHONY: collections
collections: install ## Examine the test images of Pillow and other projects, fetched from PyPI.
	@$(BIN)/python -m benchmarks.collections $(ARGS)

.PHONY: fuzz
fuzz: install ## Damaged images by the thousand (artifacts/fuzz/fuzz.json).
	@$(BIN)/python -m benchmarks.fuzz $(ARGS)

.PHONY: faults
faults: install ## Inject faults into real runs and compare what they leave (artifacts/faults/faults.md).
	@$(BIN)/python -m benchmarks.faults $(ARGS)

.PHONY: bench-lake
bench-lake: install ## What publishing, opening, a run without news and an erasure cost (artifacts/lake).
	@$(BIN)/python -m benchmarks.lake $(ARGS)

.PHONY: bench-increments
bench-increments: install ## What one percent more photos cost, and nothing new; SOURCE=, WEIGHTS=.
	@$(BIN)/python -m benchmarks.increments $(if $(SOURCE),--source $(SOURCE)) \
		$(if $(WEIGHTS),--weights $(WEIGHTS)) $(ARGS)

.PHONY: check
check: install ## Lint and check types and definitions.
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/pyright
	@$(BIN)/dg check defs
	@$(BIN)/python -m tools.audit

.PHONY: audit
audit: install ## Look for known vulnerabilities in all that is pinned, where PyPI can be asked.
	@$(BIN)/python -m tools.audit

.PHONY: sbom
sbom: install ## Write software bills of materials (CycloneDX, artifacts/sbom).
	@$(BIN)/python -m tools.sbom

.PHONY: bench
bench: install ## Measure against what a user would pick instead, small (artifacts/benchmark.*).
	@$(BIN)/python -m benchmarks --photos 120 --rows 5000 --width 512 $(ARGS)

.PHONY: bench-full
bench-full: install ## The same at the sizes that targets are set for; SOURCE=folder of JPEGs.
	@$(BIN)/python -m benchmarks --photos 2430 14000 --rows 100000 --cold 2430 \
		--grow 1000 5000 14000 50000 --large 500 \
		$(if $(SOURCE),--source $(SOURCE)) $(if $(WEIGHTS),--weights $(WEIGHTS)) $(ARGS)

.PHONY: bench-s3
bench-s3: install ## Ingest of many small objects from a slow S3 (artifacts/s3/benchmark.*); SOURCE=.
	@$(BIN)/python -m benchmarks --objects 5000 --output artifacts/s3 \
		$(if $(SOURCE),--source $(SOURCE)) $(ARGS)

.PHONY: bench-latency
bench-latency: install ## One photo at a time, as a backend asks (artifacts/latency/*); LAKE=, SOURCE=.
	@$(BIN)/python -m benchmarks.latency $(if $(LAKE),--lake $(LAKE)) \
		$(if $(SOURCE),--source $(SOURCE)) $(if $(WEIGHTS),--weights $(WEIGHTS)) $(ARGS)

.PHONY: bench-search
bench-search: install ## The nearest of a million photos on one core, exact and by cells (artifacts/search/*); LAKE=.
	@$(BIN)/python -m benchmarks.search $(if $(LAKE),--lake $(LAKE)) $(ARGS)

.PHONY: bench-growth
bench-growth: install ## What grows with the photos: 10^4 and 10^5 tiny ones (artifacts/growth); ARGS='--photos ...'.
	@$(BIN)/python -m benchmarks.growth $(ARGS)

# checkov pins versions that conflict with the project's: it runs in an environment of its own,
# of packages with their hashes (tools/checkov.lock).
.PHONY: check-stack
check-stack: install ## Lint the CloudFormation template and scan its security.
	@$(BIN)/cfn-lint --regions eu-central-1 eu-west-1 eu-west-3 eu-north-1 eu-south-1 eu-south-2 \
		-- fruits_assets/infrastructure/stack.yaml
	@$(BIN)/python -m tools.isolated checkov checkov --compact --quiet --skip-download \
		-f fruits_assets/infrastructure/stack.yaml

STACK ?= fruits

.PHONY: deploy
deploy: install ## Make bucket, key and roles in the EU; REGION=..., STACK=fruits, ARGS='--set ...'.
	@$(BIN)/python -m fruits_assets.infrastructure deploy --stack '$(STACK)' --region '$(REGION)' $(ARGS)

.PHONY: destroy
destroy: install ## Delete that stack, but not its data; REGION=..., STACK=fruits.
	@$(BIN)/python -m fruits_assets.infrastructure destroy --stack '$(STACK)' --region '$(REGION)' $(ARGS)

.PHONY: emr-check
emr-check: install ## See whether the account is ready for clusters; changes and costs nothing.
	@$(BIN)/python -m fruits_assets.spark check

.PHONY: aws-acceptance
aws-acceptance: emr-check ## Run the pipeline on AWS with 105 drawn photos, for at most 0.50 EUR; says OK or what differs.
	@$(BIN)/python -m fruits_assets.acceptance

.PHONY: sample-weights
sample-weights: install ## Train the weights of the embedded sample again.
	@$(BIN)/python -m fruits_assets.sample.train

.PHONY: lock
lock: install ## Pin again what pyproject.toml asks for.
	@$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --quiet --output-file requirements.lock
	@$(BIN)/uv pip compile fruits_assets/spark/cluster.in --constraint requirements.lock --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet \
		--output-file fruits_assets/spark/cluster.lock
	@for tool in checkov supply; do $(BIN)/uv pip compile tools/$$tool.in --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --quiet --output-file tools/$$tool.lock; done

.PHONY: clean
clean: ## Remove what was installed and made, but not the lake.
	@rm -rf .venv .dagster .pytest_cache .ruff_cache build *.egg-info artifacts

.PHONY: install
install: java .venv/installed dagster-home

.PHONY: java
java:
	@java -version 2>&1 | grep -qE 'version "(1[7-9]|2[0-9])' || { \
		$(call apt,openjdk-17-jre-headless) || { \
			echo 'Spark needs Java 17: install it with "sudo apt-get install openjdk-17-jre-headless".' >&2; exit 1; }; }

# What only tests use. Tests that need what is missing are skipped, with the reason.
.PHONY: test-tools
test-tools: browser exiftool $(VERSITYGW)

.PHONY: browser
browser:
	@command -v chromium chromium-browser google-chrome google-chrome-stable > /dev/null \
		|| $(call apt,chromium) || echo 'There is no Chromium: the tests in a browser are skipped.' >&2

.PHONY: exiftool
exiftool:
	@command -v exiftool > /dev/null || $(call apt,libimage-exiftool-perl) \
		|| echo 'There is no exiftool: no other program reads what is left of metadata.' >&2

# An S3 server that keeps its objects as files, built once, of modules that Go's checksum database knows.
$(VERSITYGW):
	@mkdir -p $(@D) && printf '*\n' > .cache/.gitignore
	@{ command -v go > /dev/null && echo 'Building versitygw ...' >&2 \
		&& GOBIN='$(CURDIR)/$(@D)/build' GOFLAGS=-mod=mod GOSUMDB=sum.golang.org GONOSUMDB= GOPRIVATE= GOINSECURE= \
			go install github.com/versity/versitygw/cmd/versitygw@$(lastword $(subst -, ,$@)) \
		&& mv $(@D)/build/versitygw $@; } \
		|| echo 'versitygw cannot be built (is Go there?): the tests on it are skipped.' >&2

# uv itself is installed from the lock, with its hash, by the pip of a new environment.
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(call apt,python3.11-venv) || { \
		echo 'Python 3.11 with venv is needed: install it with "sudo apt-get install python3.11-venv".' >&2; exit 1; }
	@echo 'Installing into .venv ...' >&2
	@$(PYTHON) -m venv --clear .venv
	@sed -n '/^uv==/,/^[a-z]/p' requirements.lock | sed '1n;/^[a-z]/d' > .venv/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement .venv/uv.txt
	@$(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode --python $(BIN)/python requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

# A file that is as an earlier `make` left it is brought up to date; one of your own is left alone.
YAML := $(DAGSTER_HOME)/dagster.yaml
MADE := $(dir $(realpath $(firstword $(MAKEFILE_LIST))))dagster-home.yaml
FIRST := 'telemetry:\n  enabled: false\nnux:\n  enabled: false\npython_logs:\n  python_log_level: INFO\n'

.PHONY: dagster-home
dagster-home:
	@mkdir -p '$(DAGSTER_HOME)'
	@if [ ! -e '$(YAML)' ] || cmp -s '$(YAML)' '$(YAML).made' || printf $(FIRST) | cmp -s - '$(YAML)'; then \
		cp '$(MADE)' '$(YAML)'; cp '$(MADE)' '$(YAML).made'; fi

# Only where it can be done without asking: as root, on Debian.
apt = { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && echo 'Installing $(1) ...' >&2 \
	&& apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(1) > /dev/null; }
