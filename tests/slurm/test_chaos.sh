#!/usr/bin/env bash
# A hundred faults at random over one search.
exec "$(dirname "$0")/chaos" "${1:?usage: test_chaos.sh BUILD_FOLDER}" 100
