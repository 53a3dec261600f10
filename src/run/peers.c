#include "run/peers.h"

#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "run/message.h"

static const double usual_limit_s = 600.0;
static const double shortest_limit_s = 1.0;
static const double longest_limit_s = 86400.0;
static const double beats_per_limit = 20.0;
static const double longest_beat_s = 5.0;
static const double nap_share = 1.0 / 64.0; /* of what was waited: MPI sends on when it is asked */
static const double longest_nap_s[] = {[PEERS_LIMITED] = 1e-3, [PEERS_UNLIMITED] = 2e-2};

static double read_limit(void)
{
    const char *text = getenv("TREX_PATIENCE");
    char *end = NULL;
    double limit_s = text != NULL ? strtod(text, &end) : 0.0;
    bool fits = text != NULL && end != text && *end == '\0' && limit_s >= shortest_limit_s &&
                limit_s <= longest_limit_s;
    return fits ? limit_s : usual_limit_s;
}

static void hear_all(struct peers *peers, double now_s)
{
    for (int i = 0; i < peers->size; i++) {
        peers->heard_s[i] = now_s;
    }
}

enum status peers_create(MPI_Comm comm, int first, double limit_s, struct peers **out,
                         struct error *err)
{
    struct peers *peers = mem_calloc(1, sizeof(*peers));
    if (peers == NULL) {
        MPI_Comm_free(&comm);
        return mem_fail(err, sizeof(*peers), "a group of ranks");
    }
    *peers = (struct peers){.comm = comm, .first = first, .lost = -1};
    peers->limit_s = limit_s > 0.0 ? limit_s : read_limit();
    MPI_Comm_rank(comm, &peers->rank);
    MPI_Comm_size(comm, &peers->size);
    peers->heard_s = mem_calloc((size_t)peers->size, sizeof(*peers->heard_s));
    if (peers->heard_s == NULL) {
        peers_destroy(peers);
        return mem_fail(err, sizeof(*peers), "a group of ranks");
    }
    hear_all(peers, clock_monotonic_s());
    *out = peers;
    return STATUS_OK;
}

void peers_destroy(struct peers *peers)
{
    if (peers != NULL) {
        MPI_Comm_free(&peers->comm);
        free(peers->heard_s);
        free(peers);
    }
}

/* Takes the beats that have come. */
static enum status listen(struct peers *peers, double now_s, struct error *err)
{
    for (;;) {
        int waiting = 0;
        MPI_Message handle;
        MPI_Status from;
        TRY_MPI(MPI_Improbe(MPI_ANY_SOURCE, MESSAGE_BEAT, peers->comm, &waiting, &handle, &from));
        if (!waiting) {
            return STATUS_OK;
        }
        TRY_MPI(MPI_Mrecv(NULL, 0, MPI_BYTE, &handle, MPI_STATUS_IGNORE));
        peers->heard_s[from.MPI_SOURCE] = now_s;
    }
}

static enum status beat(struct peers *peers, double now_s, struct error *err)
{
    double interval_s = fmin(peers->limit_s / beats_per_limit, longest_beat_s);
    if (now_s - peers->beaten_s < interval_s) {
        return STATUS_OK;
    }
    peers->beaten_s = now_s;
    for (int i = 0; i < peers->size; i++) {
        MPI_Request request;
        if (i != peers->rank) {
            TRY_MPI(MPI_Isend(NULL, 0, MPI_BYTE, i, MESSAGE_BEAT, peers->comm, &request));
            TRY_MPI(MPI_Request_free(&request)); /* there is no buffer that MPI could still need */
        }
    }
    return STATUS_OK;
}

enum status peers_beat(struct peers *peers, struct error *err)
{
    if (peers == NULL) {
        return STATUS_OK;
    }
    double now_s = clock_monotonic_s();
    TRY(listen(peers, now_s, err));
    return beat(peers, now_s, err);
}

static enum status fail_lost(const struct peers *peers, struct error *err)
{
    return FAIL(err, STATUS_MPI, "rank %d of the group has not answered for %.0f s",
                peers->first + peers->lost, peers->silent_s);
}

/* Whether all others have been heard of for long enough, counted from `begun_s` at the earliest. */
static enum status check_silence(struct peers *peers, double begun_s, double now_s,
                                 struct error *err)
{
    for (int i = 0; i < peers->size; i++) {
        double silent_s = now_s - fmax(peers->heard_s[i], begun_s);
        if (i != peers->rank && silent_s > peers->limit_s) {
            peers->lost = i;
            peers->silent_s = silent_s;
            return fail_lost(peers, err);
        }
    }
    return STATUS_OK;
}

enum status peers_wait(struct peers *peers, MPI_Request *request, enum peers_patience patience,
                       struct error *err)
{
    if (peers->lost >= 0 && patience == PEERS_LIMITED) {
        return fail_lost(peers, err);
    }
    double begun_s = clock_monotonic_s();
    double nap_s = 0.0;
    for (;;) {
        int done = 0;
        TRY_MPI(MPI_Test(request, &done, MPI_STATUS_IGNORE));
        if (done) {
            return STATUS_OK;
        }
        clock_sleep_s(nap_s);
        double now_s = clock_monotonic_s();
        nap_s = fmin(nap_share * (now_s - begun_s), longest_nap_s[patience]);
        if (nap_s < longest_nap_s[PEERS_LIMITED]) {
            continue; /* it has only begun */
        }
        TRY(listen(peers, now_s, err));
        if (patience == PEERS_LIMITED) {
            TRY(beat(peers, now_s, err));
            TRY(check_silence(peers, begun_s, now_s, err));
        }
    }
}
