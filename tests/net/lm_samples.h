/* Recorded shapes of what each provider sends, and what is to be read in them. */
#ifndef TESTS_NET_LM_SAMPLES_H
#define TESTS_NET_LM_SAMPLES_H

#include <stdbool.h>
#include <stdint.h>

#include "net/lm_provider.h"

struct sample {
    const char *name;
    const struct lm_provider *provider;
    const char *wire;
    const char *text;
    const char *model;
    int64_t tokens_in, tokens_out;
    bool cut, refused;
    const char *problem; /* part of it; NULL: none */
    bool passing;
};

#define OPENAI_CHUNK(delta, reason)                                                                \
    "data: {\"id\":\"chatcmpl-B9\",\"object\":\"chat.completion.chunk\",\"created\":1741569952,"   \
    "\"model\":\"gpt-4o-2024-08-06\",\"system_fingerprint\":\"fp_1\",\"choices\":[{\"index\":0,"   \
    "\"delta\":" delta ",\"logprobs\":null,\"finish_reason\":" reason "}],\"usage\":null}\n\n"

static const char openai_stream[] = OPENAI_CHUNK(
    "{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}",
    "null") OPENAI_CHUNK("{\"content\":\"{\\\"goal\\\": \"}", "null")
    OPENAI_CHUNK("{\"content\":\"\\\"caf\\u00e9 \xf0\x9f\x99\x82\\\"}\"}", "null") OPENAI_CHUNK(
        "{}",
        "\"stop\"") "data: {\"id\":\"chatcmpl-B9\",\"model\":\"gpt-4o-2024-08-06\",\"choices\":[],"
                    "\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":10,\"total_tokens\":29,"
                    "\"completion_tokens_details\":{\"reasoning_tokens\":0}}}\n\n"
                    "data: [DONE]\n\n";

static const char openai_whole[] =
    "{\"id\":\"chatcmpl-B9\",\"object\":\"chat.completion\",\"created\":1741569952,"
    "\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
    "\"content\":\"Hello!\",\"refusal\":null,\"annotations\":[]},\"logprobs\":null,"
    "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":10,"
    "\"total_tokens\":29}}";

/* vLLM and others send thoughts in a field of their own, in each of two names. */
static const char openai_thinking[] =
    "data: "
    "{\"model\":\"Qwen/Qwen3-8B\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\","
    "\"content\":\"\"},\"finish_reason\":null}]}\n\n"
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"Let me see.\"}}]}\n\n"
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning\":\"More.\",\"content\":null}}]}\n\n"
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Yes.\"}}]}\n\n"
    /* llama.cpp has the usage in the chunk with the reason. */
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}],"
    "\"usage\":{\"completion_tokens\":30,\"prompt_tokens\":12},\"timings\":{\"prompt_n\":1}}\n\n"
    "data: [DONE]\n\n";

static const char openai_parts[] =
    "data: {\"model\":\"magistral\",\"choices\":[{\"delta\":{\"content\":[{\"type\":\"thinking\","
    "\"thinking\":[{\"type\":\"text\",\"text\":\"hm\"}]},{\"type\":\"text\",\"text\":\"Yes.\"}]},"
    "\"finish_reason\":\"stop\"}]}\n\n";

/* Azure begins with what its filters say of the prompt, and ends with what they say of the reply.
 */
static const char azure_stream[] =
    "data: {\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"\",\"object\":\"\","
    "\"prompt_filter_results\":[{\"prompt_index\":0,\"content_filter_results\":{\"hate\":{"
    "\"filtered\":false,\"severity\":\"safe\"}}}]}\n\n" OPENAI_CHUNK(
        "{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}", "null")
        OPENAI_CHUNK("{\"content\":\"Hello!\"}", "null")
            OPENAI_CHUNK("{}", "\"stop\"") "data: "
                                           "{\"choices\":[],\"model\":\"gpt-4o-2024-08-06\","
                                           "\"usage\":{\"prompt_tokens\":8,"
                                           "\"completion_tokens\":2,\"total_tokens\":10}}\n\n"
                                           "data: [DONE]\n\n";

static const char openai_refusal[] = OPENAI_CHUNK("{\"refusal\":\"I'm sorry, \"}", "null")
    OPENAI_CHUNK("{\"refusal\":\"but no.\"}", "null") OPENAI_CHUNK("{}", "\"stop\"");

