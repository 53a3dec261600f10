/* What providers ask for a million tokens, in and out, in USD, as they published it in 2025. Prices
 * change: a job's own ("input_usd", "output_usd") come first, and what is not here has no price. */
#include <string.h>

#include "net/lm.h"

struct price {
    const char *provider;
    const char *model; /* what its name begins with */
    double input_usd, output_usd;
};

static const struct price prices[] = {
    {"openai", "gpt-5-mini", 0.25, 2.00},
    {"openai", "gpt-5-nano", 0.05, 0.40},
    {"openai", "gpt-5", 1.25, 10.00},
    {"openai", "gpt-4.1-mini", 0.40, 1.60},
    {"openai", "gpt-4.1-nano", 0.10, 0.40},
    {"openai", "gpt-4.1", 2.00, 8.00},
    {"openai", "gpt-4o-mini", 0.15, 0.60},
    {"openai", "gpt-4o", 2.50, 10.00},
    {"openai", "o4-mini", 1.10, 4.40},
    {"openai", "o3-mini", 1.10, 4.40},
    {"openai", "o3", 2.00, 8.00},
    {"anthropic", "claude-opus-4", 15.00, 75.00},
    {"anthropic", "claude-sonnet-4", 3.00, 15.00},
    {"anthropic", "claude-3-7-sonnet", 3.00, 15.00},
    {"anthropic", "claude-3-5-haiku", 0.80, 4.00},
    {"gemini", "gemini-2.5-pro", 1.25, 10.00},
    {"gemini", "gemini-2.5-flash-lite", 0.10, 0.40},
    {"gemini", "gemini-2.5-flash", 0.30, 2.50},
    {"gemini", "gemini-2.0-flash", 0.10, 0.40},
};

bool lm_price(const char *provider, const char *model, double *input_usd, double *output_usd)
{
    size_t longest = 0;
    for (size_t i = 0; i < sizeof(prices) / sizeof(prices[0]); i++) {
        size_t length = strlen(prices[i].model);
        if (strcmp(prices[i].provider, provider) == 0 &&
            strncmp(prices[i].model, model, length) == 0 && length > longest) {
            longest = length;
            *input_usd = prices[i].input_usd;
            *output_usd = prices[i].output_usd;
        }
    }
    return longest > 0;
}
