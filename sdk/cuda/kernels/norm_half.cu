// Layer norm with residual and dropout, and RMS norm, on values that are stored in bfloat16 or half precision. Sums,
// means and deviations are f32; s is rounded before anything is computed from it, so that backward sees what forward
// saw. One warp per row. Rows of up to MOST columns that can be read eight at once are held in registers; of others a
// lane takes four elements at once and reads them again from the first-level cache.
#include "storage.cuh"

// Columns of the widest row that is held, and its groups of eight per lane.
#define MOST 1024
#define GROUPS (MOST / 256)
// Warps of a block of et_norm_gradients: with more, two blocks of a multiprocessor would not have the registers for
// the sums of columns.
#define WARPS 6

template <int N>
struct Count {
    static constexpr int value = N;
};

// Calls f with the number of groups of eight that each lane of a warp holds of a row, as a type: arrays in registers
// have a fixed length.
template <typename F>
__device__ __forceinline__ void by_width(uint32_t cols, const F& f) {
    if (cols <= 256) {
        f(Count<1>());
    } else if (cols <= 512) {
        f(Count<2>());
    } else if (cols <= 768) {
        f(Count<3>());
    } else {
        f(Count<GROUPS>());
    }
}

// The first of the four columns in half `q & 1` of a lane's group `q / 2`.
__device__ __forceinline__ uint32_t column(int q) { return 256 * (q / 2) + 8 * (threadIdx.x & 31) + 4 * (q & 1); }

// True if the rows of a matrix (or of none) begin where 16 bytes can be read at once, as they must to be held.
template <typename T>
__device__ __forceinline__ bool holds(uint64_t cols, const T* x) {
    return cols <= MOST && cols % 8 == 0 && ((uintptr_t)x & 15) == 0;
}

template <int N, typename T>
__device__ __forceinline__ void load_row(const T* row, uint32_t cols, EtEight (&out)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
        out[i] = {{0, 0, 0, 0}};
        if (column(2 * i) < cols) {
            out[i] = *(const EtEight*)(row + column(2 * i));
        }
    }
}

// Makes the compiler compute again what it knows of a row, and read again what lies beside it: kept, that would take
// more registers than there are.
template <int N>
__device__ __forceinline__ void forget(EtEight (&row)[N]) {
#ifdef __CUDACC__
#pragma unroll
    for (int i = 0; i < N; ++i) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            asm volatile("" : "+r"(row[i].word[k]) : : "memory");
        }
    }
#endif
}

// Which of a lane's columns dropout keeps, a bit each: one register, made while the row is on its way.
template <int N>
__device__ __forceinline__ uint32_t kept_columns(const EtDropout& d, uint64_t start, uint32_t cols) {
    uint32_t bits = 0;
    // Unrolled, the words of all columns would be in registers together.
#pragma unroll 1
    for (int q = 0; q < 2 * N && column(q) < cols; ++q) {
        EtWords words = et_words4(d.seed, d.stream, d.offset + start + column(q));
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            bits |= (uint32_t)(words.w[j] >= d.threshold) << (4 * q + j);
        }
    }
    return bits;
}

// Four columns from bit 4 q on, times their dropout factors.
__device__ __forceinline__ void drop_held(const EtDropout& d, uint32_t kept, int q, float (&v)[4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        v[j] *= kept >> (4 * q + j) & 1 ? d.scale : 0.0f;
    }
}

// Four elements, of which the first is number `at`, times their dropout factors.
__device__ __forceinline__ void drop(const EtDropout& d, uint64_t at, float (&v)[4]) {
    EtWords words = et_words4(d.seed, d.stream, d.offset + at);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        v[j] *= et_factor(d, words.w[j]);
    }
}

__device__ __forceinline__ void normalise(float centre, float inverse, float (&s)[4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        s[j] = (s[j] - centre) * inverse;
    }
}

// v = gamma (v - mean) rstd + beta. The sum is written as one instruction, lest the compiler chooses another one
// where y is computed again.
__device__ __forceinline__ void scale(const float (&gamma)[4], const float (&beta)[4], bool has_beta, float centre, float inverse,
                                      float (&v)[4]) {
    normalise(centre, inverse, v);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        v[j] = has_beta ? fmaf(v[j], gamma[j], beta[j]) : v[j] * gamma[j];
    }
}

