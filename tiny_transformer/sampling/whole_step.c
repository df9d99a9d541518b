/* The next tokens through the whole model, in one call: what `decode_step.py` says in PyTorch, without its eighty calls per token.

   All items (the new token of each of several texts, or several new tokens of one text) go through a layer together, so that every
   weight is read once for all of them; threads share a product by its outputs and the attention by heads, and wait for each other
   four times per layer (five where heads can't be dealt out evenly). Each number is added up in an order of its own that depends neither
   on the number of items nor on that of threads: a text is the same to the last bit whether it is written alone, in a batch, or
   checked several tokens at a time.
   `write_on` goes on by itself: it chooses the next tokens, and reads them in their turn.
   `native_step.py` fills in the structs and says when this may be used. Letters: n items, d_model, heads, kv_heads, d_head. */

#include <omp.h>
#include <time.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "draw.h"
#include "eight_bits.h"

enum { NORMS, QKV, ATTENTION, OUT, UP, DOWN, UNEMBED };

/* W (out, in) in blocks of `width` rows, filled up with zeros, each block (in, width): so a product reads it from end to end. Of weights in
   eight bits a block is (in / 2, width, 2), `in` rounded up. */
typedef struct {
    const float *weight;  /* or NULL, and then: */
    const int8_t *values;
    const float *scales;  /* (out), for values */
    const float *bias;    /* (out), or NULL */
    int64_t out, in, width;
} Matrix;

typedef struct {
    const float *weight, *bias;
    float eps;
    int32_t kind;
} Norm;

typedef struct {
    Norm norm1, norm2, q_norm, k_norm;
    Matrix qkv, project, gate, up, down;
    float *keys, *values; /* (rows, kv_heads, columns, d_head) */
} Block;

typedef struct {
    int64_t rows, columns, layers, d_model, heads, kv_heads, d_head, ff, window, vocab, pre, activation, threads;
    float token_scale, softcap;
    const float *token, *position, *cosines, *sines, *slopes; /* the last four where the model has them */
    Norm norm;
    Matrix unembed;
    const Block *blocks;
} Model;

APART void bend(float *y, int64_t n, int64_t activation) {
    if (activation == RELU)
        for (int64_t i = 0; i < n; i++) y[i] = y[i] < 0 ? 0 : y[i];
    else if (activation == RELU2)
        for (int64_t i = 0; i < n; i++) y[i] = y[i] < 0 ? 0 : y[i] * y[i];
    else if (activation == GELU)
        for (int64_t i = 0; i < n; i++) y[i] = 0.5f * y[i] * (1.0f + error_function(y[i] * 0.70710678f));
    else if (activation == GELU_TANH) /* ½ (1 + tanh z) = σ(2 z) */
        for (int64_t i = 0; i < n; i++) y[i] *= sigmoid(1.59576912f * (y[i] + 0.044715f * y[i] * y[i] * y[i]));
    else
        for (int64_t i = 0; i < n; i++) y[i] *= sigmoid(y[i]);
}

/* ---- products ---- */

#define AHEAD 2048 /* floats */
#define BEGINNING 24576 /* bytes */

/* y (R, C · LANES) = R items of x times one block of a matrix, number by number: the order of every sum is that of `in`. */
INLINE void tile(const float *x, const float *w, int64_t in, float *y, const int R, const int C) {
    vec sum[4][4];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) sum[r][c] = (vec){0};
    for (int64_t k = 0; k < in; k++) {
        vec row[4];
        if (C == 4) /* asked for 8 kB before it is needed: the processor alone begins anew with every page */
#pragma GCC unroll 4
            for (int c = 0; c < C; c++) __builtin_prefetch(w + (k * C + c) * LANES + AHEAD);
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) row[c] = load(w + (k * C + c) * LANES);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int c = 0; c < C; c++) sum[r][c] += x[r * in + k] * row[c];
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) *(vec *)(y + (r * C + c) * LANES) = sum[r][c];
}

/* R ≤ 4 items times one block. */
TILES(tiles, tile, float, float, in)

/* A thread's memory for x as whole numbers: n items of at most `most` of them, and their scales. */
typedef struct {
    int16_t *whole;
    float *scales;
} Activations;

static int64_t rounded_size(const Model *m, int64_t n) {
    int64_t most = m->heads * m->d_head;
    most = m->d_model > most ? m->d_model : most;
    most = m->ff > most ? m->ff : most;
    return n * (even(most) / 2 + 1);
}

