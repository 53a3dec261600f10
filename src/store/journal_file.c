#include "store/journal_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/text.h"

static const char key[] = ",\"xxh3\":\"";
enum { KEY_BYTES = sizeof(key) - 1, SUFFIX_BYTES = KEY_BYTES + HASH_TEXT_BYTES - 1 + 2 /* "} */ };

enum status journal_path(const char *folder, char out[FILE_PATH_BYTES], struct error *err)
{
    return file_join(folder, "journal.jsonl", out, err);
}

/* ---- writing ---- */

/* `json` ends with a brace, which the checksum's key goes before. */
static enum status append_checked(const char *json, size_t length, struct buffer *out,
                                  struct error *err)
{
    char hash[HASH_TEXT_BYTES];
    if (length < 3 || json[0] != '{' || length > JOURNAL_LINE_MAX_BYTES) {
        return FAIL(err, STATUS_INVALID,
                    "an event of %zu bytes, allowed is an object of at most %d", length,
                    JOURNAL_LINE_MAX_BYTES);
    }
    hash_bytes(json, length, hash);
    buffer_append(out, json, length - 1);
    buffer_append(out, key, KEY_BYTES);
    buffer_append_text(out, hash);
    buffer_append_text(out, "\"}\n");
    return buffer_check(out, "events waiting for the journal", err);
}

/* A replayed search must equal the one that was, to the bit: so must the numbers of its events. */
enum status journal_line_append(const cJSON *event, struct buffer *out, struct error *err)
{
    struct buffer json;
    char *repaired = NULL;
    enum status status = STATUS_OK;
    buffer_init(&json, 2 * (size_t)JOURNAL_LINE_MAX_BYTES);
    json_append_line(event, &json);
    TRY_CLEANUP(buffer_check(&json, "an event", err));
    const char *line = buffer_text(&json);
    size_t length = json.len_bytes;
    if (!json_utf8_valid(line, length)) {
        repaired = mem_calloc(3 * length + 1, 1);
        if (repaired == NULL) {
            status = mem_fail(err, 3 * length + 1, "an event");
            goto cleanup;
        }
        length = text_repair(line, length, repaired);
        line = repaired;
    }
    status = append_checked(line, length, out, err);
cleanup:
    free(repaired);
    buffer_fini(&json);
    return status;
}

/* ---- reading ---- */

/* A journal being read. */
struct scanner {
    const char *path;
    int64_t known; /* last event that the reader has from elsewhere */
    journal_event_fn each;
    void *context;
    struct journal_scan scan;
    struct error wrong; /* of a wrong line that is not yet forgiven; else code is STATUS_OK */
};

/* One line of it. */
struct line {
    const char *text; /* without its newline */
    size_t length;
    int64_t number; /* from 1 */
    size_t offset;
};

static enum status fail_line(const struct scanner *scanner, const struct line *line,
                             const char *what, struct error *err)
{
    return FAIL(err, STATUS_CORRUPT,
                "%s:%" PRId64 ": %s; the events before it (up to %" PRId64
                ") are good: remove the lines from this one on to go on from there",
                scanner->path, line->number, what, scanner->scan.last_sequence);
}

/* Checks the checksum and gives the event without it. */
static enum status parse_line(const struct scanner *scanner, const struct line *line, cJSON **event,
                              struct error *err)
{
    char found[HASH_TEXT_BYTES];
    if (line->length <= SUFFIX_BYTES || line->length > JOURNAL_LINE_MAX_BYTES) {
        return fail_line(scanner, line, "not an event", err);
    }
    const char *suffix = line->text + line->length - SUFFIX_BYTES;
    const char *stored = suffix + KEY_BYTES;
    if (memcmp(suffix, key, KEY_BYTES) != 0 ||
        memcmp(stored + HASH_TEXT_BYTES - 1, "\"}", 2) != 0) {
        return fail_line(scanner, line, "an event without a checksum", err);
    }
    size_t length = (size_t)(suffix - line->text) + 1;
    char *json = mem_strndup(line->text, length);
    if (json == NULL) {
        return mem_fail(err, length, "an event");
    }
    json[length - 1] = '}';
    hash_bytes(json, length, found);
    enum status status = STATUS_OK;
    if (memcmp(found, stored, HASH_TEXT_BYTES - 1) != 0) {
        status = fail_line(scanner, line, "the event's checksum is wrong", err);
    } else if (json_parse(json, length, scanner->path, event, err) != STATUS_OK) {
        status = fail_line(scanner, line, "the event is not valid JSON", err);
    }
    free(json);
    return status;
}

