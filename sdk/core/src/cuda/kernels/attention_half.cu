// Attention over runs with products on tensor cores: operands and results in bfloat16 or half precision, sums and softmax in f32. Gradients
// are bfloat16, and so are the operands of their products; what half precision kept is converted on the way. The tiles
// are those of attention.cu; a block has 8 warps, of which each owns 16 rows of half of the columns of every product.
#include "attention.cuh"
#include "storage.cuh"

#ifdef __CUDACC__
#include <mma.h>
using namespace nvcuda;
#endif

#define SCORES 68
#define WEIGHTS 72

// Eight elements that are read or written at once.
template <typename T>
struct alignas(16) Eight {
    T x[8];
};

template <typename T>
__device__ __forceinline__ bool is_eight(const T* p, uint64_t step, uint32_t head_size) {
    return (((uintptr_t)p & 15) | (step & 7) | (head_size & 7)) == 0;
}

// Copies rows first..first + count of one head, stored as S, to out[row][column]; missing rows and columns are zeros.
template <typename T, int D, typename S>
__device__ __forceinline__ void load(const S* x, uint64_t step, uint32_t head_size, uint64_t first, uint32_t count, T* out) {
    if (is_eight(x, step, head_size)) {
        for (int i = threadIdx.x; i < TILE * D / 8; i += 256) {
            int row = i / (D / 8), col = i % (D / 8) * 8;
            Eight<T> to;
            if (row < (int)count && col < (int)head_size) {
                Eight<S> from = *(const Eight<S>*)(x + (first + row) * step + col);
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    to.x[j] = et_narrow<T>(et_wide(from.x[j]));
                }
            } else {
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    to.x[j] = et_narrow<T>(0.0f);
                }
            }
            *(Eight<T>*)(out + row * (D + 8) + col) = to;
        }
        return;
    }
    for (int i = threadIdx.x; i < TILE * D; i += 256) {
        int row = i / D, col = i % D;
        bool inside = row < (int)count && col < (int)head_size;
        out[row * (D + 8) + col] = et_narrow<T>(inside ? et_wide(x[(first + row) * step + col]) : 0.0f);
    }
}

// out[row][column] = sum over k of a[row][k] b[column][k]: 64 x 64 scores.
template <typename T, int D>
__device__ __forceinline__ void product(const T* a, const T* b, float* out) {
    int warp = threadIdx.x / 32, row = warp / 2;
    for (int part = 0; part < 2; ++part) {
        int col = (warp % 2) * 2 + part;
        wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum;
        wmma::fill_fragment(sum, 0.0f);
#pragma unroll
        for (int k = 0; k < D / 16; ++k) {
            wmma::fragment<wmma::matrix_a, 16, 16, 16, T, wmma::row_major> left;
            wmma::fragment<wmma::matrix_b, 16, 16, 16, T, wmma::col_major> right;
            wmma::load_matrix_sync(left, a + row * 16 * (D + 8) + k * 16, D + 8);
            wmma::load_matrix_sync(right, b + col * 16 * (D + 8) + k * 16, D + 8);
            wmma::mma_sync(sum, left, right, sum);
        }
        wmma::store_matrix_sync(out + row * 16 * SCORES + col * 16, sum, SCORES, wmma::mem_row_major);
    }
}

template <bool first, typename A, typename B>
struct Choose {
    using type = A;
};
template <typename A, typename B>
struct Choose<false, A, B> {
    using type = B;
};

