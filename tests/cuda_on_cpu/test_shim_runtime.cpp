/* The shim's runtime: memory and its limit, streams and events, early or late, graphs, what
 * launches may ask for. */
#include "shim_test.h"

static __global__ void add_kernel(int *numbers, int count, int value)
{
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < count) {
        numbers[i] += value;
    }
}

static cudaError_t add(cudaStream_t stream, int *numbers, int count, int value)
{
    return cuda_on_cpu_launch(stream, "add", (unsigned)(count + 63) / 64, 64, 0, add_kernel,
                              numbers, count, value);
}

static int first_of(const int *device)
{
    int first = 0;
    host_copy(&first, device, 1);
    return first;
}

/* -- devices -- */

static void test_devices(void **state)
{
    (void)state;
    int count = -1;
    void *memory = nullptr;
    cudaStream_t stream = nullptr;
    setenv("TREX_CUDA_ON_CPU_DEVICES", "0", 1);
    CHECK_FAILS(cudaGetDeviceCount(&count), cudaErrorNoDevice);
    assert_int_equal(count, 0);
    CHECK_FAILS(cudaSetDevice(0), cudaErrorNoDevice);
    CHECK_FAILS(cudaMalloc(&memory, 1), cudaErrorNoDevice);
    CHECK_FAILS(cudaStreamCreate(&stream), cudaErrorNoDevice);
    setenv("TREX_CUDA_ON_CPU_DEVICES", "2", 1);
    CHECK(cudaGetDeviceCount(&count));
    assert_int_equal(count, 2);
    CHECK_FAILS(cudaSetDevice(2), cudaErrorInvalidDevice);
    size_t available = 0;
    size_t total = 0;
    CHECK(cudaMalloc(&memory, 1000));
    CHECK(cudaMemGetInfo(&available, &total));
    assert_int_equal(total - available, 1000);
    CHECK(cudaSetDevice(1));
    CHECK(cudaMemGetInfo(&available, &total));
    assert_int_equal(total - available, 0);
    CHECK(cudaFree(memory));
    CHECK(cudaSetDevice(0));
    unsetenv("TREX_CUDA_ON_CPU_DEVICES");
    cudaDeviceProp properties;
    CHECK(cudaGetDeviceProperties(&properties, 0));
    assert_string_equal(properties.name, "CUDA on CPU");
    int major = 0;
    CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    assert_int_equal(major, properties.major);
}

