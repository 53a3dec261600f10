/* Failed rows in groups: by what their outputs look like, which can be told without reading them.
 * The model reads a few of each and names the causes. */
#include <stdio.h>
#include <string.h>

#include "agents/model_parts.h"
#include "base/hash.h"

enum {
    GROUPS_MAX = 16,
    GROUP_NAME_BYTES = 160,
    SHORT_ANSWER_BYTES = 40,
    ROUNDS_MAX = SEARCH_CASES_MAX,
    PROMPT_BYTES = 700,
    OUTPUT_BYTES = 400
};

struct group {
    char name[GROUP_NAME_BYTES];
    int32_t cases[SEARCH_CASES_MAX];
    int count;
};

static bool is_blank(const char *text)
{
    return text[strspn(text, " \t\r\n")] == '\0';
}

/* Whether the output is the answer of some failed row: then it is a possible one. */
static bool is_some_answer(const struct candidate *candidate, const char *output)
{
    for (int32_t i = 0; i < candidate->confusion_count; i++) {
        if (strcmp(search_text(candidate->confusions[i].expected), output) == 0 ||
            strcmp(search_text(candidate->confusions[i].found), output) == 0) {
            return true;
        }
    }
    for (int32_t i = 0; i < candidate->case_count; i++) {
        if (strcmp(search_text(candidate->cases[i].answer), output) == 0) {
            return true;
        }
    }
    return false;
}

/* The name of the group a case belongs to; the first rule that fits. */
static void name_group(const struct candidate *candidate, const struct search_case *failed,
                       char out[GROUP_NAME_BYTES])
{
    const char *answer = search_text(failed->answer);
    const char *output = search_text(failed->output);
    size_t expected = strlen(answer);
    size_t found = strlen(output);
    bool short_answer = expected <= SHORT_ANSWER_BYTES;
    struct buffer name;
    buffer_init(&name, GROUP_NAME_BYTES - 1);
    if (is_blank(output)) {
        buffer_append_text(&name, "nothing was written");
    } else if (short_answer && found <= SHORT_ANSWER_BYTES && is_some_answer(candidate, output)) {
        buffer_append_text(&name, "\"");
        model_append_line(&name, answer, SHORT_ANSWER_BYTES);
        buffer_append_text(&name, "\" answered as \"");
        model_append_line(&name, output, SHORT_ANSWER_BYTES);
        buffer_append_text(&name, "\"");
    } else if (short_answer && found > 3 * SHORT_ANSWER_BYTES) {
        buffer_append_text(&name, "a long text where a short answer was wanted");
    } else if (short_answer) {
        buffer_append_text(&name, "an answer that no failed row has");
    } else if (found > 2 * expected) {
        buffer_append_text(&name, "more than twice as long as the answer");
    } else if (2 * found < expected) {
        buffer_append_text(&name, "less than half as long as the answer");
    } else {
        buffer_append_text(&name, "as long as the answer, other words");
    }
    snprintf(out, GROUP_NAME_BYTES, "%s", buffer_text(&name));
    buffer_fini(&name);
}

static int group_cases(const struct candidate *candidate, struct group groups[GROUPS_MAX])
{
    int count = 0;
    for (int32_t i = 0; i < candidate->case_count && i < SEARCH_CASES_MAX; i++) {
        char name[GROUP_NAME_BYTES];
        name_group(candidate, &candidate->cases[i], name);
        int at = 0;
        while (at < count && strcmp(groups[at].name, name) != 0) {
            at++;
        }
        if (at == GROUPS_MAX) {
            at = GROUPS_MAX - 1; /* the last holds all that is rare */
            snprintf(groups[at].name, GROUP_NAME_BYTES, "others");
        } else if (at == count) {
            memcpy(groups[count++].name, name, sizeof(name));
        }
        groups[at].cases[groups[at].count++] = i;
    }
    return count;
}

static bool failed_before(const struct candidate *before, int64_t row)
{
    for (int32_t i = 0; before != NULL && i < before->case_count; i++) {
        if (before->cases[i].row == row) {
            return true;
        }
    }
    return false;
}

static void append_case(const struct search_case *failed, bool before, struct buffer *out)
{
    buffer_printf(out, "row %lld%s reads: ", (long long)failed->row,
                  before ? " (failed for the parent too)" : "");
    model_append_line(out, search_text(failed->prompt), PROMPT_BYTES);
    buffer_append_text(out, "\n    expected: ");
    model_append_line(out, search_text(failed->answer), OUTPUT_BYTES);
    buffer_append_text(out, "\n    written: ");
    model_append_line(out, search_text(failed->output), OUTPUT_BYTES);
    buffer_append_char(out, '\n');
}

static void append_overview(const struct candidate *candidate, const struct group *groups,
                            int count, const struct candidate *before, struct buffer *out)
{
    int again = 0;
    for (int32_t i = 0; i < candidate->case_count; i++) {
        again += failed_before(before, candidate->cases[i].row);
    }
    buffer_printf(out, "%d failed rows were kept", (int)candidate->case_count);
    if (before != NULL && before->case_count > 0) {
        buffer_printf(out, "; %d of them are among the %d kept of the parent", again,
                      (int)before->case_count);
    }
    buffer_append_text(out, "\n");
    for (int g = 0; g < count; g++) {
        buffer_printf(out, "group %c: %s: %d of %d (%.0f %%)\n", 'A' + g, groups[g].name,
                      groups[g].count, (int)candidate->case_count,
                      100.0 * groups[g].count / candidate->case_count);
    }
    for (int32_t i = 0; i < candidate->confusion_count && i < 8; i++) {
        const struct search_confusion *confusion = &candidate->confusions[i];
        buffer_append_text(out, "in all validation rows: \"");
        model_append_line(out, search_text(confusion->expected), SHORT_ANSWER_BYTES);
        buffer_append_text(out, "\" answered as \"");
        model_append_line(out, search_text(confusion->found), SHORT_ANSWER_BYTES);
        buffer_printf(out, "\" %lld times\n", (long long)confusion->count);
    }
}

void model_append_cases(const struct candidate *candidate, const struct candidate *before,
                        size_t max_bytes, struct buffer *out)
{
    struct group groups[GROUPS_MAX];
    memset(groups, 0, sizeof(groups));
    if (candidate->case_count <= 0) {
        return;
    }
    int count = group_cases(candidate, groups);
    append_overview(candidate, groups, count, before, out);
    /* In turn, so that what is cut at the end are the second and third rows of large groups. */
    for (int round = 0; round < ROUNDS_MAX; round++) {
        for (int g = 0; g < count; g++) {
            if (round >= groups[g].count) {
                continue;
            }
            struct buffer one;
            buffer_init(&one, MODEL_TEXT_MAX_BYTES);
            const struct search_case *failed = &candidate->cases[groups[g].cases[round]];
            buffer_printf(&one, "%c: ", 'A' + g);
            append_case(failed, failed_before(before, failed->row), &one);
            bool fits = out->len_bytes + one.len_bytes <= max_bytes;
            buffer_append(out, buffer_text(&one), fits ? one.len_bytes : 0);
            buffer_fini(&one);
            if (!fits) {
                return;
            }
        }
    }
}
