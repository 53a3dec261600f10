/* The table of pieces that the blocks of attention work on (attention.h).
 *
 * A warp places one piece: it finds the sequence of piece number p by a prefix sum over the
 * sequences, then counts the pieces that lie further back in theirs, which come before it. That
 * reads starts twice a warp: 8 S bytes from the caches, a few microseconds for 1,000 sequences. */
#include "kernels/cuda/attention.h"

enum { PLAN_THREADS = 128, PLAN_WARPS = PLAN_THREADS / WARP };

struct plan {
    struct attention_piece *pieces; /* (count) */
    int64_t count;
    const int32_t *starts; /* (sequences + 1) */
    int64_t sequences;
    int64_t rows;
    int tile_bits;
};

/* Pieces of sequence s; none beyond the last, or if its starts fall. */
static __device__ int64_t plan_tiles(const struct plan &plan, int64_t s)
{
    if (s >= plan.sequences) {
        return 0;
    }
    const int64_t length = (int64_t)plan.starts[s + 1] - plan.starts[s];
    return length > 0 ? (length + (1 << plan.tile_bits) - 1) >> plan.tile_bits : 0;
}

/* The first sequence whose starts are wrong, of all lanes; -1 if they rise from 0 to N. */
static __device__ int64_t plan_wrong(const struct plan &plan)
{
    const int lane = (int)threadIdx.x % WARP;
    for (int64_t s = lane; s - lane < plan.sequences; s += WARP) {
        bool wrong = false;
        if (s < plan.sequences) {
            wrong = plan.starts[s + 1] < plan.starts[s] || plan.starts[s + 1] > plan.rows ||
                    (s == 0 && plan.starts[0] != 0) ||
                    (s == plan.sequences - 1 && plan.starts[s + 1] != plan.rows);
        }
        const unsigned lanes = __ballot_sync(0xFFFFFFFFU, wrong);
        if (lanes != 0) {
            return s - lane + __ffs((int)lanes) - 1;
        }
    }
    return -1;
}

/* Sum over the lanes before this one, itself included. */
static __device__ int64_t warp_prefix(int64_t value)
{
    const int lane = (int)threadIdx.x % WARP;
    for (int distance = 1; distance < WARP; distance *= 2) {
        const long long before = __shfl_up_sync(0xFFFFFFFFU, (long long)value, distance);
        value += lane >= distance ? before : 0;
    }
    return value;
}

/* The sequence of piece `number`, and its place there; -1 if there are not so many pieces. */
static __device__ int64_t plan_find(const struct plan &plan, int64_t number, int64_t *tile)
{
    const int lane = (int)threadIdx.x % WARP;
    int64_t before = 0;
    for (int64_t first = 0; first < plan.sequences; first += WARP) {
        const int64_t tiles = plan_tiles(plan, first + lane);
        const int64_t end = before + warp_prefix(tiles);
        const unsigned lanes = __ballot_sync(0xFFFFFFFFU, number >= end - tiles && number < end);
        if (lanes != 0) {
            const int found = __ffs((int)lanes) - 1;
            *tile = number - __shfl_sync(0xFFFFFFFFU, (long long)(end - tiles), found);
            return first + found;
        }
        before = __shfl_sync(0xFFFFFFFFU, (long long)end, WARP - 1);
    }
    return -1;
}

/* How many pieces come before this one: those further back in their sequence, then those of earlier
 * sequences. */
static __device__ int64_t plan_rank(const struct plan &plan, int64_t sequence, int64_t tile)
{
    const int lane = (int)threadIdx.x % WARP;
    int64_t rank = 0;
    for (int64_t first = 0; first < plan.sequences; first += WARP) {
        const int64_t tiles = plan_tiles(plan, first + lane);
        if (tiles > tile) {
            rank += tiles - tile - 1 + (first + lane < sequence ? 1 : 0);
        }
    }
    return __shfl_sync(0xFFFFFFFFU, (long long)warp_prefix(rank), WARP - 1);
}

static __global__ void __launch_bounds__(PLAN_THREADS)
    attention_plan_kernel(const struct plan plan, struct cuda_fault *fault)
{
    const int64_t number = (int64_t)blockIdx.x * PLAN_WARPS + threadIdx.x / WARP;
    const bool first_lane = threadIdx.x % WARP == 0;
    if (number >= plan.count) {
        return;
    }
    const int64_t wrong = plan_wrong(plan);
    int64_t tile = 0;
    const int64_t sequence = wrong < 0 ? plan_find(plan, number, &tile) : -1;
    struct attention_piece piece = {0, 0, 0};
    int64_t place = number;
    if (sequence >= 0) {
        place = plan_rank(plan, sequence, tile);
        piece.start = plan.starts[sequence];
        piece.end = plan.starts[sequence + 1];
        piece.tile = (int32_t)tile;
    }
    if (first_lane) {
        plan.pieces[place] = piece;
    }
    if (first_lane && number == 0 && wrong >= 0) {
        fault_report(fault, CUDA_FAULT_STARTS, wrong, plan.starts[wrong + 1], plan.rows);
    }
}

void attention_plan(struct device *device, struct attention_piece *pieces, const int32_t *starts,
                    int64_t sequences, int64_t rows, int tile)
{
    struct plan plan = {pieces, attention_pieces(rows, sequences, tile), starts, sequences, rows,
                        0};
    while (1 << plan.tile_bits < tile) {
        plan.tile_bits++;
    }
    assert(1 << plan.tile_bits == tile);
    cuda_launch(device, "attention_plan", attention_plan_kernel,
                dim3(cuda_blocks(plan.count, PLAN_WARPS)), PLAN_THREADS, 0, plan,
                cuda_of(device)->fault);
}
