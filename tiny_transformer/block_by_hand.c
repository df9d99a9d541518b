/* The layers of the model in training, forwards and backwards, in one call each: what `transformer_block.py` says in some eighty for each.

   Between the matrix products a layer does little, but as operations of their own every norm, sum and activation walks through memory once
   more and wakes all threads. Here each thread takes some tokens, and does everything with them that needs no others; it waits for
   the others once per layer forwards and twice backwards, where rows can be dealt out evenly. The products are those of `products.h`.

   For the backward pass it keeps queries, keys and values, what attention gathered, the stream between the branches, and the feed-forward
   network's inside before the activation; norms, activations and attention weights are worked out again (Dao et al. 2022 for the latter).
   `block_by_hand.py` fills in the struct and says when this may be used. Letters: T tokens (all rows of the batch), d d_model, ff d_ff. */

#include <omp.h>
#include <time.h>

#include "products.h"

typedef struct {
    const float *weight, *bias; /* (out, in), (out); bias may be NULL */
    float *dweight, *dbias;     /* where their gradients go, or NULL */
    int64_t out, in;
} Linear;

typedef struct {
    const float *weight, *bias;
    float *dweight, *dbias;
    int64_t width, kind;
    double eps;
} Norm;

typedef struct {
    int64_t batch, seq, d, heads, kv_heads, d_head, ff, activation, threads;
    Norm norm1, norm2, q_norm, k_norm;
    Linear query, key, value, project, gate, up, down; /* gate.weight is NULL where there is none */
    const float *cosines, *sines;                      /* (seq, d_head / 2), or NULL */
    const float *drop1, *drop2;                        /* (T, d): what each branch is multiplied by, or NULL */
} Block;

/* Tensors of all: cosines, sines, weight and bias of the last norm; and of a block: weight and bias of each part, the two of dropout. */
enum { FIRST = 4, EACH = 2 * 4 + 2 * 7 + 2 };

/* A block of this shape, which has all but the pointers: `tensors` (EACH) in the order of Block; likewise `gradients`, unless NULL. */
static Block filled(const Block *shape, float *const *tensors, float *const *gradients) {
    Block b = *shape;
    for (Norm *norm = &b.norm1; norm <= &b.k_norm; norm++) {
        norm->weight = *tensors++;
        norm->bias = *tensors++;
        norm->dweight = gradients ? *gradients++ : 0;
        norm->dbias = gradients ? *gradients++ : 0;
    }
    for (Linear *layer = &b.query; layer <= &b.down; layer++) {
        layer->weight = *tensors++;
        layer->bias = *tensors++;
        layer->dweight = gradients ? *gradients++ : 0;
        layer->dbias = gradients ? *gradients++ : 0;
    }
    b.drop1 = *tensors++;
    b.drop2 = *tensors++;
    return b;
}

/* What a thread's time goes to, as `step_cost.py` calls the parts; the last is what it waits for the others. */
enum { NORM, QKV, QK_NORM, ROTARY, ATTENTION, PROJECT, UP, ACTIVATION, DOWN, WAITING, PARTS };

typedef struct {
    double *spent; /* (PARTS) seconds, or NULL: nobody asks */
    double last;
} Clock;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The time since the last lap was spent on `part`. */
static void lap(Clock *clock, int part) {
    if (!clock->spent) return;
    double moment = now();
    clock->spent[part] += moment - clock->last;
    clock->last = moment;
}

#define MOST(a, b) ((a) > (b) ? (a) : (b))
#define LEAST(a, b) ((a) < (b) ? (a) : (b))
enum { TOKENS = 128, QUERIES = 32 }; /* done together: what they need fits a core's own cache */

/* ---- products ---- */

/* y (n, out) = x (n, in) Wᵀ + bias; `packed` is Wᵀ (in, out) in panels. */
static void forwards(const Linear *layer, const float *packed, int64_t n, const float *x, int64_t x_row, float *y, int64_t y_row) {
    multiply(n, layer->out, layer->in, (Left){x, x_row, 1}, in_panels(packed, layer->in), layer->bias, 0, y, y_row);
}

/* dx (n, in) = dy (n, out) W + keep · dx. */
static void backwards(const Linear *layer, int64_t n, const float *dy, int64_t dy_row, float keep, float *dx, int64_t dx_row) {
    multiply(n, layer->in, layer->out, (Left){dy, dy_row, 1}, by_rows(layer->weight, layer->in), 0, keep, dx, dx_row);
}

/* The gradients of this thread's share of a layer's outputs: dW = dyᵀ x, db = the sum of dy. */
static void gradients(const Linear *layer, int64_t n, const float *dy, int64_t dy_row, const float *x, int64_t x_row, int me, int threads) {
    int64_t first = layer->out * me / threads, end = layer->out * (me + 1) / threads;
    Left dy_turned = {dy + first, 1, dy_row};
    if (layer->dweight)
        multiply(end - first, layer->in, n, dy_turned, by_rows(x, x_row), 0, 0, layer->dweight + first * layer->in, layer->in);
    if (!layer->dbias) return;
    memset(layer->dbias + first, 0, (end - first) * sizeof(float));
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = first; j < end; j++) layer->dbias[j] += dy[i * dy_row + j];
}

/* ---- norms ---- */

