/* Opening, memory and its limit, failures that stick. */
#include "harness.h"

static const struct device_options defaults = {0};

static void test_names(void **state)
{
    (void)state;
    struct device *device = NULL;
    struct error err = {0};
    assert_int_equal(device_open("tpu", &defaults, &device, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "tpu"));
    assert_non_null(strstr(err.message, "auto"));
    assert_int_equal(device_open("", &defaults, &device, &err), STATUS_INVALID);
    assert_null(device);
    assert_int_equal(device_open("auto", &defaults, &device, &err), STATUS_OK);
    assert_true(strcmp(device->ops->name, "cpu") == 0 || strcmp(device->ops->name, "cuda") == 0);
    device_close(device);
    device_close(NULL);
}

static void test_options(void **state)
{
    (void)state;
    struct device *device = NULL;
    struct error err = {0};
    struct device_options options = {.threads = -1};
    assert_int_equal(device_open("cpu", &options, &device, &err), STATUS_RANGE);
    options = (struct device_options){.limit_bytes = -1};
    assert_int_equal(device_open("cpu", &options, &device, &err), STATUS_RANGE);
    setenv("TREX_ISA", "pentium", 1);
    assert_int_equal(device_open("cpu", &defaults, &device, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "pentium"));
    unsetenv("TREX_ISA");
    assert_null(device);
}

static void test_describe(void **state)
{
    (void)state;
    struct device *device = NULL;
    struct error err = {0};
    struct device_options options = {.threads = 2};
    char text[128];
    assert_int_equal(device_open("cpu", &options, &device, &err), STATUS_OK);
    device->ops->describe(device, text, sizeof(text));
    assert_non_null(strstr(text, "cpu, 2 threads"));
    print_message("%s; fast bf16: %d\n", text, device->ops->fast_bf16(device));
    device->ops->describe(device, text, 5);
    assert_string_equal(text, "cpu,");
    device_close(device);
}

/* -- on every backend -- */

/* For tests in which neither dtype nor gaps take part. */
static bool first_variant(const struct bench *bench)
{
    return bench->dtype == DTYPE_F32 && bench->gap == 0;
}

static void test_describe_and_options(struct bench *bench)
{
    char text[160];
    struct device *device = NULL;
    struct error err = {0};
    const struct device_options threads = {.threads = -1};
    const struct device_options limit = {.limit_bytes = -1};
    const size_t name_length = strlen(bench->ops->name);
    bench->ops->describe(bench->device, text, sizeof(text));
    assert_int_equal(strncmp(text, bench->ops->name, name_length), 0);
    assert_true(text[name_length] == ',');
    bench->ops->describe(bench->device, text, 3);
    assert_int_equal(strlen(text), 2);
    assert_int_equal(device_open(bench->ops->name, &threads, &device, &err), STATUS_RANGE);
    assert_int_equal(device_open(bench->ops->name, &limit, &device, &err), STATUS_RANGE);
    assert_null(device);
}

