/* What one service is: source_<name>.c, and a row in source.c. And what the services share: cleaned
 * texts, licences, documents, the cache.
 *
 * A question is answered in steps. A service's `advance` reads the body that came (pure: bytes to
 * documents) and names the next one to fetch; source.c fetches, from the cache or over HTTP, within
 * the site's rate. */
#ifndef NET_SOURCE_SERVICE_H
#define NET_SOURCE_SERVICE_H

#include "base/buffer.h"
#include "net/source.h"

enum {
    SOURCE_DOCUMENTS_MAX = 25,        /* of an answer */
    SOURCE_ANSWER_MAX_BYTES = 131072, /* of an answer, as JSON */
    SOURCE_BODY_MAX_BYTES = 8 << 20,  /* of what a service sends */
    SOURCE_ABSTRACT_BYTES = 3000,
    SOURCE_CARD_BYTES = 8000,
    SOURCE_LICENCE_BYTES = 128,
    SOURCE_ID_BYTES = 200,
    SOURCE_URL_BYTES = 2048
};

/* Hosts, each with the least time between two requests that it asks for. */
enum source_site_id {
    SOURCE_SITE_ARXIV,
    SOURCE_SITE_SEMANTIC_SCHOLAR,
    SOURCE_SITE_OPENALEX,
    SOURCE_SITE_HF,      /* the hub */
    SOURCE_SITE_HF_ROWS, /* its datasets server */
    SOURCE_SITE_COUNT
};

struct source_site {
    const char *name; /* below base_url and the cache folder */
    const char *url;
    double interval_s;
    const char *key_env;   /* NAME of the environment variable with an optional key; "": none */
    const char *header;    /* of the key, "Name: prefix"; NULL: a parameter of the query, */
    const char *parameter; /* that stands here */
};
extern const struct source_site source_sites[SOURCE_SITE_COUNT];

enum source_do { SOURCE_SEARCH, SOURCE_CARD, SOURCE_DOWNLOAD, SOURCE_DO_COUNT };

struct source_question {
    enum source_do what;
    char *text;                /* of a search */
    int count;                 /* of its documents */
    char *id, *config, *split; /* of a card or download; config and split may be "" */
    int64_t rows;              /* of a download, at most */
};

/* What a service wants next. An empty path: the answer is whole. */
struct source_step {
    enum source_site_id site;
    char path[SOURCE_URL_BYTES]; /* with its query, below the site's URL */
    bool optional; /* without it (4xx, or offline and not in the cache) `advance` is called with
                      NULL */
};

/* One question while it is answered. */
struct source_work {
    const struct source_options *options;
    struct source_question question;
    bool has_hub_key;
    int stage; /* the service's own; 0 when `advance` is called first, without a body */
    cJSON *documents;
    void *state; /* the service's own, and how it is freed */
    void (*free_state)(void *state);
};

struct source_service {
    bool card, download; /* beside search */
    /* Reads the body of the step before and fills *next (empty when called). STATUS_BUSY: the
     * service said "later" in a body of its own; whatever else: the answer fails. */
    enum status (*advance)(struct source_work *work, const char *body, size_t len_bytes,
                           struct source_step *next, struct error *err);
};
extern const struct source_service source_arxiv, source_semantic_scholar, source_openalex,
    source_hf_papers, source_hf_datasets, source_local;

/* What source_list() gives, by index. */
enum source_index {
    SOURCE_ARXIV,
    SOURCE_SEMANTIC_SCHOLAR,
    SOURCE_OPENALEX,
    SOURCE_HF_PAPERS,
    SOURCE_HF_DATASETS,
    SOURCE_LOCAL,
    SOURCE_COUNT
};

const struct source_service *source_service_at(enum source_index source); /* source.c */

/* ---- source_question.c ---- */

/* STATUS_INVALID with all mistakes; STATUS_LIMIT where the options allow no download. *out is
 * filled as far as it goes, whatever the outcome. */
enum status source_read_question(const cJSON *json, const struct source_options *options,
                                 enum source_index *source, struct source_question *out,
                                 struct error *err);
void source_question_fini(struct source_question *question);

/* ---- bodies to documents, appended to an array, `count` at most ---- */

typedef enum status (*source_add_entry)(const cJSON *entry, int count, cJSON *documents,
                                        struct error *err);
/* `add` for each entry of a list: the answer itself (key NULL), or what it has under `key`, where
 * an answer of "total" 0 may have nothing. STATUS_FORMAT if there is no list. */
enum status source_read_list(const char *name, const char *key, source_add_entry add,
                             const char *body, size_t len_bytes, int count, cJSON *documents,
                             struct error *err);

enum status source_arxiv_read(const char *body, size_t len_bytes, int count, cJSON *documents,
                              struct error *err);
enum status source_semantic_scholar_read(const char *body, size_t len_bytes, int count,
                                         cJSON *documents, struct error *err);
