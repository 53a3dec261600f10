/* The safetensors file format, read through mmap and checked, and written. Format: 8-byte
 * little-endian header length, a JSON header of name -> {dtype, shape, data_offsets}, then the raw
 * data. */
#ifndef MODEL_SAFETENSORS_H
#define MODEL_SAFETENSORS_H

#include <stdint.h>

#include "base/status.h"
#include "kernels/tensor.h"

enum { SAFETENSORS_NAME_BYTES = 256, SAFETENSORS_DIMENSIONS_MAX = 8 };

/* Element types of the format: X(name in the header, bytes). */
#define SAFETENSORS_DTYPES(X)                                                                      \
    X(F32, 4)                                                                                      \
    X(BF16, 2)                                                                                     \
    X(F16, 2)                                                                                      \
    X(I32, 4)                                                                                      \
    X(F64, 8)                                                                                      \
    X(I64, 8)                                                                                      \
    X(U64, 8)                                                                                      \
    X(U32, 4)                                                                                      \
    X(I16, 2)                                                                                      \
    X(U16, 2)                                                                                      \
    X(I8, 1)                                                                                       \
    X(U8, 1)                                                                                       \
    X(BOOL, 1)                                                                                     \
    X(F8_E4M3, 1)                                                                                  \
    X(F8_E5M2, 1)

enum safetensors_dtype {
#define SAFETENSORS_ENUM(name, bytes) SAFETENSORS_##name,
    SAFETENSORS_DTYPES(SAFETENSORS_ENUM)
#undef SAFETENSORS_ENUM
        SAFETENSORS_DTYPE_COUNT
};

const char *safetensors_dtype_name(enum safetensors_dtype dtype); /* "BF16" */
size_t safetensors_dtype_bytes(enum safetensors_dtype dtype);

struct safetensors_entry {
    char name[SAFETENSORS_NAME_BYTES];
    enum safetensors_dtype dtype;
    int dimensions;
    int64_t shape[SAFETENSORS_DIMENSIONS_MAX];
    const void *data; /* in the mapping, at any alignment */
    size_t len_bytes;
    const char *file; /* it comes from, for messages */
};

struct safetensors; /* opaque: one or several mapped files */

/* Opens <folder>/model.safetensors, or all shards of model.safetensors.index.json. Every header is
 * checked whole: STATUS_FORMAT for one that is not of the format (its length, JSON, types, shapes;
 * offsets that overlap, leave gaps or pass the end of the file; a name twice), and for shards that
 * differ from the index. */
enum status safetensors_open_folder(const char *folder, struct safetensors **out,
                                    struct error *err);
enum status safetensors_open_file(const char *path, struct safetensors **out, struct error *err);
void safetensors_close(struct safetensors *file);

int64_t
safetensors_count(const struct safetensors *file); /* entries are in the order of their names */
const struct safetensors_entry *safetensors_at(const struct safetensors *file, int64_t index);
const struct safetensors_entry *safetensors_find(const struct safetensors *file,
                                                 const char *name); /* or NULL */

/* "[48, 16]" of an entry into out, for messages. */
void safetensors_shape_text(const struct safetensors_entry *entry, char *out, size_t out_bytes);

/* Writes one file aside and renames it. `read` fills the data of each entry in order, one tensor at
 * a time, so that device weights need no whole copy on the host; data, len_bytes and file of the
 * entries are not looked at. */
typedef enum status (*safetensors_read_fn)(void *context, int64_t index, void *to,
                                           struct error *err);
enum status safetensors_write(const char *path, const struct safetensors_entry *entries,
                              int64_t count, safetensors_read_fn read, void *context,
                              struct error *err);

#endif
