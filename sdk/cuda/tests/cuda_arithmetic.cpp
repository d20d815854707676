// Prints what the kernels' arithmetic gives on the host, one number per line, for cuda_arithmetic.rs.
#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "../kernels/common.cuh"

static void bits(float x) {
    uint32_t word;
    std::memcpy(&word, &x, 4);
    std::printf("%" PRIu32 "\n", word);
}

int main() {
    const uint64_t seed = 0x123456789abcdef0ull, stream = 0x0fedcba987654321ull;
    const uint64_t offsets[] = {0, 1, 2, 3, 4, 63, (1ull << 34) - 2};
    for (uint64_t offset : offsets) {
        for (int i = 0; i < 12; i += 4) {
            EtWords words = et_words4(seed, stream, offset + i);
            for (int j = 0; j < 4; ++j) {
                std::printf("%" PRIu32 "\n", words.w[j]);
            }
        }
    }
    EtDropout dropout = {7, 3, 10, 429496730u, (float)(1.0 / (1.0 - 0.1))};
    for (int i = 0; i < 64; ++i) {
        bits(et_dropout1(dropout, (uint64_t)i));
    }
    for (int kind = 0; kind <= 6; ++kind) {
        for (int i = -160; i <= 160; ++i) {
            bits(et_activate(kind, 0.05f * i));
            bits(et_derivative(kind, 0.05f * i));
        }
    }
    EtSoftmax state = {-INFINITY, 0.0f};
    for (int part = 0; part < 4; ++part) {
        EtSoftmax own = {-INFINITY, 0.0f};
        for (int i = 0; i < 9; ++i) {
            EtSoftmax one = {(float)((i * 37 + part * 11) % 23) - 11.0f, 1.0f};
            own = et_softmax_join(own, one);
        }
        state = et_softmax_join(state, own);
    }
    bits(state.largest + logf(state.sum));
    EtRates rates;
    rates.keep = 0.999f;
    rates.l2 = 0.01f;
    rates.step_size = 0.01f;
    rates.rest1 = 0.1f;
    rates.beta2 = 0.999f;
    rates.rest2 = 0.001f;
    rates.root2 = 1.5f;
    rates.eps = 1e-8f;
    rates.grad_scale = 0.5f;
    float p = 0.7f, m = 0.1f, v = 0.02f;
    et_adam(rates, p, -0.3f, m, v);
    bits(p);
    bits(m);
    bits(v);
    return 0;
}