static void test_errors_are_remembered(void **state)
{
    (void)state;
    int device = 0;
    (void)cudaGetLastError();
    CHECK_FAILS(cudaSetDevice(7), cudaErrorInvalidDevice);
    CHECK(cudaGetDevice(&device));
    CHECK_FAILS(cudaPeekAtLastError(), cudaErrorInvalidDevice);
    CHECK_FAILS(cudaGetLastError(), cudaErrorInvalidDevice);
    CHECK(cudaGetLastError());
    assert_string_equal(cudaGetErrorName(cudaErrorMemoryAllocation), "cudaErrorMemoryAllocation");
    assert_string_equal(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory");
}

/* -- memory -- */

static void test_memory(void **state)
{
    (void)state;
    void *first = nullptr;
    void *second = nullptr;
    size_t available = 0;
    size_t total = 0;
    setenv("TREX_CUDA_ON_CPU_MEMORY", "10000", 1);
    CHECK(cudaMalloc(&first, 6000));
    CHECK_FAILS(cudaMalloc(&second, 4001), cudaErrorMemoryAllocation);
    assert_null(second);
    CHECK(cudaMalloc(&second, 4000));
    CHECK(cudaMemGetInfo(&available, &total));
    assert_int_equal(available, 0);
    assert_int_equal(total, 10000);
    CHECK_FAILS(cudaFreeHost(first), cudaErrorInvalidValue);
    CHECK_FAILS(cudaFree((char *)first + 8), cudaErrorInvalidValue);
    CHECK(cudaFree(first));
    CHECK_FAILS(cudaFree(first), cudaErrorInvalidValue);
    CHECK(cudaMalloc(&first, 6000));
    CHECK(cudaFree(first));
    CHECK(cudaFree(second));
    CHECK(cudaFree(nullptr));
    unsetenv("TREX_CUDA_ON_CPU_MEMORY");
}

static void test_fresh_memory_is_no_number(void **state)
{
    (void)state;
    float found[3];
    float *device = device_make<float>(3);
    host_copy(found, device, 3);
    assert_true(isnan(found[0]) && isnan(found[2]));
    CHECK(cudaFree(device));
}

static void test_copies_know_their_sides(void **state)
{
    (void)state;
    int host[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    int *device = device_make<int>(8);
    int *pinned = nullptr;
    int *mapped = nullptr;
    cudaPointerAttributes about;
    cudaStream_t stream = stream_make();
    CHECK(cudaMallocHost(&pinned, sizeof(host)));
    CHECK(cudaHostGetDevicePointer(&mapped, pinned, 0));
    CHECK_FAILS(cudaMemcpyAsync(device, device, 4, cudaMemcpyHostToDevice, stream),
                cudaErrorInvalidValue);
    CHECK_FAILS(cudaMemcpyAsync(host, host, 4, cudaMemcpyDeviceToHost, stream),
                cudaErrorInvalidValue);
    CHECK_FAILS(cudaMemcpyAsync(device, host, 33, cudaMemcpyHostToDevice, stream),
                cudaErrorInvalidValue); /* longer than the block */
    CHECK_FAILS(cudaMemsetAsync(host, 0, 4, stream), cudaErrorInvalidValue);
    CHECK(cudaMemcpyAsync(device, host, sizeof(host), cudaMemcpyHostToDevice, stream));
    CHECK(add(stream, device, 8, 10));
    CHECK(cudaMemcpyAsync(pinned, device, sizeof(host), cudaMemcpyDeviceToHost, stream));
    CHECK(add(stream, mapped, 8, 100)); /* pinned memory is the device's too */
    CHECK(cudaStreamSynchronize(stream));
    assert_int_equal(pinned[7], 118);
    CHECK(cudaMemcpy2DAsync(device, 16, pinned, 8, 8, 2, cudaMemcpyHostToDevice, stream));
    CHECK(cudaStreamSynchronize(stream));
    host_copy(host, device, 8);
    assert_true(host[0] == 111 && host[1] == 112 && host[2] == 13 && host[4] == 113);
    CHECK(cudaPointerGetAttributes(&about, pinned + 1));
    assert_int_equal(about.type, cudaMemoryTypeHost);
    CHECK(cudaPointerGetAttributes(&about, host));
    assert_int_equal(about.type, cudaMemoryTypeUnregistered);
    CHECK(cudaFreeHost(pinned));
    CHECK(cudaFree(device));
    CHECK(cudaStreamDestroy(stream));
}

/* -- launches -- */

static __global__ void nothing_kernel()
{
}

static __global__ void array_kernel(int *sum)
{
    __shared__ int array[64];
    array[threadIdx.x] = (int)threadIdx.x;
    *sum = array[threadIdx.x];
}

static cudaError_t launch(dim3 grid, dim3 threads, size_t shared_bytes)
{
    cudaStream_t stream = stream_make();
    const cudaError_t result =
        cuda_on_cpu_launch(stream, "nothing", grid, threads, shared_bytes, nothing_kernel);
    CHECK(cudaStreamDestroy(stream));
    return result;
}

static void test_launches_that_hardware_refuses(void **state)
{
    (void)state;
    CHECK(launch(1, 1024, 48 * 1024));
    CHECK(launch(dim3(2, 2, 2), dim3(4, 4, 64), 0));
    CHECK_FAILS(launch(1, 1025, 0), cudaErrorInvalidConfiguration);
    CHECK_FAILS(launch(1, dim3(32, 33), 0), cudaErrorInvalidConfiguration);
    CHECK_FAILS(launch(1, dim3(1, 1, 65), 0), cudaErrorInvalidConfiguration);
    CHECK_FAILS(launch(1, 0, 0), cudaErrorInvalidConfiguration);
    CHECK_FAILS(launch(0, 1, 0), cudaErrorInvalidConfiguration);
    CHECK_FAILS(launch(dim3(1, 65536), 1, 0), cudaErrorInvalidConfiguration);
    CHECK_FAILS(launch(1, 1, 48 * 1024 + 1), cudaErrorInvalidValue);
    const void *kernel = (const void *)nothing_kernel;
    const cudaFuncAttribute most = cudaFuncAttributeMaxDynamicSharedMemorySize;
    CHECK_FAILS(cudaFuncSetAttribute(kernel, most, 227 * 1024 + 1), cudaErrorInvalidValue);
    CHECK(cudaFuncSetAttribute(kernel, most, 227 * 1024));
    CHECK(launch(1, 1, 227 * 1024));
}

/* A kernel's own arrays are part of the 48 KiB that nobody asks for. */
static void test_static_and_dynamic_shared_memory(void **state)
{
    (void)state;
    const size_t most = 48 * 1024 - 64 * sizeof(int);
    int *sum = device_make<int>(1);
    cudaStream_t stream = stream_make();
    CHECK(cuda_on_cpu_launch(stream, "array", 1, 1, most, array_kernel, sum));
    CHECK_FAILS(cuda_on_cpu_launch(stream, "array", 1, 1, most + 1, array_kernel, sum),
                cudaErrorInvalidValue);
    CHECK(cudaFuncSetAttribute((const void *)array_kernel,
                               cudaFuncAttributeMaxDynamicSharedMemorySize, (int)most + 1));
    CHECK(cuda_on_cpu_launch(stream, "array", 1, 1, most + 1, array_kernel, sum));
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(sum));
}

/* -- streams and events -- */

static void test_late_streams(void **state)
{
    (void)state;
    int *device = device_make<int>(1);
    int *pinned = nullptr;
    cudaStream_t main_stream = nullptr;
    cudaStream_t side = nullptr;
    cudaEvent_t before = nullptr;
    cudaEvent_t after = nullptr;
    int least = 0;
    int greatest = 0;
    setenv("TREX_CUDA_ON_CPU_LATE", "1", 1);
    CHECK(cudaMallocHost(&pinned, sizeof(int)));
    CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    CHECK(cudaStreamCreateWithPriority(&main_stream, cudaStreamNonBlocking, least));
    CHECK(cudaStreamCreateWithPriority(&side, cudaStreamNonBlocking, greatest));
    CHECK(cudaEventCreateWithFlags(&before, cudaEventDisableTiming));
    CHECK(cudaEventCreateWithFlags(&after, cudaEventDisableTiming));
    CHECK(cudaEventQuery(after)); /* never recorded */

    /* A copy aside of what the main stream then changes: without a fence it sees the change. */
    for (int fenced = 0; fenced < 2; fenced++) {
        CHECK(cudaMemsetAsync(device, 0, sizeof(int), main_stream));
        CHECK(add(main_stream, device, 1, 5));
        CHECK(cudaEventRecord(before, main_stream));
        CHECK(cudaStreamWaitEvent(side, before, 0));
        CHECK(cudaMemcpyAsync(pinned, device, sizeof(int), cudaMemcpyDeviceToHost, side));
        CHECK(cudaEventRecord(after, side));
        CHECK_FAILS(cudaEventQuery(after), cudaErrorNotReady);
        if (fenced) {
            CHECK(cudaStreamWaitEvent(main_stream, after, 0));
        }
        CHECK(add(main_stream, device, 1, 1));
        CHECK(cudaEventSynchronize(after));
        CHECK(cudaEventQuery(after));
        assert_int_equal(*pinned, fenced ? 5 : 6);
    }

    /* Someone who only asks is answered in the end. */
    CHECK(cudaMemcpyAsync(device, pinned, sizeof(int), cudaMemcpyHostToDevice, side));
    CHECK(cudaEventRecord(after, side));
    int queries = 1;
    while (cudaEventQuery(after) == cudaErrorNotReady) {
        queries++;
    }
    assert_true(queries > 1);
    (void)cudaGetLastError();
    unsetenv("TREX_CUDA_ON_CPU_LATE");
    CHECK(cudaEventDestroy(before));
    CHECK(cudaEventDestroy(after));
    CHECK(cudaStreamDestroy(main_stream));
    CHECK(cudaStreamDestroy(side));
    CHECK(cudaFreeHost(pinned));
    CHECK(cudaFree(device));
}

static void test_times(void **state)
{
    (void)state;
    cudaStream_t stream = stream_make();
    cudaEvent_t start = nullptr;
    cudaEvent_t end = nullptr;
    cudaEvent_t untimed = nullptr;
    float milliseconds = -1.0F;
    CHECK(cudaEventCreate(&start));
    CHECK(cudaEventCreate(&end));
    CHECK(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming));
    CHECK_FAILS(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorInvalidResourceHandle);
    CHECK(cudaEventRecord(start, stream));
    CHECK(cudaEventRecord(untimed, stream));
    CHECK(cudaEventRecord(end, stream));
    CHECK(cudaEventElapsedTime(&milliseconds, start, end));
    assert_true(milliseconds >= 0.0F);
    CHECK_FAILS(cudaEventElapsedTime(&milliseconds, untimed, end), cudaErrorInvalidResourceHandle);
    CHECK(cudaEventDestroy(start));
    CHECK(cudaEventDestroy(end));
    CHECK(cudaEventDestroy(untimed));
    CHECK(cudaStreamDestroy(stream));
}

