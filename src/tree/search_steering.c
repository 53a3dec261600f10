/* Events of what somebody at a login node wanted, and the search did: limits, halts. Each keeps its
 * values, and makes an incident for the reader that nobody reads back. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tree/search_event.h"

bool search_halt_id_fits(const char *id)
{
    static const char allowed[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    size_t length = strlen(id);
    return length == strspn(id, allowed) && length >= SEARCH_HALT_ID_MIN_BYTES &&
           length < SEARCH_HALT_ID_BYTES;
}

/* "<what>, by <by>". */
static enum status read_telling(struct event *event, const char *what_key, struct arena *arena,
                                char **message, struct error *err)
{
    char line[2 * SEARCH_LINE_MAX_BYTES + 8];
    char *what = NULL;
    char *by = NULL;
    TRY(event_read_line(event, what_key, true, arena, &what, err));
    TRY(event_read_line(event, "by", true, arena, &by, err));
    snprintf(line, sizeof(line), "%s, by %s", search_text(what), search_text(by));
    return event_copy_line(line, arena, message, err);
}

/* Reads what is told, sees that the whole event was right, and adds the incident. */
static enum status add_telling(struct search *search, struct event *event, const char *kind,
                               const char *what_key, struct error *err)
{
    struct search_incident incident = {.time_s = event->time_s,
                                       .allocation = search->allocation_count - 1,
                                       .node = -1,
                                       .candidate = -1,
                                       .lost_s = NAN};
    TRY(event_copy_line(kind, &search->arena, &incident.kind, err));
    TRY(read_telling(event, what_key, &search->arena, &incident.message, err));
    TRY(event_check(event, err));
    return search_add_incident(search, &incident, err);
}

enum status search_apply_limits_set(struct search *search, struct event *event, struct error *err)
{
    double limits[SEARCH_LIMIT_COUNT];
    struct json_reader reader;
    json_require(&event->reader, "limits", "an object of limits");
    json_reader_init(&reader, json_read_object(&event->reader, "limits"), "/limits",
                     &event->problems);
    for (int id = 0; id < SEARCH_LIMIT_COUNT; id++) {
        limits[id] = search_limit_read(&reader, (enum search_limit_id)id, NAN);
    }
    TRY(add_telling(search, event, "limits", "what", err));
    memcpy(search->limits, limits, sizeof(limits));
    return STATUS_OK;
}

enum status search_apply_halted(struct search *search, struct event *event, struct error *err)
{
    json_require(&event->reader, "id", "the id of the wish");
    const char *id = json_read_string(&event->reader, "id", "");
    if (event->problems.count == 0 && !search_halt_id_fits(id)) {
        json_problems_add(&event->problems, "/id", "allowed are %d to %d small letters and digits",
                          SEARCH_HALT_ID_MIN_BYTES, SEARCH_HALT_ID_BYTES - 1);
    }
    TRY(add_telling(search, event, "halted", "how", err));
    snprintf(search->halt_id, sizeof(search->halt_id), "%s", id);
    return STATUS_OK;
}
