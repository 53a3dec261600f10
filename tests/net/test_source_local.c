/* Data sets in folders of this machine; and sources without memory. */
#include "net/source_fixture.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"

static void open_local(struct world *world, const char *const *folders, const char *const *licences)
{
    close_sources(world);
    world->options.folders = folders;
    world->options.licences = licences;
    world->options.offline = true;
    open_sources(world);
}

static void test_local(void **state)
{
    struct world *world = *state;
    static const char *const folders[] = {GOLDEN "local", NULL};
    open_local(world, folders, NULL);
    cJSON *documents = ask_documents(
        world, "{\"do\": \"search\", \"source\": \"local\", \"text\": \"Help DESK department\"}",
        NULL);
    assert_int_equal(cJSON_GetArraySize(documents), 2);
    assert_string_equal(text_of(documents, 0, "id"), "tickets");
    assert_string_equal(text_of(documents, 0, "licence"), "");
    assert_string_equal(text_of(documents, 0, "text"),
                        "Tickets of the help desk, sorted by department.");
    assert_string_equal(text_of(documents, 1, "title"), "House Reviews");
    cJSON_Delete(documents);

    documents = ask_documents(
        world, "{\"do\": \"card\", \"source\": \"local\", \"id\": \"reviews\"}", NULL);
    char *line = json_print_line(documents);
    assert_null(strstr(line, "this row is of a test split"));
    free(line);
    const cJSON *document = cJSON_GetArrayItem(documents, 0);
    assert_string_equal(source_string(document, "licence"), "apache-2.0");
    const cJSON *splits = cJSON_GetObjectItem(document, "splits");
    assert_string_equal(text_of(splits, 1, "split"), "train");
    assert_int_equal(number_of(splits, 1, "rows"), 3);
    assert_string_equal(text_of(cJSON_GetObjectItem(document, "samples"), 0, "sentence"),
                        "warm and quick");
    cJSON_Delete(documents);

    char hash[HASH_TEXT_BYTES];
    struct error err;
    documents = ask_documents(
        world, "{\"do\": \"download\", \"source\": \"local\", \"id\": \"reviews\"}", NULL);
    assert_string_equal(text_of(documents, 0, "path"), GOLDEN "local/reviews/train.jsonl");
    assert_int_equal(number_of(documents, 0, "rows"), 3);
    assert_int_equal(hash_file(GOLDEN "local/reviews/train.jsonl", hash, &err), STATUS_OK);
    assert_string_equal(text_of(documents, 0, "hash"), hash);
    cJSON_Delete(documents);
    expect_failure(world, "{\"do\": \"download\", \"source\": \"local\", \"id\": \"tickets\"}",
                   STATUS_PERMISSION, "tickets/README.md");
    expect_failure(world, "{\"do\": \"card\", \"source\": \"local\", \"id\": \"../local\"}",
                   STATUS_NOT_FOUND, "../local");
    expect_failure(world,
                   "{\"do\": \"download\", \"source\": \"local\", \"id\": \"reviews\","
                   "\"split\": \"../tickets/all\"}",
                   STATUS_NOT_FOUND, "no file");
    assert_int_equal(world->count, 0);
}

/* Folders that are not there, empty, or of one name. */
static void test_odd_folders(void **state)
{
    struct world *world = *state;
    static const char *const none[] = {"/nonexistent/folder", NULL};
    static const char *const twice[] = {GOLDEN "local/reviews/", GOLDEN "local/reviews", NULL};
    static const char *const mit[] = {"mit", NULL};
    open_local(world, none, NULL);
    cJSON *documents =
        ask_documents(world, "{\"do\": \"search\", \"source\": \"local\", \"text\": \"x\"}", NULL);
    assert_int_equal(cJSON_GetArraySize(documents), 0);
    cJSON_Delete(documents);
    open_local(world, twice, mit);
    documents =
        ask_documents(world, "{\"do\": \"search\", \"source\": \"local\", \"text\": \"x\"}", NULL);
    assert_string_equal(text_of(documents, 0, "id"), "reviews");
    assert_string_equal(text_of(documents, 1, "id"), "reviews-2");
    cJSON_Delete(documents);
    expect_failure(world, "{\"do\": \"download\", \"source\": \"local\", \"id\": \"reviews\"}",
                   STATUS_PERMISSION, "apache-2.0");
}

/* Each allocation fails in turn: the question fails, or is answered whole. */
/* Whoever fills a folder of the job may cut its files while they are read. */
static void test_files_that_are_cut(void **state)
{
    enum { FILE_BYTES = 4 << 20, ASKED = 30 };
    struct world *world = *state;
    char folder[128];
    char path[160];
    snprintf(folder, sizeof(folder), "%s/moving", world->folder);
    snprintf(path, sizeof(path), "%s/train.jsonl", folder);
    const char *const folders[] = {folder, NULL};
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(file_write(path, "{\"a\": 1}\n", 9, NULL), STATUS_OK);
    open_local(world, folders, NULL);
    pid_t child = fork();
    while (child == 0) {
        if (truncate(path, FILE_BYTES) != 0 || truncate(path, 0) != 0) {
            _exit(1);
        }
    }
    assert_true(child > 0);
    for (int i = 0; i < ASKED; i++) {
        cJSON *documents = ask_documents(
            world, "{\"do\": \"card\", \"source\": \"local\", \"id\": \"moving\"}", NULL);
        assert_int_equal(cJSON_GetArraySize(documents), 1);
        cJSON_Delete(documents);
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

static void test_no_memory(void **state)
{
    struct world *world = *state;
    static const char *const folders[] = {GOLDEN "local", NULL};
    static const char *const questions[] = {
        "{\"do\": \"search\", \"source\": \"local\", \"text\": \"review of a house\"}",
        "{\"do\": \"card\", \"source\": \"local\", \"id\": \"reviews\"}",
        "{\"do\": \"download\", \"source\": \"local\", \"id\": \"reviews\"}",
        SET("download"),
    };
    cJSON_Delete(ask_documents(world, SET("download"), NULL)); /* into the cache */
    open_local(world, folders, NULL);
    for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++) {
        int failed = 0;
        int64_t used = INT64_MAX - 1; /* of a whole run */
        for (int64_t n = 1; n <= used + 1; n++) {
            struct error err = {0};
            struct source_answer answer = {.status = STATUS_OK};
            int64_t id = 0;
            int64_t before = mem_allocation_count();
            cJSON *json = cJSON_Parse(questions[i]);
            mem_fail_nth(n);
            enum status status = sources_ask(world->sources, json, &id, &err);
            if (status == STATUS_OK) {
                wait_for(world, id, &answer);
                status = answer.status;
            }
            mem_fail_nth(0);
            if (status == STATUS_OK) {
                assert_non_null(answer.text);
                used = mem_allocation_count() - before;
            } else { /* a cache that cannot be read is no cache */
                if (status != STATUS_NO_MEMORY && status != STATUS_NOT_FOUND) {
                    fail_msg("question %zu, allocation %lld: %s %s", i, (long long)n, err.message,
                             answer.error.message);
                }
                failed++;
            }
            source_answer_fini(&answer);
            cJSON_Delete(json);
        }
        assert_true(failed > 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(test_local),
        WITH_WORLD(test_odd_folders),
        WITH_WORLD(test_files_that_are_cut),
        WITH_WORLD(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
