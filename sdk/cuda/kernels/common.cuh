// What all kernels share. The kernels also compile with the host's C++ compiler, where tests/cuda_emulator.hpp stands
// in for a card, so that they are tested without one.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define ET_HD __host__ __device__ __forceinline__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define ET_DYNAMIC(type, name) extern __shared__ __align__(128) type name[]
#else
#include <cmath>
#define ET_HD inline
#ifdef ET_EMULATE
#include ET_EMULATE
#endif
#endif

// A place in the stream of random numbers and what dropout does with it; the same fields as `Dropout` of
// cuda/launch.rs.
struct EtDropout {
    uint64_t seed;
    uint64_t stream;
    uint64_t offset;
    uint32_t threshold;
    float scale;
};

// Philox4x32-10 (Salmon et al. 2011), bit for bit that of kernels/philox.rs.
struct EtWords {
    uint32_t w[4];
};

ET_HD EtWords et_philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
    for (int round = 0; round < 10; ++round) {
        uint64_t p0 = (uint64_t)0xd2511f53u * c0;
        uint64_t p1 = (uint64_t)0xcd9e8d57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    EtWords out = {{c0, c1, c2, c3}};
    return out;
}

ET_HD EtWords et_block(uint64_t seed, uint64_t stream, uint64_t block) {
    return et_philox((uint32_t)block, (uint32_t)(block >> 32), (uint32_t)stream, (uint32_t)(stream >> 32), (uint32_t)seed,
                     (uint32_t)(seed >> 32));
}

// The words of the four elements from `element` on (counted from the start of the stream).
ET_HD EtWords et_words4(uint64_t seed, uint64_t stream, uint64_t element) {
    uint64_t block = element >> 2;
    int skip = (int)(element & 3);
    EtWords first = et_block(seed, stream, block);
    if (skip == 0) {
        return first;
    }
    EtWords second = et_block(seed, stream, block + 1);
    EtWords out;
    for (int i = 0; i < 4; ++i) {
        int at = skip + i;
        out.w[i] = at < 4 ? first.w[at] : second.w[at - 4];
    }
    return out;
}

ET_HD float et_factor(const EtDropout& d, uint32_t word) { return word >= d.threshold ? d.scale : 0.0f; }

// The dropout factor of element `index` of the tensor.
ET_HD float et_dropout1(const EtDropout& d, uint64_t index) {
    uint64_t element = d.offset + index;
    return et_factor(d, et_block(d.seed, d.stream, element >> 2).w[element & 3]);
}

// a * b, rounded before anything is added to it. Where a difference of two equal products must be 0, as in the
// gradient of a norm over one column, a fused multiply-add would leave the rounding of one of them.
ET_HD float et_product(float a, float b) {
#ifdef __CUDA_ARCH__
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}

// Activations, numbered as `ET_ACTIVATION_` constants.
enum EtActivation { ET_NONE = 0, ET_RELU = 1, ET_GELU = 2, ET_GELU_TANH = 3, ET_TANH = 4, ET_SIGMOID = 5, ET_SILU = 6 };

// The standard normal distribution at x; erfc keeps the lower tail accurate.
ET_HD float et_normal(float x) { return 0.5f * erfcf(-x * 0.70710678118654752f); }

ET_HD float et_sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

ET_HD float et_gelu_inner(float x) { return 0.79788456080286536f * (x + 0.044715f * x * x * x); }

ET_HD float et_activate(int kind, float x) {
    switch (kind) {
        case ET_RELU:
            return x < 0.0f ? 0.0f : x;
        case ET_GELU:
            return x * et_normal(x);
        case ET_GELU_TANH:
            return 0.5f * x * (1.0f + tanhf(et_gelu_inner(x)));
        case ET_TANH:
            return tanhf(x);
        case ET_SIGMOID:
            return et_sigmoid(x);
        case ET_SILU:
            return x * et_sigmoid(x);
        default:
            return x;
    }
}

ET_HD float et_derivative(int kind, float x) {
    switch (kind) {
        case ET_RELU:
            return x > 0.0f ? 1.0f : 0.0f;
        case ET_GELU:
            return et_normal(x) + x * 0.39894228040143268f * expf(-0.5f * x * x);
        case ET_GELU_TANH: {
            float t = tanhf(et_gelu_inner(x));
            float slope = 0.79788456080286536f * (1.0f + 3.0f * 0.044715f * x * x);
            return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * slope;
        }
        case ET_TANH: {
            float t = tanhf(x);
            return 1.0f - t * t;
        }
        case ET_SIGMOID: {
            float s = et_sigmoid(x);
            return s * (1.0f - s);
        }
        case ET_SILU: {
            float s = et_sigmoid(x);
            return s * (1.0f + x * (1.0f - s));
        }
        default:
            return 1.0f;
    }
}

// 2^x and 1 / x to a few units in the last place, one instruction each; subnormal numbers count as 0.
ET_HD float et_fast_exp2(float x) {
#ifdef __CUDA_ARCH__
    asm("ex2.approx.ftz.f32 %0, %0;" : "+f"(x));
    return x;
#else
    return exp2f(x);
#endif
}

