# Every target makes its own .venv first; nothing needs to be installed by hand but Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo picture test test-all bench docs lint format clean

$(STAMP): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

# The main job: videos to table. Every step resumes, so a second `make demo` is quick.
demo: $(STAMP)
	$(BIN)/featcache manifest build kitchens demo/videos
	$(BIN)/featcache extract demo/videos/kitchens.csv hog hof logmel --stores demo/stores
	$(BIN)/featcache train-head kitchens --stores demo/stores --runs demo/runs
	$(BIN)/featcache evaluate kitchens --stores demo/stores --runs demo/runs
	$(BIN)/featcache report kitchens --stores demo/stores --runs demo/runs
	@echo
	@$(BIN)/featcache table kitchens --stores demo/stores --runs demo/runs
	@$(BIN)/featcache table kitchens --stores demo/stores --runs demo/runs --metric norms
	@echo
	@echo "The report: demo/runs/kitchens.html. To run featcache yourself: source $(BIN)/activate"

# The picture of the README: the top of the demo's report, in a window of this size. Needs Chromium.
CHROMIUM ?= chromium
picture:
	@test -f demo/runs/kitchens.html || { echo 'no demo/runs/kitchens.html; run `make demo` first' >&2; exit 1; }
	$(CHROMIUM) --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
	  --disable-component-update --disable-sync --hide-scrollbars --user-data-dir=$$(mktemp -d) \
	  --window-size=1040,1476 --force-device-scale-factor=0.9 \
	  --screenshot=$(CURDIR)/docs/report.png file://$(CURDIR)/demo/runs/kitchens.html

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist loadfile -m 'not slow'

test-all: test
	$(BIN)/python -m pytest -n auto --dist loadfile -m slow

bench: $(STAMP)
	$(BIN)/python -m pipelines.bench

# The documentation site, in build/docs. A warning is an error. The build needs no network.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo build/docs/index.html

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
