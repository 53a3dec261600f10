/* What the parts of the shim share: one lock, the devices, and streams with their work. */
#ifndef STATE_H
#define STATE_H

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "on_cpu/runtime.h"

/* Taken by every function of the runtime; kernels run under it, so there is one at a time. */
extern std::mutex shim_lock;
/* Told when work that others may wait for was done. */
extern std::condition_variable shim_progress;

/* Something to do on a stream; returns false, and has done nothing, if it must wait for other
 * streams. */
typedef std::function<bool()> operation;

/* The work of one stream, in order. It outlives the stream while an event refers to it. */
struct work {
    std::deque<operation> queue;
    uint64_t called = 0; /* operations so far */
    uint64_t done = 0;
    bool running = false;
};

struct CUgraph_st {
    std::vector<operation> operations;
};

struct CUstream_st {
    int device;
    unsigned flags;
    int priority;
    std::shared_ptr<struct work> work;
    std::unique_ptr<CUgraph_st> capture; /* while it captures */
    bool capture_failed;
    enum cudaStreamCaptureMode capture_mode;
    std::thread::id capture_thread;
};

/* Remembers an error for cudaGetLastError, and returns it. */
cudaError_t finish(cudaError_t error);

/* -- devices.cpp -- */
int device_count();
int device_current(); /* of the host's thread */
bool device_exists(int device);

/* -- memory.cpp -- */
enum memory_kind { MEMORY_PAGEABLE, MEMORY_PINNED, MEMORY_DEVICE };
/* What memory this is, if all of it is in one block of CUDA's. */
enum memory_kind memory_kind_of(const void *address, size_t bytes);

/* -- streams.cpp -- */
/* Appends to a stream, or to what it captures; runs it at once, unless work is to be late. */
cudaError_t stream_push(cudaStream_t stream, operation what);
/* Works off a stream until `until` operations are done; whether they are. */
bool work_advance(struct work &work, uint64_t until);
/* The same, waiting for other threads of the host if it must. Ends the program if nobody comes. */
void work_wait(std::unique_lock<std::mutex> &lock, std::shared_ptr<struct work> work,
               uint64_t until);
/* Works off all streams of a device. */
void device_wait(std::unique_lock<std::mutex> &lock, int device);
/* cudaErrorStreamCaptureUnsupported, and a failed capture, if a capture forbids what may wait or
 * allocate. */
cudaError_t capture_forbids();

#endif
