/* Matrix products of float32 for one thread, as `block_by_hand.c` needs them: C = A B + keep · C, where B lies row by row, and A in any
   way that two steps can say, so A may be a transpose. Included there.

   A tile of C, some rows times two vectors, stays in registers while k goes from end to end; each step is two reads of B and, for every
   row, one number of A and two multiply-adds (Goto & van de Geijn 2008). B lies by rows, or, where it is read often, in panels
   of two vectors, one behind the other. */

#include "vectors.h"

#if LANES == 16
#define ROWS 14 /* 28 of 32 registers are sums */
#else
#define ROWS 6 /* 12 of 16 */
#endif
enum { DEPTH = 256 }; /* numbers of k done together: 32 kB of B, read again from the cache for every tile */

/* Where A lies: number (r, k) at r · row + k · step. */
typedef struct {
    const float *at;
    int64_t row, step;
} Left;

/* Where B lies: number (k, j) at k · row + j within a panel of PANEL columns, and `panel` from one of them to the next. */
typedef struct {
    const float *at;
    int64_t row, panel;
} Right;
enum { PANEL = 2 * LANES };

INLINE Right by_rows(const float *at, int64_t row) { return (Right){at, row, PANEL}; }
INLINE Right in_panels(const float *at, int64_t rows) { return (Right){at, PANEL, rows * PANEL}; }

/* R rows times V vectors of C. */
INLINE void tile(Left a, const float *b, int64_t b_row, int64_t depth, const float *bias, float keep, float *c, int64_t c_row, const int R,
                 const int V) {
    vec sum[ROWS][2];
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) {
        vec start = {0};
        if (bias) start = load(bias + v * LANES);
#pragma GCC unroll 14
        for (int r = 0; r < R; r++) sum[r][v] = start;
    }
#pragma GCC unroll 14
    for (int r = 0; r < R; r++) /* asked for now, C is there when the sums are */
#pragma GCC unroll 2
        for (int v = 0; v < V; v++) __builtin_prefetch(c + r * c_row + v * LANES, 1);
    for (int64_t k = 0; k < depth; k++) {
        vec right[2];
        __builtin_prefetch(a.at + (k + 16) * a.step); /* likewise those of a transpose */
#pragma GCC unroll 2
        for (int v = 0; v < V; v++) {
            __builtin_prefetch(b + (k + 8) * b_row + v * LANES); /* the rows of a wide B are too far apart for the processor to foresee */
            right[v] = load(b + k * b_row + v * LANES);
        }
#pragma GCC unroll 14
        for (int r = 0; r < R; r++) {
            float left = a.at[r * a.row + k * a.step];
#pragma GCC unroll 2
            for (int v = 0; v < V; v++) sum[r][v] += left * right[v];
        }
    }
#pragma GCC unroll 14
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int v = 0; v < V; v++) {
            vec *to = (vec *)(c + r * c_row + v * LANES);
            if (keep != 0) sum[r][v] += keep * *to;
            *to = sum[r][v];
        }
}

#define TILE(R) \
    APART void tile_##R(Left a, const float *b, int64_t b_row, int64_t depth, const float *bias, float keep, float *c, int64_t c_row, \
                        int vectors) { \
        if (vectors == 2) tile(a, b, b_row, depth, bias, keep, c, c_row, R, 2); \
        else tile(a, b, b_row, depth, bias, keep, c, c_row, R, 1); \
    }
typedef void (*Tile)(Left, const float *, int64_t, int64_t, const float *, float, float *, int64_t, int);
TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6)
#if ROWS == 14
TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12) TILE(13) TILE(14)
static const Tile TILES[] = {0,      tile_1, tile_2, tile_3,  tile_4,  tile_5,  tile_6, tile_7,
                             tile_8, tile_9, tile_10, tile_11, tile_12, tile_13, tile_14};
