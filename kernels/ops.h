/* The one table of operations that everything above the kernels is written against.
 *
 *   struct device  -- a stream of work on one piece of hardware; ops is its backend's table
 *   struct tensor  -- a view of its memory (kernels/tensor.h)
 *
 * Rules for every operation
 *   Order     Operations of one device run in the order of the calls. They may return before the work is done.
 *             Host memory is touched by the copies alone: `upload` returns once its host memory may change again,
 *             `download` once the numbers are there. Both see all operations before them; the `side` copies run
 *             beside the operations, in an order of their own.
 *   Errors    A failure sticks to the device: later operations do nothing and `check` returns the first one. So the
 *             callers write plain sequences and check once a step. Only opening and allocating return a status.
 *             Wrong shapes are mistakes of the caller, caught by assertions.
 *   Numbers   Activations are f32 or bf16 and computed in f32; reductions, statistics, gradients of parameters and
 *             optimizer state are f32. bf16 results are rounded to nearest even.
 *   Bits      Same inputs, device and thread count give the same bits.
 *   Aliasing  Outputs do not overlap inputs unless an operation says so.
 *
 * Letters: N tokens of all packed sequences, S sequences, C width of the model, H query heads, K key/value heads,
 * D head size, F width of the MLP, V vocabulary, B sequences in generation, T positions of the KV cache. */
#ifndef KERNELS_OPS_H
#define KERNELS_OPS_H

#include <stdbool.h>

#include "base/status.h"
#include "kernels/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ops;
struct recording; /* operations that can be run again at once */

enum { DEVICE_CHOICE_BYTES = 256, DEVICE_GROUP_ID_BYTES = 128 };

/* What every backend's device starts with; the rest of it is the backend's own. */
struct device {
    const struct ops *ops;
    char choice[DEVICE_CHOICE_BYTES]; /* why this backend was opened, e.g. "auto: no CUDA device ..." */
};

struct device_options {
    int threads;         /* CPU threads; 0: as many as this process may use */
    int index;           /* of this rank among those of its node that use accelerators: they share them in turn */
    int64_t limit_bytes; /* most memory it may allocate; 0: no limit of ours */
};

struct device_memory {
    int64_t used_bytes;
    int64_t peak_bytes; /* since the device was opened, or since reset_peak */
    int64_t free_bytes; /* that the accelerator has left now, for all of its users; -1: the host's memory is meant */
};

/* Heads of one attention layer. A fused row is [query (H*D) | key (K*D) | value (K*D)]. */
struct attention_shape {
    int64_t heads;    /* H, a multiple of K */
    int64_t kv_heads; /* K */
    int64_t head_dim; /* D */
    float scale;      /* of the scores, 1/sqrt(D) */
};

/* Keys and values of one layer for generation. Both (B*T, K*D); row b*T + t is sequence b, position t. */
struct kv_cache {
    struct tensor key;
    struct tensor value;
    int64_t capacity; /* T */
};

/* One array of trained parameters for the optimizer; all pointers on the device, `count` elements each. */
struct optimizer_slot {
    float *master;      /* f32 parameters */
    void *weights_bf16; /* their rounded copy that the model reads, or NULL if it reads `master` */
    const float *grad;
    float *first_moment;
    float *second_moment;
    int64_t count;
    float weight_decay; /* of this slot; 0 for norms */
};

/* AdamW with decoupled weight decay (arXiv 1711.05101), one step. */
struct adamw_step {
    float learning_rate;
    float beta1;
    float beta2;
    float epsilon;
    int64_t step;   /* 1 for the first: bias correction */
    float clip_norm; /* gradients are scaled so that their norm is at most this; 0: never */
};

enum { LOW_RANK_PARTS_MAX = 3 };

/* What low_rank_add adds to one range of columns: y[:, first..first+W) += scale * u_i b^T, where u_i is
 * u[:, first_inner..first_inner+r). */
struct low_rank_part {
    int64_t first;       /* column of y */
    int64_t first_inner; /* column of u */
    struct tensor b;     /* (W, r) */
};

struct sampling {
    float temperature; /* 0: greedy, lowest id on ties */
    int32_t top_k;     /* 0: all */
    float top_p;       /* 1: all */
};

struct ops {
    const char *name;  /* "cpu", "cuda" */
    bool asynchronous; /* operations return before their work is done, and side copies run beside them */

    /* -- device ------------------------------------------------------------------------------------------------ */
    void (*close)(struct device *device);
    enum status (*alloc)(struct device *device, size_t bytes, const char *what, void **out, struct error *err);
    void (*free)(struct device *device, void *pointer); /* NULL allowed */
    void (*memory)(struct device *device, struct device_memory *out);
    void (*reset_peak)(struct device *device);
    enum status (*check)(struct device *device, struct error *err); /* waits; the first failure; then clears it */
    void (*describe)(struct device *device, char *out, size_t out_bytes); /* "cpu, 2 threads, avx512+bf16, oneDNN" */
    bool (*fast_bf16)(struct device *device); /* whether bf16 products are faster than f32 ones here */

