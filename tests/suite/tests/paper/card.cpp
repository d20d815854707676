// A card of paper: the driver and cuBLAS as far as the CUDA engine uses them, in host memory. The engine's kernels
// run on the emulator of their own tests, candle's few and the matrix products as plain loops. It is as lazy as CUDA
// allows: work on a stream, copies out of page-locked memory included, is done when somebody waits for it and not
// before, so what is used too early or given up too soon shows. New memory and freed memory are filled with NaN.
// PAPER_MIB limits it. With PAPER_IDLE no work is done at all and what is read back is zero: then the time of a
// program is what it costs the host to keep a card busy.
#define ET_EMULATE "../tests/cuda_emulator.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include KERNELS_INC

typedef int Status;
static const Status INVALID = 1, OUT_OF_MEMORY = 2, INVALID_PTX = 218, NOT_FOUND = 500, NOT_READY = 600, NOT_SUPPORTED = 801;

#include "candle.hpp"

#define API extern "C" __attribute__((visibility("default")))

// One thread at a time does anything.
static std::recursive_mutex door;
#define ENTER std::lock_guard<std::recursive_mutex> guard(door)

// ---- streams and events ----

struct Stream {
    std::deque<std::function<void()>> waiting;
    uint64_t put = 0, done = 0;
};

// A place in a stream, and how many works were done when it was passed.
struct Event {
    Stream *stream = nullptr;
    uint64_t place = 0;
    std::shared_ptr<uint64_t> passed_at = std::make_shared<uint64_t>(0);
};

static uint64_t works = 0;

static bool idle() {
    static const bool is_idle = std::getenv("PAPER_IDLE") != nullptr;
    return is_idle;
}

template <typename Work>
static void put(void *handle, Work work) {
    Stream &stream = *(Stream *)handle;
    if (idle()) {
        stream.done = stream.put += 1;
        return;
    }
    stream.waiting.push_back(std::move(work));
    stream.put += 1;
}

static void run_until(Stream &stream, uint64_t place) {
    while (stream.done < place && !stream.waiting.empty()) {
        auto work = std::move(stream.waiting.front());
        stream.waiting.pop_front();
        work();
        stream.done += 1;
    }
}

static void drain(void *handle) { run_until(*(Stream *)handle, ((Stream *)handle)->put); }

API Status cuStreamCreate(void **stream, unsigned) {
    *stream = new Stream;
    return 0;
}
API Status cuStreamDestroy_v2(void *) { return 0; }
API Status cuStreamSynchronize(void *stream) {
    ENTER;
    drain(stream);
    return 0;
}
API Status cuStreamWaitEvent(void *stream, void *handle, unsigned) {
    ENTER;
    Event event = *(Event *)handle;
    if (event.stream != nullptr) {
        put(stream, [event] { run_until(*event.stream, event.place); });
    }
    return 0;
}
API Status cuStreamIsCapturing(void *, int *status) {
    *status = 0;
    return 0;
}
API Status cuEventCreate(void **event, unsigned) {
    *event = new Event;
    return 0;
}
API Status cuEventDestroy_v2(void *event) {
    ENTER;
    delete (Event *)event;
    return 0;
}
API Status cuEventRecord(void *handle, void *stream) {
    ENTER;
    Event &event = *(Event *)handle;
    auto passed_at = event.passed_at;
    put(stream, [passed_at] { *passed_at = works; });
    event.stream = (Stream *)stream;
    event.place = event.stream->put;
    return 0;
}
API Status cuEventQuery(void *handle) {
    ENTER;
    Event &event = *(Event *)handle;
    return event.stream == nullptr || event.stream->done >= event.place ? 0 : NOT_READY;
}
API Status cuEventSynchronize(void *handle) {
    ENTER;
    Event &event = *(Event *)handle;
    if (event.stream != nullptr) {
        run_until(*event.stream, event.place);
    }
    return 0;
}
// A work takes a millisecond.
API Status cuEventElapsedTime_v2(float *ms, void *begin, void *end) {
    *ms = (float)(*((Event *)end)->passed_at - *((Event *)begin)->passed_at);
    return 0;
}
API Status cuEventElapsedTime(float *ms, void *begin, void *end) { return cuEventElapsedTime_v2(ms, begin, end); }

