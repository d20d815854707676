//! Operations with code of their own: any number of inputs and outputs, on the host's tape.

use crate::component::{ComponentRef, guard};
use crate::cuda::no_code;
use crate::host::{call, host, interface, missing, nothing, tables};
use crate::text::{borrow, view};
use crate::{Cuda, DType, Error, Lent, Result, Tensor};
use easytransfer_abi as abi;
use std::ffi::{CStr, c_void};
use std::ptr::{NonNull, null_mut, slice_from_raw_parts};

/// Type and shape of an output.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputSpec {
    /// Element type.
    pub dtype: DType,
    /// Extents, at most 8.
    pub shape: Vec<usize>,
}

/// A borrowed input: contiguous memory of the host, or of the card in [`Op::forward_cuda`].
pub struct InputView<'a> {
    view: &'a abi::et_view,
}

/// A borrowed output: contiguous memory of the host, or of the card in [`Op::forward_cuda`], to be filled.
pub struct OutputView<'a> {
    view: &'a abi::et_view,
}

fn extents(view: &abi::et_view) -> Vec<usize> {
    let rank = usize::try_from(view.rank).unwrap_or(0);
    if rank == 0 {
        return Vec::new();
    }
    // SAFETY: the host gives `rank` extents.
    unsafe { &*slice_from_raw_parts(view.shape, rank) }.iter().map(|&n| n as usize).collect()
}

fn memory<T: crate::Element>(view: &abi::et_view) -> Result<(*mut T, usize)> {
    if view.device_type != abi::ET_DEVICE_CPU {
        return Err(Error::new(abi::ET_ERR_DEVICE, "the view is not in host memory"));
    }
    if view.dtype != T::DTYPE as i32 {
        return Err(Error::new(
            abi::ET_ERR_DTYPE,
            format!("view: expected {:?}, found dtype {}", T::DTYPE, view.dtype),
        ));
    }
    let data = view.data.cast::<u8>().wrapping_add(view.byte_offset).cast::<T>();
    Ok((data, extents(view).iter().product()))
}

/// Place of the first element in the card's memory.
fn address(view: &abi::et_view) -> Result<u64> {
    if view.device_type != abi::ET_DEVICE_CUDA {
        return Err(Error::new(abi::ET_ERR_DEVICE, "the view is not in a card's memory"));
    }
    Ok(view.data as u64 + view.byte_offset as u64)
}

impl InputView<'_> {
    /// Place of the first element in the card's memory. Errors: the view is in host memory.
    pub fn address(&self) -> Result<u64> {
        address(self.view)
    }

    /// Element type.
    pub fn dtype(&self) -> Result<DType> {
        dtype(self.view.dtype)
    }

    /// Extents.
    pub fn shape(&self) -> Vec<usize> {
        extents(self.view)
    }

    /// Elements, row-major. Errors when `T` is not the element type.
    pub fn as_slice<T: crate::Element>(&self) -> Result<&[T]> {
        let (data, len) = memory::<T>(self.view)?;
        // SAFETY: without ET_OP_ACCEPTS_STRIDED inputs are contiguous, and they are borrowed for the call.
        Ok(if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(data, len) } })
    }
}

impl OutputView<'_> {
    /// Place of the first element in the card's memory. Errors: the view is in host memory.
    pub fn address(&self) -> Result<u64> {
        address(self.view)
    }

    /// Extents.
    pub fn shape(&self) -> Vec<usize> {
        extents(self.view)
    }

    /// Elements, row-major, to be filled.
    pub fn as_mut_slice<T: crate::Element>(&mut self) -> Result<&mut [T]> {
        let (data, len) = memory::<T>(self.view)?;
        // SAFETY: outputs are contiguous, allocated by the host for this call and not shared.
        Ok(if len == 0 { &mut [] } else { unsafe { std::slice::from_raw_parts_mut(data, len) } })
    }
}

