/* Products of weights in eight bits. x too becomes whole numbers, of sixteen bits with one scale: then two products and their sum are one
   instruction for every lane, where widening weights to floats takes two for each product. A number of x is off by no more than 1/65534 of
   the largest, where a weight may be off by 1/254 of the largest of its row; and sums are exact, whatever their order.
   Included by `whole_step.c`. */

#include "tiles.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

typedef int8_t bytes __attribute__((vector_size(2 * LANES), aligned(1), may_alias));
typedef int16_t shorts __attribute__((vector_size(4 * LANES), aligned(2), may_alias));

enum {
    LEVELS = 32767,
    EXACT = 512, /* so many products, each of 32767 · 127 at most, have a sum of 31 bits */
    PAIR = 2,
    SOON = 4096, /* bytes */
};

INLINE int64_t even(int64_t n) { return n + n % 2; }

/* x (in) as scale · whole (even(in)); returns the scale, NaN where a number of x is not finite. */
APART float quantize(const float *x, int64_t in, int16_t *restrict whole) {
    const int32_t infinite = 0x7f800000;
    int32_t most = 0;
    for (int64_t k = 0; k < in; k++) {
        int32_t bits;
        memcpy(&bits, x + k, 4);
        bits &= 0x7fffffff; /* sizes of floats are in the order of their bits, and NaN above them */
        most = bits > most ? bits : most;
    }
    float largest;
    memcpy(&largest, &most, 4);
    whole[even(in) - 1] = 0;
    if (most >= infinite || largest < 1e-30f) {
        memset(whole, 0, (size_t)in * sizeof *whole);
        return most >= infinite ? NAN : 0;
    }
    float steps = LEVELS / largest;
    for (int64_t k = 0; k < in; k++) {
        float shifted = x[k] * steps + 12582912.0f; /* 1.5 · 2^23: its last bits are the whole number */
        int32_t bits;
        memcpy(&bits, &shifted, 4);
        whole[k] = (int16_t)bits;
    }
    return largest / LEVELS;
}

INLINE shorts widened(const int8_t *p) {
#if defined(__AVX512BW__)
    return (shorts)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
#elif defined(__AVX2__) && LANES == 8
    return (shorts)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
#else
    return __builtin_convertvector(*(const bytes *)p, shorts);
#endif
}

/* sum + for each lane the products of two numbers of x with its two weights, which lie side by side. */
INLINE ints add_pair(ints sum, const int16_t *x, shorts weights) {
    int32_t two;
    memcpy(&two, x, 4);
#if defined(__AVX512VNNI__)
    return (ints)_mm512_dpwssd_epi32((__m512i)sum, _mm512_set1_epi32(two), (__m512i)weights);
#elif defined(__AVX512BW__)
    return sum + (ints)_mm512_madd_epi16(_mm512_set1_epi32(two), (__m512i)weights);
#elif defined(__AVX2__) && LANES == 8
    return sum + (ints)_mm256_madd_epi16(_mm256_set1_epi32(two), (__m256i)weights);
#else
    for (int lane = 0; lane < LANES; lane++) sum[lane] += (int32_t)x[0] * weights[2 * lane] + (int32_t)x[1] * weights[2 * lane + 1];
    return sum;
#endif
}

/* y (R, C · LANES) = R items, x (R, even(in)), times one block of weights, pair by pair; without any scale. */
INLINE void whole_tile(const int16_t *x, const int8_t *values, int64_t in, float *y, const int R, const int C) {
    for (int64_t from = 0; from < in; from += EXACT) {
        int64_t end = from + EXACT < in ? from + EXACT : in;
        ints sum[4][4];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int c = 0; c < C; c++) sum[r][c] = (ints){0};
        for (int64_t k = from; k < end; k += PAIR) {
            const int8_t *row = values + k * C * LANES;
#pragma GCC unroll 4
            for (int c = 0; c < C; c++) {
                if (C == 4 && c % 2 == 0) __builtin_prefetch(row + c * PAIR * LANES + SOON);
                shorts weights = widened(row + c * PAIR * LANES);
#pragma GCC unroll 4
                for (int r = 0; r < R; r++) sum[r][c] = add_pair(sum[r][c], x + r * even(in) + k, weights);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int c = 0; c < C; c++) {
                vec *to = (vec *)(y + (r * C + c) * LANES), before = {0};
                if (from) before = *to;
                *to = before + __builtin_convertvector(sum[r][c], vec);
            }
    }
}

/* R ≤ 4 items times one block. */
TILES(whole_tiles, whole_tile, int16_t, int8_t, even(in))
