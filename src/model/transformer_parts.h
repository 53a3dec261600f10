/* The transformer's memory, shared by its files. Private to this room.
 *
 * One device block holds all of it. With training every layer has a room of its own; without, or
 * with recompute, the layers take turns in one (with recompute, only each layer's input is kept).
 */
#ifndef MODEL_TRANSFORMER_PARTS_H
#define MODEL_TRANSFORMER_PARTS_H

#include "model/network.h"

/* What the backward pass reads again of one layer. The outputs of norms and of swiglu are not kept:
 * making them again costs less than their memory. */
struct layer_room {
    struct tensor attention_in; /* (N,C) residual stream before the layer */
    float *attention_rstd;      /* (N) */
    struct tensor qkv;          /* (N,(H+2K)*D) after rope; with qk_norm before norm and rope */
    float *qk_rstd;             /* (N,H+K) with qk_norm */
    struct tensor attention;    /* (N,H*D) */
    float *log_sum_exp;         /* (H,N) */
    struct tensor mlp_in;       /* (N,C) residual stream between attention and MLP */
    float *mlp_rstd;            /* (N) */
    struct tensor gate_up;      /* (N,2F) */
    struct tensor u_qkv;        /* (N,...) x A^T of the adapters */
    struct tensor u_output;
    struct tensor u_gate_up;
    struct tensor u_down;
};

/* Shared by all layers. The tensors of `attention` and of `mlp` lie in the same bytes: they are
 * never alive together. */
struct scratch {
    struct tensor norm;       /* (N,C) output of a norm, then the gradient of it */
    struct tensor d_residual; /* (N,C) gradient of the residual stream */
    struct tensor d_u;        /* (N, widest u) */
    struct {
        struct tensor d_out; /* (N,H*D) */
        struct tensor d_qkv; /* (N,(H+2K)*D) */
        struct tensor qkv;   /* (N,(H+2K)*D) after norm and rope, with qk_norm */
    } attention;
    struct {
        struct tensor act; /* (N,F) output of swiglu, then the gradient of it */
    } mlp;
};

/* The last norm and the product with the vocabulary, `rows` rows at a time. */
struct head_room {
    int64_t rows;       /* R, in the compute dtype */
    int64_t rows_f32;   /* of f32 logits in the same bytes */
    struct tensor in;   /* (R,C) */
    struct tensor norm; /* (R,C), then its gradient */
    float *rstd;        /* (R) */
    void *logits;       /* (R,V) compute dtype, or (rows_f32,V) f32 */
    float *losses;      /* (N) */
};

/* Whole numbers of a batch, on the device. */
struct batch_room {
    int32_t *data;      /* all of them */
    int32_t *ids;       /* (N) */
    int32_t *positions; /* (N) */
    int32_t *starts;    /* (S+1) */
    int32_t *rows;      /* (n) rows whose logits are wanted */
    int32_t *targets;   /* (n) their targets */
    int32_t *inverse;   /* (N) place of a row in rows, or -1 */
};

struct transformer {
    struct device *device;
    struct transformer_options options;
    int64_t layers;
    int64_t positions; /* rows of cos_sin */
    int64_t bytes;
    void *block;
    struct tensor cos_sin;    /* (positions,D) f32 */
    struct layer_room *rooms; /* (L) */
    struct tensor last;       /* (N,C) residual stream after the last layer */
    struct scratch scratch;
    struct head_room head;
    struct batch_room batch;
    int32_t *staging;   /* host copy of batch.data */
    float *host_losses; /* (N) */
    /* Of the batch at hand */
    int64_t tokens;    /* N */
    int64_t sequences; /* S */
    int64_t wanted;    /* n */
};

/* Computes the size of the block (with block NULL) or also sets all tensors to their places in it.
 */
void transformer_lay_out(struct transformer *transformer, const struct network *network,
                         void *block);

/* Layer by layer up to `last`. */
void transformer_forward(struct transformer *transformer, const struct network *network);

/* From the gradient of `last` in scratch.d_residual down to the embedding, or to the lowest
 * adapter. */
void transformer_backward(struct transformer *transformer, const struct network *network,
                          float *gradients, const struct gradient_watch *watch);

/* Losses of the wanted rows into head.losses (device), in the order of batch.rows. */
void head_score(struct transformer *transformer, const struct network *network);

/* The same, and the gradient: that of norm and head += into gradients, that of `last` into
 * scratch.d_residual. */
void head_train(struct transformer *transformer, const struct network *network, float factor,
                float *gradients);

/* Logits (n,V) f32 of the wanted rows to the host. */
void head_logits(struct transformer *transformer, const struct network *network, float *logits);

#endif
