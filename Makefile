# Everything here makes its own virtual environment; Python, git and make are all it needs.
PYTHON ?= python3
VENV := .venv
MINUTES ?= 10
# Options of `make bench` and `make bench-scale`, such as BENCH="--quick" or BENCH="--rounds 5 --minutes 60".
BENCH ?=
BIN := $(VENV)/bin
# Without the packaging tools' warnings, which are about themselves.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip
# Tests in two processes. OpenMP's threads, of which PyTorch starts two in each, would wait for one another on two cores:
# with one in each, PyTorch's tests take a quarter of the time. Each thread's own arena of malloc keeps what is freed.
TEST := OMP_NUM_THREADS=1 MALLOC_ARENA_MAX=2 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --durations 15
# The tiers are markers, described in setup.cfg: `make test` runs what has none of these, `make test-more` these.
MORE := command or process or docs or slow
# Quiet: TensorFlow's start-up messages say nothing about this project.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test test-more test-backends test-real-size test-all serve-test web-test parity parity-test ready
.PHONY: unicode-tables web lint format type docs check wheel clean
.PHONY: bench bench-scale bench-preprocessing bench-serving bench-litert bench-gradient-cache bench-input bench-fine-tuning bench-adapters

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip
	$(PIP) install --quiet --editable .
	@touch $@

# Of OpenCLIP only the vocabulary file is used, of OpenAI's CLIP the models, of scikit-image the photographs: the packages
# that they ask for are not, and would bring torchvision.
BARE := $(PIP) install --quiet --no-deps

$(VENV)/tested: $(VENV)/installed
	$(PIP) install --quiet --editable ".[test]"
	$(BARE) open-clip-torch
	@touch $@

$(VENV)/browsed: $(VENV)/tested tests/helpers/install_tools.py examples/web/package-lock.json
	$(PIP) install --quiet --editable ".[web_test]"
	@# A browser and Node.js, unless they are there; LiteRT.js.
	$(BIN)/python tests/helpers/install_tools.py web
	@touch $@

$(VENV)/engines/installed: benchmarks/litert_peers.txt
	@# In an environment of its own: its packages and TensorFlow's ask for different ones.
	$(PYTHON) -m venv $(VENV)/engines
	PYTHONWARNINGS=ignore $(VENV)/engines/bin/python -m pip install --quiet --requirement $<
	@touch $@

$(VENV)/linted: $(VENV)/installed
	$(PIP) install --quiet --editable ".[dev]"
	@touch $@

$(VENV)/with-torch: $(VENV)/tested
	$(PIP) install --quiet --editable ".[torch]"
	@touch $@

$(VENV)/compared: $(VENV)/with-torch
	$(PIP) install --quiet --editable ".[parity]"
	$(BARE) openai-clip scikit-image
	@# The last transformers with TensorFlow and Flax, beside the newest: only the processes that need it see it.
	$(BARE) --upgrade --target $(VENV)/transformers-4 \
		"transformers==4.57.*" "huggingface_hub<1" "tokenizers<0.23" tf_keras==2.21.* \
		flax optax orbax-checkpoint tensorstore treescope msgpack
	@# AdapterHub's and Hugging Face's adapters, which run on that transformers.
	$(BARE) --upgrade --target $(VENV)/adapters "adapters==1.3.*" "peft==0.21.*" accelerate psutil
	@touch $@

$(VENV)/served: $(VENV)/tested tests/helpers/install_tools.py tests/helpers/serving/runtimes/tfjs/package-lock.json
	$(PIP) install --quiet --editable ".[serve_test]"
	@# A browser, compilers and Node.js, unless they are there; TensorFlow.js, built against TensorFlow's wheel.
	$(BIN)/python tests/helpers/install_tools.py
	@touch $@

$(VENV)/torchvision: $(VENV)/compared
	@# In a folder of its own: beside it, transformers resizes otherwise. The rest of what it asks for is there.
	$(PIP) install --quiet --no-deps --upgrade --target $@ "torchvision==0.28.*"
	@touch $@

$(VENV)/zeromodels: $(VENV)/with-torch benchmarks/zeromodels.txt
	@# In a folder of its own, without what converts checkpoints; Matplotlib, which it imports, comes with `bench`.
	$(PIP) install --quiet --no-deps --upgrade --target $@ --requirement benchmarks/zeromodels.txt
	@touch $@

$(VENV)/benchmarked: $(VENV)/torchvision $(VENV)/zeromodels $(VENV)/tested $(VENV)/engines/installed
	$(PIP) install --quiet --editable ".[bench]"
	@touch $@

demo: $(VENV)/installed ## classify and search shipped images, in the terminal and as a page
	@$(BIN)/tf-clip classify examples/images --labels-file examples/images/labels.txt --top 3 --html demo.html
	@$(BIN)/tf-clip similarity examples/images --texts-file examples/images/sentences.txt --top 3

test: $(VENV)/tested ## run the tests that take a second or so each, offline: minutes
	$(TEST) -m "not ($(MORE) or real_size)"