INLINE float sum_of(const float *x, int64_t n) {
    vec sums = {0};
    float rest = 0;
    int64_t j;
    for (j = 0; j + LANES <= n; j += LANES) sums += load(x + j);
    for (; j < n; j++) rest += x[j];
    return total(sums) + rest;
}

typedef struct {
    float mean, scale; /* normalised = (x - mean) · scale */
} Moments;

static Moments moments(const Norm *norm, const float *x) {
    int64_t d = norm->width, j;
    float mean = norm->kind == LAYER_NORM ? sum_of(x, d) / d : 0, rest = 0;
    vec squares = {0};
    for (j = 0; j + LANES <= d; j += LANES) {
        vec v = load(x + j) - mean;
        squares += v * v;
    }
    for (; j < d; j++) rest += (x[j] - mean) * (x[j] - mean);
    return (Moments){mean, 1.0f / sqrtf((total(squares) + rest) / d + (float)norm->eps)};
}

/* y = weight · (x - mean) · scale + bias. x and y lie apart. */
static void apply(const Norm *norm, Moments m, const float *restrict x, float *restrict y) {
    const float *weight = norm->weight, *bias = norm->bias;
    if (bias)
        for (int64_t j = 0; j < norm->width; j++) y[j] = (x[j] - m.mean) * m.scale * weight[j] + bias[j];
    else
        for (int64_t j = 0; j < norm->width; j++) y[j] = (x[j] - m.mean) * m.scale * weight[j];
}

APART void normalise(const Norm *norm, const float *x, float *y) { apply(norm, moments(norm, x), x, y); }

/* dx = (g - mean of g - n · mean of g · n) · scale (+ more) with g = dy · weight and n the normalised x; without the first mean for
   RMS norms. Adds dy · n and dy to `sums` (2, width), this thread's gradients of weight and bias. dx may lie where dy does. With `y`
   not NULL, the norm's own output goes there once more. */
APART void normalise_backwards(const Norm *norm, const float *x, const float *dy, const float *more, float *dx, float *sums, float *y) {
    int64_t d = norm->width, j;
    const float *weight = norm->weight;
    Moments m = moments(norm, x);
    if (y) apply(norm, m, x, y);
    vec first = {0}, second = {0};
    float first_rest = 0, second_rest = 0;
    for (j = 0; j + LANES <= d; j += LANES) {
        vec g = load(dy + j), n = (load(x + j) - m.mean) * m.scale;
        *(vec *)(sums + j) += g * n;
        *(vec *)(sums + d + j) += g;
        g *= load(weight + j);
        first += g;
        second += g * n;
    }
    for (; j < d; j++) {
        float n = (x[j] - m.mean) * m.scale, g = dy[j] * weight[j];
        sums[j] += dy[j] * n;
        sums[d + j] += dy[j];
        first_rest += g;
        second_rest += g * n;
    }
    float mean = norm->kind == LAYER_NORM ? (total(first) + first_rest) / d : 0, slope = (total(second) + second_rest) / d;
    for (j = 0; j + LANES <= d; j += LANES) {
        vec n = (load(x + j) - m.mean) * m.scale, g = (load(dy + j) * load(weight + j) - mean - n * slope) * m.scale;
        if (more) g += load(more + j);
        *(vec *)(dx + j) = g;
    }
    for (; j < d; j++) dx[j] = (dy[j] * weight[j] - mean - (x[j] - m.mean) * m.scale * slope) * m.scale + (more ? more[j] : 0);
}

/* ---- the activation, and its slope ---- */

/* y = f(x), for gated networks f(x) · other. x and y lie apart. */
APART void activate(int64_t kind, int64_t n, const float *restrict x, const float *restrict other, float *restrict y) {
    if (kind == RELU)
        for (int64_t i = 0; i < n; i++) y[i] = x[i] < 0 ? 0 : x[i];
    else if (kind == RELU2)
        for (int64_t i = 0; i < n; i++) y[i] = x[i] < 0 ? 0 : x[i] * x[i];
    else if (kind == GELU)
        for (int64_t i = 0; i < n; i++) y[i] = 0.5f * x[i] * (1.0f + error_function(x[i] * 0.70710678f));
    else if (kind == GELU_TANH) /* ½ (1 + tanh z) = σ(2 z) */
        for (int64_t i = 0; i < n; i++) y[i] = x[i] * sigmoid(1.59576912f * (x[i] + 0.044715f * x[i] * x[i] * x[i]));
    else
        for (int64_t i = 0; i < n; i++) y[i] = x[i] * sigmoid(x[i]) * other[i];
}

