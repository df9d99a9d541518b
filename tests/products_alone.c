/* `products.h` for its tests: functions that a test can call. */

#include "products.h"

/* c (m, n) = a b + bias + keep · c; a number (r, k) of a lies at r · row + k · step; with `packed`, b is in panels. */
void multiply_for_test(int64_t m, int64_t n, int64_t depth, const float *a, int64_t row, int64_t step, const float *b, int64_t b_row,
                       int64_t packed, const float *bias, float keep, float *c, int64_t c_row) {
    multiply(m, n, depth, (Left){a, row, step}, packed ? in_panels(b, depth) : by_rows(b, b_row), bias, keep, c, c_row);
}

void transpose_for_test(int64_t rows, int64_t columns, const float *x, int64_t x_row, float *y, int64_t y_row) {
    transpose(rows, columns, x, x_row, y, y_row);
}

int64_t panel_width(void) { return PANEL; }