    /* -- beside the operations ---------------------------------------------------------------------------------- */
    /* Host memory that copies run at full speed with, and the side copies at all. NULL allowed to be freed. */
    enum status (*host_alloc)(struct device *device, size_t bytes, const char *what, void **out, struct error *err);
    void (*host_free)(struct device *device, void *pointer);
    /* Each of the next four sees all operations that were called before it and is done in the order of its kind.
     * They return a ticket, which rises. What a side copy reads may not be changed, and what it writes may not be
     * used, by operations until side_fence; on the host both hold until side_wait. */
    int64_t (*side_download)(struct device *device, void *to_host, const void *from, size_t bytes);
    int64_t (*side_upload)(struct device *device, void *to, const void *from_host, size_t bytes);
    /* values += those of all other ranks of the group that was joined, the same bits on every rank. Collective: a
     * device that has failed takes part too, with NaN for its values, unless what it had on the hardware is lost. */
    int64_t (*side_sum)(struct device *device, float *values, int64_t count);
    int64_t (*side_mark)(struct device *device); /* a ticket for the operations so far */
    void (*side_wait)(struct device *device, int64_t ticket); /* the host waits for it and all before it */
    void (*side_fence)(struct device *device); /* operations called from now on run after all side work so far */

    /* Ranks whose devices can add up without the host (NCCL); both NULL where the backend has no such way. The first
     * rank makes an id, all join with it: collective, waits for all. STATUS_UNSUPPORTED if it is not to be had here. */
    enum status (*group_id)(struct device *device, unsigned char id[DEVICE_GROUP_ID_BYTES], struct error *err);
    enum status (*group_join)(struct device *device, const unsigned char id[DEVICE_GROUP_ID_BYTES], int rank,
                              int size, struct error *err);

    /* Runs the operations that `enqueue` calls. A backend may keep them: then *recording (NULL at first) is set, and
     * a later call with it repeats them on the same memory without calling enqueue. So enqueue calls operations
     * alone, with arguments that are the same every time, and none that allocates, copies from or to the host, or
     * waits. */
    void (*run_recorded)(struct device *device, struct recording **recording, void (*enqueue)(void *context),
                         void *context);
    void (*recording_free)(struct device *device, struct recording *recording); /* NULL allowed */

    /* -- moving numbers ---------------------------------------------------------------------------------------- */
    void (*upload)(struct device *device, void *to, const void *from_host, size_t bytes);
    void (*download)(struct device *device, void *to_host, const void *from, size_t bytes);
    void (*copy)(struct device *device, struct tensor to, struct tensor from); /* same shape; converts f32 <-> bf16 */
    void (*fill)(struct device *device, struct tensor to, float value);        /* f32 or bf16 */
    void (*add)(struct device *device, struct tensor to, struct tensor from);  /* to += from; any of f32, bf16 */
    void (*scale)(struct device *device, struct tensor to, float factor);

    /* *total (1) f64 on the device += the sum of values (count) f32, in f64 and a fixed order. */
    void (*accumulate)(struct device *device, double *total, const float *values, int64_t count);

    /* to (n,C) = table[index[r]] row by row; a negative index gives zeros. */
    void (*gather_rows)(struct device *device, struct tensor to, struct tensor table, const int32_t *index);
    /* table (V,C) f32 [index[r]] += from (n,C); a negative index adds nothing. Deterministic. */
    void (*scatter_add_rows)(struct device *device, struct tensor table, struct tensor from, const int32_t *index);

    /* -- matrix product ---------------------------------------------------------------------------------------- */
    /* c = alpha * op(a) op(b) + beta * c, op(x) = x or its transpose. a and b have one dtype, c is f32 or it. */
    void (*matmul)(struct device *device, struct tensor c, struct tensor a, bool transpose_a, struct tensor b,
                   bool transpose_b, float alpha, float beta);

    /* Adds to each of 1..LOW_RANK_PARTS_MAX ranges of columns of y, which do not overlap, a product of few inner
     * columns; the other columns stay. y (N,.), u (N,.), parts (count). u and all b have one dtype, y is f32 or it.
     * Source: LoRA, arXiv 2106.09685. */
    void (*low_rank_add)(struct device *device, struct tensor y, struct tensor u, const struct low_rank_part *parts,
                         int count, float scale);

    /* -- transformer, forward ---------------------------------------------------------------------------------- */
    /* If residual is not NULL: x += *residual first. Then out = x * rstd * weight with rstd = 1/sqrt(mean(x^2)+eps).
     * Shapes: x, residual, out (N,C); weight (C); rstd (N) f32 or NULL. Source: arXiv 1910.07467. */
    void (*rmsnorm_forward)(struct device *device, struct tensor out, float *rstd, struct tensor x,
                            const struct tensor *residual, struct tensor weight, float epsilon);

    /* Normalises each query and key head (if the weights are given), then turns them by their position; values are
     * copied. to may be from. Shapes: to, from (N,(H+2K)*D); query_weight, key_weight (D) or NULL;
     * rstd (N,H+K) f32, NULL without norms; cos_sin (positions, D) f32: D/2 cosines then D/2 sines of each position;
     * position (N). Element i of a head turns with i + D/2 (Hugging Face layout). Source: arXiv 2104.09864. */
    void (*qk_norm_rope_forward)(struct device *device, struct tensor to, float *rstd, struct tensor from,
                                 const struct attention_shape *shape, const struct tensor *query_weight,
                                 const struct tensor *key_weight, float epsilon, struct tensor cos_sin,
                                 const int32_t *position);

