/* The registry of sources; questions, step by step, within each site's rate. */
#include "net/source.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "net/source_service.h"

/* One row a source, here and in `enum source_index`; a file source_<name>.c has its service. */
static const struct source_info infos[SOURCE_COUNT + 1] = {
    [SOURCE_ARXIV] = {"arxiv", SOURCE_LITERATURE, "preprints of arxiv.org, with abstracts", true},
    [SOURCE_SEMANTIC_SCHOLAR] = {"semantic_scholar", SOURCE_LITERATURE,
                                 "papers of all fields, with citations", true},
    [SOURCE_OPENALEX] = {"openalex", SOURCE_LITERATURE,
                         "scholarly works of all fields, with citations", true},
    [SOURCE_HF_PAPERS] = {"hf_papers", SOURCE_LITERATURE,
                          "papers with a page on the Hugging Face hub", true},
    [SOURCE_HF_DATASETS] = {"hf_datasets", SOURCE_DATA, "data sets of the Hugging Face hub", true},
    [SOURCE_LOCAL] = {"local", SOURCE_DATA, "folders here with a card and files of JSON Lines",
                      false},
};

static const struct source_service *const services[SOURCE_COUNT] = {
    [SOURCE_ARXIV] = &source_arxiv,
    [SOURCE_SEMANTIC_SCHOLAR] = &source_semantic_scholar,
    [SOURCE_OPENALEX] = &source_openalex,
    [SOURCE_HF_PAPERS] = &source_hf_papers,
    [SOURCE_HF_DATASETS] = &source_hf_datasets,
    [SOURCE_LOCAL] = &source_local,
};

enum {
    WORKS_MAX = 256,  /* questions at once */
    CACHED_STEPS = 8, /* of a question in one turn */
    KEY_MAX_BYTES = 512,
    TRIES = 4,
    CONNECT_S = 15,
    STALL_S = 30,
    TOTAL_S = 120,
    PAUSE_MAX_S = 60
};

/* Rates: arXiv's terms of use, one request in 3 s; Semantic Scholar, 1 a second; OpenAlex, 10 a
 * second for everybody; the hub, 500 API calls in 5 minutes without a token. Its datasets server
 * publishes none and gets the hub's. */
const struct source_site source_sites[SOURCE_SITE_COUNT] = {
    [SOURCE_SITE_ARXIV] = {"arxiv", "https://export.arxiv.org", 3.0, "", NULL, NULL},
    [SOURCE_SITE_SEMANTIC_SCHOLAR] = {"semantic_scholar", "https://api.semanticscholar.org", 1.0,
                                      "S2_API_KEY", "x-api-key: ", NULL},
    [SOURCE_SITE_OPENALEX] = {"openalex", "https://api.openalex.org", 0.1, "OPENALEX_API_KEY", NULL,
                              "api_key"},
    [SOURCE_SITE_HF] = {"hf", "https://huggingface.co", 0.6, "HF_TOKEN", "Authorization: Bearer ",
                        NULL},
    [SOURCE_SITE_HF_ROWS] = {"hf_rows", "https://datasets-server.huggingface.co", 0.6, "HF_TOKEN",
                             "Authorization: Bearer ", NULL},
};

/* STEP: what it wants is looked for in the cache; QUEUED: waits for the site; ASKED: under way. */
enum work_state { WORK_STEP, WORK_QUEUED, WORK_ASKED, WORK_DONE };

struct entry {
    int64_t id;
    enum work_state state;
    const struct source_info *info;
    const struct source_service *service;
    struct source_work work;
    struct source_step step;
    int tries;           /* of this step */
    double not_before_s; /* of its next try */
    int64_t ticket;      /* its place in the queue */
    int64_t request;     /* of http.h */
    double began_s;
    bool network; /* something came over it */
    struct source_answer answer;
};

struct sources {
    struct source_options options;
    struct http *http;
    struct {
        double free_s; /* when the next request may leave */
        bool busy;     /* one is under way */
        char key[KEY_MAX_BYTES];
    } sites[SOURCE_SITE_COUNT];
    struct entry *entries[WORKS_MAX]; /* in the order they were asked in */
    int count;
    int64_t last_id, last_ticket;
};

