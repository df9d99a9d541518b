/* Numbers side by side, and the functions of one number that the C of this package shares: vectors as wide as the processor's, e^x and
   what follows from it. Included by `sampling/whole_step.c` and `block_by_hand.c`. */

#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float half __attribute__((vector_size(32)));
typedef float quarter __attribute__((vector_size(16)));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define INLINE static inline __attribute__((always_inline))
#define APART static __attribute__((noinline)) /* compiled once, not once per place that calls it */

enum { NO_NORM, LAYER_NORM, RMS_NORM };
enum { RELU, GELU, GELU_TANH, RELU2, SWIGLU };

INLINE vec load(const float *p) { return *(const vec *)p; }

INLINE float total(vec v) {
#if LANES == 16
    half h = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
#elif LANES == 8
    half h = v;
#endif
#if LANES >= 8
    quarter q = __builtin_shufflevector(h, h, 0, 1, 2, 3) + __builtin_shufflevector(h, h, 4, 5, 6, 7);
#else
    quarter q = v;
#endif
    return (q[0] + q[2]) + (q[1] + q[3]);
}

/* e^x: 2^n · e^r with |r| ≤ ln 2 / 2, the second factor by its series. NaN stays NaN: both comparisons are false for it. */
INLINE float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float shifted = x * 1.44269504f + 12582912.0f; /* 1.5 · 2^23: the sum has no room for fractions */
    float n = shifted - 12582912.0f;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f; /* ln 2 in two parts */
    float series = 1.9875691500e-4f;
    series = series * r + 1.3981999507e-3f;
    series = series * r + 8.3334519073e-3f;
    series = series * r + 4.1665795894e-2f;
    series = series * r + 1.6666665459e-1f;
    series = series * r + 5.0000001201e-1f;
    series = series * r * r + r + 1.0f;
    int32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (int32_t)(((uint32_t)bits + 127u) << 23); /* the last digits of `shifted` are n */
    float power;
    memcpy(&power, &bits, 4);
    return series * power;
}

INLINE float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

/* The error function (Abramowitz and Stegun 1964, 7.1.26): off by 1.5e-7 at most. */
INLINE float error_function(float x) {
    float size = x < 0 ? -x : x, t = 1.0f / (1.0f + 0.3275911f * size);
    float series = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
    float y = 1.0f - series * exponential(-size * size);
    return x < 0 ? -y : y;
}
