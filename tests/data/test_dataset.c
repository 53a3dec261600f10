/* Reading and writing rows: what is good, and everything that can be wrong with a file. */
#include "fixture.h"

static int set_up(void **state)
{
    *state = fixture_folder();
    return 0;
}

static int tear_down(void **state)
{
    fixture_remove(*state);
    return 0;
}

static void expect_failure(const char *path, const struct dataset_limits *limits,
                           enum status expected, const char *part)
{
    struct dataset rows;
    memset(&rows, 0x5A, sizeof(rows));
    struct dataset untouched = rows;
    struct error err = {0};
    enum status status = dataset_read(path, limits, &rows, &err);
    if (status != expected || strstr(err.message, part) == NULL) {
        fail_msg("status %s, message \"%s\"; expected %s and \"%s\"", status_name(status),
                 err.message, status_name(expected), part);
    }
    assert_memory_equal(&rows, &untouched, sizeof(rows));
}

static void expect_bad_text(const char *folder, const char *text, size_t len_bytes,
                            enum status expected, const char *part)
{
    expect_failure(fixture_write_bytes(folder, "bad.jsonl", text, len_bytes), NULL, expected, part);
}

#define EXPECT_BAD(text, expected, part)                                                           \
    expect_bad_text(*state, text, sizeof(text) - 1, expected, part)

static void test_reads_rows(void **state)
{
    const char *path = fixture_write(*state, "a.jsonl",
                                     "\xEF\xBB\xBF{\"prompt\": \"a\", \"n\": 3}\r\n\n  \t\r\n"
                                     "{\"prompt\": \"\\u00e9 \xC3\xA9 \\\\u0000\"}");
    struct dataset rows;
    struct error err = {0};
    assert_int_equal(dataset_read(path, NULL, &rows, &err), STATUS_OK);
    assert_int_equal(rows.count, 2);
    assert_int_equal(rows.source_count, 1);
    assert_string_equal(rows.sources[0], path);
    assert_int_equal(rows.rows[0].line, 1);
    assert_int_equal(rows.rows[1].line, 4);
    assert_string_equal(data_row_text(&rows.rows[0], "prompt"), "a");
    assert_string_equal(data_row_text(&rows.rows[1], "prompt"), "\xC3\xA9 \xC3\xA9 \\u0000");
    assert_null(data_row_text(&rows.rows[0], "n"));
    assert_null(data_row_text(&rows.rows[0], "none"));
    dataset_fini(&rows);
}

static void test_bad_rows(void **state)
{
    EXPECT_BAD("", STATUS_INVALID, "no rows");
    EXPECT_BAD("\n \n", STATUS_INVALID, "no rows");
    EXPECT_BAD("\xEF\xBB\xBF", STATUS_INVALID, "no rows");
    EXPECT_BAD("{\"a\": 1}\n{\"a\" 1}\n", STATUS_FORMAT, "bad.jsonl:2:6: not valid JSON");
    EXPECT_BAD("{\"a\": 1} {\"b\": 2}\n", STATUS_FORMAT, "bad.jsonl:1:10: not valid JSON");
    EXPECT_BAD("{\"a\": 1}\n[1]\n", STATUS_FORMAT, "bad.jsonl:2:1: found [1]");
    EXPECT_BAD("\"text\"\n", STATUS_FORMAT, "allowed is one JSON object");
    EXPECT_BAD("{\"a\": \"\xFF\"}\n", STATUS_FORMAT, "bad.jsonl:1: not valid UTF-8");
    EXPECT_BAD("{\"a\": \"\xED\xA0\x80\"}\n", STATUS_FORMAT, "UTF-8"); /* a surrogate */
    EXPECT_BAD("{\"a\": \"x\0y\"}\n", STATUS_FORMAT, "bad.jsonl:1:9: the character U+0000");
    EXPECT_BAD("{\"a\": \"x\\u0000y\"}\n", STATUS_FORMAT, "bad.jsonl:1:9: the character U+0000");
    EXPECT_BAD("{\"a\": \"cut\n", STATUS_FORMAT, "bad.jsonl:1:");
    EXPECT_BAD("not json at all", STATUS_FORMAT, "bad.jsonl:1:1:");
}

