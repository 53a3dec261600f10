/* What ranks say to each other. Fixed-size header, bounded JSON payload, parsed as if hostile.
 *
 *   controller (rank 0)                     worker (leader of a group)
 *                        <-- HELLO          what it is: host, threads, device, memory
 *   ORDER {train | test} -->
 *                        <-- PROGRESS       phase, done, total, times; now and then
 *   STOP                 -->                once `done` steps are done (0: at the next boundary)
 *                        <-- RESULT | FAILED | SUSPENDED
 *   ORDER {dry | ask}    -->                a plan's dry run; a question to a language model that
 *                                           the worker runs itself: node is the call, candidate -1
 *                        <-- RESULT | FAILED | SUSPENDED
 *   QUIT                 --> */
#ifndef RUN_MESSAGE_H
#define RUN_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>
#include <mpi.h>

#include "base/status.h"

enum { MESSAGE_MAGIC = 0x54524558, MESSAGE_VERSION = 2, MESSAGE_MAX_BYTES = 64 << 20 };

/* No time that a message tells of is longer: 3 years. */
#define MESSAGE_MAX_S 1e8

/* Every MPI tag of the program. */
enum message_tag {
    MESSAGE_TO_WORKER = 1,
    MESSAGE_TO_CONTROLLER = 2,
    MESSAGE_BEAT = 3, /* within a group: the sender lives (peers.h) */
};

enum message_kind {
    MESSAGE_HELLO,
    MESSAGE_ORDER,
    MESSAGE_PROGRESS,
    MESSAGE_STOP,
    MESSAGE_RESULT,
    MESSAGE_FAILED,
    MESSAGE_SUSPENDED,
    MESSAGE_QUIT,
    MESSAGE_KIND_COUNT
};

/* What a worker does. In all phases but MESSAGE_SAVE it can stop. */
enum message_phase {
    MESSAGE_NO_PHASE, /* nothing was said yet */
    MESSAGE_LOAD,     /* model, splits, a training's state: arrays */
    MESSAGE_DATA,     /* recipe and encoding: rows */
    MESSAGE_TRAIN,    /* steps */
    MESSAGE_VALIDATE, /* the loss within a training: batches */
    MESSAGE_EVALUATE, /* the score behind it: rows */
    MESSAGE_SAVE,     /* a training's state or weights: arrays */
    MESSAGE_PHASE_COUNT
};

/* As it travels: 72 bytes, same layout on all ranks of one binary. */
struct message_header {
    uint32_t magic;
    uint32_t version;
    uint32_t kind;
    int32_t node;
    int32_t candidate;
    int32_t phase; /* PROGRESS: enum message_phase */
    int64_t done; /* PROGRESS: units of the phase; STOP: step to stop after, 0: the next boundary */
    int64_t total;
    double step_s; /* PROGRESS: of the last whole training steps, mean; 0: none yet */
    double save_s; /* PROGRESS: longest save of a training state so far; 0: none yet */
    double gap_s; /* PROGRESS: longest time between two boundaries at which it could have stopped */
    uint64_t payload_bytes; /* JSON that follows */
};

/* The names that progress_tick knows phases by: "", "load", "data", "train", "validate",
 * "evaluate", "save"; NULL behind the last. */
extern const char *const message_phases[];

/* Index of a phase by its name; MESSAGE_NO_PHASE if it has none. */
enum message_phase message_find_phase(const char *name);

struct message {
    struct message_header header;
    cJSON *payload; /* owned; NULL if there is none */
    int rank;       /* sender or receiver */
};

/* Messages under way (run/mailbox.c); one per process. Sends never block: buffers live here until
 * MPI has taken them. */
struct mailbox; /* opaque */

enum status mailbox_create(MPI_Comm comm, struct mailbox **out, struct error *err);

/* Waits for sends under way for at most timeout_s, then frees. NULL allowed. */
void mailbox_destroy(struct mailbox *mailbox, double timeout_s);

/* Takes message->payload. */
enum status mailbox_send(struct mailbox *mailbox, int rank, enum message_tag tag,
                         struct message *message, struct error *err);

/* True and a message in *out if one has come (message_fini it). A message that is not well formed
 * is dropped and reported in *err with its sender; the return is then STATUS_FORMAT and *came
 * false. Never blocks. */
enum status mailbox_receive(struct mailbox *mailbox, enum message_tag tag, bool *came,
                            struct message *out, struct error *err);
void message_fini(struct message *message);

/* ---- for the mailbox (run/mailbox.c), and for whoever stands in for it ---- */

/* A message as it travels: *bytes is on the heap. bytes NULL: there was no memory for what holds
 * it. Takes message->payload, whatever the outcome. */
enum status message_pack(struct message *message, char **bytes, size_t *len_bytes,
                         struct error *err);

/* Checks a header and the bytes behind it. */
enum status message_parse(const void *bytes, size_t len_bytes, struct message *out,
                          struct error *err);

/* STATUS_MPI with MPI's own text. */
enum status message_mpi_status(int mpi_error, const char *call, const char *file, int line,
                               struct error *err);
#define TRY_MPI(call)                                                                              \
    do {                                                                                           \
        int try_mpi_ = (call);                                                                     \
        if (try_mpi_ != MPI_SUCCESS) {                                                             \
            return message_mpi_status(try_mpi_, #call, __FILE__, __LINE__, err);                   \
        }                                                                                          \
    } while (0)

#endif
