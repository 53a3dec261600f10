/* Answers of another run. The answers of a search are among its outcomes, so each was given at a
 * number of its own: in a search that goes the same way, this number comes when all that was known
 * then is known again, and no two answers change places. In one that goes another way (`idle`), the
 * answer is given that came first. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "agents/call_parts.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "tree/search.h"

struct replay_call {
    int32_t id;
    const struct search_call *recorded;
};

struct replay {
    const struct search *recorded;
    struct replay_call *calls; /* asked, not answered */
    int count, capacity;
    struct call_queue answers;
};

static void replay_close(void *state)
{
    struct replay *replay = state;
    if (replay != NULL) {
        call_queue_fini(&replay->answers);
        free(replay->calls);
        free(replay);
    }
}

/* A call that was lost and not asked again had no answer when the recorded search ended. */
static const struct search_call *find_recorded(const struct replay *replay, const char *key)
{
    const struct search *recorded = replay->recorded;
    const struct search_call *found = search_find_call(recorded, key);
    for (int32_t i = recorded->call_count - 1; i >= 0 && found == NULL; i--) {
        found = strcmp(recorded->calls[i].key, key) == 0 ? &recorded->calls[i] : NULL;
    }
    return found;
}

static bool was_answered(const struct search_call *recorded)
{
    return recorded->ended && !recorded->lost;
}

static enum status replay_start(void *state, const struct call *call, struct error *err)
{
    struct replay *replay = state;
    const struct search_call *recorded = find_recorded(replay, call->key);
    if (recorded == NULL) {
        return FAIL(err, STATUS_NOT_FOUND, "the recorded search has no call %s", call->key);
    }
    if (replay->count == replay->capacity) {
        int capacity = replay->capacity > 0 ? 2 * replay->capacity : 8;
        struct replay_call *calls =
            mem_realloc(replay->calls, (size_t)capacity, sizeof(*replay->calls));
        if (calls == NULL) {
            return mem_fail(err, (size_t)capacity * sizeof(*calls), "calls of a replay");
        }
        replay->calls = calls;
        replay->capacity = capacity;
    }
    replay->calls[replay->count++] = (struct replay_call){call->id, recorded};
    return STATUS_OK;
}

static void remove_call(struct replay *replay, int index)
{
    replay->count--;
    memmove(&replay->calls[index], &replay->calls[index + 1],
            (size_t)(replay->count - index) * sizeof(replay->calls[0]));
}

/* What the recorded search waited for when it ended comes last. */
static bool comes_before(const struct search_call *a, const struct search_call *b)
{
    return was_answered(a) != was_answered(b) ? was_answered(a)
                                              : was_answered(a) && a->outcomes < b->outcomes;
}

static enum status give(struct replay *replay, const struct replay_call *call, struct error *err)
{
    const struct search_call *recorded = call->recorded;
    struct call_answer answer = {.id = call->id, .cost_usd = recorded->cost_usd};
    call_answer_set(answer.provider, sizeof(answer.provider), search_text(recorded->provider));
    call_answer_set(answer.model, sizeof(answer.model), search_text(recorded->model));
    call_answer_set(answer.host, sizeof(answer.host), search_text(recorded->host));
    answer.tokens_in = recorded->tokens_in;
    answer.tokens_out = recorded->tokens_out;
    answer.seconds = recorded->seconds;
    answer.rank_seconds = recorded->rank_seconds;
    answer.attempts = recorded->attempts;
    if (!was_answered(recorded)) {
        answer.status = FAIL(&answer.error, STATUS_NOT_FOUND,
                             "the recorded search ended before the answer came");
    } else if (recorded->reply == NULL) {
        answer.status = FAIL(&answer.error, STATUS_EXTERNAL, "%s", search_text(recorded->error));
    } else {
        answer.text = mem_strdup(recorded->reply);
        if (answer.text == NULL) {
            return mem_fail(err, strlen(recorded->reply), "a recorded reply");
        }
    }
    return call_queue_push(&replay->answers, &answer, err);
}

/* One answer a turn at most: the next is due when this one is in the search. */
static enum status replay_turn(void *state, int64_t outcomes, bool idle, struct error *err)
{
    struct replay *replay = state;
    int first = 0;
    if (replay->count == 0 || replay->answers.count > 0) {
        return STATUS_OK;
    }
    for (int i = 1; i < replay->count; i++) {
        first = comes_before(replay->calls[i].recorded, replay->calls[first].recorded) ? i : first;
    }
    const struct replay_call call = replay->calls[first];
    bool due = was_answered(call.recorded) && outcomes >= call.recorded->outcomes;
    if (!due && !idle) {
        return STATUS_OK;
    }
    TRY(give(replay, &call, err));
    remove_call(replay, first);
    return STATUS_OK;
}

