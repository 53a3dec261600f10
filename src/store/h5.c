#include "store/h5.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* The one mutable global of this room: it guards a library that has global state itself. */
static pthread_mutex_t library_lock = PTHREAD_MUTEX_INITIALIZER;

void h5_lock(void)
{
    pthread_mutex_lock(&library_lock);
    /* We close all that we open. HDF5 1.10's own clean-up at exit crashes over a file whose closing
     * failed, as it does on a full disk. Has to come before any other call. */
    H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5Eclear2(H5E_DEFAULT);
}

void h5_unlock(void)
{
    pthread_mutex_unlock(&library_lock);
}

/* What a walk over the error stack looks for. */
struct reason {
    char text[256]; /* of the innermost entry: the cause */
    int errno_value;
};

static herr_t note_entry(unsigned number, const H5E_error2_t *entry, void *context)
{
    struct reason *reason = context;
    const char *text = entry->desc != NULL ? entry->desc : "";
    if (number == 0 || reason->text[0] == '\0') {
        snprintf(reason->text, sizeof(reason->text), "%s", text);
    }
    const char *place = strstr(text, "errno = ");
    if (place != NULL && reason->errno_value == 0) {
        reason->errno_value = atoi(place + strlen("errno = "));
        snprintf(reason->text, sizeof(reason->text), "%s", strerror(reason->errno_value));
    }
    return 0;
}

enum status h5_fail(struct error *err, enum status code, const char *path, const char *what,
                    const char *source_file, int source_line)
{
    struct reason reason = {{0}, 0};
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, note_entry, &reason);
    H5Eclear2(H5E_DEFAULT);
    if (reason.errno_value != 0) {
        return error_set_errno(err, reason.errno_value, source_file, source_line, "%s: %s", path,
                               what);
    }
    return error_set(err, code, source_file, source_line, "%s: %s%s%s", path, what,
                     reason.text[0] != '\0' ? ": " : "", reason.text);
}

void h5_close(hid_t id)
{
    if (id < 0) {
        return;
    }
    /* Closing would empty the error stack, which may hold the reason that h5_fail is to tell. */
    hid_t reasons = H5Eget_num(H5E_DEFAULT) > 0 ? H5Eget_current_stack() : -1;
    switch (H5Iget_type(id)) {
    case H5I_GROUP:
        H5Gclose(id);
        break;
    case H5I_DATATYPE:
        H5Tclose(id);
        break;
    case H5I_DATASPACE:
        H5Sclose(id);
        break;
    case H5I_DATASET:
        H5Dclose(id);
        break;
    case H5I_ATTR:
        H5Aclose(id);
        break;
    case H5I_GENPROP_LST:
        H5Pclose(id);
        break;
    default:
        H5Idec_ref(id);
        break;
    }
    if (reasons >= 0) {
        H5Eset_current_stack(reasons);
    }
}

hid_t h5_access_properties(void)
{
    hid_t properties = H5Pcreate(H5P_FILE_ACCESS);
    if (properties < 0) {
        return properties;
    }
    H5Pset_fclose_degree(properties, H5F_CLOSE_STRONG);
#if H5_VERSION_GE(1, 10, 7)
    H5Pset_file_locking(properties, 0, 1);
#endif
    return properties;
}

hid_t h5_text_type(void)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 &&
        (H5Tset_size(type, H5T_VARIABLE) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0)) {
        H5Tclose(type);
        return -1;
    }
    return type;
}

hid_t h5_bf16_type(void)
{
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    if (type >= 0 && (H5Tset_fields(type, 15, 7, 8, 0, 7) < 0 || H5Tset_precision(type, 16) < 0 ||
                      H5Tset_size(type, 2) < 0 || H5Tset_ebias(type, 127) < 0)) {
        H5Tclose(type);
        return -1;
    }
    return type;
}

hid_t h5_enum_type(const char *const *names)
{
    hid_t type = H5Tenum_create(H5T_STD_I8LE);
    for (int i = 0; type >= 0 && names[i] != NULL; i++) {
        signed char value = (signed char)i;
        if (H5Tenum_insert(type, names[i], &value) < 0) {
            H5Tclose(type);
            return -1;
        }
    }
    return type;
}

