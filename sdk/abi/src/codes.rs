//! Numbers that cross the boundary: error codes, element types, operation codes. Only ever added to.

/// Major version of the entry record and the calling conventions.
pub const ET_ABI_MAJOR: u32 = 0;
/// Minor version: grows whenever a slot, an interface or a constant is added.
pub const ET_ABI_MINOR: u32 = 2;
/// Oldest minor version of `ET_ABI_MAJOR` whose plugins a host of this version takes: 0.2 gave slots of 0.1 another
/// meaning, which happens no more from 1.0 on.
pub const ET_ABI_MINOR_OLDEST: u32 = 2;
/// First eight bytes of a plugin record, "ETPLUGIN" in little-endian order.
pub const ET_PLUGIN_MAGIC: u64 = 0x4e49_4755_4c50_5445;
/// First field of the record of a loadable engine: "ETENGINE" in little-endian order.
pub const ET_ENGINE_MAGIC: u64 = 0x454e_4947_4e45_5445;
/// First field of the record of a library of communication: "ETGROUP1" in little-endian order.
pub const ET_GROUP_MAGIC: u64 = 0x3150_554f_5247_5445;

/// Any failure without a better code.
pub const ET_ERR_UNKNOWN: i32 = 1;
/// An argument is out of range, NULL where it may not be, or contradicts another.
pub const ET_ERR_INVALID_ARGUMENT: i32 = 2;
/// Shapes do not fit the operation.
pub const ET_ERR_SHAPE: i32 = 3;
/// Element types do not fit the operation.
pub const ET_ERR_DTYPE: i32 = 4;
/// A name, key, file or interface does not exist.
pub const ET_ERR_NOT_FOUND: i32 = 5;
/// The name is taken.
pub const ET_ERR_ALREADY_EXISTS: i32 = 6;
/// The operation, opcode or interface exists in principle but not in this build or on this device.
pub const ET_ERR_UNIMPLEMENTED: i32 = 7;
/// The object is in a state that does not allow the call (sealed, poisoned, shut down).
pub const ET_ERR_FAILED_PRECONDITION: i32 = 8;
/// A panic or an exception was caught inside the callee.
pub const ET_ERR_PANIC: i32 = 9;
/// Reading or writing a file or stream failed.
pub const ET_ERR_IO: i32 = 10;
/// Input data or an option is malformed; the message names the place.
pub const ET_ERR_BAD_INPUT: i32 = 11;
/// The device has no memory left.
pub const ET_ERR_OUT_OF_MEMORY: i32 = 12;
/// The caller asked to stop.
pub const ET_ERR_CANCELLED: i32 = 13;
/// The device or its driver failed.
pub const ET_ERR_DEVICE: i32 = 14;
/// A handle is not a live object of the expected kind.
pub const ET_ERR_BAD_HANDLE: i32 = 15;

/// Unsigned 8 bit; also the result type of comparisons (0 or 1).
pub const ET_DTYPE_U8: i32 = 1;
/// Unsigned 32 bit.
pub const ET_DTYPE_U32: i32 = 2;
/// Signed 64 bit; ids, positions, starts and class labels have this type.
pub const ET_DTYPE_I64: i32 = 3;
/// bfloat16.
pub const ET_DTYPE_BF16: i32 = 4;
/// IEEE half precision.
pub const ET_DTYPE_F16: i32 = 5;
/// IEEE single precision, the default of parameters and activations.
pub const ET_DTYPE_F32: i32 = 6;
/// IEEE double precision.
pub const ET_DTYPE_F64: i32 = 7;

/// `-x`
pub const ET_UNARY_NEG: i32 = 1;
/// `e^x`
pub const ET_UNARY_EXP: i32 = 2;
/// Natural logarithm.
pub const ET_UNARY_LOG: i32 = 3;
/// Square root.
pub const ET_UNARY_SQRT: i32 = 4;
/// `x * x`
pub const ET_UNARY_SQR: i32 = 5;
/// Absolute value; derivative 0 at 0.
pub const ET_UNARY_ABS: i32 = 6;
/// `1 / x`
pub const ET_UNARY_RECIP: i32 = 7;
/// Sine, radians.
pub const ET_UNARY_SIN: i32 = 8;
/// Cosine, radians.
pub const ET_UNARY_COS: i32 = 9;
/// Hyperbolic tangent.
pub const ET_UNARY_TANH: i32 = 10;
/// Logistic function.
pub const ET_UNARY_SIGMOID: i32 = 11;
/// `max(x, 0)`; derivative 0 at 0.
pub const ET_UNARY_RELU: i32 = 12;
/// Gauss error linear unit, exact form `x * Phi(x)`.
pub const ET_UNARY_GELU: i32 = 13;
/// Gauss error linear unit, tanh approximation.
pub const ET_UNARY_GELU_TANH: i32 = 14;
/// `x * sigmoid(x)`
pub const ET_UNARY_SILU: i32 = 15;
/// Error function.
pub const ET_UNARY_ERF: i32 = 16;
/// -1, 0 or 1. Has no gradient (it is treated as a constant).
pub const ET_UNARY_SIGN: i32 = 17;