    /* Causal attention inside each of S packed sequences, without a T x T matrix. Shapes: qkv (N,(H+2K)*D) after
     * rope; out (N,H*D); log_sum_exp (H,N) f32 for the backward pass, or NULL; starts (S+1), starts[S] = N.
     * Source: arXiv 2307.08691. */
    void (*attention_forward)(struct device *device, struct tensor out, float *log_sum_exp, struct tensor qkv,
                              const struct attention_shape *shape, const int32_t *starts, int64_t sequences);

    /* out (N,F) = silu(gate) * up, gate_up (N,2F) = [gate | up]. Source: arXiv 2002.05202. */
    void (*swiglu_forward)(struct device *device, struct tensor out, struct tensor gate_up);

    /* Loss of each row in nats, and with `gradient` the logits become factor * d loss / d logits in place.
     * Where a loss is not finite, its row of the gradient is NaN: so no update follows from it.
     * Shapes: logits (n,V); target (n), -1 = ignored (loss 0, gradient 0); loss (n) f32. */
    void (*cross_entropy)(struct device *device, float *loss, struct tensor logits, const int32_t *target,
                          float factor, bool gradient);

    /* -- transformer, backward: `d_` is the gradient of what follows the prefix -------------------------------- */
    /* d_x (N,C) += gradient through the norm; d_weight (C) f32 += ..., or NULL for frozen weights. */
    void (*rmsnorm_backward)(struct device *device, struct tensor d_x, float *d_weight, struct tensor d_out,
                             struct tensor x, struct tensor weight, const float *rstd);

    /* d_qkv (N,(H+2K)*D) in place: gradient after rope -> gradient of `from`. from, rstd as in the forward pass and
     * unused without norms. d_query_weight, d_key_weight (D) f32 +=, or NULL. */
    void (*qk_norm_rope_backward)(struct device *device, struct tensor d_qkv, float *d_query_weight,
                                  float *d_key_weight, struct tensor from, const float *rstd,
                                  const struct attention_shape *shape, const struct tensor *query_weight,
                                  const struct tensor *key_weight, struct tensor cos_sin, const int32_t *position);

    /* d_qkv is overwritten. Shapes as in the forward pass, d_out (N,H*D). */
    void (*attention_backward)(struct device *device, struct tensor d_qkv, struct tensor d_out, struct tensor qkv,
                               struct tensor out, const float *log_sum_exp, const struct attention_shape *shape,
                               const int32_t *starts, int64_t sequences);

    /* d_gate_up (N,2F) is overwritten; it may be gate_up itself. */
    void (*swiglu_backward)(struct device *device, struct tensor d_gate_up, struct tensor d_out,
                            struct tensor gate_up);

    /* -- optimizer --------------------------------------------------------------------------------------------- */
    /* norm (1) f32 on the device = Euclidean norm of all gradients, summed in f64 in a fixed order. */
    void (*gradient_norm)(struct device *device, float *norm, const struct optimizer_slot *slots, int64_t count);
    /* One step of all slots; reads `norm` on the device for clipping, so that no copy to the host is needed. Does
     * nothing at all if the norm is not finite. */
    void (*adamw)(struct device *device, const struct optimizer_slot *slots, int64_t count, const float *norm,
                  const struct adamw_step *step);

    /* -- generation -------------------------------------------------------------------------------------------- */
    /* Writes keys and values of qkv (n,(H+2K)*D) into the cache at sequence[r], position[r]. */
    void (*kv_append)(struct device *device, const struct kv_cache *cache, struct tensor qkv,
                      const struct attention_shape *shape, const int32_t *sequence, const int32_t *position);
    /* One query row per entry: out (n,H*D) attends to positions 0..position[r] of sequence[r] in the cache. */
    void (*attention_decode)(struct device *device, struct tensor out, struct tensor qkv,
                             const struct kv_cache *cache, const struct attention_shape *shape,
                             const int32_t *sequence, const int32_t *position);
    /* token (B) from logits (B,V); uniform (B) f32 in [0,1), unused when greedy. */
    void (*sample)(struct device *device, int32_t *token, struct tensor logits, const struct sampling *sampling,
                   const float *uniform);
};

/* Opens a device. STATUS_UNSUPPORTED if this build or this machine has none of the kind; the message says which. */
enum status device_open_cpu(const struct device_options *options, struct device **out, struct error *err);
enum status device_open_cuda(const struct device_options *options, struct device **out, struct error *err);

/* By name: "cpu", "cuda", or "auto" (cuda where there is one, else cpu). (*out)->choice says which and why. */
enum status device_open(const char *backend, const struct device_options *options, struct device **out,
                        struct error *err);
void device_close(struct device *device); /* NULL allowed */

#ifdef __cplusplus
}
#endif
#endif
