/* 16-bit floats on the host. */
#ifndef MODEL_NUMBER_H
#define MODEL_NUMBER_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float number_from_bf16(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof(result));
    return result;
}

/* Rounds to nearest, ties to even; a NaN stays one. */
static inline uint16_t number_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) {
        return (uint16_t)(bits >> 16 | 0x40u);
    }
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

/* IEEE binary16: exact in f32. */
static inline float number_from_f16(uint16_t value)
{
    int exponent = value >> 10 & 0x1F;
    int mantissa = value & 0x3FF;
    float magnitude;
    if (exponent == 0x1F) {
        magnitude = mantissa != 0 ? NAN : INFINITY;
    } else if (exponent == 0) {
        magnitude = ldexpf((float)mantissa, -24);
    } else {
        magnitude = ldexpf((float)(mantissa + 1024), exponent - 25);
    }
    return (value & 0x8000) != 0 ? -magnitude : magnitude;
}

#endif