/// `a + b`, with broadcasting as in NumPy (this holds for every binary operation).
pub const ET_BINARY_ADD: i32 = 1;
/// `a - b`
pub const ET_BINARY_SUB: i32 = 2;
/// `a * b`
pub const ET_BINARY_MUL: i32 = 3;
/// `a / b`
pub const ET_BINARY_DIV: i32 = 4;
/// Larger of the two; where equal the gradient goes to `a`.
pub const ET_BINARY_MAXIMUM: i32 = 5;
/// Smaller of the two; where equal the gradient goes to `a`.
pub const ET_BINARY_MINIMUM: i32 = 6;

/// `a == b`
pub const ET_COMPARE_EQ: i32 = 1;
/// `a != b`
pub const ET_COMPARE_NE: i32 = 2;
/// `a < b`
pub const ET_COMPARE_LT: i32 = 3;
/// `a <= b`
pub const ET_COMPARE_LE: i32 = 4;
/// `a > b`
pub const ET_COMPARE_GT: i32 = 5;
/// `a >= b`
pub const ET_COMPARE_GE: i32 = 6;

/// Sum.
pub const ET_REDUCE_SUM: i32 = 1;
/// Arithmetic mean; an error over zero elements.
pub const ET_REDUCE_MEAN: i32 = 2;
/// Maximum; ties share the gradient equally. An error over zero elements.
pub const ET_REDUCE_MAX: i32 = 3;
/// Minimum; ties share the gradient equally. An error over zero elements.
pub const ET_REDUCE_MIN: i32 = 4;
/// Index of the first maximum (I64); exactly one axis. No gradient.
pub const ET_REDUCE_ARGMAX: i32 = 5;
/// Index of the first minimum (I64); exactly one axis. No gradient.
pub const ET_REDUCE_ARGMIN: i32 = 6;

/// Identity.
pub const ET_ACTIVATION_NONE: i32 = 0;
/// `max(x, 0)`
pub const ET_ACTIVATION_RELU: i32 = 1;
/// Exact GELU.
pub const ET_ACTIVATION_GELU: i32 = 2;
/// GELU by tanh.
pub const ET_ACTIVATION_GELU_TANH: i32 = 3;
/// Hyperbolic tangent.
pub const ET_ACTIVATION_TANH: i32 = 4;
/// Logistic function.
pub const ET_ACTIVATION_SIGMOID: i32 = 5;
/// `x * sigmoid(x)`
pub const ET_ACTIVATION_SILU: i32 = 6;

/// Mean over the tokens of a run.
pub const ET_POOL_MEAN: i32 = 1;
/// The first token of a run.
pub const ET_POOL_FIRST: i32 = 2;
/// Elementwise maximum over the tokens of a run; ties go to the first.
pub const ET_POOL_MAX: i32 = 3;

/// The members of `et_attention` from `window` on, asked for with the family "attention" of `et_host_nn.supports`.
pub const ET_ATTENTION_TERMS: i32 = 1;

/// All zeros.
pub const ET_INIT_ZEROS: i32 = 1;
/// The constant `a`.
pub const ET_INIT_CONSTANT: i32 = 2;
/// Normal with mean `a` and standard deviation `b`.
pub const ET_INIT_NORMAL: i32 = 3;
/// Normal with mean `a` and standard deviation `b`, values outside two deviations drawn again.
pub const ET_INIT_TRUNCATED_NORMAL: i32 = 4;
/// Uniform in `[a, b)`.
pub const ET_INIT_UNIFORM: i32 = 5;
/// Uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010).
pub const ET_INIT_XAVIER_UNIFORM: i32 = 6;
/// Uniform in +-sqrt(1 / fan_in), the default of PyTorch's Linear.
pub const ET_INIT_KAIMING_UNIFORM: i32 = 7;

