#!/usr/bin/env bash
# trex sources: searches, a card, a download, the cache, no network. All services are one server of the goldens.
golden=$(cd "$(dirname "$0")/../net/golden" && pwd)
. "$(dirname "$0")/common.sh"
export no_proxy=127.0.0.1
unset HF_TOKEN S2_API_KEY OPENALEX_API_KEY

"$build/tests/test_lm_server" --port-file port --files "$golden" &
for _ in $(seq 600); do [ ! -s port ] || break; sleep 0.1; done
base=http://127.0.0.1:$(cat port)
kept=(--cache cache --base-url "$base")

expect 0 '^hf_datasets +data' "$trex" sources
expect 0 'example: ' "$trex" sources --help
expect 0 '"id":"2409.01234"' "$trex" sources arxiv "low-rank sentiment" "${kept[@]}"
expect 0 '"citations":57' "$trex" sources semantic_scholar "labels" "${kept[@]}"
expect 0 'Near duplicates in the training set' "$trex" sources openalex "duplicates" "${kept[@]}"
expect 0 '"votes":23' "$trex" sources hf_papers "curriculum" "${kept[@]}"
expect 0 '^1 found in ' "$trex" sources hf_papers "curriculum" --count 1 "${kept[@]}"
expect 0 '"licence":"cc-by-4.0"' "$trex" sources hf_datasets "reviews" "${kept[@]}"
expect 0 '"labels":\["negative","positive"\]' "$trex" sources hf_datasets example-org/short-reviews --card "${kept[@]}"
expect 0 '"rows":3,"hash":' "$trex" sources hf_datasets example-org/short-reviews --download --out rows "${kept[@]}"
[ "$(cat rows/*.jsonl | wc -l)" = 3 ] || die "three rows were written"
expect 1 'not among those allowed' "$trex" sources hf_datasets example-org/short-reviews --download --licence mit \
    --out none "${kept[@]}"
[ ! -e none ] || die "nothing was written without a licence"
expect 2 'code 404' "$trex" sources hf_datasets nobody/nothing --card "${kept[@]}"

# without a network: what was asked before, and local folders
kill %1
wait
expect 0 '"id":"2409.01234"' "$trex" sources arxiv "low-rank sentiment" --offline "${kept[@]}"
expect 0 'from the cache' "$trex" sources openalex "duplicates" --offline "${kept[@]}"
rm -r rows
expect 0 '"rows":3,"hash":' "$trex" sources hf_datasets example-org/short-reviews --download --out rows --offline \
    "${kept[@]}"
expect 2 'offline' "$trex" sources arxiv "something else" --offline "${kept[@]}"
expect 0 'warm and quick' "$trex" sources local reviews --card --folder "$golden/local" --offline
grep -q 'test split' out.txt && die "rows of a test split are shown"

# wrong
expect 2 'found "google"' "$trex" sources google x
expect 2 '/do: found "card"' "$trex" sources arxiv x --card
expect 2 '/count' "$trex" sources arxiv x --count 26
expect 2 '/id' "$trex" sources hf_datasets ../x --card
expect 2 'one question' "$trex" sources local x --card --download
expect 2 'HF_TOKEN' env HF_TOKEN="two words" "$trex" sources arxiv x

echo "$passed passed, 0 failed"
