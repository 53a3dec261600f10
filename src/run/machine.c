#include "run/machine.h"

#include <string.h>
#include <unistd.h>

#include "run/message.h"
#include "run/speed.h"

enum status machine_measure(const struct workspace *workspace, bool speed, struct machine *out,
                            struct error *err)
{
    struct device *device = workspace->device;
    struct device_memory memory = {.free_bytes = -1};
    device->ops->memory(device, &memory);
    *out = (struct machine){
        .precision = workspace_precision(workspace),
        .memory_bytes = memory.free_bytes > 0 ? (double)memory.free_bytes : 0.0,
    };
    if (speed) {
        TRY(speed_measure(device, out->precision == TRAIN_BF16 ? DTYPE_BF16 : DTYPE_F32,
                          &out->flops_per_s, err));
    }
    return STATUS_OK;
}

enum status machine_share(MPI_Comm comm, int root, struct machine *machine, struct error *err)
{
    double numbers[] = {(double)machine->precision, machine->memory_bytes, machine->flops_per_s};
    TRY_MPI(MPI_Bcast(numbers, 3, MPI_DOUBLE, root, comm));
    machine->precision = numbers[0] == (double)TRAIN_BF16 ? TRAIN_BF16 : TRAIN_F32;
    machine->memory_bytes = numbers[1];
    machine->flops_per_s = numbers[2];
    return STATUS_OK;
}

int64_t machine_worker_memory(const struct job *job, const struct machine *machine,
                              int node_workers)
{
    const double usable = 0.85; /* the rest is the system's and the page cache's */
    if (job->memory_bytes > 0.0) {
        return (int64_t)job->memory_bytes;
    }
    if (machine->memory_bytes > 0.0) {
        return (int64_t)machine->memory_bytes;
    }
    double pages = (double)sysconf(_SC_PHYS_PAGES);
    double host = pages * (double)sysconf(_SC_PAGESIZE);
    return (int64_t)(host * usable / (node_workers > 0 ? node_workers : 1));
}
