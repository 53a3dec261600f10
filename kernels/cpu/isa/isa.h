/* The kernels of one instruction set. Each file here is compiled once an instruction set with
 * -DKERNELS_ISA=<suffix>; ISA(name) gives the suffix to what the files share, and everything else
 * is static. Nothing here may run before the processor was asked (kernels/cpu/device.c): no
 * constructors, no initialisers. */
#ifndef KERNELS_CPU_ISA_ISA_H
#define KERNELS_CPU_ISA_ISA_H

#include "kernels/cpu/device.h"

#define ISA_JOIN(name, isa) name##_##isa
#define ISA_EXPAND(name, isa) ISA_JOIN(name, isa)
#define ISA(name) ISA_EXPAND(name, KERNELS_ISA)

/* See kernels/ops.h for each. */
void ISA(copy)(struct device *device, struct tensor to, struct tensor from);
void ISA(fill)(struct device *device, struct tensor to, float value);
void ISA(add)(struct device *device, struct tensor to, struct tensor from);
void ISA(scale)(struct device *device, struct tensor to, float factor);
void ISA(accumulate)(struct device *device, double *total, const float *values, int64_t count);
void ISA(gather_rows)(struct device *device, struct tensor to, struct tensor table,
                      const int32_t *index);
void ISA(scatter_add_rows)(struct device *device, struct tensor table, struct tensor from,
                           const int32_t *index);

void ISA(rmsnorm_forward)(struct device *device, struct tensor out, float *rstd, struct tensor x,
                          const struct tensor *residual, struct tensor weight, float epsilon);
void ISA(rmsnorm_backward)(struct device *device, struct tensor d_x, float *d_weight,
                           struct tensor d_out, struct tensor x, struct tensor weight,
                           const float *rstd);

void ISA(qk_norm_rope_forward)(struct device *device, struct tensor to, float *rstd,
                               struct tensor from, const struct attention_shape *shape,
                               const struct tensor *query_weight, const struct tensor *key_weight,
                               float epsilon, struct tensor cos_sin, const int32_t *position);
void ISA(qk_norm_rope_backward)(struct device *device, struct tensor d_qkv, float *d_query_weight,
                                float *d_key_weight, struct tensor from, const float *rstd,
                                const struct attention_shape *shape,
                                const struct tensor *query_weight, const struct tensor *key_weight,
                                struct tensor cos_sin, const int32_t *position);

void ISA(attention_forward)(struct device *device, struct tensor out, float *log_sum_exp,
                            struct tensor qkv, const struct attention_shape *shape,
                            const int32_t *starts, int64_t sequences);
void ISA(attention_backward)(struct device *device, struct tensor d_qkv, struct tensor d_out,
                             struct tensor qkv, struct tensor out, const float *log_sum_exp,
                             const struct attention_shape *shape, const int32_t *starts,
                             int64_t sequences);

void ISA(swiglu_forward)(struct device *device, struct tensor out, struct tensor gate_up);
void ISA(swiglu_backward)(struct device *device, struct tensor d_gate_up, struct tensor d_out,
                          struct tensor gate_up);

void ISA(cross_entropy)(struct device *device, float *loss, struct tensor logits,
                        const int32_t *target, float factor, bool gradient);

void ISA(gradient_norm)(struct device *device, float *norm, const struct optimizer_slot *slots,
                        int64_t count);
void ISA(adamw)(struct device *device, const struct optimizer_slot *slots, int64_t count,
                const float *norm, const struct adamw_step *step);

void ISA(kv_append)(struct device *device, const struct kv_cache *cache, struct tensor qkv,
                    const struct attention_shape *shape, const int32_t *sequence,
                    const int32_t *position);
void ISA(attention_decode)(struct device *device, struct tensor out, struct tensor qkv,
                           const struct kv_cache *cache, const struct attention_shape *shape,
                           const int32_t *sequence, const int32_t *position);
void ISA(sample)(struct device *device, int32_t *token, struct tensor logits,
                 const struct sampling *sampling, const float *uniform);

#endif
