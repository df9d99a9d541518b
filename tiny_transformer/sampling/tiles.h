/* Up to four items times one block of a matrix, four vectors or one wide: which of the compiled tiles does it. For `whole_step.c` and
   `eight_bits.h`. */

#pragma once

#include "vectors.h"

/* `name` (x, weights, in, y, R, width) from the inlined `tile` (…, R, C); an item of x takes `row` numbers. */
#define TILES(name, tile, X, W, row) \
    APART void name##_one_wide(const X *x, const W *w, int64_t in, float *y) { tile(x, w, in, y, 1, 4); } \
    APART void name##_two_wide(const X *x, const W *w, int64_t in, float *y) { tile(x, w, in, y, 2, 4); } \
    APART void name##_three_wide(const X *x, const W *w, int64_t in, float *y) { tile(x, w, in, y, 3, 4); } \
    APART void name##_four_wide(const X *x, const W *w, int64_t in, float *y) { tile(x, w, in, y, 4, 4); } \
    APART void name##_one_narrow(const X *x, const W *w, int64_t in, float *y) { tile(x, w, in, y, 1, 1); } \
    APART void name##_four_narrow(const X *x, const W *w, int64_t in, float *y) { tile(x, w, in, y, 4, 1); } \
    static void name(const X *x, const W *w, int64_t in, float *y, int R, int64_t width) { \
        if (width == LANES) { \
            if (R == 4) name##_four_narrow(x, w, in, y); \
            else \
                for (int r = 0; r < R; r++) name##_one_narrow(x + r * (row), w, in, y + r * LANES); \
        } else if (R == 4) name##_four_wide(x, w, in, y); \
        else if (R == 3) name##_three_wide(x, w, in, y); \
        else if (R == 2) name##_two_wide(x, w, in, y); \
        else name##_one_wide(x, w, in, y); \
    }
