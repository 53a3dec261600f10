/* Searches and folders to store, and processes to kill while they do. */
#ifndef TESTS_STORE_SAMPLE_H
#define TESTS_STORE_SAMPLE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/json.h"
#include "store/seal.h"
#include "store/store.h"
#include "tree/dump.h"

/* ---- folders ---- */

/* A new folder under the system's place for temporary files. */
static inline void sample_folder(char out[FILE_PATH_BYTES])
{
    const char *base = getenv("TMPDIR");
    snprintf(out, FILE_PATH_BYTES, "%s/trex-store-XXXXXX", base != NULL ? base : "/tmp");
    assert_non_null(mkdtemp(out));
}

static inline void sample_remove(const char *folder)
{
    char command[FILE_PATH_BYTES + 32];
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
}

/* Around a test: *state is a folder of its own. */
static inline int sample_setup(void **state)
{
    char *folder = calloc(1, FILE_PATH_BYTES);
    assert_non_null(folder);
    sample_folder(folder);
    *state = folder;
    return 0;
}

static inline int sample_teardown(void **state)
{
    sample_remove(*state);
    free(*state);
    return 0;
}

static inline void sample_path(const char *folder, const char *name, char out[FILE_PATH_BYTES])
{
    assert_int_equal(file_join(folder, name, out, NULL), STATUS_OK);
}

static inline void sample_read(const char *path, struct buffer *out)
{
    buffer_init(out, (size_t)1 << 30);
    assert_int_equal(file_read(path, out, NULL), STATUS_OK);
}

