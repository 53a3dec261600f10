/* The files between a job and its relay, below the run folder:
 *
 *   relay/requests/<name>.json   what the job asks; removed when it has the answer on disk
 *   relay/replies/<name>.json    what came; removed after the request
 *   relay/replies/<name>.asked   the relay has begun to ask, so there may be costs
 *   relay/spent.json             what all relays of this run folder have spent and reserved
 *   relay/server.lock            held by the relay that serves
 *
 * The name is made of the call's id, key and body, so that no answer can come to another question.
 * Each side takes what the other wrote as hostile. */
#ifndef AGENTS_CALL_RELAY_FILE_H
#define AGENTS_CALL_RELAY_FILE_H

#include "agents/call_transport.h"
#include "base/file.h"
#include "tree/search.h"

enum { RELAY_NAME_BYTES = 32, RELAY_LIST_MAX = 4096 };

struct relay_folders {
    char relay[FILE_PATH_BYTES], requests[FILE_PATH_BYTES], replies[FILE_PATH_BYTES];
};
/* Makes them. STATUS_INVALID if one is no folder of its own (a link). */
enum status relay_folders_make(const char *run_folder, struct relay_folders *out,
                               struct error *err);

/* "000012-0123456789abcdef". STATUS_NO_MEMORY. */
enum status relay_name(const struct call *call, char out[RELAY_NAME_BYTES], struct error *err);
/* The id in a name; -1: it is none. */
int32_t relay_name_id(const char *name);

/* "<folder>/<name><ending>" */
enum status relay_path(const char *folder, const char *name, const char *ending,
                       char out[FILE_PATH_BYTES], struct error *err);

/* Names of the files with this ending in a folder, at most RELAY_LIST_MAX, in order; others are
 * passed over. *names is the caller's to free. */
enum status relay_list(const char *folder, const char *ending, char (**names)[RELAY_NAME_BYTES],
                       int *count, struct error *err);

struct relay_request {
    char key[SEARCH_CALL_KEY_BYTES];
    enum call_kind kind;
    cJSON *body; /* owned */
};
/* JSON on the heap, NULL without memory. */
char *relay_request_text(const struct call *call, const char *name);
/* Takes over what call_body_read takes, and no more. STATUS_NOT_FOUND: it is gone. Errors quote
 * nothing of the file. */
enum status relay_request_read(const char *requests, const char *name, struct relay_request *out,
                               struct error *err);

char *relay_reply_text(const struct call_answer *answer, const char *name);
/* STATUS_NOT_FOUND: it is not there (yet). A failure that the relay tells is an answer. */
enum status relay_reply_read(const char *replies, const char *name, struct call_answer *out,
                             struct error *err);

/* The same of a file of another name. */
enum status relay_reply_read_file(const char *path, const char *name, struct call_answer *out,
                                  struct error *err);

#endif
