/* The job's "researcher": who plans, which language models it may ask, and what it may look up. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/researcher.h"
#include "base/file.h"
#include "base/mem.h"
#include "run/job.h"

static const char *const network_names[] = {"direct", "relay", "off", NULL};

enum { TEXT_MAX_BYTES = 4096, NAME_WORD_MAX_BYTES = 16 };

static char *read_text(struct json_reader *reader, const char *key)
{
    const char *text = json_read_string(reader, key, "");
    if (strlen(text) > TEXT_MAX_BYTES) {
        char pointer[JSON_POINTER_BYTES];
        json_reader_pointer(reader, key, pointer);
        json_problems_add(reader->problems, pointer, "longer than %d bytes", TEXT_MAX_BYTES);
        text = "";
    }
    return mem_strdup(text);
}

/* Names are made of short words in capitals. Keys are not: "hf_..." and "AIza..." have small
 * letters, "AKIA..." is one long word. */
static bool is_variable_name(const char *name)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
    size_t length = strlen(name);
    bool fits = length <= 64 && strspn(name, allowed) == length && !(*name >= '0' && *name <= '9');
    while (fits && *name != '\0') {
        size_t word = strcspn(name, "_");
        fits = word <= NAME_WORD_MAX_BYTES;
        name += word + (name[word] == '_');
    }
    return fits;
}

/* A key in place of the name of its variable is the commonest mistake, and it must not spread:
 * whatever stands there, of any type, is not shown. */
static char *read_key_env(struct json_reader *reader)
{
    const cJSON *value = json_read_any(reader, "key_env");
    const char *name = value != NULL ? cJSON_GetStringValue(value) : "";
    if (name == NULL || !is_variable_name(name)) {
        char pointer[JSON_POINTER_BYTES];
        json_reader_pointer(reader, "key_env", pointer);
        json_problems_add(reader->problems, pointer,
                          "allowed is the NAME of an environment variable, words of capitals as in "
                          "MY_API_KEY, not a key (what was found is not shown)");
        name = "";
    }
    return mem_strdup(name);
}

static void check_url(struct json_reader *reader, const char *provider, char *url)
{
    struct error wrong = {0};
    bool encrypted = false;
    bool absent = url[0] == '\0' && lm_needs_url(provider);
    if (!absent && (url[0] == '\0' || lm_check_url(url, &encrypted, &wrong) == STATUS_OK)) {
        return;
    }
    char pointer[JSON_POINTER_BYTES];
    json_reader_pointer(reader, "endpoint", pointer);
    if (absent) {
        json_problems_add(reader->problems, pointer,
                          "absent, allowed is a URL: the provider \"%s\" has none of its own",
                          provider);
        return;
    }
    json_problems_add(reader->problems, pointer, "found %.300s", wrong.message);
    memset(url, 0, strlen(url));
}

/* The keys of one endpoint, which the first shares with the researcher itself. */
static enum status read_endpoint(struct json_reader *reader, const char *provider,
                                 struct job_endpoint *out, struct error *err)
{
    out->provider = mem_strdup(provider);
    out->model = read_text(reader, "model");
    out->url = read_text(reader, "endpoint");
    out->key_env = read_key_env(reader);
    out->structured = json_read_bool(reader, "structured", true);
    out->input_usd = json_read_number(reader, "input_usd", NAN, 0.0, 1e6);
    out->output_usd = json_read_number(reader, "output_usd", NAN, 0.0, 1e6);
    if (out->provider == NULL || out->model == NULL || out->url == NULL || out->key_env == NULL) {
        return mem_fail(err, TEXT_MAX_BYTES, "an endpoint");
    }
    check_url(reader, provider, out->url);
    bool local = strcmp(provider, "local") == 0;
    if (out->model[0] == '\0') {
        char pointer[JSON_POINTER_BYTES];
        json_reader_pointer(reader, "model", pointer);
        json_problems_add(reader->problems, pointer, "absent, allowed is %s",
                          local ? "the folder of a model" : "the name of a model");
    }
    return STATUS_OK;
}

static enum status read_others(const cJSON *list, const char *const *providers,
                               struct json_problems *problems, struct job_researcher *out,
                               struct error *err)
{
    const cJSON *item = NULL;
    int index = 0;
    cJSON_ArrayForEach (item, list) {
        char pointer[JSON_POINTER_BYTES];
        snprintf(pointer, sizeof(pointer), "/researcher/others/%d", index++);
        if (out->endpoint_count == LM_ENDPOINTS_MAX) {
            json_problems_add(problems, pointer, "allowed are %d endpoints in all",
                              LM_ENDPOINTS_MAX);
            break;
        }
        struct json_reader reader;
        json_reader_init(&reader, item, pointer, problems);
        const char *provider = providers[json_read_choice(&reader, "provider", providers, 0)];
        TRY(read_endpoint(&reader, provider, &out->endpoints[out->endpoint_count++], err));
        json_reader_finish(&reader);
    }
    return STATUS_OK;
}

/* Heap copies of a list of texts; folders are made to be seen from the working directory. */
static enum status read_list(struct json_reader *reader, const char *key, const char *folder,
                             char **out, struct error *err)
{
    char pointer[JSON_POINTER_BYTES];
    json_reader_pointer(reader, key, pointer);
    int count = 0;
    const cJSON *list = json_read_array(reader, key);
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, list) {
        if (!cJSON_IsString(item) || count == JOB_LIST_MAX) {
            json_problems_add(reader->problems, pointer, "allowed is a list of at most %d texts",
                              JOB_LIST_MAX);
            break;
        }
        char joined[FILE_PATH_BYTES];
        const char *text = item->valuestring;
        if (folder != NULL) {
            TRY(file_join(folder, text, joined, err));
            text = joined;
        }
        out[count] = mem_strdup(text);
        if (out[count++] == NULL) {
            return mem_fail(err, strlen(text), "a list of the job");
        }
    }
    return STATUS_OK;
}