static hid_t fixed_text_type(size_t bytes)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && (H5Tset_size(type, bytes) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0 ||
                      H5Tset_strpad(type, H5T_STR_NULLPAD) < 0)) {
        H5Tclose(type);
        return -1;
    }
    return type;
}

/* Takes the type; `value` points to what the type says: characters, or a pointer to them. */
static herr_t write_attribute(hid_t object, const char *name, hid_t type, const void *value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    herr_t result = attribute >= 0 ? H5Awrite(attribute, type, value) : -1;
    h5_close(attribute);
    h5_close(space);
    h5_close(type);
    return result;
}

herr_t h5_write_text(hid_t object, const char *name, const char *value)
{
    return write_attribute(object, name, h5_text_type(), &value);
}

herr_t h5_write_fixed_text(hid_t object, const char *name, const char *value)
{
    return write_attribute(object, name, fixed_text_type(strlen(value)), value);
}

herr_t h5_replace_text(hid_t object, const char *name, const char *value)
{
    hid_t type = fixed_text_type(strlen(value));
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    herr_t result = attribute >= 0 ? H5Awrite(attribute, type, value) : -1;
    h5_close(attribute);
    h5_close(type);
    return result;
}

/* Reads a variable-length text; HDF5 allocates it, so it is copied and given back. */
static enum status read_variable_text(hid_t attribute, hid_t type, size_t max_bytes,
                                      const char *path, char **out, struct error *err)
{
    char *text = NULL;
    if (H5Aread(attribute, type, &text) < 0) {
        return H5_FAIL(err, STATUS_CORRUPT, path, "cannot read a text attribute");
    }
    const char *value = text != NULL ? text : "";
    enum status status = STATUS_OK;
    if (strnlen(value, max_bytes + 1) > max_bytes) {
        status = FAIL(err, STATUS_CORRUPT, "%s: a text attribute is longer than %zu bytes", path,
                      max_bytes);
    } else {
        *out = mem_strdup(value);
        status = *out != NULL ? STATUS_OK : mem_fail(err, strlen(value), "a text attribute");
    }
    H5free_memory(text);
    return status;
}

static enum status read_fixed_text(hid_t attribute, hid_t type, size_t max_bytes, const char *path,
                                   char **out, struct error *err)
{
    size_t bytes = H5Tget_size(type);
    if (bytes == 0 || bytes > max_bytes) {
        return FAIL(err, STATUS_CORRUPT,
                    "%s: a text attribute of %zu bytes, at most %zu are allowed", path, bytes,
                    max_bytes);
    }
    char *text = mem_calloc(bytes + 1, 1);
    if (text == NULL) {
        return mem_fail(err, bytes, "a text attribute");
    }
    if (H5Aread(attribute, type, text) < 0) {
        free(text);
        return H5_FAIL(err, STATUS_CORRUPT, path, "cannot read a text attribute");
    }
    *out = text;
    return STATUS_OK;
}

enum status h5_read_text(hid_t object, const char *name, size_t max_bytes, const char *path,
                         char **out, struct error *err)
{
    enum status status = STATUS_OK;
    hid_t attribute = -1;
    hid_t type = -1;
    hid_t space = -1;
    TRY_H5(attribute = H5Aopen(object, name, H5P_DEFAULT), STATUS_CORRUPT, path,
           "cannot open a text attribute");
    TRY_H5(type = H5Aget_type(attribute), STATUS_CORRUPT, path, "a text attribute has no type");
    TRY_H5(space = H5Aget_space(attribute), STATUS_CORRUPT, path, "a text attribute has no shape");
    if (H5Tget_class(type) != H5T_STRING || H5Sget_simple_extent_npoints(space) != 1) {
        status = FAIL(err, STATUS_CORRUPT, "%s: attribute %s is not one text", path, name);
        goto cleanup;
    }
    if (H5Tis_variable_str(type) > 0) {
        status = read_variable_text(attribute, type, max_bytes, path, out, err);
    } else {
        status = read_fixed_text(attribute, type, max_bytes, path, out, err);
    }
    if (status != STATUS_OK) {
        error_context(err, "attribute %s", name);
    }
cleanup:
    h5_close(space);
    h5_close(type);
    h5_close(attribute);
    return status;
}