template <typename T>
__device__ __forceinline__ void scale_row(uint64_t start, uint64_t cols, const T* s, const float* gamma, const float* beta, float centre,
                                          float inverse, T* y) {
    for (uint64_t at = 4 * (threadIdx.x & 31); at < cols; at += 128) {
        float v[4], w[4], b[4] = {};
        et_load4(s, start + at, start + cols, v);
        et_load4(gamma, at, cols, w);
        if (beta) {
            et_load4(beta, at, cols, b);
        }
        scale(w, b, beta, centre, inverse, v);
        et_store4(y, start + at, start + cols, v);
    }
}

// The same of a row that is held, s [start ..].
template <int N, typename T>
__device__ __forceinline__ void scale_held(uint64_t start, uint32_t cols, const EtEight (&s)[N], const float* gamma, const float* beta,
                                           float centre, float inverse, T* y) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
        if (column(2 * i) < cols) {
            EtEight out;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float v[4], w[4], b[4] = {};
                et_widen4<T>(s[i], half, v);
                et_read4(gamma + column(2 * i + half), w);
                if (beta) {
                    et_read4(beta + column(2 * i + half), b);
                }
                scale(w, b, beta, centre, inverse, v);
                et_narrow4<T>(v, out, half);
            }
            *(EtEight*)(y + start + column(2 * i)) = out;
        }
    }
}

__device__ __forceinline__ float deviation(float square, uint64_t cols, float eps) {
    return 1.0f / sqrtf(et_warp_sum(square) / (float)cols + eps);
}

// Writes s and y of one row; returns its mean and 1 / deviation.
template <typename T>
__device__ __forceinline__ float2 forward_row(uint64_t start, uint64_t cols, int has_dropout, int rms, const EtDropout& d, float eps,
                                              const T* x, const T* residual, const float* gamma, const float* beta, T* y, T* summed) {
    int lane = threadIdx.x & 31;
    uint64_t end = start + cols;
    const T* s = summed ? summed : x;
    float sum = 0.0f;
    for (uint64_t at = start + 4 * lane; at < end; at += 128) {
        float v[4];
        et_load4(x, at, end, v);
        if (summed) {
            if (has_dropout) {
                drop(d, at, v);
            }
            if (residual) {
                float r[4];
                et_load4(residual, at, end, r);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    v[j] += r[j];
                }
            }
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                v[j] = et_rounded<T>(v[j]);
            }
            et_store4(summed, at, end, v);
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            sum += v[j];
        }
    }
    // Each lane reads again what it wrote itself, so no barrier is needed.
    float centre = rms ? 0.0f : et_warp_sum(sum) / (float)cols;
    float square = 0.0f;
    for (uint64_t at = start + 4 * lane; at < end; at += 128) {
        float v[4];
        et_load4(s, at, end, v);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            float away = at + j < end ? v[j] - centre : 0.0f;
            square += away * away;
        }
    }
    float inverse = deviation(square, cols, eps);
    scale_row(start, cols, s, gamma, beta, centre, inverse, y);
    return make_float2(centre, inverse);
}

// The same, holding the row.
template <int N, typename T>
__device__ __forceinline__ float2 forward_held(uint64_t start, uint32_t cols, int has_dropout, int rms, const EtDropout& d, float eps,
                                               const T* x, const T* residual, const float* gamma, const float* beta, T* y, T* summed) {
    EtEight s[N], other[N];
    load_row(x + start, cols, s);
    if (residual) {
        load_row(residual + start, cols, other);
    }
    uint32_t kept = has_dropout ? kept_columns<N>(d, start, cols) : 0;
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        if (column(2 * i) < cols) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float v[4];
                et_widen4<T>(s[i], half, v);
                if (summed) {
                    if (has_dropout) {
                        drop_held(d, kept, 2 * i + half, v);
                    }
                    if (residual) {
                        float r[4];
                        et_widen4<T>(other[i], half, r);
#pragma unroll
                        for (int j = 0; j < 4; ++j) {
                            v[j] += r[j];
                        }
                    }
                    et_narrow4<T>(v, s[i], half);
                    et_widen4<T>(s[i], half, v);
                }
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    sum += v[j];
                }
            }
            if (summed) {
                *(EtEight*)(summed + start + column(2 * i)) = s[i];
            }
        }
    }
    float centre = rms ? 0.0f : et_warp_sum(sum) / (float)cols;
    float square = 0.0f;
    forget(s);
#pragma unroll
    for (int q = 0; q < 2 * N; ++q) {
        if (column(q) < cols) {
            float v[4];
            et_widen4<T>(s[q / 2], q & 1, v);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                square += (v[j] - centre) * (v[j] - centre);
            }
        }
    }
    float inverse = deviation(square, cols, eps);
    forget(s);
    scale_held(start, cols, s, gamma, beta, centre, inverse, y);
    return make_float2(centre, inverse);
}

