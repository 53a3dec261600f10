#!/usr/bin/env bash
# Faults at random over one search: each kind of tests/slurm/chaos at least once. The hundred are run by hand.
exec "$(dirname "$0")/chaos" "${1:?usage: test_chaos.sh BUILD_FOLDER}" 24
