#include "net/lm_site.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "net/http_url.h"
#include "net/lm_try.h"

enum {
    KEY_MAX_BYTES = 4096,
    PARAMETER_MAX_BYTES = 24 /* of a URL: a version or a name; keys are longer */
};

static enum status read_key(const char *variable, int index, struct json_problems *problems,
                            char **out, struct error *err)
{
    const char *value = variable[0] != '\0' ? getenv(variable) : "";
    if (value == NULL) {
        json_problems_add(problems, "", "endpoint %d: the environment has no %s", index, variable);
        value = "";
    }
    while (isspace((unsigned char)*value)) {
        value++;
    }
    size_t length = strlen(value);
    while (length > 0 && isspace((unsigned char)value[length - 1])) {
        length--;
    }
    bool is_plain = length <= KEY_MAX_BYTES;
    for (size_t i = 0; i < length; i++) {
        is_plain = is_plain && value[i] > ' ' && value[i] < 0x7F;
    }
    if (!is_plain || (length == 0 && variable[0] != '\0')) {
        json_problems_add(problems, "", "endpoint %d: what %s holds is no key", index, variable);
        length = 0;
    }
    *out = mem_strndup(value, length);
    return *out != NULL ? STATUS_OK : mem_fail(err, length, "a key");
}

static bool tells_of_key(const char *name, size_t length)
{
    static const char *const words[] = {"key", "token", "secret", "pass", "auth", "sig", "cred"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        const char *found = strcasestr(name, words[i]);
        if (found != NULL && found < name + length) {
            return true;
        }
    }
    return false;
}

enum status lm_check_url(const char *url, bool *encrypted, struct error *err)
{
    TRY(http_check_url(url, encrypted, err));
    const char *part = url + strcspn(url, "?#");
    while (*part != '\0') {
        part++;
        size_t length = strcspn(part, "?#&;");
        size_t name = strcspn(part, "=?#&;");
        if (length - name > PARAMETER_MAX_BYTES || name > PARAMETER_MAX_BYTES ||
            tells_of_key(part, name)) {
            return FAIL(err, STATUS_INVALID,
                        "a URL with a parameter that may be a key (it is not shown): key_env names "
                        "an environment variable for that");
        }
        part += length;
    }
    return STATUS_OK;
}

static bool is_this_machine(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strncmp(host, "localhost:", 10) == 0 ||
           strncmp(host, "[::1]:", 6) == 0;
}

/* What an endpoint is asked first. A server that speaks OpenAI's form at another host follows the
 * whole schema; OpenAI's own do not take bounds of texts. */
static unsigned fullest_form(const struct lm_endpoint *endpoint, const struct lm_provider *provider)
{
    if (!endpoint->structured) {
        return LM_FORM_EXTRAS;
    }
    bool foreign = provider == &lm_provider_openai && endpoint->url[0] != '\0' &&
                   strcmp(endpoint->url, provider->url) != 0;
    return LM_FORM_EXTRAS | LM_FORM_SCHEMA | (foreign ? LM_FORM_BOUNDS : 0u) |
           (provider != &lm_provider_gemini ? LM_FORM_JSON : 0u);
}

enum status lm_site_open(const struct lm_endpoint *endpoint, int index, struct lm_site *site,
                         struct json_problems *problems, struct log *log, struct error *err)
{
    const struct lm_provider *provider = lm_provider_find(endpoint->provider);
    if (provider == NULL) {
        json_problems_add(problems, "",
                          "endpoint %d: no provider \"%.32s\"; there are openai, "
                          "anthropic, gemini, azure",
                          index, endpoint->provider);
        return STATUS_OK;
    }
    site->provider = provider;
    site->endpoint = *endpoint;
    if (endpoint->url[0] == '\0') {
        site->endpoint.url = provider->url;
    }
    site->form = fullest_form(endpoint, provider);
    bool encrypted = false;
    struct error wrong = {0};
    if (lm_check_url(site->endpoint.url, &encrypted, &wrong) != STATUS_OK) {
        json_problems_add(problems, "", "endpoint %d: %.400s", index, wrong.message);
    }
    http_host(site->endpoint.url, site->host);
    if (endpoint->model[0] == '\0') {
        json_problems_add(problems, "", "endpoint %d: no model", index);
    }
    if (!lm_endpoint_price(endpoint, &site->input_usd, &site->output_usd)) {
        log_write(log, LOG_WARNING, "net",
                  "no price is known of %s at %s: limits on tokens hold, those on money do not "
                  "(input_usd and output_usd of the endpoint set one; 0 where it is free)",
                  endpoint->model, site->host);
    }
    TRY(read_key(lm_key_variable(endpoint), index, problems, &site->key, err));
    if (site->key[0] != '\0' && !encrypted && !is_this_machine(site->host)) {
        log_write(log, LOG_WARNING, "net", "the key of %s goes over the network unencrypted",
                  site->host);
    }
    return STATUS_OK;
}

void lm_site_close(struct lm_site *site)
{
    if (site->key != NULL) {
        explicit_bzero(site->key, strlen(site->key));
        free(site->key);
        site->key = NULL;
    }
}
