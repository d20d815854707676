// Layer norm with residual and dropout, and RMS norm, on values that are stored in bfloat16 or half precision. Sums, means and deviations
// are f32; s is rounded before anything is computed from it, so that backward sees what forward saw. One warp per row, four elements per
// lane at once; rows are read again from the first-level cache.
#include "storage.cuh"

// y = gamma (s - mean) rstd + beta of one row, whose sums are known.
template <typename T>
__device__ __forceinline__ void scale_row(uint64_t start, uint64_t cols, const T* s, const float* gamma, const float* beta, float centre,
                                          float inverse, T* y) {
    for (uint64_t at = 4 * (threadIdx.x & 31); at < cols; at += 128) {
        float v[4], g[4], b[4];
        et_load4(s, start + at, start + cols, v);
        et_load4(gamma, at, cols, g);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            v[j] = (v[j] - centre) * inverse * g[j];
        }
        if (beta) {
            et_load4(beta, at, cols, b);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                v[j] += b[j];
            }
        }
        et_store4(y, start + at, start + cols, v);
    }
}

template <typename T>
__device__ __forceinline__ void forward(uint64_t rows, uint64_t cols, int has_dropout, int rms, const EtDropout& d, float eps, const T* x,
                                        const T* residual, const float* gamma, const float* beta, T* y, T* summed, float* mean,
                                        float* rstd) {
    uint64_t row = blockIdx.x * 8ull + (threadIdx.x >> 5);
    int lane = threadIdx.x & 31;
    if (row >= rows) {
        return;
    }
    uint64_t start = row * cols, end = start + cols;
    const T* s = summed ? summed : x;
    float sum = 0.0f;
    for (uint64_t at = start + 4 * lane; at < end; at += 128) {
        float v[4];
        et_load4(x, at, end, v);
        if (summed) {
            if (has_dropout) {
                EtWords words = et_words4(d.seed, d.stream, d.offset + at);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    v[j] *= et_factor(d, words.w[j]);
                }
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
    float inverse = 1.0f / sqrtf(et_warp_sum(square) / (float)cols + eps);
    scale_row(start, cols, s, gamma, beta, centre, inverse, y);
    if (lane == 0) {
        if (mean) {
            mean[row] = centre;
        }
        rstd[row] = inverse;
    }
}

// What forward wrote to y, to the same bits.
template <typename T>
__device__ __forceinline__ void again(uint64_t rows, uint64_t cols, const T* summed, const float* mean, const float* rstd,
                                      const float* gamma, const float* beta, T* y) {
    uint64_t row = blockIdx.x * 8ull + (threadIdx.x >> 5);
    if (row < rows) {
        scale_row(row * cols, cols, summed, gamma, beta, mean ? mean[row] : 0.0f, rstd[row], y);
    }
}

// dresidual = gradient of s; dx = that times the dropout factors. Either may be NULL; without dropout dx equals dresidual.
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
    float level = 0.0f, along = 0.0f;
    for (uint64_t at = 4 * lane; at < cols; at += 128) {
        float g[4], s[4], w[4];
        et_load4(dy, start + at, end, g);
        et_load4(summed, start + at, end, s);
        et_load4(gamma, at, cols, w);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            float scaled = g[j] * w[j];
            level += scaled;
            along += scaled * (s[j] - centre) * inverse;
        }
    }
    level = rms ? 0.0f : et_warp_sum(level) / (float)cols;
    along = et_warp_sum(along) / (float)cols;
    for (uint64_t at = 4 * lane; at < cols; at += 128) {
        float g[4], s[4], w[4];
        et_load4(dy, start + at, end, g);
        et_load4(summed, start + at, end, s);
        et_load4(gamma, at, cols, w);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            float normal = (s[j] - centre) * inverse;
            g[j] = inverse * (g[j] * w[j] - level - normal * along);
        }
        if (dresidual) {
            et_store4(dresidual, start + at, end, g);
        }
        if (dx) {
            if (has_dropout) {
                EtWords words = et_words4(d.seed, d.stream, d.offset + start + at);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    g[j] *= et_factor(d, words.w[j]);
                }
            }
            et_store4(dx, start + at, end, g);
        }
    }
}

// Partial sums over blocks of `chunk` rows for dgamma and dbeta: [gridDim.y, cols] each. Blocks of 32 x 8 threads, four columns each.
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
            float g[4], s[4], centre = rms ? 0.0f : mean[row], inverse = rstd[row];
            et_load4(dy, at, end, g);
            et_load4(summed, at, end, s);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                gamma[j] += g[j] * (s[j] - centre) * inverse;
                beta[j] += g[j];
            }
        }
    }
    et_fold_columns(part[0], gamma, col, cols, gammas + blockIdx.y * cols);
    et_fold_columns(part[1], beta, col, cols, betas + blockIdx.y * cols);
}

#define KERNELS(name, T)                                                                                                                \
    extern "C" __global__ void et_norm_forward_##name(uint64_t rows, uint64_t cols, int has_dropout, int rms, EtDropout d, float eps,   \
                                                      const T* x, const T* residual, const float* gamma, const float* beta, T* y,       \
                                                      T* summed, float* mean, float* rstd) {                                            \
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
    }
KERNELS(bf16, __nv_bfloat16)
KERNELS(f16, __half)
#undef KERNELS
