/* What a trainer is made of; shared by trainer.c (making it), trainer_run.c (the loop),
 * trainer_state.c (the state). */
#ifndef TRAIN_TRAINER_INTERNAL_H
#define TRAIN_TRAINER_INTERNAL_H

#include "train/divergence.h"
#include "train/trainer.h"

enum {
    TRAINER_RECENT_STEPS = 64,     /* whose median is the step time */
    TRAINER_BUCKET = 6 << 20,      /* gradients that are summed over ranks at a time: 25 MB */
    TRAINER_FINGERPRINT_WORDS = 2, /* 128 bits */
};

/* What a step leaves on the device for its one download. */
struct trainer_numbers {
    double loss; /* sum over this rank's answer tokens, nats */
    float norm;  /* of the gradients, before clipping */
};

/* Arrays on the device that a training owns, all of table->elements. In f32 the model reads the
 * masters themselves. */
struct trainer_parameters {
    const struct param_table *table; /* what is trained: the model's, or the adapter's */
    struct weights current;          /* what the model reads */
    float *master;                   /* current.data in f32, else an array of its own */
    float *gradients;                /* between steps: scratch for the state's conversions */
    float *first_moment;
    float *second_moment;
    struct trainer_numbers *numbers; /* on the device as well */
    struct weights best;          /* with patience: copy of `current` at the best validation loss */
    struct optimizer_slot *slots; /* on the host */
    int64_t slot_count;
};

/* The step that comes next, made ready on the host while the device still works on the one before.
 */
struct trainer_step {
    bool ready;
    int64_t batches;          /* micro-batches; fewer than `accumulation` only in the last step */
    int64_t tokens;           /* of all ranks together, like batches and targets */
    int64_t targets;          /* answer tokens */
    struct packer_cursor end; /* behind the step */

    int64_t packed;              /* micro-batches walked past, the one at hand included */
    struct packer_cursor cursor; /* behind those */
    bool has_batch;              /* `batch` is this rank's and waits to be trained on */
    struct batch batch;          /* in the packer's memory */
};

/* The sums of a step's gradients over the group, in buckets from the array's end to its start. */
struct trainer_sums {
    int64_t elements; /* of a bucket; the last one may be smaller */
    int64_t buckets;
    int64_t started; /* of the step at hand */
    int64_t finished;
    int64_t *tickets;   /* (buckets) of the copies or marks that each began with */
    int64_t slots;      /* places for buckets on the host; 0: they do not pass through it */
    float *host;        /* (slots, elements) */
    int64_t *uploads;   /* (slots) tickets of the last copies out of them */
    enum status status; /* of this step's sums, with its error */
    struct error error;
};

struct trainer {
    /* borrowed */
    struct device *device;
    const struct model *model;
    const struct encoded_dataset *train;
    const struct encoded_dataset *validation;
    struct log *log;
    struct train_group group; /* size 1: alone */

    /* made once */
    struct train_config config;
    int64_t fingerprint[TRAINER_FINGERPRINT_WORDS];
    struct param_table adapter_table; /* LoRA only */
    struct trainer_parameters parameters;
    struct transformer *transformer;
    struct packer *packer;
    struct packer *validation_packer; /* NULL: nothing to validate on */
    struct trainer_sums sums;         /* in a group */
    int64_t batches_total;            /* micro-batches of the whole training */
    int64_t steps_total;

    /* the state, with the masters, the moments and the best parameters */
    struct packer_cursor cursor;
    int64_t tokens;            /* trained on, all ranks */
    struct train_point *curve; /* (steps_done) */
    int64_t steps_done;
    int64_t curve_capacity;
    bool has_best;

    /* follows from the curve */
    enum train_end end;
    struct divergence divergence;
    bool diverged;
    double best_loss;
    int64_t stale_validations; /* in a row without a better loss */

    /* of this process alone */
    struct trainer_step next;
    double recent_s[TRAINER_RECENT_STEPS]; /* ring of step times */
    int64_t recent_count;                  /* ever written */
    unsigned restored;                     /* bits of the state's arrays that were set */
    const char *restore_problem;           /* NULL: none yet */
};

/* ---- trainer_parameters.c ---- */

/* Where the parameters start from. */
struct trainer_start {
    const struct weights *source;   /* same layout; NULL: a fresh adapter */
    void (*release)(void *context); /* NULL, or called once the source has been read */
    void *context;
    const struct progress *progress; /* may be NULL */
};

/* Allocates for `table`. */
enum status trainer_parameters_init(struct trainer_parameters *parameters, struct device *device,
                                    const struct param_table *table,
                                    const struct train_config *config,
                                    const struct trainer_start *start, bool keep_best,
                                    struct error *err);
void trainer_parameters_fini(struct trainer_parameters *parameters, struct device *device);

/* Rounds the masters into what the model reads; nothing to do in f32. */
void trainer_parameters_round(const struct trainer_parameters *parameters);

/* Device bytes of trainer_parameters_init. */
int64_t trainer_parameters_bytes(const struct param_table *table, enum train_precision precision,
                                 bool keep_best);

/* One of the arrays as a tensor of one row. */
struct tensor trainer_parameters_row(const struct trainer_parameters *parameters, void *data,
                                     enum dtype dtype);

/* ---- trainer.c ---- */

/* What is being trained, as it is now; trainer_network gives the best instead, if one is kept. */
void trainer_network_current(const struct trainer *trainer, struct network *out);

/* ---- trainer_run.c ---- */

/* Whether the validation loss belongs to this step (1-based): evenly spread, the last step
 * included. */
bool trainer_validates_at(const struct trainer *trainer, int64_t step);

/* Recomputes all that follows from the curve. */
void trainer_replay_curve(struct trainer *trainer);

/* ---- trainer_group.c ---- */

/* Sums `value` over the group and agrees on one status: the caller's own failure, else another
 * rank's. Collective, also for a rank that has failed. */
enum status trainer_group_agree(struct trainer *trainer, enum status status, double *value,
                                struct error *err);

/* Memory for the sums; nothing to do alone. Device memory is not used. */
enum status trainer_sums_init(struct trainer *trainer, struct error *err);
void trainer_sums_fini(struct trainer *trainer);

/* Begins the sums of a step: after it, the watch is given to the last backward pass, and `finish`
 * called behind it, also by a rank that has none or has failed. Collective; same order on all. */
void trainer_sums_begin(struct trainer *trainer);
struct gradient_watch trainer_sums_watch(struct trainer *trainer);
enum status trainer_sums_finish(struct trainer *trainer, struct error *err);

/* ---- trainer_state.c ---- */

/* Identity of a training: configuration, model, data. */
enum status trainer_fingerprint(const struct trainer *trainer,
                                int64_t out[TRAINER_FINGERPRINT_WORDS], struct error *err);

static inline enum dtype trainer_dtype(enum train_precision precision)
{
    return precision == TRAIN_BF16 ? DTYPE_BF16 : DTYPE_F32;
}

#endif
