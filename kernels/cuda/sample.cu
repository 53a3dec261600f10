/* The next token of each sequence from its logits, by the rule of kernels/cpu/isa/sample.c: greedy
 * is the largest logit, the lowest id on ties; else the first id, in order, at which the sum of the
 * kept weights exceeds uniform * their total. Kept are the top_k greatest logits (lower ids first
 * among equals), and of these the fewest that together reach top_p of their total.
 *
 * Weights are whole numbers, 2^44 for the likeliest of 151,936 ids: so sums are exact, and the same
 * in any order. A warp owns a piece of the ids and keeps their order, so that nothing is ever
 * sorted: the logit that divides the kept from the others is found bit by bit, from above, by
 * adding up what lies over it. That is done among a few candidates alone, which a bound picks out
 * first.
 *
 * Floor: a row is read once if greedy, twice or three times else, 4 bytes an id: 608 KB for
 * V = 151,936, from the L2 cache where the product before left it. One block a row reads some
 * 60 GB/s, so 10 microseconds a time, beside those of other rows; a search for the cut among the
 * candidates takes 16 rounds of two barriers, some 5 microseconds. */
#include <assert.h>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/operations.h"

enum {
    THREADS_MAX = 1024,
    WARPS_MAX = THREADS_MAX / WARP,
    AHEAD = 8, /* logits that a thread reads before it needs the first */
    STEP = AHEAD * WARP,
    WEIGHT_BITS = 62, /* of the sum of all weights */
    NO_ID = -1,
};

/* For the whole block. */
struct board {
    uint64_t part[3][WARPS_MAX];   /* of sums */
    uint64_t above[WARPS_MAX];     /* weight of a warp's ids that are kept for sure */
    uint64_t equals[WARPS_MAX];    /* how many ids of a warp have the key of the cut */
    int32_t greatest[THREADS_MAX]; /* each thread's id */
};

/* One row, as a warp sees it: an order of logits as unsigned numbers, `key`, in which 0 is none
 * (NaN); ids first..first+count-1, or those of a list. */
template <typename T> struct row_view {
    const T *logits;
    const int32_t *list; /* in the order of the ids; NULL: all */
    int64_t first;
    int count;
    float top; /* the greatest logit */
    float inverse_temperature;
    float one; /* weight of the greatest logit */
};

/* What is kept: keys greater than `key`, and of its equals the first `equals` by id. */
struct cut {
    uint32_t key;
    uint64_t equals;
};

/* ---- numbers ---- */

static __device__ uint32_t key_of(float logit)
{
    const uint32_t bits = __float_as_uint(logit + 0.0F); /* -0 becomes 0: they are equal */
    const uint32_t key = (bits & 0x80000000U) != 0U ? ~bits : bits | 0x80000000U;
    return isnan(logit) ? 0U : key;
}

static __device__ float logit_of(uint32_t key)
{
    return __uint_as_float((key & 0x80000000U) != 0U ? key & 0x7FFFFFFFU : ~key);
}

/* No weight at all where there is no number: for NaN, and if the greatest logit is infinite. */
template <typename T>
static __device__ uint64_t weight_of(const struct row_view<T> *view, uint32_t key)
{
    const float weight = expf((logit_of(key) - view->top) * view->inverse_temperature);
    return key != 0U && weight > 0.0F ? (uint64_t)(weight * view->one) : 0U;
}

static __device__ int block_warps()
{
    return (int)blockDim.x / WARP;
}

static __device__ uint64_t warp_sum_whole(uint64_t value)
{
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(0xFFFFFFFFU, value, distance);
    }
    return value;
}

/* All threads get the sums over the block. */
static __device__ void block_sum_whole(uint64_t (&value)[3], struct board *board)
{
    const int lane = (int)threadIdx.x % WARP;
    const int warp = (int)threadIdx.x / WARP;
#pragma unroll
    for (int i = 0; i < 3; i++) {
        const uint64_t sum = warp_sum_whole(value[i]);
        if (lane == 0) {
            board->part[i][warp] = sum;
        }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 3; i++) {
        value[i] = warp_sum_whole(lane < block_warps() ? board->part[i][lane] : 0U);
    }
    __syncthreads(); /* part may be used again */
}

/* ---- reading a row ---- */

/* Keys of the next AHEAD * 32 ids from `at` on, one in 32 a lane; 0 from `end` on. */
template <typename T>
static __device__ void read_keys(uint32_t (&keys)[AHEAD], const T *logits, int64_t at, int64_t end)
{
    const int64_t first = at + threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
        const int64_t id = first + i * WARP;
        keys[i] = id < end ? key_of(number_load(logits + id)) : 0U;
    }
}

