/* HDF5 as this room uses it: one caller at a time, quiet, its errors turned into ours.
 *
 * Every use of the library lies between h5_lock and h5_unlock. */
#ifndef STORE_H5_H
#define STORE_H5_H

#include <hdf5.h>

#include "base/status.h"

/* HDF5 has process-wide state and is often built without thread safety, so its lock is process-wide too. Not
 * recursive. h5_lock also silences the library's own printing (a setting of each thread). */
void h5_lock(void);
void h5_unlock(void);

/* Fills *err from HDF5's error stack and empties the stack. `code` is used unless the stack tells of an errno
 * (no space, permission, input/output error). The message: "<path>: <what>: <HDF5's reason>". */
enum status h5_fail(struct error *err, enum status code, const char *path, const char *what,
                    const char *source_file, int source_line);

#define H5_FAIL(err, code, path, what) h5_fail((err), (code), (path), (what), __FILE__, __LINE__)

/* For a function with `enum status status` and `cleanup:`. A negative result is a failure. */
#define TRY_H5(call, code, path, what)                                                             \
    do {                                                                                           \
        if ((call) < 0) {                                                                          \
            status = H5_FAIL(err, (code), (path), (what));                                         \
            goto cleanup;                                                                          \
        }                                                                                          \
    } while (0)

/* Closes an identifier of any kind but a file's; negative ones are passed over. */
void h5_close(hid_t id);

/* Properties for files: strong close, the library's own file locks off (the folder's lock does that job, and many
 * parallel file systems refuse them). Closed with H5Pclose. */
hid_t h5_access_properties(void);

/* New datatypes, closed with H5Tclose. */
hid_t h5_text_type(void);                       /* variable-length UTF-8 */
hid_t h5_bf16_type(void);                       /* 16-bit float: 8 exponent, 7 mantissa bits, bias 127 */
hid_t h5_enum_type(const char *const *names);   /* int8: 0, 1, ... ; NULL ends the names */

/* Text attributes of an object; the name must be new. Most are of variable length, which tools give back as strings; one
 * of fixed length (not empty) lies in the object's header, where it can be replaced by another of the same length. */
herr_t h5_write_text(hid_t object, const char *name, const char *value);
herr_t h5_write_fixed_text(hid_t object, const char *name, const char *value);
herr_t h5_replace_text(hid_t object, const char *name, const char *value);

/* *out is on the heap (free()). STATUS_CORRUPT if it is absent, no text or longer than max_bytes. */
enum status h5_read_text(hid_t object, const char *name, size_t max_bytes, const char *path,
                         char **out, struct error *err);

#endif
