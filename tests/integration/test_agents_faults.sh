#!/usr/bin/env bash
# Whatever a language model replies, and whatever happens on the way to it: the search ends well, the ledger is right, and
# the reason is in the tree. One simulated search a case, on one rank.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/integration/common.sh"
. "$tests/integration/agents.sh"

make_replies
# CASE | faults of the server, "; " between lines | more keys of "researcher" | what the record must say of it
cat > cases.txt <<'C'
none||| 
empty replies|* empty||
replies cut in the middle|* length||
not JSON|* say=I would rather not.||
JSON in prose and a fence|* think||
an array in place of an object|* say=[1, 2, 3]||
wrong types|plan:* say={"goal": 1, "configs": "all", "expectation": null, "rationale": [], "refuted_if": {}}||
unknown operators|plan:* say={"goal": "g", "expectation": "e", "rationale": "r", "refuted_if": "f", "recipe": [{"op": "teleport"}], "configs": [{}]}||
absurd numbers|plan:* say={"goal": "g", "expectation": "e", "rationale": "r", "refuted_if": "f", "configs": [{"learning_rate": 1e300, "epochs": -5, "batch_tokens": 1e18}]}||
a hundred configurations|plan:* say={"goal": "g", "expectation": "e", "rationale": "r", "refuted_if": "f", "configs": [{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}]}||
keys that leave the schema|plan:* say={"goal": "g", "expectation": "e", "rationale": "r", "refuted_if": "f", "configs": [{}], "limits": {"rounds": 1000}, "output": "/etc"}||
a file that nobody listed|plan:* say={"goal": "g", "expectation": "e", "rationale": "r", "refuted_if": "f", "recipe": [{"op": "load", "path": "/etc/passwd"}], "configs": [{}]}||
a program that nobody allowed|plan:* say={"goal": "g", "expectation": "e", "rationale": "r", "refuted_if": "f", "recipe": [{"op": "code", "program": "import os"}], "configs": [{}]}||
the same plan again and again|plan:* say={"goal": "g", "expectation": "e", "rationale": "r", "refuted_if": "f", "configs": [{"learning_rate": 0.01}]}||
a direction of no list|direction:* say={"strategy": "world domination", "title": "x", "hypothesis": "h", "why": "w", "evidence": ["e"]}||
nodes that do not exist|insights:* say={"new": [{"text": "t", "nodes": [999999]}], "merged": [], "retired": [{"insight": 77, "why": "w"}]}||
deep nesting|* say=[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[||
50 MB|* huge=50||
a stream without an end|* endless||
a byte 0|* nul||
bytes that are no UTF-8|* unicode||
declined|* refuse||
an error in the stream|* error=server_error||
an overloaded model|* error=overloaded||
no reason for the end|* done||
not a stream|* whole||
tokens not said|* no_usage||
absurd counts of tokens|* usage=999999999999||
HTTP 400|* http=400||
HTTP 401|* http=401||
the key in a 401|* echo||
HTTP 403|* http=403||
HTTP 404|* http=404||
HTTP 413|* http=413||
HTTP 429 with a pause|1-2 http=429,0||
HTTP 500|* http=500||
HTTP 503 at first|1 http=503||
HTTP 529|* http=529||
closed without a byte|* close||
closed in the middle|* cut||
a stall before the first byte|* stall=0||
a stall in the middle of the stream|brief:1 stall; plan:1 stall||
broken framing|* chunks||
a page in place of a reply|* html||
garbage|* garbage||
compressed without being asked|* gzip||
sent elsewhere|* redirect=http://127.0.0.1:9/||
a delay beyond the time limit|plan:1 delay=4|, "timeout_seconds": 1|
no structured output|* http=400|, "structured": false|
the first plan alone is wrong|plan:1 say=no||
every second reply fails|2 http=500; 4 close; 6 empty; 8 garbage; 10 html; 12 cut||
sources and a model that is wrong about them|literature:* say={"queries": [{"source": "gossip", "text": "x"}]}; choice:* say={"choices": [{"document": 99, "config": "", "split": "test", "rows": 1, "note": "n"}]}|, "literature": true, "data": true|
C
# And cases that are no server's: an endpoint that is not there, a name that does not exist, a cap that is reached at once.
count=0
check() { # NAME RUN: the search has ended well
    local run=$2 spent sum
    "$tree" verify "$run" > out.txt 2>&1 || { cat out.txt; die "$1: the run folder is damaged"; }
    [ "$(finished "$run" | wc -l)" -ge 3 ] || { cat log.txt; die "$1: only $(finished "$run" | wc -l) candidates finished"; }
    "$tree" status "$run" --json > status.json
    grep -q '"condition":[[:space:]]*"finished"' status.json || { cat log.txt; die "$1: it has not finished"; }
    spent=$(sed -n 's/.*"tokens":[[:space:]]*\([0-9]*\).*/\1/p' status.json | head -n 1)
    sum=$("$tree" show "$run" --calls --json | awk -F'[:,]' '/"tokens_in"|"tokens_out"/ { sum += $2 } END { printf "%d", sum }')
    [ "${spent:-0}" = "$sum" ] || { cat status.json; die "$1: the ledger says $spent tokens, its calls $sum"; }
    ! grep -rqa "$TREX_TEST_KEY" "$run" log.txt || die "$1: the key has leaked"
    count=$((count + 1))
    ok "$1"
}
search() { # NAME RUN
    timeout 120 "$trex" search job.json --out "$2" --simulate 0.02 > log.txt 2>&1 || { cat log.txt; die "$1: exit code $?"; }
}
while IFS='|' read -r name faults keys says; do
    tr ';' '\n' <<< "$faults" | sed 's/^ *//' > faults.txt
    serve case --faults faults.txt --replies replies --files "$services"
    export TREX_SOURCES_URL=http://127.0.0.1:$port
    [[ $keys == *literature* ]] || keys=", \"literature\": false, \"data\": false$keys"
    make_agents_job "$keys"
    search "$name" "run$count"
    check "$name" "run$count"
    if [ -n "${says// /}" ]; then
        grep -qE "$says" < <("$tree" show "run$((count - 1))" --calls) || die "$name: the record does not say \"$says\""
    fi
    kill "$server"; wait "$server" 2> /dev/null || true
done < cases.txt

mkdir empty
serve down --replies replies --files empty
export TREX_SOURCES_URL=http://127.0.0.1:$port
make_agents_job
search "sources that know nothing" nothing
check "sources that know nothing" nothing
export TREX_SOURCES_URL=http://127.0.0.1:9
search "sources that are down" down
check "sources that are down" down
kill "$server"; wait "$server" 2> /dev/null || true

port=9 make_agents_job
search "nobody listens" nobody
check "nobody listens" nobody
sed -i 's|127.0.0.1:9|no-such-host.invalid|' job.json
search "a name that does not exist" noname
check "a name that does not exist" noname
serve caps --files "$services"
export TREX_SOURCES_URL=http://127.0.0.1:$port
make_agents_job
sed -i 's/"agent_tokens": 4000000/"agent_tokens": 9000/' job.json
search "a cap on tokens" tokens
check "a cap on tokens" tokens
[ "$("$tree" show tokens --calls --json | awk -F'[:,]' '/"tokens_in"|"tokens_out"/ { sum += $2 } END { printf "%d", sum }')" -le 9000 ] ||
    die "more tokens were spent than allowed"
sed -i 's/"agent_tokens": 9000/"agent_tokens": 4000000/; s/"agent_money_usd": 50/"agent_money_usd": 0.01/' job.json
search "a cap on money" money
check "a cap on money" money
expect 2 'TREX_TEST_KEY' env -u TREX_TEST_KEY "$trex" search job.json --out nokey
make_agents_job ', "network": "off"'
search "no network at all" off
check "no network at all" off
[ "$count" -ge 40 ] || die "only $count cases"
echo "$passed passed, 0 failed"
