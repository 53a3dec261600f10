#include "kernels/cpu/device.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cpu/matmul.h"

/* From the least to the best; the last one that the processor supports is taken. */
struct isa_choice {
    const char *name;
    const struct ops *ops;
    bool supported;
};

enum { ISA_CHOICES_MAX = 3 };

static int list_isa_choices(const struct cpu_features *features,
                            struct isa_choice choices[ISA_CHOICES_MAX])
{
#if defined(__x86_64__)
    choices[0] = (struct isa_choice){"x86_64_v2", &cpu_ops_x86_64_v2, features->x86_64_v2};
    choices[1] = (struct isa_choice){"x86_64_v3", &cpu_ops_x86_64_v3, features->x86_64_v3};
    choices[2] = (struct isa_choice){"x86_64_v4", &cpu_ops_x86_64_v4, features->x86_64_v4};
    return 3;
#else
    (void)features;
    choices[0] = (struct isa_choice){"generic", &cpu_ops_generic, true};
    return 1;
#endif
}

/* The best table, or the one that TREX_ISA names (for tests, and to compare results across
 * machines). */
static enum status choose_isa(const struct cpu_features *features, struct isa_choice *out,
                              struct error *err)
{
    struct isa_choice choices[ISA_CHOICES_MAX];
    int count = list_isa_choices(features, choices);
    const char *wanted = getenv("TREX_ISA");
    const struct isa_choice *chosen = NULL;
    bool known = false;
    for (int i = 0; i < count; i++) {
        bool named = wanted == NULL || strcmp(wanted, choices[i].name) == 0;
        known = known || named;
        if (named && choices[i].supported) {
            chosen = &choices[i];
        }
    }
    if (!known) {
        return FAIL(err, STATUS_INVALID, "TREX_ISA=%.64s is unknown; the best one here is %s",
                    wanted, choices[count - 1].name);
    }
    if (chosen == NULL) {
        return FAIL(
            err, STATUS_UNSUPPORTED,
            "this processor does not support the instruction set %s; unset TREX_ISA, or run on a "
            "machine that has at least SSE4.2",
            wanted != NULL ? wanted : choices[0].name);
    }
    *out = *chosen;
    return STATUS_OK;
}

enum status device_open_cpu(const struct device_options *options, struct device **out,
                            struct error *err)
{
    enum status status = STATUS_OK;
    struct isa_choice isa = {0};
    struct cpu_device *device = NULL;
    struct cpu_features features = cpu_features_read();

    if (options->threads < 0 || options->limit_bytes < 0) {
        return FAIL(err, STATUS_RANGE, "threads %d and memory limit %lld must not be negative",
                    options->threads, (long long)options->limit_bytes);
    }
    TRY(choose_isa(&features, &isa, err));
    device = mem_calloc(1, sizeof(*device));
    if (device == NULL) {
        return mem_fail(err, sizeof(*device), "the cpu device");
    }
    device->base.ops = isa.ops;
    device->isa = isa.name;
    device->features = features;
    device->limit_bytes = options->limit_bytes;
    /* OMP_NUM_THREADS if it is set, else the processors that this process is bound to */
    device->threads = options->threads > 0 ? options->threads : omp_get_max_threads();
    TRY_CLEANUP(matmul_create(&features, &device->matmul, err));
    *out = &device->base;
    device = NULL;

cleanup:
    free(device);
    return status;
}

void cpu_close(struct device *base)
{
    struct cpu_device *device = cpu_of(base);
    matmul_destroy(device->matmul);
    free(device->scratch);
    free(device);
}

enum status cpu_check(struct device *base, struct error *err)
{
    struct cpu_device *device = cpu_of(base);
    struct error first = device->failure;
    memset(&device->failure, 0, sizeof(device->failure));
    if (first.code != STATUS_OK && err != NULL) {
        *err = first;
    }
    return first.code;
}

void cpu_describe(struct device *base, char *out, size_t out_bytes)
{
    const struct cpu_device *device = cpu_of(base);
    const char *bf16 = "";
    if (device->features.amx_bf16) {
        bf16 = "+amx_bf16";
    } else if (device->features.avx512_bf16) {
        bf16 = "+avx512_bf16";
    }
    (void)snprintf(out, out_bytes, "cpu, %d thread%s, %s%s, %s", device->threads,
                   device->threads == 1 ? "" : "s", device->isa, bf16, matmul_library());
}
