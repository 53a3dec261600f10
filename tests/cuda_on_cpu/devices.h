/* What the devices have. */
#ifndef DEVICES_H
#define DEVICES_H

#include <stddef.h>

/* Bytes of one device: TREX_CUDA_ON_CPU_MEMORY, 4 GiB if unset. */
size_t device_memory_limit();

#endif
