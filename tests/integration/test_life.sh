#!/usr/bin/env bash
# What goes wrong in an allocation: ranks that hang or kill, full disks, answers that never come, time that runs out.
# Each ends in a state from which the same command goes on, with an incident that says what happened.
. "$(dirname "$0")/common.sh"
make_task ', "search": {"rounds": 2, "configurations": 2, "seed": 3}, "limits": {"samples": 300, "steps": 40}'
sed -i 's/"threads": 1/"threads": 1, "watchdog_seconds": 8/' job.json

# run CODE RUN [NAME=VALUE...]: rank 0 without, two workers with the variables; must end with the code.
run() {
    local code=$1 run=$2 got=0
    shift 2
    timeout 200 mpirun -n 1 "$trex" search job.json --out "$run" : -n 2 env X=1 "$@" "$trex" search job.json --out "$run" \
        > log.txt 2>&1 || got=$?
    [ "$got" = "$code" ] || launcher_died "$got" log.txt || { cat log.txt; die "$run ended with $got, not $code: $*"; }
    "$tree" verify "$run" > verify.txt 2>&1 || { cat verify.txt log.txt; die "verify fails after $*"; }
}

tells() { # RUN PATTERN WHAT: the record has an incident, or an allocation's end, that says so
    "$tree" show "$1" --json > show.json
    "$tree" status "$1" --json >> show.json
    grep -qE -- "$2" show.json || { grep -n '"kind"\|"message"\|"end"' show.json log.txt; cat log.txt; die "nothing says \"$2\""; }
    ok "$3"
}

ends() { # RUN: started again, it comes to its end
    run 0 "$1"
    grep -q 'the search has ended' log.txt || { cat log.txt; die "$1 does not come to its end"; }
}

# A rank hangs in a candidate: found, blamed, all started again; the second time the candidate is set aside.
run 1 hung TREX_FAULT=run.worker.n0001-c0=hang
tells hung 'rank hung' "a rank that hangs is found"
grep -q '"kills":[[:space:]]*1' show.json || die "nobody is blamed"
run 1 hung TREX_FAULT=run.worker.n0001-c0=hang
ends hung
tells hung 'ended its rank 2 times' "a candidate that hangs its rank twice is set aside, and the search goes on"

# A rank dies in a candidate, which launchers tell rank 0 by SIGTERM before they kill it too: it sees who says nothing.
# The candidate that is trained beside it is not blamed.
export OMPI_MCA_odls_base_sigkill_timeout=6
for death in 1 2; do
    run 137 dead TREX_FAULT=run.worker.n0002-c1=kill
    tells dead 'rank lost' "a rank that died is found (death $death)"
    [ "$(grep -cE '"kills":[[:space:]]*[1-9]' show.json)" = 1 ] || { cat log.txt; die "one candidate is to blame, not these: $(grep '"kills"' show.json)"; }
done
unset OMPI_MCA_odls_base_sigkill_timeout
ends dead
tells dead 'ended its rank 2 times' "a candidate that kills its rank twice is set aside, and the search goes on"
[ "$(finished dead | wc -l)" = 4 ] || die "the others are not all finished"

# A device is lost: the rank beside it saves its work, a lone rank too writes down who was to blame.
run 1 device TREX_FAULT=run.worker.n0002-c0=device
tells device 'device lost' "a device that is lost is told of"
tells device 'failed: a device was lost' "the allocation ends in order"
ends device
for loss in 1 2; do
    expect 1 'device lost' env TREX_FAULT=run.worker.n0001-c0=device "$trex" search job.json --out alone
    tells alone "\"kills\":[[:space:]]*$loss" "a lone rank without a device blames its candidate"
done
expect 0 'ended its rank 2 times' "$trex" search job.json --out alone

# A disk that is full while a state is saved, or while an event is written: 74, and nothing is lost.
sed 's/"steps": 40/"steps": 3000/; s/"seed": 3/"seed": 4/' job.json > long.json
cp job.json short.json
cp long.json job.json
run 74 full TREX_FAULT=run.worker.save=enospc
tells full '"disk"' "a full disk ends the search with 74, and is told of"
cp short.json job.json
code=0
TREX_FAULT=store.journal.before_write:6=enospc timeout 100 "$trex" search job.json --out journal > log.txt 2>&1 || code=$?
[ $code = 74 ] || { cat log.txt; die "a journal that cannot be written ends with $code, not 74"; }
expect 0 'the search has ended' env TREX_PREVIOUS='code 74' "$trex" search job.json --out journal
tells journal 'died with code 74' "what the batch script knows of the end before stands in the record"

