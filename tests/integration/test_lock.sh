#!/usr/bin/env bash
# Who has the run folder: a search waits for a silent owner, takes over from one that was stopped, and that one, when it
# goes on, stops and has changed nothing.
. "$(dirname "$0")/common.sh"
make_task ', "search": {"rounds": 3, "configurations": 2, "seed": 5}'

far_owner() { # RUN: the last owner was on another machine, and has not left
    mkdir -p "$1/lock"
    echo '{"host":"far","boot":"another","pid":12,"job":"7","since":"then","beat":1,"left":false}' > "$1/lock/6"
}

far_owner waits
begin=$(date +%s)
expect 0 'the search has ended' "$trex" search job.json --out waits --simulate 0.1
[ $(($(date +%s) - begin)) -ge 12 ] || die "it did not wait for 12 s of silence"
[ -e waits/lock/7 ] || die "it is not the seventh owner"
ok "a silent owner is waited for and followed"

far_owner told
"$trex" search job.json --out told --simulate 0.1 > told.txt 2>&1 & pid=$!
hears_term() { # PID: it has a handler for SIGTERM
    local mask
    mask=$(awk '/^SigCgt:/ { print $2 }' "/proc/$1/status")
    [ $((0x${mask:-0} & 1 << 14)) != 0 ]
}
for _ in $(seq 600); do
    ! hears_term $pid || break
    sleep 0.1
done
sleep 1
kill -TERM $pid
code=0
wait $pid || code=$?
[ $code = 85 ] || { cat told.txt; die "a search that waits for the folder ended with $code, not 85"; }
ok "a signal ends the waiting"

"$trex" search job.json --out taken --simulate 3 > first.txt 2>&1 & pid=$!
for _ in $(seq 300); do
    [ "$(finished taken | wc -l)" -lt 1 ] || break
    sleep 0.1
done
kill -STOP $pid
expect 0 'the search has ended' "$trex" search job.json --out taken --simulate 0.1
sum=$(cat taken/journal.jsonl taken/run.h5 | sha256sum)
kill -CONT $pid
code=0
wait $pid || code=$?
[ $code = 75 ] || { cat first.txt; die "the search that was taken over ended with $code, not 75"; }
grep -q 'was taken over by process' first.txt || { cat first.txt; die "it does not say who has the folder"; }
[ "$sum" = "$(cat taken/journal.jsonl taken/run.h5 | sha256sum)" ] || die "it changed the folder"
[ "$(finished taken | sort -u | wc -l)" = 7 ] || die "$(finished taken | wc -l) candidates finished, not 7"
expect 0 'nothing is damaged' "$tree" verify taken
ok "a stopped search is taken over, and stops when it goes on"
echo "$passed passed, 0 failed"
