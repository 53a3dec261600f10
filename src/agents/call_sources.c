/* Sources on a thread of their own: a cache is read and written, rows are stored, local folders are
 * looked through, on a file system that may be slow where the controller must not. */
#include "agents/call_parts.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "base/mem.h"

static const double look_s = 0.05, idle_s = 1.0; /* what may have to wait for its turn; nothing */

enum question_phase { QUESTION_NEW, QUESTION_ASKED, QUESTION_CANCELLED };

struct question {
    int32_t id;
    enum question_phase phase;
    cJSON *body;   /* until it is asked */
    int64_t asked; /* the id that `sources` gave it; 0: none */
    struct question *next;
};

struct call_sources {
    struct log log; /* of the thread: without a tail, which is the main thread's */
    struct source_options options;
    struct http *http; /* the thread's, but for http_wake */
    struct sources *sources;
    struct http *main; /* woken when an answer is there */
    pthread_t thread;
    bool running;

    pthread_mutex_t mutex; /* of all below */
    bool stop;
    struct question *questions; /* in the order in which they came */
    struct call_queue answers;
    enum status status; /* the thread's own failure */
    struct error failure;
};

/* ---- the thread ---- */

static void push_answer(struct call_sources *c, struct call_answer *answer)
{
    struct error failure;
    enum status status = call_queue_push(&c->answers, answer, &failure);
    if (status != STATUS_OK && c->status == STATUS_OK) {
        c->status = status;
        c->failure = failure;
    }
    http_wake(c->main);
}

/* True if there is an answer. */
static bool take_answer(struct call_sources *c, const struct question *question)
{
    struct source_answer answer;
    if (!sources_take(c->sources, question->asked, &answer)) {
        return false;
    }
    struct call_answer out = {
        .id = question->id,
        .status = answer.status,
        .text = answer.text,
        .seconds = answer.seconds,
        .attempts = answer.attempts,
        .error = answer.error,
    };
    answer.text = NULL;
    call_answer_set(out.provider, sizeof(out.provider), answer.cached ? "cache" : "source");
    call_answer_set(out.host, sizeof(out.host), answer.host);
    source_answer_fini(&answer);
    push_answer(c, &out);
    return true;
}

/* True if it is under way. */
static bool ask(struct call_sources *c, struct question *question)
{
    struct error failure;
    enum status status = sources_ask(c->sources, question->body, &question->asked, &failure);
    cJSON_Delete(question->body);
    question->body = NULL;
    question->phase = QUESTION_ASKED;
    if (status != STATUS_OK) {
        struct call_answer answer = call_answer_failed(question->id, &failure);
        push_answer(c, &answer);
    }
    return status == STATUS_OK;
}

/* Begins, ends and answers, under the mutex; nothing here touches a file. */
static void move_questions(struct call_sources *c)
{
    struct question **link = &c->questions;
    while (*link != NULL) {
        struct question *question = *link;
        bool goes_on = true;
        if (question->phase == QUESTION_CANCELLED) {
            sources_cancel(c->sources, question->asked);
            goes_on = false;
        } else if (question->phase == QUESTION_NEW) {
            goes_on = ask(c, question);
        } else {
            goes_on = !take_answer(c, question);
        }
        if (goes_on) {
            link = &question->next;
        } else {
            *link = question->next;
            cJSON_Delete(question->body);
            free(question);
        }
    }
}

static void *run(void *argument)
{
    struct call_sources *c = argument;
    enum status status = STATUS_OK;
    struct error failure;
    pthread_mutex_lock(&c->mutex);
    while (!c->stop && status == STATUS_OK) {
        move_questions(c);
        pthread_mutex_unlock(&c->mutex);
        status = sources_turn(c->sources, &failure);
        pthread_mutex_lock(&c->mutex);
        move_questions(c);
        double wait_s = c->questions != NULL ? look_s : idle_s;
        pthread_mutex_unlock(&c->mutex);
        http_wait(c->http, wait_s);
        pthread_mutex_lock(&c->mutex);
    }
    if (status != STATUS_OK && c->status == STATUS_OK) {
        c->status = status;
        c->failure = failure;
    }
    pthread_mutex_unlock(&c->mutex);
    return NULL;
}

/* ---- the main thread ---- */

enum status call_sources_ask(struct call_sources *c, const struct call *call, struct error *err)
{
    struct question *question = mem_calloc(1, sizeof(*question));
    cJSON *body = cJSON_Duplicate(call->body, true);
    if (question == NULL || body == NULL) {
        free(question);
        cJSON_Delete(body);
        return mem_fail(err, sizeof(*question), "a question to a source");
    }
    question->id = call->id;
    question->body = body;
    pthread_mutex_lock(&c->mutex);
    struct question **end = &c->questions;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = question;
    pthread_mutex_unlock(&c->mutex);
    http_wake(c->http);
    return STATUS_OK;
}

enum status call_sources_check(struct call_sources *c, struct error *err)
{
    pthread_mutex_lock(&c->mutex);
    enum status status = c->status;
    if (status != STATUS_OK && err != NULL) {
        *err = c->failure;
    }
    pthread_mutex_unlock(&c->mutex);
    return status;
}

bool call_sources_take(struct call_sources *c, struct call_answer *out)
{
    pthread_mutex_lock(&c->mutex);
    bool taken = call_queue_take(&c->answers, out);
    pthread_mutex_unlock(&c->mutex);
    return taken;
}

void call_sources_cancel(struct call_sources *c, int32_t id)
{
    pthread_mutex_lock(&c->mutex);
    call_queue_drop(&c->answers, id);
    for (struct question *question = c->questions; question != NULL; question = question->next) {
        if (question->id == id) {
            question->phase = QUESTION_CANCELLED;
        }
    }
    pthread_mutex_unlock(&c->mutex);
    http_wake(c->http);
}

void call_sources_close(struct call_sources *c)
{
    if (c == NULL) {
        return;
    }
    if (c->running) {
        pthread_mutex_lock(&c->mutex);
        c->stop = true;
        pthread_mutex_unlock(&c->mutex);
        http_wake(c->http);
        pthread_join(c->thread, NULL);
    }
    while (c->questions != NULL) {
        struct question *next = c->questions->next;
        cJSON_Delete(c->questions->body);
        free(c->questions);
        c->questions = next;
    }
    sources_destroy(c->sources);
    http_destroy(c->http);
    call_queue_fini(&c->answers);
    pthread_mutex_destroy(&c->mutex);
    free(c);
}

static enum status start_thread(struct call_sources *c, struct error *err)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all); /* signals are the main thread's business */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&c->thread, NULL, run, c);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    c->running = failed == 0;
    if (failed != 0) {
        errno = failed;
        return FAIL_ERRNO(err, "cannot start a thread for sources");
    }
    return STATUS_OK;
}

enum status call_sources_open(const struct source_options *options, struct http *main,
                              struct call_sources **out, struct error *err)
{
    struct call_sources *c = mem_calloc(1, sizeof(*c));
    if (c == NULL) {
        return mem_fail(err, sizeof(*c), "sources");
    }
    enum status status = STATUS_OK;
    pthread_mutex_init(&c->mutex, NULL);
    c->main = main;
    c->options = *options;
    if (options->log != NULL) {
        c->log = *options->log;
        c->log.tail = NULL;
        c->options.log = &c->log;
    }
    TRY_CLEANUP(http_create(&c->http, err));
    TRY_CLEANUP(sources_create(&c->options, c->http, &c->sources, err));
    TRY_CLEANUP(start_thread(c, err));
    *out = c;
cleanup:
    if (status != STATUS_OK) {
        call_sources_close(c);
    }
    return status;
}
