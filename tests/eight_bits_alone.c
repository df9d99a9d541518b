/* `sampling/eight_bits.h` for its tests: functions that a test can call. */

#include "sampling/eight_bits.h"

float quantize_for_test(const float *x, int64_t in, int16_t *whole) { return quantize(x, in, whole); }

void tiles_for_test(const int16_t *x, const int8_t *values, int64_t in, float *y, int64_t rows, int64_t width) {
    whole_tiles(x, values, in, y, (int)rows, width);
}

int64_t lanes(void) { return LANES; }
