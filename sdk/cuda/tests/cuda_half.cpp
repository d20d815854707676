// Runs the kernels on values that are stored in bfloat16 and half precision on the emulator, against plain loops in
// double precision over the same stored values. Half precision's gradients are bfloat16.
#define ET_EMULATE "../tests/cuda_emulator.hpp"

#include "../kernels/elementwise.cu"
#include "../kernels/half.cu"
#include "../kernels/norm_half.cu"
#include "../kernels/rows.cu"

#include "cuda_check.hpp"

typedef __nv_bfloat16 G;
// Half of the distance between two neighbours, relative: what rounding once may cost.
static const double ROUNDED = 1.0 / 256.0;

template <typename T>
struct Elementwise {
    void (*activation)(int, uint64_t, const T *, T *);
    void (*dropout)(EtDropout, uint64_t, const T *, T *);
    void (*slopes)(int, uint64_t, uint64_t, uint64_t, const T *, const G *, G *, float *);
};

// An activation and its derivative in double precision.
static void exact(int kind, double x, double &value, double &slope) {
    double normal = 0.5 * std::erfc(-x / std::sqrt(2.0)), density = std::exp(-0.5 * x * x) / std::sqrt(2.0 * 3.14159265358979323846);
    double inner = std::sqrt(2.0 / 3.14159265358979323846) * (x + 0.044715 * x * x * x), t = std::tanh(x), s = 1.0 / (1.0 + std::exp(-x));
    double inner_slope = std::sqrt(2.0 / 3.14159265358979323846) * (1.0 + 3.0 * 0.044715 * x * x), h = std::tanh(inner);
    double values[] = {x, x > 0.0 ? x : 0.0, x * normal, 0.5 * x * (1.0 + h), t, s, x * s};
    double slopes[] = {1.0,
                       (double)(x > 0.0),
                       normal + x * density,
                       0.5 * (1.0 + h) + 0.5 * x * (1.0 - h * h) * inner_slope,
                       1.0 - t * t,
                       s * (1.0 - s),
                       s * (1.0 + x * (1.0 - s))};
    value = values[kind];
    slope = slopes[kind];
}

template <int KIND>
static void fast_point(const char *name) {
    double apart = 0.0;
    for (int i = -12 * 1024; i <= 12 * 1024; ++i) {
        float x = (float)i / 1024.0f;
        double value, slope;
        exact(KIND, x, value, slope);
        EtPoint found = et_fast_point<KIND>(x);
        apart = std::fmax(apart, std::fabs(found.value - value) / std::fmax(1.0, std::fabs(x)));
        apart = std::fmax(apart, std::fabs(found.slope - slope) / std::fmax(1.0, std::fabs(x)));
    }
    // What is not a number stays that, and far out nothing overflows.
    bool nan = std::isnan(et_fast_point<KIND>(NAN).value) && std::isnan(et_fast_point<KIND>(NAN).slope);
    EtPoint above = et_fast_point<KIND>(1000.0f), below = et_fast_point<KIND>(-1000.0f);
    bool far = above.value == 1000.0f && above.slope == 1.0f && below.value == 0.0f && below.slope == 0.0f;
    report(name, nan && (far || KIND == ET_SIGMOID) ? apart : INFINITY, 1e-6);
}

static void fast_arithmetic() {
    double apart = 0.0, density = 0.0;
    for (int i = -12 * 1024; i <= 12 * 1024; ++i) {
        double x = i / 1024.0;
        EtNormal found = et_fast_normal((float)x);
        apart = std::fmax(apart, std::fabs(found.below - 0.5 * std::erfc(-x / std::sqrt(2.0))));
        density = std::fmax(density, std::fabs(found.density - std::exp(-0.5 * x * x) / std::sqrt(2.0 * 3.14159265358979323846)));
    }
    report("fast normal distribution", apart, 3e-7);
    report("fast normal density", density, 1e-7);
    fast_point<ET_GELU>("fast gelu");
    fast_point<ET_GELU_TANH>("fast gelu of tanh");
    fast_point<ET_SIGMOID>("fast sigmoid");
    fast_point<ET_SILU>("fast silu");
}

