/* The CPU device: threads, memory that is counted, a scratch area, and the error that sticks.
 *
 * Operations run one at a time and are finished when they return; inside one, the threads of an
 * OpenMP team share the rows. What depends on the instruction set lies in isa/ and is reached
 * through the table that was chosen when the device was opened. */
#ifndef KERNELS_CPU_DEVICE_H
#define KERNELS_CPU_DEVICE_H

#include <stdbool.h>

#include "kernels/cpu/features.h"
#include "kernels/ops.h"

struct matmul; /* of the library that the build uses: matmul_onednn.c or matmul_cblas.c */

struct cpu_device {
    struct device base; /* first: a struct device * is one of these */
    int threads;
    const char *isa; /* name of the table: "x86_64_v3" */
    struct cpu_features features;
    int64_t limit_bytes; /* 0: none */
    int64_t used_bytes;
    int64_t peak_bytes;
    struct error failure; /* the first one; code STATUS_OK while there is none */
    struct matmul *matmul;
    void *scratch; /* one operation's working memory, grown on demand and kept */
    size_t scratch_bytes;
    int64_t tickets; /* of side work, all of it done */
};

static inline struct cpu_device *cpu_of(struct device *device)
{
    return (struct cpu_device *)device;
}

/* Whether an earlier operation failed: then the caller does nothing. */
static inline bool cpu_failed(struct device *device)
{
    return cpu_of(device)->failure.code != STATUS_OK;
}

/* Records a failure unless there is one. */
#define CPU_FAIL(device, code, ...)                                                                \
    do {                                                                                           \
        if (!cpu_failed(device)) {                                                                 \
            (void)FAIL(&cpu_of(device)->failure, (code), __VA_ARGS__);                             \
        }                                                                                          \
    } while (0)

/* How many threads a job of so many numbers is worth: below some thousands each, starting them
 * costs more. */
static inline int cpu_team(struct device *device, int64_t numbers)
{
    enum { NUMBERS_PER_THREAD = 8192 };
    int64_t worth = 1 + numbers / NUMBERS_PER_THREAD;
    int threads = cpu_of(device)->threads;
    return worth < threads ? (int)worth : threads;
}

/* Working memory for the operation that runs, aligned to 64 bytes, with undefined contents; valid
 * until the next call. NULL after recording STATUS_NO_MEMORY or STATUS_LIMIT. The parts are count *
 * size bytes, checked for overflow. */
void *cpu_scratch(struct device *device, int64_t count, size_t size, const char *what);

/* -- the operations that do not depend on the instruction set (see kernels/ops.h) -- */
void cpu_close(struct device *device);
enum status cpu_alloc(struct device *device, size_t bytes, const char *what, void **out,
                      struct error *err);
void cpu_free(struct device *device, void *pointer);
void cpu_memory(struct device *device, struct device_memory *out);
void cpu_reset_peak(struct device *device);
enum status cpu_check(struct device *device, struct error *err);
void cpu_describe(struct device *device, char *out, size_t out_bytes);
bool cpu_fast_bf16(struct device *device);
void cpu_upload(struct device *device, void *to, const void *from_host, size_t bytes);
void cpu_download(struct device *device, void *to_host, const void *from, size_t bytes);
enum status cpu_host_alloc(struct device *device, size_t bytes, const char *what, void **out,
                           struct error *err);
void cpu_host_free(struct device *device, void *pointer);
int64_t cpu_side_download(struct device *device, void *to_host, const void *from, size_t bytes);
int64_t cpu_side_upload(struct device *device, void *to, const void *from_host, size_t bytes);
int64_t cpu_side_mark(struct device *device);
void cpu_side_wait(struct device *device, int64_t ticket);
void cpu_side_fence(struct device *device);
void cpu_run_recorded(struct device *device, struct recording **recording,
                      void (*enqueue)(void *context), void *context);
void cpu_recording_free(struct device *device, struct recording *recording);
void cpu_matmul(struct device *device, struct tensor c, struct tensor a, bool transpose_a,
                struct tensor b, bool transpose_b, float alpha, float beta);
void cpu_low_rank_add(struct device *device, struct tensor y, struct tensor u,
                      const struct low_rank_part *parts, int count, float scale);

/* -- one table an instruction set (isa/table.c) -- */
#if defined(__x86_64__)
extern const struct ops cpu_ops_x86_64_v2;
extern const struct ops cpu_ops_x86_64_v3;
extern const struct ops cpu_ops_x86_64_v4;
#else
extern const struct ops cpu_ops_generic;
#endif

#endif
