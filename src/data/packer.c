#include "data/packer.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

/* How an epoch is packed: the sequences come in (shuffled) order; each goes into that one of up to
 * OPEN_BINS open bins where least room is left over (best fit); when none has room and all are
 * open, the fullest is closed. The window keeps planning linear, and what was far apart in the
 * order stays so. */
enum { OPEN_BINS = 64, CURSOR_EPOCHS_MAX = 1024 };

#define PACKER_STREAM UINT64_C(0x7061636B00000000) /* "pack", then the epoch */

/* Which sequences make up which micro-batch.
 *   member      s3 s9 | s0 s7 s1 | ...
 *   bin_start   0       2          5 ... */
struct plan {
    int64_t epoch; /* -1: none yet */
    int64_t bins;
    int64_t *member;    /* (sequences) */
    int64_t *bin_start; /* (bins + 1, at most sequences + 1) */
};

struct packer {
    const struct encoded_dataset *dataset;
    int64_t batch_tokens;
    uint64_t seed;
    bool shuffle;
    double fill;
    struct plan plan;     /* of the epoch that packer_next is in */
    struct plan *scratch; /* of an epoch that packer_batches was asked for */
    int64_t *order;       /* (sequences), while planning */
    int64_t *bin_of;      /* (sequences), while planning */
    int64_t *rank;        /* (sequences): place of a bin in the epoch, while planning */
    int32_t *ids, *positions, *targets; /* (batch_tokens) */
    int32_t *starts;                    /* (most sequences of a batch + 1) */
};

static int64_t sequence_length(const struct encoded_dataset *dataset, int64_t sequence)
{
    return dataset->start[sequence + 1] - dataset->start[sequence];
}

/* ---- planning ---- */

struct open_bin {
    int64_t number;
    int64_t room;
};

/* The bin for a sequence of `length` tokens; opens one, closing the fullest if all are open. */
static struct open_bin *choose_bin(struct open_bin *open, int *open_count, int64_t length,
                                   int64_t batch_tokens, int64_t *bins)
{
    struct open_bin *best = NULL;
    struct open_bin *fullest = NULL;
    for (int i = 0; i < *open_count; i++) {
        struct open_bin *bin = &open[i];
        if (bin->room >= length && (best == NULL || bin->room < best->room)) {
            best = bin;
        }
        if (fullest == NULL || bin->room < fullest->room) {
            fullest = bin;
        }
    }
    if (best == NULL) {
        best = *open_count < OPEN_BINS ? &open[(*open_count)++] : fullest;
        *best = (struct open_bin){(*bins)++, batch_tokens};
    }
    return best;
}

/* Bin of each sequence into packer->bin_of, numbered in the order in which they were opened. */
static int64_t assign_bins(const struct packer *packer)
{
    struct open_bin open[OPEN_BINS];
    int open_count = 0;
    int64_t bins = 0;
    for (int64_t i = 0; i < packer->dataset->count; i++) {
        int64_t length = sequence_length(packer->dataset, packer->order[i]);
        struct open_bin *bin = choose_bin(open, &open_count, length, packer->batch_tokens, &bins);
        bin->room -= length;
        packer->bin_of[i] = bin->number;
    }
    return bins;
}

/* Fills a plan; all memory is there already, so it cannot fail. */
static void plan_epoch(const struct packer *packer, int64_t epoch, struct plan *plan)
{
    int64_t count = packer->dataset->count;
    struct rng rng;
    rng_init(&rng, packer->seed, PACKER_STREAM + (uint64_t)epoch);
    for (int64_t i = 0; i < count; i++) {
        packer->order[i] = i;
    }
    if (packer->shuffle) {
        rng_shuffle(&rng, packer->order, count);
    }
    int64_t bins = assign_bins(packer);
    for (int64_t i = 0; i < bins; i++) {
        packer->rank[i] = i;
    }
    if (packer->shuffle) {
        rng_shuffle(&rng, packer->rank,
                    bins); /* else the emptiest, those left open, would always come last */
    }
    memset(plan->bin_start, 0, ((size_t)bins + 1) * sizeof(*plan->bin_start));
    for (int64_t i = 0; i < count; i++) {
        plan->bin_start[packer->rank[packer->bin_of[i]] + 1]++;
    }
    for (int64_t i = 0; i < bins; i++) {
        plan->bin_start[i + 1] += plan->bin_start[i];
    }
    /* bin_start[b] runs from the bin's start to its end while it is filled, and is then shifted
     * back. */
    for (int64_t i = 0; i < count; i++) {
        plan->member[plan->bin_start[packer->rank[packer->bin_of[i]]]++] = packer->order[i];
    }
    memmove(plan->bin_start + 1, plan->bin_start, (size_t)bins * sizeof(*plan->bin_start));
    plan->bin_start[0] = 0;
    plan->bins = bins;
    plan->epoch = epoch;
}

