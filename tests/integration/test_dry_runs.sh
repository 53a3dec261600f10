#!/usr/bin/env bash
# What a language model plans is run dry, and what the agents ask for can be replayed and prefetched. The model is a
# scripted server.
. "$(dirname "$0")/common.sh"
server=$build/tests/test_lm_server
[ -x "$server" ] || { echo "skipped: $server was not built"; exit 77; }

mkdir replies
plan() { # LAST CONFIGURATION'S KEYS
    cat << JSON
{"goal": "rate {{n}}", "expectation": "better", "rationale": "{{n}} is new", "refuted_if": "worse",
 "recipe": [{"op": "dedup"}],
 "configs": [{"method": "lora", "learning_rate": 0.00{{n}}1, "epochs": 1},
             {"method": "full", "learning_rate": 0.00{{n}}2, "epochs": 1$1}]}
JSON
}
plan '' | tee replies/plan.json > replies/repair.json
echo '{"new": [], "merged": [], "retired": []}' > replies/insights.json
: > faults.txt
"$server" --port-file port --replies replies --log chats.jsonl --faults faults.txt > server.txt 2>&1 &
for _ in $(seq 600); do
    [ ! -s port ] || break
    sleep 0.1
done

# researcher KEYS: job.json with such a researcher.
researcher() {
    make_task ", \"researcher\": {\"provider\": \"openai\", \"model\": \"scripted\",
        \"endpoint\": \"http://127.0.0.1:$(cat port)/v1\", \"literature\": false, \"data\": false${1-}},
        \"limits\": {\"agent_tokens\": 100000000}, \"search\": {\"rounds\": 3, \"configurations\": 2, \"seed\": 5}"
}
incidents() { "$tree" status "$1" --json | tr -d '\t\n' | grep -oE '"kind":"[a-z ]+"' | sort | uniq -c; }
dry_calls() { { "$tree" show "$1" --calls | grep -E '/dry/'; } || true; }

# ---- real trainings ----

researcher ', "ahead": false'
expect 0 'the search has ended' mpirun -n 3 "$trex" search job.json
[ "$(dry_calls run | grep -c answered)" -ge 3 ] || die "plans were not run dry: $(dry_calls run)"
[ "$(finished run | wc -l)" = 7 ] || die "$(finished run | wc -l) candidates finished, not 7"
expect 0 'nothing is damaged' "$tree" verify run
expect 0 'the search has ended' "$trex" search job.json --out alone
expect 0 'the search has ended' "$trex" search job.json --out again --replay alone
shape() { "$tree" show "$1" | sed 's/;.*//; s/^[a-z]*  //'; }
[ "$(shape alone)" = "$(shape again)" ] || { shape alone; shape again; die "the replay has another tree"; }
ok "the replay has the same tree"
expect 2 'is the run folder of the search itself' "$trex" search job.json --out alone --replay alone
expect '[12]' 'nowhere' "$trex" search job.json --out other --replay nowhere
sed 's/"threads": 1/"threads": 1, "ranks_per_candidate": 2/' job.json > group.json
expect 0 'the search has ended' mpirun -n 5 "$trex" search group.json --out group
[ "$(dry_calls group | grep -c answered)" -ge 3 ] || die "a group runs nothing dry"

# ---- plans that fail when they are run dry ----

# A positive limit on steps is none, and the sequence is shorter than any answer: only a run shows it.
plan ', "sequence_length": 1' > replies/plan.json
expect 0 'the search has ended' "$trex" search job.json --out bad
[ "$(finished bad | wc -l)" = 7 ] || { "$tree" show bad; die "a plan that fails was not replaced"; }
grep -q failed < <(dry_calls bad) || die "nothing failed: $(dry_calls bad)"
grep -q '/dry/1/.* answered' < <(dry_calls bad) || die "no repaired plan was run dry: $(dry_calls bad)"
plan '' > replies/plan.json

# ---- dry runs that end their job ----

deaths=0
until
    code=0
    TREX_FAULT=run.worker.dry=kill timeout 120 "$trex" search job.json --out deaths --simulate 0.05 > out.txt 2>&1 || code=$?
    [ "$code" = 0 ]
do
    [ "$code" != 124 ] || { cat out.txt; die "it has neither died nor ended in two minutes"; }
    deaths=$((deaths + 1))
    [ "$deaths" -lt 40 ] || { cat out.txt; die "a dry run that kills is tried for ever"; }
done
[ "$deaths" -gt 0 ] || die "nothing died"
ok "it ended after $deaths deaths, one a plan at most"
grep -q 'dry run' < <(incidents deaths) || die "nobody was told: $(incidents deaths)"
! grep -q . < <(dry_calls deaths | awk '!/ failed / {print $2}' | sort | uniq -d) || die "tried twice: $(dry_calls deaths)"
[ "$(finished deaths | wc -l)" = 7 ] || die "$(finished deaths | wc -l) candidates finished, not 7"
expect 0 "the search has ended" "$trex" search job.json --out deathsagain --replay deaths --simulate 0.05
[ "$(shape deaths)" = "$(shape deathsagain)" ] || { shape deaths; shape deathsagain; die "the replay of deaths has another tree"; }

# Seen by rank 0: the rank is told of with its call, and no candidate is blamed.
code=0
TREX_FAULT=run.worker.dry=kill timeout 120 mpirun -n 3 "$trex" search job.json --out seen --simulate 0.2 > out.txt 2>&1 ||
    code=$?
[ "$code" != 0 ] && [ "$code" != 124 ] || { cat out.txt; die "a search whose rank died ended with $code"; }
expect 0 'the search has ended' mpirun -n 3 "$trex" search job.json --out seen --simulate 0.2
grep -qE '"kills":[1-9]' < <("$tree" show seen --json | tr -d '\t\n') && die "a candidate was blamed for a dry run"
ok "no candidate was blamed"

# ---- before the search ----

researcher
expect 0 'prefetched into early: brief written' "$trex" prefetch job.json --out early
asked=$(wc -l < chats.jsonl)
expect 0 'prefetched into early' "$trex" prefetch job.json --out early
[ "$(wc -l < chats.jsonl)" = "$asked" ] || die "what was prefetched is asked for again"
expect 0 'the search has ended' mpirun -n 3 "$trex" search job.json --out early
[ "$("$tree" show early --calls | grep -c ' brief/1 ')" = 1 ] || die "the brief was written again"
make_task
expect 2 'nothing to prefetch: its researcher \(rules\) asks nobody' "$trex" prefetch job.json
expect 2 'usage: trex prefetch' "$trex" prefetch
echo "$passed passed, 0 failed"