static Activations rounded_at(float *memory, int64_t n) { return (Activations){(int16_t *)(memory + n), memory}; }

/* Which of `all` pieces thread `me` does: from *first up to, but without, *end; in bundles of `unit`. */
INLINE void share(int64_t all, int64_t unit, int me, int threads, int64_t *first, int64_t *end) {
    int64_t bundles = (all + unit - 1) / unit;
    *first = bundles * me / threads * unit;
    *end = bundles * (me + 1) / threads * unit;
    if (*end > all) *end = all;
}

/* The outputs of a matrix that are thread `me`'s. */
INLINE void my_outputs(const Matrix *m, int me, int threads, int64_t *first, int64_t *end) {
    share(m->out, m->width, me, threads, first, end);
}

/* y (n, out) = x (n, in) Wᵀ + bias (+ stream), the outputs from o, where a block begins, up to, but without, `end`. */
APART void outputs(const Matrix *m, const float *x, int64_t n, float *y, const float *stream, int64_t o, int64_t end, Activations rounded) {
    float sums[4 * 4 * LANES];
    int64_t in = m->in;
    for (int64_t i = 0; i < n && m->values; i++) rounded.scales[i] = quantize(x + i * in, in, rounded.whole + i * even(in));
    for (; o < end; o += m->width) {
        int64_t here = end - o < m->width ? end - o : m->width;
        for (int64_t r = 0; r < n; r += 4) {
            int R = n - r < 4 ? (int)(n - r) : 4;
            if (m->values) whole_tiles(rounded.whole + r * even(in), m->values + o * even(in), in, sums, R, m->width);
            else tiles(x + r * in, m->weight + o * in, in, sums, R, m->width);
            for (int i = 0; i < R; i++) {
                float *sum = sums + i * m->width, *to = y + (r + i) * m->out + o;
                const float *from = stream ? stream + (r + i) * m->out + o : 0;
                if (m->values)
                    for (int64_t c = 0; c < here; c++) sum[c] *= m->scales[o + c] * rounded.scales[r + i];
                if (m->bias)
                    for (int64_t c = 0; c < here; c++) sum[c] += m->bias[o + c];
                for (int64_t c = 0; c < here; c++) to[c] = sum[c] + (from ? from[c] : 0);
            }
        }
    }
}

/* This thread's outputs of a product. */
static void product(const Matrix *m, const float *x, int64_t n, float *y, const float *stream, int me, int threads, Activations rounded) {
    int64_t first, end;
    my_outputs(m, me, threads, &first, &end);
    outputs(m, x, n, y, stream, first, end, rounded);
}

/* Ask for the beginning of this thread's part of the next matrix, before waiting: it comes while others are waited for. */
static void announce(const Matrix *m, int me, int threads) {
    int64_t first, end;
    my_outputs(m, me, threads, &first, &end);
    const char *part = m->weight ? (const char *)(m->weight + first * m->in) : (const char *)(m->values + first * even(m->in));
    for (int64_t i = 0; i < BEGINNING; i += 64) __builtin_prefetch(part + i);
}

/* How many rows of a matrix make a block: four vectors, or one where threads would be left without work. */
int64_t width_for(int64_t out, int64_t threads) {
    int64_t wide = (out + 4 * LANES - 1) / (4 * LANES), narrow = (out + LANES - 1) / LANES;
    return (wide + threads - 1) / threads * 4 <= (narrow + threads - 1) / threads ? 4 * LANES : LANES;
}

/* The memory that weights will lie in, from the beginning of a page of 2 MB, in such pages where the system has them: looking up
   small ones costs a fifth of the reading. */