// ---- memory ----

static size_t used = 0, reserved = 0, peak = 0;
// Page-locked memory: first byte and size.
static std::map<const char *, size_t> pinned;

static size_t capacity() {
    const char *text = std::getenv("PAPER_MIB");
    return (text ? std::strtoull(text, nullptr, 10) : 4096) << 20;
}

static Status allocate(uint64_t *address, size_t size) {
    ENTER;
    size_t whole = (size + 511) / 512 * 512;
    if (used + whole > capacity()) {
        return OUT_OF_MEMORY;
    }
    char *memory = (char *)std::aligned_alloc(512, whole + 512);
    if (memory == nullptr) {
        return OUT_OF_MEMORY;
    }
    std::memcpy(memory, &whole, sizeof whole);
    if (!idle()) {
        std::memset(memory + 512, 0xff, whole);
    }
    *address = (uint64_t)(memory + 512);
    used += whole;
    reserved = std::max(reserved, used);
    peak = std::max(peak, used);
    return 0;
}

static Status deallocate(uint64_t address) {
    if (address != 0) {
        char *memory = (char *)address - 512;
        size_t whole;
        std::memcpy(&whole, memory, sizeof whole);
        used -= whole;
        if (!idle()) {
            std::memset(memory + 512, 0xff, whole);
        }
        std::free(memory);
    }
    return 0;
}

API Status cuMemAllocAsync(uint64_t *address, size_t size, void *) { return allocate(address, size); }
API Status cuMemAlloc_v2(uint64_t *address, size_t size) { return allocate(address, size); }
API Status cuMemFreeAsync(uint64_t address, void *stream) {
    ENTER;
    if (idle()) {
        return deallocate(address);
    }
    put(stream, [address] { deallocate(address); });
    return 0;
}
API Status cuMemFree_v2(uint64_t address) {
    ENTER;
    return deallocate(address);
}
API Status cuMemHostAlloc(void **memory, size_t size, unsigned) {
    ENTER;
    *memory = std::aligned_alloc(4096, (size + 4095) / 4096 * 4096);
    pinned[(const char *)*memory] = size;
    return *memory ? 0 : OUT_OF_MEMORY;
}
API Status cuMemFreeHost(void *memory) {
    ENTER;
    pinned.erase((const char *)memory);
    std::free(memory);
    return 0;
}
API Status cuMemGetInfo_v2(size_t *left, size_t *total) {
    *total = capacity();
    *left = *total - reserved;
    return 0;
}
API Status cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, void *stream) {
    ENTER;
    auto block = pinned.upper_bound((const char *)from);
    bool locked = block != pinned.begin() && (const char *)from + size <= std::prev(block)->first + std::prev(block)->second;
    if (locked) {
        put(stream, [=] { std::memcpy((void *)to, from, size); });
    } else {
        // Other memory is read before the call returns.
        std::string copy((const char *)from, size);
        put(stream, [=] { std::memcpy((void *)to, copy.data(), size); });
    }
    return 0;
}
API Status cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, void *stream) {
    ENTER;
    drain(stream);
    if (idle()) {
        std::memset(to, 0, size);
    } else {
        std::memcpy(to, (const void *)from, size);
    }
    return 0;
}
API Status cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t size, void *stream) {
    ENTER;
    put(stream, [=] { std::memmove((void *)to, (const void *)from, size); });
    return 0;
}
API Status cuMemsetD8Async(uint64_t to, unsigned char value, size_t size, void *stream) {
    ENTER;
    put(stream, [=] { std::memset((void *)to, value, size); });
    return 0;
}
API Status cuDeviceGetDefaultMemPool(void **pool, int) {
    *pool = &used;
    return 0;
}
API Status cuMemPoolSetAttribute(void *, int, void *) { return 0; }
API Status cuMemPoolGetAttribute(void *, int attribute, void *value) {
    // CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, _HIGH, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, _HIGH.
    uint64_t found = attribute == 5 || attribute == 6 ? (uint64_t)reserved : attribute == 7 ? (uint64_t)used : (uint64_t)peak;
    std::memcpy(value, &found, sizeof found);
    return 0;
}
API Status cuMemPoolTrimTo(void *, size_t) {
    ENTER;
    reserved = used;
    return 0;
}

