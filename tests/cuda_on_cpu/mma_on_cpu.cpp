#include "mma_on_cpu.h"

#include "on_cpu/numbers.h"
#include "shared.h"

enum { LANES = 32 };

/* The two bf16 of a word, as f32. */
static void unpack(float *low, float *high, uint64_t words, int which)
{
    const uint32_t pair = (uint32_t)(words >> (32 * which));
    *low = __uint_as_float(pair << 16);
    *high = __uint_as_float(pair & 0xFFFF0000U);
}

/* in: a[0..3], b[0..1]; out: the products' sums for d[0..3]. */
static void combine_mma(on_cpu_lane *lanes, unsigned mask)
{
    float a[16][16];
    float b[8][16]; /* by column */
    float rows[16][8];
    float d[16][8] = {};
    (void)mask;
    for (int lane = 0; lane < LANES; lane++) {
        const uint64_t *in = lanes[lane].in;
        const int g = lane / 4;
        const int k = 2 * (lane % 4);
        unpack(&a[g][k], &a[g][k + 1], in[0], 0);
        unpack(&a[g + 8][k], &a[g + 8][k + 1], in[0], 1);
        unpack(&a[g][k + 8], &a[g][k + 9], in[1], 0);
        unpack(&a[g + 8][k + 8], &a[g + 8][k + 9], in[1], 1);
        unpack(&b[g][k], &b[g][k + 1], in[2], 0);
        unpack(&b[g][k + 8], &b[g][k + 9], in[2], 1);
    }
    for (int k = 0; k < 16; k++) {
        for (int n = 0; n < 8; n++) {
            rows[k][n] = b[n][k];
        }
    }
    for (int m = 0; m < 16; m++) {
        for (int k = 0; k < 16; k++) {
            const float factor = a[m][k];
            for (int n = 0; n < 8; n++) {
                d[m][n] += factor * rows[k][n];
            }
        }
    }
    for (int lane = 0; lane < LANES; lane++) {
        memcpy(&lanes[lane].out[0], &d[lane / 4][2 * (lane % 4)], 2 * sizeof(float));
        memcpy(&lanes[lane].out[1], &d[lane / 4 + 8][2 * (lane % 4)], 2 * sizeof(float));
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
    const uint64_t *out = on_cpu_meet_warp(
        0xFFFFFFFFU, {(uint64_t)(uintptr_t)row, transposed, 0, 0}, combine_ldmatrix, site);
    memcpy(r, out, sizeof(r));
}
