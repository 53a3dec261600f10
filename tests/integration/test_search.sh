#!/usr/bin/env bash
# Whole searches: one rank and several, repeated, stopped, resumed, locked, with groups of ranks.
. "$(dirname "$0")/common.sh"
make_task ', "search": {"rounds": 2, "configurations": 2, "seed": 3}, "limits": {"samples": 300, "steps": 40}'

plan() { # what a search decided, without times: node, parent, strategy, configurations, scores
    "$tree" show "$1" --json | grep -vE '_s"|seconds|_hours|version|host|_at|time' || true
}

# One worker and a seed: the same search, to the last digit.
expect 0 'the search has ended: all rounds are done' "$trex" search job.json --out one
expect 0 'the search has ended' "$trex" search job.json --out two
plan one > one.txt
plan two > two.txt
[ -s one.txt ] || die "trex-tree show --json prints nothing"
cmp one.txt two.txt || { diff one.txt two.txt | head -20; die "the same search did not repeat"; }
ok "with one worker and a seed the search repeats exactly"
expect 0 '' "$tree" verify one
expect 0 '"winner|"node"' "$tree" best one --json

# A finished search is left as it is.
before=$(md5sum one/run.h5)
expect 0 'the search has ended' "$trex" search job.json --out one
[ "$before" = "$(md5sum one/run.h5)" ] || die "run.h5 of a finished search was written again"

# Several ranks.
for ranks in 2 4; do
    expect 0 'the search has ended' mpirun -n $ranks "$trex" search job.json --out run$ranks
    expect 0 '' "$tree" verify run$ranks
    [ "$(finished run$ranks | wc -l)" = 5 ] || die "$ranks ranks: $(finished run$ranks | wc -l) candidates, 5 expected"
done
ok "2 and 4 ranks finish all candidates"

# Two ranks a candidate.
sed 's/"threads": 1/"threads": 1, "ranks_per_candidate": 2/' job.json > pairs.json
expect 0 'the search has ended' mpirun -n 5 "$trex" search pairs.json --out pairs
expect 2 'ranks_per_candidate' mpirun -n 2 "$trex" search pairs.json --out pairs2

# Budgets end a search, and say so.
sed 's/"steps": 40/"steps": 40, "core_hours": 0.0000001/' job.json > poor.json
expect 0 'the core-hours are spent' "$trex" search poor.json --out poor
sed 's/"seed": 3/"seed": 3, "goal_score": 0.01/' job.json > modest.json
expect 0 'the goal score is reached' "$trex" search modest.json --out modest
expect 0 '' "$tree" verify modest

# The rival policies, behind the same interface.
for policy in greedy sequential random; do
    sed "s/\"seed\": 3/\"seed\": 3, \"policy\": \"$policy\"/" job.json > $policy.json
    expect 0 'all rounds are done' "$trex" search $policy.json --out $policy
done

# Another job in the same folder is refused; other budgets are not.
sed 's/"seed": 3/"seed": 4/' job.json > other.json
expect 2 'another seed' "$trex" search other.json --out one

# Stopped by a signal, then resumed with another number of ranks. It has rounds without end until it is to end.
sed 's/"rounds": 2/"rounds": 9000/; s/"steps": 40/"steps": 400/' job.json > longer.json
await() { # PID COMMAND...: until the command succeeds, as long as the process lives
    local pid=$1
    shift
    for i in $(seq 1200); do
        ! "$@" > /dev/null 2>&1 || return 0
        kill -0 "$pid" 2> /dev/null || break
        sleep 0.1
    done
    cat ./*.txt
    die "did not come: $*"
}
let_end() { # RUN: the rounds that it has begun, and two more
    local begun
    begun=$("$tree" show "$1" --json | grep -cE '^[[:space:]]*"node":')
    expect 0 'rounds' "$tree" set "$1" rounds=$((begun + 1))
}
mpirun -n 3 "$trex" search longer.json --out stopped > stopped.txt 2>&1 &
pid=$!
await $pid eval '[ "$(finished stopped | wc -l)" -ge 2 ]'
# While it runs, the folder belongs to it.
expect 75 'in use' "$trex" search longer.json --out stopped
kill -USR1 $pid
code=0
wait $pid || code=$?
[ $code = 85 ] || { cat stopped.txt; die "stopped search ended with $code, not 85"; }
grep -q 'the same command goes on\|The same command goes on' stopped.txt || die "it does not say how to go on"
ok "USR1 stops with exit code 85"
spent() { # RUN: wall seconds of all its allocations
    "$tree" status "$1" --json | tr -d '\t\n' | sed -E 's/.*"allocation_seconds": ?([0-9.e-]+).*/\1/'
}
first=$(spent stopped)
awk -v s="$first" 'BEGIN { exit !(s > 0.1) }' || die "the stopped allocation lasted $first s, it says"
kept=$(finished stopped)
expect 0 '' "$tree" verify stopped
let_end stopped
expect 0 'resuming' mpirun -n 2 "$trex" search longer.json --out stopped
both=$(spent stopped)
awk -v a="$first" -v b="$both" 'BEGIN { exit !(b > a + 0.1) }' || die "two allocations lasted $both s, one $first s, it says"
ok "the time of all allocations is recorded"
for name in $kept; do
    grep -q "$name" < <(finished stopped) || die "$name was finished before the stop and is lost"
done
expect 0 '' "$tree" verify stopped
ok "the resumed search keeps what was finished and ends"

# A worker that does not save its state is left behind; the search can be resumed all the same.
sed 's/"seed": 3/"seed": 9/' longer.json > late.json
TREX_DEADLINE=$(($(date +%s) + 60)) mpirun -n 2 "$trex" search late.json --out late : \
    -n 1 env TREX_FAULT=run.worker.step:5=hang "$trex" search late.json --out late > late.txt 2>&1 &
pid=$!
await $pid grep -q 'TREX_FAULT strikes' late.txt
kill -USR1 $pid
code=0
wait $pid || code=$?
[ $code = 85 ] || { cat late.txt; die "a search that left a worker behind ended with $code, not 85"; }
grep -q 'not all workers saved their state' late.txt || { cat late.txt; die "it does not say that a worker was late"; }
expect 0 '' "$tree" verify late
let_end late
expect 0 'the search has ended' mpirun -n 3 "$trex" search late.json --out late
ok "a worker that is not done at the time limit is left behind"
echo "$passed passed, 0 failed"