void in_large_pages(char *memory, int64_t bytes) {
#if defined(__linux__)
    if (bytes >= 1 << 21) madvise(memory, (size_t)bytes & ~(size_t)4095, MADV_HUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}

#define PACK(name, type, together) \
    void name(const type *w, type *to, int64_t first, int64_t rows, int64_t in, int64_t width, int64_t threads) { \
        int64_t padded = (in + together - 1) / together * together; \
        _Pragma("omp parallel for schedule(static) num_threads(threads)") \
        for (int64_t block = first / width; block <= (first + rows - 1) / width; block++) { \
            int64_t from = block * width > first ? block * width : first, end = (block + 1) * width; \
            if (end > first + rows) end = first + rows; \
            for (int64_t bundle = 0; bundle < in; bundle += 64) \
                for (int64_t o = from; o < end; o++) { \
                    const type *row = w + (o - first) * in; \
                    type *place = to + block * width * padded + o % width * together; \
                    for (int64_t k = bundle; k < in && k < bundle + 64; k++) place[k / together * together * width + k % together] = row[k]; \
                } \
        } \
    }
/* Rows `first`, … of the blocks at `to`, from a matrix (rows, in). */
PACK(pack_floats, float, 1)
PACK(pack_bytes, int8_t, PAIR)

/* ---- whether weights are still the same ---- */

#define CHUNK 262144
#define STREAMS 8
typedef uint32_t words __attribute__((vector_size(4 * LANES), aligned(1), may_alias));
enum { ROUND = STREAMS * 4 * LANES };

INLINE uint64_t mixed(uint64_t x) { /* every bit of x goes into every bit of this, and no two x give the same */
    x = (x ^ x >> 32) * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 29) * 0xd6e8feb86659fd93u;
    return x ^ x >> 32;
}

INLINE void stir(words *state, const char *p) {
#pragma GCC unroll 8
    for (int i = 0; i < STREAMS; i++) {
        words s = state[i] ^ *(const words *)(p + i * 4 * LANES);
        state[i] = (s << 13 | s >> 19) * 0x9e3779b1u; /* turned, or the highest bits of two numbers could cancel */
    }
}

/* One number for up to CHUNK bytes: two chunks that differ in one place never share theirs, others once in 2^32 at the most. */
APART uint64_t chunk_print(const char *p, int64_t bytes) {
    words state[STREAMS];
    char last[ROUND] = {0};
    int64_t i = 0;
    uint32_t ends[STREAMS][LANES];
#pragma GCC unroll 8
    for (int j = 0; j < STREAMS; j++) state[j] = (words){0} + (uint32_t)j;
    for (; i + ROUND <= bytes; i += ROUND) stir(state, p + i);
    memcpy(last, p + i, (size_t)(bytes - i));
    if (i < bytes) stir(state, last);
    uint64_t all = (uint64_t)bytes;
#pragma GCC unroll 8
    for (int j = 0; j < STREAMS; j++) memcpy(ends[j], &state[j], sizeof ends[j]);
    for (int j = 0; j < STREAMS; j++)
        for (int lane = 0; lane < LANES; lane++) all = mixed(all ^ ends[j][lane]);
    return all;
}

/* One number for all that lies at these places: read as fast as memory gives it, the same for every number of threads. */
uint64_t fingerprint(const char *const *places, const int64_t *bytes, int64_t count, int64_t threads) {
    uint64_t all = 0;
#pragma omp parallel num_threads(threads) reduction(+ : all)
    {
        int64_t me = omp_get_thread_num(), crew = omp_get_num_threads(), chunk = 0;
        for (int64_t i = 0; i < count; i++)
            for (int64_t from = 0; from < bytes[i]; from += CHUNK, chunk++)
                if (chunk % crew == me)
                    all += mixed(chunk_print(places[i] + from, bytes[i] - from < CHUNK ? bytes[i] - from : CHUNK) + mixed((uint64_t)chunk));
    }
    return all;
}

/* ---- norms ---- */

APART void normalise(const Norm *norm, const float *x, float *y, int64_t d) {
    if (norm->kind == NO_NORM) {
        memmove(y, x, d * sizeof *y);
        return;
    }
    vec sums = {0}, squares = {0};
    float mean = 0, rest = 0;
    int64_t j;
    if (norm->kind == LAYER_NORM) {
        for (j = 0; j + LANES <= d; j += LANES) sums += load(x + j);
        for (; j < d; j++) rest += x[j];
        mean = (total(sums) + rest) / d;
        rest = 0;
    }
    for (j = 0; j + LANES <= d; j += LANES) {
        vec v = load(x + j) - mean;
        squares += v * v;
    }
    for (; j < d; j++) rest += (x[j] - mean) * (x[j] - mean);
    float scale = 1.0f / sqrtf((total(squares) + rest) / d + norm->eps);
    for (j = 0; j < d; j++) y[j] = (x[j] - mean) * scale * norm->weight[j];
    if (norm->bias)
        for (j = 0; j < d; j++) y[j] += norm->bias[j];
}