/* Without shuffling all epochs are epoch 0. */
static int64_t planned_epoch(const struct packer *packer, int64_t epoch)
{
    return packer->shuffle ? epoch : 0;
}

int64_t packer_batches(const struct packer *packer, int64_t epoch)
{
    int64_t wanted = planned_epoch(packer, epoch);
    if (packer->plan.epoch == wanted) {
        return packer->plan.bins;
    }
    if (packer->scratch->epoch != wanted) {
        plan_epoch(packer, wanted, packer->scratch);
    }
    return packer->scratch->bins;
}

/* ---- life ---- */

static void plan_fini(struct plan *plan)
{
    free(plan->member);
    free(plan->bin_start);
}

void packer_destroy(struct packer *packer)
{
    if (packer == NULL) {
        return;
    }
    plan_fini(&packer->plan);
    if (packer->scratch != NULL) {
        plan_fini(packer->scratch);
    }
    free(packer->scratch);
    free(packer->order);
    free(packer->bin_of);
    free(packer->rank);
    free(packer->ids);
    free(packer->positions);
    free(packer->targets);
    free(packer->starts);
    free(packer);
}

static bool plan_init(struct plan *plan, int64_t count)
{
    plan->epoch = -1;
    plan->member = mem_calloc((size_t)count, sizeof(*plan->member));
    plan->bin_start = mem_calloc((size_t)count + 1, sizeof(*plan->bin_start));
    return plan->member != NULL && plan->bin_start != NULL;
}

static bool allocate(struct packer *packer, int64_t count, int64_t batch_tokens)
{
    packer->scratch = mem_calloc(1, sizeof(*packer->scratch));
    if (packer->scratch == NULL || !plan_init(&packer->plan, count) ||
        !plan_init(packer->scratch, count)) {
        return false;
    }
    int64_t most_sequences = count < batch_tokens ? count : batch_tokens;
    packer->order = mem_calloc((size_t)count, sizeof(*packer->order));
    packer->bin_of = mem_calloc((size_t)count, sizeof(*packer->bin_of));
    packer->rank = mem_calloc((size_t)count, sizeof(*packer->rank));
    packer->ids = mem_aligned((size_t)batch_tokens, sizeof(*packer->ids));
    packer->positions = mem_aligned((size_t)batch_tokens, sizeof(*packer->positions));
    packer->targets = mem_aligned((size_t)batch_tokens, sizeof(*packer->targets));
    packer->starts = mem_aligned((size_t)most_sequences + 1, sizeof(*packer->starts));
    return packer->order != NULL && packer->bin_of != NULL && packer->rank != NULL &&
           packer->ids != NULL && packer->positions != NULL && packer->targets != NULL &&
           packer->starts != NULL;
}