/* The greatest logit's key in the upper half; in the lower ~id, so that the lowest id is the
 * greatest of equals. Each thread's own id is left on the board. */
template <typename T>
static __device__ uint64_t find_greatest(const struct row_view<T> *view, struct board *board)
{
    const int lane = (int)threadIdx.x % WARP;
    uint32_t best = 0U;
    int32_t best_id = NO_ID;
    for (int64_t at = 0; at < view->count; at += STEP) {
        uint32_t keys[AHEAD];
        read_keys(keys, view->logits + view->first, at, view->count);
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            if (keys[i] > best) {
                best = keys[i];
                best_id = (int32_t)(view->first + at + i * WARP + lane);
            }
        }
    }
    board->greatest[threadIdx.x] = best_id;
    uint64_t mine = best != 0U ? (uint64_t)best << 32 | (uint32_t)~best_id : 0xFFFFFFFFU;
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        const uint64_t other = __shfl_xor_sync(0xFFFFFFFFU, mine, distance);
        mine = max(mine, other);
    }
    if (lane == 0) {
        board->part[0][threadIdx.x / WARP] = mine;
    }
    __syncthreads();
    for (int warp = 0; warp < block_warps(); warp++) {
        mine = max(mine, board->part[0][warp]);
    }
    __syncthreads(); /* part may be used again */
    return mine;
}

/* The warp's ids with a key of at least `floor` and a weight of at least `least` into its part of
 * `room`, in order. */
template <typename T>
static __device__ struct row_view<T> collect(const struct row_view<T> *view, int32_t *room,
                                             uint32_t floor, uint64_t least) {
    const int lane = (int)threadIdx.x % WARP;
    int32_t *list = room + view->first;
    int count = 0;
    for (int64_t at = 0; at < view->count; at += STEP) {
        uint32_t keys[AHEAD];
        read_keys(keys, view->logits + view->first, at, view->count);
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const bool taken =
                keys[i] >= floor && (least == 0U || weight_of(view, keys[i]) >= least);
            const unsigned all = __ballot_sync(0xFFFFFFFFU, taken);
            if (taken) {
                list[count + __popc(all & ((1U << lane) - 1U))] =
                    (int32_t)(view->first + at + i * WARP + lane);
            }
            count += __popc(all);
        }
    }
    __syncwarp();
    struct row_view<T> candidates = *view;
    candidates.list = list;
    candidates.count = count;
    return candidates;
}

/* ---- what is kept ---- */

/* The id and key of the view's entry i; none beyond its end. */
template <typename T>
static __device__ uint32_t entry_at(const struct row_view<T> *view, int64_t i, int32_t *id)
{
    *id = NO_ID;
    if (i < view->count) {
        *id = view->list != NULL ? view->list[i] : (int32_t)(view->first + i);
    }
    return *id != NO_ID ? key_of(number_load(view->logits + *id)) : 0U;
}

/* What lies on the `wanted` greatest, by number or by weight: the cut is the greatest key that it
 * and those over it reach `wanted` with; two bits of it a round. Keeps everything if all together
 * do not reach it. */
template <bool BY_WEIGHT, typename T>
static __device__ struct cut find_cut(const struct row_view<T> *view, uint64_t wanted,
                                      struct board *board)
{
    const int lane = (int)threadIdx.x % WARP;
    struct cut cut = {0U, 0U};
    for (int bit = 30; bit >= 0; bit -= 2) {
        uint64_t over[3] = {0U, 0U, 0U};
        for (int64_t i = lane; i < view->count; i += WARP) {
            int32_t id;
            const uint32_t key = entry_at(view, i, &id);
            const uint64_t measure = BY_WEIGHT ? weight_of(view, key) : (key != 0U ? 1U : 0U);
#pragma unroll
            for (uint32_t digit = 1; digit <= 3; digit++) {
                over[digit - 1] += key >= (cut.key | digit << bit) ? measure : 0U;
            }
        }
        block_sum_whole(over, board);
        const uint32_t digit = over[2] >= wanted ? 3U : over[1] >= wanted ? 2U : 1U;
        cut.key |= over[0] >= wanted ? digit << bit : 0U;
    }
    uint64_t over[3] = {0U, 0U, 0U};
    for (int64_t i = lane; i < view->count; i += WARP) {
        int32_t id;
        const uint32_t key = entry_at(view, i, &id);
        over[0] += key <= cut.key ? 0U : BY_WEIGHT ? weight_of(view, key) : 1U;
    }
    block_sum_whole(over, board);
    if (cut.key != 0U) {
        const uint64_t each = BY_WEIGHT ? weight_of(view, cut.key) : 1U;
        cut.equals = (wanted - over[0] + each - 1U) / each;
    }
    return cut;
}

