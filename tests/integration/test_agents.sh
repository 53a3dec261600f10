#!/usr/bin/env bash
# A whole search by a language model: brief, papers, data, plans with repairs, diagnoses, insights; what it leaves in the
# run folder; the same again from the record, and through a relay.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/integration/common.sh"
. "$tests/integration/agents.sh"

make_replies
serve good --replies replies --files "$services"
rounds=3 make_agents_job
if [ -d "${FTBENCH-}/sst2" ]; then
    rm -r model
    "$trex" init model --hidden 32 --layers 2 --heads 2 --positions 320 > /dev/null
    use_sst2() {
        sed -i "s|\"train.jsonl\"|\"$FTBENCH/sst2/train.jsonl\"|; s|\"dev.jsonl\"|\"$FTBENCH/sst2/dev.jsonl\"|
            s|\"test.jsonl\"|\"$FTBENCH/sst2/test.jsonl\"|
            s|\"metric\":|\"limit\": {\"train\": 300, \"validation\": 80, \"test\": 80}, \"metric\":|" job.json
    }
    echo "on SST-2"
else
    use_sst2() { :; }
    echo "on made-up rows: set FTBENCH to a folder that holds sst2 for real ones"
fi
use_sst2
export TREX_SOURCES_URL=http://127.0.0.1:$port

expect 0 'the search has ended' "$trex" search job.json
expect 0 'nothing is damaged' "$tree" verify run
for name in brief literature reading data choice direction plan repair diagnosis insights; do
    grep -q "\"name\": *\"$name\"" good.log || { cut -c 1-200 good.log; die "$name was never asked for"; }
done
ok "brief, papers, data, directions, plans, a repair, diagnoses and insights were asked for"
! grep -q '"authorized": *false' good.log || die "a request came without the key"
ok "each with the key"
"$tree" show run n0001 > show.txt
grep -q 'by openai scripted' show.txt && grep -q 'too few steps' show.txt || { cat show.txt; die "no plan, or no causes, in n0001"; }
"$tree" show run --json > show.json
grep -q 'rates below 0.003' show.json || die "no insight in the tree"
ok "plans, causes and insights stand in the tree"
[ "$(find run/sources -maxdepth 1 -name '*.jsonl' | wc -l)" = 1 ] || { find run/sources; die "no rows were downloaded"; }
ok "rows were downloaded"

# every prompt, within its budget
"$tree" show run --prompts > prompts.txt
asked=$(grep -c '"name"' good.log)
[ "$("$tree" show run --calls --json | grep -c '"kind":[[:space:]]*"chat"')" = "$asked" ] || die "$asked chats were asked, not all are in the run"
ok "all $asked chats are in the run"
python_tokens() { awk -v max="$1" '{ n = length($0) / 3; if (n > most) most = n } END { exit !(most < max) }' "$2"; }
python_tokens 16000 good.log || die "a prompt is longer than its budget"
ok "each prompt is within its budget"
spent=$("$tree" status run --json | sed -n 's/.*"tokens":[[:space:]]*\([0-9]*\).*/\1/p' | head -n 1)
[ "${spent:-0}" -gt 1000 ] || { "$tree" status run --json; die "no tokens in the ledger"; }
ok "$spent tokens in the ledger"

# replay: no server, the same tree
kill "$server"; wait "$server" 2> /dev/null || true
decided run > recorded.txt
expect 0 'the search has ended' env -u TREX_TEST_KEY "$trex" search job.json --replay run --out again
decided again > replayed.txt
diff recorded.txt replayed.txt > diff.txt || { head -40 diff.txt; die "the replay has another tree"; }
ok "a replay has the same tree, without network and key"

# relay: the job cannot reach any network, the relay can
serve relayed --replies replies --files "$services"
export TREX_SOURCES_URL=http://127.0.0.1:$port
rounds=2 make_agents_job ', "network": "relay"'
use_sst2
"$trex" relay job.json --out far > relay.txt 2>&1 & relay=$!
alone=(env -u TREX_TEST_KEY)
if unshare --net sh -c 'ip link set lo up' 2> /dev/null; then # MPI wants a loopback, if only one to itself
    alone=(unshare --net sh -c 'ip link set lo up && exec "$@"' sh "${alone[@]}")
else
    echo "no network of its own can be made here: the job has no key, and that must do"
fi
expect 0 'the search has ended' "${alone[@]}" "$trex" search job.json --out far
kill -TERM "$relay"; code=0; wait "$relay" || code=$?
[ "$code" = 0 ] || { cat relay.txt; die "the relay ended with $code"; }
grep -q '"name": *"plan"' relayed.log || die "no plan came through the relay"
expect 0 'nothing is damaged' "$tree" verify far
"$tree" show far n0001 > show.txt
grep -q 'by openai scripted' show.txt || die "no plan of the model in the relayed tree"
ok "a search whose job has no network goes through the relay"

# prefetch, then a search that may not ask anybody for papers any more
rounds=1 make_agents_job
use_sst2
expect 0 '' "$trex" prefetch job.json --out early
"$tree" show early --brief > show.txt
grep -q 'short warm-up' show.txt || die "prefetch left no notes"
before=$(grep -c '"name"' relayed.log)
expect 0 'the search has ended' "$trex" search job.json --out early
! grep -qE '"name": *"(brief|literature|reading|data|choice)"' < <(tail -n "+$((before + 1))" relayed.log) ||
    die "what was prefetched was asked for again"
ok "what was prefetched is not asked for again"

# the key is nowhere
! grep -rqa "$TREX_TEST_KEY" run again far early ./*.txt ./*.log ./*.out || die "the key has leaked: $(grep -rla "$TREX_TEST_KEY" .)"
ok "the key is in no file"
echo "$passed passed, 0 failed"