static const char anthropic_stream[] =
    "event: message_start\n"
    "data: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\","
    "\"role\":\"assistant\",\"content\":[],\"model\":\"claude-sonnet-4-20250514\","
    "\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":25,"
    "\"cache_creation_input_tokens\":3,\"cache_read_input_tokens\":4,\"output_tokens\":1}}}\n\n"
    "event: content_block_start\n"
    "data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"thinking\","
    "\"thinking\":\"\",\"signature\":\"\"}}\n\n"
    "event: content_block_delta\n"
    "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"thinking_delta\","
    "\"thinking\":\"Let me see.\"}}\n\n"
    "event: content_block_delta\n"
    "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"signature_delta\","
    "\"signature\":\"EqQB\"}}\n\n"
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
    "event: ping\ndata: {\"type\": \"ping\"}\n\n"
    "event: content_block_start\n"
    "data: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"text\","
    "\"text\":\"\"}}\n\n"
    "event: content_block_delta\n"
    "data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\","
    "\"text\":\"Hello\"}}\n\n"
    "event: content_block_delta\n"
    "data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\","
    "\"text\":\"!\"}}\n\n"
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":1}\n\n"
    "event: message_delta\n"
    "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\","
    "\"stop_sequence\":null},\"usage\":{\"output_tokens\":15}}\n\n"
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

static const char anthropic_tool[] =
    "event: message_start\n"
    "data: {\"type\":\"message_start\",\"message\":{\"type\":\"message\",\"content\":[],"
    "\"model\":\"claude-3-7-sonnet-20250219\",\"usage\":{\"input_tokens\":472,"
    "\"output_tokens\":2}}}\n\n"
    "data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\","
    "\"text\":\"\"}}\n\n"
    "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\","
    "\"text\":\"I will plan:\"}}\n\n"
    "data: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
    "data: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"tool_use\","
    "\"id\":\"toolu_1\",\"name\":\"plan\",\"input\":{}}}\n\n"
    "data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\","
    "\"partial_json\":\"\"}}\n\n"
    "data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\","
    "\"partial_json\":\"{\\\"goal\\\":\"}}\n\n"
    "data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\","
    "\"partial_json\":\" \\\"more\\\"}\"}}\n\n"
    "data: {\"type\":\"content_block_stop\",\"index\":1}\n\n"
    "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"},"
    "\"usage\":{\"output_tokens\":89}}\n\n"
    "data: {\"type\":\"message_stop\"}\n\n";

static const char anthropic_whole[] =
    "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-3-5-haiku\","
    "\"content\":[{\"type\":\"text\",\"text\":\"So:\"},{\"type\":\"tool_use\",\"id\":\"t\","
    "\"name\":\"plan\",\"input\":{\"goal\":\"more\"}}],\"stop_reason\":\"max_tokens\","
    "\"usage\":{\"input_tokens\":5,\"output_tokens\":6}}";

static const char anthropic_error[] =
    "event: message_start\n"
    "data: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-sonnet-4\",\"content\":[],"
    "\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n"
    "event: error\n"
    "data: {\"type\": \"error\", \"error\": {\"type\": \"overloaded_error\", "
    "\"message\": \"Overloaded\"}}\n\n";

static const char anthropic_refusal[] =
    "data: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-sonnet-4\",\"content\":[],"
    "\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n"
    "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"refusal\"},"
    "\"usage\":{\"output_tokens\":2}}\n\n"
    "data: {\"type\":\"message_stop\"}\n\n";

static const char gemini_stream[] =
    "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"Let me see.\","
    "\"thought\": true}],\"role\": \"model\"},\"index\": 0}],\"usageMetadata\": "
    "{\"promptTokenCount\": 4,\"totalTokenCount\": 4,\"promptTokensDetails\": [{\"modality\": "
    "\"TEXT\",\"tokenCount\": 4}]},\"modelVersion\": \"gemini-2.5-flash\"}\r\n\r\n"
    "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"Hel\"},{\"text\": \"lo\","
    "\"thoughtSignature\": \"Ej\"}],\"role\": \"model\"},\"index\": 0}],"
    "\"modelVersion\": \"gemini-2.5-flash\"}\r\n\r\n"
    "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"!\"}],\"role\": \"model\"},"
    "\"finishReason\": \"STOP\",\"index\": 0}],\"usageMetadata\": {\"promptTokenCount\": 4,"
    "\"candidatesTokenCount\": 3,\"thoughtsTokenCount\": 20,\"totalTokenCount\": 27},"
    "\"modelVersion\": \"gemini-2.5-flash\",\"responseId\": \"Il\"}\r\n\r\n";

static const char gemini_array[] =
    "[{\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"Hel\"}]}}]},\n"
    "{\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"lo\"}]},"
    "\"finishReason\": \"MAX_TOKENS\"}],\"usageMetadata\": {\"promptTokenCount\": 4,"
    "\"candidatesTokenCount\": 2},\"modelVersion\": \"gemini-2.0-flash\"}]";

static const char gemini_blocked[] =
    "data: {\"promptFeedback\": {\"blockReason\": \"PROHIBITED_CONTENT\"},\"usageMetadata\": "
    "{\"promptTokenCount\": 4,\"totalTokenCount\": 4},\"modelVersion\": \"gemini-2.5-pro\"}\n\n";

