/* The decoder's memory and the plan of a pass, shared by its files. Private to this room. */
#ifndef MODEL_DECODER_PARTS_H
#define MODEL_DECODER_PARTS_H

#include "model/decoder.h"
#include "model/network.h"

/* All on the device; R rows at a time. */
struct row_room {
    struct tensor residual[2]; /* (R,C): they take turns */
    struct tensor norm;        /* (R,C) */
    struct tensor qkv;         /* (R,(H+2K)*D) */
    float *qk_rstd;            /* (R,H+K) with qk_norm */
    struct tensor attention;   /* (R,H*D) */
    struct tensor gate_up;     /* (R,2F) */
    struct tensor act;         /* (R,F) */
    struct tensor u;           /* (R, widest u of the adapters) */
};

struct sample_room {
    int64_t rows;         /* of logits at a time */
    struct tensor in;     /* (rows,C) */
    struct tensor norm;   /* (rows,C) */
    struct tensor logits; /* (rows,V) f32 */
    int32_t *token;       /* (B) by entry */
};

/* Decoding steps are the same operations on the same memory every time, so that a device can record
 * them: one recording for each number of rows, as long as sampling and network stay the same. */
struct step_recording {
    struct recording *recording; /* the device's; NULL: none yet */
    int passes;                  /* of so many rows that were run without */
};

/* What recordings were made for. */
struct recorded_for {
    struct sampling sampling;
    struct lora_config lora; /* with adapter */
    const struct model_config *config;
    const struct param_table *table;
    const struct param_table *adapter_table; /* NULL without adapter, as the next */
    const void *weights;
    const void *adapter;
};

struct decoder {
    struct device *device;
    struct decoder_options options;
    enum dtype compute;
    int64_t rows; /* R */
    int64_t layers;
    int64_t bytes;
    void *block;
    struct tensor cos_sin;   /* (T,D) f32 */
    struct kv_cache *caches; /* (L) */
    struct row_room room;
    struct sample_room sample;
    int32_t *numbers;             /* device: what a pass reads from the host, see pass_lay_out */
    int32_t *staging;             /* host: the same */
    int64_t *length;              /* (B) positions that each slot has */
    bool *taken;                  /* (B) scratch: slots of this call */
    struct step_recording *steps; /* (B) that of n rows at n - 1 */
    struct recorded_for recorded_for;
};

/* What decoder_feed was called with. */
struct feed {
    const struct network *network;
    const int32_t *ids;
    const int32_t *slot;
    const int32_t *position;
    const int32_t *count;
    int64_t entries;
    const struct sampling *sampling;
    const float *uniform; /* NULL: greedy */
};

/* The whole numbers of a pass, and the random ones: on the host, or at the same places on the
 * device. */
struct pass_numbers {
    int32_t *ids;       /* (rows) */
    int32_t *positions; /* (rows) */
    int32_t *slots;     /* (rows) */
    int32_t *wanted;    /* (sampled) rows that end an entry */
    float *uniform;     /* (sampled) */
    int32_t *starts;    /* (packed + 1) of the packed pieces, from row `looking` on */
    int64_t count;      /* of all */
};

/* One pass: the rows that are computed together. It takes pieces of entries in their order, all
 * whole but for the first, whose beginning an earlier pass had, and the last, whose end a later one
 * gets.
 *
 *   rows  | looking: any positions, attend to the cache | packed: pieces that begin at position 0 |
 *
 * A piece from position 0 needs nothing of the cache, so those at the end of a pass attend to one
 * another's keys directly, which is much faster for prompts. */
struct pass {
    struct decoder *decoder;
    const struct feed *feed;
    int64_t entry; /* of the first piece */
    int64_t pieces;
    int64_t rows;
    int64_t looking; /* rows */
    int64_t packed;  /* pieces */
    int64_t sampled; /* pieces that end their entry */
    struct pass_numbers device;
};

/* Computes the size of the block (with block NULL) or also sets all tensors to their places in it.
 */
void decoder_lay_out(struct decoder *decoder, const struct network *network, void *block);

/* Runs a pass whose numbers are on the device: the tokens of its entries come to
 * decoder->sample.token. */
void decoder_run_pass(struct pass *pass);

/* Forgets all recordings. */
void decoder_drop_recordings(struct decoder *decoder);

/* Places of a pass's numbers from `base` on. Those of n rows that are all sampled and not packed
 * are the same every time. */
static inline struct pass_numbers pass_lay_out(int32_t *base, const struct pass *pass)
{
    struct pass_numbers numbers;
    numbers.ids = base;
    numbers.positions = numbers.ids + pass->rows;
    numbers.slots = numbers.positions + pass->rows;
    numbers.wanted = numbers.slots + pass->rows;
    numbers.uniform = (float *)(void *)(numbers.wanted + pass->sampled);
    numbers.starts = numbers.wanted + 2 * pass->sampled;
    numbers.count = 3 * pass->rows + 2 * pass->sampled + pass->packed + 1;
    return numbers;
}

#endif
