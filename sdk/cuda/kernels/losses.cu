// Binary cross entropy from logits: the mean over a row's columns, then the weighted mean over rows. One warp per row.
#include "common.cuh"

// losses [rows] = weight times the row's mean of max(x, 0) - x t + ln(1 + exp(-|x|)).
extern "C" __global__ void et_binary_rows(uint64_t rows, uint64_t cols, const float* x, const float* targets, const float* weights,
                                          float* losses) {
    uint64_t row = blockIdx.x * 8ull + (threadIdx.x >> 5);
    if (row >= rows) {
        return;
    }
    float sum = 0.0f;
    for (uint64_t at = row * cols + (threadIdx.x & 31); at < (row + 1) * cols; at += 32) {
        sum += fmaxf(x[at], 0.0f) - x[at] * targets[at] + log1pf(expf(-fabsf(x[at])));
    }
    sum = et_warp_sum(sum);
    if ((threadIdx.x & 31) == 0) {
        losses[row] = sum / (float)cols * (weights ? weights[row] : 1.0f);
    }
}

// loss = sum(losses) / sum(weights), inverse = 1 / sum(weights), both 0 when the weights sum to 0. One block of 256
// threads.
extern "C" __global__ void et_binary_mean(uint64_t rows, const float* weights, const float* losses, float* loss, float* inverse) {
    double total = 0.0, weight = 0.0;
    for (uint64_t row = threadIdx.x; row < rows; row += blockDim.x) {
        total += losses[row];
        weight += weights ? weights[row] : 1.0f;
    }
    total = et_block_sum(total);
    weight = et_block_sum(weight);
    if (threadIdx.x == 0) {
        *loss = weight == 0.0 ? 0.0f : (float)(total / weight);
        *inverse = weight == 0.0 ? 0.0f : (float)(1.0 / weight);
    }
}

// dx = dloss (sigmoid(x) - t) w / (cols sum(w)).
extern "C" __global__ void et_binary_backward(uint64_t rows, uint64_t cols, const float* x, const float* targets, const float* weights,
                                              const float* dloss, const float* inverse, float* dx) {
    for (uint64_t at = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; at < rows * cols; at += (uint64_t)gridDim.x * blockDim.x) {
        float scale = *dloss * *inverse * (weights ? weights[at / cols] : 1.0f) / (float)cols;
        dx[at] = (et_sigmoid(x[at]) - targets[at]) * scale;
    }
}