/// An operation on the CPU, and if [`Op::CUDA`] says so on a card.
pub trait Op: Send + Sync + 'static {
    /// Name, for instance `c"cube"`.
    const NAME: &'static CStr;
    /// Number of inputs.
    const INPUTS: usize;
    /// Number of outputs.
    const OUTPUTS: usize;
    /// Whether there is [`Op::forward_cuda`]. Without it an engine on a card copies the inputs to the host and back.
    const CUDA: bool = false;

    /// Type and shape of each output from those of the inputs.
    fn infer(&self, inputs: &[OutputSpec]) -> Result<Vec<OutputSpec>>;

    /// Computes the outputs.
    fn forward(&self, inputs: &[InputView<'_>], outputs: &mut [OutputView<'_>]) -> Result<()>;

    /// Computes the outputs on a card: puts kernels on its stream and does not wait for them. Inputs of integer types
    /// are brought there.
    fn forward_cuda(
        &self,
        _cuda: &Cuda,
        _inputs: &[InputView<'_>],
        _outputs: &mut [OutputView<'_>],
    ) -> Result<()> {
        Err(no_code(Self::NAME))
    }

    /// Gradient of each input from those of the outputs (`None` where none arrived), by tensor operations.
    fn backward(
        &self,
        inputs: &[&Tensor],
        outputs: &[&Tensor],
        output_grads: &[Option<&Tensor>],
    ) -> Result<Vec<Option<Tensor>>>;
}

/// The C table of an operation.
#[doc(hidden)]
pub struct OpTable<T>(std::marker::PhantomData<T>);

/// Tensors lent by the host.
unsafe fn lend<'a>(raw: *const *const abi::et_tensor, len: usize) -> Vec<Option<Lent<'a, Tensor>>> {
    // SAFETY: the host gives `len` pointers, each NULL or live for the call.
    (0..len).map(|i| unsafe { Tensor::lend((*raw.add(i)).cast_mut()) }.ok()).collect()
}

fn expect_all<'a>(tensors: &'a [Option<Lent<'_, Tensor>>]) -> Result<Vec<&'a Tensor>> {
    tensors.iter().map(|t| t.as_deref().ok_or_else(|| Error::invalid("a tensor is NULL"))).collect()
}

impl<T: Op> OpTable<T> {
    #[doc(hidden)]
    pub const TABLE: &'static abi::et_plugin_op = &abi::et_plugin_op {
        struct_size: size_of::<abi::et_plugin_op>(),
        name: T::NAME.as_ptr(),
        flags: abi::ET_OP_HAS_BACKWARD | if T::CUDA { abi::ET_OP_HAS_CUDA } else { 0 },
        inputs_len: T::INPUTS as u32,
        outputs_len: T::OUTPUTS as u32,
        reserved: 0,
        infer: Some(Self::infer),
        forward: Some(Self::forward),
        backward: Some(Self::backward),
    };

    unsafe extern "C" fn infer(
        state: *mut c_void,
        inputs: *const *const abi::et_view,
        dtypes: *mut i32,
        ranks: *mut i32,
        shapes: *const *mut i64,
    ) -> *mut abi::et_error {
        guard(|| {
            // SAFETY: the host passes the op's state, INPUTS views, and room for OUTPUTS results of up to 8 extents.
            unsafe {
                let op = &*state.cast::<T>();
                let inputs: Vec<OutputSpec> = (0..T::INPUTS)
                    .map(|i| {
                        let view = &**inputs.add(i);
                        Ok(OutputSpec { dtype: dtype(view.dtype)?, shape: extents(view) })
                    })
                    .collect::<Result<_>>()?;
                let outputs = op.infer(&inputs)?;
                if outputs.len() != T::OUTPUTS || outputs.iter().any(|o| o.shape.len() > 8) {
                    return Err(Error::invalid(format!(
                        "{}: infer must answer with {} outputs of at most 8 axes",
                        T::NAME.to_string_lossy(),
                        T::OUTPUTS
                    )));
                }
                for (i, output) in outputs.iter().enumerate() {
                    *dtypes.add(i) = output.dtype as i32;
                    *ranks.add(i) = output.shape.len() as i32;
                    for (axis, &extent) in output.shape.iter().enumerate() {
                        *(*shapes.add(i)).add(axis) = extent as i64;
                    }
                }
                Ok(())
            }
        })
    }

    unsafe extern "C" fn forward(raw: *const abi::et_op_call) -> *mut abi::et_error {
        guard(|| {
            // SAFETY: the host passes a valid call with as many views as it says.
            unsafe {
                let raw = &*raw;
                let op = &*raw.state.cast::<T>();
                let inputs: Vec<_> =
                    (0..raw.inputs_len).map(|i| InputView { view: &**raw.inputs.add(i) }).collect();
                let mut outputs: Vec<_> = (0..raw.outputs_len)
                    .map(|i| OutputView { view: &**raw.outputs.add(i) })
                    .collect();
                if raw.stream.is_null() {
                    return op.forward(&inputs, &mut outputs);
                }
                let cuda = Cuda::find().ok_or_else(|| {
                    Error::new(abi::ET_ERR_UNIMPLEMENTED, "this host has no interface et.cuda/1")
                })?;
                op.forward_cuda(&cuda, &inputs, &mut outputs)
            }
        })
    }

    unsafe extern "C" fn backward(
        state: *mut c_void,
        inputs: *const *const abi::et_tensor,
        outputs: *const *const abi::et_tensor,
        output_grads: *const *const abi::et_tensor,
        input_grads: *mut *mut abi::et_tensor,
    ) -> *mut abi::et_error {
        guard(|| {
            // SAFETY: the host passes the op's state, INPUTS inputs, OUTPUTS outputs and gradients, and room for
            // INPUTS results.
            unsafe {
                let op = &*state.cast::<T>();
                let inputs = lend(inputs, T::INPUTS);
                let outputs = lend(outputs, T::OUTPUTS);
                let output_grads = lend(output_grads, T::OUTPUTS);
                let output_grads: Vec<_> = output_grads.iter().map(Option::as_deref).collect();
                let grads =
                    op.backward(&expect_all(&inputs)?, &expect_all(&outputs)?, &output_grads)?;
                if grads.len() != T::INPUTS {
                    return Err(Error::invalid(format!(
                        "{}: backward must answer with {} gradients, found {}",
                        T::NAME.to_string_lossy(),
                        T::INPUTS,
                        grads.len()
                    )));
                }
                for (i, grad) in grads.into_iter().enumerate() {
                    *input_grads.add(i) = grad.map_or(null_mut(), Tensor::into_raw);
                }
                Ok(())
            }
        })
    }
}

fn dtype(code: i32) -> Result<DType> {
    use DType::{Bf16, F16, F32, F64, I64, U8, U32};
    [U8, U32, I64, Bf16, F16, F32, F64]
        .into_iter()
        .find(|d| *d as i32 == code)
        .ok_or_else(|| Error::new(abi::ET_ERR_DTYPE, format!("dtype {code} is not known")))
}

/// An operation from a registry, as the host uses it, or another plugin ([`find_op`]). It was found by its name, so it
/// has no state of its own.
pub struct LoadedOp {
    table: &'static abi::et_plugin_op,
    /// Name and plugin, as messages have them.
    who: String,
}

// SAFETY: the table is an immutable static, and its functions may be called on any thread.
unsafe impl Send for LoadedOp {}
// SAFETY: as above.
unsafe impl Sync for LoadedOp {}

impl LoadedOp {
    /// Takes the operation of a component. Errors: the component is of another kind.
    pub fn create(component: &ComponentRef) -> Result<Self> {
        Ok(Self { table: component.table("et.op/1")?, who: component.who() })
    }

    /// Number of inputs and of outputs.
    pub fn arity(&self) -> (usize, usize) {
        (self.table.inputs_len as usize, self.table.outputs_len as usize)
    }

    /// Whether gradients flow through it.
    pub fn has_backward(&self) -> bool {
        self.table.flags & abi::ET_OP_HAS_BACKWARD != 0
    }

    /// Computes the outputs and records the operation on the tape. Errors: another number of inputs than the
    /// operation has; its own.
    pub fn apply(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let (inputs_len, outputs_len) = self.arity();
        if inputs.len() != inputs_len {
            return Err(Error::invalid(format!(
                "{}: expected {inputs_len} inputs, found {}",
                self.who,
                inputs.len()
            )));
        }
        // `export!` takes operations of size zero only: any address that is not NULL is one of them.
        let state = NonNull::<u128>::dangling().as_ptr().cast();
        apply_table(self.table, state, inputs, outputs_len)
            .map_err(|error| error.context(&self.who))
    }
}

/// The operation of that name that some plugin of the host offers. Not while plugins are being loaded. Errors:
/// NOT_FOUND naming the nearest name; UNIMPLEMENTED in a host without a registry.
pub fn find_op(name: &str) -> Result<LoadedOp> {
    const ID: &CStr = c"et.registry/1";
    // SAFETY: the id names the table type.
    let registry: Option<&'static abi::et_host_registry> = unsafe { interface(host(), ID) };
    let registry = registry.ok_or_else(|| missing("et.registry/1"))?;
    let mut out = std::ptr::null();
    call!(registry, et_host_registry.op(borrow(name), &mut out))?;
    // SAFETY: on success the out holds a table that lives until the process ends.
    match unsafe { out.as_ref() } {
        Some(table) => Ok(LoadedOp { table, who: format!("op {name}") }),
        None => Err(nothing("operation")),
    }
}

/// How a host finds operations for its plugins.
pub trait OpRegistry {
    /// The operation of that name. Errors: NOT_FOUND naming the nearest name.
    fn op(name: &str) -> Result<ComponentRef>;
}

/// The table `et.registry/1` of a host.
pub struct RegistryTable<T>(std::marker::PhantomData<T>);

impl<T: OpRegistry> RegistryTable<T> {
    /// The table.
    pub const TABLE: &'static abi::et_host_registry = &abi::et_host_registry {
        struct_size: size_of::<abi::et_host_registry>(),
        op: Some(Self::op),
    };

    unsafe extern "C" fn op(
        name: abi::et_str,
        out: *mut *const abi::et_plugin_op,
    ) -> *mut abi::et_error {
        guard(|| {
            if out.is_null() {
                return Err(Error::invalid("registry: the out pointer is NULL"));
            }
            // SAFETY: the caller lends the text for the call.
            let component = T::op(unsafe { view(name) }?)?;
            let table: &'static abi::et_plugin_op = component.table("et.op/1")?;
            // SAFETY: not NULL, and writable by the boundary's contract.
            unsafe { out.write(table) };
            Ok(())
        })
    }
}

