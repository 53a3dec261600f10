/* Azure OpenAI: the bodies of OpenAI, by deployments. The model of an endpoint is the name of a
 * deployment, its URL the resource's; "?api-version=..." behind it asks for another version. (The
 * form without deployments, .../openai/v1, is OpenAI's own: provider "openai" at that URL.)
 * Source: learn.microsoft.com/azure/ai-foundry/openai/reference. */
#include <string.h>

#include "net/http.h"
#include "net/lm_provider.h"

enum { PATH_MAX_BYTES = 1024 };

static const char version_parameter[] = "api-version=";

static void put_url(struct buffer *url, const struct lm_endpoint *endpoint)
{
    const char *query = strchr(endpoint->url, '?');
    struct buffer path;
    buffer_init(&path, PATH_MAX_BYTES);
    buffer_append_text(&path, "/openai/deployments/");
    http_append_escaped(&path, endpoint->model);
    buffer_append_text(&path, "/chat/completions");
    if (query == NULL || strstr(query, version_parameter) == NULL) {
        buffer_printf(&path, "?%s2024-10-21", version_parameter);
    }
    url->failed = url->failed || path.failed;
    lm_put_url(url, endpoint->url, buffer_text(&path));
    buffer_fini(&path);
}

static void write_request(const struct lm_endpoint *endpoint, const struct lm_question *question,
                          unsigned form, const char *key, struct buffer *url,
                          struct buffer *headers, struct buffer *secret, struct buffer *body)
{
    put_url(url, endpoint);
    buffer_append_text(headers, "Content-Type: application/json\n");
    if (key[0] != '\0') {
        buffer_printf(secret, "api-key: %s", key);
    }
    lm_openai_put_body(endpoint, question, form, body);
}

const struct lm_provider lm_provider_azure = {
    .name = "azure",
    .url = "",
    .key_env = "AZURE_OPENAI_API_KEY",
    .write = write_request,
    .read = lm_openai_read,
};
