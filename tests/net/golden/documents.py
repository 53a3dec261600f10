#!/usr/bin/env python3
"""What src/net must read from recorded answers, written down by other means: this reads them with Python's own JSON and
XML, shares no line with src/net, and follows what net/source.h and net/source_service.h promise. `mask` uses it; alone

    tests/net/golden/documents.py FOLDER

it writes FOLDER/documents.json for answers as they came.
"""
import json
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree

ATOM = "{http://www.w3.org/2005/Atom}"
DOCUMENTS = 25
TITLE, ABSTRACT, CARD = 300, 3000, 8000  # bytes
NO_LICENCE = {"", "unknown", "other", "none", "publisher-specific-oa", "other-oa", "unspecified-oa"}
SPELT = {"ccby": "cc-by", "ccbysa": "cc-by-sa", "ccbync": "cc-by-nc", "ccbynd": "cc-by-nd", "ccbyncsa": "cc-by-nc-sa",
         "ccbyncnd": "cc-by-nc-nd", "public-domain": "cc0-1.0", "cc0": "cc0-1.0"}
BLANK = "[\\x00-\\x20\u00a0\u2028\u2029]"
INVISIBLE = ("[\\x7f-\\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
             "\U000e0000-\U0010ffff]")


def clean(text, limit, lines=False):
    """One line, or lines of which no more than one is empty; nothing that is not seen; `limit` bytes at most."""
    def gap(match):
        breaks = len(re.findall("[\n\u2028\u2029]", match.group())) if lines else 0
        return [" ", "\n", "\n\n"][min(breaks, 2)]
    text = re.sub(f"{BLANK}(?:{BLANK}|{INVISIBLE})*", gap, re.sub(f"^(?:{INVISIBLE})+", "", text or ""))
    text = re.sub(INVISIBLE, "", text).strip(" \n")
    if len(text.encode()) <= limit:
        return text
    return text.encode()[:limit - 3].decode(errors="ignore").rstrip(" \n") + "..."


def licence(names):
    """Of one name or several; one that says nothing makes the whole unknown."""
    out = []
    for name in names if isinstance(names, list) else [names or ""]:
        name = name.lower()
        out.append("" if name in NO_LICENCE else SPELT.get(name, name))
    return " and ".join(out) if all(out) else ""


def document(kind, source, name, title, url, text, year=0, licence_name="", **more):
    out = {"kind": kind, "source": source, "id": name, "title": clean(title, TITLE), "url": url}
    if year:
        out["year"] = int(year)
    out |= {"licence": licence_name, "text": clean(text, ABSTRACT)}
    return out | {name: value for name, value in more.items() if value is not None}


def paper(*arguments, **more):
    return document("literature", *arguments, **more)


def arxiv(raw):
    for entry in ElementTree.fromstring(raw).iter(ATOM + "entry"):
        name = entry.findtext(ATOM + "id").split("/abs/")[-1]
        if "api/errors" in name:
            return
        name = re.sub(r"v\d+$", "", name)
        yield paper("arxiv", name, entry.findtext(ATOM + "title"), "https://arxiv.org/abs/" + name,
                    entry.findtext(ATOM + "summary"), entry.findtext(ATOM + "published")[:4])


def semantic_scholar(raw):
    for item in json.loads(raw).get("data", []):
        yield paper("semantic_scholar", item["paperId"], item.get("title"),
                    "https://www.semanticscholar.org/paper/" + item["paperId"], item.get("abstract"),
                    item.get("year") or 0, licence((item.get("openAccessPdf") or {}).get("license")),
                    citations=item.get("citationCount"))


def openalex(raw):
    for item in json.loads(raw)["results"]:
        name = item["id"].split("/")[-1]
        index = item.get("abstract_inverted_index") or {}
        words = sorted((place, word) for word, places in index.items() for place in places)
        yield paper("openalex", name, item["display_name"], "https://openalex.org/" + name,
                    " ".join(word for _, word in words), item["publication_year"],
                    licence((item["primary_location"] or {}).get("license")), citations=item["cited_by_count"])


def hf_papers(raw):
    for item in json.loads(raw):
        item = item.get("paper", item)
        yield paper("hf_papers", item["id"], item["title"], "https://huggingface.co/papers/" + item["id"],
                    item["summary"], item["publishedAt"][:4], votes=item.get("upvotes"))


def hf_datasets(raw):
    items = json.loads(raw)
    for item in items if isinstance(items, list) else [items]:
        if item.get("disabled"):
            continue
        tags = [tag.split(":", 1) for tag in item["tags"] if ":" in tag]
        sizes = [value for front, value in tags if front == "size_categories"]
        yield document("data", "hf_datasets", item["id"], item["id"], "https://huggingface.co/datasets/" + item["id"],
                       item.get("description"), item.get("createdAt", "0000")[:4].lstrip("0"),
                       licence([value for front, value in tags if front == "license"]),
                       downloads=item.get("downloads"), size=sizes[0] if sizes else None,
                       gated=True if item.get("gated") else None)


def hf_card(raw):
    head, text = re.fullmatch(r"(?:---\r?\n(.*?\n)---[ \t]*\r?\n)?(.*)", raw, re.S).groups(default="")
    name = re.search(r"^pretty_name: *(.*)$", head, re.M)
    found = re.search(r"^license:((?: *\S+)?(?:\n- .*)*)$", head, re.M)
    heading = re.search(r"^# (.*)$", text, re.M)
    title = name or heading
    yield {"title": clean(title[1].strip("\"'"), 255) if title else "", "text": clean(text, CARD, lines=True),
           "licence": licence(re.findall(r"[^\s-]\S*", found[1]) if found else [])}


def hf_size(raw):
    """The splits, and the one to train on: no test split, if there is another; the first of the best."""
    splits = json.loads(raw)["size"]["splits"]
    best = {item["split"]: item for item in reversed(splits) if not re.match("test", item["split"], re.I)}
    best = best.get("train") or next(reversed(best.values()), {})
    yield {"splits": [{"config": item["config"], "split": item["split"], "rows": item["num_rows"]} for item in splits],
           "config": best.get("config", ""), "split": best.get("split", "")}


READERS = [(r"arxiv/.*", arxiv), (r"semantic_scholar/.*", semantic_scholar), (r"openalex/.*", openalex),
           (r"hf/api/papers/.*", hf_papers), (r"hf/api/datasets.*", hf_datasets), (r"hf/datasets/.*", hf_card),
           (r"hf_rows/size.*", hf_size)]


def listed(items):
    """Each once, and those without a title not at all (OpenAlex has some)."""
    out = {}
    for item in items:
        if item["title"]:
            out.setdefault(item["id"], item)
    return list(out.values())[:DOCUMENTS]


def write(folder):
    out = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder).as_posix()
        for pattern, read in READERS:
            if path.is_file() and re.fullmatch(pattern, place):
                items = list(read(path.read_bytes().decode()))
                out[place] = items if read in (hf_card, hf_size) else listed(items)
    (folder / "documents.json").write_text(json.dumps(out, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]))
