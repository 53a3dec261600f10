/* The operations of the CUDA backend; kernels/ops.h says what each does. */
#ifndef KERNELS_CUDA_OPERATIONS_H
#define KERNELS_CUDA_OPERATIONS_H

#include "kernels/ops.h"

/* -- device.cu -- */
void cuda_close(struct device *device);
enum status cuda_check(struct device *device, struct error *err);
void cuda_describe(struct device *device, char *out, size_t out_bytes);
bool cuda_fast_bf16(struct device *device);

/* -- memory.cu -- */
enum status cuda_alloc(struct device *device, size_t bytes, const char *what, void **out,
                       struct error *err);
void cuda_free(struct device *device, void *pointer);
void cuda_memory(struct device *device, struct device_memory *out);
void cuda_reset_peak(struct device *device);
enum status cuda_host_alloc(struct device *device, size_t bytes, const char *what, void **out,
                            struct error *err);
void cuda_host_free(struct device *device, void *pointer);

/* -- transfer.cu -- */
void cuda_upload(struct device *device, void *to, const void *from_host, size_t bytes);
void cuda_download(struct device *device, void *to_host, const void *from, size_t bytes);

/* -- side.cu -- */
int64_t cuda_side_download(struct device *device, void *to_host, const void *from, size_t bytes);
int64_t cuda_side_upload(struct device *device, void *to, const void *from_host, size_t bytes);
int64_t cuda_side_mark(struct device *device);
void cuda_side_wait(struct device *device, int64_t ticket);
void cuda_side_fence(struct device *device);

/* -- group.cu -- */
enum status cuda_group_id(struct device *device, unsigned char id[DEVICE_GROUP_ID_BYTES],
                          struct error *err);
enum status cuda_group_join(struct device *device, const unsigned char id[DEVICE_GROUP_ID_BYTES],
                            int rank, int size, struct error *err);
int64_t cuda_side_sum(struct device *device, float *values, int64_t count);

/* -- recording.cu -- */
void cuda_run_recorded(struct device *device, struct recording **recording,
                       void (*enqueue)(void *context), void *context);
void cuda_recording_free(struct device *device, struct recording *recording);

/* -- moving.cu -- */
void cuda_copy(struct device *device, struct tensor to, struct tensor from);
void cuda_fill(struct device *device, struct tensor to, float value);
void cuda_add(struct device *device, struct tensor to, struct tensor from);
void cuda_scale(struct device *device, struct tensor to, float factor);
void cuda_accumulate(struct device *device, double *total, const float *values, int64_t count);

/* -- rows.cu -- */
void cuda_gather_rows(struct device *device, struct tensor to, struct tensor table,
                      const int32_t *index);
void cuda_scatter_add_rows(struct device *device, struct tensor table, struct tensor from,
                           const int32_t *index);

/* -- matmul.cu -- */
void cuda_matmul(struct device *device, struct tensor c, struct tensor a, bool transpose_a,
                 struct tensor b, bool transpose_b, float alpha, float beta);

/* -- low_rank.cu -- */
void cuda_low_rank_add(struct device *device, struct tensor y, struct tensor u,
                       const struct low_rank_part *parts, int count, float scale);

/* -- norms.cu -- */
void cuda_rmsnorm_forward(struct device *device, struct tensor out, float *rstd, struct tensor x,
                          const struct tensor *residual, struct tensor weight, float epsilon);
void cuda_rmsnorm_backward(struct device *device, struct tensor d_x, float *d_weight,
                           struct tensor d_out, struct tensor x, struct tensor weight,
                           const float *rstd);

/* -- rope.cu -- */
void cuda_qk_norm_rope_forward(struct device *device, struct tensor to, float *rstd,
                               struct tensor from, const struct attention_shape *shape,
                               const struct tensor *query_weight, const struct tensor *key_weight,
                               float epsilon, struct tensor cos_sin, const int32_t *position);
void cuda_qk_norm_rope_backward(struct device *device, struct tensor d_qkv, float *d_query_weight,
                                float *d_key_weight, struct tensor from, const float *rstd,
                                const struct attention_shape *shape,
                                const struct tensor *query_weight, const struct tensor *key_weight,
                                struct tensor cos_sin, const int32_t *position);

/* -- attention_forward.cu, attention_backward.cu -- */
void cuda_attention_forward(struct device *device, struct tensor out, float *log_sum_exp,
                            struct tensor qkv, const struct attention_shape *shape,
                            const int32_t *starts, int64_t sequences);
void cuda_attention_backward(struct device *device, struct tensor d_qkv, struct tensor d_out,
                             struct tensor qkv, struct tensor out, const float *log_sum_exp,
                             const struct attention_shape *shape, const int32_t *starts,
                             int64_t sequences);

/* -- swiglu.cu -- */
void cuda_swiglu_forward(struct device *device, struct tensor out, struct tensor gate_up);
void cuda_swiglu_backward(struct device *device, struct tensor d_gate_up, struct tensor d_out,
                          struct tensor gate_up);

/* -- cross_entropy.cu -- */
void cuda_cross_entropy(struct device *device, float *loss, struct tensor logits,
                        const int32_t *target, float factor, bool gradient);

/* -- optimizer.cu -- */
void cuda_gradient_norm(struct device *device, float *norm, const struct optimizer_slot *slots,
                        int64_t count);
void cuda_adamw(struct device *device, const struct optimizer_slot *slots, int64_t count,
                const float *norm, const struct adamw_step *step);

/* -- kv.cu -- */
void cuda_kv_append(struct device *device, const struct kv_cache *cache, struct tensor qkv,
                    const struct attention_shape *shape, const int32_t *sequence,
                    const int32_t *position);

/* -- attention_decode.cu -- */
void cuda_attention_decode(struct device *device, struct tensor out, struct tensor qkv,
                           const struct kv_cache *cache, const struct attention_shape *shape,
                           const int32_t *sequence, const int32_t *position);

/* -- sample.cu -- */
void cuda_sample(struct device *device, int32_t *token, struct tensor logits,
                 const struct sampling *sampling, const float *uniform);

#endif
