/* Where threads meet: barriers, shuffles and votes. Each is a rendezvous of the threads that it
 * names; one that cannot come about ends the program with the kernel, the block and the threads
 * (grid.cpp). */
#ifndef ON_CPU_WARP_H
#define ON_CPU_WARP_H

#include <string.h>
#include <type_traits>

#include "on_cpu/types.h"

/* Where in the source a thread waits, for reports. */
struct on_cpu_site {
    const char *what;
    const char *file;
    int line;
};
#define ON_CPU_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

/* What a lane brings to a rendezvous of its warp, and takes away. */
struct on_cpu_lane {
    uint64_t in[4];
    uint64_t out[2];
};

/* Waits for all threads of the block; returns how many of them brought a vote other than 0. */
int on_cpu_meet_block(int vote, on_cpu_site site);
/* Waits for the lanes of `mask`, which all bring the same `combine`; the last to come runs it over
 * the warp's 32 lanes and sets `out` of those of the mask. Returns the caller's `out`. */
const uint64_t *on_cpu_meet_warp(unsigned mask, const uint64_t (&in)[4],
                                 void (*combine)(on_cpu_lane *lanes, unsigned mask),
                                 on_cpu_site site);
/* Ends the program: the thread that runs did what hardware does not allow. */
[[noreturn]] void on_cpu_fault(const char *what, on_cpu_site site);

static inline void __syncthreads(ON_CPU_HERE)
{
    on_cpu_meet_block(0, {"__syncthreads", file, line});
}

static inline int __syncthreads_count(int vote, ON_CPU_HERE)
{
    return on_cpu_meet_block(vote, {"__syncthreads_count", file, line});
}

static inline int __syncthreads_or(int vote, ON_CPU_HERE)
{
    return on_cpu_meet_block(vote, {"__syncthreads_or", file, line}) != 0;
}

static inline int __syncthreads_and(int vote, ON_CPU_HERE)
{
    return on_cpu_meet_block(vote == 0, {"__syncthreads_and", file, line}) == 0;
}

void on_cpu_combine_nothing(on_cpu_lane *lanes, unsigned mask);
void on_cpu_combine_shuffle(on_cpu_lane *lanes, unsigned mask); /* in: value, source lane */
void on_cpu_combine_vote(on_cpu_lane *lanes, unsigned mask);    /* in: vote; out: ballot */
void on_cpu_combine_match(on_cpu_lane *lanes, unsigned mask);   /* in: value; out: those with it */
unsigned on_cpu_lane_index();                                   /* of the thread that runs */

static inline void __syncwarp(unsigned mask = 0xFFFFFFFFU, ON_CPU_HERE)
{
    on_cpu_meet_warp(mask, {0, 0, 0, 0}, on_cpu_combine_nothing, {"__syncwarp", file, line});
}

/* The value that lane `source` brings. */
template <typename T>
static inline T on_cpu_shuffle(unsigned mask, T value, unsigned source, on_cpu_site site)
{
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
    uint64_t word = 0;
    memcpy(&word, &value, sizeof(value));
    const uint64_t *out =
        on_cpu_meet_warp(mask, {word, source, 0, 0}, on_cpu_combine_shuffle, site);
    T result;
    memcpy(&result, out, sizeof(result));
    return result;
}

/* Shuffles act in groups of `width` lanes, a power of two; a source outside of the group is the
 * lane itself. */
template <typename T>
static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, ON_CPU_HERE)
{
    const unsigned group = on_cpu_lane_index() & ~(unsigned)(width - 1);
    return on_cpu_shuffle(mask, value, group | ((unsigned)source & (unsigned)(width - 1)),
                          {"__shfl_sync", file, line});
}

template <typename T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, ON_CPU_HERE)
{
    const unsigned lane = on_cpu_lane_index();
    const unsigned source = (lane & (unsigned)(width - 1)) >= delta ? lane - delta : lane;
    return on_cpu_shuffle(mask, value, source, {"__shfl_up_sync", file, line});
}

template <typename T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                 ON_CPU_HERE)
{
    const unsigned lane = on_cpu_lane_index();
    const bool inside = (lane & (unsigned)(width - 1)) + delta < (unsigned)width;
    return on_cpu_shuffle(mask, value, inside ? lane + delta : lane,
                          {"__shfl_down_sync", file, line});
}

template <typename T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, ON_CPU_HERE)
{
    const unsigned lane = on_cpu_lane_index();
    const unsigned source = lane ^ (unsigned)lanes;
    /* Groups above the lane's own are out of reach, those below are not: as the hardware has it. */
    const bool inside = source < (lane | (unsigned)(width - 1)) + 1U;
    return on_cpu_shuffle(mask, value, inside ? source : lane, {"__shfl_xor_sync", file, line});
}

static inline unsigned on_cpu_vote(unsigned mask, bool vote, on_cpu_site site)
{
    return (unsigned)*on_cpu_meet_warp(mask, {vote, 0, 0, 0}, on_cpu_combine_vote, site);
}

static inline unsigned __ballot_sync(unsigned mask, int vote, ON_CPU_HERE)
{
    return on_cpu_vote(mask, vote != 0, {"__ballot_sync", file, line});
}

static inline int __any_sync(unsigned mask, int vote, ON_CPU_HERE)
{
    return on_cpu_vote(mask, vote != 0, {"__any_sync", file, line}) != 0;
}

static inline int __all_sync(unsigned mask, int vote, ON_CPU_HERE)
{
    return on_cpu_vote(mask, vote != 0, {"__all_sync", file, line}) == mask;
}

template <typename T> static inline unsigned __match_any_sync(unsigned mask, T value, ON_CPU_HERE)
{
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
    uint64_t word = 0;
    memcpy(&word, &value, sizeof(value));
    return (unsigned)*on_cpu_meet_warp(mask, {word, 0, 0, 0}, on_cpu_combine_match,
                                       {"__match_any_sync", file, line});
}

#endif
