/* The base room: errors, buffers, arena, random numbers, files, faults. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"

static char folder[FILE_PATH_BYTES];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "%s/base-XXXXXX", TEST_BINARY_DIR);
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static void path_in(const char *name, char out[FILE_PATH_BYTES])
{
    struct error err;
    assert_int_equal(file_join(folder, name, out, &err), STATUS_OK);
}

/* ---- status ---- */

static void test_error_keeps_code_place_and_context(void **state)
{
    (void)state;
    struct error err = {0};
    assert_int_equal(FAIL(&err, STATUS_RANGE, "found %d, allowed 1..3", 7), STATUS_RANGE);
    error_context(&err, "job.json");
    assert_string_equal(err.message, "job.json: found 7, allowed 1..3");
    assert_int_equal(err.code, STATUS_RANGE);
    assert_non_null(strstr(err.file, "test_base.c"));
    assert_int_equal(FAIL(NULL, STATUS_IO, "no place to put it"), STATUS_IO);
}

static void test_error_context_cuts_instead_of_overflowing(void **state)
{
    (void)state;
    struct error err = {0};
    char text[sizeof(err.message) * 2];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    FAIL(&err, STATUS_IO, "%s", text);
    error_context(&err, "%s", "where");
    assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
    assert_memory_equal(err.message, "where: xxx", 10);
}

static void test_errno_becomes_a_status(void **state)
{
    (void)state;
    static const struct {
        int number;
        enum status status;
    } cases[] = {{ENOSPC, STATUS_NO_SPACE},  {EDQUOT, STATUS_NO_SPACE},
                 {ENOENT, STATUS_NOT_FOUND}, {EACCES, STATUS_PERMISSION},
                 {ENOMEM, STATUS_NO_MEMORY}, {EIO, STATUS_IO}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = {0};
        errno = cases[i].number;
        assert_int_equal(FAIL_ERRNO(&err, "cannot"), cases[i].status);
        assert_non_null(strstr(err.message, strerror(cases[i].number)));
    }
}

static void test_every_status_has_texts(void **state)
{
    (void)state;
    for (int i = 0; i < STATUS_COUNT; i++) {
        assert_memory_equal(status_name((enum status)i), "STATUS_", 7);
        assert_true(strlen(status_text((enum status)i)) > 1);
        assert_true(strlen(status_advice((enum status)i)) > 1);
    }
    assert_string_equal(status_name((enum status)999), "STATUS_UNKNOWN");
}

/* INSTALL's table of errors is the list in status.h. */
static void test_install_lists_every_error(void **state)
{
    (void)state;
    struct buffer text;
    struct error err;
    buffer_init(&text, 1 << 20);
    assert_int_equal(file_read(TEST_SOURCE_DIR "/../INSTALL", &text, &err), STATUS_OK);
    for (int i = 1; i < STATUS_COUNT; i++) {
        char row[512];
        snprintf(row, sizeof(row), "| `%s` | %s | %s |", status_name((enum status)i),
                 status_text((enum status)i), status_advice((enum status)i));
        if (strstr(buffer_text(&text), row) == NULL) {
            fail_msg("INSTALL has no row: %s (trex version --errors prints them)", row);
        }
    }
    buffer_fini(&text);
}

/* ---- memory ---- */

static void test_buffer_stops_at_its_maximum(void **state)
{
    (void)state;
    struct buffer buffer;
    struct error err;
    buffer_init(&buffer, 10);
    buffer_append_text(&buffer, "12345");
    buffer_printf(&buffer, "%s", "67890");
    assert_string_equal(buffer_text(&buffer), "1234567890");
    assert_int_equal(buffer_check(&buffer, "it", &err), STATUS_OK);
    buffer_append_char(&buffer, 'x');
    buffer_append_text(&buffer, "");
    assert_string_equal(buffer_text(&buffer), "1234567890");
    assert_int_equal(buffer_check(&buffer, "it", &err), STATUS_LIMIT);
    assert_null(buffer_take(&buffer));
    buffer_clear(&buffer);
    buffer_append_text(&buffer, "again");
    char *taken = buffer_take(&buffer);
    assert_string_equal(taken, "again");
    free(taken);
    buffer_fini(&buffer);
}