# run.h5 that cannot be written is no reason to end: the journal has everything, and the next one is tried again.
expect 0 'disk: run.h5 could not be written' env TREX_FAULT=store.run.before_write=enospc "$trex" search job.json --out snapshot
expect 0 '' "$tree" verify snapshot
expect 0 'the search has ended' "$trex" search job.json --out snapshot

# A plan that never comes is given up, and another one is asked for.
sed 's/"watchdog_seconds": 8/"watchdog_seconds": 3/' short.json > job.json
expect 0 'the search has ended' env TREX_FAULT=run.controller.plan:2=eio "$trex" search job.json --out plan
tells plan 'no answer' "an agent that never answers is given up"
cp short.json job.json

# Time: an allocation that is too short for the first candidate (simulated, so it takes its seconds on any machine) ends
# with 85, and the next goes on.
make_task ', "search": {"rounds": 1, "configurations": 1, "seed": 3}'
code=0
TREX_DEADLINE=$(($(date +%s) + 6)) timeout 100 "$trex" search job.json --out time --simulate 4 > log.txt 2>&1 || code=$?
[ $code = 85 ] || { cat log.txt; die "without time left a search ends with $code, not 85"; }
tells time 'stopped: ' "an allocation without time for anything ends with 85"
expect 0 'the search has ended' "$trex" search job.json --out time --simulate 4
# Admission: near a limit what can finish goes before what cannot, whatever its place in line; what cannot finish is not
# begun; and whatever the order, one worker finds the same tree. Allocations of many lengths, until the order was another.
make_task ', "search": {"rounds": 2, "configurations": 5, "seed": 5}'
decided() { # RUN
    "$tree" show "$1" --json | grep -vE '_s"|seconds|_hours|version|host|_at|time'
}
expect 0 'the search has ended' "$trex" search job.json --out whole --simulate 1.5
decided whole > whole.txt
# What an allocation takes that has no time for anything: its start and its end, on this machine, today.
begun=$EPOCHREALTIME
TREX_DEADLINE=$(($(date +%s) + 1)) expect 85 'stopped: ' "$trex" search job.json --out nothing --simulate 1.5
around=$(awk -v from="$begun" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.2f", to - from }')
overtaken=0
for try in 1 2 3 4 5 6 7 8; do
    most=0
    for i in $(seq 60); do
        code=0
        before=$(finished parts$try | wc -l)
        end=$(awk -v now="$EPOCHREALTIME" -v around="$around" -v i="$((i + try))" \
            'BEGIN { printf "%.2f", now + 7 + around + i * 0.7 % 2.5 }')
        TREX_DEADLINE=$end timeout 100 "$trex" search job.json --out parts$try --simulate 1.5 > log.txt 2>&1 || code=$?
        done_now=$(($(finished parts$try | wc -l) - before))
        most=$((done_now > most ? done_now : most))
        [ $code != 0 ] || break
        [ $code = 85 ] || { cat log.txt; die "an allocation that is too short ends with $code, not 85"; }
        grep -q 'nothing that waits could finish or be saved in' log.txt || { cat log.txt; die "it was not admission that ended it"; }
    done
    [ $code = 0 ] || { cat log.txt; die "the search does not end in 60 allocations"; }
    expect 0 '' "$tree" verify parts$try
    decided parts$try > parts.txt
    cmp whole.txt parts.txt || { diff whole.txt parts.txt; die "the order in which candidates were begun changes the tree"; }
    ! grep -q 'suspended' parts$try/log.jsonl || die "what could not finish was begun"
    [ $most -ge 2 ] || die "no allocation did more than one candidate, and there was time for two"
    overtaken=$(grep -oE '"message":"n[0-9]+-c[0-9]+  accuracy' parts$try/log.jsonl | grep -oE 'n[0-9]+-c[0-9]+' |
        awk '$0 < last { count++ } { last = $0 } END { print count + 0 }')
    [ "$overtaken" = 0 ] || break
done
[ "$overtaken" != 0 ] || die "no candidate has overtaken another in $try searches"
ok "in allocations that end too early what fits goes first ($overtaken overtaken), and the tree is the same"
echo "$passed passed, 0 failed"