// Kernels on matrices of this width that begin `shift` elements behind an address of 16 bytes.
template <typename T>
static void elementwise(Elementwise<T> kernels, size_t cols, size_t shift) {
    size_t rows = 150, n = rows * cols, chunk = 64, parts = 3;
    auto shifted = [&](Floats x) {
        x.insert(x.begin(), shift, NONE);
        return x;
    };
    auto found = [&](const auto &x) {
        Floats all = values(x);
        return Floats(all.begin() + (std::ptrdiff_t)shift, all.end());
    };
    Floats plain = numbers(n, 1);
    for (float &v : plain) {
        v *= 4.0f;
    }
    std::vector<T> x = stored<T>(shifted(plain));
    std::vector<G> dy = stored<G>(shifted(numbers(n, 2)));
    const T *from = x.data() + shift;
    const G *above = dy.data() + shift;
    EtDropout d = {9, 4, 6, 1288490189u, 1.0f / 0.7f};
    Doubles kept(n), sums(cols, 0.0);
    for (size_t i = 0; i < n; ++i) {
        kept[i] = et_wide(from[i]) * (double)et_dropout1(d, i);
        sums[i % cols] += et_wide(above[i]);
    }
    std::vector<T> y = stored<T>(Floats(n + shift, NONE));
    et_launch(4, 1, 256, 1, [&] { kernels.dropout(d, n, from, y.data() + shift); });
    compare("dropout", found(y), kept, ROUNDED);
    unsigned wide = blocks(cols, 256);
    Floats partial(parts * cols, NONE), out(cols, NONE);
    et_launch(wide, (unsigned)parts, 32, 8, [&] { kernels.slopes(0, rows, cols, chunk, nullptr, above, nullptr, partial.data()); });
    et_launch(blocks(cols, 32), 1, 32, 32, [&] { et_column_finish(parts, cols, 0, partial.data(), out.data()); });
    compare("sums of columns", out, sums, 1e-5);
    for (int kind = ET_NONE; kind <= ET_SILU; ++kind) {
        Doubles value(n), slope(n);
        sums.assign(cols, 0.0);
        for (size_t i = 0; i < n; ++i) {
            exact(kind, et_wide(from[i]), value[i], slope[i]);
            slope[i] *= et_wide(above[i]);
            sums[i % cols] += slope[i];
        }
        y = stored<T>(Floats(n + shift, NONE));
        et_launch(4, 1, 256, 1, [&] { kernels.activation(kind, n, from, y.data() + shift); });
        compare("activation", found(y), value, ROUNDED);
        std::vector<G> dz = stored<G>(Floats(n + shift, NONE)), same = dz;
        et_launch(wide, (unsigned)parts, 32, 8,
                  [&] { kernels.slopes(kind, rows, cols, chunk, from, above, dz.data() + shift, partial.data()); });
        et_launch(blocks(cols, 32), 1, 32, 32, [&] { et_column_finish(parts, cols, 0, partial.data(), out.data()); });
        compare("activation backward", found(dz), slope, ROUNDED);
        compare("sums of its columns", out, sums, 1e-5);
        et_launch(wide, (unsigned)parts, 32, 8,
                  [&] { kernels.slopes(kind, rows, cols, chunk, from, above, same.data() + shift, nullptr); });
        Floats first = found(dz);
        compare("without sums", found(same), Doubles(first.begin(), first.end()), 0.0);
    }
}

template <typename T>
static void elementwise(const char *name, Elementwise<T> kernels) {
    std::printf("%s\n", name);
    // Eight elements at once, in more than one block; four, of an address that does not allow eight or a width that
    // does not; one.
    elementwise(kernels, 264, 0);
    elementwise(kernels, 136, 4);
    elementwise(kernels, 132, 0);
    elementwise(kernels, 37, 0);
    elementwise(kernels, 136, 1);
}

