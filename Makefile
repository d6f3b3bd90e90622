# Everything without a ROS installation. With ROS 2: colcon build, see docs/ros.md.
VENV ?= .venv
PYTHON ?=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
DEMO_OUT ?= out/demo
DEMO_ARGS ?=
TEST_ARGS ?=

export VENV PYTHON TORCH_INDEX
# The environment brings its own ROS 2: one that is sourced must not mix with it.
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
ifdef ROS_DISTRO
unexport LD_LIBRARY_PATH
endif

.DEFAULT_GOAL := help
.PHONY: help env test demo lint clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*  ## /  make \1\t/p' $(MAKEFILE_LIST)
	@echo "Start with: make demo"

env:  ## .venv with pinned packages, ROS 2 wheels and our messages
	@tools/setup_env.sh
	@echo "next: $(VENV)/bin/avat3r --help"

test: env  ## all tests (TEST_ARGS="-k tracking")
	@$(VENV)/bin/python -m pytest -n 2 --dist loadgroup $(TEST_ARGS)
	@echo "tests passed; one part alone: make test TEST_ARGS='test/nodes -x'"

demo: env  ## synthetic operator -> avatar -> live rendering, over ROS topics
	@$(VENV)/bin/avat3r demo -o $(DEMO_OUT) $(DEMO_ARGS)
	@echo "look at $(DEMO_OUT)/"

lint: env  ## ruff, rules in pyproject.toml
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@echo "lint passed; rules: pyproject.toml"

clean:  ## remove .venv, build products and results
	@rm -rf .venv .build build install log out dist *.egg-info .pytest_cache .ruff_cache
	@echo "removed .venv, .build and out; start again with: make demo"