/* ---- attention ---- */

/* The pairs (x_i, x_{i + d/2}) by the angles of a position. */
APART void rotate(const Model *model, float *x, int64_t position) {
    int64_t half = model->d_head / 2;
    const float *cos = model->cosines + position * half, *sin = model->sines + position * half;
    for (int64_t i = 0; i < half; i++) {
        float first = x[i], second = x[i + half];
        x[i] = first * cos[i] - second * sin[i];
        x[i + half] = first * sin[i] + second * cos[i];
    }
}

/* out (d_head) = the mean of `count` values (count, d_head) with these weights. */
APART void gather(const float *weights, const float *values, int64_t count, int64_t d, float whole, float *out) {
    int64_t i = 0;
    for (; i + 4 * LANES <= d; i += 4 * LANES) {
        vec a = {0}, b = {0}, c = {0}, e = {0};
        for (int64_t j = 0; j < count; j++) {
            const float *v = values + j * d + i;
            a += weights[j] * load(v);
            b += weights[j] * load(v + LANES);
            c += weights[j] * load(v + 2 * LANES);
            e += weights[j] * load(v + 3 * LANES);
        }
        *(vec *)(out + i) = a / whole;
        *(vec *)(out + i + LANES) = b / whole;
        *(vec *)(out + i + 2 * LANES) = c / whole;
        *(vec *)(out + i + 3 * LANES) = e / whole;
    }
    for (; i + LANES <= d; i += LANES) {
        vec a = {0};
        for (int64_t j = 0; j < count; j++) a += weights[j] * load(values + j * d + i);
        *(vec *)(out + i) = a / whole;
    }
    for (; i < d; i++) {
        float a = 0;
        for (int64_t j = 0; j < count; j++) a += weights[j] * values[j * d + i];
        out[i] = a / whole;
    }
}

INLINE float dot(const float *a, const float *b, int64_t n) {
    vec sum = {0};
    float rest = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) sum += load(a + i) * load(b + i);
    for (; i < n; i++) rest += a[i] * b[i];
    return total(sum) + rest;
}

/* softmax(query · keys + bias) · values for one head of one item, which stands in the last of `count` columns. */
APART void attend(const float *query, const float *keys, const float *values, int64_t count, int64_t d, float slope, float *scores,
                  float *out) {
    int64_t j;
    if (d == 4 * LANES) /* the usual width: nothing is left over, and the compiler knows */
        for (j = 0; j < count; j++) scores[j] = dot(query, keys + j * d, 4 * LANES);
    else
        for (j = 0; j < count; j++) scores[j] = dot(query, keys + j * d, d);
    if (slope != 0)
        for (j = 0; j < count; j++) scores[j] -= slope * (float)(count - 1 - j);
    float most = scores[0], rest = 0;
    for (j = 1; j < count; j++) most = scores[j] > most ? scores[j] : most;
    for (j = 0; j < count; j++) scores[j] = exponential(scores[j] - most);
    vec sums = {0};
    for (j = 0; j + LANES <= count; j += LANES) sums += load(scores + j);
    for (; j < count; j++) rest += scores[j];
    gather(scores, values, count, d, total(sums) + rest, out);
}

/* One text, one head of keys: its new keys and values into the cache, then every query that looks at them. */
APART void head(const Model *m, const Block *block, float *qkv, int64_t first, int64_t items, int64_t row, int64_t group, int64_t column,
                 int64_t padding, float *scores, float *seen) {
    int64_t d = m->d_head, wide = (m->heads + 2 * m->kv_heads) * d, share = m->heads / m->kv_heads;
    float *keys = block->keys + (row * m->kv_heads + group) * m->columns * d;
    float *values = block->values + (row * m->kv_heads + group) * m->columns * d;
    float scale = 1.0f / sqrtf((float)d);
    for (int64_t i = 0; i < items; i++) {
        float *item = qkv + (first + i) * wide, *key = item + (m->heads + group) * d;
        int64_t here = column + i, start = padding;
        if (m->window && here + 1 - m->window > start) start = here + 1 - m->window;
        if (block->k_norm.kind) normalise(&block->k_norm, key, key, d);
        if (m->cosines) rotate(m, key, here - padding);
        memcpy(keys + here * d, key, d * sizeof *key);
        memcpy(values + here * d, key + m->kv_heads * d, d * sizeof *key);
        for (int64_t h = group * share; h < (group + 1) * share; h++) {
            float *query = item + h * d;
            if (block->q_norm.kind) normalise(&block->q_norm, query, query, d);
            if (m->cosines) rotate(m, query, here - padding);
            for (int64_t j = 0; j < d; j++) query[j] *= scale;
            attend(query, keys + start * d, values + start * d, here + 1 - start, d, m->slopes ? m->slopes[h] : 0, scores,
                   seen + ((first + i) * m->heads + h) * d);
        }
    }
}