enum status source_openalex_read(const char *body, size_t len_bytes, int count, cJSON *documents,
                                 struct error *err);
enum status source_hf_papers_read(const char *body, size_t len_bytes, int count, cJSON *documents,
                                  struct error *err);
enum status source_hf_datasets_read(const char *body, size_t len_bytes, int count, cJSON *documents,
                                    struct error *err);

/* ---- source_text.c: texts of strangers ---- */

/* Appends `text` (anything; what is not UTF-8 becomes U+FFFD) without control, bidirectional and
 * invisible characters, cut at a character with "..." so that at most max_bytes are appended.
 * `lines`: line ends stay, two in a row at most; else all white space is one space. */
void source_clean(const char *text, bool lines, size_t max_bytes, struct buffer *out);

/* Appends the words of a text that are safe in a query language (letters, digits, hyphens inside),
 * at most `max`, each between `before` and `after`, with `between` in between. `hyphens` false:
 * a hyphen parts words. Returns their number. */
int source_words(const char *text, int max, bool hyphens, const char *before, const char *after,
                 const char *between, struct buffer *out);

/* The path of a step: front, the text percent-encoded, back, a number. STATUS_INVALID if there is
 * no text or too much of it. */
enum status source_set_path(struct source_step *next, const char *front, const char *text,
                            const char *back, int64_t number, struct error *err);

/* A part of a file name: letters, digits, '.', '_' and '-', no dot in front, at most max_bytes. */
void source_file_part(const char *text, size_t max_bytes, struct buffer *out);

/* "org/name" or "name" as the hub has it: no path that climbs, nothing to escape. */
bool source_id_valid(const char *id);

/* "" if the key is absent or no text. */
const char *source_string(const cJSON *object, const char *key);
/* `fallback` if it is absent or no whole number from 0 to 2^53. */
int64_t source_integer(const cJSON *object, const char *key, int64_t fallback);
/* The year that a date "2024-05-31..." begins with; 0: none. */
int source_year(const char *date);

/* How good a split of that name is to train on: 2 train, 1 others, 0 those of tests, which are
 * never shown nor taken: they may be what this job, or another, is measured with. */
int source_rate_split(const char *name);

/* A service's JSON. STATUS_FORMAT names what came instead (nothing, a web page, ...). */
enum status source_parse_json(const char *name, const char *body, size_t len_bytes, cJSON **out,
                              struct error *err);

/* ---- source_licence.c ---- */

/* Lower case, SPDX-like: "Apache License 2.0" is "apache-2.0". Several, in an array of texts, are
 * joined by " and ". "" if it is unknown, other or none. */
void source_licence(const char *text, char out[SOURCE_LICENCE_BYTES]);
void source_licences(const cJSON *text_or_array, char out[SOURCE_LICENCE_BYTES]);

/* Whether data under it (each part of "a and b") may be taken: it is in `allowed`, or, if that is
 * NULL, a licence that the world knows. */
bool source_licence_allowed(const char *licence, const char *const *allowed);

/* ---- source_document.c ---- */

struct source_document {
    const char *id, *title, *url, *licence;
    const char *text; /* NULL: none */
    size_t text_bytes;
    bool lines; /* keeps line ends of the text */
    int year;   /* 0: unknown */
};
/* Appends a cleaned document, unless its id is there already, or `count` are, or id or title are
 * empty; *added (may be NULL) is it or NULL. */
enum status source_add(enum source_index source, const struct source_document *document, int count,
                       cJSON *documents, cJSON **added, struct error *err);

/* The whole number that `from` has under `key`, if it does, as `name` of a document (NULL: of
 * none). */
void source_copy_integer(const cJSON *from, const char *key, cJSON *document, const char *name);

/* Puts rows with cut cells under "samples", a few KiB at most. */
enum status source_add_samples(cJSON *document, const cJSON *rows, struct error *err);

/* {"documents": [...]} as text, the last ones left out where it would be too long. Owned. */
enum status source_print(const cJSON *documents, char **out, struct error *err);

/* The card of a data set: YAML between two lines "---", then Markdown. */
struct source_card {
    char licence[SOURCE_LICENCE_BYTES]; /* of the YAML head; "" */
    char title[256];                    /* pretty_name, or the first heading; "" */
    const char *text;                   /* what follows the head, in the bytes given */
};
void source_read_card(const char *text, struct source_card *out);

/* ---- source_cache.c: a body by its URL ---- */

/* STATUS_OK and the body in *out (empty; age_s: how old it is), or STATUS_NOT_FOUND. Damaged
 * entries are not found. */
enum status source_cache_read(const char *folder, const char *site, const char *url,
                              struct buffer *out, double *age_s, struct error *err);
enum status source_cache_write(const char *folder, const char *site, const char *url,
                               const char *body, size_t len_bytes, struct error *err);

#endif
