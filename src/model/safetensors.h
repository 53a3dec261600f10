/* The safetensors file format, read through mmap and checked, and written. Format: 8-byte little-endian header length,
 * a JSON header of name -> {dtype, shape, data_offsets}, then the raw data. */
#ifndef MODEL_SAFETENSORS_H
#define MODEL_SAFETENSORS_H

#include <stdint.h>

#include "base/status.h"
#include "kernels/tensor.h"

enum { SAFETENSORS_NAME_BYTES = 256, SAFETENSORS_DIMENSIONS_MAX = 8 };

struct safetensors_entry {
    char name[SAFETENSORS_NAME_BYTES];
    enum dtype dtype;
    int dimensions;
    int64_t shape[SAFETENSORS_DIMENSIONS_MAX];
    const void *data; /* in the mapping */
    size_t len_bytes;
    const char *file; /* it comes from, for messages */
};

struct safetensors; /* opaque: one or several mapped files */

/* Opens <folder>/model.safetensors, or all shards of model.safetensors.index.json. */
enum status safetensors_open_folder(const char *folder, struct safetensors **out, struct error *err);
enum status safetensors_open_file(const char *path, struct safetensors **out, struct error *err);
void safetensors_close(struct safetensors *file);

int64_t safetensors_count(const struct safetensors *file);
const struct safetensors_entry *safetensors_at(const struct safetensors *file, int64_t index);
const struct safetensors_entry *safetensors_find(const struct safetensors *file, const char *name); /* or NULL */

/* Writes one file aside and renames it. The data pointers of the entries are read in order, through `read`, one
 * tensor at a time, so that device weights need no whole copy on the host. */
typedef enum status (*safetensors_read_fn)(void *context, int64_t index, void *to, struct error *err);
enum status safetensors_write(const char *path, const struct safetensors_entry *entries, int64_t count,
                              safetensors_read_fn read, void *context, struct error *err);

#endif
