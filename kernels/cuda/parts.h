/* The parts of a device that device.cu makes when it opens and takes apart when it closes; each
 * lies in the file of its name. All *_destroy take NULL parts; the streams are idle by then. */
#ifndef KERNELS_CUDA_PARTS_H
#define KERNELS_CUDA_PARTS_H

#include "kernels/cuda/device.h"

/* The failure of a runtime call as a status: STATUS_OK, STATUS_NO_MEMORY or STATUS_DEVICE with
 * "<what>: <the runtime's text>" in *err. For calls that return a status; operations use
 * cuda_went_well. */
enum status cuda_status(cudaError_t result, const char *what, struct error *err);

#define TRY_CUDA(call, what, err) TRY(cuda_status((call), (what), (err)))
#define TRY_CUDA_CLEANUP(call, what, err) TRY_CLEANUP(cuda_status((call), (what), (err)))

/* memory.cu. limit_bytes: most that callers may hold; 0: no limit. */
enum status cuda_pool_create(int64_t limit_bytes, struct cuda_pool **out, struct error *err);
void cuda_pool_destroy(struct cuda_pool *pool); /* gives all memory back, also what is held */

/* transfer.cu */
enum status cuda_staging_create(struct cuda_staging **out, struct error *err);
void cuda_staging_destroy(struct cuda_staging *staging);

/* side.cu */
enum status cuda_side_create(struct cuda_side **out, struct error *err);
void cuda_side_destroy(struct cuda_side *side);

/* Makes the side stream wait for all operations so far, and gives the side work that the caller
 * enqueues after it its ticket. Side work of any kind begins with cuda_side_begin (false: it
 * failed, do nothing and return cuda_side_last) and ends with cuda_side_end. */
bool cuda_side_begin(struct device *device, const char *what);
int64_t cuda_side_end(struct device *device);
int64_t cuda_side_last(const struct cuda_side *side);

/* matmul.cu. STATUS_UNSUPPORTED if cuBLASLt is not to be had. The text for describe: "cuBLASLt
 * 13.0.2", and how many products it had no way for. */
enum status cuda_matmul_create(struct cuda_matmul **out, struct error *err);
void cuda_matmul_destroy(struct cuda_matmul *matmul);
void cuda_matmul_describe(const struct cuda_matmul *matmul, char *out, size_t out_bytes);

/* group.cu */
void cuda_group_destroy(struct cuda_group *group);
void cuda_group_check(struct device *device); /* records what went wrong in sums under way */

#endif
