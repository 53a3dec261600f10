/* The run folder.
 *
 *   run.h5  run.prev.h5     the whole search, two generations, each written aside, synced, renamed
 *   journal.jsonl           events since run.h5 was written, each synced before it counts
 *   weights/n0007-c2.h5     weights of a kept candidate
 *   inflight/n0009-c1.h5    training state of a candidate that was cut
 *   data/<hash>.h5          prepared data
 *   control.json            what trex-tree wants of the search (store/control.h)
 *   lock/7                  owner of the folder, the seventh
 *
 * One writer a file. Every array has a checksum (attribute xxh3_128) that is verified on read. A
 * cut, damaged or foreign file is an error that names it and what to use instead; it is never a
 * crash or a hang. Not thread-safe: HDF5 is called from one thread at a time (store_snapshot's
 * thread is the only one beside the caller, and they lock). */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/file.h"
#include "base/status.h"
#include "tree/search.h"

/* What each version brought: FORMATS.md. Files of earlier versions are read. */
enum { STORE_SCHEMA_VERSION = 4 };

/* ---- run.h5 (store/run_file.c) ---- */

/* Writes the search aside and commits it; the old run.h5 becomes run.prev.h5. */
enum status store_run_save(const char *folder, const struct search *search, struct error *err);

/* Reads one generation: checks schema version, identity, checksums, tree. */
enum status store_run_read(const char *path, struct search *out, struct error *err);

/* What a reader does: newest readable generation, then the journal's events after it. `note` says
 * in words what was used and what was wrong with the other (empty if all was well).
 * STATUS_NOT_FOUND if the folder holds no search. A last journal line that is cut (a kill in the
 * middle of a write) is dropped; a wrong one before it is STATUS_CORRUPT. */
enum status store_run_load(const char *folder, struct search *out, char *note, size_t note_bytes,
                           struct error *err);

/* ---- journal (store/journal.c) ---- */

struct store_lock; /* of the folder, below */

/* Appends events from a thread of its own, so that the caller never waits for the disk. */
struct journal; /* opaque */

/* Opens for appending after the events up to last_sequence; drops a cut last line. The file is
 * written anew and renamed, so that a process that lost the folder and does not know it yet writes
 * into a file that no longer counts. lock: of the folder, borrowed; NULL: none (tests). */
enum status journal_open(const char *folder, const struct store_lock *lock, int64_t last_sequence,
                         struct journal **out, struct error *err);

/* Queues an event; takes it, whatever the outcome. Its "sequence" must be the last one's + 1. */
enum status journal_append(struct journal *journal, cJSON *event, struct error *err);

/* Gives the events back that are on disk, in order, one a call; NULL if none is left. Those that
 * nobody takes are freed when the journal is closed. */
cJSON *journal_take(struct journal *journal);

/* Sequence up to which events are on disk, or the error that stopped the writing (which then
 * stays). */
enum status journal_durable(struct journal *journal, int64_t *sequence, struct error *err);

/* Waits until all is on disk. */
enum status journal_flush(struct journal *journal, struct error *err);

/* Drops the events up to `sequence`, which committed run files hold: give that of run.prev.h5, so
 * that the journal goes on from either generation. */
enum status journal_rotate(struct journal *journal, int64_t sequence, struct error *err);
void journal_close(struct journal *journal); /* flushes; NULL allowed */

/* ---- snapshots without waiting (store/snapshot.c) ---- */

/* Writes run.h5 from a thread, then shortens the journal. The caller waits for nothing: the thread
 * has a search of its own that follows the journal's events. */
struct snapshot; /* opaque */
enum status snapshot_create(const char *folder, struct journal *journal, struct snapshot **out,
                            struct error *err);
/* Starts one of all events up to `sequence`, unless one is being written; false: one is. */
bool snapshot_start(struct snapshot *snapshot, int64_t sequence);
/* The first failure of a finished one; told once, the next one may succeed. */
enum status snapshot_check(struct snapshot *snapshot, struct error *err);
enum status snapshot_wait(struct snapshot *snapshot, struct error *err);
/* How long the last one took that has ended, well or not; 0: none has. */
double snapshot_seconds(struct snapshot *snapshot);
void snapshot_destroy(struct snapshot *snapshot);

/* ---- arrays: weights, training state, prepared data (store/arrays.c) ---- */

enum store_type {
    STORE_F32,
    STORE_BF16,
    STORE_F64,
    STORE_I32,
    STORE_I64,
    STORE_U8,
    STORE_TYPE_COUNT
};

struct store_array {
    char name[128];    /* "/" makes groups */
    char meaning[160]; /* attribute of that name, with units */
    enum store_type type;
    int64_t rows, cols; /* one-dimensional in the file if rows is 1 and `vector` */
    bool vector;
};

/* A text attribute of the file. */
struct store_attribute {
    const char *name;
    const char *value;
};