static enum status read_model(struct json_reader *reader, const char *provider, const char *folder,
                              struct json_problems *problems, struct job_researcher *out,
                              struct error *err)
{
    TRY(read_endpoint(reader, provider, &out->endpoints[out->endpoint_count++], err));
    if (strcmp(provider, "local") == 0) {
        if (json_read_any(reader, "others") != NULL) {
            json_problems_add(problems, "/researcher/others",
                              "a local model has no other endpoints");
        }
        char *named = out->endpoints[0].model;
        char joined[FILE_PATH_BYTES];
        TRY(file_join(folder, named, joined, err));
        out->endpoints[0].model = mem_strdup(joined);
        free(named);
        return out->endpoints[0].model != NULL ? STATUS_OK
                                               : mem_fail(err, sizeof(joined), "a path");
    }
    return read_others(json_read_array(reader, "others"), lm_providers(), problems, out, err);
}

enum status job_researcher_read(const cJSON *object, const char *folder,
                                struct json_problems *problems, struct job_researcher *out,
                                struct error *err)
{
    const char *choices[16] = {"rules", "local"};
    int count = 2;
    for (const char *const *name = lm_providers(); *name != NULL && count < 15; name++) {
        choices[count++] = *name;
    }
    struct json_reader reader;
    json_reader_init(&reader, object, "/researcher", problems);
    const char *provider = choices[json_read_choice(&reader, "provider", choices, 0)];
    bool rules = strcmp(provider, "rules") == 0;
    out->provider = mem_strdup(rules ? "rules" : "model");
    if (out->provider == NULL) {
        return mem_fail(err, 8, "the job");
    }
    if (!rules) {
        TRY(read_model(&reader, provider, folder, problems, out, err));
    }
    out->network = (enum job_network)json_read_choice(&reader, "network", network_names, 0);
    out->prompt_tokens = json_read_int(&reader, "prompt_tokens", 16000, 2000, 1 << 20);
    out->reply_tokens = json_read_int(&reader, "reply_tokens", 4096, 256, 1 << 17);
    out->temperature = json_read_number(&reader, "temperature", 0.7, 0.0, 2.0);
    out->connect_s = json_read_number(&reader, "connect_seconds", 20.0, 0.1, 3600.0);
    out->stall_s = json_read_number(&reader, "stall_seconds", 120.0, 0.1, 3600.0);
    out->timeout_s = json_read_number(&reader, "timeout_seconds", 600.0, 0.1, 86400.0);
    out->tries = (int)json_read_int(&reader, "tries", 4, 1, 20);
    out->concurrency = (int)json_read_int(&reader, "concurrency", 4, 1, 64);
    out->repairs = (int)json_read_int(&reader, "repairs", 2, 0, 10);
    out->literature = json_read_bool(&reader, "literature", !rules);
    out->data = json_read_bool(&reader, "data", !rules);
    TRY(read_list(&reader, "folders", folder, out->folders, err));
    TRY(read_list(&reader, "licences", NULL, out->licences, err));
    out->download_rows = json_read_int(&reader, "download_rows", 2000, 0, 1000000);
    out->ahead = json_read_bool(&reader, "ahead", true);
    out->dry_run = json_read_bool(&reader, "dry_run", true);
    out->code = json_read_bool(&reader, "code", false);
    json_reader_finish(&reader);
    return STATUS_OK;
}

void job_researcher_fini(struct job_researcher *researcher)
{
    free(researcher->provider);
    for (int i = 0; i < researcher->endpoint_count; i++) {
        free(researcher->endpoints[i].provider);
        free(researcher->endpoints[i].model);
        free(researcher->endpoints[i].url);
        free(researcher->endpoints[i].key_env);
    }
    for (int i = 0; i < JOB_LIST_MAX; i++) {
        free(researcher->folders[i]);
        free(researcher->licences[i]);
    }
    memset(researcher, 0, sizeof(*researcher));
}

/* Whether any answer of these endpoints has a price above 0. */
static bool costs_money(const struct job_researcher *researcher)
{
    for (int i = 0; i < researcher->endpoint_count; i++) {
        const struct job_endpoint *endpoint = &researcher->endpoints[i];
        double input_usd = 0.0;
        double output_usd = 0.0;
        bool known = lm_price(endpoint->provider, endpoint->model, &input_usd, &output_usd);
        input_usd = isfinite(endpoint->input_usd) ? endpoint->input_usd : input_usd;
        output_usd = isfinite(endpoint->output_usd) ? endpoint->output_usd : output_usd;
        (void)known;
        if (input_usd > 0.0 || output_usd > 0.0) {
            return true;
        }
    }
    return false;
}

void job_researcher_check(const struct job_researcher *researcher, int64_t agent_tokens,
                          double agent_money_usd, struct json_problems *problems)
{
    if (researcher->endpoint_count == 0) {
        return;
    }
    if (agent_tokens <= 0) {
        json_problems_add(problems, "/limits/agent_tokens",
                          "a language model may use no token: allowed is a number above 0, e.g. "
                          "2000000");
    }
    if (agent_money_usd <= 0.0 && costs_money(researcher)) {
        json_problems_add(problems, "/limits/agent_money_usd",
                          "this language model has a price: allowed is a number above 0, e.g. 20");
    }
}
