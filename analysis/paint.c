#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "analysis/analysis.h"

enum { COLUMNS_DEFAULT = 100, COLUMNS_LEAST = 60 };

const char *paint(enum paint paint)
{
    static const char *const codes[] = {"\033[0m",  "\033[1m",  "\033[2m",
                                        "\033[32m", "\033[31m", "\033[36m"};
    const char *no_color = getenv("NO_COLOR");
    bool plain = (no_color != NULL && no_color[0] != '\0') || !isatty(STDOUT_FILENO);
    return plain ? "" : codes[paint];
}

void paint_score(const struct search_score *score, char out[PAINT_SCORE_BYTES])
{
    if (score->present) {
        snprintf(out, PAINT_SCORE_BYTES, "%.4f ± %.4f", score->value, score->standard_error);
    } else {
        snprintf(out, PAINT_SCORE_BYTES, "-");
    }
}

void paint_duration(double seconds, char out[PAINT_TIME_BYTES])
{
    if (seconds < 120.0) {
        snprintf(out, PAINT_TIME_BYTES, "%.0f s", seconds);
    } else if (seconds < 7200.0) {
        snprintf(out, PAINT_TIME_BYTES, "%.0f min", seconds / 60.0);
    } else if (seconds < 2.0 * 86400.0) {
        snprintf(out, PAINT_TIME_BYTES, "%.1f h", seconds / 3600.0);
    } else {
        snprintf(out, PAINT_TIME_BYTES, "%.1f days", seconds / 86400.0);
    }
}

void paint_hours(double seconds, char out[PAINT_TIME_BYTES])
{
    double hours = fmin(seconds / 3600.0, 1e15);
    int digits = hours >= 100.0 ? 0 : hours >= 0.1 || hours == 0.0 ? 2 : 4;
    snprintf(out, PAINT_TIME_BYTES, "%.*f", digits, hours);
}

void paint_label(const char *text)
{
    printf("  %s%-11s%s ", paint(PAINT_FAINT), text, paint(PAINT_PLAIN));
}

static bool continues_character(char c)
{
    return ((unsigned char)c & 0xC0) == 0x80;
}

int paint_width(const char *text)
{
    int width = 0;
    for (; *text != '\0'; text++) {
        width += !continues_character(*text);
    }
    return width;
}

/* Prints one character; returns how many bytes it took. Controls (C0, DEL, C1) could move the
 * cursor or worse. */
static size_t print_character(const char *text)
{
    unsigned char lead = (unsigned char)text[0];
    size_t bytes = 1;
    while (continues_character(text[bytes])) {
        bytes++;
    }
    if (lead == '\n') {
        fputs("⏎", stdout);
    } else if (lead < 0x20 || lead == 0x7F) {
        fputs("·", stdout);
    } else if (lead == 0xC2 && (unsigned char)text[1] < 0xA0) {
        fputs("·", stdout);
    } else {
        fwrite(text, 1, bytes, stdout);
    }
    return bytes;
}

void paint_line(const char *text, int width)
{
    int left = width;
    bool whole = paint_width(text) <= width;
    while (*text != '\0' && left > (whole ? 0 : 3)) {
        text += print_character(text);
        left--;
    }
    if (!whole) {
        fputs("...", stdout);
    }
}

static void print_indent(int indent)
{
    printf("%*s", indent, "");
}

/* Bytes of the next line: up to a newline, to the last space that fits, or to the width. */
static size_t line_bytes(const char *text, int width)
{
    size_t at = 0;
    size_t space = 0;
    int used = 0;
    while (text[at] != '\0' && text[at] != '\n') {
        if (text[at] == ' ') {
            space = at;
        }
        if (!continues_character(text[at]) && used++ == width) {
            return space > 0 ? space : at;
        }
        at++;
    }
    return at;
}

void paint_block(const char *text, int indent, int width)
{
    while (*text != '\0') {
        size_t bytes = line_bytes(text, width - indent);
        const char *end = text + bytes;
        print_indent(indent);
        while (text < end) {
            text += print_character(text);
        }
        putchar('\n');
        if (*text == ' ' || *text == '\n') {
            text++;
        }
    }
}

int paint_columns(void)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) {
        return COLUMNS_DEFAULT;
    }
    return size.ws_col < COLUMNS_LEAST ? COLUMNS_LEAST : size.ws_col;
}
