#include "store/heart.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/mem.h"
#include "store/lock_file.h"

struct heart {
    char path[FILE_PATH_BYTES];
    double beat_s;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t changed;
    bool closing, ended;
    struct error failure; /* of the last beat; code STATUS_OK: none */
};

static struct timespec end_after(double seconds)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    double nanos = (double)end.tv_nsec + 1e9 * fmod(seconds, 1.0);
    bool over = nanos >= 1e9;
    end.tv_sec += (time_t)seconds + (over ? 1 : 0);
    end.tv_nsec = (long)(over ? nanos - 1e9 : nanos);
    return end;
}

/* Waits for a flag (mutex held); false if it did not come within the time. */
static bool wait_for(struct heart *heart, const bool *flag, double seconds)
{
    struct timespec end = end_after(seconds);
    int failed = 0;
    while (!*flag && failed == 0) {
        failed = pthread_cond_timedwait(&heart->changed, &heart->mutex, &end);
    }
    return *flag;
}

static void *serve(void *context)
{
    struct heart *heart = context;
    pthread_mutex_lock(&heart->mutex);
    for (int64_t beat = 1; !wait_for(heart, &heart->closing, heart->beat_s); beat++) {
        struct error failure = {0};
        pthread_mutex_unlock(&heart->mutex);
        lock_file_beat(heart->path, beat, false, &failure);
        pthread_mutex_lock(&heart->mutex);
        heart->failure = failure;
    }
    heart->ended = true;
    pthread_cond_broadcast(&heart->changed);
    pthread_mutex_unlock(&heart->mutex);
    return NULL;
}

static void destroy(struct heart *heart)
{
    pthread_cond_destroy(&heart->changed);
    pthread_mutex_destroy(&heart->mutex);
    free(heart);
}

enum status heart_start(const char *path, double beat_s, struct heart **out, struct error *err)
{
    struct heart *heart = mem_calloc(1, sizeof(*heart));
    pthread_condattr_t attributes;
    sigset_t all;
    sigset_t before;
    if (heart == NULL) {
        return mem_fail(err, sizeof(*heart), "a lock");
    }
    heart->beat_s = beat_s;
    pthread_mutex_init(&heart->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&heart->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    enum status status = file_join("", path, heart->path, err);
    if (status == STATUS_OK) {
        sigfillset(&all); /* signals are the main thread's business */
        pthread_sigmask(SIG_SETMASK, &all, &before);
        errno = pthread_create(&heart->thread, NULL, serve, heart);
        status = errno == 0 ? STATUS_OK : FAIL_ERRNO(err, "cannot start the lock's thread");
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    if (status != STATUS_OK) {
        destroy(heart);
        return status;
    }
    *out = heart;
    return STATUS_OK;
}

enum status heart_check(struct heart *heart, struct error *err)
{
    pthread_mutex_lock(&heart->mutex);
    enum status status = heart->failure.code;
    if (status != STATUS_OK && err != NULL) {
        *err = heart->failure;
    }
    pthread_mutex_unlock(&heart->mutex);
    return status;
}

bool heart_stop(struct heart *heart, double patience_s)
{
    pthread_mutex_lock(&heart->mutex);
    heart->closing = true;
    pthread_cond_broadcast(&heart->changed);
    bool ended = wait_for(heart, &heart->ended, patience_s);
    pthread_mutex_unlock(&heart->mutex);
    if (!ended) {
        pthread_detach(heart->thread);
        return false;
    }
    pthread_join(heart->thread, NULL);
    destroy(heart);
    return true;
}