/* Writes a file of arrays (contiguous, checksummed) and attributes; `read` gives array `index` into
 * `to`, so that only one array is on the host at a time. Written aside and renamed. kind:
 * "weights", "adapter", "training", "data". STATUS_INVALID: a name, shape or type that cannot be,
 * or two arrays of one name ("arrays" is the list's own). */
typedef enum status (*store_read_fn)(void *context, int64_t index, void *to, struct error *err);
enum status store_arrays_write(const char *path, const char *kind, const struct store_array *arrays,
                               int64_t count, const struct store_attribute *attributes,
                               int64_t attribute_count, store_read_fn read, void *context,
                               struct error *err);

struct store_file; /* opaque, open for reading */
/* kind NULL: any. */
enum status store_arrays_open(const char *path, const char *kind, struct store_file **out,
                              struct error *err);
int64_t store_arrays_count(const struct store_file *file);
const struct store_array *store_arrays_at(const struct store_file *file, int64_t index);
int64_t store_arrays_find(const struct store_file *file, const char *name); /* -1 if absent */
/* Whole array into `to` (its rows * cols elements), its checksum verified. */
enum status store_arrays_read(struct store_file *file, int64_t index, void *to, struct error *err);
/* Borrowed text, NULL if absent. */
const char *store_arrays_attribute(const struct store_file *file, const char *name);
void store_arrays_close(struct store_file *file);
size_t store_type_bytes(enum store_type type);

/* ---- the folder (store/folder.c, store/lock.c) ---- */

/* Makes the folder and its subfolders and takes its lock. Two things guard it, because clusters
 * have file systems on which either alone does not do: heartbeat  each owner has a file in `lock`,
 * named by its fence, a number that grows with every owner; it says as JSON who that is (host, pid,
 * Slurm job and restart, since), and a thread counts a beat up in it every STORE_BEAT_S flock on
 * that file: ends with the process, however it dies; where a kernel has it, it tells at once of a
 *              dead owner in another container
 * A folder whose last owner did not unlock it is taken over at once if that owner is surely dead
 * (its process on this machine, an earlier start within this very Slurm allocation), else when its
 * beat has stood still for STORE_SILENCE_S. STATUS_BUSY names the holder, after its first beat that
 * is seen. STATUS_INTERRUPTED: a signal was handled while it waited. Clocks are not compared
 * between machines. */
enum { STORE_BEAT_S = 2, STORE_SILENCE_S = 12 };
struct store_lock; /* opaque */
enum status store_folder_lock(const char *folder, struct store_lock **out, struct error *err);
void store_folder_unlock(struct store_lock *lock); /* NULL allowed */

/* STATUS_BUSY if somebody has taken the folder over since: this process must write nothing into it
 * any more. Reads the folder `lock`; from any thread. The journal asks before it writes and before
 * what it wrote counts as on disk, the snapshot when its file is written and not yet renamed
 * (store/lock.c says why that is enough). */
enum status store_lock_check(const struct store_lock *lock, struct error *err);

/* Who had the folder and never unlocked it ("process 12 on n1, Slurm job 7, since ..."), "" if it
 * was left in order. */
const char *store_lock_taken_from(const struct store_lock *lock);
int64_t store_lock_fence(const struct store_lock *lock);

/* Who locked the folder last and has not unlocked it: a running search, or one that was killed. */
enum store_alive {
    STORE_ALIVE_UNKNOWN /* it is of another host */,
    STORE_ALIVE_NO,
    STORE_ALIVE_YES
};
struct store_holder {
    char host[256];
    char job[64]; /* Slurm job, "" if none */
    char since[32];
    int64_t pid;
    enum store_alive alive;
    double beat_age_s; /* since its last beat, by the clocks of two machines: a hint, no more */
};
/* STATUS_NOT_FOUND if nobody does. Takes no lock. */
enum status store_folder_holder(const char *folder, struct store_holder *out, struct error *err);

/* Paths inside a run folder. */
enum status store_weights_path(const char *folder, int32_t node, int32_t candidate,
                               char out[FILE_PATH_BYTES], struct error *err);
enum status store_inflight_path(const char *folder, int32_t node, int32_t candidate,
                                char out[FILE_PATH_BYTES], struct error *err);
enum status store_data_path(const char *folder, const char *hash, char out[FILE_PATH_BYTES],
                            struct error *err);

/* Removes the training states of candidates that `over` says have an end: a kill may have come
 * between that end and the removal of its state. Best effort. */
void store_inflight_sweep(const char *folder,
                          bool (*over)(const void *context, int32_t node, int32_t candidate),
                          const void *context);

/* Checks every file of a run folder: both generations, journal, tree, weights, in-flight states,
 * data. One line a finding through `report`; returns the first failure, STATUS_OK if all is well.
 */
enum status store_verify(const char *folder,
                         void (*report)(void *context, const char *path, enum status status,
                                        const char *message),
                         void *context, struct error *err);

#endif
