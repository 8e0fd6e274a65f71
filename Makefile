# Everything a newcomer needs: `make demo`, `make test`. Both set up what they need in .venv first.

PYTHON ?= python3
VENV := .venv
SEED ?= 0
RUNS := $(VENV)/.runs
READY := $(VENV)/.ready
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile
# By environment, so that they hold for what pip builds with, too; newer versions of pip have another name for that.
PINNED := PIP_CONSTRAINT=deploy/constraints.txt PIP_BUILD_CONSTRAINT=deploy/constraints.txt $(PIP)
TORCH := $(shell sed -n 's/^torch==/torch==/p' deploy/constraints.txt)

.PHONY: demo demo-kafka proof test check bench real-data fuzz soak audit clean

demo: $(RUNS)  ## simulated feeds, training, live scoring, alerts to a receiver, and the truth: one to three minutes
	$(VENV)/bin/streamlstm demo

demo-kafka: $(READY)  ## the same on a Kafka broker: $KAFKA_BOOTSTRAP, one of $KAFKA_HOME, or one in Docker
	$(VENV)/bin/python -m tests.with_kafka $(VENV)/bin/streamlstm demo --log kafka://BOOTSTRAP

test: $(READY) check  ## style, types, then every test
	$(VENV)/bin/python -m pytest

proof: $(READY)  ## exactly once on a Kafka broker: scorers killed, frozen, moved and upgraded, brokers lost; a quarter of an hour
	$(VENV)/bin/python -m pytest -m proof

check: $(READY)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

real-data: $(READY)  ## train and score the real, labelled records; prints README's table
	$(VENV)/bin/python -m tests.benchmarks.real_data --seed $(SEED)

bench: $(READY)  ## what everything costs, as ratios, on this machine: bench.txt; a quarter of an hour
	$(VENV)/bin/python -m tests.benchmarks

fuzz: $(READY)  ## a million inputs for all that reads what others wrote; ten minutes and more
	$(VENV)/bin/python -m tests.fuzz

soak: $(READY)  ## an hour of feed and faults on SQLite, then the oracle; SOAK="--kafka --minutes 10" for others
	$(VENV)/bin/python -m tests.soak $(SOAK)

audit: $(READY)  ## look the pinned versions up among known vulnerabilities
	$(VENV)/bin/python deploy/audit.py

# torch first and by itself: PyPI's plain Linux wheel brings gigabytes of CUDA, PyTorch's CPU index does not;
# where that index cannot be reached, pip takes what it is set up to take.
$(RUNS): pyproject.toml deploy/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --retries 0 --index-url https://download.pytorch.org/whl/cpu "$(TORCH)" 2>/dev/null || $(PIP) "$(TORCH)"
	$(PINNED) --editable .
	touch $@

$(READY): $(RUNS)
	$(PINNED) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