/* -- graphs -- */

static void test_graphs(void **state)
{
    (void)state;
    int *device = device_make<int>(100);
    cudaStream_t stream = stream_make();
    cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    CHECK(cudaMemset(device, 0, 100 * sizeof(int)));
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    CHECK(cudaStreamIsCapturing(stream, &capturing));
    assert_int_equal(capturing, cudaStreamCaptureStatusActive);
    for (int value = 1; value <= 3; value++) {
        CHECK(add(stream, device, 100, value)); /* the arguments are kept as they are now */
    }
    CHECK(cudaMemcpyAsync(device + 1, device, sizeof(int), cudaMemcpyDeviceToDevice, stream));
    CHECK(cudaStreamEndCapture(stream, &graph));
    assert_int_equal(first_of(device), 0); /* nothing ran */
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaGraphLaunch(exec, stream));
    CHECK(cudaGraphLaunch(exec, stream));
    CHECK(add(stream, device, 1, 1));
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaStreamSynchronize(stream));
    int found[100];
    host_copy(found, device, 100);
    assert_true(found[0] == 13 && found[1] == 12 && found[99] == 12);
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(device));
}

/* Each is forbidden while a stream captures, and spoils the capture. */
static void test_captures_forbid(void **state)
{
    (void)state;
    static cudaStream_t stream;
    static int *device;
    static cudaEvent_t outside;
    stream = stream_make();
    device = device_make<int>(1);
    CHECK(cudaEventCreate(&outside));
    CHECK(cudaEventRecord(outside, stream));
    cudaError_t (*const forbidden[])() = {
        [] { return cudaStreamSynchronize(stream); },
        [] { return cudaDeviceSynchronize(); },
        [] { return cudaStreamQuery(stream); },
        [] { return cudaEventSynchronize(outside); },
        [] { return cudaFree(device); },
        [] {
            void *memory = nullptr;
            return cudaMalloc(&memory, 4);
        },
        [] {
            int host = 0;
            return cudaMemcpyAsync(device, &host, 4, cudaMemcpyHostToDevice, stream);
        },
        [] {
            int host = 0;
            return cudaMemcpy(device, &host, 4, cudaMemcpyHostToDevice);
        },
        [] { return cudaStreamWaitEvent(stream, outside, 0); },
    };
    for (const auto &call : forbidden) {
        cudaGraph_t graph = nullptr;
        CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
        CHECK(add(stream, device, 1, 1));
        const cudaError_t found = call();
        assert_true(found == cudaErrorStreamCaptureUnsupported ||
                    found == cudaErrorStreamCaptureIsolation);
        CHECK_FAILS(add(stream, device, 1, 1), cudaErrorStreamCaptureInvalidated);
        CHECK_FAILS(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
        assert_null(graph);
        CHECK(add(stream, device, 1, 1)); /* the stream goes on */
    }
    cudaGraph_t graph = nullptr;
    CHECK_FAILS(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureUnmatched);
    CHECK(cudaEventDestroy(outside));
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(device));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_errors_are_remembered),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_fresh_memory_is_no_number),
        cmocka_unit_test(test_copies_know_their_sides),
        cmocka_unit_test(test_launches_that_hardware_refuses),
        cmocka_unit_test(test_static_and_dynamic_shared_memory),
        cmocka_unit_test(test_late_streams),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_graphs),
        cmocka_unit_test(test_captures_forbid),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