static void test_arena_is_capped_aligned_and_zeroed(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 200000);
    unsigned char *first = arena_alloc(&arena, 3, 5);
    assert_non_null(first);
    assert_int_equal((uintptr_t)first % 16, 0);
    for (int i = 0; i < 15; i++) {
        assert_int_equal(first[i], 0);
    }
    assert_non_null(arena_alloc(&arena, 100000, 1)); /* larger than a chunk */
    unsigned char *second = arena_alloc(&arena, 1, 1);
    assert_ptr_equal(second, first + 16); /* the chunk before goes on being filled */
    assert_null(arena_alloc(&arena, 200000, 1));
    assert_null(arena_alloc(&arena, SIZE_MAX / 2, 4));
    assert_string_equal(arena_strndup(&arena, "hello", 4), "hell");
    arena_fini(&arena);
}

static void test_allocations_fail_in_turn_and_refuse_overflow(void **state)
{
    (void)state;
    mem_fail_nth(2);
    void *first = mem_calloc(1, 1);
    void *second = mem_calloc(1, 1);
    void *third = mem_aligned(3, 5);
    mem_fail_nth(0);
    assert_non_null(first);
    assert_null(second);
    assert_non_null(third);
    assert_int_equal((uintptr_t)third % 64, 0);
    assert_null(mem_realloc(NULL, SIZE_MAX / 2, 4));
    assert_null(mem_aligned(SIZE_MAX / 2, 4));
    free(first);
    free(third);
}

/* ---- random numbers ---- */