template <typename T>
__device__ __forceinline__ void forward(uint64_t rows, uint64_t cols, int has_dropout, int rms, const EtDropout& d, float eps, const T* x,
                                        const T* residual, const float* gamma, const float* beta, T* y, T* summed, float* mean,
                                        float* rstd) {
    uint64_t row = blockIdx.x * 8ull + (threadIdx.x >> 5);
    if (row >= rows) {
        return;
    }
    uint64_t start = row * cols;
    float2 found;
    if (holds(cols, x) && holds(cols, residual) && holds(cols, y) && holds(cols, summed) && holds(cols, gamma) && holds(cols, beta)) {
        by_width(cols, [&](auto n) {
            found = forward_held<decltype(n)::value>(start, cols, has_dropout, rms, d, eps, x, residual, gamma, beta, y, summed);
        });
    } else {
        found = forward_row(start, cols, has_dropout, rms, d, eps, x, residual, gamma, beta, y, summed);
    }
    if ((threadIdx.x & 31) == 0) {
        if (mean) {
            mean[row] = found.x;
        }
        rstd[row] = found.y;
    }
}

// What forward wrote to y, to the same bits.
template <typename T>
__device__ __forceinline__ void again(uint64_t rows, uint64_t cols, const T* summed, const float* mean, const float* rstd,
                                      const float* gamma, const float* beta, T* y) {
    uint64_t row = blockIdx.x * 8ull + (threadIdx.x >> 5);
    if (row >= rows) {
        return;
    }
    uint64_t start = row * cols;
    float centre = mean ? mean[row] : 0.0f, inverse = rstd[row];
    if (holds(cols, summed) && holds(cols, y) && holds(cols, gamma) && holds(cols, beta)) {
        by_width(cols, [&](auto n) {
            EtEight s[decltype(n)::value];
            load_row(summed + start, cols, s);
            scale_held(start, cols, s, gamma, beta, centre, inverse, y);
        });
    } else {
        scale_row(start, cols, summed, gamma, beta, centre, inverse, y);
    }
}

// What the gradient of s needs of its row: sums of the gradients of the normalised values, and of those times the
// values.
struct Slope {
    float level, along;
};

__device__ __forceinline__ void add_slope(const float (&g)[4], const float (&normal)[4], const float (&w)[4], Slope& sums) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        float scaled = et_product(g[j], w[j]);
        sums.level += scaled;
        sums.along += scaled * normal[j];
    }
}

__device__ __forceinline__ Slope mean_slope(uint64_t cols, int rms, Slope sums) {
    // Both sums are always made, so that neither waits for the other.
    float level = et_warp_sum(sums.level) / (float)cols, along = et_warp_sum(sums.along) / (float)cols;
    return {rms ? 0.0f : level, along};
}

// The gradient of s, in place of that of y.
__device__ __forceinline__ void apply_slope(float inverse, const float (&normal)[4], const float (&w)[4], const Slope& mean,
                                            float (&g)[4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        g[j] = inverse * (et_product(g[j], w[j]) - mean.level - normal[j] * mean.along);
    }
}

// dresidual = gradient of s; dx = that times the dropout factors. Either may be NULL; without dropout dx equals
// dresidual.
template <typename T, typename G>
__device__ __forceinline__ void backward(uint64_t rows, uint64_t cols, int has_dropout, int rms, const EtDropout& d, const G* dy,
                                         const T* summed, const float* mean, const float* rstd, const float* gamma, G* dx, G* dresidual) {
    uint64_t row = blockIdx.x * 8ull + (threadIdx.x >> 5);
    int lane = threadIdx.x & 31;
    if (row >= rows) {
        return;
    }
    uint64_t start = row * cols, end = start + cols;
    float centre = rms ? 0.0f : mean[row], inverse = rstd[row];
    Slope sums = {0.0f, 0.0f};
    for (uint64_t at = 4 * lane; at < cols; at += 128) {
        float g[4], s[4], w[4];
        et_load4(dy, start + at, end, g);
        et_load4(summed, start + at, end, s);
        et_load4(gamma, at, cols, w);
        normalise(centre, inverse, s);
        add_slope(g, s, w, sums);
    }
    Slope slope = mean_slope(cols, rms, sums);
    for (uint64_t at = 4 * lane; at < cols; at += 128) {
        float g[4], s[4], w[4];
        et_load4(dy, start + at, end, g);
        et_load4(summed, start + at, end, s);
        et_load4(gamma, at, cols, w);
        normalise(centre, inverse, s);
        apply_slope(inverse, s, w, slope, g);
        if (dresidual) {
            et_store4(dresidual, start + at, end, g);
        }
        if (dx) {
            if (has_dropout) {
                drop(d, start + at, g);
            }
            et_store4(dx, start + at, end, g);
        }
    }
}

