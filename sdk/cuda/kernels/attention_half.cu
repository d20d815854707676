// Attention over runs with products on tensor cores: operands and results in bfloat16 or half precision, sums and
// softmax in f32. Gradients are bfloat16, and so are the operands of their products; what half precision kept is
// converted on the way.
//
// The tiles are those of attention.cu. A block has four warps, each with 16 of its rows: queries forward and for
// their gradient, keys for theirs. Scores stay in registers, where what one product gives lies as the next one wants
// it (Dao, "FlashAttention-2", 2023); the next tile is copied while one is computed. Forward leaves dropout's
// decisions, a bit each, so that backward need not draw them again.
#include "attention.cuh"
#include "tensor_cores.cuh"

#define THREADS 128
#define LOG2_E 1.4426950408889634f
#define LN_2 0.69314718055994531f

// Tiles in shared memory at once of what is streamed; large heads have room for one on cards with 100 KiB.
#define STAGES(D) ((D) <= 64 ? 2 : 1)

// Elements of a tile [TILE][D + 8]; eight more a row keep the rows of a matrix in different banks.
#define OPERAND(D) (TILE * ((D) + 8))

// Columns of scores that the gradients work on at once: as few as a product has, which leaves registers for more
// blocks.
#define PART 16

// Whether the left sides of a gradient's products stay in registers; large heads need those for their results.
#define HELD(D) ((D) <= 64)

// Eight elements from global to shared memory, converted if their types differ; zeros if they are not inside.
template <typename T>
__device__ __forceinline__ void eight(const T* from, T* to, bool inside) {
    et_copy<16>(to, from, inside);
}
template <typename T, typename S>
__device__ __forceinline__ void eight(const S* from, T* to, bool inside) {
    EtGroup<T, 8> out;
    EtGroup<S, 8> in;
    if (inside) {
        in = *(const EtGroup<S, 8>*)from;
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        out.x[j] = et_narrow<T>(inside ? et_wide(in.x[j]) : 0.0f);
    }
    *(EtGroup<T, 8>*)to = out;
}

// Where forward keeps a key of a tile: 16 keys lie so that what a lane has of their scores are four keys in a row,
// which one draw of random numbers serves.
__device__ __forceinline__ int place_of(int key) { return key / 16 * 16 + key % 4 / 2 * 8 + key % 16 / 4 * 2 + key % 2; }
// The key of element e of the scores c[j] of a lane with l % 4 = t.
__device__ __forceinline__ int key_of(int j, int t, int e) { return j / 2 * 16 + 4 * t + j % 2 * 2 + e % 2; }

// Begins to copy rows first..first + count of one head, stored as S, to out[row][column]; missing rows and columns
// are zeros. PLACED: rows are keys that go to their places.
template <typename T, int D, bool PLACED = false, typename S>
__device__ __forceinline__ void load(const S* x, uint64_t step, uint32_t head_size, uint64_t first, int count, T* out) {
    if ((((uintptr_t)x & 15) | (step & 7) | (head_size & 7)) == 0) {
#pragma unroll
        for (int turn = 0; turn < TILE * D / 8 / THREADS; ++turn) {
            int i = turn * THREADS + threadIdx.x;
            int row = i / (D / 8), col = i % (D / 8) * 8;
            bool inside = row < count && col < (int)head_size;
            eight(inside ? x + (first + row) * step + col : x, out + (PLACED ? place_of(row) : row) * (D + 8) + col, inside);
        }
        return;
    }
    for (int i = threadIdx.x; i < TILE * D; i += THREADS) {
        int row = i / D, col = i % D;
        bool inside = row < count && col < (int)head_size;
        out[(PLACED ? place_of(row) : row) * (D + 8) + col] = et_narrow<T>(inside ? et_wide(x[(first + row) * step + col]) : 0.0f);
    }
}

