/* One external program: fed, listened to, and killed whole when it takes too long or says too much.
 */
#ifndef BASE_PROCESS_H
#define BASE_PROCESS_H

#include <stddef.h>

#include "base/status.h"

/* Both are called on the caller's thread; any error ends the program, and process_run returns it.
 */
struct process_io {
    /* The next bytes for its standard input, valid until the next call; *len_bytes 0 at the end. */
    enum status (*input)(void *context, const char **data, size_t *len_bytes, struct error *err);
    /* A line of its standard output, NUL-terminated, without its end. */
    enum status (*line)(void *context, const char *text, size_t len_bytes, struct error *err);
    void *context;
};

enum { PROCESS_LINE_MAX_BYTES = 1 << 20 };

/* Runs argv (NULL-terminated; argv[0] is looked up in PATH unless it holds a slash) without a
 * shell, in a process group of its own, with no open files but the three standard ones, default
 * signals, and this program's environment without variables whose names tell of secrets (KEY,
 * TOKEN, SECRET, PASSWORD) or that hold a URL with a user name. The whole group is dead when this
 * returns. A program that does not read its input to the end is no error. Errors: STATUS_NOT_FOUND,
 * STATUS_PERMISSION if it cannot start; STATUS_TIMEOUT; STATUS_LIMIT for a line longer than
 * PROCESS_LINE_MAX_BYTES; STATUS_EXTERNAL for an exit status other than 0 or a signal, with the end
 * of what it wrote to standard error; what the callbacks return. */
enum status process_run(char *const *argv, double timeout_s, const struct process_io *io,
                        struct error *err);

#endif