// Partial sums over blocks of `chunk` rows for dgamma and dbeta: [gridDim.y, cols] each. Blocks of 32 x 8 threads,
// four columns each.
template <typename T, typename G>
__device__ __forceinline__ void columns(uint64_t rows, uint64_t cols, uint64_t chunk, int rms, const G* dy, const T* summed,
                                        const float* mean, const float* rstd, float* gammas, float* betas) {
    __shared__ float part[2][8][ET_FOLD];
    uint64_t col = 4 * (blockIdx.x * 32ull + threadIdx.x);
    uint64_t first = blockIdx.y * chunk;
    uint64_t last = first + chunk < rows ? first + chunk : rows;
    float gamma[4] = {0.0f, 0.0f, 0.0f, 0.0f}, beta[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (col < cols) {
        for (uint64_t row = first + threadIdx.y; row < last; row += 8) {
            uint64_t at = row * cols + col, end = (row + 1) * cols;
            float g[4], s[4];
            et_load4(dy, at, end, g);
            et_load4(summed, at, end, s);
            normalise(rms ? 0.0f : mean[row], rstd[row], s);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                gamma[j] += g[j] * s[j];
                beta[j] += g[j];
            }
        }
    }
    et_fold_columns(part[0], gamma, col, cols, gammas + blockIdx.y * cols);
    et_fold_columns(part[1], beta, col, cols, betas + blockIdx.y * cols);
}

__device__ __forceinline__ float (&fold_memory())[WARPS][MOST] {
    alignas(16) __shared__ float part[WARPS][MOST];
    return part;
}

// out [cols] = the sums of the warps' columns, in the order of the warps. Called by all threads of the block.
template <int N>
__device__ __forceinline__ void fold_warps(const float (&sum)[2 * N][4], uint32_t cols, float* out) {
    float(&part)[WARPS][MOST] = fold_memory();
    __syncthreads();
#pragma unroll
    for (int q = 0; q < 2 * N; ++q) {
        et_store4(part[threadIdx.x >> 5], column(q), MOST, sum[q]);
    }
    __syncthreads();
    for (uint32_t col = threadIdx.x; col < cols; col += 32 * WARPS) {
        float total = part[0][col];
        for (int i = 1; i < WARPS; ++i) {
            total += part[i][col];
        }
        out[col] = total;
    }
}

