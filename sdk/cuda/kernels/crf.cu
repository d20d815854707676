// The linear-chain conditional random field (Lafferty, McCallum, Pereira 2001) by the forward and the backward
// algorithm, in double precision as on the CPU. One block per run; its threads share the tags of a token, and meet
// after every token.
#include "common.cuh"

// log(exp(a) + ..) over `count` terms.
template <typename Term>
__device__ __forceinline__ double log_sum_exp(uint64_t count, Term term) {
    double largest = -INFINITY, sum = 0.0;
    for (uint64_t i = 0; i < count; ++i) {
        double value = term(i);
        largest = value > largest ? value : largest;
    }
    if (largest == -INFINITY) {
        return largest;
    }
    for (uint64_t i = 0; i < count; ++i) {
        sum += exp(term(i) - largest);
    }
    return largest + log(sum);
}

// alpha [T, classes]: logarithms of the summed scores of all beginnings; totals [runs]: of all paths; nll [runs], 0
// for an empty run.
extern "C" __global__ void et_crf_forward(uint64_t classes, const int64_t* starts, const float* emissions, const int64_t* tags,
                                          const float* transitions, const float* first, const float* last, double* alpha, double* totals,
                                          float* nll) {
    uint64_t begin = (uint64_t)starts[blockIdx.x], end = (uint64_t)starts[blockIdx.x + 1];
    if (begin == end) {
        if (threadIdx.x == 0) {
            totals[blockIdx.x] = 0.0;
            nll[blockIdx.x] = 0.0f;
        }
        return;
    }
    for (uint64_t row = begin; row < end; ++row) {
        const double* before = alpha + (row - 1) * classes;
        for (uint64_t j = threadIdx.x; j < classes; j += blockDim.x) {
            double reached = first[j];
            if (row > begin) {
                reached = log_sum_exp(classes, [&](uint64_t i) { return before[i] + transitions[i * classes + j]; });
            }
            alpha[row * classes + j] = reached + emissions[row * classes + j];
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        const double* here = alpha + (end - 1) * classes;
        double total = log_sum_exp(classes, [&](uint64_t j) { return here[j] + last[j]; });
        double path = first[tags[begin]] + (double)last[tags[end - 1]];
        for (uint64_t row = begin; row < end; ++row) {
            path += emissions[row * classes + tags[row]];
            path += row > begin ? transitions[tags[row - 1] * classes + tags[row]] : 0.0f;
        }
        totals[blockIdx.x] = total;
        nll[blockIdx.x] = (float)(total - path);
    }
}

// Gradients of dloss * inverse times the sum of all nll: of the emissions, and those of the scores for each run:
// dtransitions [runs, classes * classes], dfirst and dlast [runs, classes]. room [runs, 2 classes] is scratch.
extern "C" __global__ void et_crf_backward(uint64_t classes, const int64_t* starts, const float* emissions, const int64_t* tags,
                                           const float* transitions, const float* last, const double* alpha, const double* totals,
                                           const float* dloss, const float* inverse, double* room, float* demissions, float* dtransitions,
                                           float* dfirst, float* dlast) {
    uint64_t begin = (uint64_t)starts[blockIdx.x], end = (uint64_t)starts[blockIdx.x + 1], pairs = classes * classes;
    double total = totals[blockIdx.x], factor = (double)*dloss * *inverse;
    double* beta = room + blockIdx.x * 2 * classes;
    double* ahead = beta + classes;
    dtransitions += blockIdx.x * pairs;
    for (uint64_t k = threadIdx.x; k < pairs; k += blockDim.x) {
        dtransitions[k] = 0.0f;
    }
    for (uint64_t j = threadIdx.x; j < classes; j += blockDim.x) {
        beta[j] = last[j];
        dfirst[blockIdx.x * classes + j] = 0.0f;
        dlast[blockIdx.x * classes + j] = 0.0f;
    }
    for (uint64_t row = end; row-- > begin;) {
        // Each thread reads of beta what it wrote itself.
        for (uint64_t j = threadIdx.x; j < classes; j += blockDim.x) {
            double marginal = exp(alpha[row * classes + j] + beta[j] - total) - ((int64_t)j == tags[row] ? 1.0 : 0.0);
            float slope = (float)(factor * marginal);
            demissions[row * classes + j] = slope;
            if (row + 1 == end) {
                dlast[blockIdx.x * classes + j] = slope;
            }
            if (row == begin) {
                dfirst[blockIdx.x * classes + j] = slope;
            }
            ahead[j] = emissions[row * classes + j] + beta[j];
        }
        if (row == begin) {
            return;
        }
        __syncthreads();
        const double* before = alpha + (row - 1) * classes;
        uint64_t taken = (uint64_t)tags[row - 1] * classes + (uint64_t)tags[row];
        for (uint64_t k = threadIdx.x; k < pairs; k += blockDim.x) {
            double share = exp(before[k / classes] + transitions[k] + ahead[k % classes] - total) - (k == taken ? 1.0 : 0.0);
            dtransitions[k] += (float)(factor * share);
        }
        for (uint64_t i = threadIdx.x; i < classes; i += blockDim.x) {
            beta[i] = log_sum_exp(classes, [&](uint64_t j) { return transitions[i * classes + j] + ahead[j]; });
        }
        // Nobody writes `ahead` before all have read it.
        __syncthreads();
    }
}
