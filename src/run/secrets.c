#include "run/secrets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/json.h"
#include "base/mem.h"
#include "net/lm_provider.h"
#include "net/source_service.h"

enum { JOB_MAX_BYTES = 4 << 20 };

/* ---- names ---- */

static void add_name(struct secrets *secrets, const char *name, bool proxy)
{
    size_t length = strlen(name);
    bool fits = length > 0 && length < SECRETS_NAME_BYTES && strchr(name, '=') == NULL;
    for (int i = 0; i < secrets->count; i++) {
        fits = fits && strcmp(secrets->list[i].name, name) != 0;
    }
    if (fits && secrets->count < SECRETS_NAMES_MAX) {
        struct secret *added = &secrets->list[secrets->count++];
        memcpy(added->name, name, length + 1);
        added->proxy = proxy;
    }
}

static void add_usual(struct secrets *secrets)
{
    static const char *const proxies[] = {"http_proxy",  "https_proxy", "all_proxy", "HTTP_PROXY",
                                          "HTTPS_PROXY", "ALL_PROXY",   NULL};
    for (const char *const *name = lm_providers(); *name != NULL; name++) {
        add_name(secrets, lm_provider_find(*name)->key_env, false);
    }
    for (int i = 0; i < SOURCE_SITE_COUNT; i++) {
        add_name(secrets, source_sites[i].key_env, false);
    }
    for (const char *const *name = proxies; *name != NULL; name++) {
        add_name(secrets, *name, true);
    }
}

static void add_endpoint(struct secrets *secrets, const cJSON *endpoint)
{
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(endpoint, "key_env");
    if (cJSON_IsString(name)) {
        add_name(secrets, name->valuestring, false);
    }
}

static void add_job(struct secrets *secrets, const char *job_path)
{
    cJSON *job = NULL;
    struct error ignored;
    if (json_parse_file(job_path, JOB_MAX_BYTES, &job, &ignored) != STATUS_OK) {
        return;
    }
    const cJSON *researcher = cJSON_GetObjectItemCaseSensitive(job, "researcher");
    const cJSON *other = NULL;
    add_endpoint(secrets, researcher);
    cJSON_ArrayForEach (other, cJSON_GetObjectItemCaseSensitive(researcher, "others")) {
        add_endpoint(secrets, other);
    }
    cJSON_Delete(job);
}

void secrets_find(const char *job_path, struct secrets *out)
{
    memset(out, 0, sizeof(*out));
    add_usual(out);
    if (job_path != NULL) {
        add_job(out, job_path);
    }
}

/* ---- values ---- */

static void wipe(char **text)
{
    if (*text != NULL) {
        explicit_bzero(*text, strlen(*text));
        free(*text);
        *text = NULL;
    }
}

/* The value of a variable where it lies, of the environment's entry `at`; NULL: it is another one.
 */
static char *value_of(const struct secret *secret, char *entry)
{
    size_t length = strlen(secret->name);
    return strncmp(entry, secret->name, length) == 0 && entry[length] == '=' ? entry + length + 1
                                                                             : NULL;
}

/* Overwrites all entries of that name: some launchers leave several. The first one counts. */
static void overwrite(const struct secret *secret)
{
    for (char **entry = environ; entry != NULL && *entry != NULL; entry++) {
        char *value = value_of(secret, *entry);
        if (value != NULL) {
            explicit_bzero(value, strlen(value));
        }
    }
}

void secrets_hide(struct secrets *secrets)
{
    for (int i = 0; i < secrets->count; i++) {
        struct secret *secret = &secrets->list[i];
        secret->place = getenv(secret->name);
        if (secret->place != NULL && secret->place[0] != '\0') {
            secret->value = mem_strdup(secret->place); /* without memory it is lost, and missed */
        }
        overwrite(secret);
    }
}

static void bar_core_dumps(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_max > 0) {
        limit.rlim_cur = limit.rlim_max = 1;
        (void)setrlimit(RLIMIT_CORE, &limit);
    }
}

void secrets_show(struct secrets *secrets)
{
    if (secrets_known(secrets)) {
        bar_core_dumps();
    }
    for (int i = 0; i < secrets->count; i++) {
        struct secret *secret = &secrets->list[i];
        /* MPI may have moved or dropped entries, but no text of them. */
        if (secret->value != NULL && getenv(secret->name) == secret->place) {
            memcpy(secret->place, secret->value, strlen(secret->value) + 1);
        }
        wipe(&secret->value);
    }
}

void secrets_forget(struct secrets *secrets, bool proxies)
{
    for (int i = 0; i < secrets->count; i++) {
        struct secret *secret = &secrets->list[i];
        if (!secret->proxy || proxies) {
            wipe(&secret->value);
            overwrite(secret);
        }
    }
}

bool secrets_known(const struct secrets *secrets)
{
    for (int i = 0; i < secrets->count; i++) {
        const struct secret *secret = &secrets->list[i];
        const char *set = getenv(secret->name);
        if (!secret->proxy && (secret->value != NULL || (set != NULL && set[0] != '\0'))) {
            return true;
        }
    }
    return false;
}
