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
# with one in each, PyTorch's tests take a quarter of the time.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile
# What `make serve-test`, `litert-test` and `parity` leave out with WHOLE=no: models of the real size, and recipes and texts
# beyond a sample. CI asks for that, as it has no time for the whole.
WHOLE ?= yes
ifeq ($(WHOLE),no)
SOME := -k "not vit_b_32 and not ViT-B/32 and not vit-b-32 and not RN50"
else
ALL_RECIPES := --every-recipe --every-text
endif
# What the code of models is tested by, on every backend.
BACKENDS := tests/layers tests/losses tests/models tests/adapters
# Quiet: TensorFlow's start-up messages say nothing about this project.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test test-backends serve-test litert-test parity unicode-tables web lint format type docs check wheel clean
.PHONY: bench bench-scale bench-preprocessing bench-serving bench-litert bench-gradient-cache bench-input bench-fine-tuning bench-adapters

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip
	$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/tested: $(VENV)/installed
	$(PIP) install --quiet --editable ".[test]"
	@# Only the vocabulary file in it is used; its dependencies would bring torch.
	$(PIP) install --quiet --no-deps open-clip-torch
	@touch $@

$(VENV)/with-litert: $(VENV)/tested
	$(PIP) install --quiet --editable ".[litert]"
	@touch $@

$(VENV)/browsed: $(VENV)/with-litert tests/helpers/install_tools.py examples/web/package-lock.json
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
	@# Only its models are used; the rest would bring torchvision.
	$(PIP) install --quiet --no-deps openai-clip
	@# Only its photographs are used.
	$(PIP) install --quiet --no-deps scikit-image
	@# The last transformers with TensorFlow and Flax, beside the newest: only the processes that need it see it.
	$(PIP) install --quiet --no-deps --upgrade --target $(VENV)/transformers-4 \
		"transformers==4.57.*" "huggingface_hub<1" "tokenizers<0.23" tf_keras==2.21.* \
		flax optax orbax-checkpoint tensorstore treescope msgpack
	@# AdapterHub's and Hugging Face's adapters, which run on that transformers.
	$(PIP) install --quiet --no-deps --upgrade --target $(VENV)/adapters \
		"adapters==1.3.*" "peft==0.21.*" accelerate psutil
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

$(VENV)/benchmarked: $(VENV)/torchvision $(VENV)/zeromodels $(VENV)/with-litert $(VENV)/engines/installed
	$(PIP) install --quiet --editable ".[bench]"
	@touch $@

demo: $(VENV)/installed ## classify and search shipped images, in the terminal and as a page
	@$(BIN)/tf-clip classify examples/images --labels-file examples/images/labels.txt --top 3 --html demo.html
	@$(BIN)/tf-clip similarity examples/images --texts-file examples/images/sentences.txt --top 3

test: $(VENV)/tested ## run the tests: fast, offline
	$(TEST) --ignore=tests/parity --ignore=tests/serving --ignore=tests/web

test-backends: $(VENV)/with-torch ## run the tests of core and adapters on JAX and PyTorch, too (make test runs them on TensorFlow)
	@# JAX spends most of the time optimizing what runs once.
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 KERAS_BACKEND=jax $(TEST) $(BACKENDS)
	KERAS_BACKEND=torch $(TEST) $(BACKENDS)

serve-test: $(VENV)/served ## export models and ask them in every runtime, the local server and its page among them
	$(TEST) $(if $(SOME),-m "not real_size") tests/serving

bench-serving: $(VENV)/served ## load the local server for MINUTES (10); writes docs/benchmarks/serving.*
	$(PIP) install --quiet --editable ".[bench]"
	$(BIN)/python benchmarks/serving.py --minutes $(MINUTES) docs/benchmarks

parity: $(VENV)/compared ## compare with the reference implementations in the same run; writes docs/parity.md
	@# Large models in two processes, with their references, take more memory than there is.
	$(if $(SOME),$(TEST) $(SOME),$(BIN)/python -m pytest --write-page) tests/parity

litert-test: $(VENV)/browsed ## write .tflite files by every recipe, run them here and in a browser, and compare
	$(TEST) -rP tests/web tests/litert tests/preprocessing/test_utf8_tokenizer.py $(ALL_RECIPES)

web: $(VENV)/with-litert ## make build/web, a page that ranks images for a sentence in the browser; needs npm
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

bench-litert: $(VENV)/with-litert $(VENV)/engines/installed ## compare LiteRT with other engines; writes docs/benchmarks/litert.*
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
	$(BIN)/python -m pytest tests/docs

check: lint type test ## style, types and tests: what CI runs first

wheel: $(VENV)/tested ## build dist/*.whl
	$(BIN)/python -m build --wheel --outdir dist .

clean: ## remove what was made
	rm -rf $(VENV) build dist *.egg-info demo.html
