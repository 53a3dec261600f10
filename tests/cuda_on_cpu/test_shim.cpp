/* The shim's threads: where they are, how they meet, what they share, and what ends them. */
#include "shim_test.h"

#include "kernels/cuda/mma.h"

/* -- where a thread is -- */

static __global__ void place_kernel(uint32_t *seen)
{
    const uint64_t block = blockIdx.x + gridDim.x * (blockIdx.y + (uint64_t)gridDim.y * blockIdx.z);
    const uint32_t thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    atomicAdd(&seen[block * (blockDim.x * blockDim.y * blockDim.z) + thread], 1U);
}

static void test_places(void **state)
{
    (void)state;
    enum { COUNT = 3 * 2 * 5 * 7 * 4 * 2 };
    const char *orders[] = {"", "reverse", "1", "99"};
    for (const char *order : orders) {
        setenv("TREX_CUDA_ON_CPU_ORDER", order, 1);
        uint32_t seen[COUNT] = {};
        uint32_t *device = device_copy(seen, COUNT);
        run(dim3(3, 2, 5), dim3(7, 4, 2), 0, place_kernel, device);
        host_copy(seen, device, COUNT);
        for (int i = 0; i < COUNT; i++) {
            assert_int_equal(seen[i], 1);
        }
        CHECK(cudaFree(device));
    }
    unsetenv("TREX_CUDA_ON_CPU_ORDER");
}

/* -- barriers and shared memory -- */

/* The sum of a block's numbers by halving, in static or dynamic shared memory. */
template <int THREADS, bool DYNAMIC> static __global__ void sum_kernel(int *sums, const int *values)
{
    __shared__ int fixed[THREADS];
    int *part = DYNAMIC ? (int *)cuda_on_cpu_shared() : fixed;
    part[threadIdx.x] = values[blockIdx.x * THREADS + threadIdx.x];
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < half) {
            part[threadIdx.x] += part[threadIdx.x + half];
        }
    }
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = part[0];
    }
}

static void test_barriers(void **state)
{
    (void)state;
    enum { THREADS = 1024, BLOCKS = 3 };
    static int values[THREADS * BLOCKS];
    int expected[BLOCKS] = {};
    for (int i = 0; i < THREADS * BLOCKS; i++) {
        values[i] = i * i % 1013;
        expected[i / THREADS] += values[i];
    }
    int *device = device_copy(values, THREADS * BLOCKS);
    int *sums = device_make<int>(BLOCKS);
    const char *orders[] = {"", "reverse", "5"};
    for (const char *order : orders) {
        setenv("TREX_CUDA_ON_CPU_ORDER", order, 1);
        for (int dynamic = 0; dynamic < 2; dynamic++) {
            int found[BLOCKS];
            CHECK(cudaMemset(sums, 0, sizeof(found)));
            run(BLOCKS, THREADS, dynamic ? THREADS * sizeof(int) : 0,
                dynamic ? sum_kernel<THREADS, true> : sum_kernel<THREADS, false>, sums, device);
            host_copy(found, sums, BLOCKS);
            assert_memory_equal(found, expected, sizeof(expected));
        }
    }
    unsetenv("TREX_CUDA_ON_CPU_ORDER");
    CHECK(cudaFree(device));
    CHECK(cudaFree(sums));
}

/* Reads shared memory that nobody wrote, then writes it for the next block to find. */
template <typename T> static __global__ void forgetful_kernel(float *found)
{
    __shared__ T fixed[2];
    float *dynamic = (float *)cuda_on_cpu_shared();
    found[2 * blockIdx.x] = (float)fixed[1];
    found[2 * blockIdx.x + 1] = dynamic[3];
    fixed[0] = fixed[1] = 1;
    dynamic[3] = 1.0F;
}

static void test_shared_memory_is_forgotten(void **state)
{
    (void)state;
    float found[4];
    float *device = device_make<float>(4);
    run(2, 1, 16, forgetful_kernel<float>, device);
    host_copy(found, device, 4);
    for (float number : found) {
        assert_true(isnan(number));
    }
    CHECK(cudaFree(device));
}

static __global__ void vote_block_kernel(int *found)
{
    const int vote = threadIdx.x % 3 == 0;
    const int count = __syncthreads_count(vote);
    const int any = __syncthreads_or(threadIdx.x == 17);
    const int none = __syncthreads_or(0);
    const int all = __syncthreads_and(1);
    const int not_all = __syncthreads_and(threadIdx.x != 17);
    if (count != 16 || !any || none || !all || not_all) {
        atomicAdd(found, 1);
    }
}

