/* What the tests of the shim share: a stream, checked calls, and children that must die with a
 * report. */
#ifndef SHIM_TEST_H
#define SHIM_TEST_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <math.h>
#include <math_constants.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

extern "C" {
#include <cmocka.h> /* the last: it defines fail() */
}

static inline void check_call(cudaError_t found, cudaError_t expected, int line)
{
    if (found != expected) {
        fail_msg("line %d: %s, expected %s", line, cudaGetErrorName(found),
                 cudaGetErrorName(expected));
    }
}
#define CHECK(call) check_call((call), cudaSuccess, __LINE__)
#define CHECK_FAILS(call, error) check_call((call), (error), __LINE__)

static inline cudaStream_t stream_make()
{
    cudaStream_t stream = nullptr;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
}

template <typename T> static inline T *device_make(size_t count)
{
    T *memory = nullptr;
    CHECK(cudaMalloc(&memory, count * sizeof(T)));
    return memory;
}

template <typename T> static inline T *device_copy(const T *host, size_t count)
{
    T *memory = device_make<T>(count);
    CHECK(cudaMemcpy(memory, host, count * sizeof(T), cudaMemcpyHostToDevice));
    return memory;
}

template <typename T> static inline void host_copy(T *host, const T *device, size_t count)
{
    CHECK(cudaMemcpy(host, device, count * sizeof(T), cudaMemcpyDeviceToHost));
}

/* Runs a kernel on a stream of its own until it is done. */
template <typename... P>
static inline void run(dim3 grid, dim3 threads, size_t shared_bytes, void (*kernel)(P...),
                       std::type_identity_t<P>... arguments)
{
    cudaStream_t stream = stream_make();
    CHECK(
        cuda_on_cpu_launch(stream, "a_kernel", grid, threads, shared_bytes, kernel, arguments...));
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaStreamDestroy(stream));
}

/* What `act` prints to stderr before it dies, in a child; fails if it does not die. */
static inline void expect_death(void (*act)(), const char *text)
{
    int ends[2];
    static char found[65536];
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        act();
        _exit(0);
    }
    close(ends[1]);
    size_t length = 0;
    ssize_t got = 0;
    while ((got = read(ends[0], found + length, sizeof(found) - 1 - length)) > 0) {
        length += (size_t)got;
    }
    found[length] = '\0';
    close(ends[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        fail_msg("lived on where it should die of: %s", text);
    }
    if (strstr(found, text) == nullptr) {
        fail_msg("died, but not of \"%s\":\n%s", text, found);
    }
}

#endif