template <typename From, typename To>
static void convert(const char *name, void (*kernel)(uint64_t, const From *, To *)) {
    size_t n = 1003;
    Floats plain = numbers(n, 1);
    plain[0] = 70000.0f;
    plain[1] = 1e-6f;
    plain[2] = -0.0f;
    std::vector<From> x = stored<From>(plain);
    std::vector<To> y = stored<To>(Floats(n, NONE));
    Doubles expected;
    for (From value : x) {
        expected.push_back(et_rounded<To>(et_wide(value)));
    }
    // An address that does not allow four elements at once comes to the same.
    et_launch(1, 1, 256, 1, [&] { kernel(n, x.data(), y.data()); });
    compare(name, values(y), expected, 0.0);
    et_launch(1, 1, 256, 1, [&] { kernel(n - 1, x.data() + 1, y.data() + 1); });
    compare(name, values(y), expected, 0.0);
}

template <typename T>
struct Norm {
    void (*forward)(uint64_t, uint64_t, int, int, EtDropout, float, const T *, const T *, const float *, const float *, T *, T *, float *,
                    float *);
    void (*again)(uint64_t, uint64_t, const T *, const float *, const float *, const float *, const float *, T *);
    void (*backward)(uint64_t, uint64_t, int, int, EtDropout, const G *, const T *, const float *, const float *, const float *, G *, G *);
    void (*columns)(uint64_t, uint64_t, uint64_t, int, const G *, const T *, const float *, const float *, float *, float *);
    void (*gradients)(uint64_t, uint64_t, uint64_t, int, int, EtDropout, const G *, const T *, const float *, const float *, const float *,
                      G *, G *, float *, float *);
};

// Sums of columns that a kernel left in parts.
static Floats finished(size_t parts, size_t cols, const Floats &partial) {
    Floats out(cols, NONE);
    et_launch(blocks(cols, 32), 1, 32, 32, [&] { et_column_finish(parts, cols, 0, partial.data(), out.data()); });
    return out;
}

static void compare_bits(const char *name, const Floats &found, const Floats &expected) {
    compare(name, found, Doubles(expected.begin(), expected.end()), 0.0);
}

