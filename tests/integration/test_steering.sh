#!/usr/bin/env bash
# A search is steered while it runs: limits up and down, halts now, after a round and at a time; it goes on after each,
# nothing is lost and nothing is done twice. Candidates are simulated: they take their time on any machine.
. "$(dirname "$0")/common.sh"
make_task ', "search": {"rounds": 600, "configurations": 2, "seed": 5}, "limits": {"samples": 400}'

part=0
start() { # in the background, with what it says in log<part>.txt
    part=$((part + 1))
    mpirun -n 3 "$trex" search job.json --out run --simulate 0.4 > log$part.txt 2>&1 &
    pid=$!
}
fail() { cat log*.txt || true; "$tree" status run || true; die "$*"; }
await() { # WHAT COMMAND...: until the command succeeds, as long as the search lives
    local what=$1
    shift
    for i in $(seq 600); do
        "$@" > /dev/null 2>&1 && return 0
        kill -0 $pid 2> /dev/null || break
        sleep 0.1
    done
    "$@" > /dev/null 2>&1 || fail "did not come: $what"
}
says() { grep -q -- "$1" log$part.txt; }
number() { # KEY: of the status as one line of JSON
    "$tree" status run --json | tr -d '\t\n' | grep -oE "\"$1\": ?[0-9]+" | head -n 1 | grep -oE '[0-9]+'
}
closed() { [ "$(number closed)" -ge "$1" ]; }
training() { grep -q 'in flight .* running' < <("$tree" status run); }
more_finished() { [ "$(finished run | wc -l)" -gt "$(wc -l < known.txt)" ]; }
ends() { # CODE CONDITION: the search in the background
    local code=0
    wait $pid || code=$?
    [ $code = "$1" ] || fail "ended with $code, not $1"
    grep -q "^run  $2" < <("$tree" status run) || fail "status does not say $2"
    "$tree" verify run > verify.txt 2>&1 || { cat verify.txt; fail "verify fails"; }
    finished run > now.txt
    [ -z "$(comm -23 known.txt now.txt)" ] || fail "lost $(comm -23 known.txt now.txt)"
    mv now.txt known.txt
}
comparable() { # RUN: its tree without times
    "$tree" show "$1" --json | grep -vE '_s"|seconds|hours|version|host|_at|time|attempts'
}
: > known.txt

# ---- limits while it runs ----
start
await 'a closed round' closed 1
down=$(($(number closed) + $(number open) + 80))
up=$((down + 3))
expect 0 "rounds 600 -> $down" "$tree" set run rounds=$down
await 'fewer rounds' says "limits: rounds 600 -> $down, by "
expect 0 "rounds $down -> $up" "$tree" set run rounds=$up core_hours=100
await 'more rounds' says "limits: rounds $down -> $up, core_hours none -> 100, by "

# A file that cannot be read changes nothing, and is told of once; nothing can be set until it is gone.
cp run/control.json good.json
echo '{"halt": "now"}' > run/control.json
await 'a warning' says 'control.json: 1 mistake'
expect 2 'remove this file' "$tree" halt run
cp good.json run/control.json

# Without it the job file's limits hold again; with it, what was set.
mv run/control.json kept.json
await "the job file's limits" says "limits: rounds $up -> the job file's 600, core_hours 100 -> the job file's 0, by whoever"
cp kept.json run/control.json
await 'the limits again' says "limits: rounds 600 -> $up, core_hours none -> 100, by "

# ---- after a round ----
expect 0 'no new rounds' "$tree" halt run --after-round
ends 0 halted
[ "$(grep -c 'control.json: 1 mistake' log$part.txt)" = 1 ] || fail "the warning came more than once"
[ "$(number open)" = 0 ] || fail "rounds are open after a halt after a round"
says 'halted: after a round, by ' || fail "it does not say who halted it"
ok "halt after a round leaves no round open, $(number closed) of $up done"

# ---- now: a wish of the time in between is obeyed by the next start, once ----
expect 0 'when it next starts' "$tree" halt run
start
ends 0 halted
says 'halted: at once, by ' || fail "it does not say that it halts at once"
! says 'limits:' || fail "limits that held already were told again"
before=$(finished run | wc -l)
start
await 'a finished candidate' more_finished
await 'a candidate that runs' training
expect 0 'asked to halt now' "$tree" halt run
ends 0 halted
[ "$(finished run | wc -l)" -gt "$before" ] || fail "nothing was finished between two halts"
grep -qE '"running": ?0' < <("$tree" status run --json | tr -d '\t\n') || fail "a candidate still counts as running"
ok "halt now: the wish is obeyed once, and the search goes on afterwards"

