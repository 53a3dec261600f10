/* What only the shim can show of the CUDA device: machines with no GPU, several, or little memory;
 * failed launches; a GPU whose state is lost; writing past the end of cached memory; groups of
 * several ranks. */
#include <atomic>
#include <string>
#include <thread>

#include "shim_test.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/operations.h"
#include "kernels/cuda/parts.h"

static struct device *open_device(int index)
{
    struct device_options options = {};
    struct device *device = NULL;
    struct error err = {};
    options.index = index;
    if (device_open("cuda", &options, &device, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return device;
}

static void *get(struct device *device, size_t bytes)
{
    struct error err = {};
    void *memory = NULL;
    if (device->ops->alloc(device, bytes, "a test array", &memory, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return memory;
}

/* -- opening ----------------------------------------------------------------------------------- */

static void test_no_gpu(void **state)
{
    (void)state;
    struct device_options options = {};
    struct device *device = NULL;
    struct error err = {};
    setenv("TREX_CUDA_ON_CPU_DEVICES", "0", 1);
    assert_int_equal(device_open("cuda", &options, &device, &err), STATUS_UNSUPPORTED);
    assert_null(device);
    assert_non_null(strstr(err.message, "GPU"));
    assert_int_equal(device_open("auto", &options, &device, &err), STATUS_OK);
    assert_string_equal(device->ops->name, "cpu");
    assert_non_null(strstr(device->choice, "auto found no CUDA device"));
    device_close(device);
    options.index = -1;
    device = NULL;
    assert_int_equal(device_open("cuda", &options, &device, &err), STATUS_RANGE);
    unsetenv("TREX_CUDA_ON_CPU_DEVICES");
}

/* Ranks take the GPUs in turn. */
static void test_index(void **state)
{
    (void)state;
    setenv("TREX_CUDA_ON_CPU_DEVICES", "3", 1);
    for (int index = 0; index < 7; index += 2) {
        struct device *device = open_device(index);
        assert_int_equal(cuda_of(device)->index, index % 3);
        device_close(device);
    }
    unsetenv("TREX_CUDA_ON_CPU_DEVICES");
}

/* -- memory ------------------------------------------------------------------------------------ */

/* A GPU without memory says what was asked for and what there is; blocks that nobody holds are
 * given back first. */
static void test_full_gpu(void **state)
{
    (void)state;
    const size_t mib = 1 << 20;
    struct error err = {};
    void *none = NULL;
    setenv("TREX_CUDA_ON_CPU_MEMORY", "67108864", 1);
    struct device *device = open_device(0);
    void *first = get(device, 30 * mib);
    void *second = get(device, 20 * mib);
    assert_int_equal(device->ops->alloc(device, 40 * mib, "the optimizer", &none, &err),
                     STATUS_NO_MEMORY);
    assert_non_null(strstr(err.message, "the optimizer needs 41943040 bytes"));
    assert_non_null(strstr(err.message, "67108864"));
    assert_null(none);
    device->ops->free(device, first);
    device->ops->free(device, second);
    void *large = get(device, 50 * mib); /* neither cached block holds it */
    device->ops->free(device, large);
    assert_int_equal(device->ops->check(device, &err), STATUS_OK);
    device_close(device);
    unsetenv("TREX_CUDA_ON_CPU_MEMORY");
}

/* A freed block is used again without asking the driver, and neighbours become one. */
static void test_blocks_join(void **state)
{
    (void)state;
    struct device *device = open_device(0);
    char *parts[8];
    for (char *&part : parts) {
        part = static_cast<char *>(get(device, 64 * 1024));
    }
    for (int order = 0; order < 8; order++) {
        device->ops->free(device, parts[order * 3 % 8]);
    }
    char *whole = static_cast<char *>(get(device, 512 * 1024));
    char *lowest = parts[0];
    for (char *part : parts) {
        lowest = part < lowest ? part : lowest;
    }
    assert_ptr_equal(whole, lowest);
    device->ops->free(device, whole);
    device_close(device);
}

static void test_scratch(void **state)
{
    (void)state;
    struct device *device = open_device(0);
    struct error err = {};
    void *first = cuda_scratch(device, 100, sizeof(float), "a test");
    assert_non_null(first);
    assert_true((uintptr_t)first % 256 == 0);
    assert_ptr_equal(cuda_scratch(device, 10, sizeof(float), "a test"), first);
    assert_non_null(cuda_scratch(device, 0, sizeof(float), "nothing"));
    assert_non_null(cuda_scratch(device, 1000000, sizeof(float), "more"));
    assert_null(cuda_scratch(device, INT64_MAX / 2, sizeof(float), "too much"));
    assert_int_equal(device->ops->check(device, &err), STATUS_NO_MEMORY);
    assert_non_null(strstr(err.message, "too much"));
    const int table[3] = {1, 2, 3};
    int back[3] = {};
    const void *there = cuda_table(device, table, sizeof(table), "a table");
    device->ops->download(device, back, there, sizeof(back));
    assert_memory_equal(back, table, sizeof(table));
    device_close(device);
}

/* Blocks lie side by side in one piece of the heap, and still their ends are watched. */
enum { END, FREED, CACHED };

template <int MISTAKE> static void write_outside()
{
    struct device *device = open_device(0);
    float *one = static_cast<float *>(get(device, 1000 * sizeof(float)));
    float *two = static_cast<float *>(get(device, 1024 * sizeof(float)));
    const int64_t count = MISTAKE == END ? 1001 : MISTAKE == FREED ? 1000 : 1;
    if (MISTAKE == FREED) {
        device->ops->free(device, one);
    }
    device->ops->fill(
        device, tensor_matrix(MISTAKE == CACHED ? two + 1024 : one, DTYPE_F32, 1, count), 1.0F);
    (void)device->ops->check(device, NULL);
}

static void test_writing_outside(void **state)
{
    (void)state;
    expect_death(write_outside<END>, "use-after-poison");
    expect_death(write_outside<FREED>, "use-after-poison");
    expect_death(write_outside<CACHED>, "use-after-poison");
}

/* -- failures ---------------------------------------------------------------------------------- */

static __global__ void nothing_kernel(int)
{
}

static void test_failed_launch(void **state)
{
    (void)state;
    struct device *device = open_device(0);
    struct error err = {};
    cuda_launch(device, "nothing", nothing_kernel, dim3(3, 2, 1), 2048, 16, 1);
    cuda_launch(device, "later", nothing_kernel, dim3(1, 70000, 1), 32, 0, 1);
    assert_int_equal(device->ops->check(device, &err), STATUS_DEVICE);
    assert_non_null(
        strstr(err.message, "nothing with 3 x 2 x 1 blocks of 2048 threads and 16 bytes"));
    assert_int_equal(device->ops->check(device, &err), STATUS_OK);
    cuda_launch(device, "too large", nothing_kernel, dim3(1), 32, (size_t)1 << 20, 1);
    assert_int_equal(device->ops->check(device, &err), STATUS_DEVICE);
    cuda_launch(device, "empty", nothing_kernel, dim3(0, 1, 1), 32, 0, 1);
    cuda_launch_failed(device, cudaErrorNoKernelImageForDevice, "foreign", dim3(1), 1, 0);
    assert_int_equal(device->ops->check(device, &err), STATUS_DEVICE);
    assert_non_null(strstr(err.message, "CMAKE_CUDA_ARCHITECTURES"));
    assert_int_equal(device->ops->check(device, &err), STATUS_OK);
    device_close(device);
}

/* An error after which every call fails stays, and says what to do. Here the other calls fail
 * because the side stream is captured. */
static void test_lost_gpu(void **state)
{
    (void)state;
    struct device *device = open_device(0);
    struct error err = {};
    cudaGraph_t graph = NULL;
    float *memory = static_cast<float *>(get(device, sizeof(float)));
    device->ops->fill(device, tensor_matrix(memory, DTYPE_F32, 1, 1), 3.0F);
    CHECK(cudaStreamBeginCapture(cuda_of(device)->side_stream, cudaStreamCaptureModeRelaxed));
    assert_false(cuda_went_well(device, cudaErrorIllegalAddress, "operations on the GPU"));
    (void)cudaStreamEndCapture(cuda_of(device)->side_stream, &graph);
    if (graph != NULL) {
        CHECK(cudaGraphDestroy(graph));
    }
    for (int i = 0; i < 3; i++) {
        err = {};
        assert_int_equal(device->ops->check(device, &err), STATUS_DEVICE);
        assert_non_null(strstr(err.message, "illegal memory access"));
        assert_non_null(strstr(err.message, "run it again"));
    }
    float untouched = 1.0F;
    device->ops->download(device, &untouched, memory, sizeof(untouched));
    assert_true(untouched == 1.0F);
    device_close(device);
}

/* Side work, allocation and copies have no place in a recording. */
static void test_recording_rules(void **state)
{
    (void)state;
    struct device *device = open_device(0);
    struct error err = {};
    void *memory = get(device, 64);
    void *more = NULL;
    float host = 0.0F;
    cuda_of(device)->recording = true;
    assert_int_equal(device->ops->alloc(device, 64, "more", &more, &err), STATUS_INTERNAL);
    device->ops->upload(device, memory, &host, sizeof(host));
    cuda_of(device)->recording = false;
    assert_int_equal(device->ops->check(device, &err), STATUS_INTERNAL);
    assert_non_null(strstr(err.message, "an upload while operations are recorded"));
    cuda_of(device)->recording = true;
    const int64_t ticket = device->ops->side_mark(device);
    cuda_of(device)->recording = false;
    assert_int_equal(device->ops->check(device, &err), STATUS_INTERNAL);
    assert_true(device->ops->side_mark(device) == ticket + 1);
    device->ops->free(device, memory);
    device_close(device);
}

/* -- products ---------------------------------------------------------------------------------- */

/* c (1,1) = a (1,n) b (n,1), all of them 1 + 2^-12: exact in f32, and 1 in TF32. */
static float product_of_ones(struct device *device, int64_t n)
{
    float *a = static_cast<float *>(get(device, (size_t)n * sizeof(float)));
    float *c = static_cast<float *>(get(device, sizeof(float)));
    float found = 0.0F;
    device->ops->fill(device, tensor_matrix(a, DTYPE_F32, 1, n), 1.0F + 1.0F / 4096.0F);
    device->ops->matmul(device, tensor_matrix(c, DTYPE_F32, 1, 1),
                        tensor_matrix(a, DTYPE_F32, 1, n), false, tensor_matrix(a, DTYPE_F32, n, 1),
                        false, 1.0F, 0.0F);
    device->ops->download(device, &found, c, sizeof(found));
    device->ops->free(device, a);
    device->ops->free(device, c);
    return found / (float)n - 1.0F;
}

/* f32 is f32 unless the environment allows TF32; describe says so. */
static void test_tf32(void **state)
{
    (void)state;
    char text[256];
    struct device *device = open_device(0);
    assert_true(product_of_ones(device, 64) > 4e-4F);
    device->ops->describe(device, text, sizeof(text));
    assert_null(strstr(text, "tf32"));
    device_close(device);
    setenv("TREX_TF32", "1", 1);
    device = open_device(0);
    assert_true(fabsf(product_of_ones(device, 64)) < 1e-6F);
    device->ops->describe(device, text, sizeof(text));
    assert_non_null(strstr(text, "tf32"));
    assert_int_equal(device->ops->check(device, NULL), STATUS_OK);
    device_close(device);
    unsetenv("TREX_TF32");
}

/* A product that the library refuses (in the shim: bf16 rows at odd numbers) is right all the same,
 * and describe tells of it. */
static void test_product_without_library(void **state)
{
    (void)state;
    enum { ROWS = 3, DEPTH = 5, COLS = 2 };
    char text[256];
    float found[ROWS * COLS];
    struct device *device = open_device(0);
    void *a = get(device, ROWS * DEPTH * 2 + 2);
    void *b = get(device, DEPTH * COLS * 2 + 2);
    float *c = static_cast<float *>(get(device, sizeof(found)));
    struct tensor a_tensor = tensor_matrix(static_cast<char *>(a) + 2, DTYPE_BF16, ROWS, DEPTH);
    struct tensor b_tensor = tensor_matrix(static_cast<char *>(b) + 2, DTYPE_BF16, DEPTH, COLS);
    device->ops->fill(device, a_tensor, 2.0F);
    device->ops->fill(device, b_tensor, 3.0F);
    device->ops->matmul(device, tensor_matrix(c, DTYPE_F32, ROWS, COLS), a_tensor, false, b_tensor,
                        false, 1.0F, 0.0F);
    device->ops->download(device, found, c, sizeof(found));
    for (float number : found) {
        assert_true(number == 30.0F);
    }
    device->ops->describe(device, text, sizeof(text));
    assert_non_null(strstr(text, "not for 1 shapes"));
    device_close(device);
}

/* -- groups ------------------------------------------------------------------------------------ */

enum { RANKS = 3, COUNT = 4097, ROUNDS = 4 };

/* Each rank adds up with the others, in several pieces, while its own operations go on. */
static void sum_in_group(int rank, const unsigned char *id, float *out, std::string *problem)
{
    struct device_options options = {};
    struct device *device = NULL;
    struct error err = {};
    void *memory = NULL;
    options.index = rank;
    if (device_open("cuda", &options, &device, &err) != STATUS_OK ||
        device->ops->group_join(device, id, rank, RANKS, &err) != STATUS_OK ||
        device->ops->alloc(device, COUNT * sizeof(float), "a gradient", &memory, &err) !=
            STATUS_OK) {
        *problem = err.message;
        return;
    }
    float *values = static_cast<float *>(memory);
    struct tensor gradient = tensor_matrix(values, DTYPE_F32, 1, COUNT);
    device->ops->fill(device, gradient, 0.1F * (float)(rank + 1));
    for (int round = 0; round < ROUNDS; round++) {
        device->ops->scale(device, gradient, 1.5F);
        (void)device->ops->side_sum(device, values, COUNT / 2);
        (void)device->ops->side_sum(device, values + COUNT / 2, COUNT - COUNT / 2);
        device->ops->side_fence(device);
    }
    device->ops->download(device, out, values, COUNT * sizeof(float));
    if (device->ops->check(device, &err) != STATUS_OK) {
        *problem = err.message;
    }
    device->ops->free(device, memory);
    device_close(device);
}

static void test_group_of_ranks(void **state)
{
    (void)state;
    static float out[RANKS][COUNT];
    unsigned char id[DEVICE_GROUP_ID_BYTES];
    std::string problems[RANKS];
    std::thread threads[RANKS];
    struct error err = {};
    setenv("TREX_CUDA_ON_CPU_DEVICES", "3", 1);
    struct device *device = open_device(0);
    assert_int_equal(device->ops->group_id(device, id, &err), STATUS_OK);
    for (int rank = 0; rank < RANKS; rank++) {
        threads[rank] = std::thread(sum_in_group, rank, id, out[rank], &problems[rank]);
    }
    for (std::thread &thread : threads) {
        thread.join();
    }
    for (int rank = 0; rank < RANKS; rank++) {
        assert_string_equal(problems[rank].c_str(), "");
        assert_memory_equal(out[rank], out[0], sizeof(out[0]));
    }
    /* the first round adds the ranks' numbers, each later one takes the sum three times */
    float expected = 0.6F * 1.5F;
    for (int round = 1; round < ROUNDS; round++) {
        expected *= 1.5F * (float)RANKS;
    }
    for (int i = 0; i < COUNT; i++) {
        assert_true(fabsf(out[0][i] - expected) < 1e-5F * expected);
    }
    device_close(device);
    unsetenv("TREX_CUDA_ON_CPU_DEVICES");
}

/* The second of two ranks adds up what is no device memory, after the first has begun its sum. Both
 * learn that the group is broken, and nothing waits for it any more. */
static void break_group(int rank, const unsigned char *id, std::atomic<int> *begun,
                        enum status *status, std::string *problem)
{
    struct device_options options = {};
    struct device *device = NULL;
    struct error err = {};
    void *memory = NULL;
    float host[4] = {};
    options.index = rank;
    if (device_open("cuda", &options, &device, &err) != STATUS_OK ||
        device->ops->group_join(device, id, rank, 2, &err) != STATUS_OK ||
        device->ops->alloc(device, sizeof(host), "a gradient", &memory, &err) != STATUS_OK) {
        *problem = err.message;
        *begun = 2;
        return;
    }
    while (*begun < rank) {
        std::this_thread::yield();
    }
    (void)device->ops->side_sum(device, rank == 0 ? static_cast<float *>(memory) : host, 4);
    ++*begun;
    while (*begun < 2) {
        std::this_thread::yield();
    }
    *status = device->ops->check(device, &err);
    *problem = err.message;
    (void)device->ops->side_sum(device, static_cast<float *>(memory), 4);
    if (device->ops->check(device, &err) != STATUS_DEVICE) {
        *problem = "a broken group adds up";
    }
    device->ops->free(device, memory);
    device_close(device);
}

static void test_broken_group(void **state)
{
    (void)state;
    unsigned char id[DEVICE_GROUP_ID_BYTES];
    std::atomic<int> begun = 0;
    enum status found[2] = {STATUS_OK, STATUS_OK};
    std::string problems[2];
    struct error err = {};
    setenv("TREX_CUDA_ON_CPU_DEVICES", "2", 1);
    struct device *device = open_device(0);
    assert_int_equal(device->ops->group_id(device, id, &err), STATUS_OK);
    std::thread other(break_group, 1, id, &begun, &found[1], &problems[1]);
    break_group(0, id, &begun, &found[0], &problems[0]);
    other.join();
    for (int rank = 0; rank < 2; rank++) {
        assert_non_null(strstr(problems[rank].c_str(), "NCCL says"));
        assert_int_equal(found[rank], STATUS_DEVICE);
    }
    device_close(device);
    unsetenv("TREX_CUDA_ON_CPU_DEVICES");
}

static void test_group_errors(void **state)
{
    (void)state;
    struct device *device = open_device(0);
    struct error err = {};
    unsigned char id[DEVICE_GROUP_ID_BYTES];
    memset(id, 7, sizeof(id));
    float *values = static_cast<float *>(get(device, 4 * sizeof(float)));
    const int64_t ticket = device->ops->side_sum(device, values, 4);
    device->ops->side_wait(device, ticket);
    assert_int_equal(device->ops->check(device, &err), STATUS_INTERNAL);
    assert_int_equal(device->ops->group_join(device, id, 0, 2, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.message, "NCCL"));
    assert_null(cuda_of(device)->group);
    assert_int_equal(device->ops->group_id(device, id, &err), STATUS_OK);
    for (int i = 0; i < 2; i++) { /* a second group takes the place of the first */
        assert_int_equal(device->ops->group_id(device, id, &err), STATUS_OK);
        assert_int_equal(device->ops->group_join(device, id, 0, 1, &err), STATUS_OK);
    }
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_gpu),
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_full_gpu),
        cmocka_unit_test(test_blocks_join),
        cmocka_unit_test(test_scratch),
        cmocka_unit_test(test_writing_outside),
        cmocka_unit_test(test_failed_launch),
        cmocka_unit_test(test_lost_gpu),
        cmocka_unit_test(test_recording_rules),
        cmocka_unit_test(test_group_of_ranks),
        cmocka_unit_test(test_group_errors),
        cmocka_unit_test(test_broken_group),
        cmocka_unit_test(test_tf32),
        cmocka_unit_test(test_product_without_library),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
