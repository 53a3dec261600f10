/* Licences by the names that the Hugging Face hub and SPDX have for them. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "net/source_service.h"

static const char *const known[] = {
    "afl-3.0",
    "agpl-3.0",
    "apache-2.0",
    "apple-amlr",
    "apple-ascl",
    "artistic-2.0",
    "bigcode-openrail-m",
    "bigscience-bloom-rail-1.0",
    "bigscience-openrail-m",
    "bsd",
    "bsd-2-clause",
    "bsd-3-clause",
    "bsd-3-clause-clear",
    "bsl-1.0",
    "c-uda",
    "cc",
    "cc0-1.0",
    "cddl",
    "cdla-permissive-1.0",
    "cdla-permissive-2.0",
    "cdla-sharing-1.0",
    "creativeml-openrail-m",
    "ecl-2.0",
    "epl-1.0",
    "epl-2.0",
    "etalab-2.0",
    "eupl-1.1",
    "eupl-1.2",
    "gfdl",
    "gpl",
    "gpl-2.0",
    "gpl-3.0",
    "isc",
    "lgpl",
    "lgpl-2.1",
    "lgpl-3.0",
    "lgpl-lr",
    "llama2",
    "llama3",
    "llama3.1",
    "llama3.2",
    "llama3.3",
    "lppl-1.3c",
    "mit",
    "mpl-2.0",
    "ms-pl",
    "ncsa",
    "odbl",
    "odc-by",
    "ofl-1.1",
    "openrail",
    "openrail++",
    "osl-3.0",
    "pddl",
    "postgresql",
    "unlicense",
    "wtfpl",
    "zlib",
};

/* What people write, after `tidy`, and what it is called. "": it says nothing. */
static const struct {
    const char *text, *name;
} aliases[] = {
    {"unknown", ""},
    {"other", ""},
    {"none", ""},
    {"null", ""},
    {"n-a", ""},
    {"na", ""},
    {"not-specified", ""},
    {"unspecified", ""},
    {"publisher-specific", ""},
    {"publisher-specific-oa", ""},
    {"other-oa", ""},
    {"unspecified-oa", ""},
    {"implied-oa", ""},
    {"apache", "apache-2.0"},
    {"apache2", "apache-2.0"},
    {"apache2.0", "apache-2.0"},
    {"apache-2", "apache-2.0"},
    {"apache-v2", "apache-2.0"},
    {"apache-version-2.0", "apache-2.0"},
    {"apache-v2.0", "apache-2.0"},
    {"expat", "mit"},
    {"cc0", "cc0-1.0"},
    {"cc-0", "cc0-1.0"},
    {"cc-zero", "cc0-1.0"},
    {"creative-commons-zero", "cc0-1.0"},
    {"public-domain", "cc0-1.0"},
    {"publicdomain", "cc0-1.0"},
    {"bsd-2", "bsd-2-clause"},
    {"bsd-3", "bsd-3-clause"},
    {"gplv2", "gpl-2.0"},
    {"gplv3", "gpl-3.0"},
    {"gpl-3.0-or-later", "gpl-3.0"},
    {"gpl-3.0-only", "gpl-3.0"},
    {"gpl-2.0-or-later", "gpl-2.0"},
    {"gpl-2.0-only", "gpl-2.0"},
    {"odbl-1.0", "odbl"},
    {"odc-by-1.0", "odc-by"},
    {"pddl-1.0", "pddl"},
};

enum { TEXT_MAX = 96 };

static void cut_word(char *text, const char *word)
{
    size_t length = strlen(text);
    size_t word_length = strlen(word);
    for (size_t i = 0; i + word_length <= length; i++) {
        if (strncmp(text + i, word, word_length) == 0) {
            memmove(text + i, text + i + word_length, length - i - word_length + 1);
            return;
        }
    }
}

/* Lower case, words joined by one hyphen, without "the" and "license". False: no licence reads
 * so. */
static bool tidy(const char *text, char out[TEXT_MAX])
{
    size_t used = 0;
    for (; *text != '\0'; text++) {
        char c = (char)tolower((unsigned char)*text);
        bool plain = (isalnum((unsigned char)c) && (unsigned char)c < 0x80) || c == '.' || c == '+';
        if (!plain && strchr(" \t\n_-/,()\"'", c) == NULL) {
            return false;
        }
        if (!plain && (used == 0 || out[used - 1] == '-')) {
            continue;
        }
        if (used + 1 >= TEXT_MAX) {
            return false;
        }
        out[used++] = plain ? c : '-';
    }
    while (used > 0 && (out[used - 1] == '-' || out[used - 1] == '.')) {
        used--;
    }
    out[used] = '\0';
    if (strncmp(out, "the-", 4) == 0) {
        memmove(out, out + 4, strlen(out + 4) + 1);
    }
    cut_word(out, "-license");
    cut_word(out, "-licence");
    return true;
}

/* ".../licenses/by-sa/4.0/legalcode" of creativecommons.org. */
static bool read_creative_commons_url(const char *text, char out[TEXT_MAX])
{
    char kind[24] = "";
    char version[8] = "";
    const char *at = strstr(text, "creativecommons.org/");
    if (at == NULL) {
        return false;
    }
    if (sscanf(at, "creativecommons.org/licenses/%23[a-z-]/%7[0-9.]", kind, version) == 2) {
        snprintf(out, TEXT_MAX, "cc-%s-%s", kind, version);
        return true;
    }
    if (strstr(at, "publicdomain/zero") != NULL) {
        snprintf(out, TEXT_MAX, "cc0-1.0");
        return true;
    }
    return false;
}