template <typename T>
static void norms(const char *name, Norm<T> kernels) {
    std::printf("%s\n", name);
    // Rows that are held in registers, of whole warps and not, and rows that are not: of no whole eights, and too
    // wide.
    for (size_t cols : {4, 21, 40, 132, 256, 384, 768, 1024, 1032}) {
        for (int variant = 0; variant < 4; ++variant) {
            bool rms = variant == 3, has_residual = variant == 1 || variant == 2, has_dropout = variant == 2;
            size_t rows = 19, n = rows * cols;
            std::vector<T> x = stored<T>(numbers(n, 1)), r = stored<T>(numbers(n, 2)), y = stored<T>(Floats(n, NONE)), summed = y, same = y;
            std::vector<G> dy = stored<G>(numbers(n, 5)), dx = stored<G>(Floats(n, NONE)), dr = dx;
            Floats gamma = numbers(cols, 3), beta = numbers(cols, 4), mean(rows, NONE), rstd(rows, NONE);
            EtDropout d = {5, 6, 2, 429496730u, 1.0f / 0.9f};
            double eps = 1e-3;
            Doubles sums(n), kept(n), slopes(n);
            for (size_t at = 0; at < n; ++at) {
                float keep = has_dropout ? et_dropout1(d, at) : 1.0f;
                kept[at] = keep;
                slopes[at] = et_wide(dy[at]);
                // What is kept is what is normalised.
                sums[at] = et_rounded<T>(et_wide(x[at]) * keep + (has_residual ? et_wide(r[at]) : 0.0f));
            }
            NormReference right(rows, cols, rms, eps, sums, slopes, kept, gamma, beta);
            T *sum = has_residual ? summed.data() : nullptr;
            float *means = rms ? nullptr : mean.data();
            const float *shift = rms ? nullptr : beta.data();
            et_launch(blocks(rows, 8), 1, 256, 1, [&] {
                kernels.forward(rows, cols, has_dropout, rms, d, (float)eps, x.data(), has_residual ? r.data() : nullptr, gamma.data(), shift,
                                y.data(), sum, means, rstd.data());
            });
            compare("norm", values(y), right.y, ROUNDED);
            const T *saved = sum ? sum : x.data();
            et_launch(blocks(rows, 8), 1, 256, 1,
                      [&] { kernels.again(rows, cols, saved, means, rstd.data(), gamma.data(), shift, same.data()); });
            compare_bits("norm again", values(same), values(y));
            if (sum) {
                compare("norm sum", values(summed), sums, 0.0);
            }
            et_launch(blocks(rows, 8), 1, 256, 1, [&] {
                kernels.backward(rows, cols, has_dropout, rms, d, dy.data(), saved, mean.data(), rstd.data(), gamma.data(), dx.data(), dr.data());
            });
            compare("norm dx", values(dx), right.dx, ROUNDED);
            compare("norm dresidual", values(dr), right.dresidual, ROUNDED);
            size_t chunk = 8, parts = 3;
            Floats gammas(parts * cols, NONE), betas(parts * cols, NONE);
            et_launch(blocks(cols, 128), parts, 32, 8, [&] {
                kernels.columns(rows, cols, chunk, rms, dy.data(), saved, mean.data(), rstd.data(), gammas.data(), betas.data());
            });
            compare("norm dgamma", finished(parts, cols, gammas), right.dgamma, 1e-4);
            compare("norm dbeta", finished(parts, cols, betas), right.dbeta, 1e-5);
            // Addresses that do not allow eight elements at once come to the same, but for the order of sums.
            std::vector<T> shifted = stored<T>(Floats(n + 1, NONE)), shifted_sum = shifted;
            std::copy(x.begin(), x.end(), shifted.begin() + 1);
            et_launch(blocks(rows, 8), 1, 256, 1, [&] {
                kernels.forward(rows, cols, has_dropout, rms, d, (float)eps, shifted.data() + 1, has_residual ? r.data() : nullptr,
                                gamma.data(), shift, y.data(), sum ? shifted_sum.data() + 1 : nullptr, means, rstd.data());
            });
            compare("norm of a shifted x", values(y), right.y, ROUNDED);
            if (sum) {
                shifted_sum.erase(shifted_sum.begin());
                compare_bits("sum of a shifted x", values(shifted_sum), values(summed));
            }
            if (cols % 8 != 0 || cols > 1024) {
                continue;
            }
            // All gradients at once: warps with three rows, with two and with one, and a block that is not full.
            chunk = 13, parts = 2;
            for (int missing = 0; missing < 3; ++missing) {
                dx = stored<G>(Floats(n, NONE));
                dr = dx;
                gammas.assign(parts * cols, NONE);
                betas = gammas;
                G *to_x = missing == 1 ? nullptr : dx.data(), *to_r = missing == 2 ? nullptr : dr.data();
                et_launch(parts, 1, 192, 1, [&] {
                    kernels.gradients(rows, cols, chunk, has_dropout, rms, d, dy.data(), saved, mean.data(), rstd.data(), gamma.data(),
                                      to_x, to_r, gammas.data(), betas.data());
                });
                if (to_x) {
                    compare("norm dx at once", values(dx), right.dx, ROUNDED);
                }
                if (to_r) {
                    compare("norm dresidual at once", values(dr), right.dresidual, ROUNDED);
                }
                compare("norm dgamma at once", finished(parts, cols, gammas), right.dgamma, 1e-4);
                compare("norm dbeta at once", finished(parts, cols, betas), right.dbeta, 1e-5);
            }
        }
    }
}

template <typename T>
struct Rows {
    void (*losses)(uint64_t, uint64_t, int64_t, float, const T *, const int64_t *, const float *, float *, float *);
    void (*slope)(uint64_t, uint64_t, int64_t, float, const T *, const int64_t *, const float *, const float *, const float *,
                  const float *, G *);
    void (*embedding)(uint64_t, int, int, EtTables, T *);
    void (*pool)(int, uint64_t, const int64_t *, const T *, float *);
    void (*spread)(int, uint64_t, const int64_t *, const T *, const float *, G *);
};