static struct device *open_limited(struct bench *bench, int64_t limit_bytes)
{
    struct device_options options = {.threads = 1, .limit_bytes = limit_bytes};
    struct device *device = NULL;
    struct error err = {0};
    if (device_open(bench->ops->name, &options, &device, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return device;
}

/* Backends count in units of their own, of up to 512 bytes. */
static bool is_about(int64_t counted, int64_t bytes)
{
    return counted >= bytes && counted < bytes + 512;
}

static void test_memory(struct bench *bench)
{
    struct device *device = open_limited(bench, 1 << 20);
    const struct ops *ops = device->ops;
    struct device_memory memory;
    struct error err = {0};
    void *first = NULL;
    void *second = NULL;
    assert_int_equal(ops->alloc(device, 700000, "first", &first, &err), STATUS_OK);
    assert_true((uintptr_t)first % 64 == 0);
    assert_int_equal(ops->alloc(device, 400000, "the second", &second, &err), STATUS_NO_MEMORY);
    assert_non_null(strstr(err.message, "the second"));
    assert_null(second);
    assert_int_equal(ops->alloc(device, SIZE_MAX, "all", &second, &err), STATUS_NO_MEMORY);
    assert_int_equal(ops->alloc(device, SIZE_MAX / 2, "half", &second, &err), STATUS_NO_MEMORY);
    ops->memory(device, &memory);
    assert_true(is_about(memory.used_bytes, 700000) && is_about(memory.peak_bytes, 700000));
    ops->free(device, first);
    ops->free(device, NULL);
    assert_int_equal(ops->alloc(device, 400000, "second", &second, &err), STATUS_OK);
    ops->memory(device, &memory);
    assert_true(is_about(memory.used_bytes, 400000) && is_about(memory.peak_bytes, 700000));
    ops->reset_peak(device);
    ops->memory(device, &memory);
    assert_true(is_about(memory.peak_bytes, 400000));
    ops->free(device, second);
    device_close(device);
}

static void test_empty_memory(struct bench *bench)
{
    void *nothing = NULL;
    struct error err = {0};
    assert_int_equal(bench->ops->alloc(bench->device, 0, "nothing", &nothing, &err), STATUS_OK);
    bench->ops->upload(bench->device, nothing, NULL, 0);
    bench->ops->download(bench->device, NULL, nothing, 0);
    bench->ops->free(bench->device, nothing);
}

/* The error says what was asked for; with a limit, also what is in use; else what is free. */
static void test_memory_errors(struct bench *bench)
{
    struct device *device = open_limited(bench, 100000);
    struct error err = {0};
    void *first = NULL;
    void *second = NULL;
    assert_int_equal(device->ops->alloc(device, 51200, "first", &first, &err), STATUS_OK);
    assert_int_equal(device->ops->alloc(device, 70000, "the moments", &second, &err),
                     STATUS_NO_MEMORY);
    assert_non_null(strstr(err.message, "the moments"));
    assert_non_null(strstr(err.message, "70000"));
    assert_non_null(strstr(err.message, "51200"));
    assert_non_null(strstr(err.message, "100000"));
    assert_null(second);
    device->ops->free(device, first);
    device_close(device);

    assert_int_equal(
        bench->ops->alloc(bench->device, (size_t)1 << 62, "all the weights", &second, &err),
        STATUS_NO_MEMORY);
    assert_non_null(strstr(err.message, "all the weights"));
    assert_non_null(strstr(err.message, "4611686018427387904"));
    assert_null(second);
}

enum { BLOCKS = 48 };

/* Whether a block still holds the bytes that were put there. */
static void check_block(struct bench *bench, const void *block, size_t bytes, unsigned char value)
{
    unsigned char *host = mem_calloc(bytes, 1);
    assert_non_null(host);
    bench->ops->download(bench->device, host, block, bytes);
    for (size_t i = 0; i < bytes; i++) {
        if (host[i] != value) {
            fail_msg("byte %zu of %zu is %d, expected %d", i, bytes, host[i], value);
        }
    }
    free(host);
}

static void fill_block(struct bench *bench, void *block, size_t bytes, unsigned char value)
{
    unsigned char *host = mem_calloc(bytes, 1);
    assert_non_null(host);
    memset(host, value, bytes);
    bench->ops->upload(bench->device, block, host, bytes);
    free(host);
}

/* Blocks of all sizes come and go; none ever lies on another, all of them are counted. */
static void test_memory_reused(struct bench *bench)
{
    void *blocks[BLOCKS] = {NULL};
    size_t bytes[BLOCKS] = {0};
    struct device_memory before;
    struct device_memory after;
    struct error err = {0};
    const struct ops *ops = bench->ops;
    ops->memory(bench->device, &before);
    for (int step = 0; step < 600 && first_variant(bench); step++) {
        const uint64_t at = rng_below(&bench->rng, BLOCKS);
        if (blocks[at] != NULL) {
            check_block(bench, blocks[at], bytes[at], (unsigned char)at);
            ops->free(bench->device, blocks[at]);
            blocks[at] = NULL;
        } else {
            bytes[at] = 1 + rng_below(&bench->rng, step % 50 == 0 ? 3000000 : 20000);
            assert_int_equal(ops->alloc(bench->device, bytes[at], "a block", &blocks[at], &err),
                             STATUS_OK);
            assert_true((uintptr_t)blocks[at] % 64 == 0);
            fill_block(bench, blocks[at], bytes[at], (unsigned char)at);
        }
    }
    for (unsigned at = 0; at < BLOCKS; at++) {
        if (blocks[at] != NULL) {
            check_block(bench, blocks[at], bytes[at], (unsigned char)at);
            ops->free(bench->device, blocks[at]);
        }
    }
    ops->memory(bench->device, &after);
    assert_int_equal(after.used_bytes, before.used_bytes);
    assert_true(after.peak_bytes >= after.used_bytes);
}

/* The first failure of a sequence of operations stays until it is asked for; what was called after
 * it has no effect on later work. */
static void test_failures_stick(struct bench *bench)
{
    const int32_t rows[2] = {1, 9};
    struct matrix table = matrix_make(bench, bench->dtype, 5, 7, 1.0);
    struct matrix out = matrix_make(bench, bench->dtype, 2, 7, 1.0);
    struct error err = {0};
    for (int pass = 0; pass < 2; pass++) {
        bench->ops->gather_rows(bench->device, out.tensor, table.tensor,
                                ints_upload(bench, rows, 2));
        bench->ops->fill(bench->device, out.tensor, 2.0F);
        assert_int_equal(bench->ops->check(bench->device, &err), STATUS_RANGE);
        assert_non_null(strstr(err.message, "index 9 of row 1 is not below 5"));
        assert_int_equal(bench->ops->check(bench->device, NULL), STATUS_OK);
    }
    bench->ops->fill(bench->device, out.tensor, 3.0F);
    matrix_download(bench, &out);
    for (int64_t i = 0; i < 2 * 7; i++) {
        assert_true(out.value[i] == 3.0);
    }
}

/* An operation whose working memory does not fit in the limit fails at `check`, and the device
 * lives on. */
static void test_working_memory(struct bench *bench)
{
    enum { ROWS = 64, DIM = 64 };
    struct device *device = open_limited(bench, 3 * ROWS * DIM * 4 + ROWS * DIM * 4 + 512);
    const struct ops *ops = device->ops;
    const struct attention_shape shape = {1, 1, DIM, 0.1F};
    struct error err = {0};
    void *qkv = NULL;
    void *out = NULL;
    void *starts = NULL;
    const int32_t host_starts[2] = {0, ROWS};
    assert_int_equal(ops->alloc(device, 3 * ROWS * DIM * 4, "qkv", &qkv, &err), STATUS_OK);
    assert_int_equal(ops->alloc(device, ROWS * DIM * 4, "out", &out, &err), STATUS_OK);
    assert_int_equal(ops->alloc(device, sizeof(host_starts), "starts", &starts, &err), STATUS_OK);
    ops->upload(device, starts, host_starts, sizeof(host_starts));
    struct tensor qkv_tensor = tensor_matrix(qkv, DTYPE_F32, ROWS, 3 * DIM);
    ops->fill(device, qkv_tensor, 1.0F);
    ops->attention_forward(device, tensor_matrix(out, DTYPE_F32, ROWS, DIM), NULL, qkv_tensor,
                           &shape, starts, 1);
    enum status status = ops->check(device, &err);
    assert_true(status == STATUS_NO_MEMORY ||
                (status == STATUS_OK && strcmp(ops->name, "cuda") == 0));
    ops->fill(device, qkv_tensor, 2.0F);
    assert_int_equal(ops->check(device, &err), STATUS_OK);
    ops->free(device, starts);
    ops->free(device, out);
    ops->free(device, qkv);
    device_close(device);
}

/* Each allocation of opening fails in turn: an error, and nothing is leaked (AddressSanitizer
 * looks). */
static void test_open_without_memory(struct bench *bench)
{
    for (int64_t n = 1; n < 20; n++) {
        struct device_options options = {.threads = 1};
        struct device *device = NULL;
        struct error err = {0};
        mem_fail_nth(n);
        enum status status = device_open(bench->ops->name, &options, &device, &err);
        mem_fail_nth(0);
        if (status == STATUS_OK) {
            device_close(device);
            return;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
        assert_null(device);
    }
    fail_msg("opening makes more allocations than expected");
}

int main(void)
{
    static const struct CMUnitTest once[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_describe),
    };
    static const struct kernel_test tests[] = {
        {"description and options", test_describe_and_options},
        {"memory", test_memory},
        {"errors of memory", test_memory_errors},
        {"memory used again", test_memory_reused},
        {"failures stick", test_failures_stick},
        {"empty memory", test_empty_memory},
        {"working memory over the limit", test_working_memory},
        {"opening without memory", test_open_without_memory},
    };
    int failed = cmocka_run_group_tests_name("device", once, NULL, NULL);
    return failed + kernel_tests_run("device", tests, sizeof(tests) / sizeof(tests[0]));
}
