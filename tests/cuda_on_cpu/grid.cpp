#include "grid.h"

#include <sanitizer/asan_interface.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "fiber.h"
#include "mma_on_cpu.h"
#include "on_cpu/warp.h"
#include "shared.h"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

enum { THREADS_MAX = 1024, LANES = 32, NOBODY = -1 };

enum state { FRESH, READY, IN_BLOCK, IN_WARP, RETURNED };

struct copy {
    void *to;
    const void *from;
    bool valid;
    int group;
    on_cpu_site site;
};

struct thread {
    enum state state;
    struct fiber *fiber; /* while it is neither fresh nor done */
    on_cpu_site site;
    unsigned mask; /* of the rendezvous in its warp */
    std::vector<copy> copies;
    int groups; /* of copies, closed so far */
};

/* Lanes that wait for others of their mask. */
struct gathering {
    unsigned mask;
    unsigned arrived;
    void (*combine)(on_cpu_lane *lanes, unsigned mask);
};

struct warp {
    on_cpu_lane lanes[LANES];
    gathering gatherings[LANES];
    int open; /* gatherings */
};

/* The block that runs. There is one at a time, under the lock. */
static struct {
    const on_cpu_grid *grid;
    int count; /* threads */
    uint3 places[THREADS_MAX];
    int returned;
    int current;                         /* the thread that runs */
    uint64_t runnable[THREADS_MAX / 64]; /* one bit a thread */
    thread threads[THREADS_MAX];
    warp warps[THREADS_MAX / LANES];
    int waiting; /* threads in the barrier of the block */
    int votes;   /* brought to it */
    int result;  /* of the last one */
    on_cpu_site barrier;
    fiber host;
    fiber *idle; /* fibers without a thread */
} block;

/* -- the order of threads -- */

/* TREX_CUDA_ON_CPU_ORDER: unset, "reverse", or a number from which a random order follows. */
static struct {
    enum { FORWARD, REVERSE, RANDOM } kind;
    uint64_t random;
} order;

static void order_read()
{
    const char *text = getenv("TREX_CUDA_ON_CPU_ORDER");
    order.kind = order.FORWARD;
    if (text != nullptr && text[0] != '\0') {
        order.kind = text[0] == 'r' ? order.REVERSE : order.RANDOM;
        order.random = strtoull(text, nullptr, 10) * 0x9E3779B97F4A7C15U + 1;
    }
}

static uint64_t order_next()
{
    order.random ^= order.random << 13;
    order.random ^= order.random >> 7;
    order.random ^= order.random << 17;
    return order.random >> 11;
}

/* The first runnable thread at or after `from`. */
static int runnable_after(int from)
{
    for (int word = from / 64; word < THREADS_MAX / 64; word++) {
        uint64_t bits = block.runnable[word];
        if (word == from / 64) {
            bits &= ~(uint64_t)0 << (from % 64);
        }
        if (bits != 0) {
            return word * 64 + __builtin_ctzll(bits);
        }
    }
    return NOBODY;
}

static int runnable_last()
{
    for (int word = THREADS_MAX / 64 - 1; word >= 0; word--) {
        if (block.runnable[word] != 0) {
            return word * 64 + 63 - __builtin_clzll(block.runnable[word]);
        }
    }
    return NOBODY;
}

/* Who runs next; it is not runnable any more. */
static int next_take()
{
    int next = NOBODY;
    if (order.kind == order.REVERSE) {
        next = runnable_last();
    } else if (order.kind == order.RANDOM) {
        next = runnable_after((int)(order_next() % (unsigned)block.count));
    }
    if (next == NOBODY) {
        next = runnable_after(0);
    }
    if (next != NOBODY) {
        block.runnable[next / 64] &= ~((uint64_t)1 << (next % 64));
    }
    return next;
}

static void runnable_add(int index)
{
    block.runnable[index / 64] |= (uint64_t)1 << (index % 64);
}

/* -- what went wrong -- */

