/* test_find_in_memory NAME PID...: whether the value of an environment variable is anywhere in the
 * readable memory of processes, shared memory included.
 *
 * It says where it is, a line each. Exit code: 0 in none, 1 in some, 2 a process cannot be read
 * (gone, or not ours), 3 used wrongly. The value is never whole in this process's own memory: it is
 * masked as soon as it is read, and what a process holds is masked before it is compared. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MASK = 0xA5, NEEDLE_MAX_BYTES = 256, NEEDLE_MIN_BYTES = 8, CHUNK_BYTES = 1 << 20 };
#define MAPPING_MAX_BYTES (UINT64_C(64) << 30)
enum { FOUND_NOT = 0, FOUND = 1, FOUND_UNREADABLE = 2, FOUND_USAGE = 3 };

struct needle {
    unsigned char masked[NEEDLE_MAX_BYTES];
    size_t length;
};

struct search {
    const struct needle *needle;
    unsigned char *chunk; /* CHUNK_BYTES, and before it room for the end of the one before */
    int memory;           /* /proc/PID/mem */
    const char *pid;
    uint64_t read_bytes;
    int found;
};

static bool take_needle(const char *name, struct needle *needle)
{
    char *value = getenv(name);
    needle->length = value != NULL ? strlen(value) : 0;
    if (needle->length < NEEDLE_MIN_BYTES || needle->length > NEEDLE_MAX_BYTES) {
        return false;
    }
    for (size_t i = 0; i < needle->length; i++) {
        needle->masked[i] = (unsigned char)value[i] ^ MASK;
    }
    explicit_bzero(value, needle->length);
    return true;
}

/* Where it is in masked bytes; -1: nowhere. */
static int64_t find(const struct needle *needle, const unsigned char *bytes, size_t len_bytes)
{
    const unsigned char *found = memmem(bytes, len_bytes, needle->masked, needle->length);
    return found != NULL ? found - bytes : -1;
}

/* One mapping, chunk by chunk, each with the end of the one before: the value may lie across. What
 * cannot be read (pages of a device, or gone meanwhile) is passed over. */
static void search_mapping(struct search *search, uint64_t start, uint64_t end, const char *label)
{
    size_t overlap = search->needle->length - 1;
    size_t kept = 0;
    for (uint64_t at = start; at < end;) {
        size_t wanted = end - at < CHUNK_BYTES ? (size_t)(end - at) : CHUNK_BYTES;
        unsigned char *fresh = search->chunk + overlap;
        ssize_t got = pread(search->memory, fresh, wanted, (off_t)at);
        if (got <= 0) {
            size_t page = (size_t)sysconf(_SC_PAGESIZE);
            at += page - at % page;
            kept = 0;
            continue;
        }
        for (ssize_t i = 0; i < got; i++) {
            fresh[i] ^= MASK;
        }
        int64_t place = find(search->needle, fresh - kept, kept + (size_t)got);
        if (place >= 0) {
            printf("%s: at %#" PRIx64 " in %s\n", search->pid, at - kept + (uint64_t)place, label);
            search->found++;
            return;
        }
        search->read_bytes += (uint64_t)got;
        size_t tail = kept + (size_t)got < overlap ? kept + (size_t)got : overlap;
        memmove(search->chunk + overlap - tail, fresh + got - tail, tail);
        kept = tail;
        at += (uint64_t)got;
    }
}

static int search_process(const struct needle *needle, const char *pid)
{
    char path[64];
    char line[4096];
    struct search search = {.needle = needle, .pid = pid, .memory = -1};
    int code = FOUND_UNREADABLE;
    snprintf(path, sizeof(path), "/proc/%.20s/maps", pid);
    FILE *maps = fopen(path, "re");
    snprintf(path, sizeof(path), "/proc/%.20s/mem", pid);
    search.memory = open(path, O_RDONLY | O_CLOEXEC);
    search.chunk = malloc(CHUNK_BYTES + NEEDLE_MAX_BYTES);
    while (maps != NULL && search.memory >= 0 && search.chunk != NULL &&
           fgets(line, sizeof(line), maps) != NULL) {
        uint64_t start = 0;
        uint64_t end = 0;
        char rights[5] = "";
        int name = 0;
        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*s %*s %*s %n", &start, &end, rights,
                   &name) < 3 ||
            rights[0] != 'r' || strstr(line, "[vsyscall]") != NULL) {
            continue;
        }
        if (end - start > MAPPING_MAX_BYTES) { /* what sanitizers and drivers reserve */
            printf("%s: not looked through: %" PRIu64 " bytes\n", pid, end - start);
            continue;
        }
        search_mapping(&search, start, end, line[name] != '\0' ? line + name : "memory of its own");
    }
    if (search.read_bytes > 0 || search.found > 0) {
        code = search.found > 0 ? FOUND : FOUND_NOT;
    } else {
        printf("%s: cannot be read: %s\n", pid, strerror(errno));
    }
    free(search.chunk);
    if (search.memory >= 0) {
        close(search.memory);
    }
    if (maps != NULL) {
        fclose(maps);
    }
    return code;
}

int main(int argc, char **argv)
{
    struct needle needle;
    int worst = FOUND_NOT;
    if (argc < 3 || !take_needle(argv[1], &needle)) {
        fprintf(stderr,
                "usage: test_find_in_memory NAME PID...\n"
                "NAME: of an environment variable with %d to %d bytes\n",
                NEEDLE_MIN_BYTES, NEEDLE_MAX_BYTES);
        return FOUND_USAGE;
    }
    for (int i = 2; i < argc; i++) {
        int code = search_process(&needle, argv[i]);
        worst = code > worst ? code : worst;
    }
    return worst;
}