/* Whether the event may come now. After a wrong line: only one that the reader needs nothing
 * before. */
static enum status check_order(struct scanner *scanner, const struct line *line, double number,
                               struct error *err)
{
    int64_t last = scanner->scan.last_sequence;
    if (!(number >= 1.0 && number <= 0x1p53)) {
        return fail_line(scanner, line, "an event without a sequence number", err);
    }
    int64_t sequence = (int64_t)number;
    if (scanner->wrong.code != STATUS_OK) {
        if (sequence <= last || sequence > scanner->known + 1) {
            if (err != NULL) {
                *err = scanner->wrong;
            }
            return scanner->wrong.code;
        }
        scanner->wrong.code = STATUS_OK;
        return STATUS_OK;
    }
    if (last != 0 && sequence != last + 1) {
        return fail_line(scanner, line, "an event out of sequence", err);
    }
    return STATUS_OK;
}

static enum status take_event(struct scanner *scanner, const struct line *line, const cJSON *event,
                              struct error *err)
{
    struct journal_scan *scan = &scanner->scan;
    double number = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(event, "sequence"));
    TRY(check_order(scanner, line, number, err));
    int64_t sequence = (int64_t)number;
    if (scanner->each != NULL) {
        TRY(scanner->each(scanner->context, event, sequence, line->offset, err));
    }
    scan->first_sequence = scan->first_sequence != 0 ? scan->first_sequence : sequence;
    scan->last_sequence = sequence;
    scan->good_bytes = line->offset + line->length + 1;
    return STATUS_OK;
}

static enum status take_line(struct scanner *scanner, const struct line *line, struct error *err)
{
    cJSON *event = NULL;
    struct error wrong = {0};
    enum status status = parse_line(scanner, line, &event, &wrong);
    if (status == STATUS_CORRUPT) {
        scanner->scan.wrong_lines++;
        if (scanner->wrong.code == STATUS_OK) {
            scanner->wrong = wrong;
        }
        return STATUS_OK;
    }
    if (status != STATUS_OK) {
        if (err != NULL) {
            *err = wrong;
        }
        return status;
    }
    status = take_event(scanner, line, event, err);
    cJSON_Delete(event);
    return status;
}

static bool only_zeros(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] != '\0') {
            return false;
        }
    }
    return true;
}

enum status journal_scan_text(const char *text, size_t bytes, const char *path, int64_t known,
                              journal_event_fn each, void *context, struct journal_scan *out,
                              struct error *err)
{
    struct scanner scanner = {.path = path, .known = known, .each = each, .context = context};
    struct line line = {text, 0, 0, 0};
    while (line.offset < bytes) {
        line.text = text + line.offset;
        line.number++;
        const char *end = memchr(line.text, '\n', bytes - line.offset);
        if (end == NULL || only_zeros(line.text, bytes - line.offset)) {
            break;
        }
        line.length = (size_t)(end - line.text);
        TRY(take_line(&scanner, &line, err));
        line.offset += line.length + 1;
    }
    if (scanner.wrong.code != STATUS_OK) {
        if (err != NULL) {
            *err = scanner.wrong;
        }
        return scanner.wrong.code;
    }
    scanner.scan.cut_bytes = bytes - scanner.scan.good_bytes;
    *out = scanner.scan;
    return STATUS_OK;
}

enum status journal_scan_file(const char *path, int64_t known, journal_event_fn each, void *context,
                              struct journal_scan *out, struct error *err)
{
    memset(out, 0, sizeof(*out));
    struct buffer text;
    buffer_init(&text, JOURNAL_MAX_BYTES);
    /* Not through a mapping: the writer may shorten the file while it is read. */
    struct error failure = {0};
    enum status status = file_read(path, &text, &failure);
    if (status == STATUS_NOT_FOUND) {
        status = STATUS_OK;
    } else if (status == STATUS_OK) {
        status = journal_scan_text(buffer_text(&text), text.len_bytes, path, known, each, context,
                                   out, err);
    } else if (err != NULL) {
        *err = failure;
    }
    buffer_fini(&text);
    return status;
}
