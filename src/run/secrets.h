/* The secrets in the environment of a search's ranks: keys of language models and sources, and
 * proxies, whose URLs may hold a password.
 *
 * Launchers give every rank the same environment, but rank 0 alone asks anybody, and it needs a key
 * only until its client has read it. So, overwritten in place each time (a variable that is but
 * unset stays in memory, and in /proc/PID/environ):
 *
 *   all ranks   hide them while MPI starts: its libraries may keep copies of the environment, and
 *               start helpers with it
 *   rank 0      shows them again, and forgets the keys when its client has read them; proxies stay,
 *               because libcurl reads them with each request
 *   others      forget them all
 *
 * Whoever may know a key writes no core dump: RLIMIT_CORE is set to 1 byte, hard too, which also
 * holds where cores go to a program (the kernel ignores 0 there, not 1). Marking pages as
 * MADV_DONTDUMP would not do: libcurl and TLS copy what they send to places of their own. Nor does
 * PR_SET_DUMPABLE: without it MPI's shared memory (process_vm_readv) cannot read this process.
 * Whoever may debug this process (its owner, root) can read its keys: nothing here is against
 * them. */
#ifndef RUN_SECRETS_H
#define RUN_SECRETS_H

#include <stdbool.h>
#include <stddef.h>

enum { SECRETS_NAMES_MAX = 64, SECRETS_NAME_BYTES = 65 };

struct secrets {
    struct secret {
        char name[SECRETS_NAME_BYTES];
        bool proxy;
        char *value; /* while hidden: a copy; else NULL */
        char *place; /* in the environment */
    } list[SECRETS_NAMES_MAX];
    int count;
};

/* The names: the usual ones of providers and sources, those of proxies, and what `job_path` (NULL:
 * no job) calls key_env. A job that cannot be read has none: whoever reads it whole says why. */
void secrets_find(const char *job_path, struct secrets *out);

void secrets_hide(struct secrets *secrets);

/* Puts back what was hidden, and bars core dumps if there is a key. */
void secrets_show(struct secrets *secrets);

/* Overwrites the keys; `proxies`: those as well. The variables stay, empty: other threads may be
 * reading the environment, whose array nobody moves then. */
void secrets_forget(struct secrets *secrets, bool proxies);

/* True if one of the keys is set, or was when it was hidden. */
bool secrets_known(const struct secrets *secrets);

#endif
