// What the programs that run CUDA kernels on the emulator share. They print one line per check; the exit code is the
// number of checks that failed. Included behind the kernels.
#pragma once

#include <cmath>
#include <cstdio>
#include <vector>

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

static int failed = 0;

static void report(const char *name, double apart, double tolerance) {
    bool good = apart <= tolerance;
    failed += !good;
    std::printf("%s %s %.2e\n", good ? "ok    " : "FAILED", name, apart);
}

// Largest difference over the largest number; a NaN is infinitely far.
static void compare(const char *name, const Floats &found, const Doubles &expected, double tolerance) {
    double apart = 0.0, largest = 1e-6;
    for (size_t i = 0; i < expected.size(); ++i) {
        if (std::isinf(expected[i])) {
            apart = found[i] == expected[i] ? apart : INFINITY;
            continue;
        }
        double away = std::fabs(found[i] - expected[i]);
        apart = std::isnan(away) ? INFINITY : std::fmax(apart, away);
        largest = std::fmax(largest, std::fabs(expected[i]));
    }
    report(name, found.size() == expected.size() ? apart / largest : INFINITY, tolerance);
}

static Floats numbers(size_t n, uint32_t seed) {
    Floats out(n);
    for (size_t i = 0; i < n; ++i) {
        EtWords words = et_block(seed, 77, i);
        out[i] = (float)(int32_t)(words.w[0] >> 8) / 8388608.0f - 1.0f;
    }
    return out;
}

[[maybe_unused]] static unsigned blocks(size_t n, size_t each) { return (unsigned)((n + each - 1) / each); }

static const float NONE = NAN;

// Elements as they are stored in T, and their values again.
template <typename T>
static std::vector<T> stored(const Floats &x) {
    std::vector<T> out;
    // No room behind the last element, where sanitizers would not see an access.
    out.reserve(x.size());
    for (float value : x) {
        out.push_back(et_narrow<T>(value));
    }
    return out;
}

template <typename T>
static Floats values(const std::vector<T> &x) {
    Floats out;
    for (T value : x) {
        out.push_back(et_wide(value));
    }
    return out;
}

// Layer norm of the rows of `summed` [rows, cols], RMS norm with `rms`, and its gradients. `kept` is what x was
// multiplied by before it came into the sum.
struct NormReference {
    Doubles y, dx, dresidual, dgamma, dbeta;

    NormReference(size_t rows, size_t cols, bool rms, double eps, const Doubles &summed, const Doubles &dy, const Doubles &kept,
                  const Floats &gamma, const Floats &beta)
        : y(rows * cols), dx(rows * cols), dresidual(rows * cols), dgamma(cols, 0.0), dbeta(cols, 0.0) {
        for (size_t first = 0; first < rows * cols; first += cols) {
            Doubles h(cols);
            double centre = 0.0, square = 0.0, level = 0.0, along = 0.0;
            for (size_t c = 0; c < cols; ++c) {
                centre += rms ? 0.0 : summed[first + c] / (double)cols;
            }
            for (size_t c = 0; c < cols; ++c) {
                square += (summed[first + c] - centre) * (summed[first + c] - centre) / (double)cols;
            }
            double inverse = 1.0 / std::sqrt(square + eps);
            for (size_t c = 0; c < cols; ++c) {
                size_t at = first + c;
                h[c] = (summed[at] - centre) * inverse;
                y[at] = h[c] * gamma[c] + (rms ? 0.0 : beta[c]);
                level += rms ? 0.0 : dy[at] * gamma[c] / (double)cols;
                along += dy[at] * gamma[c] * h[c] / (double)cols;
                dgamma[c] += dy[at] * h[c];
                dbeta[c] += dy[at];
            }
            for (size_t c = 0; c < cols; ++c) {
                size_t at = first + c;
                dresidual[at] = inverse * (dy[at] * gamma[c] - level - h[c] * along);
                dx[at] = dresidual[at] * kept[at];
            }
        }
    }
};
