/* The relay: for clusters whose compute nodes have no internet. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "run/asking.h"
#include "run/secrets.h"
#include "run/stop.h"

static const double wait_s = 1.0;

struct relay_options {
    const char *job_path, *out_folder;
    bool once, quiet;
};

static enum status check_job(const struct job *job, struct error *err)
{
    if (job->researcher.network != JOB_NETWORK_RELAY) {
        return FAIL(err, STATUS_INVALID,
                    "%s: /researcher/network is not \"relay\": its search leaves nothing for a "
                    "relay to answer",
                    job->path);
    }
    return STATUS_OK;
}

/* Wrong endpoints and keys that are not there are told now, and not when the search has begun. */
static enum status check_endpoints(const struct asking *asking, struct error *err)
{
    struct call_transport transport;
    struct call_direct_options options = asking->options;
    options.lm.log = NULL; /* it is opened again */
    TRY(call_direct_open(&options, &transport, err));
    transport.close(transport.state);
    return STATUS_OK;
}

static enum status wait_for_folder(const char *folder, struct log *log, struct error *err)
{
    if (!file_is_folder(folder)) {
        log_write(log, LOG_INFO, "relay", "%s is not there yet: waiting for the search to begin",
                  folder);
    }
    while (!file_is_folder(folder)) {
        if (stop_requested()) {
            return FAIL(err, STATUS_INTERRUPTED, "stopped by signal %d", stop_signal());
        }
        clock_sleep_s(wait_s);
    }
    return STATUS_OK;
}

/* Before each look at requests, so that none is refused that was asked under limits that were
 * raised: who asked it had seen them. */
static void follow_caps(const struct job *job, struct call_relay_server *server,
                        struct call_relay_caps *caps, bool *told, struct log *log)
{
    struct error failure = {0};
    const struct call_relay_caps before = *caps;
    bool read = asking_read_caps(job, caps, &failure) == STATUS_OK;
    if (!read && !*told) {
        log_write(log, LOG_WARNING, "relay", "the limits stay as they were: %s", failure.message);
    }
    *told = !read;
    if (caps->tokens != before.tokens || caps->usd != before.usd) {
        log_write(log, LOG_INFO, "relay",
                  "limits: agent_tokens %.0f -> %.0f, agent_money_usd %g -> %g", before.tokens,
                  caps->tokens, before.usd, caps->usd);
        call_relay_serve_caps(server, caps);
    }
}

static enum status serve(const struct relay_options *options, const struct job *job,
                         const struct asking *asking, struct secrets *secrets, struct log *log,
                         struct call_relay_state *state, struct error *err)
{
    struct call_relay_server *server = NULL;
    struct call_relay_caps caps = asking->caps;
    bool told = false;
    TRY(call_relay_serve_open(job->output, &asking->options, &caps, log, &server, err));
    secrets_forget(secrets, false);
    log_write(log, LOG_INFO, "relay", "serving %s; SIGINT or SIGTERM end it", job->output);
    enum status status = STATUS_OK;
    do {
        follow_caps(job, server, &caps, &told, log);
        status = call_relay_serve(server, wait_s, state, err);
    } while (status == STATUS_OK && !stop_requested() && !(options->once && state->open == 0));
    call_relay_serve_close(server);
    return status;
}

static enum status relay(const struct relay_options *options, struct job *job,
                         struct secrets *secrets, struct log *log, struct error *err)
{
    struct asking asking;
    struct call_relay_state state = {0};
    TRY(check_job(job, err));
    TRY(asking_options(job, log, &asking, err));
    TRY(check_endpoints(&asking, err));
    TRY(wait_for_folder(job->output, log, err));
    TRY(serve(options, job, &asking, secrets, log, &state, err));
    log_write(log, LOG_INFO, "relay",
              "answered %" PRId64 " request%s; this run folder's relays have spent %.0f tokens and "
              "%.4f USD%s",
              state.served, state.served == 1 ? "" : "s", state.tokens, state.usd,
              state.open > 0 ? "; what is open is asked again by the next relay" : "");
    return STATUS_OK;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
    struct relay_options relay_options = {0};
    const struct cli_option options[] = {
        {"out", CLI_TEXT, &relay_options.out_folder},
        {"once", CLI_FLAG, &relay_options.once},
        {"quiet", CLI_FLAG, &relay_options.quiet},
        {NULL, CLI_FLAG, NULL},
    };
    char **arguments = NULL;
    int exit_code = CLI_DONE;
    if (!cli_parse(command, argc, argv, options, 1, 1, &arguments, &exit_code)) {
        return exit_code;
    }
    struct job job;
    struct log log;
    struct error err = {0};
    struct json_problems problems;
    json_problems_init(&problems);
    log_init(&log, stderr, -1, relay_options.quiet ? LOG_WARNING : LOG_INFO);
    stop_install();
    struct secrets secrets;
    secrets_find(arguments[0], &secrets);
    secrets_show(&secrets);
    exit_code = CLI_DONE;
    enum status status = job_read(arguments[0], relay_options.out_folder, &problems, &job, &err);
    if (status == STATUS_OK) {
        status = relay(&relay_options, &job, &secrets, &log, &err);
        job_fini(&job);
    }
    bool stopped = status == STATUS_INTERRUPTED && stop_requested();
    if (status != STATUS_OK && !stopped) {
        exit_code = cli_fail(&err, &problems);
    }
    log_close(&log);
    json_problems_fini(&problems);
    return exit_code;
}

const struct cli_command cli_relay = {
    .name = "relay",
    .summary = "ask language models and sources for a search whose nodes have no internet",
    .usage =
        "usage: trex relay JOB [--out DIR] [--once] [--quiet]\n\n"
        "Runs on a node with internet that sees the run folder, beside a search whose job file "
        "has\n"
        "\"network\": \"relay\", and answers what the search leaves in RUN/relay/requests. "
        "Endpoints,\n"
        "models and limits are the job file's; keys come from this program's environment, and the\n"
        "search needs none. It may be started before the search, and stopped and started again at\n"
        "any time: what has a reply is never asked again. What all requests may take together is\n"
        "bounded by the job file's agent_tokens and agent_money_usd, or what trex-tree set has "
        "set\n"
        "for this run folder, and counted in RUN/relay/spent.json. SIGINT or SIGTERM end it.\n\n"
        "  --out DIR  run folder instead of the job's \"output\"\n"
        "  --once     answer what is there, then end\n"
        "  --quiet    only warnings and errors\n\n"
        "exit codes: 0 ended, 1 failed, 2 wrong input, 75 another relay serves this folder\n\n"
        "example: OPENAI_API_KEY=... trex relay jobs/my.json --out runs/my\n",
    .run = run,
};