/// Refuses an operation with a state in `export!`: who finds it by its name has none to give.
#[doc(hidden)]
pub const fn stateless<T: Op>() -> &'static abi::et_plugin_op {
    assert!(size_of::<T>() == 0, "an exported operation is found by its name and has no state");
    OpTable::<T>::TABLE
}

/// Runs an operation and records it on the tape. The operation must be a `static`: the tape keeps referring to it.
pub fn apply<T: Op>(op: &'static T, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    apply_table(OpTable::<T>::TABLE, std::ptr::from_ref(op).cast_mut().cast(), inputs, T::OUTPUTS)
}

fn apply_table(
    table: &'static abi::et_plugin_op,
    state: *mut c_void,
    inputs: &[&Tensor],
    outputs_len: usize,
) -> Result<Vec<Tensor>> {
    let raw: Vec<_> = inputs.iter().map(|t| t.as_raw().cast_const()).collect();
    let mut outputs = vec![null_mut(); outputs_len];
    call!(
        tables().autograd,
        et_host_autograd.apply_op(table, state, raw.as_ptr(), raw.len(), outputs.as_mut_ptr())
    )?;
    // SAFETY: on success every out holds an owned reference.
    outputs.into_iter().map(|raw| unsafe { Tensor::from_raw(raw) }).collect()
}