test-more: $(VENV)/tested ## run the tests that take longer or start programs, and the code blocks of README and docs
	$(TEST) -m "($(MORE)) and not real_size"

test-backends: $(VENV)/with-torch ## run the tests marked `backends` on JAX and PyTorch (make test runs them on TensorFlow)
	@# JAX spends most of the time optimizing what runs once.
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 KERAS_BACKEND=jax $(TEST) -m "backends and not real_size"
	KERAS_BACKEND=torch $(TEST) -m "backends and not real_size"

serve-test: $(VENV)/served ## export models and ask them in every runtime, the local server and its page among them
	$(TEST) -m "not real_size" tests/serving

web-test: $(VENV)/browsed ## run .tflite files in a browser, on a page, and compare
	$(TEST) -m "not real_size" tests/web

parity: $(VENV)/compared ## compare with the reference implementations in the same run; writes docs/parity.*
	@# Large models in two processes, with their references, take more memory than there is.
	$(BIN)/python -m pytest --write-page tests/parity

parity-test: $(VENV)/compared ## the same without models of the real size; writes nothing
	$(TEST) -m "not real_size" tests/parity

test-real-size: $(VENV)/served $(VENV)/browsed $(VENV)/compared ## run what is left out above: models of the real size, all recipes
	$(BIN)/python -m pytest -rP -m real_size tests tests/serving tests/web tests/parity

test-all: test test-more serve-test web-test test-backends parity-test test-real-size ## run the tests of every tier

ready: $(VENV)/installed ## install what every test needs at once, faster than as each target does
	$(PIP) install --quiet --editable ".[dev,test,torch,parity,serve_test,web_test]"
	$(BARE) open-clip-torch
	@touch $(foreach one,linted tested with-torch,$(VENV)/$(one))

bench-serving: $(VENV)/served ## load the local server for MINUTES (10); writes docs/benchmarks/serving.*
	$(PIP) install --quiet --editable ".[bench]"
	$(BIN)/python benchmarks/serving.py --minutes $(MINUTES) docs/benchmarks

web: $(VENV)/tested ## make build/web, a page that ranks images for a sentence in the browser; needs npm
	mkdir -p build/web
	cp -R examples/web/. examples/images build/web
	npm ci --prefix build/web --no-audit --no-fund
	$(BIN)/tf-clip export litert build/web/model --parts image,text_from_utf8 --quantization dynamic_int8 --overwrite
	@echo "It is at http://127.0.0.1:8000 after: python3 -m http.server --directory build/web --bind 127.0.0.1"

bench: $(VENV)/benchmarked ## compare with every other CLIP on this machine, hours; writes docs/benchmarks/bench.*
	$(BIN)/python benchmarks/peers/run.py --engines $(VENV)/engines/bin/python $(BENCH) docs/benchmarks

bench-scale: $(VENV)/tested ## measure how cost grows, and embed 100 000 images and 1 M captions; writes docs/benchmarks/scale.*
	$(PIP) install --quiet --editable ".[bench]"
	$(BIN)/python benchmarks/scale.py $(BENCH) docs/benchmarks

bench-preprocessing: $(VENV)/torchvision ## compare preprocessing's speed with its peers'; writes docs/benchmarks/
	$(BIN)/python benchmarks/preprocessing.py docs/benchmarks

bench-litert: $(VENV)/tested $(VENV)/engines/installed ## compare LiteRT with other engines; writes docs/benchmarks/litert.*
	$(BIN)/python benchmarks/litert.py --peers $(VENV)/engines/bin/python docs/benchmarks

bench-gradient-cache: $(VENV)/tested ## measure the memory of a batch of 4096 in chunks; writes docs/benchmarks/gradient_cache.*
	$(BIN)/python benchmarks/gradient_cache.py docs/benchmarks

bench-input: $(VENV)/tested ## compare the speed of training data with that of training; writes docs/benchmarks/input_pipeline.*
	$(BIN)/python benchmarks/input_pipeline.py docs/benchmarks

bench-fine-tuning: $(VENV)/tested ## compare ways to fine-tune in parameters, memory, time, accuracy; writes docs/benchmarks/fine_tuning.*
	$(BIN)/python benchmarks/fine_tuning.py docs/benchmarks

bench-adapters: $(VENV)/tested ## compare adapters with full fine-tuning and the plain model; writes docs/benchmarks/adapters.*
	$(BIN)/python benchmarks/adapters.py docs/benchmarks

unicode-tables: $(VENV)/compared ## ask the reference tokenizer about every character, after an upgrade of it
	$(BIN)/python tests/parity/make_unicode_tables.py tf_clip/preprocessing/text/unicode.json

lint: $(VENV)/linted ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/linted ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(VENV)/linted ## check types
	$(BIN)/mypy

docs: $(VENV)/tested ## run the code blocks of README and docs
	$(TEST) -m docs

check: lint type test ## style, types and tests: what CI runs first

wheel: $(VENV)/tested ## build dist/*.whl
	$(BIN)/python -m build --wheel --outdir dist .

clean: ## remove what was made
	rm -rf $(VENV) build dist *.egg-info demo.html
