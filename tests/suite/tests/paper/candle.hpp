// The kernels of candle that the engine still uses, as plain loops over host memory. Their arguments are those of
// candle-kernels.
#pragma once

// Where element `i` of a tensor lies; candle gives no extents for contiguous ones.
static size_t place(size_t i, size_t rank, const size_t *dims, const size_t *strides) {
    if (dims == nullptr) {
        return i;
    }
    size_t at = 0;
    for (size_t axis = rank; axis-- > 0;) {
        at += i % dims[axis] * strides[axis];
        i /= dims[axis];
    }
    return at;
}

template <typename T>
static T argument(void **arguments, int index) {
    return *(T *)arguments[index];
}

// One input; `skip` arguments lie between the extents and it.
template <typename X, typename Y, typename F>
static Status unary(void **a, F f, int skip = 0) {
    size_t n = argument<size_t>(a, 0), rank = argument<size_t>(a, 1);
    const size_t *info = argument<const size_t *>(a, 2);
    const X *x = argument<const X *>(a, 3 + skip);
    Y *y = argument<Y *>(a, 4 + skip);
    for (size_t i = 0; i < n; ++i) {
        y[i] = f(x[place(i, rank, info, info + rank)]);
    }
    return 0;
}

template <typename Z, typename X = float, typename F>
static Status binary(void **a, F f) {
    size_t n = argument<size_t>(a, 0), rank = argument<size_t>(a, 1);
    const size_t *info = argument<const size_t *>(a, 2);
    const X *x = argument<const X *>(a, 3), *y = argument<const X *>(a, 4);
    Z *z = argument<Z *>(a, 5);
    for (size_t i = 0; i < n; ++i) {
        z[i] = f(x[place(i, rank, info, info + rank)], y[place(i, rank, info, info + 2 * rank)]);
    }
    return 0;
}

template <typename T>
static Status copy2d(void **a) {
    const T *from = argument<const T *>(a, 0);
    T *to = argument<T *>(a, 1);
    uint32_t rows = argument<uint32_t>(a, 2), cols = argument<uint32_t>(a, 3);
    for (uint32_t i = 0; i < rows * cols; ++i) {
        to[i / cols * argument<uint32_t>(a, 5) + i % cols] = from[i / cols * argument<uint32_t>(a, 4) + i % cols];
    }
    return 0;
}

// f(values, number of values) for each output, over the last axes.
template <typename Y, typename F>
static Status reduce(void **a, bool counts_outputs, F f) {
    size_t n = argument<size_t>(a, 0), each = argument<size_t>(a, 1), rank = argument<size_t>(a, 2);
    const size_t *info = argument<const size_t *>(a, 3);
    const float *x = argument<const float *>(a, 4);
    size_t outputs = counts_outputs || each == 0 ? n : n / each;
    std::vector<float> values(each);
    for (size_t out = 0; out < outputs; ++out) {
        for (size_t i = 0; i < each; ++i) {
            values[i] = x[place(out * each + i, rank, info, info + rank)];
        }
        argument<Y *>(a, 5)[out] = f(values);
    }
    return 0;
}

static Status index_select(void **a) {
    // The extents are those of the ids; candle makes the rest contiguous.
    size_t n = argument<size_t>(a, 0), rows = argument<size_t>(a, 7), ids_len = argument<size_t>(a, 8), right = argument<size_t>(a, 9);
    const int64_t *ids = argument<const int64_t *>(a, 3);
    for (size_t i = 0; i < n; ++i) {
        size_t from = i / (ids_len * right) * rows * right + (size_t)ids[i / right % ids_len] * right + i % right;
        argument<float *>(a, 5)[i] = argument<const float *>(a, 4)[from];
    }
    return 0;
}

static Status gather(void **a) {
    size_t n = argument<size_t>(a, 0), rows = argument<size_t>(a, 5), ids_len = argument<size_t>(a, 6), right = argument<size_t>(a, 7);
    const int64_t *ids = argument<const int64_t *>(a, 1);
    for (size_t i = 0; i < n; ++i) {
        size_t from = (i / (right * ids_len) * rows + (size_t)ids[i]) * right + i % right;
        argument<float *>(a, 3)[i] = argument<const float *>(a, 2)[from];
    }
    return 0;
}