// Copies that are made while the tile before them is computed, or after it where memory holds one tile. A block has
// begun with that of the first step; all its threads call both.
template <int D, typename F>
__device__ __forceinline__ void copy_ahead(int step, int steps, const F& fetch) {
    if (STAGES(D) == 2) {
        if (step + 1 < steps) {
            fetch(step + 1);
        }
        et_copies_end();
    }
}
template <int D, typename F>
__device__ __forceinline__ void copy_after(int step, int steps, const F& fetch) {
    __syncthreads();
    if (STAGES(D) == 1 && step + 1 < steps) {
        fetch(step + 1);
        et_copies_end();
    }
}
// Waits until the tile of this step is there.
template <int D>
__device__ __forceinline__ void await_copy() {
    et_copies_wait<STAGES(D) - 1>();
    __syncthreads();
}

template <int N>
__device__ __forceinline__ void clear(float (&c)[N][4]) {
#pragma unroll
    for (int j = 0; j < N; ++j) {
        c[j][0] = c[j][1] = c[j][2] = c[j][3] = 0.0f;
    }
}

// A left side [16][D] as lanes hold it.
template <typename T, int D>
struct Left {
    uint32_t part[D / 16][4];

    __device__ __forceinline__ void fetch(const T* a) {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int k = 0; k < D / 16; ++k) {
            et_matrices<false>(part[k], a + lane % 16 * (D + 8) + k * 16 + lane / 16 * 8);
        }
    }
};

// c [16][8 N] = a b^T: 8 N rows of b. All of them, though a run may be shorter: branches between the instructions
// would let each wait alone.
template <typename T, int D, int N>
__device__ __forceinline__ void product(const Left<T, D>& a, const T* b, float (&c)[N][4]) {
    int lane = threadIdx.x % 32;
    clear(c);
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
#pragma unroll
        for (int j = 0; j < N / 2; ++j) {
            uint32_t right[4];
            et_matrices<false>(right, b + (16 * j + lane / 16 * 8 + lane % 8) * (D + 8) + k * 16 + lane / 8 % 2 * 8);
            et_mma<T>(c[2 * j], a.part[k], right[0], right[1]);
            et_mma<T>(c[2 * j + 1], a.part[k], right[2], right[3]);
        }
    }
}

// c [16][D] += weights values: 8 N rows of values.
template <typename T, int D, int N>
__device__ __forceinline__ void accumulate(const float (&weights)[N][4], const T* values, float (&c)[D / 8][4]) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < N / 2; ++k) {
        // What a lane has of a result is what it has to have of a left side.
        uint32_t left[4], right[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            left[i] = et_pair<T>(weights[2 * k + i / 2][i % 2 * 2], weights[2 * k + i / 2][i % 2 * 2 + 1]);
        }
#pragma unroll
        for (int j = 0; j < D / 16; ++j) {
            et_matrices<true>(right, values + (16 * k + lane % 16) * (D + 8) + 16 * j + lane / 16 * 8);
            et_mma<T>(c[2 * j], left, right[0], right[1]);
            et_mma<T>(c[2 * j + 1], left, right[2], right[3]);
        }
    }
}

// Writes a warp's [16][D] times a factor for its rows g and for its rows g + 8; rows past `rows` and columns past the
// head's are left out.
template <typename T, int D>
__device__ __forceinline__ void write(const float (&c)[D / 8][4], const float (&factor)[2], T* to, uint64_t width, uint32_t head_size,
                                      int rows) {
    int lane = threadIdx.x % 32;
    bool pairs = ((width | head_size) & 1) == 0;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        int row = lane / 4 + 8 * i;
        if (row >= rows) {
            continue;
        }
        T* start = to + row * width;
#pragma unroll
        for (int j = 0; j < D / 8; ++j) {
            int col = 8 * j + lane % 4 * 2;
            float low = c[j][2 * i] * factor[i], high = c[j][2 * i + 1] * factor[i];
            if (pairs && col < (int)head_size) {
                *(uint32_t*)(start + col) = et_pair<T>(low, high);
            } else if (col < (int)head_size) {
                start[col] = et_narrow<T>(low);
                if (col + 1 < (int)head_size) {
                    start[col + 1] = et_narrow<T>(high);
                }
            }
        }
    }
}