static void test_votes_of_the_block(void **state)
{
    (void)state;
    int wrong = 0;
    int *device = device_copy(&wrong, 1);
    run(2, 48, 0, vote_block_kernel, device);
    host_copy(&wrong, device, 1);
    assert_int_equal(wrong, 0);
    CHECK(cudaFree(device));
}

/* -- warps -- */

static const int KINDS = 12; /* of shuffles */

static __global__ void shuffle_kernel(int *found)
{
    const int lane = (int)threadIdx.x % 32;
    const int value = 100 + lane;
    const unsigned all = 0xFFFFFFFFU;
    const unsigned half = lane < 16 ? 0xFFFFU : 0xFFFF0000U;
    const int results[KINDS] = {
        __shfl_sync(all, value, 5),
        __shfl_sync(all, value, lane + 3),
        __shfl_sync(all, value, 2, 8),
        __shfl_up_sync(all, value, 4),
        __shfl_down_sync(all, value, 4),
        __shfl_down_sync(all, value, 3, 16),
        __shfl_xor_sync(all, value, 9),
        __shfl_xor_sync(half, value, 7),
        (int)__shfl_xor_sync(all, (double)value, 1),
        (int)(__shfl_sync(all, (long long)value << 40, 31) >> 40),
        (int)__ballot_sync(all, lane % 5 == 0),
        (int)__match_any_sync(all, lane % 7),
    };
    for (int kind = 0; kind < KINDS; kind++) {
        found[(int)threadIdx.x * KINDS + kind] = results[kind];
    }
    if (!__any_sync(half, lane == 3) != (lane >= 16) ||
        !__all_sync(half, lane < 16) != (lane >= 16)) {
        found[0] = -1;
    }
}

static void test_shuffles_and_votes(void **state)
{
    (void)state;
    enum { THREADS = 96 };
    int found[THREADS * KINDS];
    const char *orders[] = {"", "reverse", "3", "4"};
    for (const char *order : orders) {
        setenv("TREX_CUDA_ON_CPU_ORDER", order, 1);
        int *device = device_make<int>(THREADS * KINDS);
        run(1, THREADS, 0, shuffle_kernel, device);
        host_copy(found, device, THREADS * KINDS);
        CHECK(cudaFree(device));
        for (int thread = 0; thread < THREADS; thread++) {
            const int lane = thread % 32;
            uint32_t ballot = 0;
            uint32_t match = 0;
            for (int other = 0; other < 32; other++) {
                ballot |= (uint32_t)(other % 5 == 0) << other;
                match |= (uint32_t)(other % 7 == lane % 7) << other;
            }
            const int expected[KINDS] = {
                105,
                100 + (lane + 3) % 32,
                100 + lane / 8 * 8 + 2,
                100 + (lane < 4 ? lane : lane - 4),
                100 + (lane > 27 ? lane : lane + 4),
                100 + (lane % 16 > 12 ? lane : lane + 3),
                100 + (lane ^ 9),
                100 + (lane ^ 7),
                100 + (lane ^ 1),
                131,
                (int)ballot,
                (int)match,
            };
            assert_memory_equal(&found[thread * KINDS], expected, sizeof(expected));
        }
    }
    unsetenv("TREX_CUDA_ON_CPU_ORDER");
}

/* Half of the lanes meet more often than the others. */
static __global__ void uneven_kernel(int *found)
{
    const int lane = (int)threadIdx.x;
    int sum = lane;
    if (lane < 8) {
        for (int i = 0; i < 10; i++) {
            sum += __shfl_xor_sync(0xFFU, sum, 1);
        }
    }
    __syncwarp();
    found[lane] = __shfl_sync(0xFFFFFFFFU, sum, 3);
}

static void test_parts_of_a_warp(void **state)
{
    (void)state;
    int found[32];
    int *device = device_make<int>(32);
    run(1, 32, 0, uneven_kernel, device);
    host_copy(found, device, 32);
    assert_int_equal(found[31], 5 * 512); /* 2 + 3, doubled nine times */
    CHECK(cudaFree(device));
}

/* -- tensor cores -- */