template <typename T>
static void rows(const char *name, Rows<T> kernels) {
    std::printf("%s\n", name);
    size_t rows = 10, cols = 45, n = rows * cols;
    std::vector<T> x = stored<T>(numbers(n, 1));
    std::vector<G> dx = stored<G>(Floats(n, NONE));
    Floats log_sums(rows, NONE), each(rows, NONE), loss(1, NONE), inverse(1, NONE), dloss(1, 0.7f);
    std::vector<int64_t> labels(rows);
    double total = 0.0;
    Doubles grad(n, 0.0);
    for (size_t r = 0; r < rows; ++r) {
        labels[r] = r == 3 ? -100 : (int64_t)(r * 7 % cols);
        double sum = 0.0;
        for (size_t c = 0; c < cols; ++c) {
            sum += std::exp((double)et_wide(x[r * cols + c]));
        }
        for (size_t c = 0; c < cols && r != 3; ++c) {
            double p = std::exp((double)et_wide(x[r * cols + c])) / sum, target = (int64_t)c == labels[r];
            total -= target * std::log(p) / (rows - 1.0);
            grad[r * cols + c] = 0.7 * (p - target) / (rows - 1.0);
        }
    }
    et_launch(2, 1, 256, 1,
              [&] { kernels.losses(rows, cols, -100, 0.0f, x.data(), labels.data(), nullptr, log_sums.data(), each.data()); });
    et_launch(1, 1, 256, 1, [&] { et_cross_entropy_mean(rows, -100, labels.data(), nullptr, each.data(), loss.data(), inverse.data()); });
    compare("cross entropy", loss, {total}, 1e-6);
    et_launch((unsigned)rows, 1, 256, 1, [&] {
        kernels.slope(rows, cols, -100, 0.0f, x.data(), labels.data(), nullptr, log_sums.data(), dloss.data(), inverse.data(), dx.data());
    });
    compare("cross entropy backward", values(dx), grad, ROUNDED);

    size_t width = 70, positions = 9;
    Floats a = numbers(5 * width, 1), b = numbers(3 * width, 2);
    std::vector<T> y = stored<T>(Floats(positions * width, NONE));
    std::vector<G> dy = stored<G>(numbers(positions * width, 3));
    std::vector<int64_t> ia(positions), ib(positions);
    Doubles sum(positions * width), table(width, 0.0);
    std::vector<uint32_t> order, starts = {0};
    for (size_t t = 0; t < positions; ++t) {
        ia[t] = (int64_t)(t * t % 5);
        ib[t] = (int64_t)(t % 3);
        if (ia[t] == 1) {
            order.push_back((uint32_t)t);
        }
        for (size_t c = 0; c < width; ++c) {
            sum[t * width + c] = a[ia[t] * width + c] + b[ib[t] * width + c];
            table[c] += ia[t] == 1 ? et_wide(dy[t * width + c]) : 0.0f;
        }
    }
    starts.push_back((uint32_t)order.size());
    EtTables tables = {{a.data(), b.data(), nullptr, nullptr}, {ia.data(), ib.data(), nullptr, nullptr}};
    et_launch((unsigned)positions, 1, 64, 1, [&] { kernels.embedding(width, 2, 0, tables, y.data()); });
    compare("embedding", values(y), sum, ROUNDED);
    Floats piece(width, NONE);
    et_launch(1, 1, 64, 1, [&] { et_embedding_pieces_bf16(width, starts.data(), order.data(), dy.data(), piece.data()); });
    compare("embedding backward", piece, table, 1e-6);

    int64_t runs[] = {0, 4, 4, 9};
    Floats t = values(y);
    for (int kind = 1; kind <= 3; ++kind) {
        Floats pooled(3 * width, NONE), dpool = numbers(3 * width, 5);
        std::vector<G> back = stored<G>(Floats(positions * width, NONE));
        Doubles expected(3 * width, 0.0), spread(positions * width, 0.0);
        for (int run = 0; run < 3; ++run) {
            for (size_t c = 0; c < width && runs[run] < runs[run + 1]; ++c) {
                double value = 0.0, count = (double)(runs[run + 1] - runs[run]);
                int64_t best = runs[run];
                for (int64_t i = runs[run]; i < runs[run + 1]; ++i) {
                    value += t[i * width + c] / count;
                    best = t[i * width + c] > t[best * width + c] ? i : best;
                }
                int64_t at = kind == 2 ? runs[run] : best;
                expected[run * width + c] = kind == 1 ? value : t[at * width + c];
                for (int64_t i = runs[run]; i < runs[run + 1]; ++i) {
                    spread[i * width + c] = (kind == 1 ? 1.0 / count : i == at) * dpool[run * width + c];
                }
            }
        }
        et_launch(3, 1, 64, 1, [&] { kernels.pool(kind, width, runs, y.data(), pooled.data()); });
        compare("pool", pooled, expected, 1e-6);
        et_launch(3, 1, 64, 1, [&] { kernels.spread(kind, width, runs, y.data(), dpool.data(), back.data()); });
        compare("pool backward", values(back), spread, ROUNDED);
    }
}