// ---- device and context ----

API Status cuInit(unsigned) { return 0; }
API Status cuDriverGetVersion(int *version) {
    *version = 13000;
    return 0;
}
API Status cuDeviceGetCount(int *count) {
    *count = 1;
    return 0;
}
API Status cuDeviceGet(int *device, int number) {
    *device = number;
    return 0;
}
API Status cuDeviceGetName(char *name, int size, int) {
    std::strncpy(name, "Paper Card", (size_t)size);
    return 0;
}
API Status cuDeviceTotalMem_v2(size_t *bytes, int) {
    *bytes = capacity();
    return 0;
}
API Status cuDeviceGetAttribute(int *value, int attribute, int) {
    // Compute capability 9.0, memory pools.
    *value = attribute == 75 ? 9 : attribute == 115 ? 1 : 0;
    return 0;
}
API Status cuDevicePrimaryCtxRetain(void **context, int) {
    *context = &used;
    return 0;
}
API Status cuDevicePrimaryCtxRelease_v2(int) { return 0; }
API Status cuCtxGetCurrent(void **context) {
    *context = &used;
    return 0;
}
API Status cuCtxSetCurrent(void *) { return 0; }
API Status cuCtxSynchronize() { return 0; }
API Status cuCtxDestroy_v2(void *) { return 0; }
API Status cuGetErrorString(Status code, const char **text) {
    *text = code == OUT_OF_MEMORY ? "out of memory" : "an error of the paper card";
    return 0;
}
API Status cuGetErrorName(Status code, const char **text) { return cuGetErrorString(code, text); }
// ---- the engine's kernels ----

// The kernel with its arguments, which the driver copies at the launch.
template <typename... A, size_t... I>
static std::function<void()> with_arguments(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    std::tuple<std::remove_const_t<A>...> values(*(std::remove_const_t<A> *)arguments[I]...);
    return [=] { std::apply(kernel, values); };
}
template <typename... A>
static std::function<void()> with_arguments(void (*kernel)(A...), void **arguments) {
    return with_arguments(kernel, arguments, std::index_sequence_for<A...>());
}

struct Own {
    const char *name;
    std::function<void()> (*bound)(void **);
};
#define KERNEL(name) {#name, [](void **arguments) { return with_arguments(name, arguments); }},
static const Own OWN[] = {
#include NAMES_INC
};
#undef KERNEL

// ---- modules and launches ----

// PTX text of a plugin; empty for compiled modules. Only the cube of the template for operations can be run.
struct Function {
    std::string name, ptx;
};

