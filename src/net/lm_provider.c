/* The table of providers. */
#include "net/lm_provider.h"

/* X(name): a file lm_<name>.c that defines struct lm_provider lm_provider_<name>. */
#define PROVIDER_LIST(X) X(openai) X(anthropic) X(gemini)

static const char *const names[] = {
#define PROVIDER_NAME(name) #name,
    PROVIDER_LIST(PROVIDER_NAME)
#undef PROVIDER_NAME
        NULL,
};

const char *const *lm_providers(void)
{
    return names;
}
