// Runs of rows to a padded block and back. Elements are moved as they are stored, so one kernel serves all types of
// one size.
#include "common.cuh"

// y [runs, len, width] = the rows of x [T, width], zeros behind short runs; long runs are cut. One block per row of y.
template <typename E>
__device__ __forceinline__ void to_padded(uint64_t width, uint64_t len, const int64_t* starts, const E* x, E* y) {
    uint64_t run = blockIdx.x / len, place = blockIdx.x % len;
    uint64_t row = (uint64_t)starts[run] + place;
    bool inside = row < (uint64_t)starts[run + 1];
    for (uint64_t at = threadIdx.x; at < width; at += blockDim.x) {
        y[blockIdx.x * width + at] = inside ? x[row * width + at] : (E)0;
    }
}

// y [T, width] = the rows of x [runs, len, width]; rows of y past `len` of their run are zeros. One block per run and
// slice of its rows.
template <typename E>
__device__ __forceinline__ void from_padded(uint64_t width, uint64_t len, const int64_t* starts, const E* x, E* y) {
    uint64_t run = blockIdx.x, first = (uint64_t)starts[run], count = (uint64_t)starts[run + 1] - first;
    for (uint64_t place = blockIdx.y; place < count; place += gridDim.y) {
        for (uint64_t at = threadIdx.x; at < width; at += blockDim.x) {
            y[(first + place) * width + at] = place < len ? x[(run * len + place) * width + at] : (E)0;
        }
    }
}

#define KERNELS(name, E)                                                                                                               \
    extern "C" __global__ void et_to_padded_##name(uint64_t width, uint64_t len, const int64_t* starts, const E* x, E* y) {            \
        to_padded(width, len, starts, x, y);                                                                                           \
    }                                                                                                                                  \
    extern "C" __global__ void et_from_padded_##name(uint64_t width, uint64_t len, const int64_t* starts, const E* x, E* y) {          \
        from_padded(width, len, starts, x, y);                                                                                         \
    }
KERNELS(16, uint16_t)
KERNELS(32, uint32_t)
#undef KERNELS