static void test_deep_nesting_is_refused(void **state)
{
    char text[4096];
    memset(text, '[', sizeof(text));
    memcpy(text, "{\"a\": ", 6);
    expect_bad_text(*state, text, sizeof(text), STATUS_LIMIT, "nested deeper");
}

static void test_bad_paths(void **state)
{
    const char *folder = *state;
    expect_failure(fixture_path(folder, "none.jsonl"), NULL, STATUS_NOT_FOUND, "none.jsonl");
    expect_failure(folder, NULL, STATUS_FORMAT, "not a regular file");
    const char *fifo = fixture_path(folder, "fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    expect_failure(fifo, NULL, STATUS_FORMAT, "not a regular file");
    if (geteuid() != 0) {
        const char *path = fixture_write(folder, "secret.jsonl", "{}\n");
        assert_int_equal(chmod(path, 0), 0);
        expect_failure(path, NULL, STATUS_PERMISSION, "secret.jsonl");
    }
}

static void test_limits(void **state)
{
    const char *path = fixture_write(*state, "three.jsonl", "{\"a\": 1}\n{\"a\": 2}\n{\"a\": 3}\n");
    expect_failure(path, &(struct dataset_limits){.max_rows = 2}, STATUS_LIMIT,
                   "three.jsonl:3: more than 2 rows");
    expect_failure(path, &(struct dataset_limits){.max_file_bytes = 20}, STATUS_LIMIT,
                   "allowed are 20");
    expect_failure(path, &(struct dataset_limits){.max_row_bytes = 7}, STATUS_LIMIT,
                   "three.jsonl:1: line longer");
    struct dataset rows;
    struct error err = {0};
    assert_int_equal(dataset_read(path, &(struct dataset_limits){.take = 2}, &rows, &err),
                     STATUS_OK);
    assert_int_equal(rows.count, 2);
    dataset_fini(&rows);
}

/* One line over many blocks of the reader. */
static void test_long_line(void **state)
{
    enum { LENGTH = 1 << 20 };
    struct buffer text;
    buffer_init(&text, LENGTH + 64);
    buffer_append_text(&text, "{\"prompt\": \"");
    for (int i = 0; i < LENGTH; i++) {
        buffer_append_char(&text, (char)('a' + i % 26));
    }
    buffer_append_text(&text, "\"}\n{\"prompt\": \"after\"}\n");
    const char *path = fixture_write_bytes(*state, "long.jsonl", text.data, text.len_bytes);
    struct dataset rows;
    struct error err = {0};
    assert_int_equal(dataset_read(path, NULL, &rows, &err), STATUS_OK);
    assert_int_equal(rows.count, 2);
    assert_int_equal(strlen(data_row_text(&rows.rows[0], "prompt")), LENGTH);
    assert_memory_equal(data_row_text(&rows.rows[0], "prompt"), text.data + 12, LENGTH);
    assert_string_equal(data_row_text(&rows.rows[1], "prompt"), "after");
    dataset_fini(&rows);
    buffer_fini(&text);
}

static void test_write_and_provenance(void **state)
{
    struct dataset rows;
    fixture_rows(&rows, "{'a': 1}\n{}\n{'_source': 'old \\\\ \\\"x\\\"', '_line': 9}\n");
    const char *path = fixture_path(*state, "out.jsonl");
    struct error err = {0};
    struct buffer text;
    buffer_init(&text, 1 << 16);
    assert_int_equal(dataset_write(&rows, path, false, &err), STATUS_OK);
    assert_int_equal(file_read(path, &text, &err), STATUS_OK);
    assert_string_equal(buffer_text(&text),
                        "{\"a\":1}\n{}\n{\"_source\":\"old \\\\ \\\"x\\\"\",\"_line\":9}\n");
    buffer_clear(&text);
    assert_int_equal(dataset_write(&rows, path, true, &err), STATUS_OK);
    assert_int_equal(file_read(path, &text, &err), STATUS_OK);
    assert_string_equal(buffer_text(&text), "{\"a\":1,\"_source\":\"rows.jsonl\",\"_line\":1}\n"
                                            "{\"_source\":\"rows.jsonl\",\"_line\":2}\n"
                                            "{\"_source\":\"old \\\\ \\\"x\\\"\",\"_line\":9}\n");
    buffer_fini(&text);
    assert_int_equal(dataset_write(&rows, fixture_path(*state, "none/out.jsonl"), false, &err),
                     STATUS_NOT_FOUND);
    dataset_fini(&rows);
}

static void test_full_disk(void **state)
{
    (void)state;
    struct dataset rows;
    fixture_rows(&rows, "{'a': 1}\n");
    struct error err = {0};
    setenv("TREX_FAULT", "base.file.before_rename=enospc", 1);
    const char *path = fixture_path(*state, "full.jsonl");
    assert_int_equal(dataset_write(&rows, path, false, &err), STATUS_NO_SPACE);
    unsetenv("TREX_FAULT");
    assert_false(file_exists(path));
    assert_false(file_exists(fixture_path(*state, "full.jsonl.tmp")));
    dataset_fini(&rows);
}

static void hash_of(const char *text, char out[33])
{
    struct dataset rows;
    fixture_rows(&rows, text);
    dataset_hash(&rows, out);
    dataset_fini(&rows);
}

static void test_hash(void **state)
{
    (void)state;
    static const char *const different[] = {
        "{'a': '1'}",
        "{'a': 1}",
        "{'a': 2}",
        "{'a': '1'}\n{'a': '1'}",
        "{'b': '1'}",
        "{'a': ['1']}",
        "{'a': {'b': 1}}",
        "{'a': {}, 'b': 1}",
        "{'a': null}",
        "{'a': true}",
        "{'a': false}",
        "{'a': []}",
        "{'a': {}}",
        "{'a': '1', 'b': '2'}",
        "{'b': '2', 'a': '1'}",
        "{'a': '1'}\n{'b': '2'}",
        "{'a': ['x','y']}",
        "{'a': ['xy']}",
    };
    enum { COUNT = sizeof(different) / sizeof(different[0]) };
    char hashes[COUNT][33];
    for (int i = 0; i < COUNT; i++) {
        char again[33];
        hash_of(different[i], hashes[i]);
        hash_of(different[i], again);
        assert_int_equal(strlen(hashes[i]), 32);
        assert_string_equal(hashes[i], again);
        for (int k = 0; k < i; k++) {
            if (strcmp(hashes[i], hashes[k]) == 0) {
                fail_msg("%s and %s have one hash", different[i], different[k]);
            }
        }
    }
}

static void test_many_sources(void **state)
{
    (void)state;
    struct dataset rows;
    dataset_init(&rows);
    struct error err = {0};
    for (int i = 0; i < 1000; i++) {
        char source[32];
        snprintf(source, sizeof(source), "file%d", i % 40);
        assert_int_equal(dataset_append(&rows, cJSON_CreateObject(), source, i, &err), STATUS_OK);
    }
    assert_int_equal(rows.source_count, 40);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(rows.rows[i].source, i % 40);
        assert_int_equal(rows.rows[i].line, i);
    }
    dataset_fini(&rows);
}

/* Each allocation fails in turn: an error, and nothing leaks (AddressSanitizer looks). */
static void test_no_memory(void **state)
{
    const char *path = fixture_write(*state, "three.jsonl", "{\"a\": 1}\n{\"a\": 2}\n{\"a\": 3}\n");
    for (int n = 1;; n++) {
        struct dataset rows;
        struct error err = {0};
        int64_t before = mem_allocation_count();
        mem_fail_nth(n);
        enum status status = dataset_read(path, NULL, &rows, &err);
        mem_fail_nth(0);
        if (status == STATUS_OK) {
            assert_true(n > 3 && mem_allocation_count() - before < n);
            dataset_fini(&rows);
            break;
        }
        assert_true(status == STATUS_NO_MEMORY || status == STATUS_LIMIT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reads_rows, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_rows, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_deep_nesting_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_paths, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_limits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_long_line, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_write_and_provenance, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_full_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_memory, set_up, tear_down),
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_many_sources),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
