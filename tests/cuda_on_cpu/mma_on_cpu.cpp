#include "mma_on_cpu.h"

#include "on_cpu/numbers.h"
#include "shared.h"

enum { LANES = 32 };

static float bf16_at(const uint64_t *words, int index)
{
    return __uint_as_float((unsigned)(words[index / 4] >> (16 * (index % 4)) & 0xFFFFU) << 16);
}

/* in: a[0..3], b[0..1]; out: the products' sums for d[0..3]. */
static void combine_mma(on_cpu_lane *lanes, unsigned mask)
{
    float a[16][16];
    float b[8][16]; /* by column */
    (void)mask;
    for (int lane = 0; lane < LANES; lane++) {
        const uint64_t *in = lanes[lane].in;
        const int g = lane / 4;
        const int t = lane % 4;
        for (int half = 0; half < 2; half++) {
            a[g][2 * t + half] = bf16_at(in, half);
            a[g + 8][2 * t + half] = bf16_at(in, 2 + half);
            a[g][2 * t + 8 + half] = bf16_at(in, 4 + half);
            a[g + 8][2 * t + 8 + half] = bf16_at(in, 6 + half);
            b[g][2 * t + half] = bf16_at(in, 8 + half);
            b[g][2 * t + 8 + half] = bf16_at(in, 10 + half);
        }
    }
    for (int lane = 0; lane < LANES; lane++) {
        float sums[4] = {};
        for (int i = 0; i < 4; i++) {
            const float *row = a[lane / 4 + 8 * (i / 2)];
            const float *column = b[2 * (lane % 4) + i % 2];
            for (int k = 0; k < 16; k++) {
                sums[i] += row[k] * column[k];
            }
        }
        memcpy(lanes[lane].out, sums, sizeof(sums));
    }
}

static void check_full_warp(on_cpu_site site)
{
    if (blockDim.x * blockDim.y * blockDim.z % LANES != 0) {
        on_cpu_fault("takes all 32 lanes, but the last warp of the block has fewer", site);
    }
}

void on_cpu_mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, on_cpu_site site)
{
    check_full_warp(site);
    const uint64_t in[4] = {a[0] | (uint64_t)a[1] << 32, a[2] | (uint64_t)a[3] << 32,
                            b0 | (uint64_t)b1 << 32, 0};
    const uint64_t *out = on_cpu_meet_warp(0xFFFFFFFFU, in, combine_mma, site);
    float sums[4];
    memcpy(sums, out, sizeof(sums));
    for (int i = 0; i < 4; i++) {
        d[i] += sums[i];
    }
}

/* in: the address of a row, whether transposed; out: r[0..3]. */
static void combine_ldmatrix(on_cpu_lane *lanes, unsigned mask)
{
    uint16_t matrix[4][8][8];
    (void)mask;
    const bool transposed = lanes[0].in[1] != 0;
    for (int lane = 0; lane < LANES; lane++) {
        memcpy(matrix[lane / 8][lane % 8], (const void *)lanes[lane].in[0], 16);
    }
    for (int lane = 0; lane < LANES; lane++) {
        uint32_t r[4];
        for (int i = 0; i < 4; i++) {
            const int row = lane / 4;
            const int column = 2 * (lane % 4);
            const uint32_t low = transposed ? matrix[i][column][row] : matrix[i][row][column];
            const uint32_t high =
                transposed ? matrix[i][column + 1][row] : matrix[i][row][column + 1];
            r[i] = low | high << 16;
        }
        memcpy(lanes[lane].out, r, sizeof(r));
    }
}

void on_cpu_ldmatrix(uint32_t (&r)[4], const void *row, bool transposed, on_cpu_site site)
{
    check_full_warp(site);
    if ((uintptr_t)row % 16 != 0) {
        on_cpu_fault("the address of a row is not a multiple of 16", site);
    }
    if (!shared_contains(row, 16)) {
        on_cpu_fault("the row is not in shared memory", site);
    }
    const uint64_t *out = on_cpu_meet_warp(0xFFFFFFFFU, {(uint64_t)(uintptr_t)row, transposed, 0, 0},
                                           combine_ldmatrix, site);
    memcpy(r, out, sizeof(r));
}
