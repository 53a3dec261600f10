/* The program trex-tree as it is used, and a run folder to use it on. */
#ifndef TESTS_ANALYSIS_COMMAND_H
#define TESTS_ANALYSIS_COMMAND_H

#include "store/sample.h"

/* Nodes 0 to 3; node 2's first candidate keeps its weights, node 3's second one is running: see
 * store/sample.h. */
enum { LAST = 2 + 3 * SAMPLE_EVENTS_A_NODE + 4 };

struct fixture {
    char folder[FILE_PATH_BYTES];
    struct buffer out; /* of the last command, stdout and stderr */
};

/* Runs trex-tree with arguments in which RUN stands for the folder; gives its exit code. */
static inline int tree(struct fixture *f, const char *arguments)
{
    char command[3 * FILE_PATH_BYTES];
    char block[4096];
    snprintf(command, sizeof(command), "cd '%s' && '%s/trex-tree' %s 2>&1", f->folder,
             TEST_BINARY_DIR, arguments);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    buffer_clear(&f->out);
    for (size_t got = 0; (got = fread(block, 1, sizeof(block), pipe)) > 0;) {
        buffer_append(&f->out, block, got);
    }
    int ended = pclose(pipe);
    assert_true(WIFEXITED(ended));
    return WEXITSTATUS(ended);
}

static inline void expect(struct fixture *f, const char *arguments, int code, const char *text)
{
    int ended = tree(f, arguments);
    if (ended != code || strstr(buffer_text(&f->out), text) == NULL) {
        fail_msg("trex-tree %s: ended with %d (expected %d), printed\n%s\n(expected \"%s\")",
                 arguments, ended, code, buffer_text(&f->out), text);
    }
}

static inline void make_run(const char *folder)
{
    struct store_lock *lock = NULL;
    struct journal *journal = NULL;
    struct search search;
    assert_int_equal(store_folder_lock(folder, &lock, NULL), STATUS_OK);
    assert_int_equal(journal_open(folder, NULL, 0, &journal, NULL), STATUS_OK);
    sample_append(journal, 1, LAST);
    journal_close(journal);
    sample_search(&search, 10);
    assert_int_equal(store_run_save(folder, &search, NULL), STATUS_OK);
    search_fini(&search);
    store_folder_unlock(lock);
}

/* Puts one more event into the journal of the run: JSON text without its end, sequence and time. */
static inline void append_event(struct fixture *f, const char *text)
{
    char run[FILE_PATH_BYTES];
    char whole[2048];
    char note[1024];
    struct search search;
    struct journal *journal = NULL;
    sample_path(f->folder, "run", run);
    assert_int_equal(store_run_load(run, &search, note, sizeof(note), NULL), STATUS_OK);
    int64_t last = search.last_sequence;
    search_fini(&search);
    snprintf(whole, sizeof(whole), "%s,\"sequence\":%lld,\"time_s\":2000}", text,
             (long long)last + 1);
    assert_int_equal(journal_open(run, NULL, last, &journal, NULL), STATUS_OK);
    assert_int_equal(journal_append(journal, sample_parse(whole), NULL), STATUS_OK);
    journal_close(journal);
}

static inline int make_fixture(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char run[FILE_PATH_BYTES];
    sample_folder(f->folder);
    buffer_init(&f->out, 1 << 24);
    sample_path(f->folder, "run", run);
    make_run(run);
    *state = f;
    return 0;
}

static inline int remove_fixture(void **state)
{
    struct fixture *f = *state;
    sample_remove(f->folder);
    buffer_fini(&f->out);
    free(f);
    return 0;
}

static inline cJSON *parsed(struct fixture *f, const char *arguments)
{
    cJSON *object = NULL;
    struct error err = {0};
    assert_int_equal(tree(f, arguments), 0);
    if (json_parse(buffer_text(&f->out), f->out.len_bytes, "stdout", &object, &err) != STATUS_OK) {
        fail_msg("%s\n%s", err.message, buffer_text(&f->out));
    }
    return object;
}

static inline double number_at(const cJSON *object, const char *outer, const char *inner)
{
    const cJSON *found = cJSON_GetObjectItem(cJSON_GetObjectItem(object, outer), inner);
    assert_true(cJSON_IsNumber(found));
    return found->valuedouble;
}

#endif