/* From dy, the gradient of y, to that of x, in its place, and y once more; for gated networks that of `other` too. */
APART void activate_backwards(int64_t kind, int64_t n, const float *restrict x, const float *restrict other, float *restrict dy,
                              float *restrict dother, float *restrict y) {
    if (kind == RELU)
        for (int64_t i = 0; i < n; i++) {
            y[i] = x[i] < 0 ? 0 : x[i];
            dy[i] = x[i] > 0 ? dy[i] : 0;
        }
    else if (kind == RELU2)
        for (int64_t i = 0; i < n; i++) {
            float positive = x[i] < 0 ? 0 : x[i];
            y[i] = positive * positive;
            dy[i] *= 2 * positive;
        }
    else if (kind == GELU) /* Φ + x φ */
        for (int64_t i = 0; i < n; i++) {
            float share = 0.5f * (1.0f + error_function(x[i] * 0.70710678f));
            y[i] = x[i] * share;
            dy[i] *= share + x[i] * 0.39894228f * exponential(-0.5f * x[i] * x[i]);
        }
    else if (kind == GELU_TANH) /* σ + x σ (1 - σ) (2 u)′, as in `gelu_by_hand.py` */
        for (int64_t i = 0; i < n; i++) {
            float square = x[i] * x[i], share = sigmoid(1.59576912f * (x[i] + 0.044715f * x[i] * square));
            y[i] = x[i] * share;
            dy[i] *= share + x[i] * share * (1.0f - share) * 1.59576912f * (1.0f + 0.134145f * square);
        }
    else
        for (int64_t i = 0; i < n; i++) {
            float share = sigmoid(x[i]), bent = x[i] * share;
            y[i] = bent * other[i];
            dother[i] = dy[i] * bent;
            dy[i] *= other[i] * share * (1.0f + x[i] * (1.0f - share));
        }
}

/* ---- attention ---- */

/* The pairs (x_i, x_{i + d/2}) by the angles of a position, or back. */
static void turn(const Block *b, float *x, int64_t position, float way) {
    int64_t half_width = b->d_head / 2;
    const float *cos = b->cosines + position * half_width, *sin = b->sines + position * half_width;
    for (int64_t i = 0; i < half_width; i++) {
        float first = x[i], second = x[i + half_width];
        x[i] = first * cos[i] - way * second * sin[i];
        x[i + half_width] = way * first * sin[i] + second * cos[i];
    }
}

INLINE vec larger(vec a, vec b) {
    ints above = a > b;
    return (vec)((above & (ints)a) | (~above & (ints)b));
}

INLINE float largest(const float *x, int64_t n) {
    float most = x[0];
    int64_t j = 0;
    if (n >= LANES) {
        vec found = load(x);
        for (j = LANES; j + LANES <= n; j += LANES) found = larger(found, load(x + j));
        for (int i = 0; i < LANES; i++) most = found[i] > most ? found[i] : most;
    }
    for (; j < n; j++) most = x[j] > most ? x[j] : most;
    return most;
}

/* How many of n numbers to work on when `seen` count: whole vectors, since a number left over costs as much as one. */
static int64_t whole_vectors(int64_t seen, int64_t n) { return LEAST(n, (seen + LANES - 1) / LANES * LANES); }

/* A row of scores, of which `seen` of n may be looked at, to weights softmax(scale · scores); returns the logarithm of their divisor. */
APART float softmax(float *restrict scores, float scale, int64_t seen, int64_t n) {
    int64_t end = whole_vectors(seen, n);
    float most = largest(scores, seen);
    for (int64_t j = 0; j < end; j++) scores[j] = exponential(scale * (scores[j] - most));
    memset(scores + seen, 0, (n - seen) * sizeof(float));
    float whole = sum_of(scores, end), share = 1.0f / whole;
    for (int64_t j = 0; j < end; j++) scores[j] *= share;
    return scale * most + logf(whole);
}

/* What the numbers of one head are multiplied with: its queries, keys and values lie in rows of `wide`. */
typedef struct {
    const float *query, *key, *value;
    float *dquery, *dkey, *dvalue; /* likewise, in the backward pass */
    int64_t wide, inner;
} Head;

static int64_t width_of(const Block *b) { return (b->heads + 2 * b->kv_heads) * b->d_head; }

static Head head_at(const Block *b, const float *qkv, float *dqkv, int64_t row, int64_t h) {
    int64_t d = b->d_head, wide = width_of(b), from = row * b->seq * wide, group = h / (b->heads / b->kv_heads);
    int64_t q = from + h * d, k = from + (b->heads + group) * d, v = k + b->kv_heads * d;
    return (Head){qkv + q, qkv + k, qkv + v, dqkv ? dqkv + q : 0, dqkv ? dqkv + k : 0, dqkv ? dqkv + v : 0, wide, b->heads * d};
}

/* seen (seq, inner) = softmax(Q Kᵀ / √d_head) V, block by block of the queries; what comes after a block is never looked at. */
APART void attend(const Block *b, const Head *h, float *seen, float *logs, float *space) {
    int64_t d = b->d_head;
    float scale = 1.0f / sqrtf((float)d), *keys = space, *weights = space + d * b->seq;
    transpose(b->seq, d, h->key, h->wide, keys, b->seq);
    for (int64_t i = 0; i < b->seq; i += QUERIES) {
        int64_t rows = LEAST(QUERIES, b->seq - i), n = i + rows;
        multiply(rows, n, d, (Left){h->query + i * h->wide, h->wide, 1}, by_rows(keys, b->seq), 0, 0, weights, b->seq);
        for (int64_t r = 0; r < rows; r++) logs[i + r] = softmax(weights + r * b->seq, scale, i + r + 1, n);
        multiply(rows, d, n, (Left){weights, b->seq, 1}, by_rows(h->value, h->wide), 0, 0, seen + i * h->inner, h->inner);
    }
}