// Combines what the four lanes of a row have.
__device__ __forceinline__ float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// Where the decisions for a query's keys lie, 64 to a word.
__device__ __forceinline__ uint64_t mask_start(const EtAttention& a, const EtRun& run, int head, int query) {
    return ((uint64_t)(run.query + query) * a.heads + head) * a.mask_words;
}

// Draws dropout's decisions for a warp's scores [16][64] from element (query, key) on, of which rows below `rows` and
// keys below `limit` matter, and keeps them in `mask`. Bit 2 j + e % 2 of out[e / 2] is that of element e of c[j]: 1
// if it stays.
__device__ __forceinline__ void draw(const EtAttention& a, const EtRun& run, int head, int query, int key, int rows, int limit,
                                     uint64_t* mask, uint32_t (&out)[2]) {
    int lane = threadIdx.x % 32, t = lane % 4;
    out[0] = out[1] = 0;
    uint64_t element[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        element[i] = a.dropout.offset + random_element(a, run, head, query + lane / 4 + 8 * i, key + 4 * t);
    }
    auto decide = [&](auto words_of) {
#pragma unroll 2
        for (int j = 0; j < 4; ++j) {
            if (16 * j >= limit) {
                break;
            }
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                EtWords words = words_of(element[i] + 16 * j);
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    out[i] |= (uint32_t)(words.w[e] >= a.dropout.threshold) << (4 * j + e);
                }
            }
        }
    };
    // Rows begin with a block of random numbers wherever the stream does: several draws without a branch between them.
    if ((a.dropout.offset & 3) == 0) {
        decide([&](uint64_t at) { return et_block(a.dropout.seed, a.dropout.stream, at >> 2); });
    } else {
        decide([&](uint64_t at) { return et_words4(a.dropout.seed, a.dropout.stream, at); });
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        uint32_t low = ((out[i] & 15) | (out[i] >> 4 & 15) << 16) << (4 * t), high = ((out[i] >> 8 & 15) | (out[i] >> 12) << 16) << (4 * t);
        low |= __shfl_xor_sync(0xffffffffu, low, 1);
        high |= __shfl_xor_sync(0xffffffffu, high, 1);
        low |= __shfl_xor_sync(0xffffffffu, low, 2);
        high |= __shfl_xor_sync(0xffffffffu, high, 2);
        int row = lane / 4 + 8 * i;
        if (t == 0 && row < rows) {
            mask[mask_start(a, run, head, query + row) + key / TILE] = (uint64_t)high << 32 | low;
        }
    }
}

