/* What can go wrong, and how a function says so.
 *
 * Fallible functions return enum status and take a struct error *err last. On failure they fill
 * *err once and leave their outputs untouched. struct error is plain data of fixed size: it can
 * cross MPI and lie in a file. */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

#include <stdarg.h>

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, text for a person, what to do next). The table in INSTALL is this list (a test compares
 * them). */
#define STATUS_LIST(X)                                                                             \
    X(STATUS_OK, "ok", "nothing")                                                                  \
    X(STATUS_INVALID, "invalid input", "correct what the message names and run again")             \
    X(STATUS_NOT_FOUND, "not found",                                                               \
      "check the path or the name; relative paths are relative to the job file")                   \
    X(STATUS_FORMAT, "not in the expected format", "check that the file is what its name says")    \
    X(STATUS_CORRUPT, "damaged file",                                                              \
      "run trex-tree verify; the message names the generation to fall back to")                    \
    X(STATUS_VERSION, "written by another version",                                                \
      "use the program version that the message names")                                            \
    X(STATUS_RANGE, "value out of range", "use a value in the range that the message gives")       \
    X(STATUS_LIMIT, "over a limit", "raise the limit in the job file, or make the input smaller")  \
    X(STATUS_IO, "input or output failed",                                                         \
      "check the file system; run the same command again to resume")                               \
    X(STATUS_NO_SPACE, "no space left",                                                            \
      "free disk space or quota; run the same command again to resume")                            \
    X(STATUS_PERMISSION, "permission denied", "check owner and mode of the path in the message")   \
    X(STATUS_NO_MEMORY, "out of memory",                                                           \
      "lower batch_tokens or sequence_length, or ask for more memory")                             \
    X(STATUS_BUSY, "in use by another process",                                                    \
      "wait for the other search, or stop it; the message names it")                               \
    X(STATUS_UNSUPPORTED, "not supported", "use one of the alternatives that the message lists")   \
    X(STATUS_DIVERGED, "training diverged",                                                        \
      "lower the learning rate; the search does so by itself")                                     \
    X(STATUS_TIMEOUT, "time limit reached", "raise the limit that the message names")              \
    X(STATUS_INTERRUPTED, "stopped on request", "run the same command again to resume")            \
    X(STATUS_EXTERNAL, "an external program failed", "run the command in the message by hand")     \
    X(STATUS_MPI, "MPI failed", "check the launcher: mpirun -n 2 hostname, srun --mpi=list")       \
    X(STATUS_DEVICE, "compute device failed",                                                      \
      "try backend cpu; run tests/run to check the device")                                        \
    X(STATUS_INTERNAL, "a mistake in this program", "report it with the message and the log")

enum status {
#define STATUS_ENUM(name, text, advice) name,
    STATUS_LIST(STATUS_ENUM)
#undef STATUS_ENUM
        STATUS_COUNT
};

/* What happened, where. message: UTF-8, one line, without a full stop at its end. */
struct error {
    enum status code;
    int rank; /* MPI rank that saw it, -1 outside MPI */
    int line; /* in file */
    char file[52];
    char message[960];
};

#if defined(__GNUC__)
#define BASE_PRINTF(format_index, first_argument)                                                  \
    __attribute__((format(printf, format_index, first_argument)))
#else
#define BASE_PRINTF(format_index, first_argument)
#endif

const char *status_name(enum status status);   /* "STATUS_IO"; never NULL */
const char *status_text(enum status status);   /* "input or output failed" */
const char *status_advice(enum status status); /* what to do next */

/* Fills *err (which may be NULL) and returns code, so that a caller writes `return FAIL(err, code,
 * ...)`. */
enum status error_set(struct error *err, enum status code, const char *file, int line,
                      const char *format, ...) BASE_PRINTF(5, 6);

/* Puts "<context>: " before the message: what the caller was doing when it failed. Keeps code and
 * place. */
void error_context(struct error *err, const char *format, ...) BASE_PRINTF(2, 3);

/* Fills *err from errno: STATUS_NO_SPACE, STATUS_NOT_FOUND, STATUS_PERMISSION, STATUS_NO_MEMORY or
 * STATUS_IO. */
enum status error_set_errno(struct error *err, int errno_value, const char *file, int line,
                            const char *format, ...) BASE_PRINTF(5, 6);

#define FAIL(err, code, ...) error_set((err), (code), __FILE__, __LINE__, __VA_ARGS__)
#define FAIL_ERRNO(err, ...) error_set_errno((err), errno, __FILE__, __LINE__, __VA_ARGS__)

/* For a function that holds nothing to release. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        enum status try_status_ = (call);                                                          \
        if (try_status_ != STATUS_OK) {                                                            \
            return try_status_;                                                                    \
        }                                                                                          \
    } while (0)

/* For a function with `enum status status` and one way out at `cleanup:`. */
#define TRY_CLEANUP(call)                                                                          \
    do {                                                                                           \
        status = (call);                                                                           \
        if (status != STATUS_OK) {                                                                 \
            goto cleanup;                                                                          \
        }                                                                                          \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
