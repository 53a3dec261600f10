/* What an answer can cost. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "net/lm_try.h"

struct price {
    const char *provider;
    const char *model; /* what its name begins with */
    double input_usd, output_usd;
};

/* USD of a million tokens in and out, as known in 2025: a guide for caps, not checked against the
 * providers' own pages. A job's own ("input_usd", "output_usd") come first, and what is not here
 * has no price. */
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

bool lm_endpoint_price(const struct lm_endpoint *endpoint, double *input_usd, double *output_usd)
{
    double table_in = (double)NAN;
    double table_out = (double)NAN;
    lm_price(endpoint->provider, endpoint->model, &table_in, &table_out);
    *input_usd = isnan(endpoint->input_usd) ? table_in : endpoint->input_usd;
    *output_usd = isnan(endpoint->output_usd) ? table_out : endpoint->output_usd;
    return !isnan(*input_usd) && !isnan(*output_usd);
}

/* What a byte costs, in twelfths of a token: on the safe side of what Qwen's tokenizer makes of
 * prose, code, JSON and other scripts. Each digit is a token, and so is what stands between two
 * numbers; so are letters in the middle of digits or capitals (hashes, base64). */
static int byte_cost(unsigned char before, unsigned char byte)
{
    enum { SPACE = 1, LETTER = 4, OTHER = 5, SIGN = 8, WHOLE = 12 };
    bool is_lower = byte >= 'a' && byte <= 'z';
    bool is_upper = byte >= 'A' && byte <= 'Z';
    bool after_digit = before >= '0' && before <= '9';
    bool after_letter = (before >= 'a' && before <= 'z') || (before >= 'A' && before <= 'Z');
    if (is_lower || is_upper) {
        return after_digit || (is_upper && after_letter) ? WHOLE : LETTER;
    }
    if (byte >= '0' && byte <= '9') {
        return before == ' ' ? 2 * WHOLE - SPACE : WHOLE;
    }
    if (byte == ' ' || byte >= 0x80) {
        return byte == ' ' ? SPACE : OTHER;
    }
    return after_digit ? WHOLE : SIGN;
}

int64_t lm_estimate_tokens(const char *text)
{
    enum { TWELFTHS = 12 };
    int64_t parts = 0;
    unsigned char before = '\n';
    for (const char *c = text; *c != '\0'; c++) {
        parts += byte_cost(before, (unsigned char)*c);
        before = (unsigned char)*c;
    }
    return (parts + TWELFTHS - 1) / TWELFTHS;
}

int64_t lm_question_tokens(const struct lm_question *question)
{
    enum { FRAME_TOKENS = 16 }; /* what a chat template puts around a message */
    int64_t tokens = FRAME_TOKENS;
    const cJSON *message = NULL;
    cJSON_ArrayForEach (message, question->messages) {
        const char *content = lm_get_text(message, "content");
        tokens += FRAME_TOKENS + (content != NULL ? lm_estimate_tokens(content) : 0);
    }
    char *schema = question->schema != NULL ? json_print_line(question->schema) : NULL;
    tokens += schema != NULL ? lm_estimate_tokens(schema) : 0;
    free(schema);
    return tokens;
}

void lm_bound(const struct lm_options *options, const struct lm_question *question, int64_t *tokens,
              double *usd)
{
    int64_t tokens_in = lm_question_tokens(question);
    *tokens = options->tries * (tokens_in + question->max_tokens);
    *usd = 0;
    for (int i = 0; i < options->endpoint_count; i++) {
        double input_usd = 0;
        double output_usd = 0;
        if (!lm_endpoint_price(&options->endpoints[i], &input_usd, &output_usd)) {
            *usd = (double)NAN;
            return;
        }
        double price = (double)tokens_in * input_usd + (double)question->max_tokens * output_usd;
        *usd = fmax(*usd, options->tries * price / 1e6);
    }
}