static Status index_add(void **a) {
    const int64_t *ids = argument<const int64_t *>(a, 0);
    size_t ids_len = argument<size_t>(a, 1), left = argument<size_t>(a, 4), rows = argument<size_t>(a, 6), right = argument<size_t>(a, 7);
    for (size_t i = 0; i < left * ids_len * right; ++i) {
        size_t to = (i / (ids_len * right) * rows + (size_t)ids[i / right % ids_len]) * right + i % right;
        argument<float *>(a, 3)[to] += argument<const float *>(a, 2)[i];
    }
    return 0;
}

static Status scatter_add(void **a) {
    const int64_t *ids = argument<const int64_t *>(a, 0);
    size_t left = argument<size_t>(a, 3), from_rows = argument<size_t>(a, 4), rows = argument<size_t>(a, 5), right = argument<size_t>(a, 6);
    for (size_t i = 0; i < left * from_rows * right; ++i) {
        size_t to = (i / (from_rows * right) * rows + (size_t)ids[i]) * right + i % right;
        argument<float *>(a, 2)[to] += argument<const float *>(a, 1)[i];
    }
    return 0;
}

static Status select_where(void **a) {
    size_t n = argument<size_t>(a, 0), rank = argument<size_t>(a, 1);
    const size_t *info = argument<const size_t *>(a, 2);
    for (size_t i = 0; i < n; ++i) {
        auto at = [&](int operand) { return place(i, rank, info, info + operand * rank); };
        bool chosen = argument<const uint8_t *>(a, 3)[at(1)] != 0;
        argument<float *>(a, 6)[i] = chosen ? argument<const float *>(a, 4)[at(2)] : argument<const float *>(a, 5)[at(3)];
    }
    return 0;
}

// A bfloat16 that converts like a number.
struct Brain {
    __nv_bfloat16 bits;
    Brain(double x) : bits(__float2bfloat16_rn((float)x)) {}
    operator double() const { return et_wide(bits); }
};

template <typename X>
static Status cast_to(const std::string &to, void **a) {
    if (to == "f32") return unary<X, float>(a, [](X x) { return (float)x; });
    if (to == "f64") return unary<X, double>(a, [](X x) { return (double)x; });
    if (to == "bf16") return unary<X, Brain>(a, [](X x) { return Brain((double)x); });
    if (to == "i64") return unary<X, int64_t>(a, [](X x) { return (int64_t)(double)x; });
    if (to == "u8") return unary<X, uint8_t>(a, [](X x) { return (uint8_t)(double)x; });
    if (to == "u32") return unary<X, uint32_t>(a, [](X x) { return (uint32_t)(double)x; });
    return NOT_SUPPORTED;
}

static Status cast(const std::string &from, const std::string &to, void **a) {
    if (from == "f32") return cast_to<float>(to, a);
    if (from == "f64") return cast_to<double>(to, a);
    if (from == "bf16") return cast_to<Brain>(to, a);
    if (from == "i64") return cast_to<int64_t>(to, a);
    if (from == "u8") return cast_to<uint8_t>(to, a);
    if (from == "u32") return cast_to<uint32_t>(to, a);
    return NOT_SUPPORTED;
}

template <typename T>
static Status fill(void **a) {
    size_t n = argument<size_t>(a, 0), rank = argument<size_t>(a, 1);
    const size_t *info = argument<const size_t *>(a, 2);
    for (size_t i = 0; i < n; ++i) {
        argument<T *>(a, 4)[place(i, rank, info, info + rank)] = argument<T>(a, 3);
    }
    return 0;
}

// Functions of one f32 by candle's names.
static float (*function_of(const std::string &name))(float) {
    static const struct {
        const char *name;
        float (*f)(float);
    } ALL[] = {
        {"ucopy_f32", [](float x) { return x; }},          {"uneg_f32", [](float x) { return -x; }},
        {"usqr_f32", [](float x) { return x * x; }},       {"uabs_f32", [](float x) { return std::fabs(x); }},
        {"usqrt_f32", [](float x) { return std::sqrt(x); }}, {"urecip_f32", [](float x) { return 1.0f / x; }},
        {"uexp_f32", [](float x) { return std::exp(x); }}, {"ulog_f32", [](float x) { return std::log(x); }},
        {"usin_f32", [](float x) { return std::sin(x); }}, {"ucos_f32", [](float x) { return std::cos(x); }},
        {"utanh_f32", [](float x) { return std::tanh(x); }}, {"uerf_f32", [](float x) { return std::erf(x); }},
        {"usign_f32", [](float x) { return (float)((x > 0) - (x < 0)); }}, {"ufloor_f32", [](float x) { return std::floor(x); }},
    };
    for (const auto &each : ALL) {
        if (name == each.name) return each.f;
    }
    return nullptr;
}

