#!/usr/bin/env bash
# A hundred faults at random over one search: always those of one seed, at instants that no seed decides. Others by hand:
#   tests/slurm/chaos BUILD_FOLDER 100 SEED
exec "$(dirname "$0")/chaos" "${1:?usage: test_chaos.sh BUILD_FOLDER}" 100 2026