/* ---- the step ---- */

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void note(double *moments, int me, int64_t layer, int part) {
    if (moments && !me) moments[layer * UNEMBED + part] = seconds();
}

static void normalise_all(const Norm *norm, const float *x, float *y, int64_t n, int64_t d) {
    for (int64_t i = 0; i < n; i++) normalise(norm, x + i * d, y + i * d, d);
}

/* Whether every thread can work out the queries, keys and values of its own heads, in whole blocks: then it waits for no other. */
static int own_heads(const Model *m, const Matrix *qkv, int threads) {
    return m->kv_heads % threads == 0 && m->kv_heads / threads * m->d_head % qkv->width == 0;
}

static int64_t own_scratch(const Model *m, int64_t n) { return n * m->d_model + m->columns + rounded_size(m, n) + 64; }

/* How many floats `run` wants to write in between, for n items. */
int64_t scratch(const Model *m, int64_t n) {
    int64_t heads = (m->heads + 2 * m->kv_heads) * m->d_head;
    return n * (2 * m->d_model + heads + m->heads * m->d_head + 2 * m->ff) + m->threads * own_scratch(m, n);
}

/* n ids to logits (n, vocab), behind `column` columns of the cache. With one text n are its next tokens, else n = rows, one each.
   `padding` (rows), or NULL: the columns that each text leaves free. `embedded` (n, d_model), or NULL: then vectors are looked up.
   `moments` (layers · 6 + 2), or NULL: when each part began, norms before the others, and the end. Returns 1 for an id that is none. */
