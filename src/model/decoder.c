/* Calls of the decoder: checked, cut into passes, and their tokens brought back. */
#include "model/decoder.h"

#include <string.h>

#include "model/decoder_parts.h"

/* ---- checks ---- */

static enum status check_entry(const struct decoder *decoder, int64_t entry, int32_t slot,
                               int32_t position, int32_t count, struct error *err)
{
    if (slot < 0 || slot >= decoder->options.slots || decoder->taken[slot]) {
        return FAIL(err, STATUS_RANGE, "entry %lld has slot %d, allowed are 0 to %lld, each once",
                    (long long)entry, slot, (long long)decoder->options.slots - 1);
    }
    if (position < 0 || position > decoder->length[slot]) {
        return FAIL(err, STATUS_RANGE,
                    "entry %lld starts at position %d, slot %d has %lld positions",
                    (long long)entry, position, slot, (long long)decoder->length[slot]);
    }
    if (count < 1 || count > decoder->options.capacity - position) {
        return FAIL(err, STATUS_RANGE,
                    "entry %lld has %d ids from position %d on, there is room for %lld",
                    (long long)entry, count, position, (long long)decoder->options.capacity);
    }
    return STATUS_OK;
}

static enum status check_feed(struct decoder *decoder, const struct feed *feed, struct error *err)
{
    const int64_t vocabulary = feed->network->config->vocab_size;
    const int64_t entries = feed->entries;
    const int32_t *ids = feed->ids;
    if (entries < 1 || entries > decoder->options.slots) {
        return FAIL(err, STATUS_RANGE, "%lld entries, allowed are 1 to %lld", (long long)entries,
                    (long long)decoder->options.slots);
    }
    memset(decoder->taken, 0, (size_t)decoder->options.slots * sizeof(*decoder->taken));
    int64_t next = 0;
    for (int64_t entry = 0; entry < entries; entry++) {
        int32_t count = feed->count[entry];
        TRY(check_entry(decoder, entry, feed->slot[entry], feed->position[entry], count, err));
        decoder->taken[feed->slot[entry]] = true;
        for (int64_t i = next; i < next + count; i++) {
            if (ids[i] < 0 || ids[i] >= vocabulary) {
                return FAIL(err, STATUS_RANGE, "entry %lld has id %d, allowed are 0 to %lld",
                            (long long)entry, ids[i], (long long)vocabulary - 1);
            }
        }
        next += count;
    }
    return STATUS_OK;
}

/* ---- passes ---- */

/* Where the cutting of entries into passes stands. */
struct cursor {
    int64_t entry; /* the one at hand */
    int32_t done;  /* of its ids */
    int64_t next;  /* in ids */
};

/* Ids of one entry, one after the other. */
struct piece {
    const int32_t *ids;
    int32_t slot;
    int32_t position; /* of the first */
    int32_t count;
    bool ends; /* its entry */
};

/* Up to `room` ids of the entry at hand. */
static struct piece take_piece(const struct feed *feed, struct cursor *cursor, int64_t room)
{
    int32_t left = feed->count[cursor->entry] - cursor->done;
    struct piece piece = {
        .ids = feed->ids + cursor->next,
        .slot = feed->slot[cursor->entry],
        .position = feed->position[cursor->entry] + cursor->done,
        .count = left < room ? left : (int32_t)room,
        .ends = left <= room,
    };
    cursor->next += piece.count;
    cursor->done += piece.count;
    if (piece.ends) {
        cursor->entry++;
        cursor->done = 0;
    }
    return piece;
}

/* What the pass from the cursor on holds: up to R ids. */
static struct pass plan_pass(struct decoder *decoder, const struct feed *feed, struct cursor cursor)
{
    struct pass pass = {.decoder = decoder, .feed = feed, .entry = cursor.entry};
    while (pass.rows < decoder->rows && cursor.entry < feed->entries) {
        struct piece piece = take_piece(feed, &cursor, decoder->rows - pass.rows);
        pass.pieces++;
        pass.rows += piece.count;
        pass.sampled += piece.ends ? 1 : 0;
        pass.packed++;
        if (piece.position > 0) {
            pass.looking = pass.rows;
            pass.packed = 0;
        }
    }
    if (pass.rows == pass.pieces) { /* a step, of new sequences too: always the same operations */
        pass.looking = pass.rows;
        pass.packed = 0;
    }
    return pass;
}

/* Writes the numbers of the pass, which begins at the cursor, and brings them to the device. */
static void upload_pass(struct pass *pass, struct cursor *cursor)
{
    struct decoder *decoder = pass->decoder;
    const struct feed *feed = pass->feed;
    struct pass_numbers host = pass_lay_out(decoder->staging, pass);
    int64_t row = 0;
    int64_t sampled = 0;
    for (int64_t p = 0; p < pass->pieces; p++) {
        const int64_t packed = p - (pass->pieces - pass->packed);
        struct piece piece = take_piece(feed, cursor, pass->rows - row);
        if (packed >= 0) {
            host.starts[packed] = (int32_t)(row - pass->looking);
        }
        for (int32_t i = 0; i < piece.count; i++, row++) {
            host.ids[row] = piece.ids[i];
            host.positions[row] = piece.position + i;
            host.slots[row] = piece.slot;
        }
        if (piece.ends) {
            const float *uniform = feed->uniform;
            host.wanted[sampled] = (int32_t)row - 1;
            host.uniform[sampled] = uniform != NULL ? uniform[pass->entry + sampled] : 0.0f;
            sampled++;
        }
    }
    host.starts[pass->packed] = (int32_t)(row - pass->looking);
    pass->device = pass_lay_out(decoder->numbers, pass);
    decoder->device->ops->upload(decoder->device, decoder->numbers, decoder->staging,
                                 (size_t)host.count * sizeof(*decoder->staging));
}

enum status decoder_feed(struct decoder *decoder, const struct network *network, const int32_t *ids,
                         const int32_t *slot, const int32_t *position, const int32_t *count,
                         int64_t entries, const struct sampling *sampling, const float *uniform,
                         int32_t *token, struct error *err)
{
    const struct ops *ops = decoder->device->ops;
    const struct feed feed = {network, ids, slot, position, count, entries, sampling, uniform};
    TRY(check_feed(decoder, &feed, err));
    struct cursor cursor = {0, 0, 0};
    while (cursor.entry < entries) {
        struct pass pass = plan_pass(decoder, &feed, cursor);
        upload_pass(&pass, &cursor);
        decoder_run_pass(&pass);
    }
    ops->download(decoder->device, token, decoder->sample.token, (size_t)entries * sizeof(*token));
    TRY(ops->check(decoder->device, err));
    for (int64_t entry = 0; entry < entries; entry++) {
        decoder->length[slot[entry]] = position[entry] + count[entry];
    }
    return STATUS_OK;
}
