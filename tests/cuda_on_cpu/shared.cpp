#include "shared.h"

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>
#include <string>
#include <vector>

#include "on_cpu/launch.h"

struct range {
    unsigned char *memory;
    size_t bytes;
};

/* A static array of a function. If the function is mangled as _Zname, it is _ZZname, E, the array.
 */
struct array {
    std::string name;
    range place;
};

/* What the program's symbols say. */
struct symbols {
    std::vector<array> arrays;
    std::map<const void *, std::string> functions; /* mangled names */
};

/* -- the program's symbols -- */

static int base_found(struct dl_phdr_info *info, size_t bytes, void *out)
{
    (void)bytes;
    *(uintptr_t *)out = info->dlpi_addr;
    return 1; /* the first is the program itself */
}

/* The file of the program, mapped for good. */
static const unsigned char *program_map()
{
    const int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct stat about;
    void *map = MAP_FAILED;
    if (file >= 0 && fstat(file, &about) == 0) {
        map = mmap(nullptr, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, file, 0);
        close(file);
    }
    if (map == MAP_FAILED) {
        perror("cuda_on_cpu: the program's own file");
        abort();
    }
    return (const unsigned char *)map;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text);
    return length >= strlen(end) && strcmp(text + length - strlen(end), end) == 0;
}

/* Adds a function, or an array that begins as zeros, if it may be a kernel's. `file` is the source
 * that a local symbol comes from. */
static void symbol_add(symbols *out, const ElfW(Sym) & symbol, const char *name, const char *file,
                       bool zeros, uintptr_t base)
{
    const int type = ELF64_ST_TYPE(symbol.st_info); /* the same in 32 bits */
    if (type == STT_FUNC && strstr(name, "_kernel") != nullptr) {
        out->functions[(const void *)(base + symbol.st_value)] = name;
    }
    if (type == STT_OBJECT && zeros && strncmp(name, "_ZZ", 3) == 0 &&
        (ends_with(file, ".cu") || strstr(name, "_kernel") != nullptr)) {
        out->arrays.push_back({name, {(unsigned char *)(base + symbol.st_value), symbol.st_size}});
    }
}

static symbols *symbols_read()
{
    static symbols *const read = new symbols;
    if (!read->functions.empty()) {
        return read;
    }
    uintptr_t base = 0;
    dl_iterate_phdr(base_found, &base);
    const unsigned char *map = program_map();
    const ElfW(Ehdr) *header = (const ElfW(Ehdr) *)map;
    const ElfW(Shdr) *sections = (const ElfW(Shdr) *)(map + header->e_shoff);
    for (int i = 0; i < header->e_shnum; i++) {
        if (sections[i].sh_type != SHT_SYMTAB) {
            continue;
        }
        const ElfW(Sym) *all = (const ElfW(Sym) *)(map + sections[i].sh_offset);
        const char *names = (const char *)map + sections[sections[i].sh_link].sh_offset;
        const char *file = "";
        for (size_t j = 0; j < sections[i].sh_size / sizeof(*all); j++) {
            const char *name = names + all[j].st_name;
            const unsigned place = all[j].st_shndx;
            if (ELF64_ST_TYPE(all[j].st_info) == STT_FILE) {
                file = name;
            } else if (place != SHN_UNDEF && place < header->e_shnum) {
                symbol_add(read, all[j], name, file, sections[place].sh_type == SHT_NOBITS, base);
            }
        }
    }
    if (read->functions.empty()) {
        fprintf(stderr, "cuda_on_cpu: the program has no symbols; do not strip it\n");
        abort();
    }
    return read;
}

/* The arrays of a kernel, and those of functions that are no kernels: it may have called them. */
static const std::vector<range> &ranges_of(const void *kernel)
{
    static std::map<const void *, std::vector<range>> known; /* under the lock */
    auto found = known.find(kernel);
    if (found != known.end()) {
        return found->second;
    }
    const symbols *all = symbols_read();
    std::vector<range> &ranges = known[kernel];
    const auto function = all->functions.find(kernel);
    const std::string own =
        function == all->functions.end() ? "-" : "_Z" + function->second.substr(1) + "E";
    for (const array &array : all->arrays) {
        const bool of_kernel = array.name.find("_kernel") != std::string::npos;
        if (!of_kernel || array.name.compare(0, own.size(), own) == 0) {
            ranges.push_back(array.place);
        }
    }
    return ranges;
}

/* -- the shared memory of the block that runs -- */

static range dynamic;
static const std::vector<range> *fixed;

unsigned char *cuda_on_cpu_shared()
{
    return dynamic.memory;
}

size_t shared_static_bytes(const void *kernel)
{
    size_t bytes = 0;
    for (const range &range : ranges_of(kernel)) {
        bytes += range.bytes;
    }
    return bytes;
}

void shared_open(const void *kernel, size_t dynamic_bytes)
{
    dynamic = {(unsigned char *)malloc(dynamic_bytes), dynamic_bytes};
    fixed = &ranges_of(kernel);
    if (dynamic.memory == nullptr) {
        perror("cuda_on_cpu: shared memory");
        abort();
    }
}

void shared_close()
{
    free(dynamic.memory);
    dynamic = {nullptr, 0};
}

void shared_forget()
{
    memset(dynamic.memory, 0xFF, dynamic.bytes);
    for (const range &range : *fixed) {
        memset(range.memory, 0xFF, range.bytes);
    }
}

static bool range_contains(const range &range, uintptr_t from, size_t bytes)
{
    return from >= (uintptr_t)range.memory && from + bytes <= (uintptr_t)range.memory + range.bytes;
}

bool shared_contains(const void *address, size_t bytes)
{
    const uintptr_t from = (uintptr_t)address;
    for (const range &range : *fixed) {
        if (range_contains(range, from, bytes)) {
            return true;
        }
    }
    return range_contains(dynamic, from, bytes);
}
