/* The journal: what was on disk before a kill is there after it; damage is found, cut lines are
 * dropped. */
#include "store/sample.h"

#include <sys/resource.h>

#include "store/journal_file.h"

static struct journal *open_journal(const char *folder, int64_t last)
{
    struct journal *journal = NULL;
    struct error err = {0};
    if (journal_open(folder, NULL, last, &journal, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return journal;
}

static void write_events(const char *folder, int64_t first, int64_t last)
{
    struct journal *journal = open_journal(folder, first - 1);
    sample_append(journal, first, last);
    assert_int_equal(journal_flush(journal, NULL), STATUS_OK);
    int64_t durable = 0;
    assert_int_equal(journal_durable(journal, &durable, NULL), STATUS_OK);
    assert_int_equal(durable, last);
    journal_close(journal);
}

static void read_journal(const char *folder, struct buffer *out)
{
    char path[FILE_PATH_BYTES];
    sample_path(folder, "journal.jsonl", path);
    sample_read(path, out);
}

static void write_journal(const char *folder, const char *data, size_t bytes)
{
    char path[FILE_PATH_BYTES];
    sample_path(folder, "journal.jsonl", path);
    sample_write(path, data, bytes);
}

static void test_events_come_back(void **state)
{
    write_events(*state, 1, 20);
    assert_folder_holds(*state, 20, 20);
    write_events(*state, 21, 50);
    assert_folder_holds(*state, 50, 50);
}

static void test_wrong_sequence_is_refused(void **state)
{
    struct journal *journal = open_journal(*state, 0);
    struct error err = {0};
    assert_int_equal(journal_append(journal, sample_event(2), &err), STATUS_INVALID);
    assert_int_equal(journal_append(journal, cJSON_CreateObject(), &err), STATUS_INVALID);
    assert_int_equal(journal_append(journal, sample_event(1), &err), STATUS_OK);
    journal_close(journal);
    assert_folder_holds(*state, 1, 1);
    /* The caller does not know event 1: it must not write it again. */
    assert_int_equal(journal_open(*state, NULL, 0, &journal, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "journal.jsonl"));
}

/* What is on disk comes back, in order, and nothing else does. */
static void test_events_are_given_back(void **state)
{
    struct journal *journal = open_journal(*state, 0);
    assert_null(journal_take(journal));
    sample_append(journal, 1, 30);
    assert_int_equal(journal_flush(journal, NULL), STATUS_OK);
    for (int64_t i = 1; i <= 20; i++) {
        cJSON *event = journal_take(journal);
        cJSON *wanted = sample_event(i);
        assert_true(cJSON_Compare(event, wanted, true));
        cJSON_Delete(event);
        cJSON_Delete(wanted);
    }
    sample_append(journal, 31, 40); /* the rest is freed with the journal */
    journal_close(journal);
    assert_folder_holds(*state, 40, 40);
}

static void test_close_flushes(void **state)
{
    struct journal *journal = open_journal(*state, 0);
    sample_append(journal, 1, 200);
    journal_close(journal);
    assert_folder_holds(*state, 200, 200);
    journal_close(NULL);
}

/* Every line is JSON for other tools, its checksum the last key. */
static void test_lines_are_json(void **state)
{
    struct buffer text;
    cJSON *object = NULL;
    write_events(*state, 1, 3);
    read_journal(*state, &text);
    size_t length = strcspn(text.data, "\n");
    assert_int_equal(json_parse(text.data, length, "line", &object, NULL), STATUS_OK);
    assert_non_null(cJSON_GetObjectItem(object, "xxh3"));
    cJSON_Delete(object);
    buffer_fini(&text);
}

/* A model's output may be no UTF-8; the line must be. */
static void test_text_that_is_not_utf8(void **state)
{
    struct journal *journal = open_journal(*state, 0);
    struct search found;
    char note[256];
    cJSON *event = sample_event(1);
    cJSON_ReplaceItemInObject(event, "metric", cJSON_CreateString("a\xC3(\xFF"));
    assert_int_equal(journal_append(journal, event, NULL), STATUS_OK);
    journal_close(journal);
    struct error err = {0};
    if (store_run_load(*state, &found, note, sizeof(note), &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_string_equal(found.identity.metric, "a\xEF\xBF\xBD(\xEF\xBF\xBD");
    search_fini(&found);
}

/* Cut anywhere, the journal gives the events before the cut, and goes on from there. */
static void test_cut_anywhere(void **state)
{
    struct buffer whole;
    write_events(*state, 1, 8);
    read_journal(*state, &whole);
    size_t line_start = 0;
    int64_t lines = 0;
    for (size_t length = 0; length <= whole.len_bytes; length++) {
        if (length > 0 && whole.data[length - 1] == '\n') {
            line_start = length;
            lines++;
        } else if (length != line_start && length % 13 != 0) {
            continue; /* not every byte: time */
        }
        write_journal(*state, whole.data, length);
        if (lines == 0) {
            struct search found;
            char note[64];
            assert_int_equal(store_run_load(*state, &found, note, sizeof(note), NULL),
                             STATUS_NOT_FOUND);
        } else {
            assert_folder_holds(*state, lines, lines);
        }
    }
    write_journal(*state, whole.data, line_start - 20);
    write_events(*state, 8, 9);
    assert_folder_holds(*state, 9, 9);
    buffer_fini(&whole);
}

/* Some file systems leave zeros where a power failure cut a write. */
static void test_zeros_at_the_end(void **state)
{
    struct buffer whole;
    write_events(*state, 1, 8);
    read_journal(*state, &whole);
    for (int i = 0; i < 5000; i++) {
        buffer_append_char(&whole, '\0');
    }
    write_journal(*state, whole.data, whole.len_bytes);
    assert_folder_holds(*state, 8, 8);
    write_events(*state, 9, 12);
    assert_folder_holds(*state, 12, 12);
    buffer_fini(&whole);
}

static void expect_corrupt(const char *folder, const char *text)
{
    struct search found;
    struct error err = {0};
    char note[64];
    enum status status = store_run_load(folder, &found, note, sizeof(note), &err);
    if (status != STATUS_CORRUPT) {
        fail_msg("found %s %s", status_name(status), err.message);
    }
    if (strstr(err.message, text) == NULL) {
        fail_msg("\"%s\" does not say %s", err.message, text);
    }
}

static void test_damage_in_the_middle(void **state)
{
    struct buffer whole;
    write_events(*state, 1, 8);
    read_journal(*state, &whole);
    size_t second = strcspn(whole.data, "\n") + 1;

    char before = whole.data[second + 30];
    whole.data[second + 30] = '#';
    write_journal(*state, whole.data, whole.len_bytes);
    expect_corrupt(*state, "journal.jsonl:2: the event's checksum is wrong");
    whole.data[second + 30] = before;

    /* A line is missing. */
    size_t third = second + strcspn(whole.data + second, "\n") + 1;
    struct buffer shorter;
    buffer_init(&shorter, whole.len_bytes);
    buffer_append(&shorter, whole.data, second);
    buffer_append(&shorter, whole.data + third, whole.len_bytes - third);
    write_journal(*state, shorter.data, shorter.len_bytes);
    expect_corrupt(*state, "journal.jsonl:2: an event out of sequence");

    /* The beginning is missing. */
    write_journal(*state, whole.data + second, whole.len_bytes - second);
    expect_corrupt(*state, "begins with event 2");

    /* Something else altogether. */
    write_journal(*state, "hello\n", 6);
    expect_corrupt(*state, "not an event");
    buffer_clear(&shorter);
    for (int i = 0; i < 40; i++) {
        buffer_append_text(&shorter, "{}{}{}{}");
    }
    buffer_append_text(&shorter, "\n");
    write_journal(*state, shorter.data, shorter.len_bytes);
    expect_corrupt(*state, "without a checksum");
    buffer_fini(&shorter);
    buffer_fini(&whole);
}

/* A wrong line that the run file makes superfluous is no reason to stop. */
static void test_damage_before_the_run_file(void **state)
{
    struct buffer whole;
    struct search search;
    write_events(*state, 1, 20);
    sample_search(&search, 10);
    assert_int_equal(store_run_save(*state, &search, NULL), STATUS_OK);
    search_fini(&search);
    read_journal(*state, &whole);
    size_t second = strcspn(whole.data, "\n") + 1;
    whole.data[second + 30] = '#';
    write_journal(*state, whole.data, whole.len_bytes);
    assert_folder_holds(*state, 20, 20);
    write_events(*state, 21, 22);
    assert_folder_holds(*state, 22, 22);
    struct journal *journal = open_journal(*state, 22);
    assert_int_equal(journal_rotate(journal, 9, NULL), STATUS_OK);
    journal_close(journal);
    assert_folder_holds(*state, 22, 22);
    buffer_fini(&whole);
}

/* An event that is whole but that the search refuses. */
static void test_event_that_does_not_fit(void **state)
{
    struct buffer line;
    buffer_init(&line, 1 << 20);
    cJSON *event = sample_event(1);
    assert_int_equal(journal_line_append(event, &line, NULL), STATUS_OK);
    cJSON_Delete(event);
    event = sample_event(4); /* starts a candidate of a node that is not there */
    cJSON_ReplaceItemInObject(event, "sequence", cJSON_CreateNumber(2));
    assert_int_equal(journal_line_append(event, &line, NULL), STATUS_OK);
    cJSON_Delete(event);
    write_journal(*state, line.data, line.len_bytes);
    expect_corrupt(*state, "event 2");
    buffer_fini(&line);
}

static void test_rotation(void **state)
{
    struct search search;
    struct journal *journal = open_journal(*state, 0);
    sample_append(journal, 1, 30);
    assert_int_equal(journal_flush(journal, NULL), STATUS_OK);
    sample_search(&search, 30);
    assert_int_equal(store_run_save(*state, &search, NULL), STATUS_OK);
    assert_int_equal(journal_rotate(journal, 20, NULL), STATUS_OK);
    assert_folder_holds(*state, 30, 30);
    sample_append(journal, 31, 40);                                 /* to the new file */
    assert_int_equal(journal_rotate(journal, 20, NULL), STATUS_OK); /* nothing to drop */
    assert_int_equal(journal_flush(journal, NULL), STATUS_OK);
    assert_folder_holds(*state, 40, 40);
    assert_int_equal(journal_rotate(journal, 40, NULL), STATUS_OK);
    assert_folder_holds(*state, 30, 30); /* as it was asked for: all of them */
    journal_close(journal);
    search_fini(&search);
}

/* The run file may be ahead: its events are in there, and a gap in the journal would be worse. */
static void test_run_file_ahead_of_the_journal(void **state)
{
    struct search search;
    write_events(*state, 1, 10);
    sample_search(&search, 30);
    assert_int_equal(store_run_save(*state, &search, NULL), STATUS_OK);
    search_fini(&search);
    write_events(*state, 31, 35);
    assert_folder_holds(*state, 35, 35);
}

/* A full disk: an error that stays, the events before it safe, and a new start works. */
static enum status write_to_full_disk(const char *folder, struct error *err)
{
    struct journal *journal = NULL;
    TRY(journal_open(folder, NULL, 10, &journal, err));
    struct rlimit limit = {0, 0};
    char path[FILE_PATH_BYTES];
    TRY(file_join(folder, "journal.jsonl", path, err));
    limit.rlim_cur = limit.rlim_max = (rlim_t)file_size_bytes(path) + 100;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    for (int64_t i = 11; i <= 15; i++) {
        journal_append(journal, sample_event(i), NULL);
    }
    enum status status = journal_flush(journal, err);
    struct error again = {0};
    if (journal_append(journal, sample_event(16), &again) != status) {
        return STATUS_INTERNAL; /* the failure must stay */
    }
    if (journal_rotate(journal, 5, &again) != status) {
        return STATUS_INTERNAL;
    }
    int64_t durable = 0;
    if (journal_durable(journal, &durable, &again) != status || durable != 10) {
        return STATUS_INTERNAL;
    }
    if (journal_take(journal) != NULL) {
        return STATUS_INTERNAL; /* not on disk */
    }
    journal_close(journal);
    return status;
}

static void test_full_disk(void **state)
{
    write_events(*state, 1, 10);
    int ended = sample_run(NULL, write_to_full_disk, *state);
    assert_true(ended == STATUS_IO || ended == STATUS_NO_SPACE);
    assert_folder_holds(*state, 10, 10);
    write_events(*state, 11, 20);
    assert_folder_holds(*state, 20, 20);
}

static void test_unusable_folder(void **state)
{
    struct journal *journal = NULL;
    struct error err = {0};
    char path[FILE_PATH_BYTES];
    assert_int_equal(journal_open("/no/such/folder", NULL, 0, &journal, &err), STATUS_NOT_FOUND);
    sample_path(*state, "journal.jsonl", path);
    assert_int_equal(file_make_folders(path, NULL), STATUS_OK);
    assert_int_not_equal(journal_open(*state, NULL, 0, &journal, &err), STATUS_OK);
    assert_non_null(strstr(err.message, path));
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, sample_setup, sample_teardown)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_events_come_back),
        IN_FOLDER(test_wrong_sequence_is_refused),
        IN_FOLDER(test_events_are_given_back),
        IN_FOLDER(test_close_flushes),
        IN_FOLDER(test_lines_are_json),
        IN_FOLDER(test_text_that_is_not_utf8),
        IN_FOLDER(test_cut_anywhere),
        IN_FOLDER(test_zeros_at_the_end),
        IN_FOLDER(test_damage_in_the_middle),
        IN_FOLDER(test_damage_before_the_run_file),
        IN_FOLDER(test_event_that_does_not_fit),
        IN_FOLDER(test_rotation),
        IN_FOLDER(test_run_file_ahead_of_the_journal),
        IN_FOLDER(test_full_disk),
        IN_FOLDER(test_unusable_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