/* A row of scores and one of dP to weights P and dS = P (dP - P · dP) / √d_head. */
APART void softmax_backwards(float *restrict p, float *restrict dp, float log, float scale, int64_t seen, int64_t n) {
    int64_t end = whole_vectors(seen, n), j;
    vec sums = {0};
    float rest = 0;
    for (j = 0; j < end; j++) p[j] = exponential(scale * p[j] - log);
    memset(p + seen, 0, (n - seen) * sizeof(float));
    memset(dp + seen, 0, (n - seen) * sizeof(float));
    for (j = 0; j + LANES <= end; j += LANES) sums += load(p + j) * load(dp + j);
    for (; j < end; j++) rest += p[j] * dp[j];
    float mean = total(sums) + rest;
    for (j = 0; j < end; j++) dp[j] = p[j] * (dp[j] - mean) * scale;
}

/* With weights P: dV = Pᵀ dO, dP = dO Vᵀ, dS = P (dP - rows of P · dP) / √d_head, dQ = dS K, dK = dSᵀ Q.
   `first`: this head is the first that reads these keys, whose gradients do not stand there yet. */
APART void attend_backwards(const Block *b, const Head *h, int first, const float *dseen, const float *logs, float *space) {
    int64_t d = b->d_head, seq = b->seq;
    float scale = 1.0f / sqrtf((float)d);
    float *keys = space, *values = keys + d * seq, *weights = values + d * seq, *dweights = weights + QUERIES * seq;
    transpose(seq, d, h->key, h->wide, keys, seq);
    transpose(seq, d, h->value, h->wide, values, seq);
    for (int64_t i = (seq - 1) / QUERIES * QUERIES; i >= 0; i -= QUERIES) { /* the last block sees all keys, and comes first */
        int64_t rows = LEAST(QUERIES, seq - i), n = i + rows;
        float keep = first && n == seq ? 0 : 1;
        const float *query = h->query + i * h->wide, *dout = dseen + i * h->inner;
        multiply(rows, n, d, (Left){query, h->wide, 1}, by_rows(keys, seq), 0, 0, weights, seq);
        multiply(rows, n, d, (Left){dout, h->inner, 1}, by_rows(values, seq), 0, 0, dweights, seq);
        for (int64_t r = 0; r < rows; r++) softmax_backwards(weights + r * seq, dweights + r * seq, logs[i + r], scale, i + r + 1, n);
        multiply(n, d, rows, (Left){weights, 1, seq}, by_rows(dout, h->inner), 0, keep, h->dvalue, h->wide);
        multiply(n, d, rows, (Left){dweights, 1, seq}, by_rows(query, h->wide), 0, keep, h->dkey, h->wide);
        multiply(rows, d, n, (Left){dweights, seq, 1}, by_rows(h->key, h->wide), 0, 0, h->dquery + i * h->wide, h->wide);
    }
}

/* ---- where things lie ---- */

/* What the forward pass keeps of a layer: each of these beginnings is that of a cache line. */
typedef struct {
    float *qkv, *raw, *seen, *logs, *middle, *up, *gate, *end;
} Kept;

typedef struct {
    Block b;
    Kept k;
    const float *x; /* (T, d) what it reads */
    float *out;     /* and what comes out: the next one's x */
} Layer;

static float *taken(float **next, int64_t numbers) {
    float *here = *next;
    *next += (numbers + 15) / 16 * 16;
    return here;
}

static Kept kept_at(const Block *b, float *memory) {
    int64_t T = b->batch * b->seq;
    Kept k;
    k.qkv = taken(&memory, T * width_of(b));
    k.raw = taken(&memory, b->q_norm.weight ? T * (b->heads + b->kv_heads) * b->d_head : 0); /* queries and keys before their norms */
    k.seen = taken(&memory, T * b->heads * b->d_head);
    k.logs = taken(&memory, T * b->heads);
    k.middle = taken(&memory, T * b->d);
    k.up = taken(&memory, T * b->ff);
    k.gate = taken(&memory, b->gate.weight ? T * b->ff : 0);
    k.end = memory;
    return k;
}

/* The layers with their pointers, from `tensors` and `gradients` (FIRST + n · EACH). Returns the end of what they keep: of each Kept and its
   `out`; the last one's, if there is no norm behind it, is `out`. */
static float *lay_out(int64_t n, const Block *shapes, float *const *tensors, float *const *gradients, const float *x, float *out, float *kept,
                      Layer *layers) {
    for (int64_t i = 0; i < n; i++, x = layers[i - 1].out) {
        Layer *layer = layers + i;
        layer->b = filled(shapes + i, tensors + FIRST + i * EACH, gradients ? gradients + FIRST + i * EACH : 0);
        layer->b.cosines = tensors[0];
        layer->b.sines = tensors[1];
        layer->k = kept_at(&layer->b, kept);
        kept = layer->k.end;
        layer->x = x;
        layer->out = i == n - 1 && !tensors[2] ? out : taken(&kept, layer->b.batch * layer->b.seq * layer->b.d);
    }
    return kept;
}

/* The norm behind the last layer; without weights where there is none. */
static Norm last_norm(const Norm *shape, float *const *tensors, float *const *gradients) {
    Norm last = *shape;
    last.weight = tensors[2];
    last.bias = tensors[3];
    last.dweight = gradients ? gradients[2] : 0;
    last.dbias = gradients ? gradients[3] : 0;
    return last;
}

/* Every Wᵀ of a layer in panels, one behind the other. */
static int64_t packed_size(const Linear *layer) { return panels(layer->out) * PANEL * layer->in; }