static __global__ void mma_kernel(float *d, const __nv_bfloat16 *a, const __nv_bfloat16 *b)
{
    __shared__ __align__(16) __nv_bfloat16 a_shared[16][16];
    __shared__ __align__(16) __nv_bfloat16 b_shared[16][16]; /* rows k, columns n; two tiles */
    const int lane = (int)threadIdx.x;
    for (int i = lane; i < 256; i += 32) {
        a_shared[i / 16][i % 16] = a[i];
        b_shared[i / 16][i % 16] = b[i];
    }
    __syncwarp();
    uint32_t a_words[4];
    uint32_t b_words[4];
    /* Matrices in the order of the words: rows 0-7 and 8-15 of the left half, then of the right. */
    ldmatrix_x4(a_words, &a_shared[lane % 8 + lane / 8 % 2 * 8][lane / 16 * 8]);
    ldmatrix_x4_transposed(b_words, &b_shared[lane % 8 + lane / 8 % 2 * 8][lane / 16 * 8]);
    for (int tile = 0; tile < 2; tile++) {
        float sums[4] = {1.0F, 2.0F, 3.0F, 4.0F};
        mma_16x8x16(sums, a_words, b_words[2 * tile], b_words[2 * tile + 1]);
        for (int i = 0; i < 4; i++) {
            d[(lane / 4 + i / 2 * 8) * 16 + tile * 8 + lane % 4 * 2 + i % 2] = sums[i];
        }
    }
}

static void test_tensor_cores(void **state)
{
    (void)state;
    __nv_bfloat16 a[256];
    __nv_bfloat16 b[256];
    float d[256];
    for (int i = 0; i < 256; i++) {
        a[i] = __float2bfloat16_rn((float)(i * 37 % 41) - 20.0F);
        b[i] = __float2bfloat16_rn((float)(i * 53 % 47) / 8.0F - 3.0F);
    }
    __nv_bfloat16 *a_device = device_copy(a, 256);
    __nv_bfloat16 *b_device = device_copy(b, 256);
    float *d_device = device_make<float>(256);
    run(1, 32, 0, mma_kernel, d_device, a_device, b_device);
    host_copy(d, d_device, 256);
    for (int row = 0; row < 16; row++) {
        for (int col = 0; col < 16; col++) {
            double expected = 1.0 + 2.0 * (row / 8) + col % 2;
            for (int k = 0; k < 16; k++) {
                expected += (double)__bfloat162float(a[row * 16 + k]) *
                            (double)__bfloat162float(b[k * 16 + col]);
            }
            assert_true(fabs((double)d[row * 16 + col] - expected) < 1e-3);
        }
    }
    CHECK(cudaFree(a_device));
    CHECK(cudaFree(b_device));
    CHECK(cudaFree(d_device));
}

/* -- asynchronous copies -- */

static __global__ void copies_kernel(float *found, const float *from)
{
    __shared__ __align__(16) float early[4];
    __shared__ __align__(16) float late[4];
    __shared__ __align__(16) float none[4];
    early[0] = late[0] = none[0] = 7.0F;
    copy_16_bytes(early, from, true);
    copy_16_bytes(none, from, false);
    copy_commit();
    copy_16_bytes(late, from + 4, true);
    copy_commit();
    found[0] = early[0]; /* not there yet, nor what was there before */
    copy_wait<1>();
    found[1] = early[0];
    found[2] = none[0];
    found[3] = late[0];
    copy_wait<0>();
    found[4] = late[0];
}

