// A convolution over runs of rows as one product: the taps of every row side by side, and the sums that lead back.
// Rows outside of a run are zeros. One block per run and slice of its rows.
#include "storage.cuh"

// y [T, width * taps]: element i * taps + k of row t is x[t + k * dilation - before][i]. Elements are moved as they
// are stored.
template <typename E>
__device__ __forceinline__ void unfold(uint64_t width, uint64_t taps, int64_t dilation, int64_t before, const int64_t* starts, const E* x,
                                       E* y) {
    int64_t first = starts[blockIdx.x], last = starts[blockIdx.x + 1];
    uint64_t wide = width * taps;
    for (int64_t row = first + blockIdx.y; row < last; row += gridDim.y) {
        for (uint64_t at = threadIdx.x; at < wide; at += blockDim.x) {
            int64_t from = row + (int64_t)(at % taps) * dilation - before;
            bool inside = from >= first && from < last;
            y[(uint64_t)row * wide + at] = inside ? x[(uint64_t)from * width + at / taps] : (E)0;
        }
    }
}

// dx [T, width] = the sums of what `unfold` made of each element, tap by tap.
template <typename G>
__device__ __forceinline__ void fold(uint64_t width, uint64_t taps, int64_t dilation, int64_t before, const int64_t* starts, const G* dy,
                                     G* dx) {
    int64_t first = starts[blockIdx.x], last = starts[blockIdx.x + 1];
    for (int64_t row = first + blockIdx.y; row < last; row += gridDim.y) {
        for (uint64_t at = threadIdx.x; at < width; at += blockDim.x) {
            float sum = 0.0f;
            for (uint64_t k = 0; k < taps; ++k) {
                int64_t to = row - (int64_t)k * dilation + before;
                if (to >= first && to < last) {
                    sum += et_wide(dy[((uint64_t)to * width + at) * taps + k]);
                }
            }
            dx[(uint64_t)row * width + at] = et_narrow<G>(sum);
        }
    }
}

#define UNFOLD(name, E)                                                                                                              \
    extern "C" __global__ void et_unfold_##name(uint64_t width, uint64_t taps, int64_t dilation, int64_t before,                     \
                                                const int64_t* starts, const E* x, E* y) {                                           \
        unfold(width, taps, dilation, before, starts, x, y);                                                                         \
    }
UNFOLD(16, uint16_t)
UNFOLD(32, uint32_t)
#undef UNFOLD

#define FOLD(name, G)                                                                                                                \
    extern "C" __global__ void et_fold_##name(uint64_t width, uint64_t taps, int64_t dilation, int64_t before, const int64_t* starts, \
                                              const G* dy, G* dx) {                                                                  \
        fold(width, taps, dilation, before, starts, dy, dx);                                                                         \
    }
FOLD(f32, float)
FOLD(bf16, __nv_bfloat16)
#undef FOLD
