#!/usr/bin/env bash
# trex relay: started before the search, stopped, killed and started again; asked through files alone.
. "$(dirname "$0")/common.sh"
make_task

key=sk-canary-5d0c7be19f3a2468
RELAY_KEY=$key "$build/tests/test_lm_server" --port-file port --log asked.jsonl --delay 0.5 --key-env RELAY_KEY & server=$!
for _ in $(seq 300); do [ ! -s port ] || break; sleep 0.1; done
url=http://127.0.0.1:$(cat port)/v1

make_task ', "researcher": {"provider": "openai", "model": "scripted", "endpoint": "'"$url"'", "key_env": "RELAY_KEY",
    "network": "relay", "tries": 1}, "limits": {"agent_tokens": 20000, "agent_money_usd": 1}'
unset http_proxy RELAY_KEY

# a request NAME PURPOSE, as a job leaves it: written aside, renamed
request() {
    mkdir -p run/relay/requests
    cat > "run/relay/requests/$1.part" <<JSON
{"id": "$1", "key": "$2", "kind": "chat", "body": {"max_tokens": 50, "messages": [
 {"role": "system", "content": "Task: plan"}, {"role": "user", "content": "say something"}],
 "schema_name": "plan", "schema": {"type": "object", "properties": {"goal": {"type": "string"}},
  "required": ["goal"], "additionalProperties": false}}}
JSON
    mv "run/relay/requests/$1.part" "run/relay/requests/$1.json"
}

await() { # await FILE
    for _ in $(seq 600); do [ ! -e "$1" ] || return 0; sleep 0.1; done
    cat relay.txt
    die "$1 does not come"
}

expect 2 'RELAY_KEY' "$trex" relay job.json --out there # there is no key
[ ! -e there ] || die "a relay that cannot serve has made a run folder"
export RELAY_KEY=$key
sed 's/"network": "relay"/"network": "direct"/' job.json > direct.json
expect 2 'network is not "relay"' "$trex" relay direct.json
expect 2 'no-such.json' "$trex" relay no-such.json

# it waits for the run folder, and serves what is asked
"$trex" relay job.json > relay.txt 2>&1 & relay=$!
for _ in $(seq 300); do ! grep -q 'not there yet' relay.txt || break; sleep 0.1; done
mkdir run
request 000000-0123456789abcdef brief/1
await run/relay/replies/000000-0123456789abcdef.json
grep -q '"status":"STATUS_OK"' run/relay/replies/000000-0123456789abcdef.json || die "no answer"
grep -q 'brief/1: [0-9]* tokens in' relay.txt || { cat relay.txt; die "it does not say what it does"; }
expect 75 'another relay serves' "$trex" relay job.json --once
kill -TERM "$relay"
code=0; wait "$relay" || code=$?
[ "$code" = 0 ] || { cat relay.txt; die "exit code $code after SIGTERM"; }
grep -q 'answered 1 request' relay.txt || { cat relay.txt; die "no last word"; }
ok "a request is answered, SIGTERM ends the relay"

# killed while it asks: the next one asks again, and counts both; what has a reply is never asked again
request 000001-0123456789abcdef n0000.0/plan/1
"$trex" relay job.json > relay.txt 2>&1 & relay=$!
await run/relay/replies/000001-0123456789abcdef.asked
kill -KILL "$relay"
wait "$relay" 2> /dev/null || true
expect 0 'answered [01] request' "$trex" relay job.json --once
asked=$(wc -l < asked.jsonl)
[ -e run/relay/replies/000001-0123456789abcdef.json ] || die "no reply after a restart"
expect 0 'answered 0 requests' "$trex" relay job.json --once
[ "$(wc -l < asked.jsonl)" = "$asked" ] || die "a request with a reply was asked again"
ok "a killed relay's request is answered by the next one"

# the job file's caps, whatever is asked
sed 's/"agent_tokens": 20000/"agent_tokens": 1/' job.json > poor.json
request 000002-0123456789abcdef n0000.1/plan/1
expect 0 'agent_tokens has' "$trex" relay poor.json --once
grep -q STATUS_LIMIT run/relay/replies/000002-0123456789abcdef.json || die "no word of the cap"
[ "$(wc -l < asked.jsonl)" = "$asked" ] || die "asked above the cap"
ok "a cap holds"

# ... unless somebody has set others for this run folder, also while it serves
limit() { # limit TOKENS, as trex-tree set leaves it
    echo '{"halt": "none", "limits": {"agent_tokens": '"$1"'}, "by": "test", "written_s": 1700000000}' > control.part
    mv control.part run/control.json
}
"$trex" relay poor.json > relay.txt 2>&1 & relay=$!
limit 20000
for _ in $(seq 300); do ! grep -q 'agent_tokens 1 -> 20000' relay.txt || break; sleep 0.1; done
request 000003-0123456789abcdef n0000.2/plan/1
await run/relay/replies/000003-0123456789abcdef.json
grep -q '"status":"STATUS_OK"' run/relay/replies/000003-0123456789abcdef.json ||
    { cat relay.txt; die "the limit in force does not hold"; }
limit 2
for _ in $(seq 300); do ! grep -q 'agent_tokens 20000 -> 2,' relay.txt || break; sleep 0.1; done
request 000004-0123456789abcdef n0000.3/plan/1
await run/relay/replies/000004-0123456789abcdef.json
grep -q STATUS_LIMIT run/relay/replies/000004-0123456789abcdef.json ||
    { cat relay.txt; die "a limit that was lowered does not hold"; }
limit -5
for _ in $(seq 300); do ! grep -q 'the limits stay as they were' relay.txt || break; sleep 0.1; done
request 000005-0123456789abcdef n0000.4/plan/1
await run/relay/replies/000005-0123456789abcdef.json
grep -q STATUS_LIMIT run/relay/replies/000005-0123456789abcdef.json ||
    { cat relay.txt; die "a control.json that is none counts"; }
kill -TERM "$relay"; wait "$relay" || true
rm run/control.json
ok "limits that are set hold for the relay too"

! grep -rq "$key" run relay.txt out.txt || die "the key is in a file"
ok "no key in $(find run relay.txt -type f | wc -l) files"
kill "$server"
echo "$passed passed, 0 failed"
