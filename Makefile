# make demo   a lesson, executed on this machine in minutes      (lang=zh for Chinese)
# make test   everything that CI runs
lang ?= en
course = .venv/bin/course

.PHONY: help setup demo test test-weekly test-gpu test-soak audit lock build clean
help:
	@echo "make demo [lang=zh]   execute lesson 01, trimmed, on this machine"
	@echo "make test             everything CI runs; the fast part alone: .venv/bin/pytest -m 'not notebook' -n 2"
	@echo "make test-weekly      what takes minutes more and hardly ever changes"
	@echo "make test-gpu         every notebook, trimmed, on a GPU; writes benchmarks/verified.json; then test-soak"
	@echo "make test-soak        all lessons in one process, lesson 01 ten times: memory comes back"
	@echo "make audit            look the locked packages up among known vulnerabilities"
	@echo "make build            write notebooks/ from lessons/"
	@echo "make lock             compile requirements.txt from pyproject.toml"
	@echo "make clean            remove runs/, outputs/ and the nano models"

setup:
	@tools/setup.sh

demo: setup
	@$(course) run 01 --lang $(lang)

test: setup
	$(course) build --check
	.venv/bin/ruff check -q . && .venv/bin/ruff format --check -q .
	TQDM_MININTERVAL=20 $(course) nano
	.venv/bin/pytest -m "not notebook" -n 2 --dist worksteal
	.venv/bin/pytest -m "notebook and not weekly" -n 2 --dist load --maxschedchunk 1 --durations=40

test-weekly: setup
	.venv/bin/pytest -m weekly --durations=0

# The notebooks, on this machine's GPU, and what became of them into benchmarks/verified.json; the other tests that need
# a GPU; then the soak. After `course nano` no network is needed but by lesson 12, which makes its environment once.
# workers=4 runs four notebooks side by side.
workers ?= 1
test-gpu: setup
	@nvidia-smi -L
	TQDM_MININTERVAL=20 $(course) nano
	.venv/bin/pytest -m notebook notebooks -n $(workers) --dist load --maxschedchunk 1 --verified --durations=0; \
		status=$$?; $(course) build; exit $$status
	.venv/bin/pytest tests/test_attention.py tests/test_memory.py tests/trust/test_memory_is_freed.py
	$(MAKE) test-soak

test-soak: setup
	.venv/bin/pytest -m soak tests/trust/test_soak.py --durations=0

# Asks PyPI itself; a mirror of the index does not know.
audit: setup
	.venv/bin/python -m tools.audit

build: setup
	$(course) build

# tools/uv.txt locks uv itself, which then installs the rest.
lock: setup
	echo uv | .venv/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate - -o tools/uv.txt
	.venv/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
		--extra serve --group dev -c tools/lock-constraints.txt pyproject.toml -o requirements.txt
	.venv/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--override lessons/12_llamafactory/overrides.txt lessons/12_llamafactory/requirements.in \
		-o lessons/12_llamafactory/requirements.txt

clean:
	rm -rf runs outputs .pytest_cache
	@.venv/bin/python -c "from helpers import nano; import shutil; [shutil.rmtree(p) for kind in ('nano', 'llamafactory') for p in nano.cache_folder().glob(f'{kind}-*/')]"
