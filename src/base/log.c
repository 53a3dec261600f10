#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/text.h"

static const char *const level_names[] = {"debug", "info", "warning", "error"};

void log_init(struct log *log, FILE *human, int rank, enum log_level level)
{
    log->human = human;
    log->fd = -1;
    log->rank = rank;
    log->level = level;
    log->tail = NULL;
}

enum status log_open(struct log *log, const char *path, struct error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0) {
        return FAIL_ERRNO(err, "cannot open log %s", path);
    }
    log_close(log);
    log->fd = fd;
    return STATUS_OK;
}

void log_close(struct log *log)
{
    if (log->fd >= 0) {
        close(log->fd);
        log->fd = -1;
    }
}

static void write_json(const struct log *log, const char *time, enum log_level level,
                       const char *room, const char *message)
{
    cJSON *line = cJSON_CreateObject();
    cJSON_AddStringToObject(line, "time", time);
    cJSON_AddStringToObject(line, "level", level_names[level]);
    cJSON_AddNumberToObject(line, "rank", log->rank);
    cJSON_AddStringToObject(line, "room", room);
    cJSON_AddStringToObject(line, "message", message);
    char *text = cJSON_PrintUnformatted(line);
    cJSON_Delete(line);
    if (text != NULL) {
        size_t length = strlen(text);
        text[length] = '\n'; /* over the NUL: one write keeps lines of several ranks whole */
        ssize_t ignored = write(log->fd, text, length + 1);
        (void)ignored;
        cJSON_free(text);
    }
}

static void append_tail(struct log_tail *tail, const char *message)
{
    size_t length = strlen(message);
    if (length + 1 > sizeof(tail->text)) {
        message += length + 1 - sizeof(tail->text);
        length = sizeof(tail->text) - 1;
    }
    while (tail->len_bytes + length + 1 > sizeof(tail->text)) {
        const char *end = memchr(tail->text, '\n', tail->len_bytes);
        size_t first = end != NULL ? (size_t)(end - tail->text) + 1 : tail->len_bytes;
        memmove(tail->text, tail->text + first, tail->len_bytes - first);
        tail->len_bytes -= first;
    }
    memcpy(tail->text + tail->len_bytes, message, length);
    tail->text[tail->len_bytes + length] = '\n';
    tail->len_bytes += length + 1;
}

/* A stranger's text (an endpoint's error, a program's output) must not steer a terminal: control
 * characters become spaces, but for the ends of lines. */
static void blank_controls(char *text)
{
    for (unsigned char *at = (unsigned char *)text; *at != '\0'; at++) {
        bool second = at[0] == 0xC2 && at[1] >= 0x80 && at[1] < 0xA0; /* U+0080 to U+009F */
        if ((*at < ' ' && *at != '\n') || *at == 0x7F || second) {
            *at = ' ';
        }
        if (second) {
            *++at = ' ';
        }
    }
}

void log_write(struct log *log, enum log_level level, const char *room, const char *format, ...)
{
    if (log == NULL || (level < log->level && log->tail == NULL)) {
        return;
    }
    char cut[2048];
    char message[3 * sizeof(cut)];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(cut, sizeof(cut), format, arguments);
    va_end(arguments);
    text_repair(cut, strlen(cut), message);
    blank_controls(message);
    if (log->tail != NULL) {
        append_tail(log->tail, message);
    }
    if (level < log->level) {
        return;
    }
    char time[32];
    clock_format_utc(clock_wall_s(), time, sizeof(time));
    if (log->human != NULL) {
        const char *mark = level >= LOG_WARNING ? level_names[level] : "";
        fprintf(log->human, "%.8s %s%s%s\n", time + 11, mark, mark[0] != '\0' ? ": " : "", message);
        fflush(log->human);
    }
    if (log->fd >= 0) {
        write_json(log, time, level, room, message);
    }
}
