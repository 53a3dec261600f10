#include "run/message.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
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

/* A send that MPI has not finished with. */
struct outgoing {
    MPI_Request request;
    char *bytes;
    struct outgoing *next;
};

struct mailbox {
    MPI_Comm comm;
    struct outgoing *sending;
};

enum status message_mpi_status(int mpi_error, const char *call, const char *file, int line,
                               struct error *err)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(mpi_error, text, &length);
    return error_set(err, STATUS_MPI, file, line, "%.60s: %s", call, text);
}

enum status mailbox_create(MPI_Comm comm, struct mailbox **out, struct error *err)
{
    struct mailbox *mailbox = mem_calloc(1, sizeof(*mailbox));
    if (mailbox == NULL) {
        return mem_fail(err, sizeof(*mailbox), "a mailbox");
    }
    mailbox->comm = comm;
    *out = mailbox;
    return STATUS_OK;
}

/* Frees what MPI has finished sending. */
static void reap(struct mailbox *mailbox)
{
    struct outgoing **link = &mailbox->sending;
    while (*link != NULL) {
        struct outgoing *item = *link;
        int sent = 0;
        MPI_Test(&item->request, &sent, MPI_STATUS_IGNORE);
        if (sent) {
            *link = item->next;
            free(item->bytes);
            free(item);
        } else {
            link = &item->next;
        }
    }
}

void mailbox_destroy(struct mailbox *mailbox, double timeout_s)
{
    if (mailbox == NULL) {
        return;
    }
    struct deadline deadline = deadline_after(timeout_s);
    reap(mailbox);
    while (mailbox->sending != NULL && !deadline_passed(deadline)) {
        clock_sleep_s(1e-3);
        reap(mailbox);
    }
    /* What is still under way keeps its memory: MPI may yet read it. */
    free(mailbox);
}

enum status mailbox_send(struct mailbox *mailbox, int rank, enum message_tag tag,
                         struct message *message, struct error *err)
{
    reap(mailbox);
    enum status status = STATUS_OK;
    struct outgoing *item = mem_calloc(1, sizeof(*item));
    char *text = message->payload != NULL ? json_print_line(message->payload) : NULL;
    size_t payload_bytes = text != NULL ? strlen(text) : 0;
    size_t total = sizeof(struct message_header) + payload_bytes;
    if (item == NULL || (message->payload != NULL && text == NULL)) {
        status = mem_fail(err, total, "a message");
        goto cleanup;
    }
    if (total > MESSAGE_MAX_BYTES) {
        status = FAIL(err, STATUS_LIMIT, "a message of %zu bytes, at most %d are allowed", total,
                      MESSAGE_MAX_BYTES);
        goto cleanup;
    }
    item->bytes = mem_calloc(total, 1);
    if (item->bytes == NULL) {
        status = mem_fail(err, total, "a message");
        goto cleanup;
    }
    message->header.magic = MESSAGE_MAGIC;
    message->header.version = MESSAGE_VERSION;
    message->header.payload_bytes = payload_bytes;
    memcpy(item->bytes, &message->header, sizeof(message->header));
    if (payload_bytes > 0) {
        memcpy(item->bytes + sizeof(message->header), text, payload_bytes);
    }
    int code =
        MPI_Isend(item->bytes, (int)total, MPI_BYTE, rank, (int)tag, mailbox->comm, &item->request);
    if (code != MPI_SUCCESS) {
        status = message_mpi_status(code, "MPI_Isend", __FILE__, __LINE__, err);
        goto cleanup;
    }
    item->next = mailbox->sending;
    mailbox->sending = item;
    item = NULL;
cleanup:
    if (item != NULL) {
        free(item->bytes);
        free(item);
    }
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

enum status mailbox_receive(struct mailbox *mailbox, enum message_tag tag, bool *came,
                            struct message *out, struct error *err)
{
    *came = false;
    int waiting = 0;
    MPI_Message handle;
    MPI_Status from;
    TRY_MPI(MPI_Improbe(MPI_ANY_SOURCE, (int)tag, mailbox->comm, &waiting, &handle, &from));
    if (!waiting) {
        return STATUS_OK;
    }
    int length = 0;
    TRY_MPI(MPI_Get_count(&from, MPI_BYTE, &length));
    bool fits = length >= 0 && length <= MESSAGE_MAX_BYTES;
    char *bytes = mem_calloc(fits ? (size_t)length + 1 : 1, 1);
    if (bytes == NULL) {
        return mem_fail(err, (size_t)length, "a message");
    }
    if (!fits) {
        free(bytes);
        return FAIL(err, STATUS_LIMIT, "a message of %d bytes from rank %d, at most %d are allowed",
                    length, from.MPI_SOURCE, MESSAGE_MAX_BYTES);
    }
    int code = MPI_Mrecv(bytes, length, MPI_BYTE, &handle, MPI_STATUS_IGNORE);
    enum status status = code == MPI_SUCCESS
                             ? message_parse(bytes, (size_t)length, out, err)
                             : message_mpi_status(code, "MPI_Mrecv", __FILE__, __LINE__, err);
    free(bytes);
    if (status == STATUS_OK) {
        out->rank = from.MPI_SOURCE;
        *came = true;
    } else {
        error_context(err, "message from rank %d", from.MPI_SOURCE);
    }
    return status;
}

void message_fini(struct message *message)
{
    cJSON_Delete(message->payload);
    message->payload = NULL;
}
