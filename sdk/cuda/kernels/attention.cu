// Attention over runs in f32, tile by tile with a running maximum and sum (Dao, "FlashAttention-2", 2023). No
// atomics: the gradients of queries and those of keys and values come from two kernels that each own what they write,
// so results do not depend on timing.
//
// A block of 16 x 16 threads owns a tile of 64 queries (or keys) of one head. Thread (tx, ty) holds scores of rows 4
// ty .. 4 ty + 3 and columns 4 tx .. 4 tx + 3, and of the sums rows 4 ty .. and columns tx + 16 c. Operands lie
// transposed in shared memory, [column][row].
#include "attention.cuh"

// Copies rows first..first + count of one head to out[column][row]; missing rows and columns are zeros.
template <int D>
__device__ __forceinline__ void load(const float* x, uint64_t step, uint32_t head_size, uint64_t first, uint32_t count, float* out) {
    for (int i = threadIdx.x; i < TILE * D; i += 256) {
        int row = i / D, col = i % D;
        bool inside = row < (int)count && col < (int)head_size;
        out[col * PITCH + row] = inside ? x[(first + row) * step + col] : 0.0f;
    }
}

// s[i][j] = sum over columns of a[column][4 ty + i] b[column][4 tx + j].
template <int D>
__device__ __forceinline__ void product(const float* a, const float* b, int tx, int ty, float (&s)[4][4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            s[i][j] = 0.0f;
        }
    }
#pragma unroll 8
    for (int col = 0; col < D; ++col) {
        float4 x = *(const float4*)(a + col * PITCH + 4 * ty);
        float4 y = *(const float4*)(b + col * PITCH + 4 * tx);
        float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                s[i][j] += xs[i] * ys[j];
            }
        }
    }
}

// acc[i][c] += sum over k of weights[k][4 ty + i] values[column tx + 16 c][k].
template <int D>
__device__ __forceinline__ void accumulate(const float* weights, const float* values, int tx, int ty, float (&acc)[4][D / 16]) {
#pragma unroll 4
    for (int k = 0; k < TILE; ++k) {
        float4 w = *(const float4*)(weights + k * PITCH + 4 * ty);
        float ws[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
        for (int c = 0; c < D / 16; ++c) {
            float value = values[(tx + 16 * c) * PITCH + k];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                acc[i][c] += ws[i] * value;
            }
        }
    }
}

template <int D>
__device__ __forceinline__ void forward(EtAttention a, const EtRun* runs, const EtTile* tiles, const float* q, const float* k, const float* v,
                                        float* o, float* lse) {
    ET_DYNAMIC(float, shared);
    float* qs = shared;
    float* ks = qs + D * PITCH;
    float* vs = ks + D * PITCH;
    float* ps = vs + D * PITCH;
    EtTile tile = tiles[blockIdx.x];
    EtRun run = runs[tile.run];
    int head = blockIdx.y, tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    int rows = min((int)run.queries - (int)tile.first, TILE);
    uint32_t column = head * a.head_size;
    load<D>(q + column, a.query_step, a.head_size, run.query + tile.first, rows, qs);
    float acc[4][D / 16] = {};
    float largest[4], sum[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        largest[i] = -INFINITY;
        sum[i] = 0.0f;
    }
    int last_seen = visible(a, run, (int)tile.first + rows - 1);
    for (int first = 0; first < last_seen; first += TILE) {
        int count = min((int)run.keys - first, TILE);
        __syncthreads();
        load<D>(k + column, a.key_step, a.head_size, run.key + first, count, ks);
        load<D>(v + column, a.value_step, a.head_size, run.key + first, count, vs);
        __syncthreads();
        float s[4][4];
        product<D>(qs, ks, tx, ty, s);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int query = (int)tile.first + 4 * ty + i;
            int seen = visible(a, run, query);
            float here = -INFINITY;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                s[i][j] = first + 4 * tx + j < seen ? s[i][j] * a.scale : -INFINITY;
                here = fmaxf(here, s[i][j]);
            }
            for (int step = 8; step > 0; step >>= 1) {
                here = fmaxf(here, __shfl_xor_sync(0xffffffffu, here, step));
            }
            float next = fmaxf(largest[i], here);
            // A row that has seen no key yet stays empty.
            float base = next == -INFINITY ? 0.0f : next;
            float correction = expf(largest[i] - base);
            float total = 0.0f;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                s[i][j] = expf(s[i][j] - base);
                total += s[i][j];
            }
            for (int step = 8; step > 0; step >>= 1) {
                total += __shfl_xor_sync(0xffffffffu, total, step);
            }
            sum[i] = sum[i] * correction + total;
            largest[i] = next;