# ---- at a time: with so many rounds that it cannot end before ----
expect 0 "rounds $up -> 5000" "$tree" set run rounds=5000
start
await 'a finished candidate' more_finished
expect 0 'asked to halt at .*\(in [0-9]+ s\)' "$tree" halt run --at +4s
ends 0 halted
says 'halted: .*the time asked for' || fail "it does not say that the time had come"
ok "halt at a time"

# ---- a wish that is taken back, and the end ----
start
await 'a resumed search' says 'resuming run'
expect 0 'asked to halt at' "$tree" halt run --at +1d
await 'the wish' says 'wants a halt in 86'
expect 0 'taken back' "$tree" halt run --cancel
await 'the other wish' says 'wants no halt any more'
up=$(($(number closed) + $(number open) + 15)) # more than are done until it hears of it
expect 0 "rounds 5000 -> $up" "$tree" set run rounds=$up
ends 0 finished
[ "$(number closed)" = $up ] || fail "$(number closed) rounds, $up were wanted"
[ "$(wc -l < known.txt)" = $((2 * up + 1)) ] || fail "$(wc -l < known.txt) candidates, $((2 * up + 1)) expected"
expect 2 'has finished' "$tree" halt run
expect 2 'has finished' "$tree" set run rounds=99

twice=$(grep -ohE 'n[0-9]{4}-c[0-9]  accuracy' log*.txt | sort | uniq -d)
[ -z "$twice" ] || fail "trained twice: $twice"
[ "$("$tree" status run --json | tr -d '\t\n' | grep -oE '"kind": ?"limits"' | wc -l)" = 6 ] ||
    fail "six changes of limits, and not six incidents"
[ "$("$tree" status run --json | tr -d '\t\n' | grep -oE '"kind": ?"halted"' | wc -l)" = 4 ] ||
    fail "four halts, and not four incidents"
ok "$part parts, no candidate was trained twice, each change is in the record once"

# ---- fewer rounds than there are: the open ones end, then the search ----
sed 's/"seed": 5/"seed": 6/' job.json > other.json
"$trex" search other.json --out short --simulate 0.4 > short.txt 2>&1 &
pid=$!
await 'two rounds' eval '[ -e short/journal.jsonl ] && grep -qE "rounds +[2-9]" < <("$tree" status short)'
expect 0 'rounds 600 -> 1' "$tree" set short rounds=1
wait $pid || die "a search with fewer rounds than it had failed: $(cat short.txt)"
expect 0 'finished \(all rounds are done\)' "$tree" status short
expect 0 '0 open' "$tree" status short
expect 0 '' "$tree" verify short

# ---- one worker and a seed: halts change nothing ----
sed 's/"rounds": 600/"rounds": 8/' job.json > small.json
"$trex" search small.json --out whole --simulate 0.6 > whole.log 2>&1 &
whole=$!
"$trex" search small.json --out parts --simulate 0.6 > parts.txt 2>&1 &
pid=$!
await 'a search' "$tree" status parts
expect 0 'asked to halt now' "$tree" halt parts
wait $pid || die "a halted search failed: $(cat parts.txt)"
for halt in --after-round '--at +1s'; do
    # shellcheck disable=SC2086
    "$tree" halt parts $halt > /dev/null || die "the search has ended too early to be halted"
    "$trex" search small.json --out parts --simulate 0.6 >> parts.txt 2>&1 || die "$(cat parts.txt)"
done
"$trex" search small.json --out parts --simulate 0.6 >> parts.txt 2>&1 || die "$(cat parts.txt)"
wait $whole || die "the search that nobody halted failed: $(cat whole.log)"
[ "$(grep -c 'halted: ' parts.txt)" -ge 3 ] || die "it was halted less than three times: $(cat parts.txt)"
comparable whole > whole.txt
comparable parts > parts.txt
cmp whole.txt parts.txt || die "the halted search has another tree"
ok "with one worker and a seed a search that was halted three times has the same tree"
echo "$passed passed, 0 failed"