static inline void sample_write(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

/* ---- events ---- */

/* A binary tree of nodes with two candidates each, one that finishes and one that fails: six events
 * a node. Event n is the same in every call. */
enum { SAMPLE_EVENTS_A_NODE = 6 };

static inline cJSON *sample_parse(const char *text)
{
    cJSON *object = NULL;
    struct error err = {0};
    if (json_parse(text, strlen(text), "sample", &object, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return object;
}

/* What happens where the second candidate of a node would start: it does so in each sixth. */
static inline int sample_side_event(char *text, size_t bytes, int64_t sequence, int node)
{
    int used = snprintf(text, bytes, "{\"sequence\":%lld,\"time_s\":%d,", (long long)sequence,
                        1001 + node);
    text += used;
    bytes -= (size_t)used;
    switch (node % 12) {
    case 0:
    case 6:
        return used + snprintf(text, bytes, "\"event\":\"allocation_progress\",\"seconds\":%d.25}",
                               10 * node);
    case 1:
    case 4:
    case 7:
        return used + snprintf(text, bytes,
                               "\"event\":\"incident\",\"kind\":\"rank lost\",\"message\":\"rank 2 "
                               "died\",\"node\":%d,\"candidate\":1,\"blames\":true,\"lost_s\":%s}",
                               node, node % 6 == 1 ? "2.5" : "null");
    case 2:
    case 8:
        return used + snprintf(text, bytes,
                               "\"event\":\"allocation_ended\",\"reason\":\"stopped: time limit\","
                               "\"predicted_s\":4.5,\"safe_s\":1.25}");
    case 10:
        return used + snprintf(text, bytes,
                               "\"event\":\"limits_set\",\"limits\":{\"rounds\":%d,"
                               "\"gpu_hours\":0.7,\"goal_score\":-0.1,\"agent_tokens\":null},"
                               "\"what\":\"rounds 40 -> %d\",\"by\":\"user@host\"}",
                               40 + node, 40 + node);
    case 11:
        return used + snprintf(text, bytes,
                               "\"event\":\"halted\",\"id\":\"0123456789abcdef\",\"how\":"
                               "\"at once\",\"by\":\"user@host\"}");
    default:
        return used + snprintf(text, bytes,
                               "\"event\":\"allocation_started\",\"ranks\":3,\"host\":\"h%d\","
                               "\"workers\":2,\"nodes\":1,\"threads\":2,\"gpus\":1,\"job\":\"71\","
                               "\"restarts\":%d}",
                               node, node / 6 + 1);
    }
}

static inline int sample_node_event(char *text, size_t bytes, int64_t sequence, int node, int step)
{
    int parent = node == 0 ? -1 : (node - 1) / 2;
    if (step == 3 && node % 6 != 3) {
        return sample_side_event(text, bytes, sequence, node);
    }
    switch (step) {
    case 0:
        return snprintf(text, bytes,
                        "{\"sequence\":%lld,\"time_s\":%d.5,\"event\":\"node_planned\",\"node\":%d,"
                        "\"parent\":%d,"
                        "\"strategy\":\"refine data\",\"goal\":\"goal of %d: "
                        "\\u00e4\",\"rationale\":\"because\","
                        "\"recipe\":[{\"op\":\"dedup\"}],\"configs\":[{\"learning_rate\":0.001},{"
                        "\"epochs\":%d}],"
                        "\"researcher\":\"rules\"}",
                        (long long)sequence, 1000 + node, node, parent, node, node);
    case 1:
    case 3:
        return snprintf(
            text, bytes,
            "{\"sequence\":%lld,\"time_s\":%d,\"event\":\"candidate_started\",\"node\":%d,"
            "\"candidate\":%d,\"rank\":1}",
            (long long)sequence, 1001 + node, node, step / 2);
    case 2:
        return snprintf(
            text, bytes,
            "{\"sequence\":%lld,\"time_s\":%d,\"event\":\"candidate_finished\",\"node\":%d,"
            "\"candidate\":0,\"weights_kept\":%s,\"result\":{\"validation\":{\"value\":%.17g,"
            "\"standard_error\":0.0123,\"loss\":null,\"rows\":872,\"truncated\":3,\"unfinished\":1,"
            "\"format_failures\":2,\"seconds\":1.25},\"curve\":[[1,100,2.5,null,1.5,0.001,0.1],"
            "[2,200,2.25,2.4,1.25,0.0005,0.2]],\"cases\":[{\"row\":7,\"score\":0,\"prompt\":\"p\\n%"
            "d\","
            "\"answer\":\"yes\",\"output\":\"no\"}],\"confusions\":[{\"expected\":\"yes\","
            "\"found\":"
            "\"no\",\"count\":12}],\"steps_done\":2,\"samples\":64,\"tokens\":200,\"end\":"
            "\"finished\","
            "\"rank_seconds\":3.5,\"recipe_report\":[{\"op\":\"dedup\",\"rows_out\":64}]}}",
            (long long)sequence, 1002 + node, node, node == 2 ? "true" : "false",
            0.5 + 0.3 * (double)(node * 37 % 11) / 11.0, node);
    case 4:
        return snprintf(text, bytes,
                        "{\"sequence\":%lld,\"time_s\":%d,\"event\":\"candidate_failed\",\"node\":%"
                        "d,\"candidate\":1,"
                        "\"error\":{\"code\":\"STATUS_DIVERGED\",\"message\":\"loss is NaN at step "
                        "3\",\"file\":"
                        "\"train/loop.c\",\"line\":12,\"rank\":1},\"log_tail\":\"last "
                        "words\",\"rank_seconds\":0.5}",
                        (long long)sequence, 1003 + node, node);
    default:
        return snprintf(
            text, bytes,
            "{\"sequence\":%lld,\"time_s\":%d,\"event\":\"node_closed\",\"node\":%d,\"diagnosis\":"
            "\"underfits\",\"insights\":[{\"text\":\"more epochs help\",\"nodes\":[%d]}]}",
            (long long)sequence, 1004 + node, node, node);
    }
}

static inline cJSON *sample_event(int64_t sequence)
{
    char text[4096];
    if (sequence == 1) {
        return sample_parse(
            "{\"sequence\":1,\"time_s\":999,\"event\":\"started\",\"job\":{\"model\":\"base\","
            "\"search\":{\"rounds\":40}},\"model_hash\":\"aa\",\"task_hash\":\"bb\",\"metric\":"
            "\"accuracy\",\"larger_is_better\":true,\"version\":\"0.1.0\",\"seed\":12345}");
    }
    if (sequence == 2) {
        return sample_parse(
            "{\"sequence\":2,\"time_s\":999.5,\"event\":\"allocation_started\",\"ranks\":3,"
            "\"host\":\"h\"}");
    }
    int64_t at = sequence - 3;
    int used = sample_node_event(text, sizeof(text), sequence, (int)(at / SAMPLE_EVENTS_A_NODE),
                                 (int)(at % SAMPLE_EVENTS_A_NODE));
    assert_true(used > 0 && (size_t)used < sizeof(text));
    return sample_parse(text);
}

/* Applies events up to a sequence number. */
static inline void sample_advance(struct search *search, int64_t last)
{
    while (search->last_sequence < last) {
        struct error err = {0};
        cJSON *event = sample_event(search->last_sequence + 1);
        if (search_apply(search, event, &err) != STATUS_OK) {
            fail_msg("event %lld: %s", (long long)search->last_sequence + 1, err.message);
        }
        cJSON_Delete(event);
    }
}

static inline void sample_search(struct search *search, int64_t last)
{
    search_init(search);
    sample_advance(search, last);
}

static inline void sample_append(struct journal *journal, int64_t first, int64_t last)
{
    for (int64_t i = first; i <= last; i++) {
        assert_int_equal(journal_append(journal, sample_event(i), NULL), STATUS_OK);
    }
}

/* ---- comparing ---- */

static inline void assert_same_search(const struct search *a, const struct search *b)
{
    char *left = dump_search(a);
    char *right = dump_search(b);
    assert_non_null(left);
    assert_non_null(right);
    for (size_t i = 0, line = 0; left[i] != '\0' || right[i] != '\0'; i++) {
        if (left[i] != right[i]) {
            fail_msg("first difference:\n%.300s\n%.300s", left + line, right + line);
        }
        line = left[i] == '\n' ? i + 1 : line;
    }
    free(left);
    free(right);
}

/* The folder holds the search up to some event that is at least `least`; gives the number. */
static inline int64_t assert_folder_holds(const char *folder, int64_t least, int64_t most)
{
    struct search found;
    struct search wanted;
    struct error err = {0};
    char note[1024];
    if (store_run_load(folder, &found, note, sizeof(note), &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    int64_t sequence = found.last_sequence;
    if (sequence < least || sequence > most) {
        fail_msg("%s: found event %lld, expected %lld to %lld", folder, (long long)sequence,
                 (long long)least, (long long)most);
    }
    sample_search(&wanted, sequence);
    assert_same_search(&wanted, &found);
    search_fini(&wanted);
    search_fini(&found);
    return sequence;
}

/* ---- run files ---- */

static inline void sample_save(const char *folder, int64_t last)
{
    struct search search;
    struct error err = {0};
    sample_search(&search, last);
    if (store_run_save(folder, &search, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    search_fini(&search);
}

/* Seals a changed file anew, so that what is behind the seal is tested: HDF5 and the checks of the
 * rows. */
static inline void sample_seal_again(unsigned char *data, size_t bytes, int64_t schema)
{
    struct seal seal = {"run",          schema, seal_block_bytes(0, SEAL_BLOCK_LEAST_BYTES),
                        (int64_t)bytes, 0,      NULL};
    assert_int_equal(seal_memory(&seal, data, "test", NULL), STATUS_OK);
}

static inline void sample_expect_refused(const char *path, enum status wanted)
{
    struct search found;
    struct error err = {0};
    enum status status = store_run_read(path, &found, &err);
    if (status != wanted) {
        fail_msg("found %s (%s), expected %s", status_name(status), err.message,
                 status_name(wanted));
    }
    assert_non_null(strstr(err.message, path));
}

/* ---- processes ---- */

/* Runs `work` in a child in which TREX_FAULT is `fault`. Gives 0 if it returned STATUS_OK, 128 +
 * the signal that ended it, or the status. */
static inline int sample_run(const char *fault,
                             enum status (*work)(const char *folder, struct error *err),
                             const char *folder)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); /* CMocka would go on with the parent's tests */
        signal(SIGBUS, SIG_DFL);
        alarm(60);
        if (fault != NULL) {
            setenv("TREX_FAULT", fault, 1);
        }
        struct error err = {0};
        enum status status = work(folder, &err);
        _exit((int)status);
    }
    int ended = 0;
    assert_int_equal(waitpid(child, &ended, 0), child);
    return WIFSIGNALED(ended) ? 128 + WTERMSIG(ended) : WEXITSTATUS(ended);
}

#endif
