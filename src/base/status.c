#include "base/status.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const status_names[STATUS_COUNT] = {
#define STATUS_NAME(name, text, advice) #name,
    STATUS_LIST(STATUS_NAME)
#undef STATUS_NAME
};

static const char *const status_texts[STATUS_COUNT] = {
#define STATUS_TEXT(name, text, advice) text,
    STATUS_LIST(STATUS_TEXT)
#undef STATUS_TEXT
};

static const char *const status_advices[STATUS_COUNT] = {
#define STATUS_ADVICE(name, text, advice) advice,
    STATUS_LIST(STATUS_ADVICE)
#undef STATUS_ADVICE
};

static int in_range(enum status status)
{
    return (int)status >= 0 && (int)status < (int)STATUS_COUNT;
}

const char *status_name(enum status status)
{
    return in_range(status) ? status_names[status] : "STATUS_UNKNOWN";
}

const char *status_text(enum status status)
{
    return in_range(status) ? status_texts[status] : "unknown error";
}

const char *status_advice(enum status status)
{
    return in_range(status) ? status_advices[status] : "report it with the message and the log";
}

static void set_place(struct error *err, enum status code, const char *file, int line)
{
    memset(err, 0, sizeof(*err));
    err->code = code;
    err->rank = -1;
    err->line = line;
    /* Keep the end of a long path: it is the part that tells files apart. */
    size_t length = strlen(file);
    size_t skip = length >= sizeof(err->file) ? length - sizeof(err->file) + 1 : 0;
    snprintf(err->file, sizeof(err->file), "%s", file + skip);
}

enum status error_set(struct error *err, enum status code, const char *file, int line,
                      const char *format, ...)
{
    if (err != NULL) {
        set_place(err, code, file, line);
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(err->message, sizeof(err->message), format, arguments);
        va_end(arguments);
    }
    return code;
}

void error_context(struct error *err, const char *format, ...)
{
    if (err == NULL) {
        return;
    }
    char message[sizeof(err->message)];
    memcpy(message, err->message, sizeof(message));
    va_list arguments;
    va_start(arguments, format);
    int used = vsnprintf(err->message, sizeof(err->message), format, arguments);
    va_end(arguments);
    if (used >= 0 && (size_t)used + 2 < sizeof(err->message)) {
        size_t left = sizeof(err->message) - (size_t)used - 2;
        memcpy(err->message + used, ": ", 2);
        memcpy(err->message + used + 2, message, left); /* `message` is as long as err->message */
        err->message[sizeof(err->message) - 1] = '\0';
    }
}

static enum status status_of_errno(int errno_value)
{
    switch (errno_value) {
    case ENOSPC:
    case EDQUOT:
        return STATUS_NO_SPACE;
    case ENOENT:
    case ENOTDIR:
        return STATUS_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return STATUS_PERMISSION;
    case ENOMEM:
        return STATUS_NO_MEMORY;
    default:
        return STATUS_IO;
    }
}

enum status error_set_errno(struct error *err, int errno_value, const char *file, int line,
                            const char *format, ...)
{
    enum status code = status_of_errno(errno_value);
    if (err != NULL) {
        set_place(err, code, file, line);
        va_list arguments;
        va_start(arguments, format);
        int used = vsnprintf(err->message, sizeof(err->message), format, arguments);
        va_end(arguments);
        if (used >= 0 && (size_t)used < sizeof(err->message)) {
            snprintf(err->message + used, sizeof(err->message) - (size_t)used, ": %s",
                     strerror(errno_value));
        }
    }
    return code;
}
