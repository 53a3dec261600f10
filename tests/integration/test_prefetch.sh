#!/usr/bin/env bash
# trex prefetch where something fails: it says what is missing, gives nothing up, and the same command, or the search
# itself, asks again.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/integration/common.sh"
. "$tests/integration/agents.sh"
make_replies

calls() { "$tree" show "$1" --calls; }
has() { # has RUN PATTERN WHAT: a call of the run
    grep -qE "$2" < <(calls "$1") || { calls "$1"; die "$3"; }
}
has_not() {
    ! grep -qE "$2" < <(calls "$1") || { calls "$1"; die "$3"; }
}
good_job() { port=$good rounds=1 make_agents_job; } # at the server that answers
chats() { wc -l < "$1.log" | tr -d ' '; }

# ---- a language model that does not answer ----

serve down --replies replies --files "$services"
export TREX_SOURCES_URL=http://127.0.0.1:$port
rounds=1 make_agents_job
kill "$server"; wait "$server" 2> /dev/null || true
expect 1 'not all was .* into run: brief missing, 0 papers, 0 data sets; 0 tokens: brief/1: .*command asks again' \
    "$trex" prefetch job.json
expect 1 'brief missing' "$trex" prefetch job.json # as often as one likes
[ "$(calls run | grep -c ' brief/1 ')" = 1 ] || { calls run; die "each try is a call of its own"; }
expect 0 'its end     prefetched in part' "$tree" status run
expect 0 'nothing is damaged' "$tree" verify run
ok "what failed stays open"

# A wrong key is no answer either.
serve strict --replies replies --files "$services"
export TREX_SOURCES_URL=http://127.0.0.1:$port
good=$port
good_job
expect 1 'brief missing.*brief/1: .*401.*check the key' \
    env TREX_TEST_KEY=sk-another-0000000000000000 "$trex" prefetch job.json
expect 2 'TREX_TEST_KEY' env -u TREX_TEST_KEY "$trex" prefetch job.json
expect 0 'prefetched into run: brief written, 1 paper, 1 data set;' "$trex" prefetch job.json
[ "$(calls run | grep -c ' brief/1 ')" = 1 ] || { calls run; die "a brief that failed was asked under another call"; }
has_not run ' lost' "what cost nothing is counted as lost"
before=$(chats strict)
expect 0 'the search has ended' "$trex" search job.json
! grep -qE '"name": *"(brief|literature|reading|data|choice)"' < <(tail -n "+$((before + 1))" strict.log) ||
    die "what was prefetched was asked for again"
expect 0 'the search has ended' "$trex" search job.json --out again --replay run
diff <(decided run) <(decided again) || die "the replay has another tree"
ok "the same command went on, and so did the search and its replay"

# ---- the job that follows asks itself ----

port=1 rounds=1 make_agents_job
expect 1 'brief missing' "$trex" prefetch job.json --out later
good_job
expect 0 'the search has ended' "$trex" search job.json --out later
grep -q 'goes up or down' < <("$tree" show later --brief) ||
    { calls later; die "the search has not asked for the brief"; }
ok "a search asks for what its prefetch did not bring"

# What a failure may have cost counts, and is asked anew.
echo 'brief:* cut=60' > faults
serve costly --replies replies --files "$services" --faults faults
rounds=1 make_agents_job
expect 1 'brief missing, 0 papers, 0 data sets; [1-9][0-9]* tokens: brief/1' "$trex" prefetch job.json --out costly
has costly ' brief/1 .* lost' "a stream that was cut is free"
good_job
expect 0 'brief written' "$trex" prefetch job.json --out costly

# ---- caps ----

good_job
sed -i 's/"agent_tokens": 4000000/"agent_tokens": 100/' job.json
expect 1 'brief missing.*agent_tokens has 100 left of 100.*trex-tree set' "$trex" prefetch job.json --out poor
expect 0 '' "$tree" set poor agent_tokens=4000000
expect 0 'brief written' "$trex" prefetch job.json --out poor

# ---- replies that cannot be used: they were paid for, and another run folder begins anew ----

mkdir useless
echo '"no brief"' > useless/brief.json
echo '"no brief"' > useless/repair.json
serve useless --replies useless --files "$services"
rounds=1 make_agents_job
expect 1 'brief missing.*no reply could be used.*another run folder' "$trex" prefetch job.json --out useless.run
asked=$(chats useless)
expect 1 'brief missing.*begin with another run folder' "$trex" prefetch job.json --out useless.run
[ "$(chats useless)" = "$asked" ] || die "useless replies are paid for again"

# ---- sources: one that is down is passed over; where none answers, all are asked again ----

good_job
nowhere=(env TREX_SOURCES_URL=http://127.0.0.1:1)
expect 1 'brief written, 0 papers, 0 data sets.*source/' "${nowhere[@]}" "$trex" prefetch job.json --out offline
expect 0 'prefetched into offline: brief written, 1 paper, 1 data set;' "$trex" prefetch job.json --out offline
mkdir some
cp -r "$services"/. some/
has offline ' source/openalex/.* answered' "the test asks another source"
rm -rf some/works* some/openalex*
serve some --replies replies --files some
rounds=1 make_agents_job
expect 0 'prefetched into some.run: brief written, 1 paper, 1 data set;' \
    env TREX_SOURCES_URL=http://127.0.0.1:$port "$trex" prefetch job.json --out some.run
has some.run ' source/openalex/.* failed' "a source that was down did not fail"

# ---- a local model: its sources go by the job's network ----

"$trex" init talker --hidden 32 --layers 1 --heads 2 --positions 16384 --seed 7 > /dev/null
good_job
expect 1 'source/' "${nowhere[@]}" "$trex" prefetch job.json --out cluster
cp -r cluster alone
local_job() { # NETWORK
    make_task ', "researcher": {"provider": "local", "model": "talker", "network": "'"$1"'", "prompt_tokens": 3000,
        "reply_tokens": 256, "repairs": 0, "ahead": false}, "limits": {"agent_tokens": 100000000, "samples": 300,
        "steps": 20}, "search": {"rounds": 1, "configurations": 2, "seed": 3}'
}
local_job relay
"$trex" relay job.json --out cluster > relay.txt 2>&1 & relay=$!
expect 0 'the search has ended' "${nowhere[@]}" "$trex" search job.json --out cluster
kill -TERM "$relay"; wait "$relay" || { cat relay.txt; die "the relay ended with another code than 0"; }
has cluster ' source/.* answered' "no source answered through the relay: $(cat relay.txt)"
has_not cluster ' source/.*(connect|127.0.0.1:1 )' "a source was asked without the relay"
grep -q 'source/' relay.txt || { cat relay.txt; die "the relay was not asked"; }
has cluster ' answered .*talker' "the local model was not asked"
expect 0 'the search has ended' "${nowhere[@]}" "$trex" search job.json --out replayed --replay cluster
diff <(decided cluster) <(decided replayed) || die "the replay has another tree"
ok "a local model beside a relay: sources go through it"
local_job off
expect 0 'the search has ended' "$trex" search job.json --out alone
has alone ' source/.*offline' "a source was asked without a network"
has alone ' answered .*talker' "the local model was not asked"
ok "a local model without a network: sources have what they have"
! grep -rqa "$TREX_TEST_KEY" run later costly poor offline cluster ./*.txt || die "the key has leaked"
echo "$passed passed, 0 failed"