// A warp's share of a 64 x D result: rows 16 (warp / 2) .., columns 16 (warp % 2 + 2 part) ..
template <int D>
struct Sums {
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> part[D / 32];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < D / 32; ++i) {
            wmma::fill_fragment(part[i], 0.0f);
        }
    }

    __device__ __forceinline__ void store(float* out) const {
        int warp = threadIdx.x / 32;
#pragma unroll
        for (int i = 0; i < D / 32; ++i) {
            int col = warp % 2 + 2 * i;
            wmma::store_matrix_sync(out + warp / 2 * 16 * (D + 4) + col * 16, part[i], D + 4, wmma::mem_row_major);
        }
    }

    __device__ __forceinline__ void fetch(const float* in) {
        int warp = threadIdx.x / 32;
#pragma unroll
        for (int i = 0; i < D / 32; ++i) {
            int col = warp % 2 + 2 * i;
            wmma::load_matrix_sync(part[i], in + warp / 2 * 16 * (D + 4) + col * 16, D + 4, wmma::mem_row_major);
        }
    }

    // += weights values, or weights^T values; weights [64][64], values [64][D].
    template <typename T, bool transposed>
    __device__ __forceinline__ void add(const T* weights, const T* values) {
        using Layout = typename Choose<transposed, wmma::col_major, wmma::row_major>::type;
        int warp = threadIdx.x / 32, row = warp / 2;
#pragma unroll
        for (int k = 0; k < TILE / 16; ++k) {
            wmma::fragment<wmma::matrix_a, 16, 16, 16, T, Layout> left;
            const T* from = transposed ? weights + k * 16 * WEIGHTS + row * 16 : weights + row * 16 * WEIGHTS + k * 16;
            wmma::load_matrix_sync(left, from, WEIGHTS);
#pragma unroll
            for (int i = 0; i < D / 32; ++i) {
                int col = warp % 2 + 2 * i;
                wmma::fragment<wmma::matrix_b, 16, 16, 16, T, wmma::row_major> right;
                wmma::load_matrix_sync(right, values + k * 16 * (D + 8) + col * 16, D + 8);
                wmma::mma_sync(part[i], left, right, part[i]);
            }
        }
    }
};

// The four scores of thread (tx, ty) in row 4 ty + i.
__device__ __forceinline__ void fetch(const float* scores, int row, int tx, float (&s)[4]) {
    float4 four = *(const float4*)(scores + row * SCORES + 4 * tx);
    s[0] = four.x;
    s[1] = four.y;
    s[2] = four.z;
    s[3] = four.w;
}

// Writes a 64 x D result from shared memory; rows past `rows` and columns past the head's are left out.
template <typename T, int D>
__device__ __forceinline__ void write(const float* from, T* to, uint64_t width, uint32_t head_size, int rows) {
    if (is_eight(to, width, head_size)) {
        for (int i = threadIdx.x; i < TILE * D / 8; i += 256) {
            int row = i / (D / 8), col = i % (D / 8) * 8;
            if (row < rows && col < (int)head_size) {
                Eight<T> eight;
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    eight.x[j] = et_narrow<T>(from[row * (D + 4) + col + j]);
                }
                *(Eight<T>*)(to + (uint64_t)row * width + col) = eight;
            }
        }
        return;
    }
    for (int i = threadIdx.x; i < TILE * D; i += 256) {
        int row = i / D, col = i % D;
        if (row < rows && col < (int)head_size) {
            to[(uint64_t)row * width + col] = et_narrow<T>(from[row * (D + 4) + col]);
        }
    }
}

template <typename T, int D>
__device__ __forceinline__ void forward(const EtAttention& a, const EtRun* runs, const EtTile* tiles, const T* q, const T* k, const T* v,
                                        T* o, float* lse) {
    ET_DYNAMIC(unsigned char, shared);
    float* scores = (float*)shared;
    float* sums = scores + TILE * SCORES;
    T* qs = (T*)(sums + TILE * (D + 4));
    T* ks = qs + TILE * (D + 8);
    T* vs = ks + TILE * (D + 8);
    T* ps = vs + TILE * (D + 8);
    EtTile tile = tiles[blockIdx.x];
    EtRun run = runs[tile.run];
    int head = blockIdx.y, tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    int rows = min((int)run.queries - (int)tile.first, TILE);
    uint32_t column = head * a.head_size;
    load<T, D>(q + column, a.query_step, a.head_size, run.query + tile.first, rows, qs);
    for (int i = threadIdx.x; i < TILE * (D + 4); i += 256) {
        sums[i] = 0.0f;
    }
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
        load<T, D>(k + column, a.key_step, a.head_size, run.key + first, count, ks);
        load<T, D>(v + column, a.value_step, a.head_size, run.key + first, count, vs);
        __syncthreads();
        product<T, D>(qs, ks, scores);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int row = 4 * ty + i, query = (int)tile.first + row;
            int seen = visible(a, run, query);
            float s[4], here = -INFINITY;
            fetch(scores, row, tx, s);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                s[j] = first + 4 * tx + j < seen ? s[j] * a.scale : -INFINITY;
                here = fmaxf(here, s[j]);
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
                s[j] = expf(s[j] - base);
                total += s[j];
            }
            for (int step = 8; step > 0; step >>= 1) {
                total += __shfl_xor_sync(0xffffffffu, total, step);
            }
            sum[i] = sum[i] * correction + total;
            largest[i] = next;
            if (correction != 1.0f) {
                for (int col = tx; col < D; col += 16) {
                    sums[row * (D + 4) + col] *= correction;
                }
            }
            if (a.has_dropout) {
                EtWords words = et_words4(a.dropout.seed, a.dropout.stream,
                                          a.dropout.offset + random_element(a, run, head, query, first + 4 * tx));
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    s[j] *= et_factor(a.dropout, words.w[j]);
                }
            }
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                ps[row * WEIGHTS + 4 * tx + j] = et_narrow<T>(s[j]);
            }
        }
        __syncthreads();
        Sums<D> part;
        part.fetch(sums);
        part.template add<T, false>(ps, vs);
        part.store(sums);
    }
    __syncthreads();
    uint64_t width = (uint64_t)a.heads * a.head_size;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        int row = 4 * ty + i;
        if (row >= rows) {
            continue;
        }
        uint64_t at = run.query + tile.first + row;
        float inverse = sum[i] > 0.0f ? 1.0f / sum[i] : 0.0f;
        for (int col = tx; col < (int)a.head_size; col += 16) {
            o[at * width + column + col] = et_narrow<T>(sums[row * (D + 4) + col] * inverse);
        }
        if (tx == 0) {
            lse[at * a.heads + head] = sum[i] > 0.0f ? largest[i] + logf(sum[i]) : -INFINITY;
        }
    }
}

