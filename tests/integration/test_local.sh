#!/usr/bin/env bash
# Agents without any network: a worker of the job answers them with a model of the file system. The models here are tiny
# and random, so that nothing they say can be used, and the rules plan: what is tested is the way there and back.
. "$(dirname "$0")/common.sh"

"$trex" init model --hidden 32 --layers 2 --heads 2 --positions 16384 > /dev/null
"$trex" init talker --hidden 32 --layers 1 --heads 2 --positions 16384 --seed 7 > /dev/null

# researcher MODEL [KEYS]: job.json whose agents ask a model folder.
researcher() {
    make_task ", \"researcher\": {\"provider\": \"local\", \"model\": \"$1\", \"prompt_tokens\": 3000, \"reply_tokens\": 256,
        \"repairs\": 1, \"literature\": false, \"data\": false${2-}},
        \"limits\": {\"agent_tokens\": 100000000, \"samples\": 300, \"steps\": 20, \"sequence_length\": 64},
        \"search\": {\"rounds\": 2, \"configurations\": 2, \"seed\": 3}"
}
chats() { { "$tree" show "$1" --calls | grep -E "${2:- }"; } || true; }
totals() { "$tree" status "$1" --json | tr -d '\t\n'; }
incidents() { totals "$1" | grep -oE '"kind":"[a-z ]+"' | sort | uniq -c; }
decided() { # what a search decided, without times, and without what happened to its ranks
    "$tree" show "$1" --json | grep -vE '_s"|seconds|_hours|version|host|_at|time|alloc|incident|"killed"|search died' || true
}
# well RUN: it came to its end, what its agents said cost nothing and could not be used, and the tree says so.
well() {
    expect 0 'nothing is damaged' "$tree" verify "$1"
    [ "$(finished "$1" | wc -l)" = 5 ] || { "$tree" show "$1"; die "$1: $(finished "$1" | wc -l) candidates finished, not 5"; }
    "$tree" show "$1" n0001 > node.txt
    grep -q 'the rules' node.txt || { cat node.txt; die "$1: nobody is told that the rules planned"; }
}

# ---- what is checked before ----

researcher nowhere
expect 2 'nowhere' "$trex" check job.json
expect 2 'nowhere' "$trex" search job.json --out none
mkdir empty
researcher empty
expect 2 'empty.*config.json' "$trex" check job.json
cp -r talker broken
truncate -s 1000 broken/model.safetensors
researcher broken
expect 2 'broken/model.safetensors' "$trex" check job.json
researcher talker
expect 0 'talker: 0.* M parameters, 16384 positions, on a rank of the job' "$trex" check job.json
grep -q 'GB to answer the agents in place of a training' out.txt || { cat out.txt; die "what answering takes is not said"; }
"$trex" init short --hidden 32 --layers 1 --heads 2 --positions 512 > /dev/null
researcher short
expect 0 'prompts are cut to [0-9]+ tokens.*few questions fit' "$trex" check job.json
expect 2 'its local model is run by the job' "$trex" prefetch job.json

# ---- whole searches ----

researcher talker
expect 0 'the search has ended' "$trex" search job.json --out whole
well whole
grep -q . < <(chats whole ' brief/1 .*answered') || { chats whole; die "nothing was answered"; }
grep -q . < <(chats whole ' brief/repair/1 .*answered') ||
    { chats whole; die "a reply that cannot be used was not sent back"; }
"$tree" show whole --calls --json | tr -d '\t\n' > calls.json
grep -qE '"key":"brief/1"[^}]*"provider":"local","model":"[^"]*talker"' calls.json || die "the record does not say who answered"
! grep -qv ':0$' < <(grep -oE '"cost_usd":[^,]*' calls.json) || die "a local model costs money"
grep -qE '"agents":\{"calls":[0-9]+,[^}]*"tokens":[1-9][^}]*"usd":0,' < <(totals whole) ||
    { totals whole; die "no tokens are counted"; }
grep -q '"ahead":0' < <(totals whole) ||
    { totals whole; die "plans are made ahead of a worker that makes them itself"; }
expect 0 'the search has ended' "$trex" search job.json --out again
[ "$(decided whole)" = "$(decided again)" ] || { diff <(decided whole) <(decided again) | head; die "the same questions got other answers"; }
expect 0 'the search has ended' "$trex" search job.json --out replayed --replay whole
researcher model
expect 0 'MODEL.*the base model|positions, on a rank of the job \(the base model\)' "$trex" check job.json
expect 0 'the search has ended' mpirun -n 3 "$trex" search job.json --out base
well base
researcher talker
sed 's/"threads": 1/"threads": 1, "ranks_per_candidate": 2/' job.json > group.json
expect 0 'the search has ended' mpirun -n 5 "$trex" search group.json --out group
well group

