/* What a job's researcher would ask, whom, and what that may cost: for `trex check`. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/check.h"
#include "net/lm_provider.h"
#include "net/source.h"
#include "run/asking.h"
#include "run/workspace.h"

/* Of one round: diagnosis, insights, direction, plan. Before the first: the brief, and what is
 * looked for in papers and data sets. */
enum { CALLS_A_ROUND = 4, CALLS_BEFORE = 6 };
enum { USEFUL_PROMPT_TOKENS = 2000 }; /* the least that a job may ask for */

static const char *const network_words[] = {
    [JOB_NETWORK_DIRECT] = "directly",
    [JOB_NETWORK_RELAY] = "through the run folder, where `trex relay` answers",
    [JOB_NETWORK_OFF] = "not at all: the rules plan in its place",
};

/* The host of a URL, without a name or password that may stand before it. */
static void print_host(const char *url)
{
    const char *start = strstr(url, "://");
    start = start != NULL ? start + 3 : url;
    size_t length = strcspn(start, "/?#");
    for (size_t i = 0; i < length; i++) {
        if (start[i] == '@') {
            start += i + 1;
            length -= i + 1;
            i = (size_t)-1;
        }
    }
    printf("%.*s", (int)(length < 255 ? length : 255), start);
}

static void print_local(const struct job *job, const struct model *speaker)
{
    const struct job_researcher *asked = &job->researcher;
    int64_t positions = speaker->config.max_positions;
    int64_t fits = asking_prompt_tokens(job, speaker);
    printf("  local       %s: %.4g M parameters, %lld positions, on a rank of the job%s\n",
           asked->endpoints[0].model, (double)speaker->table.elements / 1e6, (long long)positions,
           workspace_is_base(job, asked->endpoints[0].model) ? " (the base model)" : "");
    if (fits < asked->prompt_tokens) {
        printf("              prompts are cut to %lld tokens: a reply must fit into its positions "
               "too%s\n",
               (long long)fits,
               fits < USEFUL_PROMPT_TOKENS ? "; few questions fit, and the rules will plan" : "");
    }
}

static void print_endpoint(const struct job_endpoint *endpoint)
{
    const struct lm_provider *provider = lm_provider_find(endpoint->provider);
    const struct lm_endpoint asked = {
        .provider = endpoint->provider, .url = endpoint->url, .key_env = endpoint->key_env};
    const char *variable = lm_key_variable(&asked);
    printf("  %-10s  %s at ", endpoint->provider, endpoint->model);
    print_host(endpoint->url[0] != '\0' ? endpoint->url : provider->url);
    if (variable[0] == '\0') {
        puts(", no key");
        return;
    }
    const char *value = getenv(variable);
    bool set = value != NULL && value[0] != '\0';
    printf(", key from %s, which is %s\n", variable, set ? "set" : "NOT SET here");
}

/* USD of a million tokens at the dearest endpoint; false: of one of them no price is known. */
static bool find_prices(const struct job_researcher *asked, double *input_usd, double *output_usd)
{
    bool known = true;
    *input_usd = 0.0;
    *output_usd = 0.0;
    for (int i = 0; i < asked->endpoint_count; i++) {
        const struct job_endpoint *endpoint = &asked->endpoints[i];
        double input = 0.0;
        double output = 0.0;
        bool free_of_charge = strcmp(endpoint->provider, "local") == 0;
        bool listed =
            free_of_charge || lm_price(endpoint->provider, endpoint->model, &input, &output);
        input = isfinite(endpoint->input_usd) ? endpoint->input_usd : input;
        output = isfinite(endpoint->output_usd) ? endpoint->output_usd : output;
        bool given = isfinite(endpoint->input_usd) && isfinite(endpoint->output_usd);
        known = known && (listed || given);
        *input_usd = fmax(*input_usd, input);
        *output_usd = fmax(*output_usd, output);
    }
    return known;
}

static void print_cost(const struct job *job)
{
    const struct job_researcher *asked = &job->researcher;
    double calls = CALLS_BEFORE + (double)job->rounds * CALLS_A_ROUND;
    double tokens_in = calls * (double)asked->prompt_tokens;
    double tokens_out = calls * (double)asked->reply_tokens;
    double input_usd = 0.0;
    double output_usd = 0.0;
    bool known = find_prices(asked, &input_usd, &output_usd);
    double usd = (tokens_in * input_usd + tokens_out * output_usd) / 1e6;
    printf(
        "agents      about %.0f calls for all rounds, without repairs (%d at most of each reply);"
        " with full\n            prompts and replies %.3g million tokens",
        calls, asked->repairs, (tokens_in + tokens_out) / 1e6);
    if (known) {
        printf(" and %.2f USD\n", usd);
    } else {
        printf(", at a price that is not known\n");
    }
    printf(
        "caps        %lld tokens, %g USD for the whole search; what they do not allow, the rules "
        "plan%s\n",
        (long long)job->agent_tokens, job->agent_money_usd,
        (double)job->agent_tokens < tokens_in + tokens_out || (known && usd > job->agent_money_usd)
            ? " (less than all rounds may take)"
            : "");
}

static void print_sources(const struct job_researcher *asked)
{
    printf("sources     ");
    int printed = 0;
    for (const struct source_info *source = source_list(); source->name != NULL; source++) {
        bool wanted = source->kind == SOURCE_LITERATURE ? asked->literature : asked->data;
        bool reached = !source->network || asked->network != JOB_NETWORK_OFF;
        if (wanted && reached) {
            printf("%s%s", printed++ > 0 ? ", " : "", source->name);
        }
    }
    bool relayed = printed > 0 && asked->network == JOB_NETWORK_RELAY;
    puts(printed == 0 ? "none" : relayed ? ", by `trex relay`" : "");
    for (int i = 0; asked->folders[i] != NULL; i++) {
        printf("  folder      %s\n", asked->folders[i]);
    }
    printf("  downloads   at most %lld rows of a data set, licences: ",
           (long long)asked->download_rows);
    for (int i = 0; asked->licences[i] != NULL; i++) {
        printf("%s%s", i > 0 ? ", " : "", asked->licences[i]);
    }
    puts(asked->licences[0] != NULL ? "" : "any that is named");
}

void check_print_researcher(const struct job *job, const struct model *speaker)
{
    const struct job_researcher *asked = &job->researcher;
    if (asked->endpoint_count == 0) {
        puts("researcher  rules: asks nobody, costs nothing");
        return;
    }
    bool local = strcmp(asked->endpoints[0].provider, "local") == 0;
    printf("researcher  a language model, asked %s%s%s\n",
           local ? "on a rank of the job" : network_words[asked->network],
           asked->dry_run ? "; its plans are run dry first" : "",
           asked->code ? "; operators that it writes may run" : "");
    if (local) {
        print_local(job, speaker);
    }
    for (int i = 0; !local && i < asked->endpoint_count; i++) {
        print_endpoint(&asked->endpoints[i]);
    }
    print_sources(asked);
    print_cost(job);
}
