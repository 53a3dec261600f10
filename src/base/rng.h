/* Counter-based random numbers: Philox 4x32-10. Source: Salmon et al., "Parallel random numbers: as
 * easy as 1, 2, 3", SC 2011. The state is three integers, so a stream can be saved, restored and
 * split without hidden history. */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdint.h>

struct rng {
    uint64_t seed;    /* key */
    uint64_t stream;  /* streams of one seed are independent */
    uint64_t counter; /* 32-bit numbers drawn so far */
};

void rng_init(struct rng *rng, uint64_t seed, uint64_t stream);

/* Four numbers of one counter block, without state: for arrays filled in parallel. */
void rng_block(uint64_t seed, uint64_t stream, uint64_t block, uint32_t out[4]);

uint32_t rng_u32(struct rng *rng);
uint64_t rng_u64(struct rng *rng);
uint64_t rng_below(struct rng *rng,
                   uint64_t bound);  /* uniform in 0..bound-1 without bias; 0 if bound is 0 */
double rng_uniform(struct rng *rng); /* in [0, 1) */
double rng_normal(struct rng *rng);  /* mean 0, variance 1; draws four numbers */

/* Fisher-Yates over `count` indices in place. */
void rng_shuffle(struct rng *rng, int64_t *items, int64_t count);

#endif