static const float *packed_at(const Block *b, const float *memory, const Linear *layer) {
    for (const Linear *before = &b->query; before < layer; before++) memory += packed_size(before);
    return memory;
}

static int64_t all_packed(const Block *b) { return packed_at(b, 0, &b->down + 1) - (float *)0; }

/* What the backward pass of a layer writes and reads again: gradients, and inputs of matrices that were not kept. */
typedef struct {
    float *dqkv, *dup, *dgate, *bent, *normed1, *normed2, *dmiddle, *dseen, *dbranch1, *dbranch2, *sums, *own, *end;
} Scratch;

/* One thread's sums of the gradients of the norms' weights and biases. */
typedef struct {
    float *norm1, *norm2, *q_norm, *k_norm, *end;
} Sums;

static Sums sums_at(const Block *b, float *memory) {
    Sums s;
    s.norm1 = taken(&memory, 2 * b->d);
    s.norm2 = taken(&memory, 2 * b->d);
    s.q_norm = taken(&memory, 2 * b->d_head);
    s.k_norm = taken(&memory, 2 * b->d_head);
    s.end = memory;
    return s;
}

static int64_t sums_size(const Block *b) { return sums_at(b, 0).end - (float *)0; }

static int64_t own_size(const Block *b) {
    return (MOST(2 * (QUERIES + b->d_head) * b->seq, TOKENS * (b->ff + b->d)) + 31) / 16 * 16;
}

static Scratch scratch_at(const Block *b, float *memory) {
    int64_t T = b->batch * b->seq;
    Scratch s;
    s.dqkv = taken(&memory, T * width_of(b));
    s.dup = taken(&memory, T * b->ff);
    s.dgate = taken(&memory, b->gate.weight ? T * b->ff : 0);
    s.bent = taken(&memory, T * b->ff);
    s.normed1 = taken(&memory, T * b->d);
    s.normed2 = taken(&memory, T * b->d);
    s.dmiddle = taken(&memory, T * b->d);
    s.dseen = taken(&memory, T * b->heads * b->d_head);
    s.dbranch1 = taken(&memory, b->drop1 ? T * b->d : 0);
    s.dbranch2 = taken(&memory, b->drop2 ? T * b->d : 0);
    s.sums = taken(&memory, b->threads * sums_size(b));
    s.own = taken(&memory, b->threads * own_size(b));
    s.end = memory;
    return s;
}

/* Memory to work in that the layers have in turn. */
typedef struct {
    int64_t packed, own, scratch;
} Most;

static Most most_of(int64_t n, const Layer *layers) {
    Most most = {0};
    for (const Block *b = &layers->b; n--; b = &(++layers)->b) {
        most.packed = MOST(most.packed, all_packed(b));
        most.own = MOST(most.own, own_size(b));
        most.scratch = MOST(most.scratch, scratch_at(b, 0).end - (float *)0);
    }
    return most;
}

/* Numbers kept, and of the memory that each pass works in. */
void sizes(int64_t n, const Block *shapes, float *const *tensors, int64_t *kept, int64_t *forward_scratch, int64_t *backward_scratch) {
    Layer layers[n];
    *kept = lay_out(n, shapes, tensors, 0, 0, 0, 0, layers) - (float *)0;
    Most most = most_of(n, layers);
    *forward_scratch = 2 * most.packed + shapes->threads * most.own;
    *backward_scratch = shapes->batch * shapes->seq * shapes->d + shapes->threads * 2 * shapes->d + most.scratch;
}

/* ---- forwards ---- */

/* This thread's share of packing all Wᵀ. */
static void pack(const Block *b, float *packed, int me, int threads) {
    for (const Linear *layer = &b->query; layer <= &b->down; packed += packed_size(layer), layer++)
        for (int64_t end = panels(layer->out) * (me + 1) / threads, panel = panels(layer->out) * me / threads; panel < end; panel++) {
            int64_t first = panel * PANEL, rows = LEAST(PANEL, layer->out - first);
            transpose(rows, layer->in, layer->weight + first * layer->in, layer->in, packed + first * layer->in, PANEL);
        }
}

/* The first branch up to the attention, for n tokens from t on. */
static void queries_keys_values(const Block *b, const Kept *k, const float *packed, const float *x, int64_t t, int64_t n, float *normed,
                                Clock *clock) {
    int64_t wide = width_of(b), d = b->d_head, both = b->heads + b->kv_heads;
    float *qkv = k->qkv + t * wide, *to = qkv;
    for (int64_t i = 0; i < n; i++) normalise(&b->norm1, x + (t + i) * b->d, normed + i * b->d);
    lap(clock, NORM);
    for (const Linear *layer = &b->query; layer <= &b->value; to += layer->out, layer++) {
        forwards(layer, packed_at(b, packed, layer), n, normed, b->d, to, wide);
    }
    lap(clock, QKV);
    for (int64_t i = 0; i < n && b->q_norm.weight; i++) {
        float *raw = k->raw + (t + i) * both * d;
        memcpy(raw, qkv + i * wide, both * d * sizeof(float));
        for (int64_t h = 0; h < both; h++) normalise(h < b->heads ? &b->q_norm : &b->k_norm, raw + h * d, qkv + i * wide + h * d);
    }
    if (b->q_norm.weight) lap(clock, QK_NORM);
    for (int64_t i = 0; i < n && b->cosines; i++)
        for (int64_t h = 0; h < both; h++) turn(b, qkv + i * wide + h * d, (t + i) % b->seq, 1);
    if (b->cosines) lap(clock, ROTARY);
}