/* Known answers of Philox 4x32-10 published with the Random123 library (kat_vectors). */
static void test_philox_known_answers(void **state)
{
    (void)state;
    uint32_t out[4];
    rng_block(0, 0, 0, out);
    const uint32_t zeros[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    assert_memory_equal(out, zeros, sizeof(out));
    rng_block(UINT64_MAX, UINT64_MAX, UINT64_MAX, out);
    const uint32_t ones[4] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
    assert_memory_equal(out, ones, sizeof(out));
}

static void test_rng_resumes_from_its_three_numbers(void **state)
{
    (void)state;
    struct rng a;
    rng_init(&a, 42, 7);
    for (int i = 0; i < 13; i++) {
        rng_u32(&a);
    }
    struct rng b = {.seed = a.seed, .stream = a.stream, .counter = a.counter};
    for (int i = 0; i < 100; i++) {
        assert_int_equal(rng_u32(&a), rng_u32(&b));
    }
}

static void test_rng_is_uniform_normal_and_unbiased(void **state)
{
    (void)state;
    enum { DRAWS = 200000 };
    struct rng rng;
    rng_init(&rng, 1, 1);
    double sum = 0.0;
    double square = 0.0;
    int64_t counts[7] = {0};
    for (int i = 0; i < DRAWS; i++) {
        double x = rng_normal(&rng);
        sum += x;
        square += x * x;
        uint64_t k = rng_below(&rng, 7);
        assert_true(k < 7);
        counts[k]++;
        double u = rng_uniform(&rng);
        assert_true(u >= 0.0 && u < 1.0);
    }
    assert_true(sum / DRAWS > -0.012 && sum / DRAWS < 0.012); /* 5 standard errors */
    assert_true(square / DRAWS > 0.984 && square / DRAWS < 1.016);
    for (int k = 0; k < 7; k++) {
        assert_true(counts[k] > 27700 && counts[k] < 29450);
    }
    assert_int_equal(rng_below(&rng, 0), 0);
    int64_t items[50];
    bool seen[50] = {false};
    for (int i = 0; i < 50; i++) {
        items[i] = i;
    }
    rng_shuffle(&rng, items, 50);
    for (int i = 0; i < 50; i++) {
        assert_false(seen[items[i]]);
        seen[items[i]] = true;
    }
}

/* ---- files ---- */

static void write_text(const char *path, const char *text)
{
    struct error err = {0};
    assert_int_equal(file_write(path, text, strlen(text), &err), STATUS_OK);
}

static void assert_content(const char *path, const char *expected)
{
    struct buffer text;
    struct error err = {0};
    buffer_init(&text, 1000);
    assert_int_equal(file_read(path, &text, &err), STATUS_OK);
    assert_string_equal(buffer_text(&text), expected);
    buffer_fini(&text);
}

static void test_files_are_read_written_mapped_and_hashed(void **state)
{
    (void)state;
    char path[FILE_PATH_BYTES];
    struct error err = {0};
    path_in("a/b/c", path);
    assert_int_equal(file_make_folders(path, &err), STATUS_OK);
    assert_int_equal(file_make_folders(path, &err), STATUS_OK);
    path_in("a/b/c/file", path);
    write_text(path, "one");
    write_text(path, "two");
    assert_content(path, "two");
    assert_int_equal(file_size_bytes(path), 3);
    struct file_map map;
    assert_int_equal(file_map_open(path, &map, &err), STATUS_OK);
    assert_memory_equal(map.data, "two", 3);
    file_map_close(&map);
    char by_file[HASH_TEXT_BYTES];
    char by_bytes[HASH_TEXT_BYTES];
    char by_parts[HASH_TEXT_BYTES];
    assert_int_equal(hash_file(path, by_file, &err), STATUS_OK);
    hash_bytes("two", 3, by_bytes);
    struct hash_state *hash = hash_create();
    hash_update(hash, "t", 1);
    hash_update(hash, "wo", 2);
    hash_digest(hash, by_parts);
    hash_destroy(hash);
    assert_string_equal(by_file, by_bytes);
    assert_string_equal(by_parts, by_bytes);
}

static void test_bad_paths_are_named(void **state)
{
    (void)state;
    char path[FILE_PATH_BYTES];
    struct error err = {0};
    struct buffer text;
    struct file_map map;
    buffer_init(&text, 4);
    path_in("absent", path);
    assert_int_equal(file_read(path, &text, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "absent"));
    assert_int_equal(file_read(folder, &text, &err), STATUS_FORMAT);
    assert_int_equal(file_map_open("/dev/null", &map, &err), STATUS_FORMAT);
    path_in("large", path);
    write_text(path, "12345");
    assert_int_equal(file_read(path, &text, &err), STATUS_LIMIT);
    path_in("large/below", path);
    assert_int_equal(file_make_folders(path, &err), STATUS_INVALID); /* a file stands in the way */
    assert_int_equal(file_write(path, "x", 1, &err), STATUS_NOT_FOUND);
    char *much = mem_calloc(FILE_PATH_BYTES + 1, 1);
    memset(much, 'x', FILE_PATH_BYTES);
    assert_int_equal(file_join("a", much, path, &err), STATUS_LIMIT);
    free(much);
    buffer_fini(&text);
}

static void test_commit_keeps_the_previous_generation(void **state)
{
    (void)state;
    char path[FILE_PATH_BYTES], previous[FILE_PATH_BYTES], aside[FILE_PATH_BYTES];
    struct error err = {0};
    path_in("gen", path);
    path_in("gen.prev", previous);
    for (int generation = 0; generation < 3; generation++) {
        char text[2] = {(char)('0' + generation), '\0'};
        assert_int_equal(file_aside(path, aside, &err), STATUS_OK);
        write_text(aside, text);
        assert_int_equal(file_commit(aside, path, previous, &err), STATUS_OK);
        assert_content(path, text);
    }
    assert_content(previous, "1");
    assert_false(file_exists(aside));
}

/* A child that writes while `fault` is armed, its stderr in the file "said"; returns its wait
 * status. */
static int write_in_child(const char *path, const char *fault)
{
    char said[FILE_PATH_BYTES];
    path_in("said", said);
    pid_t child = fork();
    if (child == 0) {
        struct error err = {0};
        assert_non_null(freopen(said, "w", stderr));
        setenv("TREX_FAULT", fault, 1);
        _exit(file_write(path, "new", 3, &err) == STATUS_OK ? 0 : (int)err.code);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void test_a_kill_leaves_old_or_new_and_nothing_else(void **state)
{
    (void)state;
    char path[FILE_PATH_BYTES];
    char said[FILE_PATH_BYTES];
    path_in("killed", path);
    path_in("said", said);
    write_text(path, "old");
    int status = write_in_child(path, "base.file.before_rename=kill");
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_content(path, "old");
    assert_content(said, "TREX_FAULT strikes: base.file.before_rename=kill\n");
    status = write_in_child(path, "base.file.before_rename=enospc");
    assert_int_equal(WEXITSTATUS(status), STATUS_NO_SPACE);
    assert_content(path, "old");
    status = write_in_child(path, "base.file.after_rename=kill");
    assert_true(WIFSIGNALED(status));
    assert_content(path, "new");
    status = write_in_child(path, "base.file.after_rename:2=kill");
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_content(said, "");
}

/* ---- faults ---- */

enum { FAULT_OK = 100 };

/* A child that passes the point "here" while `fault` is armed. */
static pid_t pass_in_child(const char *fault)
{
    pid_t child = fork();
    if (child == 0) {
        struct error err = {0};
        setenv("TREX_FAULT", fault, 1);
        signal(SIGTERM, SIG_DFL);
        _exit(fault_point("here", &err) == STATUS_OK ? FAULT_OK : (int)err.code);
    }
    return child;
}

static void test_faults_fail_delay_and_hang(void **state)
{
    (void)state;
    int status = 0;
    double start_s = clock_monotonic_s();
    pid_t slow = pass_in_child("here=slow");
    pid_t hung = pass_in_child("here=hang");
    static const struct {
        const char *fault;
        int exit;
    } cases[] = {{"there=eio", FAULT_OK},        {"here", FAULT_OK},
                 {"here:2=eio", FAULT_OK},       {"herein=eio", FAULT_OK},
                 {"here=eio", STATUS_IO},        {"here=enospc", STATUS_NO_SPACE},
                 {"here:1=eio", STATUS_IO},      {"here=dance", STATUS_INVALID},
                 {"here=ahead", STATUS_INVALID}, {"here=device", STATUS_DEVICE}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        pid_t child = pass_in_child(cases[i].fault);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), cases[i].exit);
    }
    pid_t stopped = pass_in_child("here=stop");
    assert_int_equal(waitpid(stopped, &status, 0), stopped);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    assert_int_equal(waitpid(slow, &status, 0), slow);
    assert_int_equal(WEXITSTATUS(status), FAULT_OK);
    assert_true(clock_monotonic_s() - start_s > 4.9);
    assert_int_equal(waitpid(hung, &status, WNOHANG), 0);
    kill(hung, SIGTERM);
    assert_int_equal(waitpid(hung, &status, 0), hung);
    assert_true(WIFSIGNALED(status));
}

static void test_the_wall_clock_can_be_made_to_jump(void **state)
{
    (void)state;
    const double day_s = 86400.0;
    double start_s = clock_wall_s();
    double start_monotonic_s = clock_monotonic_s();
    setenv("TREX_FAULT", "clock:3=ahead", 1); /* no other point of this process was passed armed */
    assert_true(clock_wall_s() < start_s + 0.5 * day_s);
    assert_true(clock_wall_s() < start_s + 0.5 * day_s);
    assert_true(clock_wall_s() >= start_s + day_s);
    assert_true(clock_wall_s() >= start_s + day_s);
    setenv("TREX_FAULT", "clock=back", 1);
    assert_true(clock_wall_s() < start_s - 0.5 * day_s);
    assert_true(clock_monotonic_s() < start_monotonic_s + 0.5 * day_s);
    assert_false(fault_from("clock", "ahead"));
    assert_false(fault_from("flock", "absent"));
    setenv("TREX_FAULT", "flock=absent", 1);
    assert_true(fault_from("flock", "absent"));
    unsetenv("TREX_FAULT");
    assert_false(fault_from("flock", "absent"));
    assert_true(clock_wall_s() < start_s + 0.5 * day_s);
}

static enum status cut_at_first(void *context, const char *data, size_t len_bytes,
                                struct error *err)
{
    size_t *seen_bytes = context;
    char path[FILE_PATH_BYTES];
    (void)data;
    path_in("cut", path);
    if (*seen_bytes == 0 && truncate(path, 0) != 0) {
        return FAIL_ERRNO(err, "cannot cut %s", path);
    }
    *seen_bytes += len_bytes;
    return *seen_bytes < 1000000 ? STATUS_OK : FAIL(err, STATUS_LIMIT, "enough");
}

static void test_scan_of_a_file_that_is_cut(void **state)
{
    (void)state;
    char path[FILE_PATH_BYTES];
    struct error err = {0};
    size_t seen_bytes = 0;
    char *data = mem_calloc(1 << 20, 1);
    path_in("cut", path);
    assert_int_equal(file_write(path, data, 1 << 20, &err), STATUS_OK);
    assert_int_equal(file_scan(path, cut_at_first, &seen_bytes, &err), STATUS_OK);
    assert_true(seen_bytes > 0 && seen_bytes < 1 << 20);
    assert_int_equal(file_write(path, data, 1 << 20, &err), STATUS_OK);
    assert_int_equal(file_scan(path, cut_at_first, &seen_bytes, &err), STATUS_LIMIT);
    path_in("none", path);
    assert_int_equal(file_scan(path, cut_at_first, &seen_bytes, &err), STATUS_NOT_FOUND);
    free(data);
}

/* ---- log and clock ---- */

static void test_log_lines_are_json(void **state)
{
    (void)state;
    char path[FILE_PATH_BYTES];
    struct error err = {0};
    struct log log;
    path_in("log.jsonl", path);
    log_init(&log, NULL, 3, LOG_INFO);
    assert_int_equal(log_open(&log, path, &err), STATUS_OK);
    log_write(&log, LOG_DEBUG, "base", "left out");
    log_write(&log, LOG_WARNING, "base", "say \"%s\"\n", "hello");
    log_write(NULL, LOG_ERROR, "base", "nowhere");
    log_close(&log);
    struct buffer text;
    buffer_init(&text, 10000);
    assert_int_equal(file_read(path, &text, &err), STATUS_OK);
    cJSON *line = NULL;
    assert_int_equal(json_parse(buffer_text(&text), text.len_bytes, path, &line, &err), STATUS_OK);
    assert_string_equal(cJSON_GetObjectItem(line, "message")->valuestring, "say \"hello\"\n");
    assert_string_equal(cJSON_GetObjectItem(line, "level")->valuestring, "warning");
    assert_int_equal(cJSON_GetObjectItem(line, "rank")->valueint, 3);
    cJSON_Delete(line);
    buffer_fini(&text);
}

/* What a stranger wrote steers no terminal, and breaks no line of JSON. */
static void test_log_blanks_what_steers_a_terminal(void **state)
{
    (void)state;
    char path[FILE_PATH_BYTES];
    char words[256] = "";
    struct error err = {0};
    struct log log;
    cJSON *line = NULL;
    struct buffer text;
    path_in("strange.jsonl", path);
    log_init(&log, fmemopen(words, sizeof(words), "w"), -1, LOG_INFO);
    assert_int_equal(log_open(&log, path, &err), STATUS_OK);
    log_write(&log, LOG_INFO, "net",
              "HTTP 500: \x1B[2Jgone\r\xC2\x9B"
              "1m\x7F\xFF\xC3\xA4\xE2\x82");
    log_close(&log);
    fclose(log.human);
    assert_non_null(strstr(words, "HTTP 500:  [2Jgone   1m \uFFFD\u00E4\uFFFD\uFFFD\n"));
    buffer_init(&text, 10000);
    assert_int_equal(file_read(path, &text, &err), STATUS_OK);
    assert_int_equal(json_parse(buffer_text(&text), text.len_bytes, path, &line, &err), STATUS_OK);
    cJSON_Delete(line);
    buffer_fini(&text);
}

static void test_log_tail_keeps_the_last_whole_lines(void **state)
{
    (void)state;
    struct log log;
    struct log_tail tail = {.len_bytes = 0};
    log_init(&log, NULL, -1, LOG_ERROR);
    log.tail = &tail;
    for (int i = 0; i < 1000; i++) {
        log_write(&log, LOG_DEBUG, "base", "line %d", i);
    }
    assert_true(tail.len_bytes <= sizeof(tail.text));
    assert_memory_equal(tail.text, "line ", 5);
    assert_memory_equal(tail.text + tail.len_bytes - 9, "line 999\n", 9);
    char much[2 * LOG_TAIL_BYTES];
    memset(much, 'x', sizeof(much) - 1);
    much[sizeof(much) - 1] = '\0';
    log_write(&log, LOG_DEBUG, "base", "%s", much);
    assert_int_equal(tail.len_bytes, sizeof(tail.text));
    assert_int_equal(tail.text[0], 'x');
}

static void test_deadlines(void **state)
{
    (void)state;
    assert_false(deadline_passed(deadline_never()));
    assert_true(deadline_passed(deadline_after(-1.0)));
    assert_true(deadline_left_s(deadline_after(100.0)) > 99.0);
    char text[32];
    clock_format_utc(0.0, text, sizeof(text));
    assert_string_equal(text, "1970-01-01T00:00:00Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_keeps_code_place_and_context),
        cmocka_unit_test(test_error_context_cuts_instead_of_overflowing),
        cmocka_unit_test(test_errno_becomes_a_status),
        cmocka_unit_test(test_every_status_has_texts),
        cmocka_unit_test(test_install_lists_every_error),
        cmocka_unit_test(test_buffer_stops_at_its_maximum),
        cmocka_unit_test(test_arena_is_capped_aligned_and_zeroed),
        cmocka_unit_test(test_allocations_fail_in_turn_and_refuse_overflow),
        cmocka_unit_test(test_philox_known_answers),
        cmocka_unit_test(test_rng_resumes_from_its_three_numbers),
        cmocka_unit_test(test_rng_is_uniform_normal_and_unbiased),
        cmocka_unit_test(test_files_are_read_written_mapped_and_hashed),
        cmocka_unit_test(test_bad_paths_are_named),
        cmocka_unit_test(test_commit_keeps_the_previous_generation),
        cmocka_unit_test(test_a_kill_leaves_old_or_new_and_nothing_else),
        cmocka_unit_test(test_faults_fail_delay_and_hang),
        cmocka_unit_test(test_the_wall_clock_can_be_made_to_jump),
        cmocka_unit_test(test_scan_of_a_file_that_is_cut),
        cmocka_unit_test(test_log_lines_are_json),
        cmocka_unit_test(test_log_blanks_what_steers_a_terminal),
        cmocka_unit_test(test_log_tail_keeps_the_last_whole_lines),
        cmocka_unit_test(test_deadlines),
    };
    return cmocka_run_group_tests(tests, make_folder, NULL);
}
