/* How messages travel: MPI's sends and receives, none of which waits. */
#include "run/message.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

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
    size_t bytes = 0;
    struct outgoing *item = mem_calloc(1, sizeof(*item));
    enum status status = message_pack(message, item != NULL ? &item->bytes : NULL, &bytes, err);
    if (status == STATUS_OK) {
        int code = MPI_Isend(item->bytes, (int)bytes, MPI_BYTE, rank, (int)tag, mailbox->comm,
                             &item->request);
        status = code == MPI_SUCCESS
                     ? STATUS_OK
                     : message_mpi_status(code, "MPI_Isend", __FILE__, __LINE__, err);
    }
    if (status != STATUS_OK) {
        free(item != NULL ? item->bytes : NULL);
        free(item);
        return status;
    }
    item->next = mailbox->sending;
    mailbox->sending = item;
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
