# make repro: everything, set-up included. make test: lint, types, all tests, in
# .venv, as installed, and those of clusters, JAX and S3 in .venv-scale.
# PYTHON=python3.12 make repro: with another interpreter, 3.11 to 3.13.

PYTHON ?= $(firstword $(foreach v,python3.13 python3.12 python3.11 python3,\
	$(if $(shell $(v) -c 'import venv, ensurepip' 2>/dev/null && echo yes),$(v))))
VENV := .venv
SCALE := .venv-scale
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: repro quick test bench torture cluster lock clean

repro: $(VENV)/installed
	dvc repro
	dvc metrics diff --all

# The inner loop, a minute: what runs no stage and does not train for long.
quick: $(VENV)/installed
	ruff check .
	ruff format --check .
	pytest -m "not slow and not scale"

test: $(VENV)/installed $(SCALE)/installed
	ruff check .
	ruff format --check .
	mypy
	pytest
	$(SCALE)/bin/python -m pytest -m scale

# Ray, JAX, S3: what a cluster takes, and the tests of it.
$(SCALE)/installed: requirements-scale.txt

$(VENV)/installed $(SCALE)/installed: requirements.txt
	$(if $(PYTHON),,$(error Python 3.11 to 3.13 with venv is needed))
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or \
	sys.exit("Python 3.11 to 3.13 is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet $(addprefix --requirement ,$^)
	@touch $@

# Against the Keras guide, on any photographs: make bench DATA=folder. With
# FEATURES=file, weights of EfficientNetB4, the seconds to the guide's accuracy.
bench: $(VENV)/installed
	$(if $(FEATURES),python -m benchmarks.yardstick $(DATA) \
		--features $(FEATURES) $(if $(WEIGHTS),--weights $(WEIGHTS)))
	python -m benchmarks $(DATA) $(if $(WEIGHTS),--weights $(WEIGHTS))

# Kills, bad files, copies, clones, small disks; half an hour or more.
torture: $(VENV)/installed
	python -m benchmarks.torture $(if $(DATA),--data $(DATA))

# Three hosts in network namespaces, a Ray cluster; as root, ten minutes.
cluster: $(SCALE)/installed
	$(SCALE)/bin/python -m benchmarks.cluster

# Exact versions of all that pyproject.toml names needs, for every platform.
lock: $(VENV)/installed
	uv pip compile --quiet --universal --upgrade --group dev pyproject.toml \
		--output-file requirements.txt
	uv pip compile --quiet --universal --upgrade --group scale \
		--constraint requirements.txt --output-file requirements-scale.txt

clean:
	rm -rf $(VENV) $(SCALE) .pytest_cache .ruff_cache