API Status cuModuleLoadData(void **module, const void *) {
    *module = new std::string;
    return 0;
}
API Status cuModuleLoadDataEx(void **module, const void *image, unsigned options_len, int *options, void **values) {
    std::string text = (const char *)image;
    if (text.find(".entry") == std::string::npos) {
        // CU_JIT_ERROR_LOG_BUFFER
        if (options_len == 2 && options[0] == 5) {
            std::strncpy((char *)values[0], "ptxas fatal: no entry", (size_t)values[1]);
        }
        return INVALID_PTX;
    }
    *module = new std::string(text);
    return 0;
}
API Status cuModuleUnload(void *) { return 0; }
API Status cuModuleGetFunction(void **function, void *module, const char *name) {
    std::string &ptx = *(std::string *)module;
    if (!ptx.empty() && ptx.find(std::string(".entry ") + name + "(") == std::string::npos) {
        return NOT_FOUND;
    }
    *function = new Function{name, ptx};
    return 0;
}
API Status cuFuncSetAttribute(void *, int, int bytes) { return bytes <= 227 * 1024 ? 0 : INVALID; }
API Status cuFuncGetParamInfo(void *function, size_t index, size_t *, size_t *) {
    const std::string &ptx = ((Function *)function)->ptx;
    size_t at = ptx.find(".entry"), end = ptx.find("{", at), count = 0;
    while ((at = ptx.find(".param ", at)) < end) {
        ++count;
        ++at;
    }
    return index < count ? 0 : INVALID;
}
API Status cuLaunchKernel(void *handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                          void *stream, void **arguments, void **) {
    ENTER;
    const Function &function = *(Function *)handle;
    if (gx == 0 || gy == 0 || gz != 1 || bx == 0 || by == 0 || bz != 1 || bx * by > 1024 || gy > 65535 || shared > 227 * 1024) {
        return INVALID;
    }
    if (idle()) {
        return 0;
    }
    if (!function.ptx.empty()) {
        const float *x = argument<const float *>(arguments, 0);
        float *y = argument<float *>(arguments, 1);
        uint64_t n = argument<uint64_t>(arguments, 2);
        if (function.name != "cube" || (uint64_t)gx * bx < n) {
            return NOT_SUPPORTED;
        }
        put(stream, [=] {
            works += 1;
            for (uint64_t i = 0; i < n; ++i) {
                y[i] = x[i] * x[i] * x[i];
            }
        });
        return 0;
    }
    for (const Own &own : OWN) {
        if (function.name == own.name) {
            auto kernel = own.bound(arguments);
            put(stream, [=] {
                works += 1;
                et_launch(gx, gy, bx, by, kernel);
            });
            return 0;
        }
    }
    // How many arguments candle's kernels have is not known here, so they cannot be kept.
    drain(stream);
    works += 1;
    Status status = candle(function.name, arguments);
    if (status != 0) {
        std::fprintf(stderr, "the paper card has no kernel %s\n", function.name.c_str());
    }
    return status;
}

// ---- cuBLAS ----

static float load(const void *memory, int type, size_t at) {
    // CUDA_R_32F, CUDA_R_16BF
    return type == 0 ? ((const float *)memory)[at] : et_wide(((const __nv_bfloat16 *)memory)[at]);
}

static void store(void *memory, int type, size_t at, float value) {
    if (type == 0) {
        ((float *)memory)[at] = value;
    } else {
        ((__nv_bfloat16 *)memory)[at] = __float2bfloat16_rn(value);
    }
}

struct Matrix {
    const void *memory;
    int type;
    size_t step;
    bool transposed;

    float at(size_t row, size_t col) const {
        return load(memory, type, transposed ? row * step + col : col * step + row);
    }
};

// Columns after columns, as cuBLAS has them.
static Status product(size_t m, size_t n, size_t k, float alpha, Matrix a, Matrix b, float beta, void *c, int type, size_t step, const float *bias) {
    if ((type != 0 && type != 14) || (a.type != 0 && a.type != 14) || (b.type != 0 && b.type != 14)) {
        return 15;
    }
    works += 1;
    for (size_t col = 0; col < n; ++col) {
        for (size_t row = 0; row < m; ++row) {
            double total = 0.0;
            for (size_t i = 0; i < k; ++i) {
                total += (double)a.at(row, i) * b.at(i, col);
            }
            float old = beta == 0.0f ? 0.0f : beta * load(c, type, col * step + row);
            store(c, type, col * step + row, (float)(alpha * total) + old + (bias ? bias[row] : 0.0f));
        }
    }
    return 0;
}

struct Description {
    int transpose_a = 0, transpose_b = 0, epilogue = 1;
    const float *bias = nullptr;
};
struct Layout {
    int type;
    size_t rows, cols, step;
};