static void print_where()
{
    const dim3 blocks = block.grid->blocks;
    fprintf(stderr, "cuda_on_cpu: kernel %s, block (%u, %u, %u) of (%u, %u, %u)", block.grid->name,
            blockIdx.x, blockIdx.y, blockIdx.z, blocks.x, blocks.y, blocks.z);
}

static void print_thread(int thread)
{
    const uint3 at = block.places[thread];
    fprintf(stderr, "thread (%u, %u, %u)", at.x, at.y, at.z);
}

void on_cpu_fault(const char *what, on_cpu_site site)
{
    print_where();
    fprintf(stderr, ", ");
    print_thread(block.current);
    fprintf(stderr, ": %s at %s:%d: %s\n", site.what, site.file, site.line, what);
    abort();
}

static bool same_wait(const thread &a, const thread &b)
{
    return a.state == b.state &&
           (a.state == RETURNED || (a.mask == b.mask && a.site.line == b.site.line));
}

/* Nobody can run, and not all have returned. Prints who is where, threads that wait together in one
 * line. */
[[noreturn]] static void fail_stuck()
{
    print_where();
    fprintf(stderr, ": threads wait for others that never come:\n");
    bool shown[THREADS_MAX] = {};
    for (int i = 0; i < block.count; i++) {
        if (shown[i]) {
            continue;
        }
        int together = 0;
        for (int j = i; j < block.count; j++) {
            if (same_wait(block.threads[i], block.threads[j])) {
                shown[j] = true;
                together++;
            }
        }
        const thread &self = block.threads[i];
        fprintf(stderr, "    %d, first ", together);
        print_thread(i);
        if (self.state == RETURNED) {
            fprintf(stderr, ", returned\n");
        } else if (self.state == IN_BLOCK) {
            fprintf(stderr, ", in %s at %s:%d\n", self.site.what, self.site.file, self.site.line);
        } else {
            fprintf(stderr, ", in %s of lanes 0x%08X at %s:%d\n", self.site.what, self.mask,
                    self.site.file, self.site.line);
        }
    }
    abort();
}

/* -- switching -- */

static void thread_main();

static fiber *fiber_take()
{
    fiber *taken = block.idle;
    if (taken == nullptr) {
        return fiber_create(thread_main);
    }
    block.idle = taken->next;
    return taken;
}

static void fiber_give(fiber *given)
{
    given->next = block.idle;
    block.idle = given;
}

/* Continues with `next` on the fiber where it was left, or on a new one. */
static void thread_resume(fiber *from, int next)
{
    thread &other = block.threads[next];
    if (other.state == FRESH) {
        other.fiber = fiber_take();
    }
    block.current = next;
    fiber_switch(from, other.fiber);
}

static void thread_enter()
{
    threadIdx = block.places[block.current];
}

/* The thread that runs waits, unless it was made runnable meanwhile and is next. */
static void thread_wait()
{
    const int self = block.current;
    const int next = next_take();
    if (next == NOBODY) {
        fail_stuck();
    }
    if (next != self) {
        thread_resume(block.threads[self].fiber, next);
        thread_enter();
    }
    block.threads[self].state = READY;
}

/* What every fiber does: run threads that have not begun, until there is none. */
static void thread_main()
{
    for (;;) {
        thread &self = block.threads[block.current];
        fiber *own = self.fiber;
        self.state = READY;
        thread_enter();
        block.grid->thread();
        self.state = RETURNED;
        block.returned++;
        const int next = next_take();
        if (next != NOBODY && block.threads[next].state == FRESH) {
            block.threads[next].fiber = own;
            block.current = next;
            continue;
        }
        if (next == NOBODY && block.returned < block.count) {
            fail_stuck();
        }
        fiber_give(own);
        if (next == NOBODY) {
            fiber_switch(own, &block.host);
        } else {
            thread_resume(own, next);
        }
    }
}

/* -- meeting -- */