static const char gemini_safety[] =
    "data: {\"candidates\": [{\"finishReason\": \"SAFETY\",\"index\": 0,\"safetyRatings\": []}],"
    "\"modelVersion\": \"gemini-2.5-pro\"}\n\n";

static const char gemini_error[] =
    "[{\n  \"error\": {\n    \"code\": 503,\n    \"message\": \"The model is overloaded.\",\n"
    "    \"status\": \"UNAVAILABLE\"\n  }\n}\n]";

static const struct sample samples[] = {
    {.name = "openai stream",
     .provider = &lm_provider_openai,
     .wire = openai_stream,
     .text = "{\"goal\": \"caf\xc3\xa9 \xf0\x9f\x99\x82\"}",
     .model = "gpt-4o-2024-08-06",
     .tokens_in = 19,
     .tokens_out = 10},
    {.name = "openai whole",
     .provider = &lm_provider_openai,
     .wire = openai_whole,
     .text = "Hello!",
     .model = "gpt-4o",
     .tokens_in = 19,
     .tokens_out = 10},
    {.name = "openai thoughts",
     .provider = &lm_provider_openai,
     .wire = openai_thinking,
     .text = "Yes.",
     .model = "Qwen/Qwen3-8B",
     .tokens_in = 12,
     .tokens_out = 30,
     .cut = true},
    {.name = "openai parts",
     .provider = &lm_provider_openai,
     .wire = openai_parts,
     .text = "Yes.",
     .model = "magistral"},
    {.name = "openai refusal",
     .provider = &lm_provider_openai,
     .wire = openai_refusal,
     .text = "",
     .model = "gpt-4o-2024-08-06",
     .refused = true},
    {.name = "azure stream",
     .provider = &lm_provider_azure,
     .wire = azure_stream,
     .text = "Hello!",
     .model = "gpt-4o-2024-08-06",
     .tokens_in = 8,
     .tokens_out = 2},
    {.name = "azure filter",
     .provider = &lm_provider_azure,
     .wire = OPENAI_CHUNK("{}", "\"content_filter\""),
     .text = "",
     .model = "gpt-4o-2024-08-06",
     .refused = true},
    {.name = "anthropic stream",
     .provider = &lm_provider_anthropic,
     .wire = anthropic_stream,
     .text = "Hello!",
     .model = "claude-sonnet-4-20250514",
     .tokens_in = 32,
     .tokens_out = 15},
    {.name = "anthropic tool",
     .provider = &lm_provider_anthropic,
     .wire = anthropic_tool,
     .text = "{\"goal\": \"more\"}",
     .model = "claude-3-7-sonnet-20250219",
     .tokens_in = 472,
     .tokens_out = 89},
    {.name = "anthropic whole",
     .provider = &lm_provider_anthropic,
     .wire = anthropic_whole,
     .text = "{\"goal\":\"more\"}",
     .model = "claude-3-5-haiku",
     .tokens_in = 5,
     .tokens_out = 6,
     .cut = true},
    {.name = "anthropic error",
     .provider = &lm_provider_anthropic,
     .wire = anthropic_error,
     .text = "",
     .model = "claude-sonnet-4",
     .tokens_in = 25,
     .tokens_out = 1,
     .problem = "overloaded_error: Overloaded",
     .passing = true},
    {.name = "anthropic refusal",
     .provider = &lm_provider_anthropic,
     .wire = anthropic_refusal,
     .text = "",
     .model = "claude-sonnet-4",
     .tokens_in = 25,
     .tokens_out = 2,
     .refused = true},
    {.name = "gemini stream",
     .provider = &lm_provider_gemini,
     .wire = gemini_stream,
     .text = "Hello!",
     .model = "gemini-2.5-flash",
     .tokens_in = 4,
     .tokens_out = 23},
    {.name = "gemini array",
     .provider = &lm_provider_gemini,
     .wire = gemini_array,
     .text = "Hello",
     .model = "gemini-2.0-flash",
     .tokens_in = 4,
     .tokens_out = 2,
     .cut = true},
    {.name = "gemini blocked",
     .provider = &lm_provider_gemini,
     .wire = gemini_blocked,
     .text = "",
     .model = "gemini-2.5-pro",
     .tokens_in = 4,
     .refused = true},
    {.name = "gemini safety",
     .provider = &lm_provider_gemini,
     .wire = gemini_safety,
     .text = "",
     .model = "gemini-2.5-pro",
     .refused = true},
    {.name = "gemini error",
     .provider = &lm_provider_gemini,
     .wire = gemini_error,
     .text = "",
     .model = "",
     .problem = "UNAVAILABLE: The model is overloaded.",
     .passing = true},
};
enum { SAMPLES = sizeof(samples) / sizeof(samples[0]) };

#endif