const struct source_service *source_service_at(enum source_index source)
{
    return services[source];
}

const struct source_info *source_list(void)
{
    return infos;
}

/* ---- life ---- */

static bool key_valid(const char *key)
{
    for (const char *at = key; *at != '\0'; at++) {
        if (*at <= ' ' || *at > '~') {
            return false;
        }
    }
    return strlen(key) < KEY_MAX_BYTES;
}

enum status sources_create(const struct source_options *options, struct http *http,
                           struct sources **out, struct error *err)
{
    struct sources *sources = mem_calloc(1, sizeof(*sources));
    if (sources == NULL) {
        return mem_fail(err, sizeof(*sources), "sources");
    }
    sources->options = *options;
    sources->options.haste = options->haste > 0.0 ? options->haste : 1.0;
    sources->http = http;
    for (int i = 0; i < SOURCE_SITE_COUNT; i++) {
        const char *name = source_sites[i].key_env;
        const char *key = name[0] != '\0' ? getenv(name) : NULL;
        if (key != NULL && !key_valid(key)) {
            sources_destroy(sources);
            return FAIL(err, STATUS_INVALID,
                        "environment variable %s holds what no key does (white space, or more than "
                        "%d characters)",
                        name, KEY_MAX_BYTES - 1);
        }
        snprintf(sources->sites[i].key, KEY_MAX_BYTES, "%s", key != NULL ? key : "");
    }
    *out = sources;
    return STATUS_OK;
}

static void free_entry(struct entry *entry)
{
    if (entry->work.state != NULL) {
        entry->work.free_state(entry->work.state);
    }
    cJSON_Delete(entry->work.documents);
    source_question_fini(&entry->work.question);
    source_answer_fini(&entry->answer);
    free(entry);
}

static void remove_entry(struct sources *sources, int index)
{
    struct entry *entry = sources->entries[index];
    if (entry->state == WORK_ASKED) {
        http_cancel(sources->http, entry->request);
        sources->sites[entry->step.site].busy = false;
    }
    free_entry(entry);
    sources->count--;
    memmove(&sources->entries[index], &sources->entries[index + 1],
            (size_t)(sources->count - index) * sizeof(sources->entries[0]));
}

void sources_destroy(struct sources *sources)
{
    if (sources == NULL) {
        return;
    }
    while (sources->count > 0) {
        remove_entry(sources, sources->count - 1);
    }
    explicit_bzero(sources->sites, sizeof(sources->sites));
    free(sources);
}

void source_answer_fini(struct source_answer *answer)
{
    free(answer->text);
    answer->text = NULL;
}

/* ---- questions ---- */

enum status sources_ask(struct sources *sources, const cJSON *question, int64_t *id,
                        struct error *err)
{
    if (sources->count >= WORKS_MAX) {
        return FAIL(err, STATUS_LIMIT, "%d questions are under way", WORKS_MAX);
    }
    struct entry *entry = mem_calloc(1, sizeof(*entry));
    if (entry == NULL) {
        return mem_fail(err, sizeof(*entry), "a question");
    }
    enum source_index source = SOURCE_COUNT;
    enum status status =
        source_read_question(question, &sources->options, &source, &entry->work.question, err);
    if (status == STATUS_OK && infos[source].network && !sources->options.offline &&
        sources->http == NULL) {
        status = FAIL(err, STATUS_UNSUPPORTED, "%s needs a network", infos[source].name);
    }
    entry->work.documents = cJSON_CreateArray();
    if (status == STATUS_OK && entry->work.documents == NULL) {
        status = mem_fail(err, sizeof(*entry), "a question");
    }
    if (status != STATUS_OK) {
        free_entry(entry);
        return status;
    }
    entry->info = &infos[source];
    entry->service = services[source];
    entry->id = ++sources->last_id;
    entry->work.options = &sources->options;
    entry->work.has_hub_key = sources->sites[SOURCE_SITE_HF].key[0] != '\0';
    entry->began_s = clock_monotonic_s();
    sources->entries[sources->count++] = entry;
    *id = entry->id;
    return STATUS_OK;
}

