// Runs the kernels of recurrent layers and of the conditional random field on the emulator, the former with the
// products between them as plain loops, and compares outputs with double precision and gradients with its finite
// differences.
#define ET_EMULATE "../tests/cuda_emulator.hpp"

#include "../kernels/crf.cu"
#include "../kernels/recurrent.cu"
#include "../kernels/storage.cuh"

#include "cuda_check.hpp"

static const size_t H = 5, T = 7;
// Tokens of each step: runs of 3, 3 and 1 tokens, the second one read from its end.
static const std::vector<std::vector<uint32_t>> STEPS = {{0, 5, 6}, {1, 4}, {2, 3}};

static double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// Outputs [T, H] from the input's side of the gates, the weight of the state [gates H, H] and its bias.
static Doubles layer(size_t gates, const Doubles &in, const Doubles &weight, const Doubles &bias) {
    Doubles y(T * H);
    for (size_t run = 0; run < 3; ++run) {
        Doubles h(H, 0.0), c(H, 0.0);
        for (const auto &step : STEPS) {
            if (run >= step.size()) {
                continue;
            }
            size_t row = step[run];
            Doubles side(gates * H), next(H);
            for (size_t k = 0; k < gates * H; ++k) {
                side[k] = bias[k];
                for (size_t u = 0; u < H; ++u) {
                    side[k] += weight[k * H + u] * h[u];
                }
            }
            const double *x = &in[row * gates * H];
            for (size_t u = 0; u < H; ++u) {
                if (gates == 4) {
                    double i = sigmoid(x[u] + side[u]), f = sigmoid(x[H + u] + side[H + u]);
                    c[u] = f * c[u] + i * std::tanh(x[2 * H + u] + side[2 * H + u]);
                    next[u] = sigmoid(x[3 * H + u] + side[3 * H + u]) * std::tanh(c[u]);
                } else {
                    double r = sigmoid(x[u] + side[u]), z = sigmoid(x[H + u] + side[H + u]);
                    next[u] = (1.0 - z) * std::tanh(x[2 * H + u] + r * side[2 * H + u]) + z * h[u];
                }
                y[row * H + u] = next[u];
            }
            h = next;
        }
    }
    return y;
}

// out [count, wide] (+)= x [count, narrow] w^T for w [wide, narrow], or x w for w [narrow, wide].
static void product(const Floats &x, const Floats &w, bool transposed, size_t count, size_t wide, size_t narrow, bool add, Floats &out) {
    for (size_t row = 0; row < count; ++row) {
        for (size_t i = 0; i < wide; ++i) {
            float sum = add ? out[row * wide + i] : 0.0f;
            for (size_t j = 0; j < narrow; ++j) {
                sum += x[row * narrow + j] * (transposed ? w[i * narrow + j] : w[j * wide + i]);
            }
            out[row * wide + i] = sum;
        }
    }
}

static void recurrent(size_t count) {
    size_t wide = count * H;
    std::printf("%s\n", count == 4 ? "lstm" : "gru");
    Floats in = numbers(T * wide, 1), weight = numbers(wide * H, 2), bias = numbers(wide, 3), dy = numbers(T * H, 4);
    Floats gates = in, state(3 * H, NONE), cell(3 * H, NONE), inner(T * H, NONE), y(T * H, NONE), sides(3 * wide, NONE);
    for (size_t step = 0; step < STEPS.size(); ++step) {
        const auto &rows = STEPS[step];
        product(state, weight, true, step ? rows.size() : 0, wide, H, false, sides);
        const float *after = step ? sides.data() : nullptr;
        et_launch(1, 1, 64, 1, [&] {
            if (count == 4) {
                et_lstm_forward(rows.size(), H, rows.data(), after, bias.data(), gates.data(), cell.data(), state.data(), inner.data(),
                                y.data());
            } else {
                et_gru_forward(rows.size(), H, rows.data(), after, bias.data(), gates.data(), state.data(), inner.data(), y.data());
            }
        });
    }
    Doubles wide_in(in.begin(), in.end()), wide_weight(weight.begin(), weight.end()), wide_bias(bias.begin(), bias.end());
    compare("  y", y, layer(count, wide_in, wide_weight, wide_bias), 1e-6);

    Floats dstate(3 * H, 0.0f), dcell(3 * H, 0.0f), dsides(3 * wide, NONE), dinput(T * wide, NONE), dhidden = dinput, before(T * H, NONE);
    for (size_t step = STEPS.size(); step-- > 0;) {
        const auto &rows = STEPS[step];
        const uint32_t *earlier = step ? STEPS[step - 1].data() : nullptr;
        et_launch(1, 1, 64, 1, [&] {
            if (count == 4) {
                et_lstm_backward(rows.size(), H, rows.data(), earlier, gates.data(), inner.data(), y.data(), dy.data(), dstate.data(),
                                 dcell.data(), dsides.data(), dinput.data(), before.data());
            } else {
                et_gru_backward(rows.size(), H, rows.data(), earlier, gates.data(), inner.data(), y.data(), dy.data(), dstate.data(),
                                dsides.data(), dinput.data(), dhidden.data(), before.data());
            }
        });
        product(dsides, weight, false, rows.size(), H, wide, count == 3, dstate);
    }
    const Floats &hidden = count == 4 ? dinput : dhidden;
    Floats dweight(wide * H), dbias(wide);
    for (size_t row = 0; row < T; ++row) {
        for (size_t k = 0; k < wide; ++k) {
            dbias[k] += hidden[row * wide + k];
            for (size_t u = 0; u < H; ++u) {
                dweight[k * H + u] += hidden[row * wide + k] * before[row * H + u];
            }
        }
    }
    auto slope = [&](Doubles &x) {
        Doubles out;
        for (double &value : x) {
            double sums[2] = {}, start = value;
            for (int side = 0; side < 2; ++side) {
                value = start + (side ? 1e-5 : -1e-5);
                Doubles out_y = layer(count, wide_in, wide_weight, wide_bias);
                for (size_t i = 0; i < T * H; ++i) {
                    sums[side] += dy[i] * out_y[i];
                }
            }
            value = start;
            out.push_back((sums[1] - sums[0]) / 2e-5);
        }
        return out;
    };
    compare("  input's side", dinput, slope(wide_in), 1e-5);
    compare("  weight of the state", dweight, slope(wide_weight), 1e-5);
    compare("  bias of the state", dbias, slope(wide_bias), 1e-5);
}