int on_cpu_meet_block(int vote, on_cpu_site site)
{
    thread &self = block.threads[block.current];
    if (block.waiting == 0) {
        block.barrier = site;
    } else if (block.barrier.line != site.line || block.barrier.what != site.what) {
        char text[300];
        snprintf(text, sizeof(text), "other threads of the block wait in %s at %s:%d",
                 block.barrier.what, block.barrier.file, block.barrier.line);
        on_cpu_fault(text, site);
    }
    self.state = IN_BLOCK;
    self.site = site;
    block.waiting++;
    block.votes += vote != 0;
    if (block.waiting == block.count) {
        block.result = block.votes;
        block.waiting = 0;
        block.votes = 0;
        for (int i = 0; i < block.count; i++) {
            runnable_add(i);
        }
    }
    thread_wait();
    return block.result;
}

unsigned on_cpu_lane_index()
{
    return (unsigned)block.current % LANES;
}

/* The lanes of a warp that there are: the last one may have fewer. */
static unsigned warp_lanes(int warp)
{
    const int lanes = block.count - warp * LANES;
    return lanes >= LANES ? 0xFFFFFFFFU : (1U << lanes) - 1U;
}

/* The gathering of these lanes for this; a new one if nobody waits there yet. */
static gathering *gathering_find(struct warp *warp, unsigned mask,
                                 void (*combine)(on_cpu_lane *, unsigned))
{
    for (int i = 0; i < warp->open; i++) {
        if (warp->gatherings[i].mask == mask && warp->gatherings[i].combine == combine) {
            return &warp->gatherings[i];
        }
    }
    gathering *made = &warp->gatherings[warp->open++];
    *made = {mask, 0, combine};
    return made;
}

const uint64_t *on_cpu_meet_warp(unsigned mask, const uint64_t (&in)[4],
                                 void (*combine)(on_cpu_lane *lanes, unsigned mask),
                                 on_cpu_site site)
{
    thread &self = block.threads[block.current];
    const int index = block.current / LANES;
    const unsigned lane = on_cpu_lane_index();
    struct warp *warp = &block.warps[index];
    if ((mask >> lane & 1U) == 0) {
        on_cpu_fault("the lane is not in the mask that it gives", site);
    }
    mask &= warp_lanes(index);
    self.state = IN_WARP;
    self.site = site;
    self.mask = mask;
    std::copy(in, in + 4, warp->lanes[lane].in);
    gathering *here = gathering_find(warp, mask, combine);
    here->arrived |= 1U << lane;
    if (here->arrived == mask) {
        *here = warp->gatherings[--warp->open];
        combine(warp->lanes, mask);
        for (int i = 0; i < LANES; i++) {
            if (mask >> i & 1U) {
                runnable_add(index * LANES + i);
            }
        }
    }
    thread_wait();
    return warp->lanes[lane].out;
}

void on_cpu_combine_nothing(on_cpu_lane *lanes, unsigned mask)
{
    (void)lanes;
    (void)mask;
}

void on_cpu_combine_shuffle(on_cpu_lane *lanes, unsigned mask)
{
    for (unsigned lane = 0; lane < LANES; lane++) {
        if (mask >> lane & 1U) {
            const uint64_t source = lanes[lane].in[1];
            if ((mask >> source & 1U) == 0) {
                block.current = block.current / LANES * LANES + (int)lane;
                on_cpu_fault("the source is a lane that does not take part",
                             block.threads[block.current].site);
            }
            lanes[lane].out[0] = lanes[source].in[0];
        }
    }
}

void on_cpu_combine_vote(on_cpu_lane *lanes, unsigned mask)
{
    uint64_t ballot = 0;
    for (unsigned lane = 0; lane < LANES; lane++) {
        ballot |= (uint64_t)((mask >> lane & 1U) != 0 && lanes[lane].in[0] != 0) << lane;
    }
    for (unsigned lane = 0; lane < LANES; lane++) {
        if (mask >> lane & 1U) {
            lanes[lane].out[0] = ballot;
        }
    }
}

