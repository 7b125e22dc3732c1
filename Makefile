# make demo   the main job on a built-in synthetic world; leaves a page to look at
# make test   all tests            make check   format, lint, types
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test check format install clean

install: .venv/.installed

.venv/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --config-settings editable_mode=compat
	$(BIN)/python -m pip install --quiet --no-deps milvus-lite  # with the FAISS that is here, and not its own
	touch $@

demo: install
	$(BIN)/ssl demo --out runs/demo --overwrite

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info runs