#pragma unroll
            for (int c = 0; c < D / 16; ++c) {
                acc[i][c] *= correction;
            }
            if (a.has_dropout) {
                EtWords words = et_words4(a.dropout.seed, a.dropout.stream,
                                          a.dropout.offset + random_element(a, run, head, query, first + 4 * tx));
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    s[i][j] *= et_factor(a.dropout, words.w[j]);
                }
            }
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            *(float4*)(ps + (4 * tx + j) * PITCH + 4 * ty) = make_float4(s[0][j], s[1][j], s[2][j], s[3][j]);
        }
        __syncthreads();
        accumulate<D>(ps, vs, tx, ty, acc);
    }
    uint64_t width = (uint64_t)a.heads * a.head_size;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        int row = 4 * ty + i;
        if (row >= rows) {
            continue;
        }
        uint64_t at = run.query + tile.first + row;
        float inverse = sum[i] > 0.0f ? 1.0f / sum[i] : 0.0f;
#pragma unroll
        for (int c = 0; c < D / 16; ++c) {
            uint32_t col = tx + 16 * c;
            if (col < a.head_size) {
                o[at * width + column + col] = acc[i][c] * inverse;
            }
        }
        if (tx == 0) {
            lse[at * a.heads + head] = sum[i] > 0.0f ? largest[i] + logf(sum[i]) : -INFINITY;
        }
    }
}

// delta [queries, heads] = the sums over a head's columns of do * o. One warp per (query, head).
extern "C" __global__ void et_attention_delta(uint64_t count, uint32_t head_size, const float* o, const float* d_o, float* delta) {
    uint64_t at = blockIdx.x * 8ull + (threadIdx.x >> 5);
    if (at >= count) {
        return;
    }
    float sum = 0.0f;
    for (uint32_t i = threadIdx.x & 31; i < head_size; i += 32) {
        sum += o[at * head_size + i] * d_o[at * head_size + i];
    }
    sum = et_warp_sum(sum);
    if ((threadIdx.x & 31) == 0) {
        delta[at] = sum;
    }
}

template <int D>
__device__ __forceinline__ void query_gradient(EtAttention a, const EtRun* runs, const EtTile* tiles, const float* q, const float* k,
                                               const float* v, const float* d_o, const float* lse, const float* delta, float* dq) {
    ET_DYNAMIC(float, shared);
    float* qs = shared;
    float* os = qs + D * PITCH;
    float* ks = os + D * PITCH;
    float* vs = ks + D * PITCH;
    float* ws = vs + D * PITCH;
    EtTile tile = tiles[blockIdx.x];
    EtRun run = runs[tile.run];
    int head = blockIdx.y, tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    int rows = min((int)run.queries - (int)tile.first, TILE);
    uint32_t column = head * a.head_size;
    uint64_t width = (uint64_t)a.heads * a.head_size;
    load<D>(q + column, a.query_step, a.head_size, run.query + tile.first, rows, qs);
    load<D>(d_o + column, width, a.head_size, run.query + tile.first, rows, os);
    float acc[4][D / 16] = {};
    int last_seen = visible(a, run, (int)tile.first + rows - 1);
    for (int first = 0; first < last_seen; first += TILE) {
        int count = min((int)run.keys - first, TILE);
        __syncthreads();
        load<D>(k + column, a.key_step, a.head_size, run.key + first, count, ks);
        load<D>(v + column, a.value_step, a.head_size, run.key + first, count, vs);
        __syncthreads();
        float p[4][4], ds[4][4];
        product<D>(qs, ks, tx, ty, p);
        product<D>(os, vs, tx, ty, ds);
        gradients(a, run, head, (int)tile.first + 4 * ty, first + 4 * tx, (int)tile.first + rows, lse, delta, p, ds);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            *(float4*)(ws + (4 * tx + j) * PITCH + 4 * ty) = make_float4(ds[0][j], ds[1][j], ds[2][j], ds[3][j]);
        }
        __syncthreads();
        accumulate<D>(ws, ks, tx, ty, acc);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        int row = 4 * ty + i;
        if (row >= rows) {
            continue;
        }
#pragma unroll
        for (int c = 0; c < D / 16; ++c) {
            uint32_t col = tx + 16 * c;
            if (col < a.head_size) {
                dq[(uint64_t)(run.query + tile.first + row) * width + column + col] = acc[i][c];
            }
        }
    }
}

