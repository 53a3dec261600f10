/* What a job lets its agents ask of the world outside, in the words of those who ask. */
#ifndef RUN_ASKING_H
#define RUN_ASKING_H

#include "agents/call_transport.h"
#include "base/file.h"
#include "run/job.h"

struct asking {
    struct call_direct_options options; /* endpoints, patience, sources */
    struct call_relay_caps caps;
    double relay_s; /* a relay's reply may take so long: all tries with their pauses */
    char cache[FILE_PATH_BYTES], downloads[FILE_PATH_BYTES]; /* below the run folder */
};

/* Borrows from the job; *out must stay where it is while its options are used. A "local" model is
 * no endpoint. Network "off": sources answer from their cache and local folders alone. */
enum status asking_options(const struct job *job, struct log *log, struct asking *out,
                           struct error *err);

#endif