# ---- stopped ----

# Where a question comes to a worker: it is asked again under its number, nothing counts twice, the search is the same.
for point in 1 4; do
    code=0
    TREX_FAULT=run.worker.answer:$point=stop timeout 120 "$trex" search job.json --out stopped$point > out.txt 2>&1 || code=$?
    [ "$code" = 85 ] || { cat out.txt; die "stopped in an answer it ended with $code, not 85"; }
    expect 0 'the search has ended' "$trex" search job.json --out stopped$point
    [ "$(decided whole)" = "$(decided stopped$point)" ] ||
        { diff <(decided whole) <(decided stopped$point) | head; die "stopped in an answer, the search is another one"; }
done
mpirun -n 3 -x TREX_FAULT=run.worker.answer=slow "$trex" search job.json --out signalled > signalled.txt 2>&1 & pid=$!
for _ in $(seq 1200); do
    ! grep -q 'TREX_FAULT strikes' signalled.txt || break
    sleep 0.05
done
kill -USR1 $pid
code=0
wait $pid || code=$?
[ "$code" = 85 ] || { cat signalled.txt; die "SIGUSR1 while a worker answers: it ended with $code, not 85"; }
expect 0 'the search has ended' mpirun -n 3 "$trex" search job.json --out signalled
well signalled
! grep -q . < <(chats signalled 'the job ended') || { chats signalled; die "a stop lost a question"; }

# ---- questions that end their job ----

# until_done RUN MOST COMMAND...: a batch script would start it again each time.
until_done() {
    local run=$1 most=$2 code
    deaths=0
    shift 2
    until
        code=0
        timeout 120 "$@" --out "$run" > out.txt 2>&1 || code=$?
        [ "$code" = 0 ]
    do
        [ "$code" != 124 ] || { cat out.txt; die "$run: it has neither died nor ended in two minutes"; }
        deaths=$((deaths + 1))
        [ "$deaths" -le "$most" ] || { cat out.txt; die "$run: it died $deaths times, and goes on so"; }
    done
    [ "$deaths" -gt 0 ] || die "$run: nothing died"
    ok "$run: it ended after $deaths deaths"
    well "$run"
    ! grep -qE '"kills":[1-9]' < <("$tree" show "$run" --json | tr -d '\t\n') || die "$run: a candidate was blamed"
}
# One death is no proof: the question is asked again.
TREX_FAULT=run.worker.answer:3=kill timeout 120 "$trex" search job.json --out once > out.txt 2>&1 && die "nothing died"
expect 0 'the search has ended' "$trex" search job.json --out once
[ "$(decided whole)" = "$(decided once)" ] ||
    { diff <(decided whole) <(decided once) | head; die "one death made it another search"; }
until_done killed 4 env TREX_FAULT=run.worker.answer=kill "$trex" search job.json
grep -q . < <(chats killed 'ended twice while a worker answered') || { chats killed; die "the question is not blamed"; }
grep -q '"question"' < <(incidents killed) || { incidents killed; die "nobody was told"; }
until_done seen 4 env TREX_FAULT=run.worker.answer=kill mpirun -n 3 "$trex" search job.json
sed -i 's/"threads": 1/"threads": 1, "watchdog_seconds": 4/' job.json
until_done hung 4 env TREX_FAULT=run.worker.answer=hang mpirun -n 3 "$trex" search job.json
grep -q '"rank hung"' < <(incidents hung) || { incidents hung; die "a hanging rank was not found"; }

# ---- answers that take too long, and a cap ----

researcher talker ', "timeout_seconds": 0.1'
sed -i 's/"prompt_tokens": 3000/"prompt_tokens": 4000/' job.json
expect 0 'the search has ended' "$trex" search job.json --out late
well late
grep -q . < <(chats late 'researcher.timeout_seconds') || { chats late; die "an answer may take for ever"; }
researcher talker
sed -i 's/"agent_tokens": 100000000/"agent_tokens": 8000/' job.json
expect 0 'the search has ended' "$trex" search job.json --out capped
well capped
[ "$(chats capped answered | wc -l)" -lt "$(chats whole answered | wc -l)" ] || die "the cap on tokens did not hold"
echo "$passed passed, 0 failed"