// Scores and do v^T of a tile to shared memory, then dropped probabilities to ps (if wanted) and gradients of q k^T to ds.
template <typename T, int D>
__device__ __forceinline__ void tile_gradients(const EtAttention& a, const EtRun& run, int head, int query, int key, int last_query,
                                               const T* qs, const T* ks, const T* os, const T* vs, const float* lse, const float* delta,
                                               float* scores, float* slopes, T* ps, T* ds) {
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    product<T, D>(qs, ks, scores);
    product<T, D>(os, vs, slopes);
    __syncthreads();
    float p[4][4], s[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        fetch(scores, 4 * ty + i, tx, p[i]);
        fetch(slopes, 4 * ty + i, tx, s[i]);
    }
    gradients(a, run, head, query + 4 * ty, key + 4 * tx, last_query, lse, delta, p, s);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            int at = (4 * ty + i) * WEIGHTS + 4 * tx + j;
            if (ps) {
                ps[at] = et_narrow<T>(p[i][j]);
            }
            ds[at] = et_narrow<T>(s[i][j]);
        }
    }
    __syncthreads();
}

template <typename S, int D>
__device__ __forceinline__ void query_gradient(const EtAttention& a, const EtRun* runs, const EtTile* tiles, const S* q, const S* k,
                                               const S* v, const __nv_bfloat16* d_o, const float* lse, const float* delta,
                                               __nv_bfloat16* dq) {
    using T = __nv_bfloat16;
    ET_DYNAMIC(unsigned char, shared);
    float* scores = (float*)shared;
    float* slopes = scores + TILE * SCORES;
    T* qs = (T*)(slopes + TILE * SCORES);
    T* os = qs + TILE * (D + 8);
    T* ks = os + TILE * (D + 8);
    T* vs = ks + TILE * (D + 8);
    T* ds = vs + TILE * (D + 8);
    EtTile tile = tiles[blockIdx.x];
    EtRun run = runs[tile.run];
    int head = blockIdx.y;
    int rows = min((int)run.queries - (int)tile.first, TILE);
    uint32_t column = head * a.head_size;
    uint64_t width = (uint64_t)a.heads * a.head_size;
    load<T, D>(q + column, a.query_step, a.head_size, run.query + tile.first, rows, qs);
    load<T, D>(d_o + column, width, a.head_size, run.query + tile.first, rows, os);
    Sums<D> sums;
    sums.clear();
    int last_seen = visible(a, run, (int)tile.first + rows - 1);
    for (int first = 0; first < last_seen; first += TILE) {
        int count = min((int)run.keys - first, TILE);
        __syncthreads();
        load<T, D>(k + column, a.key_step, a.head_size, run.key + first, count, ks);
        load<T, D>(v + column, a.value_step, a.head_size, run.key + first, count, vs);
        __syncthreads();
        tile_gradients<T, D>(a, run, head, (int)tile.first, first, (int)tile.first + rows, qs, ks, os, vs, lse, delta, scores, slopes,
                             (T*)0, ds);
        sums.template add<T, false>(ds, ks);
    }
    __syncthreads();
    // The operands are done with: their memory holds the result on its way out.
    float* result = (float*)qs;
    sums.store(result);
    __syncthreads();
    write<T, D>(result, dq + (uint64_t)(run.query + tile.first) * width + column, width, a.head_size, rows);
}