/* out (n, d) = stream + drop · (x Wᵀ + bias), through `branch`, which stays in the cache. */
static void add_branch(const Block *b, const Linear *layer, const float *packed, const float *drop, const float *restrict stream,
                       const float *x, int64_t n, float *restrict branch, float *restrict out, Clock *clock, int part) {
    forwards(layer, packed_at(b, packed, layer), n, x, layer->in, branch, b->d);
    if (drop)
        for (int64_t i = 0; i < n * b->d; i++) out[i] = stream[i] + drop[i] * branch[i];
    else
        for (int64_t i = 0; i < n * b->d; i++) out[i] = stream[i] + branch[i];
    lap(clock, part);
}

/* All that follows the attention. */
static void after_attention(const Block *b, const Kept *k, const float *packed, const float *x, int64_t t, int64_t n, float *space,
                            float *out, Clock *clock) {
    int64_t at = t * b->d;
    float *normed = space, *bent = space + TOKENS * b->d, *middle = k->middle + at;
    const float *drop1 = b->drop1 ? b->drop1 + at : 0, *drop2 = b->drop2 ? b->drop2 + at : 0;
    add_branch(b, &b->project, packed, drop1, x + at, k->seen + t * b->project.in, n, normed, middle, clock, PROJECT);
    for (int64_t i = 0; i < n; i++) normalise(&b->norm2, middle + i * b->d, normed + i * b->d);
    lap(clock, NORM);
    float *up = k->up + t * b->ff, *gate = b->gate.weight ? k->gate + t * b->ff : 0;
    forwards(&b->up, packed_at(b, packed, &b->up), n, normed, b->d, up, b->ff);
    if (gate) {
        forwards(&b->gate, packed_at(b, packed, &b->gate), n, normed, b->d, gate, b->ff);
    }
    lap(clock, UP);
    activate(b->activation, n * b->ff, gate ? gate : up, up, bent);
    lap(clock, ACTIVATION);
    add_branch(b, &b->down, packed, drop2, middle, bent, n, normed, out + at, clock, DOWN);
}

/* What a thread does with tokens that are its own. */
typedef struct {
    const Block *b;
    const float *x, *dout, *packed;
    float *out, *dx, *own;
    Kept k;
    Scratch s;
    Sums sums;
    Clock clock;
} Work;

static void forwards_before(Work *w, int64_t t, int64_t end) {
    for (; t < end; t += TOKENS) queries_keys_values(w->b, &w->k, w->packed, w->x, t, LEAST(TOKENS, end - t), w->own, &w->clock);
}

/* The attention of pairs of a row and a head of keys, from `pair` on. */
static void forwards_between(Work *w, int64_t pair, int64_t end) {
    const Block *b = w->b;
    for (int64_t i = pair * b->heads / b->kv_heads; i < end * b->heads / b->kv_heads; i++) {
        int64_t row = i / b->heads, h = i % b->heads;
        Head head = head_at(b, w->k.qkv, 0, row, h);
        attend(b, &head, w->k.seen + row * b->seq * head.inner + h * b->d_head, w->k.logs + i * b->seq, w->own);
    }
    lap(&w->clock, ATTENTION);
}

static void forwards_after(Work *w, int64_t t, int64_t end) {
    for (; t < end; t += TOKENS) after_attention(w->b, &w->k, w->packed, w->x, t, LEAST(TOKENS, end - t), w->own, w->out, &w->clock);
}

typedef void (*Stage)(Work *, int64_t, int64_t);

/* The three stages for all rows of the batch. Where rows can be dealt out evenly, a thread takes a few rows through all of them while what
   they leave lies in its own cache, and waits for nobody; else all threads meet before and after the attention. */
static void stages(Work *w, Stage before, Stage between, Stage after, int me, int threads) {
    const Block *b = w->b;
    int64_t rows = b->batch / threads, few = MOST(1, TOKENS / b->seq), T = b->batch * b->seq, pairs = b->batch * b->kv_heads;
    if (b->batch % threads == 0) {
        for (int64_t row = rows * me; row < rows * (me + 1); row += few) {
            int64_t end = LEAST(row + few, rows * (me + 1));
            before(w, row * b->seq, end * b->seq);
            between(w, row * b->kv_heads, end * b->kv_heads);
            after(w, row * b->seq, end * b->seq);
        }
        return;
    }
    before(w, T * me / threads, T * (me + 1) / threads);
#pragma omp barrier
    lap(&w->clock, WAITING);
    between(w, pairs * me / threads, pairs * (me + 1) / threads);
#pragma omp barrier
    lap(&w->clock, WAITING);
    after(w, T * me / threads, T * (me + 1) / threads);
}

/* out (T, d) from x (T, d) through n layers and the norm behind them, if `tensors` have one; `kept` is for the backward pass. Adds to `spent`
   (PARTS, or NULL) what the first thread's time went to. */