template <typename T, int D>
__device__ __forceinline__ void forward(const EtAttention& a, const EtRun* runs, const EtTile* tiles, const T* q, const T* k, const T* v,
                                        T* o, float* lse, uint64_t* mask) {
    ET_DYNAMIC(unsigned char, shared);
    T* qs = (T*)shared;
    T* ks = qs + OPERAND(D);
    T* vs = ks + STAGES(D) * OPERAND(D);
    EtTile tile = tiles[blockIdx.x];
    EtRun run = runs[tile.run];
    int head = blockIdx.y, lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16;
    int rows = min((int)run.queries - (int)tile.first, TILE);
    uint32_t column = head * a.head_size;
    int query = (int)tile.first + own;
    int last_seen = visible(a, run, (int)tile.first + rows - 1), steps = (last_seen + TILE - 1) / TILE;
    auto fetch = [&](int step) {
        int first = step * TILE, count = min((int)run.keys - first, TILE), stage = step % STAGES(D) * OPERAND(D);
        load<T, D, true>(k + column, a.key_step, a.head_size, run.key + first, count, ks + stage);
        load<T, D, true>(v + column, a.value_step, a.head_size, run.key + first, count, vs + stage);
    };
    float scale = a.scale * LOG2_E;
    float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
    int seen[2] = {visible(a, run, query + lane / 4), visible(a, run, query + lane / 4 + 8)};
    float result[D / 8][4];
    clear(result);
    if (steps > 0) {
        load<T, D>(q + column, a.query_step, a.head_size, run.query + tile.first, rows, qs);
        fetch(0);
        et_copies_end();
    }
    for (int step = 0; step < steps; ++step) {
        copy_ahead<D>(step, steps, fetch);
        int first = step * TILE, count = min((int)run.keys - first, TILE), stage = step % STAGES(D) * OPERAND(D);
        // While the tile is under way.
        uint32_t kept[2];
        if (a.has_dropout && own < rows) {
            draw(a, run, head, query, first, rows - own, count, mask, kept);
        }
        await_copy<D>();
        if (own < rows) {
            float s[8][4];
            Left<T, D> left;
            left.fetch(qs + own * (D + 8));
            product<T, D>(left, ks + stage, s);
            bool partial = a.causal || count < TILE;
#pragma unroll
            for (int j = 0; j < 8; ++j) {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    s[j][e] *= scale;
                    if (partial && first + key_of(j, lane % 4, e) >= seen[e / 2]) {
                        s[j][e] = -INFINITY;
                    }
                }
            }
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                float here = -INFINITY;
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    here = fmaxf(here, fmaxf(s[j][2 * i], s[j][2 * i + 1]));
                }
                float next = fmaxf(largest[i], row_max(here));
                // A row that has seen no key yet stays empty.
                float base = next == -INFINITY ? 0.0f : next;
                float correction = et_exp2(largest[i] - base);
                largest[i] = next;
                sum[i] *= correction;
#pragma unroll
                for (int j = 0; j < 8; ++j) {
#pragma unroll
                    for (int e = 2 * i; e < 2 * i + 2; ++e) {
                        s[j][e] = et_exp2(s[j][e] - base);
                        sum[i] += s[j][e];
                        if (a.has_dropout) {
                            s[j][e] = kept[i] >> (2 * j + e % 2) & 1 ? s[j][e] : 0.0f;
                        }
                    }
                }
#pragma unroll
                for (int j = 0; j < D / 8; ++j) {
                    result[j][2 * i] *= correction;
                    result[j][2 * i + 1] *= correction;
                }
            }
            accumulate<T, D>(s, vs + stage, result);
        }
        copy_after<D>(step, steps, fetch);
    }
    uint64_t width = (uint64_t)a.heads * a.head_size, at = run.query + query;
    float factor[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        int row = lane / 4 + 8 * i;
        float whole = row_sum(sum[i]);
        factor[i] = whole > 0.0f ? (a.has_dropout ? a.dropout.scale : 1.0f) / whole : 0.0f;
        if (lane % 4 == 0 && own + row < rows) {
            lse[(at + row) * a.heads + head] = whole > 0.0f ? largest[i] * LN_2 + logf(whole) : -INFINITY;
        }
    }
    write<T, D>(result, factor, o + at * width + column, width, a.head_size, rows - own);
}

// A probability and the gradient of its score before scaling, from the score and from do v^T.
struct ScoreSlope {
    float probability, gradient;
};
__device__ __forceinline__ ScoreSlope slope_of(const EtAttention& a, float score, float normalizer, float along, float level, bool hidden,
                                               bool kept) {
    float probability = hidden ? 0.0f : et_exp2(score * (a.scale * LOG2_E) - normalizer);
    along = a.has_dropout ? (kept ? along * a.dropout.scale : 0.0f) : along;
    ScoreSlope slope = {kept ? probability : 0.0f, probability * (along - level)};
    return slope;
}

