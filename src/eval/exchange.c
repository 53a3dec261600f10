/* Predictions as bytes, for the way from one rank of a group to another.
 *
 *   header | record, text | record, text | ... */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "eval/eval.h"

struct header {
    char magic[8];
    int64_t rows;    /* of the split */
    int64_t records; /* that follow */
};

struct record {
    int64_t row;
    int64_t answer_tokens;
    double answer_nats;
    uint32_t text_bytes;
    uint8_t truncated;
    uint8_t unfinished;
    uint8_t zero[2];
};

static const char magic[8] = {'e', 'v', 'a', 'l', 'p', 'r', 'd', '1'};

enum status eval_predictions_pack(const struct eval_predictions *predictions, struct buffer *out,
                                  struct error *err)
{
    struct header header = {.rows = predictions->count};
    memcpy(header.magic, magic, sizeof(magic));
    for (int64_t i = 0; i < predictions->count; i++) {
        header.records += predictions->rows[i].output != NULL;
    }
    buffer_append(out, &header, sizeof(header));
    for (int64_t i = 0; i < predictions->count; i++) {
        const struct eval_prediction *prediction = &predictions->rows[i];
        if (prediction->output == NULL) {
            continue;
        }
        size_t text_bytes = strlen(prediction->output);
        if (text_bytes > INT32_MAX) {
            return FAIL(err, STATUS_LIMIT, "the output of row %lld is larger than 2 GiB",
                        (long long)i);
        }
        struct record record = {.row = i,
                                .answer_tokens = prediction->answer_tokens,
                                .answer_nats = prediction->answer_nats,
                                .text_bytes = (uint32_t)text_bytes,
                                .truncated = prediction->truncated,
                                .unfinished = prediction->unfinished};
        buffer_append(out, &record, sizeof(record));
        buffer_append(out, prediction->output, text_bytes);
    }
    return buffer_check(out, "packed predictions", err);
}

/* Takes one record from the front of data into its row. */
static enum status take_record(struct eval_predictions *predictions, const char **data,
                               size_t *left, struct error *err)
{
    struct record record;
    if (*left < sizeof(record)) {
        return FAIL(err, STATUS_CORRUPT, "packed predictions are cut short");
    }
    memcpy(&record, *data, sizeof(record));
    *data += sizeof(record);
    *left -= sizeof(record);
    if (record.row < 0 || record.row >= predictions->count || record.answer_tokens < 0 ||
        record.text_bytes > *left || memchr(*data, '\0', record.text_bytes) != NULL) {
        return FAIL(err, STATUS_CORRUPT, "packed predictions: no valid record for row %lld",
                    (long long)record.row);
    }
    struct eval_prediction *prediction = &predictions->rows[record.row];
    if (prediction->output != NULL) {
        return FAIL(err, STATUS_CORRUPT, "packed predictions: row %lld comes twice",
                    (long long)record.row);
    }
    prediction->output = mem_strndup(*data, record.text_bytes);
    if (prediction->output == NULL) {
        return mem_fail(err, record.text_bytes, "an output");
    }
    prediction->answer_tokens = record.answer_tokens;
    prediction->answer_nats = record.answer_nats;
    prediction->truncated = record.truncated != 0;
    prediction->unfinished = record.unfinished != 0;
    *data += record.text_bytes;
    *left -= record.text_bytes;
    return STATUS_OK;
}

enum status eval_predictions_unpack(struct eval_predictions *predictions, const void *data,
                                    size_t len_bytes, struct error *err)
{
    struct header header;
    const char *bytes = data;
    size_t left = len_bytes;
    if (left < sizeof(header)) {
        return FAIL(err, STATUS_CORRUPT, "packed predictions are cut short");
    }
    memcpy(&header, bytes, sizeof(header));
    bytes += sizeof(header);
    left -= sizeof(header);
    if (memcmp(header.magic, magic, sizeof(magic)) != 0 || header.rows != predictions->count ||
        header.records < 0 || header.records > header.rows) {
        return FAIL(err, STATUS_CORRUPT, "not packed predictions of %lld rows",
                    (long long)predictions->count);
    }
    for (int64_t i = 0; i < header.records; i++) {
        TRY(take_record(predictions, &bytes, &left, err));
    }
    if (left != 0) {
        return FAIL(err, STATUS_CORRUPT, "packed predictions are followed by %zu bytes", left);
    }
    return STATUS_OK;
}