void on_cpu_combine_match(on_cpu_lane *lanes, unsigned mask)
{
    for (unsigned lane = 0; lane < LANES; lane++) {
        if (mask >> lane & 1U) {
            uint64_t same = 0;
            for (unsigned other = 0; other < LANES; other++) {
                same |=
                    (uint64_t)((mask >> other & 1U) != 0 && lanes[other].in[0] == lanes[lane].in[0])
                    << other;
            }
            lanes[lane].out[0] = same;
        }
    }
}

/* -- asynchronous copies of the thread that runs -- */

void on_cpu_copy_16_bytes(void *to_shared, const void *from, bool valid, on_cpu_site site)
{
    thread &self = block.threads[block.current];
    if ((uintptr_t)to_shared % 16 != 0 || (uintptr_t)from % 16 != 0) {
        on_cpu_fault("an address is not a multiple of 16", site);
    }
    if (!shared_contains(to_shared, 16)) {
        on_cpu_fault("the target is not shared memory", site);
    }
    if (valid && __asan_region_is_poisoned((void *)from, 16) != nullptr) {
        on_cpu_fault("the source is not in a block of memory", site);
    }
    memset(to_shared, 0xFF, 16);
    self.copies.push_back({to_shared, from, valid, self.groups, site});
}

void on_cpu_copy_commit()
{
    block.threads[block.current].groups++;
}

void on_cpu_copy_wait(int groups)
{
    thread &self = block.threads[block.current];
    auto done = self.copies.begin();
    for (; done != self.copies.end() && done->group < self.groups - groups; done++) {
        if (__asan_region_is_poisoned(done->to, 16) != nullptr ||
            (done->valid && __asan_region_is_poisoned((void *)done->from, 16) != nullptr)) {
            on_cpu_fault("memory was given back while it was copied", done->site);
        }
        if (done->valid) {
            memcpy(done->to, done->from, 16);
        } else {
            memset(done->to, 0, 16);
        }
    }
    self.copies.erase(self.copies.begin(), done);
}

/* -- the grid -- */

static void block_run()
{
    block.returned = 0;
    block.waiting = 0;
    block.votes = 0;
    for (int i = 0; i < block.count; i++) {
        block.threads[i].state = FRESH;
        block.threads[i].copies.clear();
        block.threads[i].groups = 0;
        runnable_add(i);
    }
    for (int i = 0; i < (block.count + LANES - 1) / LANES; i++) {
        block.warps[i].open = 0;
    }
    shared_forget();
    thread_resume(&block.host, next_take());
}

/* Which block is the i-th to run: all of them once, in the order that was chosen. */
static uint64_t block_at(uint64_t i, uint64_t count, uint64_t start, uint64_t step)
{
    if (order.kind == order.FORWARD) {
        return i;
    }
    return order.kind == order.REVERSE ? count - 1 - i : (start + i * step) % count;
}

void grid_run(const on_cpu_grid &grid)
{
    const uint64_t count = (uint64_t)grid.blocks.x * grid.blocks.y * grid.blocks.z;
    order_read();
    const uint64_t start = order_next() % count;
    uint64_t step = order_next() % (count < 0x10000 ? count : 0x10000) + 1;
    while (std::gcd(step, count) != 1) {
        step++;
    }
    block.grid = &grid;
    block.count = (int)(grid.threads.x * grid.threads.y * grid.threads.z);
    for (unsigned i = 0; i < (unsigned)block.count; i++) {
        const unsigned row = i / grid.threads.x;
        block.places[i] = {i % grid.threads.x, row % grid.threads.y, row / grid.threads.y};
    }
    blockDim = grid.threads;
    gridDim = grid.blocks;
    shared_open(grid.kernel, grid.shared_bytes);
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t at = block_at(i, count, start, step);
        blockIdx = {(unsigned)(at % grid.blocks.x), (unsigned)(at / grid.blocks.x % grid.blocks.y),
                    (unsigned)(at / grid.blocks.x / grid.blocks.y)};
        block_run();
    }
    shared_close();
    block.grid = nullptr;
}