template <typename S, int D>
__device__ __forceinline__ void query_gradient(const EtAttention& a, const EtRun* runs, const EtTile* tiles, const S* q, const S* k,
                                               const S* v, const __nv_bfloat16* d_o, const float* lse, const float* delta,
                                               const uint64_t* mask, __nv_bfloat16* dq) {
    using T = __nv_bfloat16;
    ET_DYNAMIC(unsigned char, shared);
    T* qs = (T*)shared;
    T* os = qs + OPERAND(D);
    T* ks = os + OPERAND(D);
    T* vs = ks + STAGES(D) * OPERAND(D);
    EtTile tile = tiles[blockIdx.x];
    EtRun run = runs[tile.run];
    int head = blockIdx.y, lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16;
    int rows = min((int)run.queries - (int)tile.first, TILE);
    uint32_t column = head * a.head_size;
    uint64_t width = (uint64_t)a.heads * a.head_size;
    int query = (int)tile.first + own;
    int last_seen = visible(a, run, (int)tile.first + rows - 1), steps = (last_seen + TILE - 1) / TILE;
    auto fetch = [&](int step) {
        int first = step * TILE, count = min((int)run.keys - first, TILE), stage = step % STAGES(D) * OPERAND(D);
        load<T, D>(k + column, a.key_step, a.head_size, run.key + first, count, ks + stage);
        load<T, D>(v + column, a.value_step, a.head_size, run.key + first, count, vs + stage);
    };
    int seen[2];
    float normalizer[2], level[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        int row = lane / 4 + 8 * i;
        bool inside = own + row < rows;
        uint64_t at = (uint64_t)(run.query + query + row) * a.heads + head;
        seen[i] = inside ? visible(a, run, query + row) : 0;
        normalizer[i] = inside ? lse[at] * LOG2_E : 0.0f;
        level[i] = inside ? delta[at] : 0.0f;
    }
    Left<T, D> left_q, left_o;
    float result[D / 8][4];
    clear(result);
    if (steps > 0) {
        load<T, D>(q + column, a.query_step, a.head_size, run.query + tile.first, rows, qs);
        load<T, D>(d_o + column, width, a.head_size, run.query + tile.first, rows, os);
        fetch(0);
        et_copies_end();
    }
    for (int step = 0; step < steps; ++step) {
        copy_ahead<D>(step, steps, fetch);
        await_copy<D>();
        int first = step * TILE, count = min((int)run.keys - first, TILE), stage = step % STAGES(D) * OPERAND(D);
        if (HELD(D) && step == 0) {
            left_q.fetch(qs + own * (D + 8));
            left_o.fetch(os + own * (D + 8));
        }
        bool partial = a.causal || count < TILE;
        uint64_t kept[2] = {0, 0};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            if (a.has_dropout && own + lane / 4 + 8 * i < rows) {
                kept[i] = mask[mask_start(a, run, head, query + lane / 4 + 8 * i) + step];
            }
        }
#pragma unroll
        for (int part = 0; part < TILE; part += PART) {
            if (own >= rows || part >= count) {
                continue;
            }
            const T *k_part = ks + stage + part * (D + 8), *v_part = vs + stage + part * (D + 8);
            float s[PART / 8][4], along[PART / 8][4];
            if (!HELD(D)) {
                left_q.fetch(qs + own * (D + 8));
                left_o.fetch(os + own * (D + 8));
            }
            product<T, D>(left_q, k_part, s);
            product<T, D>(left_o, v_part, along);
#pragma unroll
            for (int j = 0; j < PART / 8; ++j) {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    int i = e / 2, key = part + 8 * j + lane % 4 * 2 + e % 2;
                    bool hidden = partial && first + key >= seen[i];
                    s[j][e] = slope_of(a, s[j][e], normalizer[i], along[j][e], level[i], hidden, kept[i] >> key & 1).gradient;
                }
            }
            accumulate<T, D>(s, k_part, result);
        }
        copy_after<D>(step, steps, fetch);
    }
    float factor[2] = {a.scale, a.scale};
    write<T, D>(result, factor, dq + (uint64_t)(run.query + query) * width + column, width, a.head_size, rows - own);
}

// Of each query of a tile: log of the sum of its exponentials, sum of do * o, decisions.
struct Levels {
    float lse[TILE];
    float delta[TILE];
    uint64_t mask[TILE];
};

