#include "shared.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "on_cpu/launch.h"

static unsigned char *memory;
static size_t memory_bytes;

unsigned char *cuda_on_cpu_shared()
{
    return memory;
}

void shared_open(size_t bytes)
{
    memory = (unsigned char *)malloc(bytes);
    memory_bytes = bytes;
    if (memory == nullptr) {
        perror("cuda_on_cpu: shared memory");
        abort();
    }
}

void shared_close()
{
    free(memory);
    memory = nullptr;
    memory_bytes = 0;
}

void shared_forget()
{
    memset(memory, 0xFF, memory_bytes);
}

bool shared_contains(const void *address, size_t bytes)
{
    const uintptr_t from = (uintptr_t)address;
    return from >= (uintptr_t)memory && from + bytes <= (uintptr_t)memory + memory_bytes;
}