bool sources_take(struct sources *sources, int64_t id, struct source_answer *out)
{
    for (int i = 0; i < sources->count; i++) {
        struct entry *entry = sources->entries[i];
        if (entry->id == id && entry->state == WORK_DONE) {
            *out = entry->answer;
            memset(&entry->answer, 0, sizeof(entry->answer));
            remove_entry(sources, i);
            return true;
        }
    }
    return false;
}

void sources_cancel(struct sources *sources, int64_t id)
{
    for (int i = 0; i < sources->count; i++) {
        if (sources->entries[i]->id == id) {
            remove_entry(sources, i);
            return;
        }
    }
}

/* ---- steps ---- */

static void queue(struct sources *sources, struct entry *entry)
{
    entry->state = WORK_QUEUED;
    entry->ticket = ++sources->last_ticket;
}

static void end(struct entry *entry, enum status status)
{
    struct source_answer *answer = &entry->answer;
    if (status == STATUS_OK) {
        memset(&answer->error, 0, sizeof(answer->error)); /* of a try that was not the last */
        status = source_print(entry->work.documents, &answer->text, &answer->error);
    } else {
        error_context(&answer->error, "%s", entry->info->name);
    }
    answer->status = status;
    answer->cached = !entry->network && entry->info->network;
    answer->seconds = clock_monotonic_s() - entry->began_s;
    entry->state = WORK_DONE;
}

/* The URL without a key: what it is known by in the cache. */
static enum status step_url(const struct sources *sources, const struct source_step *step,
                            struct buffer *out, struct error *err)
{
    const struct source_site *site = &source_sites[step->site];
    if (sources->options.base_url != NULL) {
        size_t length = strlen(sources->options.base_url);
        length -= length > 0 && sources->options.base_url[length - 1] == '/';
        buffer_append(out, sources->options.base_url, length);
        buffer_printf(out, "/%s", site->name);
    } else {
        buffer_append_text(out, site->url);
    }
    buffer_append_text(out, step->path);
    return buffer_check(out, "address", err);
}

/* Hands a body on, and what comes of it: the next step, or the answer. */
static enum status advance(struct entry *entry, const char *body, size_t len_bytes)
{
    struct source_step next = {.path = ""};
    int stage = entry->work.stage;
    enum status status =
        entry->service->advance(&entry->work, body, len_bytes, &next, &entry->answer.error);
    if (status == STATUS_BUSY) {
        entry->work.stage = stage; /* the same again, later */
        return status;
    }
    if (status != STATUS_OK || next.path[0] == '\0') {
        end(entry, status);
    } else {
        entry->step = next;
        entry->state = WORK_STEP;
        entry->tries = 0;
        entry->not_before_s = 0;
    }
    return status;
}

/* True if a body was in the cache, young enough (max_age_s), and was handed on. */
static bool advance_from_cache(struct sources *sources, struct entry *entry, double max_age_s)
{
    struct buffer url;
    struct buffer body;
    double age_s = 0;
    bool found = false;
    if (sources->options.cache_folder == NULL) {
        return false;
    }
    buffer_init(&url, HTTP_URL_MAX_BYTES);
    buffer_init(&body, SOURCE_BODY_MAX_BYTES);
    if (step_url(sources, &entry->step, &url, NULL) == STATUS_OK &&
        source_cache_read(sources->options.cache_folder, source_sites[entry->step.site].name,
                          buffer_text(&url), &body, &age_s, NULL) == STATUS_OK &&
        age_s <= max_age_s) {
        found = advance(entry, buffer_text(&body), body.len_bytes) != STATUS_BUSY;
    }
    buffer_fini(&url);
    buffer_fini(&body);
    return found;
}

static void turn_step(struct sources *sources, struct entry *entry)
{
    if (entry->step.path[0] == '\0') { /* the first */
        advance(entry, NULL, 0);
        return;
    }
    bool offline = sources->options.offline;
    if (advance_from_cache(sources, entry, offline ? INFINITY : sources->options.cache_s)) {
        return;
    }
    if (!offline) {
        queue(sources, entry);
    } else if (entry->step.optional) {
        advance(entry, NULL, 0);
    } else {
        end(entry, FAIL(&entry->answer.error, STATUS_NOT_FOUND,
                        "offline, and the cache has no answer to this: ask once where there is a "
                        "network"));
    }
}

