/* What test_lm_server says: replies by name from a folder, and what goes wrong, from a file.
 * README.md has the formats. */
#ifndef TESTS_NET_SCRIPT_H
#define TESTS_NET_SCRIPT_H

#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/status.h"

enum { SCRIPT_NAMES_MAX = 32, SCRIPT_FAULTS_MAX = 512, SCRIPT_TEXT_BYTES = 2048 };

struct script_fault {
    char name[64]; /* of the prompt; "*": any */
    int64_t first, last;
    char what[32];
    char argument[SCRIPT_TEXT_BYTES];
};

struct script {
    const char *replies; /* folder or file; NULL: replies are made from their schema */
    struct script_fault faults[SCRIPT_FAULTS_MAX];
    int fault_count;
    struct {
        char name[64];
        int64_t asked;
    } names[SCRIPT_NAMES_MAX];
    int name_count;
};

enum status script_read_faults(struct script *script, const char *path, struct error *err);

/* The name of the prompt that a request of OpenAI's form came from: its schema's, or the one in a
 * line "Task: <name>" of its system message; "" if there is none. */
void script_name(const cJSON *request, char name[64]);

/* How often the name was asked for, this time included. */
int64_t script_count(struct script *script, const char *name);

/* NULL: nothing goes wrong with the n-th request, the nth of its name. */
const struct script_fault *script_find_fault(const struct script *script, const char *name,
                                             int64_t nth, int64_t n);

/* The reply, on the heap: the file's with its places filled, or one made from the schema. NULL:
 * there is neither. */
char *script_reply(const struct script *script, const cJSON *request, const char *name,
                   int64_t nth);
/* The file of this name among the replies; NULL: it is not there. */
char *script_file(const struct script *script, const cJSON *request, const char *file, int64_t nth);

#endif