/// AdamW, decoupled weight decay (Loshchilov and Hutter 2019).
pub const ET_OPTIM_ADAMW: i32 = 1;
/// Adam with L2 in the gradient (Kingma and Ba 2015).
pub const ET_OPTIM_ADAM: i32 = 2;
/// Stochastic gradient descent, optional momentum and Nesterov.
pub const ET_OPTIM_SGD: i32 = 3;
/// LAMB (You et al. 2020), one trust ratio per parameter.
pub const ET_OPTIM_LAMB: i32 = 4;
/// Adafactor (Shazeer and Stern 2018) with an external learning rate.
pub const ET_OPTIM_ADAFACTOR: i32 = 5;

/// Model output `hidden_states/0` ... `hidden_states/N` is wanted.
pub const ET_WANT_HIDDEN_STATES: u32 = 1;
/// Model output `pooled` is wanted.
pub const ET_WANT_POOLED: u32 = 2;
/// Model output `logits` over the model's own vocabulary is wanted: of every token of the runs that can be continued
/// [T, V], or, where the call has a cache, of the last token of each run [B, V].
pub const ET_WANT_LOGITS: u32 = 4;

/// Log level: something failed.
pub const ET_LOG_ERROR: i32 = 1;
/// Log level: something is probably not what the user wants.
pub const ET_LOG_WARN: i32 = 2;
/// Log level: progress.
pub const ET_LOG_INFO: i32 = 3;
/// Log level: detail.
pub const ET_LOG_DEBUG: i32 = 4;

/// Strategy hook `on_setup` is used.
pub const ET_PHASE_SETUP: u32 = 1;
/// Strategy hook `on_batch` is used.
pub const ET_PHASE_BATCH: u32 = 2;
/// Strategy hook `on_outputs` is used.
pub const ET_PHASE_OUTPUTS: u32 = 4;
/// Strategy hook `combine` is used. At most one strategy of a run may claim it.
pub const ET_PHASE_COMBINE: u32 = 8;
/// Strategy hook `on_gradients` is used.
pub const ET_PHASE_GRADIENTS: u32 = 16;
/// Strategy hook `on_epoch` is used.
pub const ET_PHASE_EPOCH: u32 = 32;
/// The strategy drives the whole fit. At most one strategy of a run may claim it.
pub const ET_PHASE_FIT: u32 = 64;

/// Module flag: the run's app builds its head in the module, too, and `forward` runs the app over it.
pub const ET_MODULE_HEAD: u32 = 1;
/// Module flag: the module starts with the values of the model under training, parameter by parameter of one name.
pub const ET_MODULE_COPY: u32 = 2;

/// `params_arena`: the values.
pub const ET_ARENA_VALUES: i32 = 1;
/// `params_arena`: the gradients.
pub const ET_ARENA_GRADS: i32 = 2;

/// Reduction over the members of a group: the sum.
pub const ET_GROUP_SUM: i32 = 1;
/// Reduction over the members of a group: the mean.
pub const ET_GROUP_MEAN: i32 = 2;
/// Reduction over the members of a group: the maximum.
pub const ET_GROUP_MAX: i32 = 3;

/// `set_recompute`: the backward pass finds all that it needs.
pub const ET_RECOMPUTE_NONE: i32 = 0;
/// `set_recompute`: outputs of activations and layer norms are computed again.
pub const ET_RECOMPUTE_CHEAP: i32 = 1;
/// `set_recompute`: the segments that models mark by `checkpoint` run again.
pub const ET_RECOMPUTE_LAYER: i32 = 2;

/// Plugin record flag: built with panic = abort, so a panic would end the process.
pub const ET_PLUGIN_FLAG_PANIC_ABORT: u32 = 1;

/// Op flag: `forward` accepts inputs that are not contiguous.
pub const ET_OP_ACCEPTS_STRIDED: u32 = 1;
/// Op flag: `forward` accepts views of CUDA memory.
pub const ET_OP_HAS_CUDA: u32 = 2;
/// Op flag: `backward` is implemented.
pub const ET_OP_HAS_BACKWARD: u32 = 4;

/// Device type of a view: host memory (DLPack's kDLCPU).
pub const ET_DEVICE_CPU: i32 = 1;
/// Device type of a view: CUDA memory (DLPack's kDLCUDA).
pub const ET_DEVICE_CUDA: i32 = 2;
