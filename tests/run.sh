#!/bin/sh
# Make the test environment and run the tests:  sh tests/run.sh [pytest arguments]
set -eu
cd "$(dirname "$0")/.."
sh examples/environment.sh dev
exec .venv/bin/python -m pytest --numprocesses "${TEST_PROCESSES:-2}" --dist loadscope "$@"