// `backward` and `columns` in one pass over rows that are held. Each block takes `chunk` rows and writes one row of
// the partial sums.
template <int N, typename T, typename G>
__device__ __forceinline__ void gradients(uint64_t rows, uint32_t cols, uint64_t chunk, int has_dropout, int rms, const EtDropout& d,
                                          const G* dy, const T* summed, const float* mean, const float* rstd, const float* gamma, G* dx,
                                          G* dresidual, float* gammas, float* betas) {
    uint64_t first = blockIdx.x * chunk;
    uint64_t last = first + chunk < rows ? first + chunk : rows;
    uint64_t row = first + (threadIdx.x >> 5);
    float dgamma[2 * N][4] = {}, dbeta[2 * N][4] = {};
    EtEight from[N], of[N];
    if (row < last) {
        load_row(dy + row * cols, cols, from);
        load_row(summed + row * cols, cols, of);
    }
    // The next row is on its way while one is worked on, if registers allow it.
    constexpr bool ahead = N < GROUPS;
    while (row < last) {
        uint64_t start = row * cols, next = row + WARPS;
        EtEight next_from[N], next_of[N];
        if (ahead && next < last) {
            load_row(dy + next * cols, cols, next_from);
            load_row(summed + next * cols, cols, next_of);
        }
        float centre = rms ? 0.0f : mean[row], inverse = rstd[row];
        uint32_t kept = has_dropout && dx ? kept_columns<N>(d, start, cols) : 0;
        Slope sums = {0.0f, 0.0f};
#pragma unroll
        for (int q = 0; q < 2 * N; ++q) {
            if (column(q) < cols) {
                float g[4], s[4], w[4];
                et_widen4<G>(from[q / 2], q & 1, g);
                et_widen4<T>(of[q / 2], q & 1, s);
                et_read4(gamma + column(q), w);
                normalise(centre, inverse, s);
                add_slope(g, s, w, sums);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    dgamma[q][j] += g[j] * s[j];
                    dbeta[q][j] += g[j];
                }
            }
        }
        Slope slope = mean_slope(cols, rms, sums);
        forget(from);
        forget(of);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            if (column(2 * i) < cols) {
                EtEight whole, part;
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float g[4], s[4], w[4];
                    et_widen4<G>(from[i], half, g);
                    et_widen4<T>(of[i], half, s);
                    et_read4(gamma + column(2 * i + half), w);
                    normalise(centre, inverse, s);
                    apply_slope(inverse, s, w, slope, g);
                    et_narrow4<G>(g, whole, half);
                    if (has_dropout) {
                        drop_held(d, kept, 2 * i + half, g);
                    }
                    et_narrow4<G>(g, part, half);
                }
                uint64_t at = start + column(2 * i);
                if (dresidual) {
                    *(EtEight*)(dresidual + at) = whole;
                }
                if (dx) {
                    *(EtEight*)(dx + at) = part;
                }
            }
        }
        if (ahead && next < last) {
            __builtin_memcpy(from, next_from, sizeof from);
            __builtin_memcpy(of, next_of, sizeof of);
        } else if (next < last) {
            load_row(dy + next * cols, cols, from);
            load_row(summed + next * cols, cols, of);
        }
        row = next;
    }
    fold_warps<N>(dgamma, cols, gammas + blockIdx.x * (uint64_t)cols);
    fold_warps<N>(dbeta, cols, betas + blockIdx.x * (uint64_t)cols);
}

#define KERNELS(name, T)                                                                                                                \
    extern "C" __global__ void __launch_bounds__(256, 4)                                                                                \
        et_norm_forward_##name(uint64_t rows, uint64_t cols, int has_dropout, int rms, EtDropout d, float eps, const T* x,              \
                               const T* residual, const float* gamma, const float* beta, T* y, T* summed, float* mean, float* rstd) {   \
        forward(rows, cols, has_dropout, rms, d, eps, x, residual, gamma, beta, y, summed, mean, rstd);                                 \
    }                                                                                                                                   \
    extern "C" __global__ void et_norm_again_##name(uint64_t rows, uint64_t cols, const T* summed, const float* mean, const float* rstd, \
                                                    const float* gamma, const float* beta, T* y) {                                      \
        again(rows, cols, summed, mean, rstd, gamma, beta, y);                                                                          \
    }                                                                                                                                   \
    extern "C" __global__ void et_norm_backward_##name(uint64_t rows, uint64_t cols, int has_dropout, int rms, EtDropout d,             \
                                                       const __nv_bfloat16* dy, const T* summed, const float* mean, const float* rstd,  \
                                                       const float* gamma, __nv_bfloat16* dx, __nv_bfloat16* dresidual) {               \
        backward(rows, cols, has_dropout, rms, d, dy, summed, mean, rstd, gamma, dx, dresidual);                                        \
    }                                                                                                                                   \
    extern "C" __global__ void et_norm_columns_##name(uint64_t rows, uint64_t cols, uint64_t chunk, int rms, const __nv_bfloat16* dy,   \
                                                      const T* summed, const float* mean, const float* rstd, float* gammas,             \
                                                      float* betas) {                                                                   \
        columns(rows, cols, chunk, rms, dy, summed, mean, rstd, gammas, betas);                                                         \
    }                                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(32 * WARPS, 2)                                                                         \
        et_norm_gradients_##name(uint64_t rows, uint64_t cols, uint64_t chunk, int has_dropout, int rms, EtDropout d,                   \
                                 const __nv_bfloat16* dy, const T* summed, const float* mean, const float* rstd, const float* gamma,    \
                                 __nv_bfloat16* dx, __nv_bfloat16* dresidual, float* gammas, float* betas) {                            \
        by_width(cols, [&](auto n) {                                                                                                    \
            gradients<decltype(n)::value>(rows, cols, chunk, has_dropout, rms, d, dy, summed, mean, rstd, gamma, dx, dresidual, gammas, \
                                          betas);                                                                                       \
        });                                                                                                                             \
    }
KERNELS(bf16, __nv_bfloat16)
KERNELS(f16, __half)
#undef KERNELS