// Why half precision's gradients are bfloat16: those of a loss that is a mean over many rows are small. Sums over
// rows of gradients near 2^-27 come out right from bfloat16 and are nothing in half precision, whose smallest number
// is 2^-24.
static void small_gradients() {
    size_t rows = 4096, cols = 4, n = rows * cols, chunk = 64, parts = 64;
    Floats dy = numbers(n, 1);
    Doubles expected(cols, 0.0), lost(cols, 0.0);
    for (size_t i = 0; i < n; ++i) {
        dy[i] = (dy[i] + 1.5f) * std::ldexp(1.0f, -28);
        expected[i % cols] += dy[i];
        lost[i % cols] += et_rounded<__half>(dy[i]);
    }
    std::vector<G> kept = stored<G>(dy);
    Floats partial(parts * cols, NONE), out(cols, NONE);
    et_launch(1, (unsigned)parts, 32, 8,
              [&] { et_slopes_f16(0, rows, cols, chunk, nullptr, kept.data(), nullptr, partial.data()); });
    et_launch(blocks(cols, 32), 1, 32, 32, [&] { et_column_finish(parts, cols, 0, partial.data(), out.data()); });
    for (size_t c = 0; c < cols; ++c) {
        report("small gradients in bf16", std::fabs(out[c] / expected[c] - 1.0), 1e-3);
        report("small gradients in f16 are lost", std::fabs(lost[c]), 0.0);
    }
}

int main() {
    fast_arithmetic();
    elementwise("bf16", Elementwise<__nv_bfloat16>{et_activation_bf16, et_dropout_bf16, et_slopes_bf16});
    elementwise("f16", Elementwise<__half>{et_activation_f16, et_dropout_f16, et_slopes_f16});
    convert("f32 to bf16", et_convert_f32_bf16);
    convert("f32 to f16", et_convert_f32_f16);
    convert("bf16 to f32", et_convert_bf16_f32);
    convert("f16 to f32", et_convert_f16_f32);
    convert("bf16 to f16", et_convert_bf16_f16);
    convert("f16 to bf16", et_convert_f16_bf16);
    norms("bf16", Norm<__nv_bfloat16>{et_norm_forward_bf16, et_norm_again_bf16, et_norm_backward_bf16, et_norm_columns_bf16,
                                      et_norm_gradients_bf16});
    norms("f16", Norm<__half>{et_norm_forward_f16, et_norm_again_f16, et_norm_backward_f16, et_norm_columns_f16, et_norm_gradients_f16});
    rows("bf16", Rows<__nv_bfloat16>{et_cross_entropy_rows_bf16, et_cross_entropy_backward_bf16, et_embedding_forward_bf16,
                                     et_pool_forward_bf16, et_pool_backward_bf16});
    rows("f16", Rows<__half>{et_cross_entropy_rows_f16, et_cross_entropy_backward_f16, et_embedding_forward_f16, et_pool_forward_f16,
                             et_pool_backward_f16});
    small_gradients();
    std::printf("%d failed\n", failed);
    return failed;
}
