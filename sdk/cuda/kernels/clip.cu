// Clipping of gradients by their norm. The factor stays on the card, so that nobody waits for the norm.
#include "optim.cuh"

// From the sum of squares of gradients that still lack the factor `pending`: their norm, and what clips it to
// `limit`. One thread.
extern "C" __global__ void et_clip_factor(double pending, double limit, const double* sum, double* norm, float* factor) {
    double found = sqrt(*sum * pending * pending);
    *norm = found;
    // The small constant is that of torch.nn.utils.clip_grad_norm_. A norm that is no number changes nothing.
    *factor = found > limit ? (float)(limit / (found + 1e-6)) : 1.0f;
}

// g *= factor; touches nothing where the factor is 1.
extern "C" __global__ void et_clip_apply(const EtTask* tasks, const float* factor, float* g) {
    float scale = *factor;
    if (scale == 1.0f) {
        return;
    }
    EtTask task = tasks[blockIdx.x];
    for (uint32_t i = threadIdx.x; i < task.len; i += blockDim.x) {
        g[task.start + i] *= scale;
    }
}
