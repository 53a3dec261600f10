#include "run/asking.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "agents/prompt.h"
#include "eval/generate.h"
#include "run/workspace.h"
#include "store/control.h"

/* Papers and cards change slowly; a search that is taken up a week later sees the same ones. */
static const double cache_s = 7 * 86400.0;

enum { SAMPLE_TOKENS_MAX = 1 << 20 };

static void fill_endpoints(const struct job_researcher *job, struct lm_options *lm)
{
    for (int i = 0; i < job->endpoint_count; i++) {
        const struct job_endpoint *from = &job->endpoints[i];
        if (strcmp(from->provider, "local") == 0) {
            continue;
        }
        lm->endpoints[lm->endpoint_count++] = (struct lm_endpoint){
            .provider = from->provider,
            .model = from->model,
            .url = from->url,
            .key_env = from->key_env,
            .structured = from->structured,
            .input_usd = from->input_usd,
            .output_usd = from->output_usd,
        };
    }
}

/* Pauses have the scale of the patience that the job states: 2 s, at most 60 s, by default. */
static void fill_patience(const struct job_researcher *job, struct lm_options *lm)
{
    lm->concurrency = job->concurrency;
    lm->tries = job->tries;
    lm->connect_s = job->connect_s;
    lm->stall_s = job->stall_s;
    lm->total_s = job->timeout_s;
    lm->pause_s = job->connect_s / 10.0;
    lm->pause_max_s = job->stall_s / 2.0;
}

enum status asking_options(const struct job *job, struct log *log, struct asking *out,
                           struct error *err)
{
    const struct job_researcher *researcher = &job->researcher;
    memset(out, 0, sizeof(*out));
    TRY(file_join(job->output, "sources", out->downloads, err));
    TRY(file_join(out->downloads, "cache", out->cache, err));
    struct lm_options *lm = &out->options.lm;
    fill_endpoints(researcher, lm);
    fill_patience(researcher, lm);
    lm->log = log;
    out->options.sources = (struct source_options){
        .cache_folder = out->cache,
        .cache_s = cache_s,
        .offline = researcher->network == JOB_NETWORK_OFF,
        .folders = (const char *const *)researcher->folders,
        .download_folder = out->downloads,
        .download_name = "sources", /* wherever the run folder is moved to */
        .licences =
            researcher->licences[0] != NULL ? (const char *const *)researcher->licences : NULL,
        .rows_max = researcher->download_rows,
        .base_url = getenv("TREX_SOURCES_URL"),
        .log = log,
    };
    out->caps = (struct call_relay_caps){
        .tokens = (double)job->agent_tokens,
        .usd = job->agent_money_usd,
        .reply_tokens = researcher->reply_tokens,
    };
    out->relay_s = researcher->tries * (lm->total_s + lm->pause_max_s);
    return STATUS_OK;
}

enum status asking_read_caps(const struct job *job, struct call_relay_caps *caps, struct error *err)
{
    struct store_control control;
    struct error failure = {0};
    store_control_init(&control);
    enum status status = store_control_read(job->output, &control, &failure);
    if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
        *err = failure;
        return status;
    }
    double tokens = control.limits[SEARCH_LIMIT_AGENT_TOKENS];
    double usd = control.limits[SEARCH_LIMIT_AGENT_MONEY];
    caps->tokens = isnan(tokens) ? (double)job->agent_tokens : tokens;
    caps->usd = isnan(usd) ? job->agent_money_usd : usd;
    return STATUS_OK;
}

enum status asking_inspect(const struct job *job, struct model **speaker, struct error *err)
{
    const struct job_researcher *asked = &job->researcher;
    *speaker = NULL;
    if (asked->endpoint_count == 0 || strcmp(asked->endpoints[0].provider, "local") != 0) {
        return STATUS_OK;
    }
    enum status status = model_inspect(asked->endpoints[0].model, speaker, err);
    if (status != STATUS_OK) {
        error_context(err, "%s: /researcher/model", job->path);
    }
    return status;
}

/* Prompts are cut by an estimate (net/lm.h) that is on the safe side for large vocabularies. How
 * many of its own tokens a model makes of one of those: 1, or, judged by a prompt, more. */
static double own_tokens(const struct model *speaker)
{
    const double margin = 1.2; /* other texts have longer words and fewer signs */
    const char *text = prompt_find("plan")->text;
    struct token_list ids;
    struct error ignored;
    token_list_init(&ids, SAMPLE_TOKENS_MAX);
    enum status status =
        tokenizer_encode(speaker->tokenizer, text, strlen(text), 0, &ids, &ignored);
    double ratio = (double)ids.count / (double)lm_estimate_tokens(text);
    token_list_fini(&ids);
    return status == STATUS_OK && ratio > 1.0 ? margin * ratio : 1.0;
}

int64_t asking_prompt_tokens(const struct job *job, const struct model *speaker)
{
    int64_t wanted = job->researcher.prompt_tokens;
    if (speaker == NULL) {
        return wanted;
    }
    int64_t positions = speaker->config.max_positions;
    int64_t reply = job->researcher.reply_tokens;
    int64_t room = reply < positions / 2 ? positions - reply : positions / 2;
    room = (int64_t)((double)room / own_tokens(speaker));
    return wanted < room ? wanted : room;
}

int64_t asking_answer_bytes(const struct job *job, const struct model *speaker, enum dtype dtype)
{
    const struct weights weights = {.table = &speaker->table, .dtype = dtype};
    const struct network network = {.config = &speaker->config, .weights = &weights};
    bool base = workspace_is_base(job, job->researcher.endpoints[0].model);
    double prompt = (double)asking_prompt_tokens(job, speaker) * own_tokens(speaker);
    int64_t tokens = (int64_t)ceil(prompt) + job->researcher.reply_tokens;
    int64_t own = base ? 0 : speaker->table.elements * (int64_t)dtype_bytes(dtype);
    return own + generate_bytes(&network, tokens);
}
