//! What the engine offers: tensors, the tape, parameters, fused ops and counted random numbers.

use crate::{et_buffer, et_error, et_map, et_str};
use core::ffi::{c_char, c_void};

/// An immutable value on the tape, reference counted.
#[cfg_attr(feature = "layout-check", repr(C), derive(abi_stable::StableAbi))]
pub struct et_tensor {
    _opaque: [u8; 0],
}
/// A set of parameters: the arenas of one model.
#[cfg_attr(feature = "layout-check", repr(C), derive(abi_stable::StableAbi))]
pub struct et_params {
    _opaque: [u8; 0],
}
/// A named place in a set where parameters are declared.
#[cfg_attr(feature = "layout-check", repr(C), derive(abi_stable::StableAbi))]
pub struct et_scope {
    _opaque: [u8; 0],
}
/// One named parameter, reference counted.
#[cfg_attr(feature = "layout-check", repr(C), derive(abi_stable::StableAbi))]
pub struct et_param {
    _opaque: [u8; 0],
}
/// A counted random number generator.
#[cfg_attr(feature = "layout-check", repr(C), derive(abi_stable::StableAbi))]
pub struct et_rng {
    _opaque: [u8; 0],
}

/// `et.tensor/1`: fine-grained tensor operations, families by opcode. Every operation that has a gradient records
/// itself on the tape when an input is tracked and recording is on. Axes count from 0; negative axes count from the
/// end.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_host_tensor {
    /// Bytes filled by the host.
    pub struct_size: usize,

    /// Another reference to the same tensor. [any-thread] since 0.1
    pub retain: Option<unsafe extern "C" fn(tensor: *const et_tensor) -> *mut et_tensor>,
    /// Gives a reference back. Accepts NULL. [any-thread] since 0.1
    pub release: Option<unsafe extern "C" fn(tensor: *mut et_tensor)>,
    /// Element type, an `ET_DTYPE_` constant. [any-thread] since 0.1
    pub dtype: Option<unsafe extern "C" fn(tensor: *const et_tensor) -> i32>,
    /// Number of axes. [any-thread] since 0.1
    pub rank: Option<unsafe extern "C" fn(tensor: *const et_tensor) -> usize>,
    /// Extents, `rank` of them, valid while the tensor lives. [any-thread] since 0.1
    pub shape: Option<unsafe extern "C" fn(tensor: *const et_tensor) -> *const usize>,
    /// Number of elements. [any-thread] since 0.1
    pub len: Option<unsafe extern "C" fn(tensor: *const et_tensor) -> usize>,
    /// 1 if a gradient can flow into this tensor, else 0. [any-thread] since 0.1
    pub is_tracked: Option<unsafe extern "C" fn(tensor: *const et_tensor) -> i32>,
    /// 1 if elements lie row-major without gaps, else 0. [any-thread] since 0.1
    pub is_contiguous: Option<unsafe extern "C" fn(tensor: *const et_tensor) -> i32>,

    /// Copies host memory, row-major, `size` bytes, into a new tensor. Errors: SHAPE when the size does not fit.
    /// [any-thread] since 0.1
    pub from_data: Option<
        unsafe extern "C" fn(
            dtype: i32,
            shape: *const usize,
            rank: usize,
            data: *const c_void,
            size: usize,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// A tensor filled with `value`. [any-thread] since 0.1
    pub full: Option<
        unsafe extern "C" fn(
            dtype: i32,
            shape: *const usize,
            rank: usize,
            value: f64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// `start, start + step, ...`, `len` values. [any-thread] since 0.1
    pub arange: Option<
        unsafe extern "C" fn(
            dtype: i32,
            start: f64,
            step: f64,
            len: usize,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Copies all elements, row-major, to host memory of exactly `size` bytes. Waits for the device. [any-thread]
    /// since 0.1
    pub read: Option<
        unsafe extern "C" fn(
            tensor: *const et_tensor,
            data: *mut c_void,
            size: usize,
        ) -> *mut et_error,
    >,

    /// Applies an `ET_UNARY_` operation elementwise. [any-thread] since 0.1
    pub unary: Option<
        unsafe extern "C" fn(
            op: i32,
            x: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Applies an `ET_BINARY_` operation with broadcasting; both sides have one dtype. [any-thread] since 0.1
    pub binary: Option<
        unsafe extern "C" fn(
            op: i32,
            a: *const et_tensor,
            b: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Applies an `ET_COMPARE_` operation with broadcasting; the result is U8. [any-thread] since 0.1
    pub compare: Option<
        unsafe extern "C" fn(
            op: i32,
            a: *const et_tensor,
            b: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// `x * scale + shift`. [any-thread] since 0.1
    pub affine: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            scale: f64,
            shift: f64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// `x ^ exponent`. [any-thread] since 0.1
    pub power: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            exponent: f64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Values limited to `[low, high]`; the gradient is 0 outside. [any-thread] since 0.1
    pub clamp: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            low: f64,
            high: f64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Applies an `ET_REDUCE_` operation over `axes`; over all axes when `axes_len` is 0. [any-thread] since 0.1
    pub reduce: Option<
        unsafe extern "C" fn(
            op: i32,
            x: *const et_tensor,
            axes: *const i64,
            axes_len: usize,
            keep_axes: i32,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Matrix product over the last two axes, leading axes broadcast. [any-thread] since 0.1
    pub matmul: Option<
        unsafe extern "C" fn(
            a: *const et_tensor,
            b: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// `a` where `condition` (U8) is not 0, else `b`, with broadcasting. [any-thread] since 0.1
    pub select: Option<
        unsafe extern "C" fn(
            condition: *const et_tensor,
            a: *const et_tensor,
            b: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,

    /// The same elements in another shape. [any-thread] since 0.1
    pub reshape: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            shape: *const usize,
            rank: usize,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Axes in another order; `axes` has `rank` entries. A view. [any-thread] since 0.1
    pub permute: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            axes: *const i64,
            axes_len: usize,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// `len` entries from `start` on one axis. A view. [any-thread] since 0.1
    pub narrow: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            axis: i64,
            start: usize,
            len: usize,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Axes of extent 1 stretched to `shape`. A view. [any-thread] since 0.1
    pub broadcast_to: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            shape: *const usize,
            rank: usize,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// The same values, row-major without gaps. [any-thread] since 0.1
    pub contiguous: Option<
        unsafe extern "C" fn(x: *const et_tensor, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    /// Joins tensors on one axis. [any-thread] since 0.1
    pub concat: Option<
        unsafe extern "C" fn(
            tensors: *const *const et_tensor,
            len: usize,
            axis: i64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Entries `index` (I64, rank 1) of one axis. Errors: INVALID_ARGUMENT naming an index out of range (so for the
    /// next two). [any-thread] since 0.1
    pub index_select: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            axis: i64,
            index: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// `out[i][j] = x[i][index[i][j]]` on one axis; `index` (I64) has the rank of `x`. [any-thread] since 0.1
    pub gather: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            axis: i64,
            index: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// `x` with entry `i` of `source` added at `index[i]` (I64, rank 1) on one axis. [any-thread] since 0.1
    pub index_add: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            axis: i64,
            index: *const et_tensor,
            source: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// The values in another element type; the gradient is converted back. [any-thread] since 0.1
    pub cast: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            dtype: i32,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
}

/// A part of a model that can run twice, for `et_host_autograd.checkpoint`.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
#[derive(Clone, Copy)]
pub struct et_segment {
    /// Bytes filled by the caller.
    pub struct_size: usize,
    /// First argument of the functions. It belongs to the host until `release`, and must keep alive whatever `run`
    /// uses, such as parameters. May be NULL.
    pub state: *mut c_void,
    /// Computes `outputs_len` owned tensors from borrowed inputs. It depends on its inputs, on parameters and on
    /// `rng` alone (NULL when `checkpoint` got none), which lives for the call and must be used instead of the
    /// generator that `checkpoint` got. Called once, and perhaps once more while a backward pass runs.
    /// [callback-thread] since 0.1
    pub run: Option<
        unsafe extern "C" fn(
            state: *mut c_void,
            inputs: *const *const et_tensor,
            inputs_len: usize,
            rng: *mut et_rng,
            outputs: *mut *mut et_tensor,
            outputs_len: usize,
        ) -> *mut et_error,
    >,
    /// Frees the state; called once, whatever happens. May be NULL. [callback-thread] since 0.1
    pub release: Option<unsafe extern "C" fn(state: *mut c_void)>,
}

/// `et.autograd/1`: the tape.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_host_autograd {
    /// Bytes filled by the host.
    pub struct_size: usize,
    /// The same value with no history. [any-thread] since 0.1
    pub detach: Option<
        unsafe extern "C" fn(x: *const et_tensor, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    /// The same value as a new leaf whose gradient `leaf_grad` returns after `backward`. [any-thread] since 0.1
    pub leaf: Option<
        unsafe extern "C" fn(x: *const et_tensor, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    /// Gradient of a leaf, summed over the backward passes so far; `*out` becomes NULL when none has reached it.
    /// [any-thread] since 0.1
    pub leaf_grad: Option<
        unsafe extern "C" fn(leaf: *const et_tensor, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    /// Runs the tape backwards from `loss` and frees what it saved on the way. `seed` is the gradient of `loss`, NULL
    /// for 1, for which `loss` must have one element. Gradients of parameters are added to their set's gradient
    /// arena. Errors: INVALID_ARGUMENT when nothing is tracked, FAILED_PRECONDITION when this part of the tape was
    /// freed before. [any-thread] since 0.1
    pub backward: Option<
        unsafe extern "C" fn(loss: *const et_tensor, seed: *const et_tensor) -> *mut et_error,
    >,
    /// Stops recording on this thread until the matching `resume`; nests. [any-thread] since 0.1
    pub pause: Option<unsafe extern "C" fn()>,
    /// Ends the innermost `pause` of this thread. [any-thread] since 0.1
    pub resume: Option<unsafe extern "C" fn()>,
    /// 1 if operations on this thread record themselves, else 0. [any-thread] since 0.1
    pub is_recording: Option<unsafe extern "C" fn() -> i32>,
    /// Runs a custom operation of a plugin and records it. `state` is the operation's instance, which must live until
    /// the process ends or the outputs are gone; `outputs` receives `op.outputs_len` owned references. [any-thread]
    /// since 0.1
    pub apply_op: Option<
        unsafe extern "C" fn(
            op: *const crate::et_plugin_op,
            state: *mut c_void,
            inputs: *const *const et_tensor,
            inputs_len: usize,
            outputs: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Runs `segment` on `inputs` and writes `outputs_len` owned references to `outputs`: gradient checkpointing
    /// (Chen et al. 2016) of a layer. With ET_RECOMPUTE_LAYER only the inputs are kept, and `backward` runs the
    /// segment again with the same random numbers, to the same bits; else it is as if the caller had run it. `rng`
    /// may be NULL; it moves on by what the segment took. Segments may lie in segments. Errors: the segment's;
    /// FAILED_PRECONDITION when it used `rng` itself, and from `backward` when its second run differs from the first.
    /// [any-thread] since 0.1
    pub checkpoint: Option<
        unsafe extern "C" fn(
            segment: *const et_segment,
            inputs: *const *const et_tensor,
            inputs_len: usize,
            rng: *mut et_rng,
            outputs: *mut *mut et_tensor,
            outputs_len: usize,
        ) -> *mut et_error,
    >,
    /// Chooses what operations that this thread records from now on keep, an `ET_RECOMPUTE_` constant;
    /// ET_RECOMPUTE_NONE at first. For hosts. Errors: INVALID_ARGUMENT for other values. [any-thread] since 0.1
    pub set_recompute: Option<unsafe extern "C" fn(level: i32) -> *mut et_error>,
}

/// Where and how `et_host_rng` stands: the numbers that follow depend on these three alone.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
#[derive(Clone, Copy)]
pub struct et_rng_state {
    /// Key, first half.
    pub seed: u64,
    /// Key, second half: one stream per use (weights, dropout, shuffling ...).
    pub stream: u64,
    /// Counter: the index of the next number.
    pub offset: u64,
}

/// `et.rng/1`: Philox4x32-10 (Salmon et al. 2011), the same numbers on every device.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_host_rng {
    /// Bytes filled by the host.
    pub struct_size: usize,
    /// Makes a generator at offset 0. [any-thread] since 0.1
    pub create: Option<
        unsafe extern "C" fn(seed: u64, stream: u64, out: *mut *mut et_rng) -> *mut et_error,
    >,
    /// Gives a generator back. Accepts NULL. [any-thread] since 0.1
    pub release: Option<unsafe extern "C" fn(rng: *mut et_rng)>,
    /// The present state. [one-at-a-time] since 0.1
    pub state: Option<unsafe extern "C" fn(rng: *const et_rng) -> et_rng_state>,
    /// Sets the state. [one-at-a-time] since 0.1
    pub set_state: Option<unsafe extern "C" fn(rng: *mut et_rng, state: et_rng_state)>,
    /// 64 random bits; moves the offset by 2. [one-at-a-time] since 0.1
    pub bits: Option<unsafe extern "C" fn(rng: *mut et_rng) -> u64>,
    /// Uniform numbers in `[low, high)`; dtype F32 or F64; moves the offset by the number of elements, rounded up to
    /// 4. [one-at-a-time] since 0.1
    pub uniform: Option<
        unsafe extern "C" fn(
            rng: *mut et_rng,
            dtype: i32,
            shape: *const usize,
            rank: usize,
            low: f64,
            high: f64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Normal numbers; dtype F32 or F64; moves the offset by the number of elements, rounded up to 4. [one-at-a-time]
    /// since 0.1
    pub normal: Option<
        unsafe extern "C" fn(
            rng: *mut et_rng,
            dtype: i32,
            shape: *const usize,
            rank: usize,
            mean: f64,
            deviation: f64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
}

/// How a parameter starts: an `ET_INIT_` constant and its two numbers.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
#[derive(Clone, Copy)]
pub struct et_init {
    /// An `ET_INIT_` constant.
    pub kind: i32,
    /// Must be 0.
    pub reserved: i32,
    /// First number of that kind, else 0.
    pub a: f64,
    /// Second number of that kind, else 0.
    pub b: f64,
}

/// `et.param/1`: named parameters in arenas. A set is built by declaring parameters through scopes; `seal` moves all
/// trainable parameters into one buffer, with one more for their gradients. Names are dotted paths, as in Hugging
/// Face checkpoints.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_host_param {
    /// Bytes filled by the host.
    pub struct_size: usize,

    /// Makes an empty set of dtype F32 or F64. Initial values depend on `seed` and the parameter's name alone.
    /// [any-thread] since 0.1
    pub params_new: Option<
        unsafe extern "C" fn(seed: u64, dtype: i32, out: *mut *mut et_params) -> *mut et_error,
    >,
    /// Gives a set back; parameters and tensors taken from it stay valid. Accepts NULL. [any-thread] since 0.1
    pub params_release: Option<unsafe extern "C" fn(params: *mut et_params)>,
    /// The outermost scope, owned by the caller. [any-thread] since 0.1
    pub params_root: Option<unsafe extern "C" fn(params: *const et_params) -> *mut et_scope>,
    /// Number of parameters. [one-at-a-time] since 0.1
    pub params_len: Option<unsafe extern "C" fn(params: *const et_params) -> usize>,
    /// Parameter `index` in declaration order, owned by the caller; NULL past the end. [one-at-a-time] since 0.1
    pub params_at:
        Option<unsafe extern "C" fn(params: *const et_params, index: usize) -> *mut et_param>,
    /// Parameter by name, owned by the caller. Errors: NOT_FOUND naming the nearest name. [one-at-a-time] since 0.1
    pub params_find: Option<
        unsafe extern "C" fn(
            params: *const et_params,
            name: et_str,
            out: *mut *mut et_param,
        ) -> *mut et_error,
    >,
    /// Moves trainable parameters into the arena, in declaration order. Afterwards no parameter may be declared, and
    /// one that was frozen before stays frozen. Calling it again does nothing. [one-at-a-time] since 0.1
    pub params_seal: Option<unsafe extern "C" fn(params: *mut et_params) -> *mut et_error>,
    /// Number of elements in the arena; 0 before `seal`. [one-at-a-time] since 0.1
    pub params_arena_len: Option<unsafe extern "C" fn(params: *const et_params) -> usize>,
    /// Forgets all gradients. [one-at-a-time] since 0.1
    pub params_zero_grads: Option<unsafe extern "C" fn(params: *mut et_params)>,
    /// Euclidean norm of all gradients together. Waits for the device. [one-at-a-time] since 0.1
    pub params_grad_norm:
        Option<unsafe extern "C" fn(params: *const et_params, out: *mut f64) -> *mut et_error>,
    /// Multiplies all gradients. [one-at-a-time] since 0.1
    pub params_scale_grads:
        Option<unsafe extern "C" fn(params: *mut et_params, factor: f64) -> *mut et_error>,
    /// A copy of all values, trainable or not; `restore` takes it back. [one-at-a-time] since 0.1
    pub params_snapshot: Option<
        unsafe extern "C" fn(params: *const et_params, out: *mut *mut et_buffer) -> *mut et_error,
    >,
    /// Sets all values from a snapshot of the same set. Errors: SHAPE. [one-at-a-time] since 0.1
    pub params_restore: Option<
        unsafe extern "C" fn(params: *mut et_params, snapshot: *const et_buffer) -> *mut et_error,
    >,

    /// A scope below this one, owned by the caller; `name` may be dotted. [any-thread] since 0.1
    pub scope_child: Option<
        unsafe extern "C" fn(
            scope: *const et_scope,
            name: et_str,
            out: *mut *mut et_scope,
        ) -> *mut et_error,
    >,
    /// Dotted path of a scope, valid while it lives; empty for the root. [any-thread] since 0.1
    pub scope_path: Option<unsafe extern "C" fn(scope: *const et_scope) -> et_str>,
    /// Declares a trainable parameter, owned by the caller as well as by the set. Errors: ALREADY_EXISTS,
    /// FAILED_PRECONDITION after `seal`. [one-at-a-time] since 0.1
    pub scope_param: Option<
        unsafe extern "C" fn(
            scope: *const et_scope,
            name: et_str,
            shape: *const usize,
            rank: usize,
            init: *const et_init,
            out: *mut *mut et_param,
        ) -> *mut et_error,
    >,
    /// Gives a scope back. Accepts NULL. [any-thread] since 0.1
    pub scope_release: Option<unsafe extern "C" fn(scope: *mut et_scope)>,

    /// Another reference to the same parameter. [any-thread] since 0.1
    pub retain: Option<unsafe extern "C" fn(param: *const et_param) -> *mut et_param>,
    /// Gives a reference back. Accepts NULL. [any-thread] since 0.1
    pub release: Option<unsafe extern "C" fn(param: *mut et_param)>,
    /// Full dotted name, valid while the parameter lives. [any-thread] since 0.1
    pub name: Option<unsafe extern "C" fn(param: *const et_param) -> et_str>,
    /// Number of axes. [any-thread] since 0.1
    pub rank: Option<unsafe extern "C" fn(param: *const et_param) -> usize>,
    /// Extents, valid while the parameter lives. [any-thread] since 0.1
    pub shape: Option<unsafe extern "C" fn(param: *const et_param) -> *const usize>,
    /// The present value as a tensor; tracked when the parameter is trainable. It is a view: an optimizer step
    /// changes it. [one-at-a-time] since 0.1
    pub tensor: Option<
        unsafe extern "C" fn(param: *const et_param, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    /// A copy of the gradient; `*out` becomes NULL when none has reached the parameter. [one-at-a-time] since 0.1
    pub grad: Option<
        unsafe extern "C" fn(param: *const et_param, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    /// 1 if a gradient has reached the parameter since `params_zero_grads`, else 0. [one-at-a-time] since 0.1
    pub has_grad: Option<unsafe extern "C" fn(param: *const et_param) -> i32>,
    /// Replaces the gradient. Errors: SHAPE, DTYPE, FAILED_PRECONDITION when frozen or not sealed. [one-at-a-time]
    /// since 0.1
    pub set_grad:
        Option<unsafe extern "C" fn(param: *mut et_param, grad: *const et_tensor) -> *mut et_error>,
    /// Copies a tensor's values into the parameter. Errors: SHAPE, DTYPE. [one-at-a-time] since 0.1
    pub assign: Option<
        unsafe extern "C" fn(param: *mut et_param, value: *const et_tensor) -> *mut et_error,
    >,
    /// Takes the value from a buffer at a byte offset, elements of `dtype` (F32, F16, BF16 or F64), row-major. Where
    /// type and alignment allow, the parameter refers to the buffer's memory and keeps it alive instead of copying.
    /// Errors: SHAPE when the buffer is too short. [one-at-a-time] since 0.1
    pub assign_buffer: Option<
        unsafe extern "C" fn(
            param: *mut et_param,
            dtype: i32,
            buffer: *const et_buffer,
            offset: usize,
        ) -> *mut et_error,
    >,
    /// 1 if optimizers change the parameter, else 0. [one-at-a-time] since 0.1
    pub is_trainable: Option<unsafe extern "C" fn(param: *const et_param) -> i32>,
    /// Freezes (0) or unfreezes (1). Errors: FAILED_PRECONDITION when it was frozen at `seal`. [one-at-a-time] since
    /// 0.1
    pub set_trainable:
        Option<unsafe extern "C" fn(param: *mut et_param, trainable: i32) -> *mut et_error>,
    /// Factor on the learning rate, 1 by default. [one-at-a-time] since 0.1
    pub lr_scale: Option<unsafe extern "C" fn(param: *const et_param) -> f64>,
    /// Sets the factor on the learning rate; not negative. [one-at-a-time] since 0.1
    pub set_lr_scale:
        Option<unsafe extern "C" fn(param: *mut et_param, scale: f64) -> *mut et_error>,
    /// 1 if weight decay applies, else 0. By default it applies to parameters with two axes or more. [one-at-a-time]
    /// since 0.1
    pub has_decay: Option<unsafe extern "C" fn(param: *const et_param) -> i32>,
    /// Switches weight decay. [one-at-a-time] since 0.1
    pub set_decay: Option<unsafe extern "C" fn(param: *mut et_param, decay: i32)>,
    /// Adds a low-rank update: `tensor` becomes W + scale * B A (Hu et al. 2021, LoRA) for W [o, i], A [r, i], B [o,
    /// r], while W itself is frozen. Errors: SHAPE, FAILED_PRECONDITION after `seal`. [one-at-a-time] since 0.1
    pub set_low_rank: Option<
        unsafe extern "C" fn(
            param: *mut et_param,
            a: *const et_param,
            b: *const et_param,
            scale: f64,
        ) -> *mut et_error,
    >,
    /// The value that a saved model should carry, low-rank update included, with no history. [one-at-a-time] since 0.1
    pub merged: Option<
        unsafe extern "C" fn(param: *const et_param, out: *mut *mut et_tensor) -> *mut et_error,
    >,

    /// Another reference to the same set. [any-thread] since 0.2
    pub params_retain: Option<unsafe extern "C" fn(params: *const et_params) -> *mut et_params>,
    /// The parameters of a sealed set whose names fit one of `len` patterns (`*` stands for any text) as a set of its
    /// own: the same values and gradients, but `params_len`, steps, norms and `params_zero_grads` see these alone.
    /// Errors: NOT_FOUND naming a pattern that fits no trainable parameter, FAILED_PRECONDITION before `seal`.
    /// [one-at-a-time] since 0.2
    pub params_part: Option<
        unsafe extern "C" fn(
            params: *const et_params,
            patterns: *const et_str,
            len: usize,
            out: *mut *mut et_params,
        ) -> *mut et_error,
    >,
    /// Moves the values of `to` towards those of `from`, parameter by parameter of one name: to + factor (from - to).
    /// 1 copies, 0.001 follows slowly. Parameters that `from` has and `to` has not are left out. Errors: NOT_FOUND
    /// naming a parameter that `from` lacks, SHAPE. [one-at-a-time] since 0.2
    pub params_lerp: Option<
        unsafe extern "C" fn(
            to: *mut et_params,
            from: *const et_params,
            factor: f64,
        ) -> *mut et_error,
    >,
    /// Adds the gradients of `from`, times `factor`, to those of `to`, parameter by parameter of one name; those that
    /// no gradient has reached in `from` are left out. Both are sealed. Errors: NOT_FOUND, SHAPE,
    /// FAILED_PRECONDITION. [one-at-a-time] since 0.2
    pub params_add_grads: Option<
        unsafe extern "C" fn(
            to: *mut et_params,
            from: *const et_params,
            factor: f64,
        ) -> *mut et_error,
    >,
    /// The arena of a sealed set as a tensor [`params_arena_len`] that shares its memory: `which` is an `ET_ARENA_`
    /// constant. Gradients are settled: those that no pass has reached are zero, and count as having come. What is
    /// written to it (by reductions over machines) is what optimizers see. It is asked for anew before each time that
    /// values are written, because the call makes copies of them stale. Errors: FAILED_PRECONDITION before `seal`.
    /// [one-at-a-time] since 0.2
    pub params_arena: Option<
        unsafe extern "C" fn(
            params: *mut et_params,
            which: i32,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
}

/// Arguments of `layer_norm`: y = gamma * (h - mean) / sqrt(var + epsilon) + beta with h = residual + dropout(x),
/// over the last axis (Ba et al. 2016).
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_layer_norm {
    /// Bytes filled by the caller.
    pub struct_size: usize,
    /// Input [.., h].
    pub x: *const et_tensor,
    /// Added after dropout, same shape, or NULL.
    pub residual: *const et_tensor,
    /// Scale [h].
    pub gamma: *const et_tensor,
    /// Shift [h].
    pub beta: *const et_tensor,
    /// Added to the variance.
    pub epsilon: f64,
    /// Probability of dropping an element of `x`, in [0, 1); 0 when `rng` is NULL.
    pub dropout: f64,
    /// Source of the dropout numbers, or NULL.
    pub rng: *mut et_rng,
}

/// Arguments of `attention`: softmax(S) V per head, each token within its run (Vaswani et al. 2017), where
///
/// S[i, j] = scale (q_i k_j + p_i K[b] + k_j Q[b] + s[i, differ]) + bias[c].
///
/// All but the first product are there only if the caller gives them. K and Q are tables of positions, p the queries
/// of positions and s the scores of segments; b and c are the buckets of the distance `j - (i + lk - lq)` between
/// query `i` of the run's `lq` and key `j` of its `lk`: the last query stands where the last key does, as with a cache
/// of keys. A query that sees no key gives zeros.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_attention {
    /// Bytes filled by the caller. What lies beyond counts as 0 or NULL; what the host does not know must be 0.
    pub struct_size: usize,
    /// Queries [Tq, heads * d].
    pub query: *const et_tensor,
    /// Keys [Tk, heads * d].
    pub key: *const et_tensor,
    /// Values [Tk, heads * d].
    pub value: *const et_tensor,
    /// Cumulative lengths of the runs [B + 1] I64, of the queries.
    pub starts: *const et_tensor,
    /// Cumulative lengths of the runs of keys and values [B + 1] I64; NULL when they are those of the queries.
    pub key_starts: *const et_tensor,
    /// Number of heads; divides the last axis.
    pub heads: usize,
    /// Factor on the scores; 0 means 1 / sqrt(d).
    pub scale: f64,
    /// Probability of dropping an attention weight, in [0, 1); 0 when `rng` is NULL.
    pub dropout: f64,
    /// Source of the dropout numbers, or NULL.
    pub rng: *mut et_rng,
    /// 1 when a token may not look at later ones, else 0: keys of a greater distance than 0 are not seen.
    pub causal: i32,
    /// Must be 0.
    pub reserved: i32,
    /// Greatest distance, to either side, at which a key is seen; 0 for no limit.
    pub window: usize,
    /// Bias [buckets, heads] by distance (Raffel et al. 2020), or NULL. Not scaled.
    pub bias: *const et_tensor,
    /// Row of `bias` for each distance from -reach to reach, I64 [2 reach + 1]; greater ones count as reach.
    pub bias_buckets: *const et_tensor,
    /// Keys of positions [P, heads * d], which queries meet (Dai et al. 2019; He et al. 2021), or NULL.
    pub position_keys: *const et_tensor,
    /// The queries [Tq, heads * d] that meet `position_keys`; NULL when they are `query`.
    pub position_query: *const et_tensor,
    /// Queries of positions [P, heads * d], which keys meet, or NULL.
    pub position_queries: *const et_tensor,
    /// Row of `position_keys` and `position_queries` for each distance, as `bias_buckets`.
    pub position_buckets: *const et_tensor,
    /// Scores [Tq, heads, 2] of keys of the query's own segment and of other segments (Yang et al. 2019), or NULL.
    /// Scaled.
    pub segment_scores: *const et_tensor,
    /// Segments of the queries, I64 [Tq].
    pub segments: *const et_tensor,
    /// Segments of the keys, I64 [Tk]; NULL when they are those of the queries.
    pub key_segments: *const et_tensor,
    /// Places of the queries in an order, I64 [Tq], or NULL: keys of a later place are not seen.
    pub order: *const et_tensor,
    /// Places of the keys, I64 [Tk]; NULL when they are those of the queries.
    pub key_order: *const et_tensor,
    /// 1 when keys of the query's own place are seen, too, else 0.
    pub order_inclusive: i32,
    /// Must be 0.
    pub reserved_2: i32,
}

/// One optimizer step.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
#[derive(Clone, Copy)]
pub struct et_optim_step {
    /// Bytes filled by the caller.
    pub struct_size: usize,
    /// An `ET_OPTIM_` constant.
    pub kind: i32,
    /// SGD: 1 for Nesterov momentum, else 0.
    pub nesterov: i32,
    /// Learning rate; each parameter's `lr_scale` multiplies it.
    pub lr: f64,
    /// Weight decay for parameters that have it.
    pub weight_decay: f64,
    /// Decay of the first moment (Adam kinds).
    pub beta1: f64,
    /// Decay of the second moment (Adam kinds); Adafactor: exponent of the decay, -0.8.
    pub beta2: f64,
    /// Added to the denominator (Adam kinds); Adafactor: added to the squared gradient, 1e-30.
    pub epsilon: f64,
    /// SGD: momentum. Adafactor: clipping threshold, 1.
    pub momentum: f64,
    /// Number of this step, from 1.
    pub step: u64,
    /// First element of the arena that is changed.
    pub begin: usize,
    /// End of the elements that are changed; 0 for the end of the arena. LAMB and Adafactor want bounds between
    /// parameters. since 0.2
    pub end: usize,
}

/// `et.nn/1`: fused differentiable operations, written once per device in the engine. "Runs" are the rows of a batch
/// laid end to end; `starts` [B + 1] holds their cumulative lengths.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_host_nn {
    /// Bytes filled by the host.
    pub struct_size: usize,
    /// activation(x W^T + b) for x [.., i], W [o, i], b [o] or NULL, with an `ET_ACTIVATION_` constant. [any-thread]
    /// since 0.1
    pub linear: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            weight: *const et_tensor,
            bias: *const et_tensor,
            activation: i32,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Layer normalisation with residual and dropout. [any-thread] since 0.1
    pub layer_norm: Option<
        unsafe extern "C" fn(args: *const et_layer_norm, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    /// x / sqrt(mean(x^2) + epsilon) * gamma over the last axis (Zhang and Sennrich 2019). [any-thread] since 0.1
    pub rms_norm: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            gamma: *const et_tensor,
            epsilon: f64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Sum of `len` table look-ups: tables [rows_k, h] at ids_k [T] I64. Errors: INVALID_ARGUMENT naming position, id
    /// and rows. [any-thread] since 0.1
    pub embedding_sum: Option<
        unsafe extern "C" fn(
            tables: *const *const et_tensor,
            ids: *const *const et_tensor,
            len: usize,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Attention over runs. Errors: SHAPE, DTYPE, INVALID_ARGUMENT naming the member. [any-thread] since 0.1
    pub attention: Option<
        unsafe extern "C" fn(args: *const et_attention, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    /// Softmax over the last axis. [any-thread] since 0.1
    pub softmax: Option<
        unsafe extern "C" fn(x: *const et_tensor, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    /// Logarithm of softmax over the last axis. [any-thread] since 0.1
    pub log_softmax: Option<
        unsafe extern "C" fn(x: *const et_tensor, out: *mut *mut et_tensor) -> *mut et_error,
    >,
    /// Mean cross entropy of logits [N, C] and labels [N] I64, rows weighted by `weights` [N] or NULL; rows with
    /// `ignore_index` do not count; `smoothing` in [0, 1) spreads that mass over all classes. The result is a scalar,
    /// 0 when no row counts. [any-thread] since 0.1
    pub cross_entropy: Option<
        unsafe extern "C" fn(
            logits: *const et_tensor,
            labels: *const et_tensor,
            weights: *const et_tensor,
            ignore_index: i64,
            smoothing: f64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Mean binary cross entropy of logits and targets of one shape [N, C] or [N], rows weighted by `weights` [N] or
    /// NULL. [any-thread] since 0.1
    pub binary_cross_entropy: Option<
        unsafe extern "C" fn(
            logits: *const et_tensor,
            targets: *const et_tensor,
            weights: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Each element dropped with probability p and the rest divided by 1 - p; the identity when `rng` is NULL.
    /// [any-thread] since 0.1
    pub dropout: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            p: f64,
            rng: *mut et_rng,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// One vector per run, x [T, h] -> [B, h], by an `ET_POOL_` constant; an empty run gives zeros. [any-thread]
    /// since 0.1
    pub pool: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            starts: *const et_tensor,
            kind: i32,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Runs padded with zeros, x [T, h] -> [B, len, h]; longer runs are cut. [any-thread] since 0.1
    pub to_padded: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            starts: *const et_tensor,
            len: usize,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// The inverse of `to_padded`: [B, len, h] -> [T, h]; tokens past `len` are zeros. [any-thread] since 0.1
    pub from_padded: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            starts: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// 1-D convolution within each run with zero padding that keeps lengths: x [T, i], weight [o, i, k], bias [o] or
    /// NULL -> [T, o]. [any-thread] since 0.1
    pub conv1d: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            weight: *const et_tensor,
            bias: *const et_tensor,
            starts: *const et_tensor,
            dilation: usize,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// LSTM over runs (Hochreiter and Schmidhuber 1997; gates i, f, g, o): x [T, i], w_ih [4h, i], w_hh [4h, h],
    /// biases [4h] -> [T, h]; `reverse` 1 reads each run from its end. [any-thread] since 0.1
    pub lstm: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            w_ih: *const et_tensor,
            w_hh: *const et_tensor,
            b_ih: *const et_tensor,
            b_hh: *const et_tensor,
            starts: *const et_tensor,
            reverse: i32,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// GRU over runs (Cho et al. 2014; gates r, z, n); otherwise as `lstm` with 3h rows. [any-thread] since 0.1
    pub gru: Option<
        unsafe extern "C" fn(
            x: *const et_tensor,
            w_ih: *const et_tensor,
            w_hh: *const et_tensor,
            b_ih: *const et_tensor,
            b_hh: *const et_tensor,
            starts: *const et_tensor,
            reverse: i32,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Mean over runs of the negative log likelihood of a linear-chain CRF (Lafferty et al. 2001): emissions [T, C],
    /// tags [T] I64, transitions [C, C] (from, to), first [C], last [C]. [any-thread] since 0.1
    pub crf_loss: Option<
        unsafe extern "C" fn(
            emissions: *const et_tensor,
            tags: *const et_tensor,
            starts: *const et_tensor,
            transitions: *const et_tensor,
            first: *const et_tensor,
            last: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// The most probable tags [T] I64 of that CRF (Viterbi). No gradient. [any-thread] since 0.1
    pub crf_decode: Option<
        unsafe extern "C" fn(
            emissions: *const et_tensor,
            starts: *const et_tensor,
            transitions: *const et_tensor,
            first: *const et_tensor,
            last: *const et_tensor,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Fresh state of an optimizer kind for a sealed set, as named tensors that `optim_step` changes in place.
    /// [one-at-a-time] since 0.1
    pub optim_state: Option<
        unsafe extern "C" fn(
            params: *const et_params,
            kind: i32,
            out: *mut *mut et_map,
        ) -> *mut et_error,
    >,
    /// One step over the whole arena; parameters without a gradient are left alone. Errors: FAILED_PRECONDITION when
    /// not sealed, SHAPE when the state belongs to another set or kind. [one-at-a-time] since 0.1
    pub optim_step: Option<
        unsafe extern "C" fn(
            params: *mut et_params,
            state: *mut et_map,
            step: *const et_optim_step,
        ) -> *mut et_error,
    >,
    /// 1 if the opcode of a family ("unary", "binary", "compare", "reduce", "activation", "optim", "attention") works
    /// for that dtype on the present device, else 0. [any-thread] since 0.1
    pub supports:
        Option<unsafe extern "C" fn(family: *const c_char, opcode: i32, dtype: i32) -> i32>,
}
