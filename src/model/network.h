/* What the transformer and the decoder share: views of a layer's weights, its matrix products with
 * their adapters, the steps of a layer over rows, and the rotary table. Private to this room. */
#ifndef MODEL_NETWORK_H
#define MODEL_NETWORK_H

#include "model/transformer.h"

enum { PROJECTION_PARTS_MAX = LOW_RANK_PARTS_MAX };

/* One of up to three matrices that lie one under the other and read the same input. */
struct projection_part {
    int64_t first;       /* its first row in the fused matrix: first column of the output */
    int64_t count;       /* its rows */
    struct tensor b;     /* (count, r) of its adapter; data NULL: none */
    int64_t b_offset;    /* of b in the array of trained parameters */
    int64_t first_inner; /* its first column in u */
};

/* y = x W^T, and for each part with an adapter y += scale (x A^T) B^T. */
struct projection {
    struct tensor weight;  /* (out, in) */
    int64_t weight_offset; /* in the array of gradients; -1: frozen */
    int part_count;
    struct projection_part parts[PROJECTION_PARTS_MAX];
    struct tensor a; /* (adapted parts * r, in), one under the other; data NULL: no adapter */
    int64_t a_offset;
    float scale;
};

/* A norm's weight and where its gradient goes; -1: frozen. */
struct norm_view {
    struct tensor weight;
    int64_t offset;
};

struct layer_view {
    struct norm_view attention_norm;
    struct projection qkv;       /* in C, out (H+2K)*D */
    struct norm_view query_norm; /* data NULL without qk_norm */
    struct norm_view key_norm;
    struct projection output; /* in H*D, out C */
    struct norm_view mlp_norm;
    struct projection gate_up; /* in C, out 2F */
    struct projection down;    /* in F, out C */
};

/* Views are cheap to make, so nobody keeps one: the weights of a network may change from call to
 * call. */
struct layer_view layer_view_make(const struct network *network, int64_t layer);
struct norm_view network_final_norm(const struct network *network);
struct tensor network_embedding(const struct network *network); /* (V,C) */
struct tensor network_head(const struct network *network);      /* (V,C); the embedding if tied */
int64_t network_head_offset(const struct network *network);     /* of its gradient; -1: frozen */
struct attention_shape network_attention_shape(const struct model_config *config);
int64_t network_qkv_width(const struct model_config *config); /* (H+2K)*D */

/* Columns of u, x A^T of all adapters, for each group; 0 without adapters. */
struct inner_widths {
    int64_t qkv;
    int64_t output;
    int64_t gate_up;
    int64_t down;
};
struct inner_widths network_inner_widths(const struct network *network);

/* y (n,out) = x (n,in) W^T + adapters. u (n, adapted parts * r) receives x A^T; unused without
 * adapters. */
void projection_forward(struct device *device, const struct projection *projection, struct tensor y,
                        struct tensor x, struct tensor u);

/* Adds the gradients of weight, A and B to `gradients` (those that are trained), then, if d_x is
 * not NULL, writes the gradient of x to *d_x, which may be x itself. u as the forward pass left it,
 * d_u of its shape for scratch. */
void projection_backward(struct device *device, const struct projection *projection,
                         float *gradients, struct tensor d_y, struct tensor x, struct tensor u,
                         struct tensor d_u, const struct tensor *d_x);

/* Fills a table (positions, D): D/2 cosines, then D/2 sines of each position, with the config's
 * scaling. */
enum status rope_table_upload(const struct model_config *config, struct device *device,
                              struct tensor cos_sin, struct error *err);

/* Memory of one device block, handed out front to back. With base NULL it only counts, so that the
 * size of a block and its layout come from the same lines. */
struct carver {
    char *base;
    int64_t used_bytes; /* INT64_MAX once it overflowed */
};
void *carve_bytes(struct carver *carver, int64_t count, int64_t size);
struct tensor carve_matrix(struct carver *carver, enum dtype dtype, int64_t rows, int64_t cols);

#endif
