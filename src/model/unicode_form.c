#include "model/unicode_form.h"

#include <stdlib.h>
#include <utf8proc.h>

#include "base/mem.h"

/* A decomposition has at most 18 code points (U+FDFA). */
enum { DECOMPOSED_MAX = 18, INSERTION_MAX = 16, CLASS_COUNT = 256 };

struct range {
    uint32_t first;
    uint32_t last;
};

/* Blocks of frequent characters that NFC never changes and that never join a character before them.
 * A shortcut: what is missing here is normalized, and stays as it is. */
static const struct range inert_ranges[] = {
    {0x0000, 0x02FF}, {0x0388, 0x0482}, {0x048A, 0x058F}, {0x1E00, 0x1F70},
    {0x2010, 0x2027}, {0x2030, 0x205E}, {0x20A0, 0x20BF}, {0x2190, 0x2328},
    {0x2460, 0x2ADB}, {0x3001, 0x3029}, {0x3041, 0x3096}, {0x30A0, 0x30FF},
    {0x3400, 0x9FFF}, {0xAC00, 0xD7A3}, {0xFF00, 0xFFEF}, {0x1F300, 0x1FAFF},
};

static bool is_inert(uint32_t point, enum unicode_form form)
{
    if (point < 0x80) {
        return true;
    }
    if (form != UNICODE_NFC) {
        return false;
    }
    for (size_t i = 0; i < sizeof(inert_ranges) / sizeof(inert_ranges[0]); i++) {
        if (point <= inert_ranges[i].last) {
            return point >= inert_ranges[i].first;
        }
    }
    return false;
}

void unicode_scratch_fini(struct unicode_scratch *scratch)
{
    free(scratch->points);
    free(scratch->sorted);
    memset(scratch, 0, sizeof(*scratch));
}

static enum status reserve(int32_t **points, size_t *capacity, size_t count, struct error *err)
{
    if (count <= *capacity) {
        return STATUS_OK;
    }
    size_t larger = *capacity > 0 ? 2 * *capacity : 256;
    larger = larger < count ? count : larger;
    int32_t *moved = mem_realloc(*points, larger, sizeof(**points));
    if (moved == NULL) {
        return mem_fail(err, larger * sizeof(**points), "the normal form of a text");
    }
    *points = moved;
    *capacity = larger;
    return STATUS_OK;
}

/* End of the first run of inert characters from `at`. */
static size_t skip_inert(struct text_slice text, size_t at, enum unicode_form form)
{
    while (at < text.len_bytes) {
        size_t len = 1;
        if (!is_inert(text_code_point(text.data + at, &len), form)) {
            break;
        }
        at += len;
    }
    return at;
}

/* End of the first run of characters from `at` that are not inert. */
static size_t skip_active(struct text_slice text, size_t at, enum unicode_form form)
{
    while (at < text.len_bytes) {
        size_t len = 1;
        if (is_inert(text_code_point(text.data + at, &len), form)) {
            break;
        }
        at += len;
    }
    return at;
}

size_t unicode_form_inert(struct text_slice text, enum unicode_form form)
{
    size_t at = skip_inert(text, 0, form);
    return at == text.len_bytes || at == 0
               ? at
               : text_previous(text.data, at); /* the last one may take up a mark */
}

static int combining_class(int32_t point)
{
    return utf8proc_get_property(point)->combining_class;
}

