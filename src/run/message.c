#include "run/message.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"

const char *const message_phases[] = {"",         "load",     "data", "train",
                                      "validate", "evaluate", "save", NULL};

enum message_phase message_find_phase(const char *name)
{
    for (int i = MESSAGE_NO_PHASE + 1; i < MESSAGE_PHASE_COUNT; i++) {
        if (strcmp(message_phases[i], name) == 0) {
            return (enum message_phase)i;
        }
    }
    return MESSAGE_NO_PHASE;
}

enum status message_mpi_status(int mpi_error, const char *call, const char *file, int line,
                               struct error *err)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(mpi_error, text, &length);
    return error_set(err, STATUS_MPI, file, line, "%.60s: %s", call, text);
}

enum status message_pack(struct message *message, char **bytes, size_t *len_bytes,
                         struct error *err)
{
    enum status status = STATUS_OK;
    char *text = message->payload != NULL ? json_print_line(message->payload) : NULL;
    size_t payload_bytes = text != NULL ? strlen(text) : 0;
    size_t total = sizeof(struct message_header) + payload_bytes;
    if (bytes == NULL || (message->payload != NULL && text == NULL)) {
        status = mem_fail(err, total, "a message");
        goto cleanup;
    }
    if (total > MESSAGE_MAX_BYTES) {
        status = FAIL(err, STATUS_LIMIT, "a message of %zu bytes, at most %d are allowed", total,
                      MESSAGE_MAX_BYTES);
        goto cleanup;
    }
    *bytes = mem_calloc(total, 1);
    if (*bytes == NULL) {
        status = mem_fail(err, total, "a message");
        goto cleanup;
    }
    message->header.magic = MESSAGE_MAGIC;
    message->header.version = MESSAGE_VERSION;
    message->header.payload_bytes = payload_bytes;
    memcpy(*bytes, &message->header, sizeof(message->header));
    if (payload_bytes > 0) {
        memcpy(*bytes + sizeof(message->header), text, payload_bytes);
    }
    *len_bytes = total;
cleanup:
    cJSON_free(text);
    cJSON_Delete(message->payload);
    message->payload = NULL;
    return status;
}

static bool is_duration(double seconds)
{
    return isfinite(seconds) && seconds >= 0.0 && seconds <= MESSAGE_MAX_S;
}

/* What any kind of message may carry, wherever it means something. */
static enum status check_progress(const struct message_header *header, struct error *err)
{
    if (header->phase < 0 || header->phase >= MESSAGE_PHASE_COUNT || header->done < 0 ||
        header->total < 0) {
        return FAIL(err, STATUS_FORMAT, "a message of kind %u: phase %d, %lld of %lld",
                    header->kind, header->phase, (long long)header->done, (long long)header->total);
    }
    if (!is_duration(header->step_s) || !is_duration(header->save_s) ||
        !is_duration(header->gap_s)) {
        return FAIL(err, STATUS_FORMAT, "a message of kind %u: times of %g, %g and %g s",
                    header->kind, header->step_s, header->save_s, header->gap_s);
    }
    return STATUS_OK;
}

enum status message_parse(const void *bytes, size_t len_bytes, struct message *out,
                          struct error *err)
{
    struct message message = {0};
    if (len_bytes < sizeof(message.header)) {
        return FAIL(err, STATUS_FORMAT, "a message of %zu bytes, a header has %zu", len_bytes,
                    sizeof(message.header));
    }
    memcpy(&message.header, bytes, sizeof(message.header));
    const struct message_header *header = &message.header;
    if (header->magic != MESSAGE_MAGIC || header->version != MESSAGE_VERSION) {
        return FAIL(err, STATUS_FORMAT, "a message of version %u, this program speaks %d",
                    header->version, MESSAGE_VERSION);
    }
    if (header->kind >= MESSAGE_KIND_COUNT ||
        header->payload_bytes != len_bytes - sizeof(message.header)) {
        return FAIL(err, STATUS_FORMAT, "a message of kind %u with %llu bytes of payload in %zu",
                    header->kind, (unsigned long long)header->payload_bytes, len_bytes);
    }
    TRY(check_progress(header, err));
    if (header->payload_bytes > 0) {
        TRY(json_parse((const char *)bytes + sizeof(message.header), (size_t)header->payload_bytes,
                       "message", &message.payload, err));
    }
    *out = message;
    return STATUS_OK;
}

void message_fini(struct message *message)
{
    cJSON_Delete(message->payload);
    message->payload = NULL;
}