enum status packer_create(const struct encoded_dataset *dataset, int64_t batch_tokens,
                          uint64_t seed, bool shuffle, struct packer **out, struct error *err)
{
    if (dataset->count == 0) {
        return FAIL(err, STATUS_INVALID, "no sequences to pack");
    }
    int64_t longest = 0;
    for (int64_t i = 0; i < dataset->count; i++) {
        int64_t length = sequence_length(dataset, i);
        if (length < 1) { /* a batch has room for as many sequences as tokens */
            return FAIL(err, STATUS_INVALID, "sequence %lld has %lld tokens", (long long)i,
                        (long long)length);
        }
        longest = length > longest ? length : longest;
    }
    if (batch_tokens < longest || batch_tokens > INT32_MAX) {
        return FAIL(err, STATUS_RANGE,
                    "batch_tokens is %lld, allowed are %lld (the longest sequence) to %d",
                    (long long)batch_tokens, (long long)longest, INT32_MAX);
    }
    struct packer *packer = mem_calloc(1, sizeof(*packer));
    if (packer == NULL || !allocate(packer, dataset->count, batch_tokens)) {
        packer_destroy(packer);
        return mem_fail(err,
                        (size_t)dataset->count * 7 * sizeof(int64_t) +
                            (size_t)batch_tokens * 4 * sizeof(int32_t),
                        "a packer");
    }
    packer->dataset = dataset;
    packer->batch_tokens = batch_tokens;
    packer->seed = seed;
    packer->shuffle = shuffle;
    plan_epoch(packer, 0, &packer->plan);
    packer->fill =
        (double)dataset->start[dataset->count] / ((double)packer->plan.bins * (double)batch_tokens);
    *out = packer;
    return STATUS_OK;
}

double packer_fill(const struct packer *packer)
{
    return packer->fill;
}

/* ---- batches ---- */

/* Copies one sequence to the end of the batch. The target of an id is the next id, where that is
 * part of an answer. */
static void append_sequence(struct packer *packer, int64_t sequence, struct batch *batch)
{
    const struct encoded_dataset *dataset = packer->dataset;
    int64_t from = dataset->start[sequence];
    int64_t length = sequence_length(dataset, sequence);
    packer->starts[batch->sequences++] = (int32_t)batch->tokens;
    for (int64_t i = 0; i < length; i++) {
        int64_t at = batch->tokens + i;
        bool learned = i + 1 < length && dataset->target[from + i + 1] != 0;
        packer->ids[at] = dataset->ids[from + i];
        packer->positions[at] = (int32_t)i;
        packer->targets[at] = learned ? dataset->ids[from + i + 1] : -1;
        batch->target_count += learned;
    }
    batch->tokens += length;
}

/* Brings a cursor that stands behind its epoch into the epoch where it belongs, and plans that. */
static enum status settle(struct packer *packer, struct packer_cursor *cursor, struct error *err)
{
    if (cursor->epoch < 0 || cursor->batch < 0 ||
        cursor->epoch > INT64_MAX - CURSOR_EPOCHS_MAX - 1) {
        return FAIL(err, STATUS_RANGE, "cursor (epoch %lld, micro-batch %lld) is outside the data",
                    (long long)cursor->epoch, (long long)cursor->batch);
    }
    for (int i = 0; i < CURSOR_EPOCHS_MAX; i++) {
        int64_t wanted = planned_epoch(packer, cursor->epoch);
        if (packer->plan.epoch != wanted) {
            plan_epoch(packer, wanted, &packer->plan);
        }
        if (cursor->batch < packer->plan.bins) {
            return STATUS_OK;
        }
        if (cursor->batch / packer->plan.bins > CURSOR_EPOCHS_MAX) {
            break;
        }
        cursor->batch -= packer->plan.bins;
        cursor->epoch++;
    }
    return FAIL(err, STATUS_RANGE, "cursor stands more than %d epochs behind its own",
                CURSOR_EPOCHS_MAX);
}

enum status packer_next(struct packer *packer, struct packer_cursor *cursor, struct batch *out,
                        struct error *err)
{
    struct packer_cursor at = *cursor;
    TRY(settle(packer, &at, err));
    struct batch batch = {.ids = packer->ids,
                          .positions = packer->positions,
                          .targets = packer->targets,
                          .starts = packer->starts};
    const struct plan *plan = &packer->plan;
    for (int64_t i = plan->bin_start[at.batch]; i < plan->bin_start[at.batch + 1]; i++) {
        append_sequence(packer, plan->member[i], &batch);
    }
    packer->starts[batch.sequences] = (int32_t)batch.tokens;
    *out = batch;
    at.batch++;
    if (at.batch == plan->bins) {
        at = (struct packer_cursor){at.epoch + 1, 0};
    }
    *cursor = at;
    return STATUS_OK;
}