#else
static const Tile TILES[] = {0, tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
#endif

/* All rows of one column of tiles, shared out evenly: 128 rows are ten tiles of 12 or 13, not nine of 14 and one of 2. */
static void column(int64_t m, Left a, const float *b, int64_t b_row, int64_t depth, const float *bias, float keep, float *c, int64_t c_row,
                   int vectors) {
    int64_t tiles = (m + ROWS - 1) / ROWS;
    for (int64_t i = 0; i < tiles; i++) {
        int64_t first = m * i / tiles, rows = m * (i + 1) / tiles - first;
        TILES[rows]((Left){a.at + first * a.row, a.row, a.step}, b, b_row, depth, bias, keep, c + first * c_row, c_row, vectors);
    }
}

/* The last columns, fewer than a vector has: B's are filled up with zeros, C's taken from what comes out. */
APART void last_columns(int64_t m, int64_t n, int64_t depth, Left a, const float *b, int64_t b_row, const float *bias, float keep, float *c,
                        int64_t c_row) {
    float filled[DEPTH * LANES], out[ROWS * LANES];
    for (int64_t k = 0; k < depth; k++)
        for (int64_t j = 0; j < LANES; j++) filled[k * LANES + j] = j < n ? b[k * b_row + j] : 0;
    for (int64_t i = 0; i < m; i += ROWS) {
        int64_t rows = m - i < ROWS ? m - i : ROWS;
        TILES[rows]((Left){a.at + i * a.row, a.row, a.step}, filled, LANES, depth, 0, 0, out, LANES, 1);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < n; j++) {
                float *to = c + (i + r) * c_row + j;
                *to = out[r * LANES + j] + (bias ? bias[j] : 0) + (keep == 0 ? 0 : keep * *to);
            }
    }
}

/* c (m, n) = a (m, depth) b (depth, n) + bias (n, may be NULL) + keep · c; depth is at least 1. */
static void multiply(int64_t m, int64_t n, int64_t depth, Left a, Right b, const float *bias, float keep, float *c, int64_t c_row) {
    for (int64_t k = 0; k < depth; k += DEPTH, keep = 1, bias = 0) {
        int64_t here = depth - k < DEPTH ? depth - k : DEPTH;
        Left left = {a.at + k * a.step, a.row, a.step};
        for (int64_t j = 0; j < n; j += PANEL) {
            const float *right = b.at + k * b.row + j / PANEL * b.panel, *start = bias ? bias + j : 0;
            int64_t vectors = n - j < PANEL ? (n - j) / LANES : 2, done = vectors * LANES;
            if (vectors) column(m, left, right, b.row, here, start, keep, c + j, c_row, (int)vectors);
            if (j + done < n && vectors < 2)
                last_columns(m, n - j - done, here, left, right + done, b.row, start ? start + done : 0, keep, c + j + done, c_row);
        }
    }
}

/* Two rows s = 1, 2, 4, … apart: which number of the first (0, 1, …) or the second (LANES, …) comes where. */
typedef struct {
    ints first[4], second[4];
} Exchanges;

static Exchanges exchanges(void) {
    Exchanges e;
    for (int step = 0, s = 1; s < LANES; step++, s *= 2)
        for (int j = 0; j < LANES; j++) {
            e.first[step][j] = j & s ? LANES + (j ^ s) : j;
            e.second[step][j] = j & s ? LANES + j : j ^ s;
        }
    return e;
}

/* A square of LANES times LANES turned, in registers: blocks beside the diagonal change places, of one number first, then of two, … */
INLINE void turn_square(const Exchanges *e, const float *x, int64_t x_row, float *y, int64_t y_row) {
    vec rows[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) rows[i] = load(x + i * x_row);
#pragma GCC unroll 4
    for (int step = 0; 1 << step < LANES; step++)
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            if (!(i & 1 << step)) {
                vec first = rows[i], second = rows[i + (1 << step)];
                rows[i] = __builtin_shuffle(first, second, e->first[step]);
                rows[i + (1 << step)] = __builtin_shuffle(first, second, e->second[step]);
            }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) *(vec *)(y + i * y_row) = rows[i];
}

/* y (columns, rows) = the transpose of x (rows, columns). */
APART void transpose(int64_t rows, int64_t columns, const float *x, int64_t x_row, float *y, int64_t y_row) {
    const Exchanges e = exchanges();
    for (int64_t i = 0; i < rows; i += LANES)
        for (int64_t j = 0; j < columns; j += LANES) {
            if (i + LANES <= rows && j + LANES <= columns) {
                turn_square(&e, x + i * x_row + j, x_row, y + j * y_row + i, y_row);
                continue;
            }
            for (int64_t c = j; c < j + LANES && c < columns; c++)
                for (int64_t r = i; r < i + LANES && r < rows; r++) y[c * y_row + r] = x[r * x_row + c];
        }
}

/* How many numbers a matrix of so many columns takes in panels; the last one is filled up. */
INLINE int64_t panels(int64_t columns) { return (columns + PANEL - 1) / PANEL; }