static void test_copies_are_late(void **state)
{
    (void)state;
    const float from[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    float found[5];
    float *from_device = device_copy(from, 8);
    float *device = device_make<float>(5);
    run(1, 1, 0, copies_kernel, device, from_device);
    host_copy(found, device, 5);
    assert_true(isnan(found[0]) && isnan(found[3]));
    assert_true(found[1] == 1.0F && found[2] == 0.0F && found[4] == 5.0F);
    CHECK(cudaFree(from_device));
    CHECK(cudaFree(device));
}

/* -- races -- */

/* Each thread reads its neighbour's number, with or without waiting for it. */
template <bool WAIT> static __global__ void neighbour_kernel(int *found)
{
    __shared__ int numbers[64];
    numbers[threadIdx.x] = (int)threadIdx.x;
    if (WAIT) {
        __syncthreads();
    }
    found[threadIdx.x] = numbers[(threadIdx.x + 1) % 64];
}

/* Whether all orders give the same. */
static bool same_in_all_orders(void (*kernel)(int *))
{
    const char *orders[] = {"", "reverse", "11", "12"};
    int first[64];
    bool same = true;
    for (const char *order : orders) {
        int found[64];
        setenv("TREX_CUDA_ON_CPU_ORDER", order, 1);
        int *device = device_make<int>(64);
        run(1, 64, 0, kernel, device);
        host_copy(found, device, 64);
        CHECK(cudaFree(device));
        if (order[0] == '\0') {
            memcpy(first, found, sizeof(first));
        }
        same = same && memcmp(first, found, sizeof(first)) == 0;
    }
    unsetenv("TREX_CUDA_ON_CPU_ORDER");
    return same;
}

static void test_orders_show_a_race(void **state)
{
    (void)state;
    assert_true(same_in_all_orders(neighbour_kernel<true>));
    assert_false(same_in_all_orders(neighbour_kernel<false>));
}

/* -- what ends a program -- */

enum mistake {
    RETURNED_BEFORE_BARRIER,
    TWO_BARRIERS,
    LANE_MISSING,
    NOT_IN_MASK,
    SOURCE_MISSING,
    GLOBAL_END,
    STATIC_END,
    DYNAMIC_END,
    MISALIGNED_VECTOR,
    MISALIGNED_COPY,
    COPY_TO_GLOBAL,
    COPY_FROM_BEYOND,
    LDMATRIX_OF_GLOBAL,
};

static __global__ void mistake_kernel(int mistake, float *memory, int count)
{
    __shared__ __align__(16) float fixed[32];
    float *dynamic = (float *)cuda_on_cpu_shared();
    float *fixed_end = fixed + (count > 0 ? 32 : 0); /* not known when it is compiled */
    const int lane = (int)threadIdx.x % 32;
    uint32_t words[4];
    memory[threadIdx.x] = 0.0F;
    if (mistake == RETURNED_BEFORE_BARRIER && threadIdx.x == 33) {
        return;
    }
    if (mistake == TWO_BARRIERS && threadIdx.x >= 32) {
        __syncthreads();
    }
    if (mistake == LANE_MISSING && lane != 7) {
        __syncwarp();
    }
    if (mistake == NOT_IN_MASK) {
        (void)__shfl_sync(0xFFU, lane, 0);
    }
    if (mistake == SOURCE_MISSING && lane < 8) {
        (void)__shfl_sync(0xFFU, lane, 8);
    }
    if (mistake == GLOBAL_END) {
        memory[count] = 1.0F;
    }
    if (mistake == STATIC_END) {
        *fixed_end = 1.0F;
    }
    if (mistake == DYNAMIC_END) {
        dynamic[count] = 1.0F;
    }
    if (mistake == MISALIGNED_VECTOR) {
        *reinterpret_cast<float4 *>(memory + count / 64) = make_float4(0, 0, 0, 0);
    }
    if (mistake == MISALIGNED_COPY) {
        copy_16_bytes(fixed + 1, memory, true);
    }
    if (mistake == COPY_TO_GLOBAL) {
        copy_16_bytes(memory, memory + 4, true);
    }
    if (mistake == COPY_FROM_BEYOND) {
        copy_16_bytes(fixed, memory + count, true);
    }
    if (mistake == LDMATRIX_OF_GLOBAL) {
        ldmatrix_x4(words, memory);
    }
    __syncthreads();
}

template <int MISTAKE> static void make_mistake()
{
    run(2, 64, 64 * sizeof(float), mistake_kernel, MISTAKE, device_make<float>(64), 64);
}

static void test_mistakes(void **state)
{
    (void)state;
    expect_death(make_mistake<RETURNED_BEFORE_BARRIER>, "1, first thread (33, 0, 0), returned");
    expect_death(make_mistake<RETURNED_BEFORE_BARRIER>, "a_kernel, block (0, 0, 0) of (2, 1, 1)");
    expect_death(make_mistake<TWO_BARRIERS>, "other threads of the block wait in __syncthreads");
    expect_death(make_mistake<LANE_MISSING>, "in __syncwarp of lanes 0xFFFFFFFF");
    expect_death(make_mistake<NOT_IN_MASK>, "thread (8, 0, 0): __shfl_sync");
    expect_death(make_mistake<SOURCE_MISSING>, "the source is a lane that does not take part");
    expect_death(make_mistake<GLOBAL_END>, "heap-buffer-overflow");
    expect_death(make_mistake<STATIC_END>, "global-buffer-overflow");
    expect_death(make_mistake<DYNAMIC_END>, "heap-buffer-overflow");
    expect_death(make_mistake<MISALIGNED_VECTOR>, "misaligned address");
    expect_death(make_mistake<MISALIGNED_COPY>, "not a multiple of 16");
    expect_death(make_mistake<COPY_TO_GLOBAL>, "the target is not shared memory");
    expect_death(make_mistake<COPY_FROM_BEYOND>, "the source is not in a block of memory");
    expect_death(make_mistake<LDMATRIX_OF_GLOBAL>, "the row is not in shared memory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_barriers),
        cmocka_unit_test(test_shared_memory_is_forgotten),
        cmocka_unit_test(test_votes_of_the_block),
        cmocka_unit_test(test_shuffles_and_votes),
        cmocka_unit_test(test_parts_of_a_warp),
        cmocka_unit_test(test_tensor_cores),
        cmocka_unit_test(test_copies_are_late),
        cmocka_unit_test(test_orders_show_a_race),
        cmocka_unit_test(test_mistakes),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