ET_HD float et_fast_inverse(float x) {
#ifdef __CUDA_ARCH__
    asm("rcp.approx.ftz.f32 %0, %0;" : "+f"(x));
    return x;
#else
    return 1.0f / x;
#endif
}

ET_HD float et_fast_sigmoid(float x) { return et_fast_inverse(1.0f + et_fast_exp2(-1.4426950408889634f * x)); }

// The standard normal distribution at x and its density.
struct EtNormal {
    float below;
    float density;
};

// By the error function's formula 7.1.26 of Abramowitz and Stegun, off by at most 1.5e-7: one exponential serves both.
ET_HD EtNormal et_fast_normal(float x) {
    float e = et_fast_exp2(-0.72134752044448170f * x * x);
    float t = et_fast_inverse(1.0f + 0.23164188f * fabsf(x));
    float series = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    float tail = 0.5f * series * e;
    EtNormal out = {x < 0.0f ? tail : 1.0f - tail, 0.39894228040143268f * e};
    return out;
}

// An activation and its derivative at x.
struct EtPoint {
    float value;
    float slope;
};

// For values that are kept in 16 bits, whose rounding hides what is lost here. tanh stays exact: made of the fast
// sigmoid it would lose what is near 0.
template <int KIND>
ET_HD EtPoint et_fast_point(float x) {
    EtPoint out;
    if constexpr (KIND == ET_GELU) {
        EtNormal normal = et_fast_normal(x);
        out = {x * normal.below, normal.below + x * normal.density};
    } else if constexpr (KIND == ET_GELU_TANH) {
        // (1 + tanh(u)) / 2 is the sigmoid of 2 u.
        float s = et_fast_sigmoid(2.0f * et_gelu_inner(x));
        out = {x * s, s + x * s * (1.0f - s) * (1.5957691216057308f + 0.21406772f * x * x)};
    } else if constexpr (KIND == ET_SIGMOID || KIND == ET_SILU) {
        float s = et_fast_sigmoid(x), slope = s * (1.0f - s);
        out = KIND == ET_SILU ? EtPoint{x * s, s + x * slope} : EtPoint{s, slope};
    } else {
        out = {et_activate(KIND, x), et_derivative(KIND, x)};
    }
    return out;
}

// The running maximum and sum of a softmax over parts (Milakov and Gimelshein 2018).
struct EtSoftmax {
    float largest;
    float sum;
};

ET_HD EtSoftmax et_softmax_join(EtSoftmax a, EtSoftmax b) {
    float largest = a.largest > b.largest ? a.largest : b.largest;
    // Of two empty parts: -inf - -inf would be NaN.
    if (largest == -INFINITY) {
        return a;
    }
    EtSoftmax out = {largest, a.sum * expf(a.largest - largest) + b.sum * expf(b.largest - largest)};
    return out;
}

// Rates of one parameter in one step; the same fields as `Rates` of cuda/optim.rs. The meaning is that of
// `Coefficients` in kernels/optim.rs.
struct EtRates {
    float keep;
    float l2;
    float step_size;
    float beta1;
    float rest1;
    float beta2;
    float rest2;
    float root2;
    float eps;
    float grad_scale;
    float decay;
    float rate;
};

ET_HD void et_adam(const EtRates& c, float& p, float g, float& m, float& v) {
    g = g * c.grad_scale + c.l2 * p;
    m += (g - m) * c.rest1;
    v = v * c.beta2 + g * g * c.rest2;
    p = p * c.keep - c.step_size * (m / (sqrtf(v) * c.root2 + c.eps));
}

ET_HD float et_lamb_direction(const EtRates& c, float p, float m, float v) {
    return m * c.step_size / (sqrtf(v) * c.root2 + c.eps) + c.decay * p;
}

#if defined(__CUDACC__) || defined(ET_EMULATE)
// Sum over a warp; every lane gets it. The order is fixed.
__device__ __forceinline__ float et_warp_sum(float x) {
    for (int step = 16; step > 0; step >>= 1) {
        x += __shfl_xor_sync(0xffffffffu, x, step);
    }
    return x;
}

__device__ __forceinline__ double et_warp_sum(double x) {
    for (int step = 16; step > 0; step >>= 1) {
        x += __shfl_xor_sync(0xffffffffu, x, step);
    }
    return x;
}

__device__ __forceinline__ EtSoftmax et_warp_join(EtSoftmax x) {
    for (int step = 16; step > 0; step >>= 1) {
        EtSoftmax other = {__shfl_xor_sync(0xffffffffu, x.largest, step), __shfl_xor_sync(0xffffffffu, x.sum, step)};
        x = et_softmax_join(x, other);
    }
    return x;
}

// Sum over a block of up to 1024 threads; every thread gets it. The order is fixed.
template <typename F>
__device__ __forceinline__ F et_block_sum(F x) {
    __shared__ F parts[32];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    x = et_warp_sum(x);
    __syncthreads();
    if (lane == 0) {
        parts[warp] = x;
    }
    __syncthreads();
    F total = 0;
    for (int i = 0; i < (int)((blockDim.x + 31) >> 5); ++i) {
        total += parts[i];
    }
    return total;
}
#endif
