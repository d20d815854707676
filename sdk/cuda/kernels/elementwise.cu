// Activations, dropout, column sums, scaling, in f32.
#include "common.cuh"

extern "C" __global__ void et_activation_forward(int kind, uint64_t n, const float* x, float* y) {
    for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < n; i += (uint64_t)gridDim.x * blockDim.x) {
        y[i] = et_activate(kind, x[i]);
    }
}

// dx = dy act'(x); dx may be dy.
extern "C" __global__ void et_activation_backward(int kind, uint64_t n, const float* x, const float* dy, float* dx) {
    for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < n; i += (uint64_t)gridDim.x * blockDim.x) {
        dx[i] = dy[i] * et_derivative(kind, x[i]);
    }
}

// y = x times the dropout factors.
extern "C" __global__ void et_dropout(EtDropout d, uint64_t n, const float* x, float* y) {
    uint64_t groups = (n + 3) / 4;
    for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < groups; i += (uint64_t)gridDim.x * blockDim.x) {
        EtWords words = et_words4(d.seed, d.stream, d.offset + 4 * i);
        for (int j = 0; j < 4; ++j) {
            uint64_t at = 4 * i + j;
            if (at < n) {
                y[at] = x[at] * et_factor(d, words.w[j]);
            }
        }
    }
}

// Sums of the columns of x [rows, cols] over blocks of `chunk` rows: partial [gridDim.y, cols]. Blocks of 32 x 8
// threads.
extern "C" __global__ void et_column_partial(uint64_t rows, uint64_t cols, uint64_t chunk, const float* x, float* partial) {
    __shared__ float part[8][33];
    uint64_t col = blockIdx.x * 32ull + threadIdx.x;
    uint64_t first = blockIdx.y * chunk;
    uint64_t last = first + chunk < rows ? first + chunk : rows;
    float sum = 0.0f;
    if (col < cols) {
        for (uint64_t row = first + threadIdx.y; row < last; row += 8) {
            sum += x[row * cols + col];
        }
    }
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && col < cols) {
        for (int i = 1; i < 8; ++i) {
            sum += part[i][threadIdx.x];
        }
        partial[blockIdx.y * cols + col] = sum;
    }
}

// out = (add ? out : 0) + the sums of `partial` [parts, cols], in an order that only `parts` sets. Blocks of 32 x 32
// threads for 32 columns: every warp adds some of the parts, then adds up one column.
extern "C" __global__ void et_column_finish(uint64_t parts, uint64_t cols, int add, const float* partial, float* out) {
    __shared__ double sums[32][33];
    uint64_t first = blockIdx.x * 32ull, col = first + threadIdx.x, own = first + threadIdx.y;
    double sum = 0.0;
    if (col < cols) {
        for (uint64_t part = threadIdx.y; part < parts; part += 32) {
            sum += partial[part * cols + col];
        }
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    sum = et_warp_sum(sums[threadIdx.x][threadIdx.y]);
    if (threadIdx.x == 0 && own < cols) {
        out[own] = (add ? out[own] : 0.0f) + (float)sum;
    }
}

// y (+)= x.
extern "C" __global__ void et_store(uint64_t n, int add, const float* x, float* y) {
    for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < n; i += (uint64_t)gridDim.x * blockDim.x) {
        y[i] = add ? y[i] + x[i] : x[i];
    }
}