void forward(int64_t n, const Block *shapes, const Norm *norm, float *const *tensors, const float *x, float *out, float *kept, float *scratch,
             double *spent) {
    Layer layers[n];
    lay_out(n, shapes, tensors, 0, x, out, kept, layers);
    const Norm last = last_norm(norm, tensors, 0);
    const Most most = most_of(n, layers);
    int64_t T = shapes->batch * shapes->seq, d = shapes->d;
#pragma omp parallel num_threads(shapes->threads)
    {
        int me = omp_get_thread_num(), threads = omp_get_num_threads();
        Work w = {.own = scratch + 2 * most.packed + me * most.own, .clock = {me ? 0 : spent, spent ? now() : 0}};
        for (int64_t i = 0; i < n; i++) {
            const Layer *layer = layers + i;
            float *packed = scratch + i % 2 * most.packed; /* another thread may still read the one before */
            pack(&layer->b, packed, me, threads);
            lap(&w.clock, QKV);
#pragma omp barrier
            lap(&w.clock, WAITING);
            w.b = &layer->b, w.k = layer->k, w.x = layer->x, w.out = layer->out, w.packed = packed;
            stages(&w, forwards_before, forwards_between, forwards_after, me, threads);
        }
        for (int64_t t = T * me / threads; t < T * (me + 1) / threads && last.weight; t++) /* the tokens that it has had */
            normalise(&last, w.out + t * d, out + t * d);
        lap(&w.clock, NORM);
#pragma omp barrier
        lap(&w.clock, WAITING);
    }
}

/* ---- backwards ---- */

/* dbranch = drop · dy, or dy itself: the gradient of a branch before its dropout, (T, d), worked out for n tokens from t on. */
static const float *through_dropout(const Block *b, const float *drop, const float *dy, int64_t t, int64_t n, float *dbranch) {
    if (!drop) return dy;
    for (int64_t i = t * b->d; i < (t + n) * b->d; i++) dbranch[i] = drop[i] * dy[i];
    return dbranch;
}

/* From dout to the gradients of the stream between the branches and of what attention gathered. */
static void before_attention(const Block *b, const Kept *k, const Scratch *s, const float *dout, int64_t t, int64_t n,
                             float *dnormed, float *sums, Clock *clock) {
    float *up = k->up + t * b->ff, *dup = s->dup + t * b->ff, *bent = s->bent + t * b->ff;
    float *gate = b->gate.weight ? k->gate + t * b->ff : 0, *dgate = s->dgate + t * b->ff;
    const float *dbranch = through_dropout(b, b->drop2, dout, t, n, s->dbranch2);
    backwards(&b->down, n, dbranch + t * b->d, b->d, 0, gate ? dgate : dup, b->ff);
    lap(clock, DOWN);
    if (gate) activate_backwards(b->activation, n * b->ff, gate, up, dgate, dup, bent);
    else activate_backwards(b->activation, n * b->ff, up, 0, dup, 0, bent);
    lap(clock, ACTIVATION);
    backwards(&b->up, n, dup, b->ff, 0, dnormed, b->d);
    if (gate) backwards(&b->gate, n, dgate, b->ff, 1, dnormed, b->d);
    lap(clock, UP);
    for (int64_t i = t; i < t + n; i++) {
        int64_t at = i * b->d;
        const float *dy = dnormed + (i - t) * b->d;
        normalise_backwards(&b->norm2, k->middle + at, dy, dout + at, s->dmiddle + at, sums, s->normed2 + at);
    }
    lap(clock, NORM);
    const float *dproject = through_dropout(b, b->drop1, s->dmiddle, t, n, s->dbranch1);
    float *dseen = s->dseen + t * b->project.in;
    backwards(&b->project, n, dproject + t * b->d, b->d, 0, dseen, b->project.in);
    lap(clock, PROJECT);
}

/* From the gradients of queries, keys and values to that of x. */
static void to_the_input(const Block *b, const Kept *k, const Scratch *s, const float *x, int64_t t, int64_t n,
                         float *dnormed, Sums *sums, float *dx, Clock *clock) {
    int64_t wide = width_of(b), d = b->d_head, both = b->heads + b->kv_heads;
    float *dqkv = s->dqkv + t * wide;
    for (int64_t i = 0; i < n && b->cosines; i++)
        for (int64_t h = 0; h < both; h++) turn(b, dqkv + i * wide + h * d, (t + i) % b->seq, -1);
    if (b->cosines) lap(clock, ROTARY);
    for (int64_t i = 0; i < n && b->q_norm.weight; i++)
        for (int64_t h = 0; h < both; h++) {
            float *gradient = dqkv + i * wide + h * d;
            const float *raw = k->raw + ((t + i) * both + h) * d;
            int query = h < b->heads;
            normalise_backwards(query ? &b->q_norm : &b->k_norm, raw, gradient, 0, gradient, query ? sums->q_norm : sums->k_norm, 0);
        }
    if (b->q_norm.weight) lap(clock, QK_NORM);
    for (const Linear *layer = &b->query; layer <= &b->value; dqkv += layer->out, layer++)
        backwards(layer, n, dqkv, wide, layer == &b->query ? 0 : 1, dnormed, b->d);
    lap(clock, QKV);
    for (int64_t i = t; i < t + n; i++) {
        int64_t at = i * b->d;
        const float *dy = dnormed + (i - t) * b->d;
        normalise_backwards(&b->norm1, x + at, dy, s->dmiddle + at, dx + at, sums->norm1, s->normed1 + at);
    }
    lap(clock, NORM);
}

