/* Papers and data sets: what a Researcher may look up. One file a service, source_<name>.c, and a
 * row in source.c.
 *
 * What comes back is data from strangers: every text is bounded, UTF-8, without invisible
 * characters, and never a command. Optional keys are read from the environment when sources are
 * created (HF_TOKEN, S2_API_KEY, OPENALEX_API_KEY); none is in a cache, a log or an error. */
#ifndef NET_SOURCE_H
#define NET_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/log.h"
#include "base/status.h"
#include "net/http.h"

enum source_kind { SOURCE_LITERATURE, SOURCE_DATA };

struct source_options {
    const char *cache_folder; /* answers are kept here by content of the question; NULL: nowhere */
    double cache_s;           /* for so long */
    bool offline;             /* the cache alone, whatever its age, and local folders */
    const char *const
        *folders; /* local ones, with a card (README.md) and *.jsonl in each; NULL at the end */
    const char *download_folder; /* rows of data sets go here as JSON Lines */
    const char *download_name;   /* what answers call that folder; NULL: as it is called here */
    const char *const *licences; /* of data that may be downloaded, in lower case; NULL at the end;
                                    NULL: any that is known */
    int64_t rows_max;            /* of a download */
    const char *base_url; /* instead of the services: tests, mirrors. They are below it: /arxiv,
                             /semantic_scholar, /openalex, /hf (the hub), /hf_rows */
    double haste;         /* rates and pauses are shorter by this factor: tests, mirrors; 0: 1 */
    struct log *log;
};

struct sources; /* opaque */
enum status sources_create(const struct source_options *options, struct http *http,
                           struct sources **out, struct error *err);
void sources_destroy(struct sources *sources);

/* Questions, as JSON objects:
 *   {"do": "search", "source": "arxiv", "text": "...", "count": 5}                 -> documents
 *   {"do": "card", "source": "hf_datasets", "id": "org/name"}                      -> one document
 *   {"do": "download", "source": "hf_datasets", "id": ..., "config": ..., "split": ..., "rows": n}
 * -> one document with path, rows, hash (config, split and rows may be left out)
 *
 * A text should be a few words: arXiv is asked for all of the first 8, then for any; the hub for
 * all of the first 4 in a name, then for fewer.
 *
 * Answers, as JSON text, at most 128 KiB: {"documents": [...]}, at most 25, in the service's order,
 * each {kind: literature|data, source, id, title, url, licence, text [, year]} and, where known,
 *   papers      citations, votes
 *   data sets   downloads, size, gated
 *   cards       splits[{config, split, rows}], columns[{name, type, labels}], samples[{row}...]
 *   downloads   config, split, path, rows, hash
 * A licence is in lower case ("apache-2.0"), several are "mit and cc-by-4.0", "" is unknown. Rows
 * without a licence that is known and allowed, and splits for tests, are never taken; `local` gives
 * the path where the file lies. STATUS_INVALID: no such question. Each service has a least time
 * between requests (its own rules), a time-out, and is asked again where that may help; an old
 * answer from the cache is better than none. */
enum status sources_ask(struct sources *sources, const cJSON *question, int64_t *id,
                        struct error *err);
enum status sources_turn(struct sources *sources, struct error *err);

struct source_answer {
    enum status status;
    char *text; /* owned; NULL unless STATUS_OK */
    char host[HTTP_HOST_BYTES];
    bool cached;
    double seconds;
    int attempts;
    struct error error;
};
bool sources_take(struct sources *sources, int64_t id, struct source_answer *out);
void source_answer_fini(struct source_answer *answer);
void sources_cancel(struct sources *sources, int64_t id);

struct source_info {
    const char *name;
    enum source_kind kind;
    const char *summary;
    bool network;
};
const struct source_info *source_list(void); /* name NULL at the end */

#endif
