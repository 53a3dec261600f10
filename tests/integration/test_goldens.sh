#!/usr/bin/env bash
# tests/net/golden/mask: nothing that others wrote stays, the form of an answer does, and what is not known is refused.
golden=$(cd "$(dirname "$0")/../net/golden" && pwd)
. "$(dirname "$0")/common.sh"
command -v python3 > /dev/null || { echo "skipped: there is no python3"; exit 77; }
export PYTHONDONTWRITEBYTECODE=1

mkdir from
cp -r "$golden"/{arxiv,semantic_scholar,openalex,hf,hf_rows} from
expect 0 '^9 files' "$golden/mask" from once
expect 0 '^9 files' "$golden/mask" from twice
diff -r once twice || die "the same input gives the same output"
! grep -rqiE 'adapters|duplicates|curriculum|short-reviews|wooden' once || die "a word of the original is left"
form() { LC_ALL=C tr -d '[:alnum:]' < "$1"; }
for name in arxiv/api/query.xml hf_rows/size.json semantic_scholar/graph/v1/paper/search.json; do
    [ "$(wc -c < "from/$name")" = "$(wc -c < "once/$name")" ] || die "$name has another length"
    cmp <(form "from/$name") <(form "once/$name") || die "$name has another form"
done
ok "the form stays to the byte"
id=$(cd once/hf/api/datasets && find . -name '*.json')
[ -e "once/hf/datasets/${id%.json}/resolve/main/README.md" ] || die "one data set has two names"
grep -q '"license:cc-by-4.0"' "once/hf/api/datasets/$id" || die "a licence is no prose"
expect 0 '^9 files' "$golden/mask" from picked --pick 1
[ "$(grep -c '<entry>' picked/arxiv/api/query.xml)" = 1 ] || die "one entry was asked for"

# what is committed is what the other program reads
cp -r "$golden/recorded" again
python3 "$golden/documents.py" again
diff again/documents.json "$golden/recorded/documents.json" || die "documents.json is not of these files"
ok "documents.json is up to date"

refused() { # PATTERN PLACE TEXT
    rm -rf bad
    mkdir -p "bad/$(dirname "$2")"
    printf '%s' "$3" > "bad/$2"
    expect 1 "$1" "$golden/mask" bad none
    [ ! -e none ] || die "something was written"
}
refused 'at no place of a service' pages/index.html '<html>A page</html>'
refused 'at no place of a service' openalex/authors.json '{"results": []}'
refused 'is broken' openalex/works.json '{"results": ['
refused 'has none of' openalex/works.json '{"pages": []}'
refused 'is no list' hf/api/datasets.json '{"error": "text"}'
refused 'no Atom feed' arxiv/api/query.xml '<rss><item>News</item></rss>'
refused 'is broken' arxiv/api/query.xml 'Rate exceeded.'
refused 'keep words of others: secretly' openalex/works.json '{"results": [{"title": "https://secretly.arxiv.org/"}]}'
refused 'a field whose name is none' openalex/works.json '{"results": [{"A word said": 1}]}'
refused 'is no number' openalex/works.json '{"results": [NaN]}'
refused 'has a comment' arxiv/api/query.xml '<feed xmlns="http://www.w3.org/2005/Atom"><!-- Said --></feed>'
refused "can't decode" openalex/works.json "$(printf '{"results": ["\377"]}')"
echo "$passed passed, 0 failed"
