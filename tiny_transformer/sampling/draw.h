/* How the next token is chosen, in C: what `strategies.py` says, where rounding cannot make it say anything else. For `whole_step.c`. */

#include "vectors.h"

/* How a token is chosen (`SampleConfig`), and what choosing has cost. */
typedef struct {
    int64_t vocab, top_k;         /* top_k: `vocab` keeps all */
    float temperature, min_p_log; /* temperature 0: the likeliest; min_p_log: -infinity keeps all */
    double top_p, seconds;        /* top_p: 0 keeps all */
} Rule;

#define UNSURE (-1)
#define MARGIN 1e-5           /* of the whole: more than rounding to float32 makes of a cumulated probability in either engine */
#define HIGHEST (1 - 0x1p-52) /* as in `sampling_rules.py`, and 1 - ROUNDING */
#define REACHED (1 - 1e-6)

/* Numbers as integers in the same order; 0 and -0 are one. */
INLINE int32_t ordered(float x) {
    int32_t bits;
    x += 0.0f;
    memcpy(&bits, &x, 4);
    return bits ^ (bits >> 31 & INT32_MAX);
}

/* How much lies at `least` and above: how many tokens, or their weights. */
INLINE double above(const int32_t *keys, const float *weights, int64_t n, int64_t least) {
    double all = 0;
    int64_t count = 0;
    if (weights)
        for (int64_t i = 0; i < n; i++) all += keys[i] >= least ? (double)weights[i] : 0;
    else
        for (int64_t i = 0; i < n; i++) count += keys[i] >= least;
    return weights ? all : (double)count;
}

/* The largest key above which, itself included, as much lies as is wanted: by halving, for a sort costs more. */
APART int64_t cut(const int32_t *keys, const float *weights, int64_t n, double wanted) {
    int64_t low = INT32_MAX, high = INT32_MIN;
    for (int64_t i = 0; i < n; i++) {
        low = keys[i] < low ? keys[i] : low;
        high = keys[i] > high ? keys[i] : high;
    }
    while (low < high) {
        int64_t middle = low + (high - low + 1) / 2;
        if (above(keys, weights, n, middle) >= wanted) low = middle;
        else high = middle - 1;
    }
    return low;
}

/* The token at height u of the cumulated probabilities, as `sampling/strategies.py` has it. UNSURE where another rounding might
   choose another one, where ties have to be settled, and where the logits are damaged: then the caller asks there. What is kept is
   compared in float32 as there, to the bit; only sums and exponentials are rounded differently. `work` (3 vocab). */
int64_t draw(const Rule *rule, const float *logits, double u, float *work) {
    int64_t n = rule->vocab, best = 0, least = INT32_MIN;
    float *scaled = work, *weights = work + n;
    int32_t *keys = (int32_t *)(work + 2 * n);
    for (int64_t i = 0; i < n; i++) {
        if (isnan(logits[i])) return UNSURE;
        best = logits[i] > logits[best] ? i : best;
    }
    if (!isfinite(logits[best])) return UNSURE;
    if (rule->temperature == 0) return best;
    for (int64_t i = 0; i < n; i++) scaled[i] = logits[i] / rule->temperature;
    float most = scaled[best], floor = most + rule->min_p_log;
    if (!isfinite(most)) return UNSURE;
    for (int64_t i = 0; i < n; i++) keys[i] = ordered(scaled[i]);
    if (rule->top_k < n) {
        least = cut(keys, 0, n, (double)rule->top_k);
        if (above(keys, 0, n, least) != rule->top_k) return UNSURE;
    }
    for (int64_t i = 0; i < n; i++) weights[i] = keys[i] >= least ? exponential(scaled[i] - most) : 0;
    double whole = above(keys, weights, n, least), reached = 0, wanted = rule->top_p * REACHED, edge = MARGIN * whole;
    if (rule->top_p) {
        least = cut(keys, weights, n, wanted * whole);
        double with = above(keys, weights, n, least), without = above(keys, weights, n, least + 1);
        if (with < wanted * whole + edge || without > wanted * whole - edge) return UNSURE;
        if (above(keys, 0, n, least) - above(keys, 0, n, least + 1) > 1) return UNSURE; /* a tie: the first ones would stay */
    }
    for (int64_t i = 0; i < n; i++) weights[i] = keys[i] >= least && scaled[i] >= floor ? weights[i] : 0;
    whole = above(keys, weights, n, least);
    edge = MARGIN * whole;
    double height = (u < HIGHEST ? u : HIGHEST) * whole;
    for (int64_t i = 0; i < n; i++) {
        if (reached + weights[i] > height) return reached + edge < height && height + edge < reached + weights[i] ? i : UNSURE;
        reached += weights[i];
    }
    return UNSURE;
}