static bool replay_take(void *state, struct call_answer *out)
{
    struct replay *replay = state;
    return call_queue_take(&replay->answers, out);
}

static void replay_cancel(void *state, int32_t id)
{
    struct replay *replay = state;
    call_queue_drop(&replay->answers, id);
    for (int i = replay->count - 1; i >= 0; i--) {
        if (replay->calls[i].id == id) {
            remove_call(replay, i);
        }
    }
}

static enum status replay_bound(const void *state, const struct call *call, int64_t *tokens,
                                double *usd, struct error *err)
{
    const struct replay *replay = state;
    if (find_recorded(replay, call->key) == NULL) {
        return FAIL(err, STATUS_LIMIT,
                    "a replay asks nothing new, and the recorded search has no "
                    "call %s",
                    call->key);
    }
    *tokens = 0;
    *usd = 0.0;
    return STATUS_OK;
}

int64_t call_replay_ahead(const struct call_transport *transport, int64_t outcomes)
{
    const struct replay *replay = transport->state;
    const struct search *recorded = replay->recorded;
    for (int32_t i = recorded->ahead_count - 1; i >= 0; i--) {
        if (recorded->aheads[i].outcomes <= outcomes) {
            return recorded->aheads[i].candidates;
        }
    }
    return -1;
}

/* ---- rows that were downloaded ---- */

static enum status copy_file(const char *from_folder, const char *to_folder, const char *path,
                             struct error *err)
{
    char from[FILE_PATH_BYTES];
    char to[FILE_PATH_BYTES];
    char folder[FILE_PATH_BYTES];
    if (!search_path_stays_inside(path)) {
        return FAIL(err, STATUS_CORRUPT, "%s has downloaded rows at \"%.200s\", outside of it",
                    from_folder, path);
    }
    TRY(file_join(from_folder, path, from, err));
    TRY(file_join(to_folder, path, to, err));
    if (file_exists(to)) {
        return STATUS_OK; /* it is the replay's own folder, or it goes on */
    }
    TRY(file_folder_of(to, folder, err));
    TRY(file_make_folders(folder, err));
    struct file_map map;
    TRY(file_map_open(from, &map, err));
    enum status status = file_write(to, map.data, map.len_bytes, err);
    file_map_close(&map);
    return status;
}

static enum status copy_download(const struct search_call *call, const char *from_folder,
                                 const char *to_folder, struct error *err)
{
    cJSON *reply = NULL;
    TRY(json_parse(call->reply, strlen(call->reply), call->key, &reply, err));
    enum status status = STATUS_OK;
    const cJSON *document = NULL;
    cJSON_ArrayForEach (document, cJSON_GetObjectItemCaseSensitive(reply, "documents")) {
        const char *path = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(document, "path"));
        const char *source =
            cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(document, "source"));
        bool stays = source != NULL && strcmp(source, "local") == 0; /* a folder of the job */
        if (path != NULL && path[0] != '\0' && !stays && status == STATUS_OK) {
            status = copy_file(from_folder, to_folder, path, err);
        }
    }
    cJSON_Delete(reply);
    return status;
}

static bool is_download(const struct search_call *call)
{
    cJSON *body = NULL;
    bool found = strcmp(call->kind, call_kind_names[CALL_SOURCE]) == 0 && call->reply != NULL &&
                 json_parse(call->body, strlen(call->body), call->key, &body, NULL) == STATUS_OK;
    const char *what = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(body, "do"));
    found = found && what != NULL && strcmp(what, "download") == 0;
    cJSON_Delete(body);
    return found;
}

static enum status copy_downloads(const struct search *recorded, const char *from_folder,
                                  const char *to_folder, struct error *err)
{
    for (int32_t i = 0; i < recorded->call_count; i++) {
        if (!is_download(&recorded->calls[i])) {
            continue;
        }
        enum status status = copy_download(&recorded->calls[i], from_folder, to_folder, err);
        if (status != STATUS_OK) {
            error_context(err, "cannot replay %s", recorded->calls[i].key);
            return status;
        }
    }
    return STATUS_OK;
}

enum status call_replay_open(const struct search *recorded, const char *recorded_folder,
                             const char *run_folder, struct call_transport *out, struct error *err)
{
    if (recorded_folder != NULL && run_folder != NULL) {
        TRY(copy_downloads(recorded, recorded_folder, run_folder, err));
    }
    struct replay *replay = mem_calloc(1, sizeof(*replay));
    if (replay == NULL) {
        return mem_fail(err, sizeof(*replay), "a replay");
    }
    replay->recorded = recorded;
    *out = (struct call_transport){
        .name = "replay",
        .state = replay,
        .start = replay_start,
        .turn = replay_turn,
        .take = replay_take,
        .cancel = replay_cancel,
        .bound = replay_bound,
        .close = replay_close,
    };
    return STATUS_OK;
}