template <typename S, int D>
__device__ __forceinline__ void key_gradient(const EtAttention& a, const EtRun* runs, const EtTile* tiles, const S* q, const S* k,
                                             const S* v, const __nv_bfloat16* d_o, const float* lse, const float* delta,
                                             const uint64_t* mask, __nv_bfloat16* dk, __nv_bfloat16* dv) {
    using T = __nv_bfloat16;
    ET_DYNAMIC(unsigned char, shared);
    Levels* levels = (Levels*)shared;
    T* ks = (T*)(levels + STAGES(D));
    T* vs = ks + OPERAND(D);
    T* qs = vs + OPERAND(D);
    T* os = qs + STAGES(D) * OPERAND(D);
    EtTile tile = tiles[blockIdx.x];
    EtRun run = runs[tile.run];
    int head = blockIdx.y, lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16;
    int count = min((int)run.keys - (int)tile.first, TILE);
    uint32_t column = head * a.head_size;
    uint64_t width = (uint64_t)a.heads * a.head_size;
    auto fetch = [&](int step) {
        int first = step * TILE, rows = min((int)run.queries - first, TILE), place = step % STAGES(D);
        load<T, D>(q + column, a.query_step, a.head_size, run.query + first, rows, qs + place * OPERAND(D));
        load<T, D>(d_o + column, width, a.head_size, run.query + first, rows, os + place * OPERAND(D));
        int row = threadIdx.x % TILE;
        bool inside = row < rows;
        uint64_t at = inside ? (uint64_t)(run.query + first + row) * a.heads + head : 0;
        if (threadIdx.x < TILE) {
            et_copy<4>(&levels[place].lse[row], lse + at, inside);
            et_copy<4>(&levels[place].delta[row], delta + at, inside);
        } else if (a.has_dropout) {
            et_copy<8>(&levels[place].mask[row], mask + at * a.mask_words + tile.first / TILE, inside);
        }
    };
    int steps = ((int)run.queries + TILE - 1) / TILE, begin = 0;
    // Queries before the first key of the tile see nothing of it.
    while (begin < steps && visible(a, run, min((int)run.queries, (begin + 1) * TILE) - 1) <= (int)tile.first) {
        ++begin;
    }
    Left<T, D> left_k, left_v;
    float dks[D / 8][4], dvs[D / 8][4];
    clear(dks);
    clear(dvs);
    if (begin < steps) {
        load<T, D>(k + column, a.key_step, a.head_size, run.key + tile.first, count, ks);
        load<T, D>(v + column, a.value_step, a.head_size, run.key + tile.first, count, vs);
        fetch(begin);
        et_copies_end();
    }
    for (int step = begin; step < steps; ++step) {
        copy_ahead<D>(step, steps, fetch);
        await_copy<D>();
        int first = step * TILE, rows = min((int)run.queries - first, TILE), place = step % STAGES(D);
        const Levels& level = levels[place];
        if (HELD(D) && step == begin) {
            left_k.fetch(ks + own * (D + 8));
            left_v.fetch(vs + own * (D + 8));
        }
#pragma unroll
        for (int part = 0; part < TILE; part += PART) {
            if (own >= count || part >= rows) {
                continue;
            }
            const T *q_part = qs + place * OPERAND(D) + part * (D + 8), *o_part = os + place * OPERAND(D) + part * (D + 8);
            float s[PART / 8][4], along[PART / 8][4];
            if (!HELD(D)) {
                left_k.fetch(ks + own * (D + 8));
                left_v.fetch(vs + own * (D + 8));
            }
            product<T, D>(left_k, q_part, s);
            product<T, D>(left_v, o_part, along);
#pragma unroll
            for (int j = 0; j < PART / 8; ++j) {
#pragma unroll
                for (int odd = 0; odd < 2; ++odd) {
                    int row = part + 8 * j + lane % 4 * 2 + odd;
                    float normalizer = level.lse[row] * LOG2_E, delta_row = level.delta[row];
                    uint32_t kept = a.has_dropout ? (uint32_t)(level.mask[row] >> own) : 0xffffffffu;
                    int seen = visible(a, run, first + row) - (int)tile.first - own;
#pragma unroll
                    for (int i = 0; i < 2; ++i) {
                        int key = lane / 4 + 8 * i, e = 2 * i + odd;
                        ScoreSlope slope = slope_of(a, s[j][e], normalizer, along[j][e], delta_row, a.causal && key >= seen, kept >> key & 1);
                        s[j][e] = slope.probability;
                        along[j][e] = slope.gradient;
                    }
                }
            }
            accumulate<T, D>(s, o_part, dvs);
            accumulate<T, D>(along, q_part, dks);
        }
        copy_after<D>(step, steps, fetch);
    }
    uint64_t start = (uint64_t)(run.key + tile.first + own) * width + column;
    float of_keys[2] = {a.scale, a.scale}, of_values = a.has_dropout ? a.dropout.scale : 1.0f;
    float both[2] = {of_values, of_values};
    write<T, D>(dks, of_keys, dk + start, width, a.head_size, count - own);
    write<T, D>(dvs, both, dv + start, width, a.head_size, count - own);
}