int run(const Model *m, int64_t n, int64_t column, const int64_t *padding, const int64_t *ids, const float *embedded, float *logits,
        float *space, double *moments) {
    int64_t d = m->d_model, wide = (m->heads + 2 * m->kv_heads) * m->d_head, inner = m->heads * m->d_head, items = m->rows == 1 ? n : 1;
    for (int64_t i = 0; i < n && !embedded; i++)
        if (ids[i] < 0 || ids[i] >= m->vocab) return 1;
    float *x = space, *middle = x + n * d, *qkv = middle + n * d, *seen = qkv + n * wide, *up = seen + n * inner, *gate = up + n * m->ff;
    float *own = gate + n * m->ff;
#pragma omp parallel num_threads(m->threads)
    {
        int me = omp_get_thread_num(), threads = omp_get_num_threads();
        float *normed = own + me * own_scratch(m, n), *scores = normed + n * d;
        Activations rounded = rounded_at(scores + m->columns, n);
        int64_t first, end;
        share(n, 1, me, threads, &first, &end);
        for (int64_t i = first; i < end; i++) {
            int64_t text = items == n ? 0 : i, place = column + i % items - (padding ? padding[text] : 0);
            for (int64_t j = 0; j < d; j++)
                x[i * d + j] = embedded ? embedded[i * d + j]
                                        : m->token[ids[i] * d + j] * m->token_scale + (m->position ? m->position[place * d + j] : 0);
        }
#pragma omp barrier
        for (int64_t layer = 0; layer < m->layers; layer++) {
            const Block *block = m->blocks + layer;
            note(moments, me, layer, NORMS);
            const Norm none = {0, 0, 0, NO_NORM};
            normalise_all(m->pre ? &block->norm1 : &none, x, normed, n, d);
            note(moments, me, layer, QKV);
            int64_t texts = n / items, groups = m->kv_heads / threads, begin = groups * me;
            if (own_heads(m, &block->qkv, threads)) {
                for (int part = 0; part < 3; part++) { /* queries, keys, values */
                    int64_t each = (part ? 1 : m->heads / m->kv_heads) * m->d_head;
                    first = (part ? m->heads + (part - 1) * m->kv_heads : 0) * m->d_head + begin * each;
                    outputs(&block->qkv, normed, n, qkv, 0, first, first + groups * each, rounded);
                }
                note(moments, me, layer, ATTENTION);
                first = begin * texts;
                end = first + groups * texts;
            } else {
                product(&block->qkv, normed, n, qkv, 0, me, threads, rounded);
#pragma omp barrier
                note(moments, me, layer, ATTENTION);
                share(texts * m->kv_heads, 1, me, threads, &first, &end);
            }
            for (int64_t work = first; work < end; work++) { /* all texts' first heads, then all texts' second ones, … */
                int64_t row = work % texts;
                head(m, block, qkv, row * items, items, row, work / texts, column, padding ? padding[row] : 0, scores, seen);
            }
            announce(&block->project, me, threads);
#pragma omp barrier
            note(moments, me, layer, OUT);
            product(&block->project, seen, n, middle, x, me, threads, rounded);
            announce(&block->up, me, threads);
#pragma omp barrier
            note(moments, me, layer, UP);
            normalise_all(m->pre ? &block->norm2 : &block->norm1, middle, normed, n, d);
            int64_t width = m->ff;
            product(&block->up, normed, n, up, 0, me, threads, rounded);
            if (m->activation == SWIGLU) product(&block->gate, normed, n, gate, 0, me, threads, rounded);
            my_outputs(&block->up, me, threads, &first, &end);
            for (int64_t i = 0; i < n; i++) {
                float *mine = up + i * width + first, *other = gate + i * width + first;
                bend(m->activation == SWIGLU ? other : mine, end - first, m->activation);
                if (m->activation == SWIGLU)
                    for (int64_t j = 0; j < end - first; j++) mine[j] *= other[j];
            }
            announce(&block->down, me, threads);
#pragma omp barrier
            note(moments, me, layer, DOWN);
            if (m->pre) {
                product(&block->down, up, n, x, middle, me, threads, rounded);
            } else { /* the stream is what the norm made of it, which every thread has for itself */
                product(&block->down, up, n, middle, normed, me, threads, rounded);
#pragma omp barrier
                share(n, 1, me, threads, &first, &end);
                for (int64_t i = first; i < end; i++) normalise(&block->norm2, middle + i * d, x + i * d, d);
            }
            announce(layer + 1 < m->layers ? &block[1].qkv : &m->unembed, me, threads);
#pragma omp barrier
        }
        note(moments, me, m->layers, NORMS);
        normalise_all(&m->norm, x, normed, n, d);
        product(&m->unembed, normed, n, logits, 0, me, threads, rounded);
        my_outputs(&m->unembed, me, threads, &first, &end);
        if (m->softcap > 0) /* c tanh(l / c), with tanh z = 2 σ(2 z) - 1 */
            for (int64_t i = 0; i < n; i++)
                for (int64_t j = i * m->unembed.out + first; j < i * m->unembed.out + end; j++)
                    logits[j] = m->softcap * (2.0f * sigmoid(2.0f * logits[j] / m->softcap) - 1.0f);
    }
    note(moments, 0, m->layers, QKV);
    return 0;
}

/* ---- several tokens in one call ---- */

/* Up to `count` tokens behind each of n texts, the last of which, not read yet, stand at `tokens`, `stride` from one text to the next;
   what is chosen is written behind them. heights (count, n); the rest as for `run`. Returns how many have been chosen: if not all, one
   more has been read, and its logits are there, but what comes next is open. -1 for an id that is none. */
int64_t write_on(const Model *m, int64_t n, int64_t column, const int64_t *padding, int64_t *tokens, int64_t stride, Rule *rule,
                 const double *heights, int64_t count, float *logits, float *space, float *work) {
    for (int64_t step = 0; step < count; step++) {
        int64_t ids[n], next[n];
        for (int64_t row = 0; row < n; row++) ids[row] = tokens[row * stride + step];
        if (run(m, n, column + step, padding, ids, 0, logits, space, 0)) return -1;
        double begun = seconds();
        for (int64_t row = 0; row < n; row++)
            if ((next[row] = draw(rule, logits + row * m->unembed.out, heights[step * n + row], work)) == UNSURE) return step;
        for (int64_t row = 0; row < n; row++) tokens[row * stride + step + 1] = next[row];
        rule->seconds += seconds() - begun;
    }
    return count;
}