/* Weight of what each warp keeps onto the board; returns that of all. */
template <typename T>
static __device__ uint64_t weigh(const struct row_view<T> *view, struct cut cut,
                                 struct board *board)
{
    const int lane = (int)threadIdx.x % WARP;
    const int warp = (int)threadIdx.x / WARP;
    uint64_t above = 0U;
    uint64_t equals = 0U;
    for (int64_t at = 0; at < view->count; at += STEP) {
        uint32_t keys[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            int32_t id;
            keys[i] = entry_at(view, at + i * WARP + lane, &id);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            above += keys[i] > cut.key ? weight_of(view, keys[i]) : 0U;
            equals += keys[i] == cut.key && keys[i] != 0U ? 1U : 0U;
        }
    }
    above = warp_sum_whole(above);
    equals = warp_sum_whole(equals);
    if (lane == 0) {
        board->above[warp] = above;
        board->equals[warp] = equals;
    }
    __syncthreads();
    uint64_t total = 0U;
    equals = 0U;
    for (int w = 0; w < block_warps(); w++) {
        total += board->above[w];
        equals += board->equals[w];
    }
    return total + min(equals, cut.equals) * weight_of(view, cut.key);
}

/* A logit that at least top_k logits reach: the top_k-th of the threads' greatest. */
template <typename T>
static __device__ uint32_t find_floor(const struct row_view<T> *view, int32_t top_k,
                                      struct board *board)
{
    if (top_k > (int32_t)blockDim.x) {
        return 1U; /* too few greatest: all logits are candidates */
    }
    struct row_view<T> greatest = *view;
    greatest.list = board->greatest + (int)threadIdx.x / WARP * WARP;
    greatest.count = WARP;
    return max(find_cut<false>(&greatest, (uint64_t)top_k, board).key, 1U);
}

/* Narrows the view to candidates and finds the cut among them. */
template <typename T>
static __device__ struct cut keep_likeliest(struct row_view<T> *view,
                                            const struct sampling *sampling, int64_t vocabulary,
                                            int32_t *room, struct board *board)
{
    const double top_p = sampling->top_p > 0.0F ? (double)sampling->top_p : 0.0;
    const bool few = sampling->top_k > 0 && sampling->top_k < vocabulary;
    const bool nucleus = sampling->top_p < 1.0F;
    struct cut cut = {0U, 0U};
    uint64_t total = 0U;
    if (few) {
        *view = collect(view, room, find_floor(view, sampling->top_k, board), 0U);
        cut = find_cut<false>(view, (uint64_t)sampling->top_k, board);
    }
    if (nucleus) {
        total = weigh(view, cut, board);
    }
    if (nucleus && !few) {
        /* What weighs less than the mean of the part to drop is in that part. */
        const double dropped = 0.999 * (1.0 - top_p) * (double)total;
        *view = collect(view, room, 1U, (uint64_t)(dropped / (double)vocabulary));
    }
    if (nucleus) {
        const double wanted = ceil(top_p * (double)total);
        cut = find_cut<true>(view, max((uint64_t)wanted, (uint64_t)1), board);
    }
    return cut;
}

/* ---- drawing ---- */

/* The warp's id at which the sum of the kept weights, `before` at its beginning, exceeds `wanted`.
 * Of the equals of the cut it keeps the first `equals`. */
template <typename T>
static __device__ int32_t walk(const struct row_view<T> *view, struct cut cut, uint64_t equals,
                               uint64_t before, uint64_t wanted)
{
    const int lane = (int)threadIdx.x % WARP;
    for (int64_t at = 0; at < view->count; at += WARP) {
        int32_t id;
        const uint32_t key = entry_at(view, at + lane, &id);
        const bool equal = key == cut.key && key != 0U;
        const unsigned all_equal = __ballot_sync(0xFFFFFFFFU, equal);
        const bool among_first = __popc(all_equal & ((1U << lane) - 1U)) < (int64_t)equals;
        uint64_t sum = key > cut.key || (equal && among_first) ? weight_of(view, key) : 0U;
        equals -= min(equals, (uint64_t)__popc(all_equal));
#pragma unroll
        for (int distance = 1; distance < WARP; distance *= 2) {
            const uint64_t other = __shfl_up_sync(0xFFFFFFFFU, sum, distance);
            sum += lane >= distance ? other : 0U;
        }
        const unsigned reached = __ballot_sync(0xFFFFFFFFU, before + sum > wanted);
        if (reached != 0U) {
            return __shfl_sync(0xFFFFFFFFU, id, __ffs((int)reached) - 1);
        }
        before += __shfl_sync(0xFFFFFFFFU, sum, WARP - 1);
    }
    return NO_ID; /* not where weigh found weight enough */
}