/* Sorts a run of marks by combining class, keeping the order of equals. */
static enum status sort_marks(int32_t *marks, size_t count, struct unicode_scratch *scratch,
                              struct error *err)
{
    if (count <= INSERTION_MAX) {
        for (size_t i = 1; i < count; i++) {
            int32_t mark = marks[i];
            size_t k = i;
            for (; k > 0 && combining_class(marks[k - 1]) > combining_class(mark); k--) {
                marks[k] = marks[k - 1];
            }
            marks[k] = mark;
        }
        return STATUS_OK;
    }
    size_t starts[CLASS_COUNT + 1] = {0};
    TRY(reserve(&scratch->sorted, &scratch->sorted_capacity, count, err));
    for (size_t i = 0; i < count; i++) {
        starts[combining_class(marks[i]) + 1]++;
    }
    for (int class = 0; class < CLASS_COUNT; class ++) {
        starts[class + 1] += starts[class];
    }
    for (size_t i = 0; i < count; i++) {
        scratch->sorted[starts[combining_class(marks[i])]++] = marks[i];
    }
    memcpy(marks, scratch->sorted, count * sizeof(*marks));
    return STATUS_OK;
}

static enum status order_marks(struct unicode_scratch *scratch, size_t count, struct error *err)
{
    size_t at = 0;
    while (at < count) {
        size_t begin = at;
        while (at < count && combining_class(scratch->points[at]) != 0) {
            at++;
        }
        if (at - begin > 1) {
            TRY(sort_marks(scratch->points + begin, at - begin, scratch, err));
        }
        at += at == begin;
    }
    return STATUS_OK;
}

/* Fills scratch->points with the decomposition of text. */
static enum status decompose(struct text_slice text, utf8proc_option_t options,
                             struct unicode_scratch *scratch, size_t *count, struct error *err)
{
    *count = 0;
    for (size_t at = 0; at < text.len_bytes;) {
        size_t len = 1;
        int32_t point = (int32_t)text_code_point(text.data + at, &len);
        TRY(reserve(&scratch->points, &scratch->points_capacity, *count + DECOMPOSED_MAX, err));
        int boundary = 0;
        utf8proc_ssize_t added = utf8proc_decompose_char(point, scratch->points + *count,
                                                         DECOMPOSED_MAX, options, &boundary);
        if (added < 0 || added > DECOMPOSED_MAX) {
            return FAIL(err, STATUS_INTERNAL, "decomposing U+%04X: %s", (unsigned)point,
                        utf8proc_errmsg(added));
        }
        *count += (size_t)added;
        at += len;
    }
    return STATUS_OK;
}

static enum status append_active(struct text_slice text, enum unicode_form form,
                                 struct unicode_scratch *scratch, struct buffer *out,
                                 struct error *err)
{
    bool compose = form == UNICODE_NFC || form == UNICODE_NFKC;
    bool compatible = form == UNICODE_NFKC || form == UNICODE_NFKD;
    unsigned options = UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                       (compatible ? UTF8PROC_COMPAT : 0u);
    size_t count = 0;
    TRY(decompose(text, (utf8proc_option_t)options, scratch, &count, err));
    TRY(order_marks(scratch, count, err));
    if (compose) {
        count = (size_t)utf8proc_normalize_utf32(scratch->points, (utf8proc_ssize_t)count,
                                                 (utf8proc_option_t)options);
    }
    for (size_t i = 0; i < count; i++) {
        utf8proc_uint8_t bytes[4];
        utf8proc_ssize_t len = utf8proc_encode_char(scratch->points[i], bytes);
        buffer_append(out, bytes, (size_t)len);
    }
    return STATUS_OK;
}

enum status unicode_form_append(struct text_slice text, enum unicode_form form,
                                struct unicode_scratch *scratch, struct buffer *out,
                                struct error *err)
{
    size_t at = 0;
    while (at < text.len_bytes) {
        size_t active = skip_inert(text, at, form);
        /* A mark may join the inert character before it, so that one is normalized together with
         * it. */
        size_t begin =
            active < text.len_bytes && active > at ? text_previous(text.data, active) : active;
        buffer_append(out, text.data + at, begin - at);
        at = skip_active(text, active, form);
        struct text_slice changing = {.data = text.data + begin, .len_bytes = at - begin};
        TRY(append_active(changing, form, scratch, out, err));
    }
    if (out->failed) {
        return mem_fail(err, text.len_bytes, "the normal form of a text");
    }
    return STATUS_OK;
}