/* "ccbyncsa-4.0" -> "cc-by-nc-sa-4.0". */
static void part_creative_commons(char text[TEXT_MAX])
{
    char parted[TEXT_MAX + 8] = "cc-by";
    size_t used = strlen(parted);
    const char *at = text + 4;
    while (strncmp(at, "nc", 2) == 0 || strncmp(at, "nd", 2) == 0 || strncmp(at, "sa", 2) == 0) {
        if (used + 3 >= TEXT_MAX) {
            return;
        }
        used += (size_t)snprintf(parted + used, sizeof(parted) - used, "-%.2s", at);
        at += 2;
    }
    snprintf(parted + used, sizeof(parted) - used, "%s", at);
    snprintf(text, TEXT_MAX, "%.*s", TEXT_MAX - 1, parted);
}

/* "creative-commons-attribution-sharealike-4.0-international" and the like. */
static void shorten_creative_commons(char text[TEXT_MAX])
{
    static const char *const words[][2] = {
        {"-international", ""},    {"-unported", ""},          {"-generic", ""},
        {"-attribution", "-by"},   {"-sharealike", "-sa"},     {"-share-alike", "-sa"},
        {"-noncommercial", "-nc"}, {"-non-commercial", "-nc"}, {"-noderivatives", "-nd"},
        {"-noderivs", "-nd"},      {"creative-commons", "cc"},
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        char *at = strstr(text, words[i][0]);
        if (at != NULL) {
            size_t old_length = strlen(words[i][0]);
            size_t new_length = strlen(words[i][1]); /* never longer */
            memcpy(at, words[i][1], new_length);
            memmove(at + new_length, at + old_length, strlen(at + old_length) + 1);
        }
    }
    if (strncmp(text, "ccby", 4) == 0) {
        part_creative_commons(text);
    }
}

void source_licence(const char *text, char out[SOURCE_LICENCE_BYTES])
{
    char name[TEXT_MAX] = "";
    out[0] = '\0';
    if (!read_creative_commons_url(text, name) && !tidy(text, name)) {
        return;
    }
    shorten_creative_commons(name);
    const char *result = name;
    for (size_t i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++) {
        if (strcmp(name, aliases[i].text) == 0) {
            result = aliases[i].name;
        }
    }
    snprintf(out, SOURCE_LICENCE_BYTES, "%s", result);
}

void source_licences(const cJSON *text_or_array, char out[SOURCE_LICENCE_BYTES])
{
    out[0] = '\0';
    if (cJSON_IsString(text_or_array)) {
        source_licence(text_or_array->valuestring, out);
        return;
    }
    const cJSON *item = NULL;
    size_t used = 0;
    cJSON_ArrayForEach (item, text_or_array) {
        char one[SOURCE_LICENCE_BYTES] = "";
        if (cJSON_IsString(item)) {
            source_licence(item->valuestring, one);
        }
        /* One that nobody knows makes the whole unknown: its terms would hold too. */
        size_t need = strlen(one) + (used > 0 ? 5 : 0);
        if (one[0] == '\0' || used + need >= SOURCE_LICENCE_BYTES) {
            out[0] = '\0';
            return;
        }
        used += (size_t)snprintf(out + used, SOURCE_LICENCE_BYTES - used, "%s%s",
                                 used > 0 ? " and " : "", one);
    }
}

/* cc-by, cc-by-nc-sa-4.0 and their kin: any order, any version. */
static bool is_creative_commons(const char *name)
{
    if (strncmp(name, "cc-by", 5) != 0) {
        return false;
    }
    for (name += 5; *name != '\0';) {
        if (strncmp(name, "-nc", 3) == 0 || strncmp(name, "-nd", 3) == 0 ||
            strncmp(name, "-sa", 3) == 0) {
            name += 3;
        } else {
            return name[0] == '-' && isdigit((unsigned char)name[1]) && name[2] == '.' &&
                   isdigit((unsigned char)name[3]) && name[4] == '\0';
        }
    }
    return true;
}

static bool one_allowed(const char *licence, const char *const *allowed)
{
    if (allowed == NULL) {
        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
            if (strcmp(licence, known[i]) == 0) {
                return true;
            }
        }
        return is_creative_commons(licence);
    }
    for (; *allowed != NULL; allowed++) {
        char name[SOURCE_LICENCE_BYTES];
        source_licence(*allowed, name);
        if (licence[0] != '\0' && strcmp(licence, name) == 0) {
            return true;
        }
    }
    return false;
}

bool source_licence_allowed(const char *licence, const char *const *allowed)
{
    char rest[SOURCE_LICENCE_BYTES];
    snprintf(rest, sizeof(rest), "%s", licence);
    char *at = rest;
    for (char *end = strstr(at, " and "); end != NULL; end = strstr(at, " and ")) {
        *end = '\0';
        if (!one_allowed(at, allowed)) {
            return false;
        }
        at = end + 5;
    }
    return one_allowed(at, allowed);
}