API Status cublasLtCreate(void **handle) {
    *handle = new int;
    return 0;
}
API Status cublasLtMatmulDescCreate(void **description, int, int) {
    *description = new Description;
    return 0;
}
API Status cublasLtMatmulDescDestroy(void *description) {
    delete (Description *)description;
    return 0;
}
API Status cublasLtMatmulDescSetAttribute(void *handle, int attribute, const void *value, size_t) {
    Description &description = *(Description *)handle;
    switch (attribute) {
        case 3: description.transpose_a = *(const int *)value; return 0;
        case 4: description.transpose_b = *(const int *)value; return 0;
        case 7: description.epilogue = *(const int *)value; return description.epilogue == 1 || description.epilogue == 4 ? 0 : 15;
        case 8: description.bias = *(const float *const *)value; return 0;
        default: return 0;
    }
}
API Status cublasLtMatrixLayoutCreate(void **layout, int type, uint64_t rows, uint64_t cols, int64_t step) {
    *layout = new Layout{type, rows, cols, (size_t)step};
    return 0;
}
API Status cublasLtMatrixLayoutDestroy(void *layout) {
    delete (Layout *)layout;
    return 0;
}
API Status cublasLtMatmulPreferenceCreate(void **preference) {
    *preference = new int;
    return 0;
}
API Status cublasLtMatmulPreferenceDestroy(void *) { return 0; }
API Status cublasLtMatmulPreferenceSetAttribute(void *, int, const void *, size_t) { return 0; }
// cublasLtMatmulHeuristicResult_t: algorithm, workspace, status and waves.
struct Heuristic {
    uint64_t algorithm[8];
    size_t workspace;
    int status;
    float waves;
    int reserved[4];
};
API Status cublasLtMatmulAlgoGetHeuristic(void *, void *, void *, void *, void *, void *, void *, int, Heuristic *result, int *found) {
    *result = Heuristic{};
    *found = 1;
    return 0;
}
API Status cublasLtMatmul(void *, void *description, const void *alpha, const void *a, void *layout_a, const void *b, void *layout_b, const void *beta,
                          const void *c, void *, void *d, void *layout_d, const void *, void *, size_t, void *stream) {
    ENTER;
    const Description how = *(Description *)description;
    const Layout la = *(Layout *)layout_a, lb = *(Layout *)layout_b, ld = *(Layout *)layout_d;
    size_t k = how.transpose_a ? la.rows : la.cols;
    bool fits = (how.transpose_a ? la.cols : la.rows) == ld.rows && (how.transpose_b ? lb.rows : lb.cols) == ld.cols &&
                (how.transpose_b ? lb.cols : lb.rows) == k && c == d;
    if (!fits) {
        return 7;
    }
    Matrix left = {a, la.type, la.step, how.transpose_a != 0}, right = {b, lb.type, lb.step, how.transpose_b != 0};
    float factor = *(const float *)alpha, keep = *(const float *)beta;
    const float *bias = how.epilogue == 4 ? how.bias : nullptr;
    for (int type : {la.type, lb.type, ld.type}) {
        if (type != 0 && type != 14) {
            return 15;
        }
    }
    put(stream, [=] { product(ld.rows, ld.cols, k, factor, left, right, keep, d, ld.type, ld.step, bias); });
    return 0;
}
API Status cublasCreate_v2(void **handle) {
    *handle = new int;
    return 0;
}
API Status cublasDestroy_v2(void *) { return 0; }
static void *blas_stream = nullptr;
API Status cublasSetStream_v2(void *, void *stream) {
    blas_stream = stream;
    return 0;
}
API Status cublasGemmStridedBatchedEx(void *, int transpose_a, int transpose_b, int m, int n, int k, const void *alpha, const void *a, int type_a,
                                      int step_a, long long each_a, const void *b, int type_b, int step_b, long long each_b, const void *beta,
                                      void *c, int type_c, int step_c, long long each_c, int count, int, int) {
    ENTER;
    drain(blas_stream);
    for (int i = 0; i < count && !idle(); ++i) {
        auto at = [i](const void *memory, int type, long long each) { return (const char *)memory + i * each * (type == 0 ? 4 : 2); };
        Matrix left = {at(a, type_a, each_a), type_a, (size_t)step_a, transpose_a != 0};
        Matrix right = {at(b, type_b, each_b), type_b, (size_t)step_b, transpose_b != 0};
        Status status = product((size_t)m, (size_t)n, (size_t)k, *(const float *)alpha, left, right, *(const float *)beta,
                                (void *)at(c, type_c, each_c), type_c, (size_t)step_c, nullptr);
        if (status != 0) {
            return status;
        }
    }
    return 0;
}
API Status curandCreateGenerator(void **generator, int) {
    *generator = new int;
    return 0;
}
API Status curandDestroyGenerator(void *) { return 0; }
API Status curandSetStream(void *, void *) { return 0; }
API Status curandSetPseudoRandomGeneratorSeed(void *, unsigned long long) { return 0; }