/* Finds the warp that `uniform` falls to, which finds the id. */
template <typename T>
static __device__ void draw(int32_t *token, const struct row_view<T> *view, struct cut cut,
                            float uniform, struct board *board)
{
    const uint64_t total = weigh(view, cut, board);
    const double product = (double)fmaxf(uniform, 0.0F) * (double)total;
    const uint64_t wanted = min((uint64_t)product, total - 1U);
    const uint64_t each = weight_of(view, cut.key);
    const int warp = (int)threadIdx.x / WARP;
    uint64_t before = 0U;
    uint64_t equals = cut.equals; /* that are left */
    for (int w = 0; w < warp; w++) {
        const uint64_t kept = min(board->equals[w], equals);
        before += board->above[w] + kept * each;
        equals -= kept;
    }
    const uint64_t mine = board->above[warp] + min(board->equals[warp], equals) * each;
    if (wanted >= before && wanted < before + mine) { /* one warp alone */
        const int32_t id = walk(view, cut, equals, before, wanted);
        if (threadIdx.x % WARP == 0) {
            *token = id;
        }
    }
}

template <typename T>
static __global__ void __launch_bounds__(THREADS_MAX)
    sample_kernel(int32_t *token, const struct tensor logits, const struct sampling sampling,
                  const float *uniform, int32_t *room, int64_t segment, float one)
{
    __shared__ struct board board;
    const int64_t first = (int64_t)(threadIdx.x / WARP) * segment;
    const int64_t left = max(logits.cols - first, (int64_t)0);
    struct row_view<T> view = {
    };
    view.logits = static_cast<const T *>(logits.data) + blockIdx.x * logits.stride;
    view.first = first;
    view.count = (int)min(left, segment);
    const uint64_t greatest = find_greatest(&view, &board);
    const bool greedy = sampling.temperature <= 0.0F;
    view.top = logit_of((uint32_t)(greatest >> 32));
    view.inverse_temperature = greedy ? 0.0F : 1.0F / sampling.temperature;
    view.one = one;
    if (greedy || weight_of(&view, (uint32_t)(greatest >> 32)) == 0U) {
        if (threadIdx.x == 0) {
            token[blockIdx.x] = (int32_t) ~(uint32_t)greatest;
        }
        return;
    }
    int32_t *mine = room != NULL ? room + blockIdx.x * (block_warps() * segment) : NULL;
    const struct cut cut = keep_likeliest(&view, &sampling, logits.cols, mine, &board);
    draw(token + blockIdx.x, &view, cut, uniform[blockIdx.x], &board);
}

/* ---- launching ---- */

/* So that the weights of all ids fit in WEIGHT_BITS bits together. */
static float weight_of_greatest(int64_t vocabulary)
{
    int bits = WEIGHT_BITS;
    while (bits > 0 && vocabulary > (int64_t)1 << (WEIGHT_BITS - bits)) {
        bits--;
    }
    return (float)((int64_t)1 << bits);
}

void cuda_sample(struct device *device, int32_t *token, struct tensor logits,
                 const struct sampling *sampling, const float *uniform)
{
    assert(logits.cols > 0 && logits.cols <= INT32_MAX && logits.dtype != DTYPE_I32);
    assert(logits.rows <= 0x7FFFFFFF);
    if (cuda_failed(device) || logits.rows == 0) {
        return;
    }
    const int64_t busy = min(logits.cols / AHEAD / WARP + 1, (int64_t)WARPS_MAX);   /* warps */
    const int64_t segment = (logits.cols + busy * WARP - 1) / (busy * WARP) * WARP; /* their ids */
    const bool chosen = sampling->top_k > 0 || sampling->top_p < 1.0F;
    int32_t *room = NULL;
    if (sampling->temperature > 0.0F && chosen) {
        room = static_cast<int32_t *>(
            cuda_scratch(device, logits.rows * busy, (size_t)segment * sizeof(*room), "sample"));
        if (room == NULL) {
            return;
        }
    }
    const float one = weight_of_greatest(logits.cols);
    cuda_launch(device, "sample",
                logits.dtype == DTYPE_F32 ? sample_kernel<float> : sample_kernel<bf16>,
                dim3((unsigned)logits.rows), (unsigned)busy * WARP, 0, token, logits, *sampling,
                uniform, room, segment, one);
}
