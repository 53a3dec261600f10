/* The run folder: what is in it, and where. */
#include "store/folder.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "store/store.h"

enum { HASH_NAME_BYTES = 64 };

enum status folder_make(const char *folder, struct error *err)
{
    static const char *const names[] = {FOLDER_WEIGHTS, FOLDER_INFLIGHT, FOLDER_DATA, FOLDER_LOCK};
    char path[FILE_PATH_BYTES];
    TRY(file_make_folders(folder, err));
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        TRY(file_join(folder, names[i], path, err));
        TRY(file_make_folders(path, err));
    }
    return STATUS_OK;
}

static void sweep(const char *folder, const char *subfolder)
{
    char path[FILE_PATH_BYTES];
    char file[FILE_PATH_BYTES];
    if (file_join(folder, subfolder, path, NULL) != STATUS_OK) {
        return;
    }
    DIR *entries = opendir(path);
    if (entries == NULL) {
        return;
    }
    for (struct dirent *entry = readdir(entries); entry != NULL; entry = readdir(entries)) {
        size_t length = strlen(entry->d_name);
        if (length > 4 && strcmp(entry->d_name + length - 4, ".tmp") == 0 &&
            file_join(path, entry->d_name, file, NULL) == STATUS_OK) {
            unlink(file);
        }
    }
    closedir(entries);
}

void folder_sweep(const char *folder)
{
    sweep(folder, ".");
    sweep(folder, FOLDER_WEIGHTS);
    sweep(folder, FOLDER_INFLIGHT);
    sweep(folder, FOLDER_DATA);
}

void store_inflight_sweep(const char *folder,
                          bool (*over)(const void *context, int32_t node, int32_t candidate),
                          const void *context)
{
    char path[FILE_PATH_BYTES];
    char file[FILE_PATH_BYTES];
    DIR *entries =
        file_join(folder, FOLDER_INFLIGHT, path, NULL) == STATUS_OK ? opendir(path) : NULL;
    if (entries == NULL) {
        return;
    }
    for (struct dirent *entry = readdir(entries); entry != NULL; entry = readdir(entries)) {
        char name[SEARCH_NAME_BYTES];
        int32_t node = -1;
        int32_t candidate = -1;
        size_t length = strlen(entry->d_name);
        if (length <= 3 || length - 3 >= sizeof(name) ||
            strcmp(entry->d_name + length - 3, ".h5") != 0) {
            continue;
        }
        memcpy(name, entry->d_name, length - 3);
        name[length - 3] = '\0';
        if (search_candidate_parse(name, &node, &candidate) && over(context, node, candidate) &&
            file_join(path, entry->d_name, file, NULL) == STATUS_OK) {
            unlink(file);
        }
    }
    closedir(entries);
}

/* ---- paths ---- */

static enum status path_of(const char *folder, const char *subfolder, const char *name,
                           char out[FILE_PATH_BYTES], struct error *err)
{
    char relative[sizeof(FOLDER_INFLIGHT) + HASH_NAME_BYTES + sizeof("/.h5")];
    int used = snprintf(relative, sizeof(relative), "%s/%s.h5", subfolder, name);
    if (used < 0 || (size_t)used >= sizeof(relative)) {
        return FAIL(err, STATUS_LIMIT, "file name longer than %d bytes: %.80s", HASH_NAME_BYTES,
                    name);
    }
    return file_join(folder, relative, out, err);
}

enum status store_weights_path(const char *folder, int32_t node, int32_t candidate,
                               char out[FILE_PATH_BYTES], struct error *err)
{
    char name[SEARCH_NAME_BYTES];
    search_candidate_name(node, candidate, name);
    return path_of(folder, FOLDER_WEIGHTS, name, out, err);
}

enum status store_inflight_path(const char *folder, int32_t node, int32_t candidate,
                                char out[FILE_PATH_BYTES], struct error *err)
{
    char name[SEARCH_NAME_BYTES];
    search_candidate_name(node, candidate, name);
    return path_of(folder, FOLDER_INFLIGHT, name, out, err);
}

enum status store_data_path(const char *folder, const char *hash, char out[FILE_PATH_BYTES],
                            struct error *err)
{
    if (strspn(hash, "0123456789abcdef") != strlen(hash) || hash[0] == '\0') {
        return FAIL(err, STATUS_INVALID, "\"%.80s\" is not a hash", hash);
    }
    return path_of(folder, FOLDER_DATA, hash, out, err);
}
