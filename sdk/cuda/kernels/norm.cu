// Layer norm with residual and dropout, RMS norm. One warp per row; rows are read again from the first-level cache.
#include "common.cuh"

// s = residual + dropout(x); y = gamma (s - mean) rstd + beta. `summed` is written where there is a residual or
// dropout (else NULL: s is x). With `rms`, the mean is 0 and there is no beta. Blocks of 256 threads, 8 rows each.
extern "C" __global__ void et_norm_forward(uint64_t rows, uint64_t cols, int has_dropout, int rms, EtDropout d, float eps,
                                           const float* x, const float* residual, const float* gamma, const float* beta, float* y,
                                           float* summed, float* mean, float* rstd) {
    uint64_t row = blockIdx.x * 8ull + (threadIdx.x >> 5);
    int lane = threadIdx.x & 31;
    if (row >= rows) {
        return;
    }
    uint64_t start = row * cols;
    const float* s = x + start;
    float sum = 0.0f;
    if (summed) {
        s = summed + start;
        for (uint64_t at = 4 * lane; at < cols; at += 128) {
            EtWords words;
            if (has_dropout) {
                words = et_words4(d.seed, d.stream, d.offset + start + at);
            }
            for (int j = 0; j < 4 && at + j < cols; ++j) {
                float value = x[start + at + j];
                if (has_dropout) {
                    value *= et_factor(d, words.w[j]);
                }
                if (residual) {
                    value += residual[start + at + j];
                }
                summed[start + at + j] = value;
                sum += value;
            }
        }
    } else {
        for (uint64_t at = 4 * lane; at < cols; at += 128) {
            for (int j = 0; j < 4 && at + j < cols; ++j) {
                sum += s[at + j];
            }
        }
    }
    // Each lane reads again what it wrote itself, so no barrier is needed.
    float centre = rms ? 0.0f : et_warp_sum(sum) / (float)cols;
    float square = 0.0f;
    for (uint64_t at = 4 * lane; at < cols; at += 128) {
        for (int j = 0; j < 4 && at + j < cols; ++j) {
            float away = s[at + j] - centre;
            square += away * away;
        }
    }
    float inverse = 1.0f / sqrtf(et_warp_sum(square) / (float)cols + eps);
    for (uint64_t at = 4 * lane; at < cols; at += 128) {
        for (int j = 0; j < 4 && at + j < cols; ++j) {
            float value = (s[at + j] - centre) * inverse * gamma[at + j];
            y[start + at + j] = beta ? value + beta[at + j] : value;
        }
    }
    if (lane == 0) {
        if (mean) {
            mean[row] = centre;
        }
        rstd[row] = inverse;
    }
}

// dresidual = gradient of s; dx = that times the dropout factors. Either may be NULL; without dropout dx equals
// dresidual.
extern "C" __global__ void et_norm_backward(uint64_t rows, uint64_t cols, int has_dropout, int rms, EtDropout d, const float* dy,
                                            const float* summed, const float* mean, const float* rstd, const float* gamma, float* dx,
                                            float* dresidual) {
    uint64_t row = blockIdx.x * 8ull + (threadIdx.x >> 5);
    int lane = threadIdx.x & 31;
    if (row >= rows) {
        return;
    }
    uint64_t start = row * cols;
    const float* s = summed + start;
    const float* g = dy + start;
    float centre = rms ? 0.0f : mean[row], inverse = rstd[row];
    float level = 0.0f, along = 0.0f;
    for (uint64_t at = lane; at < cols; at += 32) {
        float scaled = et_product(g[at], gamma[at]);
        level += scaled;
        along += scaled * (s[at] - centre) * inverse;
    }
    level = rms ? 0.0f : et_warp_sum(level) / (float)cols;
    along = et_warp_sum(along) / (float)cols;
    for (uint64_t at = 4 * lane; at < cols; at += 128) {
        EtWords words;
        if (has_dropout && dx) {
            words = et_words4(d.seed, d.stream, d.offset + start + at);
        }
        for (int j = 0; j < 4 && at + j < cols; ++j) {
            float normal = (s[at + j] - centre) * inverse;
            float value = inverse * (et_product(g[at + j], gamma[at + j]) - level - normal * along);
            if (dresidual) {
                dresidual[start + at + j] = value;
            }
            if (dx) {
                dx[start + at + j] = has_dropout ? value * et_factor(d, words.w[j]) : value;
            }
        }
    }
}

// Partial sums over blocks of `chunk` rows for dgamma and dbeta: [gridDim.y, cols] each. Blocks of 32 x 8 threads.
extern "C" __global__ void et_norm_columns(uint64_t rows, uint64_t cols, uint64_t chunk, int rms, const float* dy, const float* summed,
                                           const float* mean, const float* rstd, float* gammas, float* betas) {
    __shared__ float part[2][8][33];
    uint64_t col = blockIdx.x * 32ull + threadIdx.x;
    uint64_t first = blockIdx.y * chunk;
    uint64_t last = first + chunk < rows ? first + chunk : rows;
    float gamma = 0.0f, beta = 0.0f;
    if (col < cols) {
        for (uint64_t row = first + threadIdx.y; row < last; row += 8) {
            float g = dy[row * cols + col];
            float centre = rms ? 0.0f : mean[row];
            gamma += g * (summed[row * cols + col] - centre) * rstd[row];
            beta += g;
        }
    }
    part[0][threadIdx.y][threadIdx.x] = gamma;
    part[1][threadIdx.y][threadIdx.x] = beta;
    __syncthreads();
    if (threadIdx.y == 0 && col < cols) {
        for (int i = 1; i < 8; ++i) {
            gamma += part[0][i][threadIdx.x];
            beta += part[1][i][threadIdx.x];
        }
        gammas[blockIdx.y * cols + col] = gamma;
        betas[blockIdx.y * cols + col] = beta;
    }
}

// y = gamma (s - mean) rstd + beta, as et_norm_forward wrote it. Blocks of 256 threads, 8 rows each.
extern "C" __global__ void et_norm_again(uint64_t rows, uint64_t cols, const float* summed, const float* mean, const float* rstd,
                                         const float* gamma, const float* beta, float* y) {
    uint64_t row = blockIdx.x * 8ull + (threadIdx.x >> 5);
    if (row >= rows) {
        return;
    }
    const float* s = summed + row * cols;
    float centre = mean ? mean[row] : 0.0f, inverse = rstd[row];
    for (uint64_t at = threadIdx.x & 31; at < cols; at += 32) {
        float value = (s[at] - centre) * inverse * gamma[at];
        y[row * cols + at] = beta ? value + beta[at] : value;
    }
}