static Status candle(const std::string &name, void **a) {
    auto largest = [](const std::vector<float> &v) { return *std::max_element(v.begin(), v.end()); };
    auto least = [](const std::vector<float> &v) { return *std::min_element(v.begin(), v.end()); };
    auto total = [](const std::vector<float> &v) {
        double sum = 0.0;
        for (float x : v) sum += x;
        return (float)sum;
    };
    if (auto f = function_of(name)) return unary<float, float>(a, f);
    if (name == "ucopy_u8") return unary<uint8_t, uint8_t>(a, [](uint8_t x) { return x; });
    if (name == "ucopy_i64") return unary<int64_t, int64_t>(a, [](int64_t x) { return x; });
    if (name == "ucopy_f64") return unary<double, double>(a, [](double x) { return x; });
    if (name == "ucopy_bf16" || name == "ucopy_f16") return unary<uint16_t, uint16_t>(a, [](uint16_t x) { return x; });
    if (name.rfind("cast_", 0) == 0) {
        size_t split = name.find('_', 5);
        return cast(name.substr(5, split - 5), name.substr(split + 1), a);
    }
    if (name == "badd_f32") return binary<float>(a, [](float x, float y) { return x + y; });
    if (name == "bsub_f32") return binary<float>(a, [](float x, float y) { return x - y; });
    if (name == "bmul_f32") return binary<float>(a, [](float x, float y) { return x * y; });
    if (name == "bmul_u8") return binary<uint8_t, uint8_t>(a, [](uint8_t x, uint8_t y) { return (uint8_t)(x * y); });
    if (name == "bdiv_f32") return binary<float>(a, [](float x, float y) { return x / y; });
    if (name == "bmaximum_f32") return binary<float>(a, [](float x, float y) { return std::fmax(x, y); });
    if (name == "bminimum_f32") return binary<float>(a, [](float x, float y) { return std::fmin(x, y); });
    if (name == "eq_f32") return binary<uint8_t>(a, [](float x, float y) { return x == y; });
    if (name == "ne_f32") return binary<uint8_t>(a, [](float x, float y) { return x != y; });
    if (name == "lt_f32") return binary<uint8_t>(a, [](float x, float y) { return x < y; });
    if (name == "le_f32") return binary<uint8_t>(a, [](float x, float y) { return x <= y; });
    if (name == "gt_f32") return binary<uint8_t>(a, [](float x, float y) { return x > y; });
    if (name == "ge_f32") return binary<uint8_t>(a, [](float x, float y) { return x >= y; });
    if (name == "fast_sum_f32") return reduce<float>(a, false, total);
    if (name == "fast_sum_small_f32") return reduce<float>(a, true, total);
    if (name == "fast_max_f32") return reduce<float>(a, false, largest);
    if (name == "fast_min_f32") return reduce<float>(a, false, least);
    if (name == "fast_argmax_f32") {
        return reduce<uint32_t>(a, false, [](const std::vector<float> &v) { return std::max_element(v.begin(), v.end()) - v.begin(); });
    }
    if (name == "affine_f32") {
        float factor = argument<float>(a, 5), term = argument<float>(a, 6);
        return unary<float, float>(a, [=](float x) { return x * factor + term; });
    }
    if (name == "upowf_f32") {
        float power = argument<float>(a, 3);
        return unary<float, float>(a, [=](float x) { return std::pow(x, power); }, 1);
    }
    if (name == "copy2d_f32") return copy2d<float>(a);
    if (name == "copy2d_i64") return copy2d<int64_t>(a);
    if (name == "copy2d_u8") return copy2d<uint8_t>(a);
    if (name == "const_set_f32") return fill<float>(a);
    if (name == "const_set_f64") return fill<double>(a);
    if (name == "is_i64_f32") return index_select(a);
    if (name == "gather_i64_f32") return gather(a);
    if (name == "ia_i64_f32") return index_add(a);
    if (name == "sa_i64_f32") return scatter_add(a);
    if (name == "where_u8_f32") return select_where(a);
    if (name == "fill_f32") {
        std::fill_n(argument<float *>(a, 0), argument<size_t>(a, 2), argument<float>(a, 1));
        return 0;
    }
    return NOT_SUPPORTED;
}
