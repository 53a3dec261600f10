/* A language model and sources that answer at once, from a function; and the loop that carries
 * events into the search as the controller does. */
#ifndef TESTS_AGENTS_SCRIPTED_H
#define TESTS_AGENTS_SCRIPTED_H

#include "agents/calls.h"
#include "agents/prompt.h"
#include "agents/simulate.h"
#include "base/mem.h"

enum { SCRIPT_WAITING_MAX = 256, SCRIPT_TURNS_MAX = 2000 };

struct script {
    /* The reply to a question, on the heap, or NULL: it fails. `purpose` is the key's last word
     * before its number ("plan", "repair"). */
    char *(*reply)(struct script *script, const char *key, const cJSON *body);
    void *context;
    bool mute;         /* nothing is answered, as if all took for ever */
    bool newest_first; /* what was asked last is answered first */
    struct call_answer waiting[SCRIPT_WAITING_MAX];
    int waiting_count;
    double tokens; /* cap */
    int asked;     /* calls that reached it */
    int64_t longest_prompt;
};

static inline enum status script_start(void *state, const struct call *call, struct error *err)
{
    struct script *script = state;
    (void)err;
    script->asked++;
    if (call->kind == CALL_CHAT && prompt_tokens(call->body) > script->longest_prompt) {
        script->longest_prompt = prompt_tokens(call->body);
    }
    if (script->mute) {
        return STATUS_OK;
    }
    assert_true(script->waiting_count < SCRIPT_WAITING_MAX);
    struct call_answer *answer = &script->waiting[script->waiting_count++];
    memset(answer, 0, sizeof(*answer));
    answer->id = call->id;
    answer->text = script->reply(script, call->key, call->body);
    answer->status = answer->text != NULL ? STATUS_OK : STATUS_IO;
    answer->tokens_in = 100;
    answer->tokens_out = 10;
    answer->attempts = 1;
    snprintf(answer->provider, sizeof(answer->provider), "openai");
    snprintf(answer->model, sizeof(answer->model), "scripted-1");
    snprintf(answer->error.message, sizeof(answer->error.message), "the script has no answer");
    return STATUS_OK;
}

static inline enum status script_turn(void *state, int64_t outcomes, bool idle, struct error *err)
{
    (void)state;
    (void)outcomes;
    (void)idle;
    (void)err;
    return STATUS_OK;
}

static inline bool script_take(void *state, struct call_answer *out)
{
    struct script *script = state;
    if (script->waiting_count == 0) {
        return false;
    }
    int taken = script->newest_first ? script->waiting_count - 1 : 0;
    *out = script->waiting[taken];
    script->waiting_count--;
    memmove(script->waiting + taken, script->waiting + taken + 1,
            (size_t)(script->waiting_count - taken) * sizeof(script->waiting[0]));
    return true;
}

static inline void script_cancel(void *state, int32_t id)
{
    (void)state;
    (void)id;
}

static inline enum status script_bound(const void *state, const struct call *call, int64_t *tokens,
                                       double *usd, struct error *err)
{
    (void)state;
    (void)err;
    *tokens = call->kind == CALL_CHAT ? 1000 : 0;
    *usd = 0.0;
    return STATUS_OK;
}

static inline void script_close(void *state)
{
    struct script *script = state;
    for (int i = 0; i < script->waiting_count; i++) {
        free(script->waiting[i].text);
    }
    script->waiting_count = 0;
}

static inline double script_limit(const void *context, enum search_limit_id id)
{
    const struct script *script = context;
    return id == SEARCH_LIMIT_AGENT_TOKENS ? script->tokens : INFINITY;
}

/* A search with a researcher of a language model. */
struct play {
    struct script *script;
    struct researcher_facts facts;
    struct researcher_options options;
    struct search search;
    struct calls *calls;
    struct researcher *researcher;
    int32_t requests; /* plans that were asked for */
};

static inline void play_open(struct play *play, struct script *script)
{
    struct error err = {0};
    const struct calls_options calls = {
        .transport = {.name = "script",
                      .state = script,
                      .start = script_start,
                      .turn = script_turn,
                      .take = script_take,
                      .cancel = script_cancel,
                      .bound = script_bound,
                      .close = script_close},
        .open_max = 64,
        .limit = script_limit,
        .context = script,
    };
    play->script = script;
    assert_int_equal(calls_create(&calls, &play->calls, &err), STATUS_OK);
    play->options.provider = "model";
    play->options.facts = &play->facts;
    play->options.calls = play->calls;
    if (researcher_open(&play->options, &play->researcher, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

static inline void play_close(struct play *play)
{
    researcher_close(play->researcher);
    calls_destroy(play->calls);
}

static inline void play_begin(struct play *play, struct script *script)
{
    memset(play, 0, sizeof(*play));
    play->facts = usual_facts();
    play->options = (struct researcher_options){.repairs = 2,
                                                .prompt_tokens = 8000,
                                                .reply_tokens = 1000,
                                                .temperature = 0.5,
                                                .run_folder = "runs/test"};
    script->tokens = script->tokens > 0.0 ? script->tokens : 1e9;
    begin_search(&play->search, true);
    play_open(play, script);
}

static inline void play_end(struct play *play)
{
    play_close(play);
    search_fini(&play->search);
}

/* The job dies and starts again: all that is not in the search is gone. */
static inline void play_restart(struct play *play)
{
    struct error err = {0};
    struct script *script = play->script;
    play_close(play);
    play_open(play, script);
    assert_int_equal(calls_recover(play->calls, &play->search, false, &err), STATUS_OK);
}

static inline bool play_take_events(struct play *play)
{
    cJSON *event = NULL;
    bool any = false;
    while (researcher_take_event(play->researcher, &event) ||
           calls_take_event(play->calls, &event)) {
        apply_event(&play->search, event);
        any = true;
    }
    return any;
}

/* Turns until nothing moves any more, or `most` were made. */
static inline void play_turns(struct play *play, int most)
{
    struct error err = {0};
    bool moved = true;
    for (int i = 0; i < most && moved; i++) {
        assert_true(i < SCRIPT_TURNS_MAX - 1);
        if (calls_turn(play->calls, &play->search, play->search.outcomes, false, &err) !=
                STATUS_OK ||
            researcher_turn(play->researcher, &play->search, &err) != STATUS_OK) {
            fail_msg("%s", err.message);
        }
        moved = play_take_events(play);
    }
}

static inline void play_settle(struct play *play)
{
    play_turns(play, SCRIPT_TURNS_MAX);
}

#endif