// delta [queries, heads] = the sums over a head's columns of do * o. One warp per (query, head).
template <typename S>
__device__ __forceinline__ void levels(uint64_t count, uint32_t head_size, const S* o, const __nv_bfloat16* d_o, float* delta) {
    uint64_t at = blockIdx.x * 8ull + (threadIdx.x >> 5);
    if (at >= count) {
        return;
    }
    uint64_t start = at * head_size, end = start + head_size;
    float sum = 0.0f;
    for (uint64_t i = start + 4 * (threadIdx.x & 31); i < end; i += 128) {
        float x[4], g[4];
        et_load4(o, i, end, x);
        et_load4(d_o, i, end, g);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            sum += x[j] * g[j];
        }
    }
    sum = et_warp_sum(sum);
    if ((threadIdx.x & 31) == 0) {
        delta[at] = sum;
    }
}

#define KERNELS(name, S, D)                                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                                             \
        et_attention_forward_##name##_##D(EtAttention a, const EtRun* runs, const EtTile* tiles, const S* q, const S* k, const S* v,     \
                                          S* o, float* lse, uint64_t* mask) {                                                            \
        forward<S, D>(a, runs, tiles, q, k, v, o, lse, mask);                                                                            \
    }                                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, HELD(D) ? 4 : 2)                                                               \
        et_attention_query_##name##_##D(EtAttention a, const EtRun* runs, const EtTile* tiles, const S* q, const S* k, const S* v,       \
                                        const __nv_bfloat16* d_o, const float* lse, const float* delta, const uint64_t* mask,            \
                                        __nv_bfloat16* dq) {                                                                             \
        query_gradient<S, D>(a, runs, tiles, q, k, v, d_o, lse, delta, mask, dq);                                                        \
    }                                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, HELD(D) ? 3 : 2)                                                               \
        et_attention_key_##name##_##D(EtAttention a, const EtRun* runs, const EtTile* tiles, const S* q, const S* k, const S* v,         \
                                      const __nv_bfloat16* d_o, const float* lse, const float* delta, const uint64_t* mask,              \
                                      __nv_bfloat16* dk, __nv_bfloat16* dv) {                                                            \
        key_gradient<S, D>(a, runs, tiles, q, k, v, d_o, lse, delta, mask, dk, dv);                                                      \
    }
#define SIZES(name, S)                                                                                                                   \
    KERNELS(name, S, 32)                                                                                                                 \
    KERNELS(name, S, 64)                                                                                                                 \
    KERNELS(name, S, 96)                                                                                                                 \
    KERNELS(name, S, 128)                                                                                                                \
    extern "C" __global__ void et_attention_delta_##name(uint64_t count, uint32_t head_size, const S* o, const __nv_bfloat16* d_o,       \
                                                         float* delta) {                                                                 \
        levels(count, head_size, o, d_o, delta);                                                                                         \
    }
SIZES(bf16, __nv_bfloat16)
SIZES(f16, __half)