static enum status start_request(struct sources *sources, struct entry *entry)
{
    static const char *const headers[] = {"Accept: application/json, application/atom+xml, */*",
                                          NULL};
    const struct source_site *site = &source_sites[entry->step.site];
    const char *key = sources->sites[entry->step.site].key;
    char secret[KEY_MAX_BYTES + 64];
    struct buffer url;
    struct error *err = &entry->answer.error;
    enum status status = STATUS_OK;
    buffer_init(&url, HTTP_URL_MAX_BYTES - 1);
    snprintf(secret, sizeof(secret), "%s%s", site->header != NULL ? site->header : "", key);
    TRY_CLEANUP(step_url(sources, &entry->step, &url, err));
    http_host(buffer_text(&url), entry->answer.host);
    if (site->parameter != NULL && key[0] != '\0') {
        buffer_printf(&url, "&%s=", site->parameter);
        http_append_escaped(&url, key);
        TRY_CLEANUP(buffer_check(&url, "address", err));
    }
    struct http_request request = {
        .url = buffer_text(&url),
        .headers = headers,
        .secret_header = site->header != NULL && key[0] != '\0' ? secret : NULL,
        .connect_s = CONNECT_S,
        .stall_s = STALL_S,
        .total_s = TOTAL_S,
        .max_bytes = SOURCE_BODY_MAX_BYTES,
    };
    TRY_CLEANUP(http_start(sources->http, &request, &entry->request, err));

cleanup:
    explicit_bzero(secret, sizeof(secret));
    if (url.data != NULL) {
        explicit_bzero(url.data, url.capacity_bytes);
    }
    buffer_fini(&url);
    return status;
}

static void ask_site(struct sources *sources, struct entry *entry, double now)
{
    enum source_site_id site = entry->step.site;
    enum status status = start_request(sources, entry);
    if (status != STATUS_OK) {
        end(entry, status);
        return;
    }
    entry->state = WORK_ASKED;
    entry->tries++;
    entry->answer.attempts++;
    sources->sites[site].busy = true;
    sources->sites[site].free_s = now + source_sites[site].interval_s / sources->options.haste;
}

/* One request at a time; who came first goes first, so that a long download lets others through. */
static void turn_site(struct sources *sources, enum source_site_id site)
{
    double now = clock_monotonic_s();
    struct entry *first = NULL;
    if (sources->sites[site].busy || now < sources->sites[site].free_s) {
        return;
    }
    for (int i = 0; i < sources->count; i++) {
        struct entry *entry = sources->entries[i];
        if (entry->state == WORK_QUEUED && entry->step.site == site && now >= entry->not_before_s &&
            (first == NULL || entry->ticket < first->ticket)) {
            first = entry;
        }
    }
    if (first != NULL) {
        ask_site(sources, first, now);
    }
}

/* ---- answers of a site ---- */

static bool may_pass(const struct http_response *response)
{
    int code = response->code;
    if (response->status != STATUS_OK) {
        return response->status == STATUS_TIMEOUT || response->status == STATUS_EXTERNAL;
    }
    return code == 408 || code == 425 || code == 429 || code >= 500;
}

/* Queues the step again after a pause, unless it was the last try. */
static bool try_again(struct sources *sources, struct entry *entry, double retry_after_s)
{
    if (entry->tries >= TRIES) {
        return false;
    }
    double pause_s = fmin(PAUSE_MAX_S, ldexp(1.0, entry->tries - 1));
    if (retry_after_s > pause_s) { /* false for NaN */
        pause_s = fmin(PAUSE_MAX_S, retry_after_s);
    }
    queue(sources, entry);
    entry->not_before_s = clock_monotonic_s() + pause_s / sources->options.haste;
    if (sources->sites[entry->step.site].free_s < entry->not_before_s) {
        sources->sites[entry->step.site].free_s = entry->not_before_s; /* it holds for all */
    }
    return true;
}