// Negative log likelihood over all paths one by one, summed over runs.
static double field(size_t classes, const std::vector<int64_t> &starts, const std::vector<int64_t> &tags, const Doubles &all) {
    const double *e = all.data(), *moves = e + starts.back() * classes, *first = moves + classes * classes, *last = first + classes;
    double nll = 0.0;
    for (size_t run = 0; run + 1 < starts.size(); ++run) {
        size_t begin = starts[run], len = starts[run + 1] - begin, paths = 1;
        if (len == 0) {
            continue;
        }
        for (size_t t = 0; t < len; ++t) {
            paths *= classes;
        }
        double sum = 0.0, own = 0.0;
        // The last path is the one of the tags.
        for (size_t path = 0; path <= paths; ++path) {
            double score = 0.0;
            size_t rest = path, before = 0;
            for (size_t t = 0; t < len; ++t) {
                size_t tag = path == paths ? (size_t)tags[begin + t] : rest % classes;
                rest /= classes;
                score += e[(begin + t) * classes + tag] + (t ? moves[before * classes + tag] : first[tag]);
                score += t + 1 == len ? last[tag] : 0.0;
                before = tag;
            }
            if (path == paths) {
                own = score;
            } else {
                sum += std::exp(score);
            }
        }
        nll += std::log(sum) - own;
    }
    return nll;
}

static void random_field() {
    std::printf("crf\n");
    const size_t classes = 3, rows = 6, pairs = classes * classes, runs = 3;
    std::vector<int64_t> starts = {0, 4, 4, 6}, tags = {0, 2, 1, 1, 2, 0};
    Floats x = numbers(rows * classes + pairs + 2 * classes, 1), nll(runs, NONE), dloss(1, 0.7f), inverse(1, 1.0f / 3.0f);
    const float *e = x.data(), *moves = e + rows * classes, *first = moves + pairs, *last = first + classes;
    Doubles alpha(rows * classes, NAN), totals(runs, NAN), room(runs * 2 * classes, NAN), all(x.begin(), x.end()), expected;
    Floats de(rows * classes, NONE), dmoves(runs * pairs, NONE), dfirst(runs * classes, NONE), dlast(runs * classes, NONE);
    et_launch(runs, 1, 64, 1, [&] {
        et_crf_forward(classes, starts.data(), e, tags.data(), moves, first, last, alpha.data(), totals.data(), nll.data());
    });
    compare("  nll", {nll[0] + nll[1] + nll[2], nll[1]}, {field(classes, starts, tags, all), 0.0}, 1e-6);
    et_launch(runs, 1, 64, 1, [&] {
        et_crf_backward(classes, starts.data(), e, tags.data(), moves, last, alpha.data(), totals.data(), dloss.data(), inverse.data(),
                        room.data(), de.data(), dmoves.data(), dfirst.data(), dlast.data());
    });
    Floats found = de;
    for (const auto &[part, each] : {std::make_pair(&dmoves, pairs), std::make_pair(&dfirst, classes), std::make_pair(&dlast, classes)}) {
        for (size_t i = 0; i < each; ++i) {
            found.push_back((*part)[i] + (*part)[each + i] + (*part)[2 * each + i]);
        }
    }
    for (double &value : all) {
        double start = value;
        value = start + 1e-5;
        double above = field(classes, starts, tags, all);
        value = start - 1e-5;
        expected.push_back(0.7 / 3.0 * (above - field(classes, starts, tags, all)) / 2e-5);
        value = start;
    }
    compare("  slopes", found, expected, 1e-6);
}

int main() {
    random_field();
    recurrent(4);
    recurrent(3);
    std::printf("%d failed\n", failed);
    return failed;
}