template <int D>
__device__ __forceinline__ void key_gradient(EtAttention a, const EtRun* runs, const EtTile* tiles, const float* q, const float* k,
                                             const float* v, const float* d_o, const float* lse, const float* delta, float* dk, float* dv) {
    ET_DYNAMIC(float, shared);
    float* qs = shared;
    float* os = qs + D * PITCH;
    float* ks = os + D * PITCH;
    float* vs = ks + D * PITCH;
    float* ws = vs + D * PITCH;
    EtTile tile = tiles[blockIdx.x];
    EtRun run = runs[tile.run];
    int head = blockIdx.y, tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    int count = min((int)run.keys - (int)tile.first, TILE);
    uint32_t column = head * a.head_size;
    uint64_t width = (uint64_t)a.heads * a.head_size;
    load<D>(k + column, a.key_step, a.head_size, run.key + tile.first, count, ks);
    load<D>(v + column, a.value_step, a.head_size, run.key + tile.first, count, vs);
    float dks[4][D / 16] = {}, dvs[4][D / 16] = {};
    for (int first = 0; first < (int)run.queries; first += TILE) {
        int rows = min((int)run.queries - first, TILE);
        // Queries before the first key of the tile see nothing of it.
        if (visible(a, run, first + rows - 1) <= (int)tile.first) {
            continue;
        }
        __syncthreads();
        load<D>(q + column, a.query_step, a.head_size, run.query + first, rows, qs);
        load<D>(d_o + column, width, a.head_size, run.query + first, rows, os);
        __syncthreads();
        float p[4][4], ds[4][4];
        product<D>(qs, ks, tx, ty, p);
        product<D>(os, vs, tx, ty, ds);
        gradients(a, run, head, first + 4 * ty, (int)tile.first + 4 * tx, first + rows, lse, delta, p, ds);
        // Here the rows of the weights are queries, and their columns, the keys, are the rows of the sums.
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            *(float4*)(ws + (4 * ty + i) * PITCH + 4 * tx) = make_float4(p[i][0], p[i][1], p[i][2], p[i][3]);
        }
        __syncthreads();
        accumulate<D>(ws, os, tx, ty, dvs);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            *(float4*)(ws + (4 * ty + i) * PITCH + 4 * tx) = make_float4(ds[i][0], ds[i][1], ds[i][2], ds[i][3]);
        }
        __syncthreads();
        accumulate<D>(ws, qs, tx, ty, dks);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        int row = 4 * ty + i;
        if (row >= count) {
            continue;
        }
        uint64_t at = (uint64_t)(run.key + tile.first + row) * width + column;
#pragma unroll
        for (int c = 0; c < D / 16; ++c) {
            uint32_t col = tx + 16 * c;
            if (col < a.head_size) {
                dk[at + col] = dks[i][c];
                dv[at + col] = dvs[i][c];
            }
        }
    }
}

#define KERNELS(D)                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(256)                                                                                    \
        et_attention_forward_##D(EtAttention a, const EtRun* runs, const EtTile* tiles, const float* q, const float* k, const float* v,  \
                                 float* o, float* lse) {                                                                                 \
        forward<D>(a, runs, tiles, q, k, v, o, lse);                                                                                     \
    }                                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(256)                                                                                    \
        et_attention_query_##D(EtAttention a, const EtRun* runs, const EtTile* tiles, const float* q, const float* k, const float* v,    \
                               const float* d_o, const float* lse, const float* delta, float* dq) {                                      \
        query_gradient<D>(a, runs, tiles, q, k, v, d_o, lse, delta, dq);                                                                 \
    }                                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(256)                                                                                    \
        et_attention_key_##D(EtAttention a, const EtRun* runs, const EtTile* tiles, const float* q, const float* k, const float* v,      \
                             const float* d_o, const float* lse, const float* delta, float* dk, float* dv) {                             \
        key_gradient<D>(a, runs, tiles, q, k, v, d_o, lse, delta, dk, dv);                                                               \
    }
KERNELS(32)
KERNELS(64)
KERNELS(96)
KERNELS(128)
