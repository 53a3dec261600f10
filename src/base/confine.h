/* A program that is not trusted, shut into a folder: no network, no files but its own and the
 * system's programs (to read), no signals to others, and limits on time, memory and output.
 * Unprivileged: seccomp, Landlock (Linux 5.13) and resource limits. */
#ifndef BASE_CONFINE_H
#define BASE_CONFINE_H

#include <stdint.h>

#include "base/status.h"

struct confine_options {
    const char *folder; /* its working directory, the only place where it can write; absolute */
    /* Folders it may read and run programs from, beside /usr, /bin, /lib, /lib64; NULL at the end;
     * those that do not exist are passed over. NULL: none. */
    const char *const *readable;
    double seconds;       /* of processor time */
    int64_t memory_bytes; /* of address space, of each of its processes */
    int64_t file_bytes;   /* of each file it writes */
};

/* Confines this process for good, and all that it becomes and starts; with an environment of PATH,
 * LANG, HOME and TMPDIR alone. To be called in a process of one thread, before exec.
 * STATUS_UNSUPPORTED if the kernel cannot: the process is then in an unknown state, and must end.
 */
enum status confine_self(const struct confine_options *options, struct error *err);

#endif