static enum status describe(const struct sources *sources, const struct entry *entry,
                            const struct http_response *response, struct error *err)
{
    const struct source_site *site = &source_sites[entry->step.site];
    if (response->status != STATUS_OK) {
        *err = response->error;
        return response->status;
    }
    const char *key = sources->sites[entry->step.site].key;
    bool refused = response->code == 401 || response->code == 403 || response->code == 429;
    bool hint = refused && site->key_env[0] != '\0' && key[0] == '\0';
    enum status status = response->code == 404 ? STATUS_NOT_FOUND
                         : refused             ? STATUS_PERMISSION
                                               : STATUS_EXTERNAL;
    return FAIL(err, status, "%s answered with code %d%s%s%s", entry->answer.host, response->code,
                hint ? " (a key in " : "", hint ? site->key_env : "", hint ? " may help)" : "");
}

static void keep(const struct sources *sources, const struct source_step *step, const char *body,
                 size_t len_bytes)
{
    struct buffer url;
    struct error err = {0};
    if (sources->options.cache_folder == NULL) {
        return;
    }
    buffer_init(&url, HTTP_URL_MAX_BYTES);
    enum status status = step_url(sources, step, &url, &err);
    if (status == STATUS_OK) {
        status = source_cache_write(sources->options.cache_folder, source_sites[step->site].name,
                                    buffer_text(&url), body, len_bytes, &err);
    }
    if (status != STATUS_OK) {
        log_write(sources->options.log, LOG_WARNING, "net", "an answer is not kept: %s",
                  err.message);
    }
    buffer_fini(&url);
}

static void fail_step(struct sources *sources, struct entry *entry,
                      const struct http_response *response)
{
    bool passing = may_pass(response);
    if (passing && try_again(sources, entry, response->retry_after_s)) {
        return;
    }
    /* Better an old answer than none. */
    if (passing && advance_from_cache(sources, entry, INFINITY)) {
        log_write(sources->options.log, LOG_WARNING, "net",
                  "%s does not answer: an old answer from the cache is used", entry->info->name);
    } else if (entry->step.optional && response->code != 0) {
        advance(entry, NULL, 0);
    } else {
        end(entry, describe(sources, entry, response, &entry->answer.error));
    }
}

/* A service that sends back what it was sent does not get a key into the cache or a prompt. */
static void hide_key(const char *key, struct http_response *response)
{
    enum { SECRET_BYTES = 8 };
    size_t length = strlen(key);
    char *place = response->body;
    size_t left = place != NULL ? response->body_bytes : 0;
    while (length >= SECRET_BYTES && (place = memmem(place, left, key, length)) != NULL) {
        memset(place, '*', length);
        left = (size_t)(response->body + response->body_bytes - place);
    }
}

static void turn_asked(struct sources *sources, struct entry *entry)
{
    struct http_response response;
    if (!http_take(sources->http, entry->request, &response)) {
        return;
    }
    sources->sites[entry->step.site].busy = false;
    entry->network = true;
    if (response.status == STATUS_OK && response.code >= 200 && response.code < 300) {
        struct source_step step = entry->step;
        const char *body = response.body != NULL ? response.body : "";
        hide_key(sources->sites[step.site].key, &response);
        enum status status = advance(entry, body, response.body_bytes);
        if (status == STATUS_OK) {
            keep(sources, &step, body, response.body_bytes);
        } else if (status == STATUS_BUSY && !try_again(sources, entry, NAN)) {
            end(entry, status);
        }
    } else {
        fail_step(sources, entry, &response);
    }
    http_response_fini(&response);
}

enum status sources_turn(struct sources *sources, struct error *err)
{
    if (sources->http != NULL) {
        TRY(http_turn(sources->http, err));
    }
    for (int i = 0; i < sources->count; i++) {
        struct entry *entry = sources->entries[i];
        if (entry->state == WORK_ASKED) {
            turn_asked(sources, entry);
        }
        for (int k = 0; k < CACHED_STEPS && entry->state == WORK_STEP; k++) {
            turn_step(sources, entry);
        }
    }
    for (int site = 0; site < SOURCE_SITE_COUNT; site++) {
        turn_site(sources, (enum source_site_id)site);
    }
    return STATUS_OK;
}