template <typename S, int D>
__device__ __forceinline__ void key_gradient(const EtAttention& a, const EtRun* runs, const EtTile* tiles, const S* q, const S* k,
                                             const S* v, const __nv_bfloat16* d_o, const float* lse, const float* delta,
                                             __nv_bfloat16* dk, __nv_bfloat16* dv) {
    using T = __nv_bfloat16;
    ET_DYNAMIC(unsigned char, shared);
    float* scores = (float*)shared;
    float* slopes = scores + TILE * SCORES;
    T* qs = (T*)(slopes + TILE * SCORES);
    T* os = qs + TILE * (D + 8);
    T* ks = os + TILE * (D + 8);
    T* vs = ks + TILE * (D + 8);
    T* ds = vs + TILE * (D + 8);
    T* ps = ds + TILE * WEIGHTS;
    EtTile tile = tiles[blockIdx.x];
    EtRun run = runs[tile.run];
    int head = blockIdx.y;
    int count = min((int)run.keys - (int)tile.first, TILE);
    uint32_t column = head * a.head_size;
    uint64_t width = (uint64_t)a.heads * a.head_size;
    load<T, D>(k + column, a.key_step, a.head_size, run.key + tile.first, count, ks);
    load<T, D>(v + column, a.value_step, a.head_size, run.key + tile.first, count, vs);
    Sums<D> dks, dvs;
    dks.clear();
    dvs.clear();
    for (int first = 0; first < (int)run.queries; first += TILE) {
        int rows = min((int)run.queries - first, TILE);
        // Queries before the first key of the tile see nothing of it.
        if (visible(a, run, first + rows - 1) <= (int)tile.first) {
            continue;
        }
        __syncthreads();
        load<T, D>(q + column, a.query_step, a.head_size, run.query + first, rows, qs);
        load<T, D>(d_o + column, width, a.head_size, run.query + first, rows, os);
        __syncthreads();
        tile_gradients<T, D>(a, run, head, first, (int)tile.first, first + rows, qs, ks, os, vs, lse, delta, scores, slopes, ps, ds);
        dvs.template add<T, true>(ps, os);
        dks.template add<T, true>(ds, qs);
    }
    uint64_t start = (uint64_t)(run.key + tile.first) * width + column;
    float* result = (float*)qs;
    __syncthreads();
    dks.store(result);
    __syncthreads();
    write<T, D>(result, dk + start, width, a.head_size, count);
    __syncthreads();
    dvs.store(result);
    __syncthreads();
    write<T, D>(result, dv + start, width, a.head_size, count);
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
    extern "C" __global__ void __launch_bounds__(256)                                                                                    \
        et_attention_forward_##name##_##D(EtAttention a, const EtRun* runs, const EtTile* tiles, const S* q, const S* k, const S* v,     \
                                          S* o, float* lse) {                                                                            \
        forward<S, D>(a, runs, tiles, q, k, v, o, lse);                                                                                  \
    }                                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(256)                                                                                    \
        et_attention_query_##name##_##D(EtAttention a, const EtRun* runs, const EtTile* tiles, const S* q, const S* k, const S* v,       \
                                        const __nv_bfloat16* d_o, const float* lse, const float* delta, __nv_bfloat16* dq) {             \
        query_gradient<S, D>(a, runs, tiles, q, k, v, d_o, lse, delta, dq);                                                              \
    }                                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(256)                                                                                    \
        et_attention_key_##name##_##D(EtAttention a, const EtRun* runs, const EtTile* tiles, const S* q, const S* k, const S* v,         \
                                      const __nv_bfloat16* d_o, const float* lse, const float* delta, __nv_bfloat16* dk,                 \
                                      __nv_bfloat16* dv) {                                                                               \
        key_gradient<S, D>(a, runs, tiles, q, k, v, d_o, lse, delta, dk, dv);                                                            \
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