/* This thread's share of all gradients of matrices and their biases. */
static void all_gradients(Work *w, int me, int threads) {
    const Block *b = w->b;
    const Kept *k = &w->k;
    const Scratch *s = &w->s;
    Clock *clock = &w->clock;
    int64_t T = b->batch * b->seq, wide = width_of(b);
    const float *dqkv = s->dqkv;
    for (const Linear *layer = &b->query; layer <= &b->value; dqkv += layer->out, layer++)
        gradients(layer, T, dqkv, wide, s->normed1, b->d, me, threads);
    lap(clock, QKV);
    gradients(&b->project, T, b->drop1 ? s->dbranch1 : s->dmiddle, b->d, k->seen, b->project.in, me, threads);
    lap(clock, PROJECT);
    if (b->gate.weight) gradients(&b->gate, T, s->dgate, b->ff, s->normed2, b->d, me, threads);
    gradients(&b->up, T, s->dup, b->ff, s->normed2, b->d, me, threads);
    lap(clock, UP);
    gradients(&b->down, T, b->drop2 ? s->dbranch2 : w->dout, b->d, s->bent, b->ff, me, threads);
    lap(clock, DOWN);
}

/* A norm's gradients: all threads' sums, which lie `step` numbers apart, in their order. */
static void add_up(const Norm *norm, const float *sums, int64_t step, int threads) {
    float *to[] = {norm->dweight, norm->dbias};
    for (int part = 0; part < 2; part++, sums += norm->width) {
        if (!to[part]) continue;
        for (int64_t j = 0; j < norm->width; j++) {
            to[part][j] = sums[j];
            for (int thread = 1; thread < threads; thread++) to[part][j] += sums[thread * step + j];
        }
    }
}

static void backwards_before(Work *w, int64_t t, int64_t end) {
    for (; t < end; t += TOKENS)
        before_attention(w->b, &w->k, &w->s, w->dout, t, LEAST(TOKENS, end - t), w->own, w->sums.norm2, &w->clock);
}

static void backwards_between(Work *w, int64_t pair, int64_t end) {
    const Block *b = w->b;
    int64_t share = b->heads / b->kv_heads;
    for (int64_t i = pair * share; i < end * share; i++) {
        int64_t row = i / b->heads, h = i % b->heads;
        Head head = head_at(b, w->k.qkv, w->s.dqkv, row, h);
        const float *dseen = w->s.dseen + row * b->seq * head.inner + h * b->d_head;
        attend_backwards(b, &head, i % share == 0, dseen, w->k.logs + i * b->seq, w->own);
    }
    lap(&w->clock, ATTENTION);
}

static void backwards_after(Work *w, int64_t t, int64_t end) {
    for (; t < end; t += TOKENS)
        to_the_input(w->b, &w->k, &w->s, w->x, t, LEAST(TOKENS, end - t), w->own, &w->sums, w->dx, &w->clock);
}

/* dx (T, d) and the `gradients` that are not NULL, from dout (T, d) and what `forward` was given and kept. */
void backward(int64_t n, const Block *shapes, const Norm *norm, float *const *tensors, float *const *gradients, const float *x,
              const float *dout, float *dx, float *kept, float *scratch, double *spent) {
    Layer layers[n];
    lay_out(n, shapes, tensors, gradients, x, 0, kept, layers);
    const Norm last = last_norm(norm, tensors, gradients);
    int64_t T = shapes->batch * shapes->seq, d = shapes->d;
    float *between = scratch, *last_sums = between + T * d, *rest = last_sums + shapes->threads * 2 * d;
#pragma omp parallel num_threads(shapes->threads)
    {
        int me = omp_get_thread_num(), threads = omp_get_num_threads();
        Work w = {.dout = dout, .clock = {me ? 0 : spent, spent ? now() : 0}};
        if (last.weight) {
            float *sums = last_sums + me * 2 * d, *to = n % 2 ? between : dx;
            memset(sums, 0, 2 * d * sizeof *sums);
            for (int64_t t = T * me / threads; t < T * (me + 1) / threads; t++)
                normalise_backwards(&last, layers[n - 1].out + t * d, dout + t * d, 0, to + t * d, sums, 0);
            w.dout = to;
            lap(&w.clock, NORM);
        }
        for (int64_t i = n - 1; i >= 0; i--, w.dout = w.dx) {
            const Layer *layer = layers + i;
            const Block *b = w.b = &layer->b;
            w.k = layer->k, w.x = layer->x, w.dx = i % 2 ? between : dx, w.s = scratch_at(b, rest);
            w.own = w.s.own + me * own_size(b);
            w.sums = sums_at(b, w.s.sums + me * sums_size(b));
            memset(w.sums.norm1, 0, sums_size(b) * sizeof(float));
            stages(&w, backwards_before, backwards_between, backwards_after, me, threads);
#pragma omp barrier
            lap(&w.clock, WAITING);
            all_gradients(&w, me, threads);
            const float *all[] = {w.sums.norm1, w.sums.norm2, w.sums.q_norm, w.sums.k_norm};
            for (int part = 0; part < 4 && me == 0; part++) add_up(&b->norm1 + part, all[part], sums_size(b), threads);
            lap(&w.clock, NORM);
#pragma omp barrier
            lap(&w.clock, WAITING); /* from here on nobody reads what this layer left */
        }
        if (me == 0) add_up(&last, last_sums, 2 * d, threads);
    }
}
